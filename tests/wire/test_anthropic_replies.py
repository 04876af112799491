"""Anthropic's bytes in, neutral events out: streams as the vendor sends them, and as compatible vendors bend them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from nightkeep.core.messages import Opaque, Reasoning, StopReason, Text, ToolCall, Usage
from nightkeep.models.wire.anthropic_messages import AnthropicMessagesCodec
from nightkeep.models.wire.sse import FrameReader

CODEC = AnthropicMessagesCodec()
RECORDED = (Path(__file__).parent / "recorded" / "anthropic_stream.sse").read_bytes()


def read(stream: bytes) -> list[Event]:
    decoder = CODEC.decoder()
    return [event for frame in FrameReader().feed(stream) if frame.data for event in decoder.feed(frame.data)]


def one(payload: bytes) -> list[Event]:
    return CODEC.decoder().feed(payload)


def test_a_recorded_stream_is_read_event_by_event() -> None:
    events = read(RECORDED)
    assert events[:2] == [
        Started("msg_01Abc", "claude-sonnet-4-5-20250929"),
        UsageReported(Usage(input=472, cache_read=200, cache_write_5m=10, cache_write_1h=20, output=2)),
    ]
    assert events[-3:] == [
        UsageReported(Usage(input=472, cache_read=200, cache_write_5m=10, cache_write_1h=20, output=49, reasoning=40)),
        Finished(StopReason.TOOL_CALLS),
        Ended(),
    ]
    reply = collect_reply(events)
    assert reply.parts == (
        Reasoning(text="Let me see", signature="EqQBCg=="),
        Reasoning(encrypted="sealed"),
        Text(text="I'll check"),
        ToolCall(id="toolu_01T", name="get_weather", arguments='{"location": "San Francisco"}'),
        Opaque(
            wire="anthropic_messages",
            kind="server_tool_use",
            raw={"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "w"}},
        ),
    )
    assert [event.kind for event in events if isinstance(event, Unknown)] == ["citations_delta"]


def test_a_whole_message_says_the_same_as_a_stream() -> None:
    body = (
        b'{"id":"m","type":"message","role":"assistant","model":"x","content":[{"type":"thinking","thinking":"t",'
        b'"signature":"s"},{"type":"text","text":"a","citations":null},{"type":"tool_use","id":"c","name":"n",'
        b'"input":{"a":[1]}}],"stop_reason":"stop_sequence","stop_sequence":"###","usage":{"input_tokens":3,'
        b'"output_tokens":4}}'
    )
    reply = collect_reply(CODEC.decoder().whole(body))
    assert reply.parts == (
        Reasoning(text="t", signature="s"),
        Text(text="a"),
        ToolCall(id="c", name="n", arguments='{"a":[1]}'),
    )
    assert (reply.stop, reply.stop_detail, reply.usage) == (
        StopReason.STOP_SEQUENCE,
        "###",
        Usage(input=3, output=4),
    )
    assert reply.is_complete


@pytest.mark.parametrize(
    ("word", "stop", "detail"),
    [
        ("end_turn", StopReason.END, None),
        ("max_tokens", StopReason.MAX_TOKENS, None),
        ("tool_use", StopReason.TOOL_CALLS, None),
        ("pause_turn", StopReason.PAUSE, None),
        ("refusal", StopReason.REFUSAL, None),
        ("model_context_window_exceeded", StopReason.CONTEXT_FULL, None),
        ("something_new", StopReason.OTHER, "something_new"),
    ],
)
def test_every_stop_reason_is_known_or_kept(word: str, stop: StopReason, detail: str | None) -> None:
    payload = b'{"type":"message_delta","delta":{"stop_reason":"%s","stop_sequence":null}}' % word.encode()
    assert one(payload) == [Finished(stop, detail)]


def test_a_refusal_names_its_category() -> None:
    payload = b'{"type":"message_delta","delta":{"stop_reason":"refusal","stop_details":{"category":"bio"}}}'
    assert one(payload) == [Finished(StopReason.REFUSAL, "bio")]


@pytest.mark.parametrize(
    ("payload", "events"),
    [
        (b'{"type":"ping"}', []),
        (b'{"type":"vertex_event","x":1}', [Unknown("vertex_event", {"type": "vertex_event", "x": 1})]),
        (b'{"type":"message_start","message":{"id":null,"model":null,"usage":null}}', [Started("", "")]),
        (b'{"type":"message_start"}', [Started("", "")]),
        (b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":null}}', []),
        (b'{"type":"content_block_delta","delta":null}', [Unknown("", {"type": "content_block_delta", "delta": None})]),
        (b'{"type":"content_block_stop","index":7}', []),
        (b'{"type":"message_delta","delta":{},"usage":null}', []),
        (
            b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"early"}}',
            [PartStarted(0, "text"), PartDelta(0, "early")],
        ),
        (
            b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
            [Failed("overloaded_error", "Overloaded", 529)],
        ),
        (b'{"type":"error"}', [Failed("api_error", "", 500)]),
    ],
)
def test_what_is_missing_null_or_new_is_borne(payload: bytes, events: list[Event]) -> None:
    assert one(payload) == events


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"null", b'{"type":5}', b'{"type":"ping","index":"x"}', b"\xff"])
def test_what_is_not_this_wire_is_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not an event of anthropic_messages"):
        one(payload)
    with pytest.raises(ValueError, match="not a message of anthropic_messages"):
        CODEC.decoder().whole(b"<html>")


def test_a_tool_input_given_whole_at_its_start_is_kept() -> None:
    decoder = CODEC.decoder()
    block = b'{"type":"tool_use","id":"i","name":"n","input":{"a":1}}'
    start = b'{"type":"content_block_start","index":0,"content_block":%s}' % block
    events = decoder.feed(start) + decoder.feed(b'{"type":"content_block_stop","index":0}')
    assert events[1:] == [PartDelta(0, '{"a":1}'), PartEnded(0)]


def test_cache_writes_of_unknown_lifetime_count_as_five_minutes() -> None:
    body = b'{"id":"m","model":"x","content":[],"usage":{"input_tokens":1,"cache_creation_input_tokens":9}}'
    assert collect_reply(CODEC.decoder().whole(body)).usage == Usage(input=1, cache_write_5m=9)


COUNT = st.integers(0, 10**7)


@given(COUNT, COUNT, COUNT, COUNT, COUNT, COUNT)
def test_no_token_is_lost_or_counted_twice(plain: int, read: int, five: int, hour: int, output: int, more: int) -> None:
    usage = {
        "input_tokens": plain,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": five + hour,
        "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
        "output_tokens": output + more,
        "output_tokens_details": {"thinking_tokens": more},
    }
    body = msgspec.json.encode({"id": "m", "model": "x", "content": [], "usage": usage, "stop_reason": "end_turn"})
    events = CODEC.decoder().whole(body)
    neutral = collect_reply(events).usage
    assert neutral is not None
    assert neutral.total_input == plain + read + five + hour
    assert neutral.total_output == output + more
    again = collect_reply(CODEC.decoder().whole(CODEC.encoder("x").whole(events))).usage
    assert again == neutral


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (
            529,
            b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
            "overloaded",
            "Overloaded",
        ),
        (429, b'{"type":"error","error":{"type":"rate_limit_error","message":"slow"}}', "rate_limited", "slow"),
        (
            400,
            b'{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low"}}',
            "quota",
            "Your credit balance is too low",
        ),
        (502, b"<html>Bad gateway</html>", "api_error", "<html>Bad gateway</html>"),
        (503, b"", "overloaded", "HTTP 503 without a body"),
        (400, b'{"error":null}', "invalid_request", '{"error":null}'),
        (401, b'{"error":{"type":5,"message":null}}', "authentication", ""),
    ],
)
def test_every_error_answer_is_read(status: int, body: bytes, kind: str, message: str) -> None:
    error = CODEC.read_error(status, body)
    assert (error.status, error.kind, error.message) == (status, kind, message)
