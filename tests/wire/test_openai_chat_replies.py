"""Chat Completions streams as the vendors really write them: bytes in, events out."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from nightkeep.core.events import (
    Ended,
    Event,
    Failed,
    Finished,
    PartDelta,
    PartEnded,
    PartStarted,
    Started,
    Unknown,
    UsageReported,
    collect_reply,
)
from nightkeep.core.messages import Opaque, Reasoning, Refusal, Reply, StopReason, Text, ToolCall, Usage
from nightkeep.models.wire.openai_chat import OpenaiChatCodec
from nightkeep.models.wire.sse import FrameReader

CODEC = OpenaiChatCodec()
RECORDINGS = Path(__file__).parent / "recordings" / "openai"


def recording(name: str) -> str:
    return (RECORDINGS / f"{name}.sse").read_text()


def events_of(stream: str) -> list[Event]:
    decoder = CODEC.decoder()
    events: list[Event] = []
    for frame in FrameReader().feed(stream.encode()):
        if frame.data is not None:
            events += decoder.feed(frame.data)
    return events + decoder.close()


def reply_of(stream: str) -> Reply:
    return collect_reply(events_of(stream))


OPENAI = recording("chat_openai")


def test_an_openai_stream_is_read_event_by_event() -> None:
    assert events_of(OPENAI) == [
        Started("chatcmpl-Ck1", "gpt-4o-2024-08-06", 1763600000),
        PartStarted(0, "text"),
        PartDelta(0, "Hello"),
        PartDelta(0, " there"),
        PartEnded(0),
        Finished(StopReason.END),
        UsageReported(Usage(input=12, cache_read=8, output=7, reasoning=5)),
        Ended(),
    ]


def test_the_usage_chunk_is_one_event_so_that_the_gateway_can_hide_it() -> None:
    decoder = CODEC.decoder()
    payloads = [frame.data for frame in FrameReader().feed(OPENAI.encode()) if frame.data is not None]
    read = [decoder.feed(payload) for payload in payloads]
    assert [type(event) for event in read[-2]] == [UsageReported]


DEEPSEEK = recording("chat_deepseek")


def test_deepseek_thinks_before_it_speaks_and_tells_usage_with_the_finish() -> None:
    reply = reply_of(DEEPSEEK)
    assert reply.parts == (Reasoning(text="Let me see."), Text(text="42"))
    assert reply.usage == Usage(input=17, output=4, reasoning=26)
    assert reply.stop is StopReason.END and reply.is_complete


OPENROUTER = recording("chat_openrouter")


def test_openrouter_names_thoughts_reasoning_and_sends_usage_after_the_finish() -> None:
    reply = reply_of(OPENROUTER)
    assert reply.parts == (Reasoning(text="Hm"), Text(text="Yes"))
    assert reply.usage == Usage(input=50, cache_read=40, cache_write_5m=10, output=5, reasoning=4)
    assert reply.stop is StopReason.END and reply.is_complete


def test_openrouter_tells_an_error_in_mid_stream() -> None:
    stream = OPENROUTER.partition('data: {"id":"gen-1","provider":"Anthropic"')[0] + (
        'data: {"id":"gen-1","object":"chat.completion.chunk","created":1,"model":"m","provider":"p","error":'
        '{"code":502,"message":"Provider disconnected"},"choices":[{"index":0,"delta":{"content":""},'
        '"finish_reason":"error"}]}\n\n'
    )
    assert events_of(stream)[-1] == Failed("502", "Provider disconnected", 502)
    assert not collect_reply(events_of(stream)).is_complete


GROQ = recording("chat_groq")


def test_groq_sends_calls_whole_and_usage_under_its_own_name() -> None:
    reply = reply_of(GROQ)
    assert reply.parts == (
        ToolCall(id="call_a", name="weather", arguments='{"city":"Oslo"}'),
        ToolCall(id="call_b", name="weather", arguments='{"city":"Bergen"}'),
    )
    assert reply.usage == Usage(input=38, output=30)
    assert reply.stop is StopReason.TOOL_CALLS


VLLM = recording("chat_vllm")


def test_vllm_tells_which_stop_sequence_was_hit() -> None:
    reply = reply_of(VLLM)
    assert (reply.stop, reply.stop_detail) == (StopReason.STOP_SEQUENCE, "END")
    assert reply.usage == Usage(input=5, output=2)


LM_STUDIO = recording("chat_lm_studio")


def test_a_finish_without_done_is_a_whole_stream() -> None:
    reply = reply_of(LM_STUDIO)
    assert reply.is_complete and reply.created == 1763600005
    assert reply.parts == (Text(text="Hi"),)


def test_a_stream_that_breaks_before_its_finish_is_not_whole() -> None:
    assert not reply_of(LM_STUDIO.partition("\n\n")[0] + "\n\n").is_complete


def test_done_is_told_once_even_when_the_connection_closes_after_it() -> None:
    assert events_of(OPENAI).count(Ended()) == 1


AZURE = recording("chat_azure")


def test_azure_begins_with_its_filter_results_and_may_stop_for_content() -> None:
    reply = reply_of(AZURE)
    assert (reply.id, reply.model) == ("chatcmpl-az", "gpt-4o")
    assert reply.stop is StopReason.REFUSAL and reply.is_complete


def chunk(delta: object, finish: str | None = None, **extra: object) -> str:
    body = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **extra}
    return f"data: {msgspec.json.encode(body).decode()}\n\n"


def call(index: int | None, arguments: str | dict[str, object], **extra: object) -> dict[str, object]:
    name = extra.pop("name", None)
    function: dict[str, object] = {"arguments": arguments} | ({"name": name} if name else {})
    return {"function": function} | ({} if index is None else {"index": index}) | extra


def calls_of(stream: str) -> list[tuple[str, str, str]]:
    parts = reply_of(stream + chunk({}, "tool_calls") + "data: [DONE]\n\n").parts
    return [(part.id, part.name, part.arguments) for part in parts if isinstance(part, ToolCall)]


def test_parallel_calls_may_come_in_turns() -> None:
    stream = (
        chunk({"tool_calls": [call(0, "", id="a", name="f"), call(1, "", id="b", name="g")]})
        + chunk({"tool_calls": [call(0, '{"x"')]})
        + chunk({"tool_calls": [call(1, '{"y"')]})
        + chunk({"tool_calls": [call(0, ":1}"), call(1, ":2}")]})
    )
    assert calls_of(stream) == [("a", "f", '{"x":1}'), ("b", "g", '{"y":2}')]


def test_a_repeated_id_goes_on_with_the_same_call() -> None:
    stream = chunk({"tool_calls": [call(0, '{"x"', id="a", name="f")]}) + chunk(
        {"tool_calls": [call(0, ":1}", id="a", name="f")]}
    )
    assert calls_of(stream) == [("a", "f", '{"x":1}')]


def test_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    stream = (
        chunk({"tool_calls": [call(None, '{"x"', id="a", name="f")]})
        + chunk({"tool_calls": [call(None, ":1}")]})
        + chunk({"tool_calls": [call(None, "{}", id="b", name="g")]})
    )
    assert calls_of(stream) == [("a", "f", '{"x":1}'), ("b", "g", "{}")]


def test_whole_calls_that_all_claim_the_first_index_are_told_apart() -> None:
    stream = chunk({"tool_calls": [call(0, '{"x":1}', id="a", name="f")]}) + chunk(
        {"tool_calls": [call(0, '{"y":2}', id="b", name="g")]}
    )
    assert calls_of(stream) == [("a", "f", '{"x":1}'), ("b", "g", '{"y":2}')]


def test_arguments_as_an_object_and_a_missing_id_are_made_good() -> None:
    [(call_id, name, arguments)] = calls_of(chunk({"tool_calls": [call(0, {"x": 1}, name="f")]}))
    assert call_id and (name, arguments) == ("f", '{"x":1}')


def test_text_between_the_pieces_of_a_call_does_not_break_it() -> None:
    stream = (
        chunk({"tool_calls": [call(0, '{"x"', id="a", name="f")]})
        + chunk({"content": "hm"})
        + chunk({"tool_calls": [call(0, ":1}")]})
    )
    assert calls_of(stream) == [("a", "f", '{"x":1}')]


def test_a_legacy_function_call_is_a_tool_call() -> None:
    stream = chunk({"function_call": {"name": "f", "arguments": ""}}) + chunk({"function_call": {"arguments": "{}"}})
    reply = reply_of(stream + chunk({}, "function_call") + "data: [DONE]\n\n")
    assert [(part.name, part.arguments) for part in reply.parts if isinstance(part, ToolCall)] == [("f", "{}")]
    assert reply.stop is StopReason.TOOL_CALLS


def test_stop_after_calls_means_that_tools_are_wanted() -> None:
    stream = chunk({"tool_calls": [call(0, "{}", id="a", name="f")]}) + chunk({}, "stop") + "data: [DONE]\n\n"
    assert reply_of(stream).stop is StopReason.TOOL_CALLS


def test_a_refusal_is_the_models_own_words() -> None:
    reply = reply_of(chunk({"refusal": "I can"}) + chunk({"refusal": "not."}) + chunk({}, "stop") + "data: [DONE]\n\n")
    assert reply.parts == (Refusal(text="I cannot."),)
    assert reply.stop is StopReason.REFUSAL


def test_mistrals_list_of_thoughts_and_text_is_read() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}
    stream = chunk({"content": [thinking]}) + chunk({"content": [{"type": "text", "text": "Yes"}]}) + chunk({}, "stop")
    assert reply_of(stream).parts == (Reasoning(text="Hm"), Text(text="Yes"))


def test_an_unknown_finish_reason_keeps_the_vendors_word() -> None:
    finished = events_of(chunk({}, "insufficient_system_resource"))[-2]
    assert finished == Finished(StopReason.OTHER, "insufficient_system_resource")


def test_only_the_first_of_several_choices_is_told() -> None:
    second = '{"id":"c","choices":[{"index":1,"delta":{"content":"other"},"finish_reason":"stop"}]}'
    stream = chunk({"content": "one"}) + f"data: {second}\n\n" + chunk({}, "stop")
    assert reply_of(stream).parts == (Text(text="one"),)


def test_what_only_this_wire_knows_is_told_as_unknown() -> None:
    events = events_of(chunk({"content": "a", "annotations": [{"type": "url_citation"}]}))
    assert Unknown("annotations", {"annotations": [{"type": "url_citation"}]}) in events


@pytest.mark.parametrize(
    "payload", [b"{", b'"text"', b'{"choices":7}', b'{"choices":[{"delta":{"content":7}}]}', b"\xff", b"<html>"]
)
def test_nonsense_is_an_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not a chunk of openai_chat"):
        CODEC.decoder().feed(payload)


@pytest.mark.parametrize("payload", [b"{}", b'{"choices":null}', b'{"choices":[{"delta":null}]}', b'{"object":"x"}'])
def test_chunks_that_say_nothing_are_no_error(payload: bytes) -> None:
    assert not [event for event in CODEC.decoder().feed(payload) if not isinstance(event, Started)]


WHOLE = {
    "id": "chatcmpl-w",
    "object": "chat.completion",
    "created": 1763600007,
    "model": "gpt-5-2025-08-07",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Looking.",
                "refusal": None,
                "annotations": [],
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "b", "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}},
                ],
            },
            "logprobs": None,
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    "service_tier": "default",
}


def test_a_whole_completion_is_the_same_events_at_once() -> None:
    reply = collect_reply(CODEC.decoder().whole(msgspec.json.encode(WHOLE)))
    custom = {"id": "b", "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}}
    assert reply.parts == (
        Text(text="Looking."),
        ToolCall(id="a", name="f", arguments="{}"),
        Opaque(wire="openai_chat", kind="custom", raw=custom),
    )
    assert reply.stop is StopReason.TOOL_CALLS and reply.is_complete
    assert reply.usage == Usage(input=9, output=3)


def test_a_whole_error_in_a_200_is_a_failure() -> None:
    body = b'{"error":{"message":"Rate limit exceeded","code":429,"metadata":{}},"user_id":"u"}'
    assert CODEC.decoder().whole(body) == [Failed("429", "Rate limit exceeded", 429)]


def test_a_body_that_is_no_completion_is_an_error() -> None:
    with pytest.raises(ValueError, match="no choices"):
        CODEC.decoder().whole(b'{"object":"list","data":[]}')
