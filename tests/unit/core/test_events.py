"""A reply said as events and collected again is the same reply; a cut one is known to be incomplete."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.core.events import (
    Ended,
    Event,
    Finished,
    PartDelta,
    PartEnded,
    PartStarted,
    Started,
    UsageReported,
    collect_reply,
    replay_reply,
)
from nightkeep.core.messages import (
    CacheMark,
    Media,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Reply,
    StopReason,
    Text,
    ToolCall,
    Usage,
)

words = st.text(max_size=30)
maybe_words = st.none() | st.text(min_size=1, max_size=30)
counts = st.integers(min_value=0, max_value=10**7)
raw: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    words, st.integers() | words | st.booleans() | st.none(), max_size=3
)
parts: st.SearchStrategy[Part] = st.one_of(
    st.builds(
        Text,
        text=words,
        cache=st.none() | st.builds(CacheMark, ttl=st.sampled_from([None, "5m", "1h"])),
        citations=st.lists(raw, max_size=2).map(tuple),
    ),
    st.builds(Reasoning, text=words, signature=maybe_words, encrypted=maybe_words, id=maybe_words),
    st.builds(Refusal, text=words),
    st.builds(
        ToolCall,
        id=words,
        name=words,
        arguments=st.text(min_size=1, max_size=30),
        signature=maybe_words,
        cache=st.none(),
    ),
    st.builds(Media, kind=st.sampled_from(["image", "audio"]), data=maybe_words, url=maybe_words),
    st.builds(Opaque, wire=words, kind=words, raw=raw),
)
usages = st.builds(
    Usage,
    input=counts,
    cache_read=counts,
    cache_write_5m=counts,
    cache_write_1h=counts,
    output=counts,
    reasoning=counts,
)
replies = st.builds(
    Reply,
    id=words,
    model=words,
    parts=st.lists(parts, max_size=5).map(tuple),
    stop=st.sampled_from(StopReason),
    stop_detail=maybe_words,
    usage=st.none() | usages,
    created=st.none() | st.integers(min_value=0, max_value=2**40),
    is_complete=st.booleans(),
)


@given(replies)
def test_a_reply_said_as_events_and_collected_is_the_same_reply(reply: Reply) -> None:
    assert collect_reply(replay_reply(reply)) == reply


@given(replies)
def test_the_parts_of_a_replay_begin_and_end_in_order(reply: Reply) -> None:
    events = replay_reply(reply)
    assert isinstance(events[0], Started)
    assert [each.index for each in events if isinstance(each, PartStarted)] == list(range(len(reply.parts)))
    assert [each.index for each in events if isinstance(each, PartEnded)] == list(range(len(reply.parts)))


@given(replies, st.data())
def test_a_reply_whose_events_are_cut_anywhere_is_never_called_complete(reply: Reply, data: st.DataObject) -> None:
    events = replay_reply(msgspec.structs.replace(reply, is_complete=True))
    length = data.draw(st.integers(min_value=0, max_value=len(events) - 1))
    assert not collect_reply(events[:length]).is_complete


@given(replies, st.data())
def test_text_is_the_same_however_it_was_cut_into_deltas(reply: Reply, data: st.DataObject) -> None:
    events: list[Event] = []
    for event in replay_reply(reply):
        if isinstance(event, PartDelta):
            at = data.draw(st.integers(min_value=0, max_value=len(event.text)))
            events += [PartDelta(event.index, event.text[:at]), PartDelta(event.index, event.text[at:])]
        else:
            events.append(event)
    assert collect_reply(events) == reply


@given(replies)
def test_events_survive_being_written_down(reply: Reply) -> None:
    events = replay_reply(reply)
    assert msgspec.json.decode(msgspec.json.encode(events), type=list[Event]) == events


def test_the_latest_usage_holds() -> None:
    events: list[Event] = [
        Started("1", "m"),
        UsageReported(Usage(input=1)),
        UsageReported(Usage(input=1, output=9)),
        Finished(StopReason.END),
        Ended(),
    ]
    assert collect_reply(events).usage == Usage(input=1, output=9)


def test_parts_that_arrive_interleaved_are_put_in_the_order_of_their_numbers() -> None:
    events: list[Event] = [
        PartStarted(1, "tool_call", ToolCall(id="b", name="g", arguments="")),
        PartStarted(0, "tool_call", ToolCall(id="a", name="f", arguments="")),
        PartDelta(1, '{"x":'),
        PartDelta(0, "{}"),
        PartDelta(1, "1}"),
    ]
    assert collect_reply(events).parts == (
        ToolCall(id="a", name="f", arguments="{}"),
        ToolCall(id="b", name="g", arguments='{"x":1}'),
    )


def test_a_tool_call_without_arguments_is_an_empty_object() -> None:
    events: list[Event] = [PartStarted(0, "tool_call", ToolCall(id="a", name="f", arguments="")), PartEnded(0)]
    assert collect_reply(events).parts == (ToolCall(id="a", name="f", arguments="{}"),)


def test_a_signature_that_comes_at_the_end_completes_the_thought() -> None:
    events: list[Event] = [PartStarted(0, "reasoning"), PartDelta(0, "hm"), PartEnded(0, signature="s", encrypted="e")]
    assert collect_reply(events).parts == (Reasoning(text="hm", signature="s", encrypted="e"),)


@given(usages)
def test_no_token_is_counted_twice(usage: Usage) -> None:
    assert usage.total == sum(msgspec.structs.astuple(usage))
