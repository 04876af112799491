"""The vendors' own SDKs, unchanged, at all four doors, with targets on all four wires: 16 pairs, 12 translated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pydantic
import pytest
from google import genai
from google.genai import errors as google_errors
from google.genai import types

Place = Any  # tests/e2e/conftest.py

TARGETS = ["via-chat", "via-responses", "via-anthropic", "via-gemini"]
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
HELLO = "Hello from the simulated model."

every_target = pytest.mark.parametrize("model", TARGETS)


class City(pydantic.BaseModel):
    city: str
    people: int


OPEN: list[Any] = []


@pytest.fixture(autouse=True)
def close_clients() -> Iterator[None]:
    """The SDKs keep their connections until they are closed."""
    yield
    while OPEN:
        OPEN.pop().close()


def openai_client(place: Place) -> openai.OpenAI:
    OPEN.append(openai.OpenAI(base_url=place.gateway + "/v1", api_key="any", max_retries=0))
    return OPEN[-1]  # type: ignore[no-any-return]


def anthropic_client(place: Place) -> anthropic.Anthropic:
    OPEN.append(anthropic.Anthropic(base_url=place.gateway, api_key="any", max_retries=0))
    return OPEN[-1]  # type: ignore[no-any-return]


def google_client(place: Place) -> genai.Client:
    OPEN.append(genai.Client(api_key="any", http_options=types.HttpOptions(base_url=place.gateway)))
    return OPEN[-1]  # type: ignore[no-any-return]


# -- OpenAI Chat Completions


@every_target
def test_openai_chat_whole(place: Place, model: str) -> None:
    raw = openai_client(place).chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": "hi"}], logit_bias={"1": 1}
    )
    reply = raw.parse()
    assert reply.choices[0].message.content == HELLO
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (100, 20)
    assert reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.cached_tokens == 40
    assert raw.headers["x-nightkeep-account"] == model.removeprefix("via-") + "-1"
    assert ("logit_bias" in raw.headers.get("x-nightkeep-stripped", "")) == (model != "via-chat")


@every_target
def test_openai_chat_streamed_with_usage(place: Place, model: str) -> None:
    stream = openai_client(place).chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == HELLO
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 120


@every_target
async def test_openai_chat_async_streamed_shows_no_usage_that_was_not_asked_for(place: Place, model: str) -> None:
    async with openai.AsyncOpenAI(base_url=place.gateway + "/v1", api_key="any", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "hi"}], stream=True
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == HELLO
    assert all(chunk.usage is None for chunk in chunks)


@every_target
@pytest.mark.parametrize("is_streamed", [False, True])
def test_openai_chat_parallel_tools_round_trip(place: Place, model: str, is_streamed: bool) -> None:
    client = openai_client(place)
    tools: Any = [
        {"type": "function", "function": {"name": "disk", "description": "Use of a disk", "parameters": SCHEMA}}
    ]
    messages: Any = [{"role": "user", "content": "use the tools"}]
    if is_streamed:
        with client.chat.completions.stream(model=model, messages=messages, tools=tools) as stream:
            choice: Any = stream.get_final_completion().choices[0]
    else:
        choice = client.chat.completions.create(model=model, messages=messages, tools=tools).choices[0]
    assert choice.finish_reason == "tool_calls"
    calls = choice.message.tool_calls
    assert [json.loads(call.function.arguments) for call in calls] == [{"path": "/var"}, {"path": "/tmp"}]
    assert len({call.id for call in calls}) == 2
    shown = [
        {"id": c.id, "type": "function", "function": {"name": "disk", "arguments": c.function.arguments}} for c in calls
    ]
    messages.append({"role": "assistant", "content": choice.message.content, "tool_calls": shown})
    messages += [{"role": "tool", "tool_call_id": call.id, "content": "12 % used"} for call in calls]
    last = client.chat.completions.create(model=model, messages=messages, tools=tools)
    assert last.choices[0].message.content == "Both are fine."


@every_target
def test_openai_structured_output_and_images(place: Place, model: str) -> None:
    reply = openai_client(place).chat.completions.parse(
        model=model,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "this town as json"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                ],
            }
        ],
        response_format=City,
    )
    assert reply.choices[0].message.parsed == City(city="Ghent", people=265086)


# -- OpenAI Responses


@every_target
def test_openai_responses_whole_and_streamed(place: Place, model: str) -> None:
    client = openai_client(place)
    reply = client.responses.create(model=model, input="hi")
    assert reply.output_text == HELLO
    assert reply.usage is not None
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (100, 20)
    with client.responses.stream(model=model, input="hi") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert text == stream.get_final_response().output_text == HELLO


@every_target
async def test_openai_responses_async_tools(place: Place, model: str) -> None:
    tools: Any = [{"type": "function", "name": "disk", "description": "Use", "parameters": SCHEMA, "strict": False}]
    async with openai.AsyncOpenAI(base_url=place.gateway + "/v1", api_key="any", max_retries=0) as client:
        reply = await client.responses.create(model=model, input="use the tools", tools=tools)
        calls = [item for item in reply.output if item.type == "function_call"]
        assert [json.loads(call.arguments)["path"] for call in calls] == ["/var", "/tmp"]
        items: Any = [{"role": "user", "content": "use the tools"}]
        items += [item.model_dump(exclude_none=True, exclude={"status", "parsed_arguments"}) for item in calls]
        items += [{"type": "function_call_output", "call_id": call.call_id, "output": "ok"} for call in calls]
        last = await client.responses.create(model=model, input=items, tools=tools)
    assert last.output_text == "Both are fine."


# -- Anthropic Messages


@every_target
def test_anthropic_whole(place: Place, model: str) -> None:
    reply = anthropic_client(place).messages.create(
        model=model, max_tokens=100, system="Be kind.", messages=[{"role": "user", "content": "hi"}]
    )
    assert reply.content[0].type == "text"
    assert reply.content[0].text == HELLO
    assert reply.stop_reason == "end_turn"
    assert (reply.usage.input_tokens, reply.usage.cache_read_input_tokens, reply.usage.output_tokens) == (60, 40, 20)


@every_target
def test_a_beta_header_is_sent_on_or_reported(place: Place, model: str) -> None:
    raw = anthropic_client(place).messages.with_raw_response.create(
        model=model,
        max_tokens=100,
        messages=[{"role": "user", "content": "hi"}],
        extra_headers={"anthropic-beta": "context-1m-2025-08-07"},
    )
    is_reported = "anthropic-beta" in raw.headers.get("x-nightkeep-stripped", "")
    assert is_reported == (model != "via-anthropic")


@every_target
@pytest.mark.parametrize("is_streamed", [False, True])
def test_anthropic_parallel_tools_round_trip(place: Place, model: str, is_streamed: bool) -> None:
    client = anthropic_client(place)
    tools: Any = [{"name": "disk", "description": "Use of a disk", "input_schema": SCHEMA}]
    messages: Any = [{"role": "user", "content": "use the tools"}]
    if is_streamed:
        with client.messages.stream(model=model, max_tokens=100, tools=tools, messages=messages) as stream:
            reply: Any = stream.get_final_message()
    else:
        reply = client.messages.create(model=model, max_tokens=100, tools=tools, messages=messages)
    assert reply.stop_reason == "tool_use"
    calls = [block for block in reply.content if block.type == "tool_use"]
    assert [call.input for call in calls] == [{"path": "/var"}, {"path": "/tmp"}]
    messages.append(
        {
            "role": "assistant",
            "content": [block.model_dump(include={"type", "text", "id", "name", "input"}) for block in reply.content],
        }
    )
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "12 % used"} for call in calls]
    messages.append({"role": "user", "content": results})
    last = client.messages.create(model=model, max_tokens=100, tools=tools, messages=messages)
    assert last.content[0].text == "Both are fine."  # type: ignore[union-attr]


@every_target
async def test_anthropic_async_stream(place: Place, model: str) -> None:
    messages: Any = [{"role": "user", "content": "hi"}]
    async with (
        anthropic.AsyncAnthropic(base_url=place.gateway, api_key="any", max_retries=0) as client,
        client.messages.stream(model=model, max_tokens=100, messages=messages) as stream,
    ):
        assert "".join([text async for text in stream.text_stream]) == HELLO


@every_target
def test_tokens_are_counted_or_estimated_aloud(place: Place, model: str) -> None:
    raw = anthropic_client(place).messages.with_raw_response.count_tokens(
        model=model, messages=[{"role": "user", "content": "hi"}]
    )
    assert raw.parse().input_tokens > 0
    is_estimate = raw.headers.get("x-nightkeep-degraded") == "estimated"
    assert is_estimate == (model in ("via-chat", "via-responses"))


# -- Gemini


@every_target
def test_google_whole_and_streamed(place: Place, model: str) -> None:
    with google_client(place) as client:
        reply = client.models.generate_content(model=model, contents="hi")
        assert reply.text == HELLO
        assert reply.usage_metadata is not None
        assert reply.usage_metadata.prompt_token_count == 100
        chunks = client.models.generate_content_stream(model=model, contents="hi")
        assert "".join(chunk.text or "" for chunk in chunks) == HELLO


@every_target
async def test_google_async_tools(place: Place, model: str) -> None:
    disk = types.FunctionDeclaration(name="disk", description="Use of a disk", parameters_json_schema=SCHEMA)
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[disk])],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    async with google_client(place).aio as client:
        reply = await client.models.generate_content(model=model, contents="use the tools", config=config)
        assert reply.function_calls is not None
        assert [call.args for call in reply.function_calls] == [{"path": "/var"}, {"path": "/tmp"}]
        assert reply.candidates is not None
        answers = [
            types.Part(function_response=types.FunctionResponse(id=call.id, name="disk", response={"used": "12 %"}))
            for call in reply.function_calls
        ]
        asked = types.Content(role="user", parts=[types.Part(text="use the tools")])
        contents: Any = [asked, reply.candidates[0].content, types.Content(role="user", parts=answers)]
        last = await client.models.generate_content(model=model, contents=contents, config=config)
    assert last.text == "Both are fine."


# -- embeddings, lists, errors


@pytest.mark.parametrize("model", ["via-chat", "via-gemini"])
def test_embeddings_on_every_pair_of_wires_that_has_them(place: Place, model: str) -> None:
    made = openai_client(place).embeddings.create(model=model, input=["one", "two"])
    assert [len(item.embedding) > 0 for item in made.data] == [True, True]
    with google_client(place) as client:
        found = client.models.embed_content(model=model, contents=["one", "two"]).embeddings
    assert found is not None
    joined = "gemini" in model  # for names like Google's own the SDK joins the texts into one content
    assert [bool(item.values) for item in found] == ([True] if joined else [True, True])


def test_every_sdk_lists_the_models(place: Place) -> None:
    assert set(TARGETS) <= {model.id for model in openai_client(place).models.list()}
    assert set(TARGETS) <= {model.id for model in anthropic_client(place).models.list()}
    with google_client(place) as client:
        assert {"models/" + name for name in TARGETS} <= {model.name for model in client.models.list()}


@every_target
def test_errors_are_raised_as_the_sdks_own_types(place: Place, model: str) -> None:
    messages: Any = [{"role": "user", "content": "bad request"}]
    with pytest.raises(openai.BadRequestError, match=model):
        openai_client(place).chat.completions.create(model=model, messages=messages)
    with pytest.raises(anthropic.BadRequestError, match=model):
        anthropic_client(place).messages.create(model=model, max_tokens=9, messages=messages)
    with google_client(place) as client, pytest.raises(google_errors.ClientError, match=model):
        client.models.generate_content(model=model, contents="bad request")


def test_an_unknown_model_is_not_found_for_every_sdk(place: Place) -> None:
    messages: Any = [{"role": "user", "content": "hi"}]
    with pytest.raises(openai.NotFoundError, match="no-such"):
        openai_client(place).chat.completions.create(model="no-such", messages=messages)
    with pytest.raises(openai.NotFoundError, match="no-such"):
        openai_client(place).responses.create(model="no-such", input="hi")
    with pytest.raises(anthropic.NotFoundError, match="no-such"):
        anthropic_client(place).messages.create(model="no-such", max_tokens=9, messages=messages)


@every_target
def test_a_stream_that_breaks_is_an_error_with_the_text_so_far(place: Place, model: str) -> None:
    messages: Any = [{"role": "user", "content": "break off"}]
    text = ""
    with pytest.raises(openai.APIError, match="INCOMPLETE"):
        for chunk in openai_client(place).chat.completions.create(model=model, messages=messages, stream=True):
            text += chunk.choices[0].delta.content or ""
    assert text
    text = ""
    with (
        pytest.raises(anthropic.APIError, match="INCOMPLETE"),
        anthropic_client(place).messages.stream(model=model, max_tokens=99, messages=messages) as stream,
    ):
        for piece in stream.text_stream:
            text += piece
    assert text
    with google_client(place) as client, pytest.raises(google_errors.APIError, match="INCOMPLETE"):
        list(client.models.generate_content_stream(model=model, contents="break off"))
