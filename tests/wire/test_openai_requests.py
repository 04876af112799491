"""Requests of OpenAI's two wires: read into neutral words, written for other models, retargeted byte by byte."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from nightkeep.core.errors import RequestError, UntranslatableError
from nightkeep.core.events import replay_reply
from nightkeep.core.messages import (
    CacheMark,
    ChatRequest,
    Media,
    Message,
    Opaque,
    OutputFormat,
    Reasoning,
    ReasoningSettings,
    Reply,
    StopReason,
    Text,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from nightkeep.models.wire import CODECS
from nightkeep.models.wire.base import Head, Wire, Written

CHAT, RESPONSES = Wire.OPENAI_CHAT, Wire.OPENAI_RESPONSES
PNG = base64.b64encode(b"\x89PNG").decode()
HELLO = [{"role": "user", "content": "hi"}]


def head_of(wire: Wire, **fields: Any) -> Head:
    return CODECS[wire].head(msgspec.json.encode({"model": "m", **fields}))


def read(wire: Wire, **fields: Any) -> ChatRequest:
    body = msgspec.json.encode({"model": "m", **fields})
    return CODECS[wire].read_request(body, CODECS[wire].head(body))


def chat(*messages: dict[str, Any], **fields: Any) -> ChatRequest:
    return read(CHAT, messages=list(messages) or HELLO, **fields)


def written(
    request: ChatRequest, target: Wire, source: Wire, model: str = "gpt-4o"
) -> tuple[dict[str, Any], list[str]]:
    result: Written = CODECS[target].write_request(request, model, source)
    return msgspec.json.decode(result.body), [item.name for item in result.stripped]


# --- the head -------------------------------------------------------------------------------------------------------


def test_the_head_tells_whether_a_chat_stream_wants_its_usage() -> None:
    assert head_of(CHAT, stream=True).wants_usage is False
    assert head_of(CHAT, stream=True, stream_options={"include_usage": True}).wants_usage is True
    assert head_of(CHAT).wants_usage is True


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_head_knows_both_names_of_the_output_limit(name: str) -> None:
    assert head_of(CHAT, **{name: 7}).max_output_tokens == 7


def test_the_head_takes_codex_session_from_the_cache_key_and_none_from_a_chat_user() -> None:
    assert head_of(RESPONSES, prompt_cache_key="0199-abc").session == "0199-abc"
    assert head_of(CHAT, user="u", metadata={"a": "b"}).session is None


@pytest.mark.parametrize("wire", [CHAT, RESPONSES])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not a JSON object"),
        (b"{", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b'"\xff"', "not a JSON object"),
        (b"{}", "model: "),
        (b'{"model":7}', "model: "),
        (b'{"model":"m","stream":"yes"}', "stream: "),
    ],
)
def test_a_head_that_cannot_be_read_names_the_field(wire: Wire, body: bytes, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        CODECS[wire].head(body)


# --- passing through ------------------------------------------------------------------------------------------------


def test_retargeting_changes_the_model_and_asks_a_stream_for_its_usage() -> None:
    body = b'{"model": "a", "stream": true, "messages": [{"role": "user", "content": "\\u00e9"}], "seed": 1.50}'
    codec = CODECS[CHAT]
    changed = codec.retarget(body, codec.head(body), "b")
    assert b'[{"role": "user", "content": "\\u00e9"}]' in changed and b"1.50" in changed
    assert msgspec.json.decode(changed) == msgspec.json.decode(body) | {
        "model": "b",
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize("options", [None, {"include_usage": False}, {"include_obfuscation": False}])
def test_retargeting_keeps_the_other_stream_options(options: dict[str, Any] | None) -> None:
    body = msgspec.json.encode({"model": "a", "stream": True, "stream_options": options, "messages": HELLO})
    codec = CODECS[CHAT]
    changed = msgspec.json.decode(codec.retarget(body, codec.head(body), "a"))
    assert changed["stream_options"] == (options or {}) | {"include_usage": True}


@pytest.mark.parametrize("wire", [CHAT, RESPONSES])
def test_a_body_that_needs_no_change_is_passed_through_as_the_same_object(wire: Wire) -> None:
    body = b'{"model":"a","stream":false}'
    assert CODECS[wire].retarget(body, CODECS[wire].head(body), "a") is body


# --- reading chat ---------------------------------------------------------------------------------------------------


def test_system_and_developer_text_before_the_first_turn_is_the_system_text() -> None:
    request = chat(
        {"role": "system", "content": "One."},
        {"role": "developer", "content": [{"type": "text", "text": "Two."}]},
        {"role": "user", "content": "hi"},
        {"role": "developer", "content": "Three."},
    )
    assert request.system == (Text(text="One."), Text(text="Two."))
    assert request.messages[1] == Message(role="system", parts=(Text(text="Three."),))


def test_parts_of_every_kind_are_read() -> None:
    content = [
        {"type": "text", "text": "see", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://x.test/a.jpg"}},
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,QUJD", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "hologram", "hologram": {"x": 1}},
    ]
    assert chat({"role": "user", "content": content}).messages[0].parts == (
        Text(text="see", cache=CacheMark(ttl="1h")),
        Media(kind="image", media_type="image/png", data=PNG, detail="low"),
        Media(kind="image", url="https://x.test/a.jpg"),
        Media(kind="audio", media_type="audio/mpeg", data="QUJD"),
        Media(kind="document", media_type="application/pdf", data="QUJD", name="a.pdf"),
        Media(kind="document", file_id="file-1"),
        Opaque(wire="openai_chat", kind="hologram", raw={"type": "hologram", "hologram": {"x": 1}}),
    )


CALLS = [
    {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
    {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}},
]


def test_calls_and_their_answers_are_paired_and_named() -> None:
    request = chat(
        {"role": "assistant", "content": None, "tool_calls": CALLS, "reasoning_content": "Hm"},
        {"role": "tool", "tool_call_id": "a", "content": "one"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "two"}]},
        {"role": "user", "content": "go on"},
    )
    assert request.messages == (
        Message(
            role="assistant",
            parts=(
                Reasoning(text="Hm"),
                ToolCall(id="a", name="f", arguments='{"x": 1}'),
                ToolCall(id="b", name="g", arguments="{}"),
            ),
        ),
        Message(
            role="user",
            parts=(
                ToolResult(call_id="a", name="f", content=(Text(text="one"),)),
                ToolResult(call_id="b", name="g", content=(Text(text="two"),)),
            ),
        ),
        Message(role="user", parts=(Text(text="go on"),)),
    )


def test_the_legacy_functions_are_tools() -> None:
    request = chat(
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "one"},
        functions=[{"name": "f", "parameters": {"type": "object"}}],
        function_call={"name": "f"},
    )
    [call] = request.messages[0].parts
    [result] = request.messages[1].parts
    assert isinstance(call, ToolCall) and isinstance(result, ToolResult) and call.id == result.call_id
    assert [tool.name for tool in request.tools] == ["f"]
    assert request.tool_choice == ToolChoice(mode="tool", name="f")


def test_a_choice_among_allowed_tools_offers_only_those() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in "fgh"]
    allowed = [{"type": "function", "function": {"name": name}} for name in "fh"]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": allowed}}
    request = chat(tools=tools, tool_choice=choice)
    assert [tool.name for tool in request.tools] == ["f", "h"]
    assert request.tool_choice == ToolChoice(mode="required")


def test_settings_are_read_and_what_is_unknown_is_kept() -> None:
    request = chat(
        stop="END",
        n=2,
        reasoning_effort="low",
        verbosity="high",
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}, "strict": True}},
        logit_bias={"5": 1},
        stream_options={"include_usage": True},
        made_up={"a": [1]},
    )
    assert (request.stop, request.choices, request.verbosity) == (("END",), 2, "high")
    assert request.reasoning == ReasoningSettings(effort="low")
    assert request.output_format == OutputFormat(kind="schema", name="n", schema={"a": 1}, strict=True)
    assert request.foreign == {
        "logit_bias": {"5": 1},
        "stream_options": {"include_usage": True},
        "made_up": {"a": [1]},
    }


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"messages": 7}, "messages"),
        ({"messages": [7]}, "messages.0"),
        ({"messages": [{"role": "king", "content": "a"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.tool_call_id"),
        ({"messages": HELLO, "tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
        ({"messages": HELLO, "temperature": "hot"}, "temperature"),
        ({"messages": HELLO, "stop": [7]}, "stop"),
        ({"messages": HELLO, "response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]},
            "messages.0.content.0.image_url.url",
        ),
    ],
)
def test_a_wrong_shape_is_named_by_its_path(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(RequestError) as raised:
        read(CHAT, **fields)
    assert raised.value.message.startswith(path)


# --- reading responses ----------------------------------------------------------------------------------------------

CODEX_INPUT = [
    {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Sandbox."}]},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Fix it"}]},
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm"}], "encrypted_content": "e"},
    {"type": "message", "role": "assistant", "id": "msg_1", "content": [{"type": "output_text", "text": "I look."}]},
    {"type": "function_call", "id": "fc_1", "call_id": "a", "name": "shell", "arguments": '{"cmd":["ls"]}'},
    {"type": "function_call", "call_id": "b", "name": "shell", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "a", "output": "a.py"},
    {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "denied"}]},
]


def test_items_of_one_speaker_become_one_turn() -> None:
    request = read(RESPONSES, instructions="You are Codex.", input=CODEX_INPUT)
    assert request.system == (Text(text="You are Codex."), Text(text="Sandbox."))
    user, assistant, answers = request.messages
    assert user == Message(role="user", parts=(Text(text="Fix it"),))
    assert assistant.parts == (
        Reasoning(text="Hm", id="rs_1", encrypted="e"),
        Text(text="I look."),
        ToolCall(id="a", name="shell", arguments='{"cmd":["ls"]}'),
        ToolCall(id="b", name="shell", arguments="{}"),
    )
    assert answers.parts == (
        ToolResult(call_id="a", name="shell", content=(Text(text="a.py"),)),
        ToolResult(call_id="b", name="shell", content=(Text(text="denied"),)),
    )
    assert not request.foreign


@pytest.mark.parametrize(
    "fields",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"background": True},
        {"prompt": {"id": "pmpt_1"}},
        {"tools": [{"type": "web_search"}]},
        {"tool_choice": {"type": "web_search"}},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": [{"type": "web_search_call", "id": "ws_1", "status": "completed"}]},
    ],
)
@pytest.mark.parametrize("target", [wire for wire in CODECS if wire is not RESPONSES])
def test_what_only_the_vendor_keeps_or_runs_is_refused_elsewhere(fields: dict[str, Any], target: Wire) -> None:
    request = read(RESPONSES, **({"input": "hi"} | fields))
    with pytest.raises(UntranslatableError):
        CODECS[target].write_request(request, "m", RESPONSES)
    body, _ = written(request, RESPONSES, RESPONSES)
    for name, value in fields.items():
        assert body[name] == value


# --- writing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o", "max_tokens"),
        ("o3", "max_completion_tokens"),
        ("openai/gpt-5.2", "max_completion_tokens"),
        ("o4-mini", "max_completion_tokens"),
        ("llama-3.3-70b", "max_tokens"),
        ("openai/gpt-oss-120b", "max_tokens"),
        ("mistral-large", "max_tokens"),
    ],
)
def test_the_output_limit_has_the_name_that_the_model_knows(model: str, name: str) -> None:
    body, _ = written(ChatRequest(model="x", messages=(), max_output_tokens=9), CHAT, Wire.ANTHROPIC_MESSAGES, model)
    assert body[name] == 9
    assert len({"max_tokens", "max_completion_tokens"} & body.keys()) == 1


def test_a_translated_stream_always_tells_its_usage() -> None:
    body, stripped = written(ChatRequest(model="x", messages=(), stream=True), CHAT, Wire.GEMINI)
    assert body["stream_options"] == {"include_usage": True} and not stripped


@pytest.mark.parametrize(
    ("settings", "model", "effort", "is_reported"),
    [
        (ReasoningSettings(enabled=True, budget_tokens=2000), "gpt-5.2", "medium", True),
        (ReasoningSettings(enabled=True, budget_tokens=32_000), "o3", "xhigh", True),
        (ReasoningSettings(enabled=True, budget_tokens=2000), "gpt-4o", None, True),
        (ReasoningSettings(enabled=False), "gpt-5.2", "none", False),
        (ReasoningSettings(enabled=False), "gpt-5", "minimal", True),
        (ReasoningSettings(enabled=False), "gpt-4o", None, False),
    ],
)
def test_a_thinking_budget_becomes_an_effort_and_says_so(
    settings: ReasoningSettings, model: str, effort: str | None, is_reported: bool
) -> None:
    request = ChatRequest(model="x", messages=(), reasoning=settings)
    body, stripped = written(request, CHAT, Wire.ANTHROPIC_MESSAGES, model)
    assert body.get("reasoning_effort") == effort
    assert ("thinking" in stripped) is is_reported


FULL_TURNS = (
    Message(
        role="assistant",
        parts=(
            Reasoning(text="Hm", signature="s"),
            Text(text="I look.", cache=CacheMark()),
            ToolCall(id="a", name="f", arguments="{}"),
        ),
    ),
    Message(
        role="user",
        parts=(
            ToolResult(call_id="a", content=(Media(kind="image", media_type="image/png", data=PNG),), is_error=True),
            Text(text="and?"),
        ),
    ),
)


def test_what_chat_cannot_say_is_stripped_and_reported() -> None:
    request = ChatRequest(model="x", messages=FULL_TURNS, top_k=5)
    body, stripped = written(request, CHAT, Wire.ANTHROPIC_MESSAGES)
    assistant, tool, user = body["messages"]
    assert assistant["content"] == "I look." and "reasoning_content" not in assistant
    assert tool["role"] == "tool" and tool["tool_call_id"] == "a"
    assert [part["type"] for part in user["content"]] == ["image_url", "text"]
    assert set(stripped) == {
        *("messages[].reasoning", "cache_control", "tool_result.is_error", "tool_result.content", "top_k")
    }


def test_responses_takes_pictures_in_a_tools_answer() -> None:
    body, stripped = written(ChatRequest(model="x", messages=FULL_TURNS), RESPONSES, Wire.ANTHROPIC_MESSAGES)
    output = next(item for item in body["input"] if item["type"] == "function_call_output")
    assert output["output"][0]["type"] == "input_image"
    assert body["store"] is False
    assert "messages[].reasoning" in stripped


def test_thoughts_that_crossed_through_another_wire_come_back_to_the_vendor_that_made_them() -> None:
    tagged = Reasoning(text="Hm", encrypted="nightkeep.openai_responses.gAAAA")
    request = ChatRequest(model="x", messages=(Message(role="assistant", parts=(tagged,)),))
    body, stripped = written(request, RESPONSES, Wire.ANTHROPIC_MESSAGES, "gpt-5.2")
    assert body["input"][0]["encrypted_content"] == "gAAAA" and not stripped
    assert body["include"] == ["reasoning.encrypted_content"]


def test_a_signature_comes_back_through_encrypted_content() -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "signature:nightkeep.gemini.QUJD"}
    [part] = read(RESPONSES, input=[item]).messages[0].parts
    assert part == Reasoning(id="rs_1", signature="nightkeep.gemini.QUJD")


@pytest.mark.parametrize("target", [wire for wire in CODECS if wire not in (CHAT, Wire.GEMINI)])
def test_several_choices_are_refused_where_only_one_can_be_given(target: Wire) -> None:
    with pytest.raises(UntranslatableError, match="n: "):
        CODECS[target].write_request(chat(n=3), "m", CHAT)


@pytest.mark.parametrize("target", [CHAT, RESPONSES])
def test_parts_of_another_wire_are_refused_by_name(target: Wire) -> None:
    opaque = Opaque(wire="gemini", kind="executableCode", raw={})
    request = ChatRequest(model="x", messages=(Message(role="user", parts=(opaque,)),))
    with pytest.raises(UntranslatableError, match="executableCode"):
        CODECS[target].write_request(request, "m", Wire.GEMINI)


@pytest.mark.parametrize("target", [CHAT, RESPONSES])
def test_files_stored_at_another_vendor_are_refused(target: Wire) -> None:
    part = Media(kind="document", file_id="file_1")
    request = ChatRequest(model="x", messages=(Message(role="user", parts=(part,)),))
    with pytest.raises(UntranslatableError, match="file_1"):
        CODECS[target].write_request(request, "m", Wire.ANTHROPIC_MESSAGES)


def test_geminis_signature_of_a_call_comes_back_through_a_chat_client() -> None:
    call = ToolCall(id="a", name="f", arguments="{}", signature="QUJD")
    reply = Reply(id="r", model="gemini-3-pro", parts=(call,), stop=StopReason.TOOL_CALLS)
    body = CODECS[CHAT].encoder("alias").whole(replay_reply(reply))
    message = msgspec.json.decode(body)["choices"][0]["message"]
    [read_back] = chat(message).messages[0].parts
    assert isinstance(read_back, ToolCall) and read_back.signature == "nightkeep.gemini.QUJD"


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (
            401,
            {"error": {"message": "m", "type": "invalid_request_error", "code": "invalid_api_key"}},
            "authentication",
            "invalid_api_key",
        ),
        (
            429,
            {"error": {"message": "m", "type": "insufficient_quota", "code": "insufficient_quota"}},
            "quota",
            "insufficient_quota",
        ),
        (
            429,
            {"error": {"message": "m", "type": "tokens", "code": "rate_limit_exceeded"}},
            "rate_limited",
            "rate_limit_exceeded",
        ),
        (400, {"error": {"message": "m", "code": "content_filter", "status": 400}}, "refused", "content_filter"),
        (402, {"error": {"message": "m", "code": 402}}, "quota", "402"),
        (404, {"object": "error", "message": "m", "type": "NotFoundError", "code": 404}, "not_found", "NotFoundError"),
        (503, {"error": "m"}, "overloaded", "overloaded"),
        (400, [{"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}], "invalid_request", "400"),
    ],
)
def test_errors_are_read_in_every_dialect(status: int, body: Any, kind: str, code: str) -> None:
    error = CODECS[CHAT].read_error(status, msgspec.json.encode(body))
    assert (error.status, error.kind, error.code, error.message) == (status, kind, code, "m")


@pytest.mark.parametrize("body", [b"", b"<html>bad gateway</html>", b"\xff", b"7", b"null", b'{"error":{}}'])
def test_an_error_that_is_not_understood_is_kept_as_the_message(body: bytes) -> None:
    error = CODECS[CHAT].read_error(502, body)
    assert error.kind == "api_error" and error.message
