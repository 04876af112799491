"""Gemini requests: read in both spellings, written from other wires, with everything that had to change said."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.core.embeddings import EmbedRequest
from nightkeep.core.errors import RequestError, UntranslatableError
from nightkeep.core.messages import (
    ChatRequest,
    Media,
    Message,
    OutputFormat,
    ReasoningSettings,
    Text,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    ToolResult,
)
from nightkeep.models.wire.base import Head, Wire
from nightkeep.models.wire.gemini import GeminiCodec
from nightkeep.models.wire.gemini_embeddings import (
    read_embed_reply,
    read_embed_request,
    retarget_embed_request,
    write_embed_request,
)
from nightkeep.models.wire.gemini_schema import to_gemini_schema, to_json_schema

CODEC = GeminiCodec()
HEAD = Head("gemini-2.5-pro")
HI = (Message(role="user", parts=(Text(text="hi"),)),)


def read(**fields: Any) -> ChatRequest:
    return CODEC.read_request(msgspec.json.encode(fields), HEAD)


def write(
    request: ChatRequest, model: str = "gemini-2.5-pro", source: Wire = Wire.OPENAI_CHAT
) -> tuple[dict[str, Any], dict[str, str]]:
    written = CODEC.write_request(request, model, source)
    return msgspec.json.decode(written.body), {item.name: item.reason for item in written.stripped}


def ask(**fields: Any) -> ChatRequest:
    return ChatRequest(**{"model": "m", "messages": HI, **fields})


def test_a_request_written_on_its_own_wire_is_the_same_request() -> None:
    body = {
        "systemInstruction": {"parts": [{"text": "sys"}]},
        "contents": [
            {
                "role": "user",
                "parts": [{"text": ""}, {"fileData": {"fileUri": "gs://b/f.mp4", "mimeType": "video/mp4"}}],
            },
            {
                "role": "model",
                "parts": [
                    {"text": "t", "thought": True, "thoughtSignature": "QQ=="},
                    {"text": "x", "thoughtSignature": "Qg=="},
                    {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "Qw=="},
                    {"functionCall": {"name": "f", "args": {}}},
                    {"functionCall": {"name": "f", "args": {}, "id": "own"}},
                    {"executableCode": {"language": "PYTHON", "code": "1"}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "f", "response": {"output": "1"}}},
                    {
                        "functionResponse": {
                            "name": "f",
                            "response": {"error": "no"},
                            "parts": [{"inlineData": {"mimeType": "image/png", "data": "aGk="}}],
                        }
                    },
                    {"functionResponse": {"name": "f", "id": "own", "response": {"x": [1]}}},
                ],
            },
        ],
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "f", "description": "d", "parametersJsonSchema": {"$ref": "#/x"}, "behavior": "BLOCKING"}
                ]
            },
            {"googleSearch": {}},
        ],
        "toolConfig": {
            "functionCallingConfig": {"mode": "VALIDATED", "allowedFunctionNames": ["f"]},
            "retrievalConfig": {"languageCode": "en"},
        },
        "generationConfig": {
            "maxOutputTokens": 5,
            "temperature": 1.5,
            "topP": 0.5,
            "topK": 40,
            "seed": 1,
            "presencePenalty": 0.1,
            "frequencyPenalty": 0.2,
            "responseLogprobs": True,
            "logprobs": 2,
            "candidateCount": 2,
            "stopSequences": ["X"],
            "responseMimeType": "application/json",
            "responseSchema": {"type": "OBJECT", "properties": {"a": {"type": "STRING", "nullable": True}}},
            "thinkingConfig": {"thinkingBudget": -1, "includeThoughts": True},
            "responseModalities": ["TEXT"],
            "speechConfig": {"a": 1},
        },
        "safetySettings": [{"category": "c"}],
        "cachedContent": "cachedContents/1",
        "labels": {"a": "b"},
        "serviceTier": "flex",
        "newThing": {"a": 1},
    }
    assert write(read(**body), source=Wire.GEMINI) == (body, {})


def test_snake_case_reads_the_same_as_camel_case() -> None:
    camel = read(
        systemInstruction={"parts": [{"text": "s"}]},
        contents=[{"parts": [{"inlineData": {"mimeType": "image/png", "data": "-_"}}]}],
        tools=[{"functionDeclarations": [{"name": "f", "parametersJsonSchema": {"type": "object"}}]}],
        toolConfig={"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        generationConfig={"maxOutputTokens": 5, "thinkingConfig": {"thinkingLevel": "LOW"}, "topK": 4.0},
    )
    snake = read(
        system_instruction="s",
        contents={"parts": {"inline_data": {"mime_type": "image/png", "data": "+/"}}},
        tools=[{"function_declarations": [{"name": "f", "parameters_json_schema": {"type": "object"}}]}],
        tool_config={"function_calling_config": {"mode": "any", "allowed_function_names": ["f"]}},
        generation_config={"max_output_tokens": 5, "thinking_config": {"thinking_level": "low"}, "top_k": 4},
    )
    assert camel == snake
    assert camel.tool_choice == ToolChoice(mode="tool", name="f")


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"contents": 5}, "contents: expected an array"),
        ({"contents": [{"role": "robot"}]}, "contents.0.role: expected user or model"),
        ({"contents": [{"parts": [5]}]}, "contents.0.parts.0: expected an object, got a number"),
        ({"contents": [{"parts": [{"functionCall": {}}]}]}, "contents.0.parts.0.functionCall.name: this field"),
        ({"generationConfig": {"temperature": "x"}}, "generationConfig.temperature: expected a number"),
        ({"tools": [{"functionDeclarations": [{}]}]}, "tools.0.functionDeclarations.0.name: this field"),
    ],
)
def test_a_wrong_shape_is_named_by_its_path(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(**fields)
    assert caught.value.message.startswith(path)


def test_the_path_gives_model_and_stream() -> None:
    head = CODEC.head(b'{"generation_config":{"max_output_tokens":5}}', "models/gemini-2.5-pro", stream=True)
    assert head == Head("gemini-2.5-pro", True, 5)
    with pytest.raises(RequestError, match="the path names no model"):
        CODEC.head(b"{}")
    with pytest.raises(RequestError, match="generationConfig"):
        CODEC.head(b'{"generationConfig":{"maxOutputTokens":"many"}}', "m")


def test_results_stand_together_in_the_order_of_their_calls() -> None:
    request = ask(
        messages=(
            *HI,
            Message(
                role="assistant",
                parts=(ToolCall(id="a", name="f", arguments='{"x": 1}'), ToolCall(id="b", name="g", arguments="")),
            ),
            Message(role="user", parts=(ToolResult(call_id="b", content=(Text(text="late"),)),)),
            Message(
                role="user",
                parts=(ToolResult(call_id="a", content=(Text(text='{"k": 1}'), Media(kind="image", data="aGk="))),),
            ),
            Message(role="user", parts=(Text(text="and?"),)),
        )
    )
    body, _ = write(request)
    assert body["contents"][1]["parts"] == [
        {"functionCall": {"name": "f", "args": {"x": 1}}},
        {"functionCall": {"name": "g", "args": {}}},
    ]
    assert body["contents"][2:] == [
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "f", "response": {"k": 1}}},
                {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
                {"functionResponse": {"name": "g", "response": {"output": "late"}}},
            ],
        },
        {"role": "user", "parts": [{"text": "and?"}]},
    ]
    newer, _ = write(request, "gemini-3-pro-preview")
    assert newer["contents"][1]["parts"][0]["thoughtSignature"] == "skip_thought_signature_validator"
    assert newer["contents"][2]["parts"][0]["functionResponse"]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    ]


def test_a_result_without_its_call_is_refused() -> None:
    with pytest.raises(RequestError, match="no tool call c came before"):
        write(ask(messages=(Message(role="user", parts=(ToolResult(call_id="c"),)),)))


@pytest.mark.parametrize(
    ("settings", "model", "config", "is_told"),
    [
        (ReasoningSettings(effort="high"), "gemini-2.5-pro", {"thinkingBudget": 24576}, False),
        (ReasoningSettings(effort="none"), "gemini-2.5-flash", {"thinkingBudget": 0}, False),
        (ReasoningSettings(effort="none"), "gemini-2.5-pro", {"thinkingBudget": 128}, True),
        (ReasoningSettings(effort="xhigh"), "gemini-2.5-flash", {"thinkingBudget": 24576}, True),
        (ReasoningSettings(effort="medium"), "gemini-3-pro-preview", {"thinkingLevel": "MEDIUM"}, False),
        (ReasoningSettings(enabled=True, budget_tokens=900), "gemini-3-pro", {"thinkingLevel": "LOW"}, False),
        (ReasoningSettings(effort="none"), "gemini-3-pro", {"thinkingLevel": "MINIMAL"}, True),
        (ReasoningSettings(enabled=True), "gemini-2.5-pro", {"thinkingBudget": -1}, False),
        (ReasoningSettings(effort="high"), "gemini-2.0-flash", None, True),
    ],
)
def test_an_effort_or_a_budget_becomes_what_the_model_takes(
    settings: ReasoningSettings, model: str, config: dict[str, Any] | None, is_told: bool
) -> None:
    body, stripped = write(ask(reasoning=settings), model)
    assert body.get("generationConfig", {}).get("thinkingConfig") == config
    assert ("reasoning_effort" in stripped) is is_told


def test_what_this_wire_lacks_is_stripped_and_told() -> None:
    request = ask(
        user="u",
        metadata={"a": "b"},
        verbosity="low",
        prompt_cache_key="k",
        parallel_tool_calls=False,
        logprobs=True,
        top_logprobs=2,
        service_tier="auto",
        tools=(ToolDefinition(name="t", strict=True),),
        seed=5,
    )
    body, stripped = write(request)
    assert body["generationConfig"] == {"seed": 5}
    assert body["tools"] == [{"functionDeclarations": [{"name": "t"}]}]
    assert stripped.keys() == {
        *("user", "metadata", "verbosity", "prompt_cache_key", "parallel_tool_calls", "logprobs", "top_logprobs"),
        *("service_tier", "tools[].strict"),
    }


def test_what_would_change_the_meaning_is_refused() -> None:
    with pytest.raises(UntranslatableError, match="n: several answers"):
        write(ask(choices=2))
    with pytest.raises(UntranslatableError, match="file-1 is stored at the vendor of openai_chat"):
        write(ask(messages=(Message(role="user", parts=(Media(kind="image", file_id="file-1"),)),)))


def test_a_schema_goes_where_it_can_be_said() -> None:
    plain = {"type": "object", "properties": {"a": {"type": ["string", "null"], "enum": ["x"]}}}
    strict = plain | {"additionalProperties": False}
    assert write(ask(output_format=OutputFormat(kind="schema", schema=plain)))[0]["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseSchema": {
            "type": "OBJECT",
            "properties": {"a": {"type": "STRING", "nullable": True, "enum": ["x"]}},
        },
    }
    assert write(ask(output_format=OutputFormat(kind="schema", schema=strict)))[0]["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": strict,
    }
    assert write(ask(output_format=OutputFormat(kind="json")))[0]["generationConfig"] == {
        "responseMimeType": "application/json"
    }


LEAVES = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["string", "integer", "number", "boolean"])}),
    st.fixed_dictionaries({"type": st.just(["string", "null"])}, optional={"description": st.text(max_size=5)}),
    st.fixed_dictionaries({"type": st.just("string"), "enum": st.lists(st.text(max_size=3), min_size=1, max_size=3)}),
    st.fixed_dictionaries({"type": st.just("integer"), "minimum": st.integers(0, 5), "format": st.just("int64")}),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}, optional={"minItems": st.integers(0, 9)}),
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3)}
        ),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=3)}),
    ),
    max_leaves=8,
)


@given(SCHEMAS)
def test_a_sayable_schema_comes_back_unchanged(schema: dict[str, Any]) -> None:
    said = to_gemini_schema(schema)
    assert said is not None
    assert to_json_schema(said) == schema


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/a"},
        {"type": "object", "properties": {"a": {"oneOf": []}}},
        {"type": ["string", "integer"]},
        {"type": "integer", "enum": [1]},
        {"type": "array", "items": {"type": "string", "format": "email"}},
        {"enum": ["a"]},
    ],
)
def test_an_unsayable_schema_is_not_bent(schema: dict[str, Any]) -> None:
    assert to_gemini_schema(schema) is None


def test_gemini_words_of_a_schema_become_json_schema() -> None:
    given_schema = {
        "type": "OBJECT",
        "properties": {
            "b": {"type": "STRING", "format": "enum", "enum": ["x"]},
            "a": {"type": "ARRAY", "min_items": "2"},
        },
        "property_ordering": ["a", "b"],
        "example": {"a": []},
        "nullable": True,
    }
    schema = to_json_schema(given_schema)
    assert schema == {
        "type": ["object", "null"],
        "properties": {"a": {"type": "array", "minItems": 2}, "b": {"type": "string", "enum": ["x"]}},
        "examples": [{"a": []}],
    }
    assert list(schema["properties"]) == ["a", "b"]


def test_a_count_is_asked_bare_or_whole() -> None:
    bare = CODEC.write_count_request(ask(), "g", Wire.OPENAI_CHAT)
    assert msgspec.json.decode(bare.body) == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    whole = CODEC.write_count_request(ask(system=(Text(text="s"),)), "g", Wire.OPENAI_CHAT)
    assert msgspec.json.decode(whole.body)["generateContentRequest"]["model"] == "models/g"
    assert CODEC.read_count_request(whole.body, HEAD).system == (Text(text="s"),)
    assert CODEC.read_count_request(bare.body, HEAD).messages == HI
    assert CODEC.read_count(b'{"totalTokens":7,"promptTokensDetails":[]}') == 7
    with pytest.raises(ValueError, match="not a token count"):
        CODEC.read_count(b"{}")


def test_embeddings_are_read_in_both_forms_and_written_as_a_batch() -> None:
    single = b'{"model":"models/e","content":{"parts":[{"text":"a"}]},"taskType":"RETRIEVAL_QUERY","new":1}'
    request = read_embed_request(single, Head("e"))
    assert request == EmbedRequest(model="e", texts=("a",), purpose="RETRIEVAL_QUERY", foreign={"new": 1})
    written = write_embed_request(EmbedRequest(model="x", texts=("a", "b"), dimensions=5), "e", Wire.OPENAI_CHAT)
    again = read_embed_request(written.body, Head("e"))
    assert again == EmbedRequest(model="e", texts=("a", "b"), dimensions=5)
    other = msgspec.json.decode(retarget_embed_request(written.body, Head("e"), "e2"))
    assert [item["model"] for item in other["requests"]] == ["models/e2", "models/e2"]
    with pytest.raises(UntranslatableError, match="tokens"):
        write_embed_request(EmbedRequest(model="x", tokens=((1,),)), "e", Wire.OPENAI_CHAT)
    with pytest.raises(RequestError, match=r"content\.parts: expected texts"):
        read_embed_request(b"{}", Head("e"))
    assert read_embed_reply(b'{"embedding":{"values":[1,2.5]}}', "e").vectors == ((1.0, 2.5),)
    with pytest.raises(ValueError, match="no vectors"):
        read_embed_reply(b"{}", "e")
