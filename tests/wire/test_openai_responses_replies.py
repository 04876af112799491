"""Responses streams and objects: bytes in, events out; compatible vendors that leave events out are read too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
from nightkeep.models.wire.openai_responses import OpenaiResponsesCodec
from nightkeep.models.wire.sse import FrameReader

CODEC = OpenaiResponsesCodec()
RECORDED = (Path(__file__).parent / "recordings" / "openai" / "responses_reasoning_and_call.sse").read_bytes()
PARTS = (
    Reasoning(text="**Looking up**\n\nTwo cities", encrypted="gAAAA-final", id="rs_68b0"),
    Text(text="I look."),
    ToolCall(id="call_A", name="weather", arguments='{"city":"Oslo"}'),
)
USAGE = Usage(input=17, cache_read=64, output=16, reasoning=44)


def events_of(stream: bytes) -> list[Event]:
    decoder = CODEC.decoder()
    events: list[Event] = []
    for frame in FrameReader().feed(stream):
        if frame.data is not None:
            events += decoder.feed(frame.data)
    return events + decoder.close()


def fed(*payloads: dict[str, Any]) -> list[Event]:
    decoder = CODEC.decoder()
    return [event for payload in payloads for event in decoder.feed(msgspec.json.encode(payload))]


def test_a_recorded_stream_is_read_event_by_event() -> None:
    assert events_of(RECORDED) == [
        Started("resp_68af", "gpt-5-2025-08-07", 1763600010),
        PartStarted(0, "reasoning", Reasoning(id="rs_68b0")),
        PartDelta(0, "**Looking"),
        PartDelta(0, " up**"),
        PartDelta(0, "\n\n"),
        PartDelta(0, "Two cities"),
        PartEnded(0, None, "gAAAA-final"),
        PartStarted(1, "text"),
        PartDelta(1, "I "),
        PartDelta(1, "look."),
        PartEnded(1),
        PartStarted(2, "tool_call", ToolCall(id="call_A", name="weather", arguments="")),
        PartDelta(2, '{"city":'),
        PartDelta(2, '"Oslo"}'),
        PartEnded(2),
        UsageReported(USAGE),
        Finished(StopReason.TOOL_CALLS),
        Ended(),
    ]


def final_object() -> dict[str, Any]:
    last = [frame.data for frame in FrameReader().feed(RECORDED) if frame.data is not None][-1]
    response: dict[str, Any] = msgspec.json.decode(last)["response"]
    return response


def test_a_whole_response_is_the_same_reply() -> None:
    reply = collect_reply(CODEC.decoder().whole(msgspec.json.encode(final_object())))
    assert reply == collect_reply(events_of(RECORDED))
    assert (reply.parts, reply.usage, reply.stop) == (PARTS, USAGE, StopReason.TOOL_CALLS)


@pytest.mark.parametrize("dropped", ["delta", "part", "arguments", "item", "text"])
def test_whatever_events_a_vendor_leaves_out_the_reply_is_the_same(dropped: str) -> None:
    """The final object says it all, so nothing may be missing and nothing told twice."""
    frames = [frame for frame in FrameReader().feed(RECORDED) if frame.data is not None]
    kept = [frame.raw for frame in frames if dropped not in msgspec.json.decode(frame.data or b"{}")["type"]]
    reply: Reply = collect_reply(events_of(b"".join(kept)))
    assert "".join(part.text for part in reply.parts if isinstance(part, Text)) == "I look."
    assert [part.arguments for part in reply.parts if isinstance(part, ToolCall)] == ['{"city":"Oslo"}']
    assert reply.is_complete and reply.usage == USAGE


@pytest.mark.parametrize(
    ("reason", "stop"),
    [
        ("max_output_tokens", StopReason.MAX_TOKENS),
        ("content_filter", StopReason.REFUSAL),
        ("steered", StopReason.OTHER),
    ],
)
def test_an_incomplete_response_says_why(reason: str, stop: StopReason) -> None:
    response = {"id": "r", "status": "incomplete", "incomplete_details": {"reason": reason}, "output": []}
    events = fed({"type": "response.incomplete", "response": response})
    assert events[-2:] == [Finished(stop, reason if stop is StopReason.OTHER else None), Ended()]


def test_a_failed_response_is_a_failure() -> None:
    error = {"code": "rate_limit_exceeded", "message": "Slow down."}
    events = fed({"type": "response.failed", "response": {"id": "r", "status": "failed", "error": error}})
    assert events == [Failed("rate_limit_exceeded", "Slow down.", 429)]


@pytest.mark.parametrize(
    "payload",
    [
        {"type": "error", "code": "server_error", "message": "Oops", "param": None, "sequence_number": 3},
        {"type": "error", "error": {"type": "server_error", "code": "server_error", "message": "Oops"}},
    ],
)
def test_an_error_event_is_a_failure_in_both_of_its_forms(payload: dict[str, Any]) -> None:
    assert fed(payload) == [Failed("server_error", "Oops", 500)]


def test_a_refusal_is_the_models_own_words() -> None:
    item = {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    reply = collect_reply(
        CODEC.decoder().whole(msgspec.json.encode({"id": "r", "status": "completed", "output": [item]}))
    )
    assert reply.parts == (Refusal(text="No."),)
    assert reply.stop is StopReason.REFUSAL


def test_an_item_that_only_this_wire_knows_is_kept_as_it_came() -> None:
    item = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}}
    searching = {"type": "response.web_search_call.searching", "item_id": "ws_1", "output_index": 0}
    events = fed(
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        searching,
        {"type": "response.output_item.done", "output_index": 0, "item": item},
    )
    opaque = Opaque(wire="openai_responses", kind="web_search_call", raw=item)
    assert events == [
        Unknown("response.web_search_call.searching", searching),
        PartStarted(0, "opaque", opaque),
        PartEnded(0),
    ]


def test_the_stream_of_an_open_weight_model_shows_its_reasoning_text() -> None:
    events = fed({"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": "Hm"})
    assert events == [PartStarted(0, "reasoning"), PartDelta(0, "Hm")]


def test_a_stream_that_is_cut_has_no_end() -> None:
    assert not collect_reply(events_of(RECORDED[: RECORDED.index(b"event: response.completed")])).is_complete


@pytest.mark.parametrize("payload", [b"{", b"7", b'{"type":7}', b'{"type":"response.created","response":[]}', b"\xff"])
def test_nonsense_is_an_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not an event of openai_responses"):
        CODEC.decoder().feed(payload)


def test_a_body_that_is_no_response_is_an_error() -> None:
    with pytest.raises(ValueError, match="no output"):
        CODEC.decoder().whole(b'{"object":"list"}')
