"""Anthropic requests: read whole, written from other wires, with everything that had to change said."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nightkeep.core.errors import RequestError, UntranslatableError
from nightkeep.core.messages import (
    CacheMark,
    ChatRequest,
    Media,
    Message,
    OutputFormat,
    Reasoning,
    ReasoningSettings,
    Text,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    ToolResult,
)
from nightkeep.models.wire.anthropic_messages import AnthropicMessagesCodec
from nightkeep.models.wire.base import Head, Wire

CODEC = AnthropicMessagesCodec()
HI = (Message(role="user", parts=(Text(text="hi"),)),)


def read(**fields: Any) -> ChatRequest:
    body = msgspec.json.encode({"model": "m", "messages": [], **fields})
    return CODEC.read_request(body, CODEC.head(body))


def write(
    request: ChatRequest, model: str = "claude-sonnet-4-5", source: Wire = Wire.OPENAI_CHAT
) -> tuple[dict[str, Any], dict[str, str]]:
    written = CODEC.write_request(request, model, source)
    return msgspec.json.decode(written.body), {item.name: item.reason for item in written.stripped}


def ask(**fields: Any) -> ChatRequest:
    return ChatRequest(**{"model": "m", "messages": HI, "max_output_tokens": 9000, **fields})


def test_a_request_written_on_its_own_wire_is_the_same_request() -> None:
    body = {
        "model": "m",
        "max_tokens": 4000,
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
                    {"type": "document", "source": {"type": "file", "file_id": "file_1"}, "title": "T", "context": "C"},
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}},
                    {"type": "document", "source": {"type": "content", "content": "blocks"}},
                    {"type": "search_result", "source": "s", "title": "t", "content": []},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "t", "signature": "s"},
                    {"type": "redacted_thinking", "data": "d"},
                    {"type": "text", "text": "x", "citations": [{"type": "char_location"}]},
                    {"type": "tool_use", "id": "toolu_1", "name": "n", "input": {"a": 1}, "caller": {"type": "direct"}},
                    {"type": "server_tool_use", "id": "s_1", "name": "web_search", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_1",
                        "is_error": True,
                        "cache_control": {"type": "ephemeral"},
                        "content": [
                            {"type": "text", "text": "a"},
                            {"type": "tool_reference", "tool_name": "x"},
                            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
                        ],
                    }
                ],
            },
            {"role": "system", "content": [{"type": "text", "text": "between"}]},
        ],
        "tools": [
            {"name": "n", "input_schema": {"type": "object"}, "strict": True, "input_examples": [{"a": 1}]},
            {"type": "bash_20250124", "name": "bash"},
            {"name": "late", "input_schema": {"type": "object"}, "defer_loading": True},
        ],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"},
        "output_config": {"effort": "max", "format": {"type": "json_schema", "schema": {"type": "object"}}, "new": 1},
        "metadata": {"user_id": "u", "tag": "t"},
        "service_tier": "standard_only",
        "stop_sequences": ["\n"],
        "stream": True,
        "temperature": 0.3,
        "top_k": 5,
        "top_p": 0.9,
        "container": {"id": "c"},
        "mcp_servers": [{"type": "url"}],
        "something_new": [1],
    }
    assert write(read(**body), "m", Wire.ANTHROPIC_MESSAGES) == (body, {})


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"messages": {}}, "messages: expected an array, got an object"),
        ({"messages": [5]}, "messages.0: expected an object, got a number"),
        ({"messages": [{"content": "x"}]}, "messages.0.role: this field is required"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: expected user, assistant or system"),
        ({"messages": [{"role": "user"}]}, "messages.0.content: expected a string or an array"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text: this field"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages.0.content.0.source: this field"),
        ({"max_tokens": "5"}, "max_tokens: expected an integer"),
        ({"temperature": "hot"}, "temperature: expected a number, got a string"),
        ({"stop_sequences": [1]}, "stop_sequences.0: expected a string"),
        ({"tools": [{"input_schema": {}}]}, "tools.0.name: this field is required"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type: expected auto, any, tool or none"),
        ({"output_config": {"format": {"type": "json"}}}, "output_config.format: expected type json_schema"),
        ({"stream": "yes"}, "stream: expected a boolean"),
        ({"model": None}, "model: this field is required"),
    ],
)
def test_a_wrong_shape_is_named_by_its_path(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(**fields)
    assert caught.value.message.startswith(path)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff"])
def test_what_is_not_a_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError, match="not a JSON object"):
        CODEC.head(body)


@pytest.mark.parametrize(
    ("user", "session"),
    [
        ("user_abc_account_1-2_session_0f3e-77", "0f3e-77"),
        ('{"device_id":"d","session_id":"0f3e-77"}', "0f3e-77"),
        ("user-5", None),
        ("{broken", None),
        (None, None),
        (5, None),
    ],
)
def test_claude_codes_session_is_found(user: Any, session: str | None) -> None:
    body = msgspec.json.encode({"model": "m", "stream": True, "max_tokens": 7, "metadata": {"user_id": user}})
    assert CODEC.head(body) == Head("m", True, 7, session)


def test_only_the_model_changes_when_a_body_is_retargeted() -> None:
    body = b'{"messages": [ {"a":1.50} ],"model":"smart","x":1e5}'
    head = CODEC.head(body)
    assert CODEC.retarget(body, head, "smart") is body
    assert CODEC.retarget(body, head, "claude") == b'{"messages":[ {"a":1.50} ],"model":"claude","x":1e5}'


def test_a_missing_limit_is_set_and_told() -> None:
    body, stripped = write(ask(max_output_tokens=None))
    assert body["max_tokens"] == 4096
    assert stripped == {"max_completion_tokens": "max_tokens set to 4096: Anthropic requires it"}


def test_what_this_wire_lacks_is_stripped_and_told() -> None:
    request = ask(seed=1, presence_penalty=0.5, frequency_penalty=0.5, logprobs=True, top_logprobs=3, verbosity="low")
    body, stripped = write(msgspec.structs.replace(request, metadata={"a": "b"}, service_tier="flex"))
    assert body.keys() == {"model", "messages", "max_tokens"}
    assert stripped.keys() == {
        *("seed", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "verbosity"),
        *("metadata", "service_tier"),
    }


def test_sampling_out_of_range_is_limited_and_told() -> None:
    body, stripped = write(ask(temperature=1.7, top_p=0.5, stop=("\n", "END")))
    assert (body["temperature"], body["stop_sequences"]) == (1, ["END"])
    assert "top_p" not in body
    assert stripped.keys() == {"temperature", "top_p", "stop"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"choices": 3}, "n: Anthropic gives one answer"),
        ({"output_format": OutputFormat(kind="json")}, "response_format: Anthropic cannot promise JSON"),
        (
            {"messages": (Message(role="user", parts=(Media(kind="audio", data="aGk="),)),)},
            r"messages\[0\]: Anthropic takes no audio",
        ),
        (
            {"messages": (Message(role="user", parts=(Media(kind="image", file_id="file-1"),)),)},
            r"messages\[0\]: the file file-1 is stored at the vendor of openai_chat",
        ),
    ],
)
def test_what_would_change_the_meaning_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UntranslatableError, match=said):
        write(ask(**fields))


@pytest.mark.parametrize(
    ("settings", "limit", "model", "thinking", "extra"),
    [
        (
            ReasoningSettings(effort="high"),
            40_000,
            "claude-sonnet-4-5",
            {"type": "enabled", "budget_tokens": 24576},
            {},
        ),
        (ReasoningSettings(effort="none"), 9000, "claude-sonnet-4-5", {"type": "disabled"}, {}),
        (
            ReasoningSettings(budget_tokens=200),
            9000,
            "claude-sonnet-4-5",
            {"type": "enabled", "budget_tokens": 1024},
            {},
        ),
        (ReasoningSettings(effort="xhigh"), 9000, "claude-opus-4-6", {"type": "adaptive"}, {"effort": "xhigh"}),
        (ReasoningSettings(budget_tokens=8000), 9000, "claude-opus-4-6", {"type": "adaptive"}, {"effort": "medium"}),
        (
            ReasoningSettings(effort="low", summary="auto"),
            9000,
            "claude-sonnet-4-5",
            {"type": "enabled", "budget_tokens": 1024, "display": "summarized"},
            {},
        ),
    ],
)
def test_an_effort_or_a_budget_becomes_what_the_model_takes(
    settings: ReasoningSettings, limit: int, model: str, thinking: dict[str, Any], extra: dict[str, Any]
) -> None:
    body, stripped = write(ask(reasoning=settings, max_output_tokens=limit), model)
    assert body["thinking"] == thinking
    assert body.get("output_config", {}) == extra
    assert stripped == {}


def test_a_budget_that_does_not_fit_is_cut_and_told() -> None:
    body, stripped = write(ask(reasoning=ReasoningSettings(effort="high")))
    assert body["thinking"]["budget_tokens"] == 4500 < body["max_tokens"] == 9000
    assert "24576 set to 4500" in stripped["reasoning_effort"]
    body, stripped = write(ask(reasoning=ReasoningSettings(effort="high"), max_output_tokens=1000))
    assert "thinking" not in body and "reasoning_effort" in stripped


def test_a_limit_of_ours_leaves_room_for_thinking() -> None:
    body, _ = write(ask(reasoning=ReasoningSettings(effort="medium"), max_output_tokens=None))
    assert body["max_tokens"] == 8192 + 4096


def test_thinking_gives_way_where_anthropic_would_refuse_it() -> None:
    low = ReasoningSettings(effort="low")
    body, stripped = write(
        ask(reasoning=low, tools=(ToolDefinition(name="t"),), tool_choice=ToolChoice(mode="required"))
    )
    assert "thinking" not in body and "forced" in stripped["reasoning_effort"]
    loop = (
        *HI,
        Message(role="assistant", parts=(ToolCall(id="c", name="t", arguments="{}"),)),
        Message(role="user", parts=(ToolResult(call_id="c", content=(Text(text="r"),)),)),
    )
    body, stripped = write(ask(reasoning=low, messages=loop))
    assert "thinking" not in body and "signed itself" in stripped["reasoning_effort"]


def test_sampling_gives_way_to_thinking() -> None:
    body, stripped = write(ask(reasoning=ReasoningSettings(effort="low"), temperature=0.2, top_k=4, top_p=0.99))
    assert body.keys() & {"temperature", "top_k", "top_p"} == {"top_p"}
    assert stripped.keys() == {"temperature", "top_k"}


def test_results_follow_their_calls_in_one_turn() -> None:
    request = ask(
        messages=(
            *HI,
            Message(
                role="assistant",
                parts=(ToolCall(id="a.1", name="t", arguments="{}"), ToolCall(id="b", name="t", arguments="{}")),
            ),
            Message(role="user", parts=(ToolResult(call_id="a.1", content=(Text(text="1"),)),)),
            Message(role="user", parts=(ToolResult(call_id="b", is_error=True),)),
            Message(role="user", parts=(Text(text="and?"),)),
            Message(role="system", parts=(Text(text="hurry"),)),
        )
    )
    body, stripped = write(request)
    assert body["messages"][2] == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "a_1", "content": "1"},
            {"type": "tool_result", "tool_use_id": "b", "is_error": True},
            {"type": "text", "text": "and?"},
            {"type": "text", "text": "<system>\nhurry\n</system>"},
        ],
    }
    assert [block["id"] for block in body["messages"][1]["content"]] == ["a_1", "b"]
    assert stripped.keys() == {"messages[5].role"}


def test_thoughts_go_back_only_to_who_signed_them() -> None:
    mine = Reasoning(text="t", signature="nightkeep.anthropic_messages.sig")
    theirs = Reasoning(text="t", signature="nightkeep.gemini.sig")
    request = ask(messages=(*HI, Message(role="assistant", parts=(mine, theirs, Reasoning(text="t"), Text(text="x")))))
    for source in (Wire.OPENAI_CHAT, Wire.ANTHROPIC_MESSAGES):
        body, stripped = write(request, source=source)
        assert body["messages"][1]["content"] == [
            {"type": "thinking", "thinking": "t", "signature": "sig"},
            {"type": "text", "text": "x"},
        ]
        assert "reasoning content" in stripped


def test_cache_marks_and_serial_tools_are_said() -> None:
    tool = ToolDefinition(name="t", schema={"properties": {}}, cache=CacheMark(ttl="5m"))
    body, _ = write(ask(tools=(tool,), parallel_tool_calls=False))
    assert body["tools"][0]["cache_control"] == {"type": "ephemeral", "ttl": "5m"}
    assert body["tools"][0]["input_schema"]["type"] == "object"
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


def test_a_count_holds_only_what_counts() -> None:
    written = CODEC.write_count_request(ask(stream=True, temperature=0.5, max_output_tokens=None), "m", Wire.GEMINI)
    assert msgspec.json.decode(written.body).keys() == {"model", "messages"}
    assert written.stripped == ()
    assert CODEC.read_count(b'{"input_tokens":7}') == 7
