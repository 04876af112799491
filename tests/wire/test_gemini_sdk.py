"""What the google-genai SDK makes of the bytes that our encoder and errors write, over a loopback server."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from google import genai
from google.genai import errors, types

from nightkeep.core.embeddings import EmbedReply
from nightkeep.core.events import Event, PartDelta, PartStarted, Started, replay_reply
from nightkeep.core.messages import Reasoning, Reply, StopReason, Text, ToolCall, Usage
from nightkeep.models.wire.base import WireError
from nightkeep.models.wire.gemini import GeminiCodec
from nightkeep.models.wire.gemini_embeddings import write_embed_reply

CODEC = GeminiCodec()
REPLY = Reply(
    id="resp_1",
    model="upstream-model",
    parts=(
        Reasoning(text="Two cities.", signature="signed-there"),
        Text(text="I look it up – at once 🌙."),
        ToolCall(id="call_1", name="weather", arguments='{"city": "Oslo", "days": 2}'),
        ToolCall(id="call_2", name="weather", arguments='{"city": "Bergen"}'),
    ),
    stop=StopReason.TOOL_CALLS,
    usage=Usage(input=30, cache_read=12, cache_write_5m=4, output=17, reasoning=9),
)


@contextmanager
def client_answering(
    body: bytes, *, status: int = 200, content_type: str = "application/json"
) -> Iterator[genai.Client]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    client = genai.Client(
        api_key="test", http_options=types.HttpOptions(base_url=f"http://127.0.0.1:{server.server_port}")
    )
    try:
        yield client
    finally:
        client.close()
        server.shutdown()
        thread.join()
        server.server_close()


def streamed(events: list[Event]) -> bytes:
    encoder = CODEC.encoder("the-alias")
    return b"".join(encoder.feed(event) for event in events)


def check_parts(parts: list[types.Part]) -> None:
    thought, text, first, second = [part for part in parts if part.text != ""]
    assert thought.thought is True and thought.text == "Two cities."
    assert text.text == "I look it up – at once 🌙." and not text.thought
    assert first.function_call is not None and first.function_call.args == {"city": "Oslo", "days": 2}
    assert (first.function_call.id, first.function_call.name) == ("call_1", "weather")
    assert second.function_call is not None and second.function_call.args == {"city": "Bergen"}
    signature = next(part.thought_signature for part in parts if part.thought_signature)
    assert signature == b"nightkeep.anthropic_messages.signed-there"


def check_end(last: types.GenerateContentResponse) -> None:
    assert last.candidates is not None and last.usage_metadata is not None
    assert last.candidates[0].finish_reason is types.FinishReason.STOP
    assert (last.model_version, last.response_id) == ("the-alias", "resp_1")
    usage = last.usage_metadata
    assert (usage.prompt_token_count, usage.cached_content_token_count) == (46, 12)
    assert (usage.candidates_token_count, usage.thoughts_token_count, usage.total_token_count) == (17, 9, 72)


def test_a_streamed_reply_is_the_same_reply() -> None:
    with client_answering(streamed(replay_reply(REPLY)), content_type="text/event-stream") as client:
        chunks = list(client.models.generate_content_stream(model="m", contents="hi"))
    check_parts([part for chunk in chunks for part in (chunk.parts or [])])
    check_end(chunks[-1])


def test_a_whole_reply_is_the_same_reply() -> None:
    with client_answering(CODEC.encoder("the-alias").whole(replay_reply(REPLY))) as client:
        response = client.models.generate_content(model="m", contents="hi")
    check_parts(response.parts or [])
    check_end(response)


async def test_the_async_client_reads_a_stream_too() -> None:
    with client_answering(streamed(replay_reply(REPLY)), content_type="text/event-stream") as client:
        chunks = [chunk async for chunk in await client.aio.models.generate_content_stream(model="m", contents="hi")]
        await client.aio.aclose()
    check_parts([part for chunk in chunks for part in (chunk.parts or [])])


@pytest.mark.parametrize(
    ("kind", "status", "raised", "word"),
    [
        ("invalid_request", 400, errors.ClientError, "INVALID_ARGUMENT"),
        ("authentication", 401, errors.ClientError, "UNAUTHENTICATED"),
        ("permission", 403, errors.ClientError, "PERMISSION_DENIED"),
        ("not_found", 404, errors.ClientError, "NOT_FOUND"),
        ("rate_limited", 429, errors.ClientError, "RESOURCE_EXHAUSTED"),
        ("quota", 429, errors.ClientError, "RESOURCE_EXHAUSTED"),
        ("overloaded", 503, errors.ServerError, "UNAVAILABLE"),
        ("timeout", 504, errors.ServerError, "DEADLINE_EXCEEDED"),
        ("api_error", 502, errors.ServerError, "INTERNAL"),
    ],
)
def test_each_kind_of_error_raises_the_sdks_own_type(
    kind: str, status: int, raised: type[errors.APIError], word: str
) -> None:
    error = WireError(
        status=status, code="our_code", message="No.", kind=kind, retry_after_s=17.0, data={"attempts": 3}
    )
    sent, body = CODEC.write_error(error)
    with client_answering(body, status=sent) as client, pytest.raises(raised) as caught:
        client.models.generate_content(model="m", contents="hi")
    assert (caught.value.code, caught.value.status, caught.value.message) == (status, word, "No.")
    info, retry = caught.value.details["error"]["details"]
    assert info["reason"] == "OUR_CODE" and info["metadata"] == {"attempts": "3"}
    assert retry["retryDelay"] == "17s"


def test_a_failure_after_content_raises_in_the_middle_of_the_stream() -> None:
    encoder = CODEC.encoder("m")
    events: list[Event] = [Started("m", "x"), PartStarted(0, "text"), PartDelta(0, "half a sen")]
    body = b"".join(encoder.feed(event) for event in events)
    body += encoder.fail(WireError(status=503, code="stream_cut", message="cut", kind="overloaded"))
    texts: list[str | None] = []
    with client_answering(body, content_type="text/event-stream") as client, pytest.raises(errors.APIError) as caught:
        for chunk in client.models.generate_content_stream(model="m", contents="hi"):
            texts.append(chunk.text)
    assert texts == ["half a sen"]
    assert caught.value.code == 503


def test_a_token_count_is_read_by_the_sdk() -> None:
    with client_answering(CODEC.write_count(41)) as client:
        assert client.models.count_tokens(model="m", contents="hi").total_tokens == 41


def test_embeddings_are_read_by_the_sdk() -> None:
    body = write_embed_reply(EmbedReply(model="e", vectors=((0.5, 1.0), (2.0, 3.0))), is_batch=True)
    with client_answering(body) as client:
        answer = client.models.embed_content(model="e", contents=["a", "b"])
    assert [item.values for item in answer.embeddings or []] == [[0.5, 1.0], [2.0, 3.0]]


def test_another_vendors_signature_survives_the_sdks_base64() -> None:
    """The SDK decodes signatures to bytes and encodes them in the URL-safe alphabet when it sends them back."""
    from_sdk = base64.urlsafe_b64encode(b"nightkeep.anthropic_messages.sig~??>").decode()
    body = b'{"contents":[{"role":"model","parts":[{"text":"t","thought":true,"thoughtSignature":"%s"}]}]}'
    request = CODEC.read_request(body % from_sdk.encode(), CODEC.head(b"{}", "m"))
    assert request.messages[0].parts == (Reasoning(text="t", signature="nightkeep.anthropic_messages.sig~??>"),)
