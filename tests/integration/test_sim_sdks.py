"""The official SDKs run their real code against the simulated provider: all four wires, whole and streamed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nightkeep.testing.sim import RunningSim, parse_scenario, running_sim

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")
genai = pytest.importorskip("google.genai")

SCENARIO = """
[[turns]]
match = { contains = "weather", tool_result = false }
[turns.reply]
text = "I shall look."
tool_calls = [
  { name = "get_weather", arguments = { city = "Oslo" } },
  { name = "get_weather", arguments = { city = "Rome" } },
]

[[turns]]
match = { tool_result = true }
reply = { text = "Oslo 3, Rome 19.", usage = { input = 120, cached = 100, output = 12, reasoning = 5 } }

[[turns]]
match = { contains = "think" }
reply = { text = "42", reasoning = "Let me see. Six times seven." }

[[turns]]
match = { contains = "person" }
reply = { json = { name = "Ada", age = 36 } }

[[turns]]
match = { contains = "naughty" }
reply = { refusal = "I will not do that." }
"""

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CHAT_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture(scope="module")
def sim() -> Iterator[RunningSim]:
    with running_sim(parse_scenario(SCENARIO)) as running:
        yield running


@pytest.fixture
def chat(sim: RunningSim) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=sim.base_url + "/v1", api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(sim: RunningSim) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=sim.base_url, api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
def gemini(sim: RunningSim) -> Iterator[genai.Client]:
    client = genai.Client(api_key="k", vertexai=False, http_options={"base_url": sim.base_url})
    yield client
    client.close()


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


class TestOpenAIChat:
    def test_answers_whole_and_says_it_is_simulated(self, chat: openai.OpenAI) -> None:
        raw = chat.chat.completions.with_raw_response.create(model="gpt-5", messages=_user("hello"))
        assert raw.headers["x-nightkeep-simulated"] == "1"
        reply = raw.parse()
        assert reply.choices[0].message.content.startswith("Simulated answer from nightkeep sim")
        assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens

    def test_streams_the_same_text_with_usage_at_the_end(self, chat: openai.OpenAI) -> None:
        whole = chat.chat.completions.create(model="gpt-5", messages=_user("hello"))
        events = list(
            chat.chat.completions.create(
                model="gpt-5", messages=_user("hello"), stream=True, stream_options={"include_usage": True}
            )
        )
        text = "".join([event.choices[0].delta.content or "" for event in events if event.choices])
        assert text == whole.choices[0].message.content
        assert events[-1].usage == whole.usage

    def test_runs_a_round_of_parallel_tool_calls(self, chat: openai.OpenAI) -> None:
        messages: list = _user("weather?")
        first = chat.chat.completions.create(model="gpt-5", messages=messages, tools=[CHAT_TOOL])
        message = first.choices[0].message
        assert first.choices[0].finish_reason == "tool_calls"
        assert [call.function.arguments for call in message.tool_calls] == ['{"city":"Oslo"}', '{"city":"Rome"}']
        messages.append(message)
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "3"} for call in message.tool_calls]
        last = chat.chat.completions.create(model="gpt-5", messages=messages, tools=[CHAT_TOOL])
        assert last.choices[0].message.content == "Oslo 3, Rome 19."
        assert last.usage.prompt_tokens_details.cached_tokens == 100
        assert last.usage.completion_tokens_details.reasoning_tokens == 5

    def test_streams_tool_calls_that_the_sdk_puts_together(self, chat: openai.OpenAI) -> None:
        with chat.chat.completions.stream(model="gpt-5", messages=_user("weather?"), tools=[CHAT_TOOL]) as stream:
            message = stream.get_final_completion().choices[0].message
        assert [call.function.arguments for call in message.tool_calls] == ['{"city":"Oslo"}', '{"city":"Rome"}']

    def test_gives_structured_output_and_refusals(self, chat: openai.OpenAI) -> None:
        wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
        made = chat.chat.completions.create(model="gpt-5", messages=_user("a person"), response_format=wanted)
        assert made.choices[0].message.content == '{"name":"Ada","age":36}'
        refused = chat.chat.completions.create(model="gpt-5", messages=_user("naughty"))
        assert refused.choices[0].message.refusal == "I will not do that."

    def test_makes_up_structured_output_and_forced_calls_where_nothing_is_scripted(self, chat: openai.OpenAI) -> None:
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
        made = chat.chat.completions.create(model="gpt-5", messages=_user("hi"), response_format=wanted)
        assert made.choices[0].message.content == '{"name":"simulated","age":1}'
        forced = chat.chat.completions.create(
            model="gpt-5", messages=_user("hi"), tools=[CHAT_TOOL], tool_choice="required"
        )
        assert forced.choices[0].message.tool_calls[0].function.arguments == '{"city":"simulated"}'

    def test_embeds_in_both_encodings_alike(self, chat: openai.OpenAI) -> None:
        packed = chat.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
        plain = chat.embeddings.create(model="text-embedding-3-small", input=["a", "b"], encoding_format="float")
        assert packed.data[1].embedding == pytest.approx(plain.data[1].embedding)

    def test_raises_the_sdks_own_errors(self, chat: openai.OpenAI) -> None:
        for fault, kind in (
            ("rate_limited", openai.RateLimitError),
            ("quota", openai.RateLimitError),
            ("unauthorized", openai.AuthenticationError),
            ("suspended", openai.PermissionDeniedError),
            ("not_found", openai.NotFoundError),
            ("bad_request:foo", openai.BadRequestError),
            ("server_error", openai.InternalServerError),
        ):
            with pytest.raises(kind):
                chat.chat.completions.create(model="g", messages=_user("x"), extra_headers={"x-sim-fault": fault})

    def test_lists_models(self, chat: openai.OpenAI) -> None:
        assert [model.id for model in chat.models.list()] == ["sim-model"]

    async def test_serves_the_async_client(self, sim: RunningSim) -> None:
        async with openai.AsyncOpenAI(base_url=sim.base_url + "/v1", api_key="k") as client:
            stream = await client.chat.completions.create(model="gpt-5", messages=_user("hi"), stream=True)
            parts = [event.choices[0].delta.content or "" async for event in stream]
        assert "".join(parts).startswith("Simulated answer")


RESPONSES_TOOL = {"type": "function", "name": "get_weather", "parameters": CITY, "strict": False}


class TestOpenAIResponses:
    def test_answers_whole_and_streamed_alike(self, chat: openai.OpenAI) -> None:
        whole = chat.responses.create(model="gpt-5", input="hello")
        with chat.responses.stream(model="gpt-5", input="hello") as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_response()
        assert whole.output_text == final.output_text
        assert whole.usage == final.usage
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"

    @pytest.mark.parametrize("is_streamed", [False, True])
    def test_continues_a_conversation_by_the_previous_response(self, chat: openai.OpenAI, is_streamed: bool) -> None:
        if is_streamed:
            with chat.responses.stream(model="gpt-5", input="weather?", tools=[RESPONSES_TOOL]) as stream:
                first = stream.get_final_response()
        else:
            first = chat.responses.create(model="gpt-5", input="weather?", tools=[RESPONSES_TOOL])
        calls = [item for item in first.output if item.type == "function_call"]
        assert [call.arguments for call in calls] == ['{"city":"Oslo"}', '{"city":"Rome"}']
        results = [{"type": "function_call_output", "call_id": call.call_id, "output": "3"} for call in calls]
        last = chat.responses.create(model="gpt-5", previous_response_id=first.id, input=results)
        assert last.output_text == "Oslo 3, Rome 19."
        assert last.usage.input_tokens_details.cached_tokens == 100

    def test_refuses_a_result_without_its_call(self, chat: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="No tool call found"):
            chat.responses.create(
                model="g", input=[{"type": "function_call_output", "call_id": "call_x", "output": "3"}]
            )

    def test_shows_reasoning_summaries_and_refusals(self, chat: openai.OpenAI) -> None:
        with chat.responses.stream(model="gpt-5", input="think") as stream:
            final = stream.get_final_response()
        assert final.output[0].summary[0].text == "Let me see. Six times seven."
        assert final.output_text == "42"
        refused = chat.responses.create(model="gpt-5", input="naughty")
        assert refused.output[0].content[0].refusal == "I will not do that."

    def test_plays_tools_that_take_free_text(self, chat: openai.OpenAI) -> None:
        reply = chat.responses.create(
            model="gpt-5", input="hi", tools=[{"type": "custom", "name": "patch"}], tool_choice="required"
        )
        assert reply.output[0].type == "custom_tool_call"


CLAUDE_TOOL = {"name": "get_weather", "input_schema": CITY}


class TestAnthropic:
    def test_answers_whole_and_streamed_alike(self, claude: anthropic.Anthropic) -> None:
        whole = claude.messages.create(model="claude-x", max_tokens=100, messages=_user("hello"))
        with claude.messages.stream(model="claude-x", max_tokens=100, messages=_user("hello")) as stream:
            final = stream.get_final_message()
        assert whole.content[0].text == final.content[0].text
        assert whole.usage.output_tokens == final.usage.output_tokens
        assert whole.stop_reason == final.stop_reason == "end_turn"

    @pytest.mark.parametrize("is_streamed", [False, True])
    def test_runs_a_round_of_parallel_tools(self, claude: anthropic.Anthropic, is_streamed: bool) -> None:
        asked: dict = {"model": "claude-x", "max_tokens": 1000, "tools": [CLAUDE_TOOL]}
        messages: list = _user("weather?")
        if is_streamed:
            with claude.messages.stream(messages=messages, **asked) as stream:
                first = stream.get_final_message()
        else:
            first = claude.messages.create(messages=messages, **asked)
        assert first.stop_reason == "tool_use"
        calls = [block for block in first.content if block.type == "tool_use"]
        assert [call.input for call in calls] == [{"city": "Oslo"}, {"city": "Rome"}]
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": "3"} for call in calls]
        messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
        last = claude.messages.create(messages=messages, **asked)
        assert last.content[0].text == "Oslo 3, Rome 19."
        assert (last.usage.input_tokens, last.usage.cache_read_input_tokens) == (20, 100)

    def test_signs_thinking_and_takes_only_its_own_signature_back(self, claude: anthropic.Anthropic) -> None:
        thinking = {"type": "enabled", "budget_tokens": 1024}
        asked: dict = {"model": "claude-x", "max_tokens": 2000, "thinking": thinking}
        with claude.messages.stream(messages=_user("think"), **asked) as stream:
            first = stream.get_final_message()
        assert first.content[0].thinking == "Let me see. Six times seven."
        messages: list = [*_user("think"), {"role": "assistant", "content": first.content}, *_user("hello")]
        assert claude.messages.create(messages=messages, **asked).stop_reason == "end_turn"
        forged = first.content[0].model_dump() | {"signature": "forged"}
        messages[1] = {"role": "assistant", "content": [forged, first.content[1]]}
        with pytest.raises(anthropic.BadRequestError, match="Invalid `signature`"):
            claude.messages.create(messages=messages, **asked)

    def test_takes_images_and_counts_tokens(self, claude: anthropic.Anthropic) -> None:
        source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
        content = [{"type": "image", "source": source}, {"type": "text", "text": "what?"}]
        counted = claude.messages.count_tokens(model="claude-x", messages=[{"role": "user", "content": content}])
        reply = claude.messages.create(model="claude-x", max_tokens=99, messages=[{"role": "user", "content": content}])
        assert counted.input_tokens == reply.usage.input_tokens

    def test_stops_at_max_tokens(self, claude: anthropic.Anthropic) -> None:
        reply = claude.messages.create(model="claude-x", max_tokens=5, messages=_user("hello"))
        assert (reply.stop_reason, reply.usage.output_tokens) == ("max_tokens", 5)

    def test_raises_the_sdks_own_errors(self, claude: anthropic.Anthropic) -> None:
        for fault, kind, status in (
            ("rate_limited", anthropic.RateLimitError, 429),
            ("unauthorized", anthropic.AuthenticationError, 401),
            ("suspended", anthropic.PermissionDeniedError, 403),
            ("no_credit", anthropic.BadRequestError, 400),
            ("overloaded", anthropic.InternalServerError, 529),
        ):
            with pytest.raises(kind) as caught:
                claude.messages.create(
                    model="c", max_tokens=9, messages=_user("x"), extra_headers={"x-sim-fault": fault}
                )
            assert caught.value.status_code == status

    def test_an_error_event_ends_a_stream_with_the_sdks_error(self, claude: anthropic.Anthropic) -> None:
        with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
            list(
                claude.messages.create(
                    model="c", max_tokens=99, messages=_user("x"), stream=True,
                    extra_headers={"x-sim-fault": "stream_error"},
                )
            )  # fmt: skip


class TestGemini:
    def test_answers_whole_and_streamed_alike(self, gemini: genai.Client) -> None:
        whole = gemini.models.generate_content(model="gemini-2.5-pro", contents="hello")
        parts = list(gemini.models.generate_content_stream(model="gemini-2.5-pro", contents="hello"))
        assert "".join([part.text or "" for part in parts]) == whole.text
        assert parts[-1].usage_metadata == whole.usage_metadata

    @pytest.mark.parametrize("is_streamed", [False, True])
    def test_runs_a_round_of_parallel_tools(self, gemini: genai.Client, is_streamed: bool) -> None:
        declared = {"name": "get_weather", "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}}}
        config: dict = {"tools": [{"function_declarations": [declared]}]}
        config["automatic_function_calling"] = {"disable": True}
        asked: dict = {"model": "gemini-2.5-pro", "config": config}
        if is_streamed:
            replies = list(gemini.models.generate_content_stream(contents="weather?", **asked))
        else:
            replies = [gemini.models.generate_content(contents="weather?", **asked)]
        parts = [part for reply in replies for part in reply.candidates[0].content.parts]
        calls = [part.function_call for part in parts if part.function_call]
        assert [call.args for call in calls] == [{"city": "Oslo"}, {"city": "Rome"}]
        results = [genai.types.Part.from_function_response(name=call.name, response={"result": 3}) for call in calls]
        contents = [
            genai.types.UserContent("weather?"),
            genai.types.ModelContent(parts),
            genai.types.UserContent(results),
        ]
        last = gemini.models.generate_content(contents=contents, **asked)
        assert last.text == "Oslo 3, Rome 19."
        assert last.usage_metadata.cached_content_token_count == 100
        assert last.usage_metadata.thoughts_token_count == 5

    def test_gives_structured_output_thoughts_and_counts(self, gemini: genai.Client) -> None:
        config: dict = {"response_mime_type": "application/json", "response_json_schema": SCHEMA}
        made = gemini.models.generate_content(model="gemini-2.5-pro", contents="a person", config=config)
        assert made.text == '{"name":"Ada","age":36}'
        thought = gemini.models.generate_content(model="gemini-2.5-pro", contents="think")
        assert [part.thought for part in thought.candidates[0].content.parts] == [True, None]
        counted = gemini.models.count_tokens(model="gemini-2.5-pro", contents="think")
        assert counted.total_tokens == thought.usage_metadata.prompt_token_count
        embedded = gemini.models.embed_content(model="gemini-embedding-001", contents=["a", "b"])
        assert len(embedded.embeddings) == 2

    def test_raises_the_sdks_own_errors(self, gemini: genai.Client) -> None:
        for fault, code, status in (
            ("rate_limited:7", 429, "RESOURCE_EXHAUSTED"),
            ("unauthorized", 400, "INVALID_ARGUMENT"),
            ("suspended", 403, "PERMISSION_DENIED"),
            ("overloaded", 503, "UNAVAILABLE"),
        ):
            options = {"headers": {"x-sim-fault": fault}}
            with pytest.raises(genai.errors.APIError) as caught:
                gemini.models.generate_content(model="g", contents="x", config={"http_options": options})
            assert (caught.value.code, caught.value.status) == (code, status)
