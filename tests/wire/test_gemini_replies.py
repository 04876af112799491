"""Gemini's bytes in, neutral events out: chunks, whole replies, arrays, errors."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.core.events import Ended, Event, Failed, Finished, Started, Unknown, UsageReported, collect_reply
from nightkeep.core.messages import Media, Opaque, Reasoning, StopReason, Text, ToolCall, Usage
from nightkeep.models.wire.gemini import GeminiCodec
from nightkeep.models.wire.sse import FrameReader

CODEC = GeminiCodec()
RECORDED = (Path(__file__).parent / "recorded" / "gemini_stream.sse").read_bytes()
CHUNKS = [frame.data for frame in FrameReader().feed(RECORDED) if frame.data]
PARTS = (
    Reasoning(text="Thinking", signature="c2ln"),
    Text(text="Hello"),
    ToolCall(id="call_gemini_resp-1_x_0", name="f", arguments='{"a": 1}', signature="Y2FsbA=="),
    ToolCall(id="call_gemini_resp-1_x_1", name="f", arguments="{}"),
)


def test_a_recorded_stream_is_read_and_its_parts_found() -> None:
    decoder = CODEC.decoder()
    events = [event for chunk in CHUNKS for event in decoder.feed(chunk)]
    assert events[0] == Started("resp-1_x", "gemini-2.5-pro")
    assert events[-2:] == [Finished(StopReason.TOOL_CALLS), Ended()]
    reply = collect_reply(events)
    assert reply.parts == PARTS
    assert reply.usage == Usage(input=15, cache_read=8, output=11, reasoning=5)


def test_a_stream_without_sse_is_an_array_and_says_the_same() -> None:
    reply = collect_reply(CODEC.decoder().whole(b"[" + b",\r\n".join(CHUNKS) + b"]"))
    assert reply.parts == PARTS and reply.is_complete


def test_a_signature_on_text_is_kept_beside_it_and_written_back() -> None:
    body = b'{"candidates":[{"content":{"parts":[{"text":"hi","thoughtSignature":"c2ln"}]},"finishReason":"STOP"}]}'
    assert collect_reply(CODEC.decoder().whole(body)).parts == (Text(text="hi"), Reasoning(signature="c2ln"))


def test_images_and_vendor_parts_are_kept() -> None:
    body = (
        b'{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"aGk="}},'
        b'{"executableCode":{"language":"PYTHON","code":"1"}},{"somethingNew":{}}]},"finishReason":"STOP"}]}'
    )
    events = CODEC.decoder().whole(body)
    code = {"executableCode": {"language": "PYTHON", "code": "1"}}
    assert collect_reply(events).parts == (
        Media(kind="image", media_type="image/png", data="aGk="),
        Opaque(wire="gemini", kind="executableCode", raw=code),
    )
    assert Unknown("part") in events


@pytest.mark.parametrize(
    ("word", "stop", "detail"),
    [
        ("STOP", StopReason.END, None),
        ("MAX_TOKENS", StopReason.MAX_TOKENS, None),
        ("SAFETY", StopReason.REFUSAL, "SAFETY"),
        ("RECITATION", StopReason.REFUSAL, "RECITATION"),
        ("BLOCKLIST", StopReason.REFUSAL, "BLOCKLIST"),
        ("PROHIBITED_CONTENT", StopReason.REFUSAL, "PROHIBITED_CONTENT"),
        ("MALFORMED_FUNCTION_CALL", StopReason.MALFORMED_CALL, "MALFORMED_FUNCTION_CALL"),
        ("LANGUAGE", StopReason.OTHER, "LANGUAGE"),
        ("SOMETHING_NEW", StopReason.OTHER, "SOMETHING_NEW"),
    ],
)
def test_every_finish_reason_is_known_or_kept(word: str, stop: StopReason, detail: str | None) -> None:
    payload = b'{"candidates":[{"finishReason":"%s"}],"modelVersion":"m","responseId":"r"}' % word.encode()
    events: list[Event] = [Started("r", "m"), Finished(stop, detail), Ended()]
    assert CODEC.decoder().feed(payload) == events


def test_a_blocked_prompt_is_a_refusal() -> None:
    body = b'{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"},"usageMetadata":{"promptTokenCount":4}}'
    assert CODEC.decoder().whole(body) == [
        Started("", ""),
        UsageReported(Usage(input=4)),
        Finished(StopReason.REFUSAL, "PROHIBITED_CONTENT"),
        Ended(),
    ]


def test_an_error_in_the_stream_is_a_failure() -> None:
    payload = b'{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}'
    assert CODEC.decoder().feed(payload) == [Failed("UNAVAILABLE", "The model is overloaded.", 503)]


@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b'{"candidates":null,"usageMetadata":null}',
        b'{"candidates":[{"content":null}]}',
        b'{"candidates":[{"content":{"parts":null}}]}',
        b'{"candidates":[{"content":{"parts":[{"text":null}]}}],"new":{"a":1}}',
    ],
)
def test_what_is_missing_null_or_new_is_borne(payload: bytes) -> None:
    assert CODEC.decoder().feed(payload)[0] == Started("", "")


@pytest.mark.parametrize("payload", [b"", b"{", b"5", b'{"candidates":{}}', b"\xff"])
def test_what_is_not_this_wire_is_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not a reply of gemini"):
        CODEC.decoder().feed(payload)
    with pytest.raises(ValueError, match="not a reply of gemini"):
        CODEC.decoder().whole(payload)


COUNT = st.integers(0, 10**7)


@given(COUNT, COUNT, COUNT, COUNT, COUNT)
def test_no_token_is_lost_or_counted_twice(plain: int, cached: int, tool: int, output: int, thoughts: int) -> None:
    usage = {
        "promptTokenCount": plain + cached,
        "cachedContentTokenCount": cached,
        "toolUsePromptTokenCount": tool,
        "candidatesTokenCount": output,
        "thoughtsTokenCount": thoughts,
    }
    events = CODEC.decoder().whole(msgspec.json.encode({"usageMetadata": usage, "candidates": []}))
    neutral = collect_reply(events).usage
    assert neutral is not None
    assert neutral.total == plain + cached + tool + output + thoughts
    assert collect_reply(CODEC.decoder().whole(CODEC.encoder("x").whole(events))).usage == neutral


QUOTA = b"""{"error":{"code":429,"message":"You exceeded your current quota.","status":"RESOURCE_EXHAUSTED","details":[
{"@type":"type.googleapis.com/google.rpc.QuotaFailure",
 "violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]},
{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"37.5s"}]}}"""


def test_a_used_up_quota_tells_which_and_when_to_come_back() -> None:
    for body in (QUOTA, b"[" + QUOTA + b"]"):
        error = CODEC.read_error(429, body)
        assert (error.kind, error.code, error.retry_after_s) == ("quota", "RESOURCE_EXHAUSTED", 37.5)
        assert error.data == {"quota": ["GenerateRequestsPerDayPerProjectPerModel-FreeTier"]}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b'{"error":{"code":400,"message":"bad","status":"INVALID_ARGUMENT"}}', "invalid_request"),
        (
            400,
            (
                b'{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT","details":'
                b'[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]}}'
            ),
            "authentication",
        ),
        (503, b'{"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}', "overloaded"),
        (500, b"nonsense", "api_error"),
        (429, b"[]", "rate_limited"),
        (404, b'{"error":"gone"}', "not_found"),
    ],
)
def test_every_error_answer_is_read(status: int, body: bytes, kind: str) -> None:
    assert CODEC.read_error(status, body).kind == kind
