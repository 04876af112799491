"""What the OpenAI SDK makes of the bytes that our encoders and errors write: its own parser is the judge."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pydantic
import pytest

from nightkeep.core.embeddings import EmbedReply
from nightkeep.core.events import Event, PartDelta, PartStarted, Started, replay_reply
from nightkeep.core.messages import ChatRequest, Reasoning, Refusal, Reply, StopReason, Text, ToolCall, Usage
from nightkeep.models.wire import CODECS
from nightkeep.models.wire.base import Wire, WireError
from nightkeep.models.wire.openai_embeddings import write_embed_reply

CHAT, RESPONSES = CODECS[Wire.OPENAI_CHAT], CODECS[Wire.OPENAI_RESPONSES]
USAGE = Usage(input=30, cache_read=12, output=17, reasoning=9)
REPLY = Reply(
    id="msg_1",
    model="claude-sonnet-4-5",
    parts=(
        Reasoning(text="Two cities.", signature="QUJD"),
        Text(text="I look it up – at once 🌙."),
        ToolCall(id="call_1", name="weather", arguments='{"city": "Oslo", "days": 2}'),
        ToolCall(id="call_2", name="weather", arguments='{"city": "Bergen"}'),
    ),
    stop=StopReason.TOOL_CALLS,
    usage=USAGE,
    created=1763600000,
)
WITH_USAGE = ChatRequest(model="m", messages=(), foreign={"stream_options": {"include_usage": True}})
HELLO: Any = [{"role": "user", "content": "hi"}]
STREAM_TYPE = "text/event-stream"


class Answer(pydantic.BaseModel):
    city: str
    degrees: int


def answering(body: bytes, status: int, content_type: str) -> httpx2.MockTransport:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=body, headers={"content-type": content_type})

    return httpx2.MockTransport(answer)


def client(body: bytes, *, status: int = 200, content_type: str = "application/json") -> openai.OpenAI:
    http = httpx2.Client(transport=answering(body, status, content_type))
    return openai.OpenAI(api_key="sk-test", base_url="http://test/v1", http_client=http, max_retries=0)


def async_client(body: bytes, *, content_type: str) -> openai.AsyncOpenAI:
    http = httpx2.AsyncClient(transport=answering(body, 200, content_type))
    return openai.AsyncOpenAI(api_key="sk-test", base_url="http://test/v1", http_client=http, max_retries=0)


def streamed(wire: Wire, events: list[Event], request: ChatRequest | None = None) -> bytes:
    encoder = CODECS[wire].encoder("the-alias", request)
    return b"".join(encoder.feed(event) for event in events)


def whole(wire: Wire, reply: Reply) -> bytes:
    return CODECS[wire].encoder("the-alias").whole(replay_reply(reply))


def check_completion(completion: Any) -> None:
    choice = completion.choices[0]
    assert (completion.model, completion.created) == ("the-alias", 1763600000)
    assert choice.message.content == "I look it up – at once 🌙."
    assert choice.message.reasoning_content == "Two cities."
    calls = choice.message.tool_calls
    assert [(call.id, call.function.name, call.function.arguments) for call in calls] == [
        ("call_1", "weather", '{"city": "Oslo", "days": 2}'),
        ("call_2", "weather", '{"city": "Bergen"}'),
    ]
    assert choice.finish_reason == "tool_calls"
    assert completion.usage.prompt_tokens == 42 and completion.usage.completion_tokens == 26
    assert completion.usage.prompt_tokens_details.cached_tokens == 12
    assert completion.usage.completion_tokens_details.reasoning_tokens == 9


def test_chat_a_whole_reply_is_a_completion() -> None:
    check_completion(client(whole(Wire.OPENAI_CHAT, REPLY)).chat.completions.create(model="m", messages=HELLO))


def test_chat_a_streamed_reply_accumulates_to_the_completion() -> None:
    body = streamed(Wire.OPENAI_CHAT, replay_reply(REPLY), WITH_USAGE)
    with client(body, content_type=STREAM_TYPE).chat.completions.stream(model="m", messages=HELLO) as stream:
        completion = stream.get_final_completion()
    check_completion(completion)


async def test_chat_the_async_client_reads_the_same_stream() -> None:
    body = streamed(Wire.OPENAI_CHAT, replay_reply(REPLY))
    stream = await async_client(body, content_type=STREAM_TYPE).chat.completions.create(
        model="m", messages=HELLO, stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "I look it up – at once 🌙."
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "tool_calls"


def test_chat_the_usage_chunk_comes_only_where_it_was_asked_for() -> None:
    for request, expected in ((None, 0), (WITH_USAGE, 1)):
        body = streamed(Wire.OPENAI_CHAT, replay_reply(REPLY), request)
        stream = client(body, content_type=STREAM_TYPE).chat.completions.create(model="m", messages=HELLO, stream=True)
        assert sum(chunk.usage is not None for chunk in stream) == expected


def test_chat_structured_output_parses() -> None:
    reply = Reply(id="r", model="m", parts=(Text(text='{"city":"Oslo","degrees":3}'),), stop=StopReason.END)
    completion = client(whole(Wire.OPENAI_CHAT, reply)).chat.completions.parse(
        model="m", messages=HELLO, response_format=Answer
    )
    assert completion.choices[0].message.parsed == Answer(city="Oslo", degrees=3)


def test_chat_a_refusal_stands_in_its_own_field() -> None:
    reply = Reply(id="r", model="m", parts=(Refusal(text="No."),), stop=StopReason.REFUSAL)
    completion = client(whole(Wire.OPENAI_CHAT, reply)).chat.completions.parse(
        model="m", messages=HELLO, response_format=Answer
    )
    assert completion.choices[0].message.refusal == "No."
    assert completion.choices[0].message.parsed is None


def test_chat_a_reply_cut_by_its_limit_raises_the_sdks_own_error() -> None:
    reply = Reply(id="r", model="m", parts=(Text(text='{"city"'),), stop=StopReason.MAX_TOKENS)
    with pytest.raises(openai.LengthFinishReasonError):
        client(whole(Wire.OPENAI_CHAT, reply)).chat.completions.parse(model="m", messages=HELLO, response_format=Answer)


BEGUN: list[Event] = [Started("r", "m"), PartStarted(0, "text"), PartDelta(0, "The beginning")]
CUT = WireError(status=502, code="stream_cut", message="the answer is INCOMPLETE", data={"characters": 13})


def test_chat_a_broken_stream_raises_after_its_text() -> None:
    encoder = CHAT.encoder("the-alias")
    body = b"".join(encoder.feed(event) for event in BEGUN) + encoder.fail(CUT)
    stream = client(body, content_type=STREAM_TYPE).chat.completions.create(model="m", messages=HELLO, stream=True)
    said = ""
    with pytest.raises(openai.APIError, match="INCOMPLETE") as raised:
        for chunk in stream:
            said += chunk.choices[0].delta.content or ""
    assert said == "The beginning"
    assert raised.value.code == "stream_cut"
    assert isinstance(raised.value.body, dict) and raised.value.body["nightkeep"]["characters"] == 13


def check_response(response: Any) -> None:
    assert (response.model, response.status, response.error) == ("the-alias", "completed", None)
    assert response.output_text == "I look it up – at once 🌙."
    thought, message, first, second = response.output
    assert thought.type == "reasoning" and thought.summary[0].text == "Two cities."
    assert thought.encrypted_content == "signature:nightkeep.anthropic_messages.QUJD"
    assert message.type == "message" and message.status == "completed"
    assert (first.call_id, first.name, first.arguments) == ("call_1", "weather", '{"city": "Oslo", "days": 2}')
    assert (second.call_id, second.arguments) == ("call_2", '{"city": "Bergen"}')
    assert response.usage.input_tokens == 42 and response.usage.output_tokens == 26
    assert response.usage.input_tokens_details.cached_tokens == 12
    assert response.usage.output_tokens_details.reasoning_tokens == 9
    assert response.usage.total_tokens == 68


def test_responses_a_whole_reply_is_a_response() -> None:
    check_response(client(whole(Wire.OPENAI_RESPONSES, REPLY)).responses.create(model="m", input="hi"))


def test_responses_a_streamed_reply_accumulates_to_the_response() -> None:
    body = streamed(Wire.OPENAI_RESPONSES, replay_reply(REPLY))
    with client(body, content_type=STREAM_TYPE).responses.stream(model="m", input="hi") as stream:
        check_response(stream.get_final_response())


async def test_responses_events_are_numbered_and_of_known_types() -> None:
    body = streamed(Wire.OPENAI_RESPONSES, replay_reply(REPLY))
    stream = await async_client(body, content_type=STREAM_TYPE).responses.create(model="m", input="hi", stream=True)
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert {type(event).__module__.partition(".")[0] for event in events} == {"openai"}
    assert [event.type for event in events][:2] == ["response.created", "response.in_progress"]
    assert events[-1].type == "response.completed"


def test_responses_every_event_is_valid_for_the_sdks_strict_type() -> None:
    body = streamed(Wire.OPENAI_RESPONSES, replay_reply(REPLY))
    adapter: Any = pydantic.TypeAdapter(openai.types.responses.ResponseStreamEvent)
    lines = [line.removeprefix("data: ") for line in body.decode().splitlines() if line.startswith("data: ")]
    for line in lines:
        adapter.validate_json(line)
    openai.types.responses.Response.model_validate_json(whole(Wire.OPENAI_RESPONSES, REPLY))


def test_chat_every_chunk_is_valid_for_the_sdks_strict_type() -> None:
    body = streamed(Wire.OPENAI_CHAT, replay_reply(REPLY), WITH_USAGE).decode()
    lines = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    for line in lines:
        openai.types.chat.ChatCompletionChunk.model_validate_json(line)
    openai.types.chat.ChatCompletion.model_validate_json(whole(Wire.OPENAI_CHAT, REPLY))


def test_responses_structured_output_parses() -> None:
    reply = Reply(id="r", model="m", parts=(Text(text='{"city":"Oslo","degrees":3}'),), stop=StopReason.END)
    response = client(whole(Wire.OPENAI_RESPONSES, reply)).responses.parse(model="m", input="hi", text_format=Answer)
    assert response.output_parsed == Answer(city="Oslo", degrees=3)


def test_responses_a_reply_cut_by_its_limit_is_incomplete() -> None:
    reply = Reply(id="r", model="m", parts=(Text(text="a"),), stop=StopReason.MAX_TOKENS)
    body = streamed(Wire.OPENAI_RESPONSES, replay_reply(reply))
    stream = client(body, content_type=STREAM_TYPE).responses.create(model="m", input="hi", stream=True)
    last = list(stream)[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "max_output_tokens"


def test_responses_a_broken_stream_raises_after_its_text() -> None:
    encoder = RESPONSES.encoder("the-alias")
    body = b"".join(encoder.feed(event) for event in BEGUN) + encoder.fail(CUT)
    stream = client(body, content_type=STREAM_TYPE).responses.create(model="m", input="hi", stream=True)
    said, types = "", []
    with pytest.raises(openai.APIError, match="INCOMPLETE") as raised:
        for event in stream:
            types.append(event.type)
            said += event.delta if event.type == "response.output_text.delta" else ""
    assert said == "The beginning"
    assert types[-1] == "response.failed"
    assert raised.value.code == "stream_cut"


ERRORS = [
    (400, "invalid_request", openai.BadRequestError),
    (401, "authentication", openai.AuthenticationError),
    (403, "permission", openai.PermissionDeniedError),
    (404, "not_found", openai.NotFoundError),
    (409, "conflict", openai.ConflictError),
    (413, "too_large", openai.APIStatusError),
    (429, "rate_limited", openai.RateLimitError),
    (429, "quota", openai.RateLimitError),
    (502, "api_error", openai.InternalServerError),
    (529, "overloaded", openai.InternalServerError),
    (504, "timeout", openai.InternalServerError),
]


@pytest.mark.parametrize("wire", [Wire.OPENAI_CHAT, Wire.OPENAI_RESPONSES])
@pytest.mark.parametrize(("status", "kind", "expected"), ERRORS)
def test_errors_raise_the_sdks_own_types_with_our_facts_inside(
    wire: Wire, status: int, kind: str, expected: type[openai.APIStatusError]
) -> None:
    error = WireError(
        status=status, code="our_code", message="what and why", kind=kind, parameter="p", data={"asked": "smart"}
    )
    written_status, body = CODECS[wire].write_error(error)
    with pytest.raises(expected, match="what and why") as raised:
        client(body, status=written_status).chat.completions.create(model="m", messages=HELLO)
    assert (raised.value.code, raised.value.param) == ("our_code", "p")
    assert isinstance(raised.value.body, dict) and raised.value.body["nightkeep"]["asked"] == "smart"
    read = CODECS[wire].read_error(written_status, body)
    assert (read.code, read.message, read.parameter) == ("our_code", "what and why", "p")


@pytest.mark.parametrize("encoding_format", [None, "float", "base64"])
def test_embeddings_are_read_by_the_sdk_in_either_form(encoding_format: Any) -> None:
    reply = EmbedReply(model="up", vectors=((0.5, -1.25), (2.0, 0.0)), usage=Usage(input=7))
    body = write_embed_reply(reply, "the-alias", encoding_format or "base64")
    options = {} if encoding_format is None else {"encoding_format": encoding_format}
    answer = client(body).embeddings.create(model="m", input=["a", "b"], **options)
    assert (answer.model, answer.usage.total_tokens) == ("the-alias", 7)
    if encoding_format != "base64":
        assert [item.embedding for item in answer.data] == [[0.5, -1.25], [2.0, 0.0]]
