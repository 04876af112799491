"""What the Anthropic SDK makes of the bytes that our encoder and errors write: its own parser is the judge."""

from __future__ import annotations

from collections.abc import Callable

import anthropic
import httpx2
import pytest

from nightkeep.core.events import Event, Failed, PartDelta, PartEnded, PartStarted, Started, replay_reply
from nightkeep.core.messages import Reasoning, Reply, StopReason, Text, ToolCall, Usage
from nightkeep.models.wire.anthropic_messages import AnthropicMessagesCodec
from nightkeep.models.wire.base import WireError

CODEC = AnthropicMessagesCodec()
USAGE = Usage(input=30, cache_read=12, cache_write_5m=4, cache_write_1h=2, output=17, reasoning=9)
REPLY = Reply(
    id="msg_1",
    model="upstream-model",
    parts=(
        Reasoning(text="Two cities.", signature="QUJD"),
        Text(text="I look it up – at once 🌙."),
        ToolCall(id="call_1", name="weather", arguments='{"city": "Oslo", "days": 2}'),
        ToolCall(id="call_2", name="weather", arguments='{"city": "Bergen"}'),
    ),
    stop=StopReason.TOOL_CALLS,
    usage=USAGE,
)


def client_answering(body: bytes, *, status: int = 200, content_type: str = "application/json") -> anthropic.Anthropic:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=body, headers={"content-type": content_type})

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    return anthropic.Anthropic(api_key="sk-test", base_url="http://test", http_client=http, max_retries=0)


def streamed(events: list[Event]) -> bytes:
    encoder = CODEC.encoder("the-alias")
    return b"".join(encoder.feed(event) for event in events)


def test_a_streamed_reply_accumulates_to_the_whole_message() -> None:
    client = client_answering(streamed(replay_reply(REPLY)), content_type="text/event-stream")
    with client.messages.stream(model="m", max_tokens=10, messages=[{"role": "user", "content": "hi"}]) as stream:
        message = stream.get_final_message()
    check(message)


def test_a_streamed_reply_yields_its_text_in_pieces() -> None:
    events: list[Event] = [
        Started("m", "x"),
        PartStarted(0, "text"),
        PartDelta(0, "a"),
        PartDelta(0, "b"),
        PartEnded(0),
    ]
    client = client_answering(streamed(events), content_type="text/event-stream")
    with client.messages.stream(model="m", max_tokens=10, messages=[{"role": "user", "content": "hi"}]) as stream:
        assert list(stream.text_stream) == ["a", "b"]


def test_a_whole_reply_is_the_same_message() -> None:
    client = client_answering(CODEC.encoder("the-alias").whole(replay_reply(REPLY)))
    check(client.messages.create(model="m", max_tokens=10, messages=[{"role": "user", "content": "hi"}]))


def check(message: anthropic.types.Message) -> None:
    thinking, text, first, second = message.content
    assert (message.id, message.model, message.role) == ("msg_1", "the-alias", "assistant")
    assert thinking.type == "thinking" and thinking.thinking == "Two cities."
    assert thinking.signature == "nightkeep.gemini.QUJD"
    assert text.type == "text" and text.text == "I look it up – at once 🌙."
    assert first.type == "tool_use" and (first.id, first.name) == ("call_1", "weather")
    assert first.input == {"city": "Oslo", "days": 2}
    assert second.type == "tool_use" and second.input == {"city": "Bergen"}
    assert message.stop_reason == "tool_use" and message.stop_sequence is None
    assert message.usage.input_tokens == 30
    assert message.usage.cache_read_input_tokens == 12
    assert message.usage.cache_creation_input_tokens == 6
    assert message.usage.output_tokens == 26
    assert message.usage.output_tokens_details is not None
    assert message.usage.output_tokens_details.thinking_tokens == 9


def test_the_stop_sequence_that_was_hit_is_told() -> None:
    reply = Reply(id="m", model="x", parts=(Text(text="a"),), stop=StopReason.STOP_SEQUENCE, stop_detail="###")
    client = client_answering(CODEC.encoder("m").whole(replay_reply(reply)))
    message = client.messages.create(model="m", max_tokens=10, messages=[{"role": "user", "content": "hi"}])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "###")


@pytest.mark.parametrize(
    ("kind", "status", "raised", "word"),
    [
        ("invalid_request", 400, anthropic.BadRequestError, "invalid_request_error"),
        ("authentication", 401, anthropic.AuthenticationError, "authentication_error"),
        ("permission", 403, anthropic.PermissionDeniedError, "permission_error"),
        ("not_found", 404, anthropic.NotFoundError, "not_found_error"),
        ("conflict", 409, anthropic.ConflictError, "conflict_error"),
        ("too_large", 413, anthropic.APIStatusError, "request_too_large"),
        ("rate_limited", 429, anthropic.RateLimitError, "rate_limit_error"),
        ("quota", 429, anthropic.RateLimitError, "billing_error"),
        ("overloaded", 503, anthropic.InternalServerError, "overloaded_error"),
        ("timeout", 504, anthropic.InternalServerError, "timeout_error"),
        ("api_error", 502, anthropic.InternalServerError, "api_error"),
    ],
)
def test_each_kind_of_error_raises_the_sdks_own_type(
    kind: str, status: int, raised: type[anthropic.APIStatusError], word: str
) -> None:
    error = WireError(status=status, code="our_code", message="No.", kind=kind, data={"asked": "smart"})
    sent, body = CODEC.write_error(error)
    client = client_answering(body, status=sent)
    with pytest.raises(raised) as caught:
        client.messages.create(model="m", max_tokens=10, messages=[{"role": "user", "content": "hi"}])
    assert caught.value.type == word
    assert caught.value.body == {
        "type": "error",
        "error": {"type": word, "message": "No.", "nightkeep": {"code": "our_code", "asked": "smart"}},
    }


BEGUN: list[Event] = [Started("m", "x"), PartStarted(0, "text"), PartDelta(0, "half a sen")]


@pytest.mark.parametrize(
    "ending",
    [
        lambda encoder: encoder.fail(WireError(status=502, code="stream_cut", message="cut", kind="overloaded")),
        lambda encoder: encoder.feed(Failed("overloaded_error", "cut", 529)),
    ],
)
def test_a_failure_after_content_raises_in_the_middle_of_the_stream(ending: Callable[[object], bytes]) -> None:
    encoder = CODEC.encoder("m")
    body = b"".join(encoder.feed(event) for event in BEGUN) + ending(encoder)
    client = client_answering(body, content_type="text/event-stream")
    texts: list[str] = []
    asked = client.messages.stream(model="m", max_tokens=10, messages=[{"role": "user", "content": "hi"}])
    with pytest.raises(anthropic.APIStatusError) as caught, asked as stream:
        for text in stream.text_stream:
            texts.append(text)
    assert texts == ["half a sen"]
    assert caught.value.type == "overloaded_error"


def test_a_token_count_is_read_by_the_sdk() -> None:
    client = client_answering(CODEC.write_count(41))
    counted = client.messages.count_tokens(model="m", messages=[{"role": "user", "content": "hi"}])
    assert counted.input_tokens == 41
