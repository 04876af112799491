"""Gemini requests, read: ``:generateContent``, ``:streamGenerateContent`` and ``:countTokens`` into neutral words.

Writing them is ``gemini_write``; parts are ``gemini_parts``. Field names are taken in camelCase and snake_case,
as the API does. Shapes: ``google.genai.types`` and ai.google.dev/api/generate-content.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from nightkeep.core.errors import RequestError
from nightkeep.core.messages import (
    ChatRequest,
    Message,
    OutputFormat,
    Part,
    ReasoningSettings,
    Text,
    ToolChoice,
    ToolDefinition,
)
from nightkeep.models.wire.base import Head
from nightkeep.models.wire.gemini_parts import CallIds, read_part
from nightkeep.models.wire.gemini_schema import to_json_schema
from nightkeep.models.wire.shape import Fields, decode_object

__all__ = ["read_chat_request", "read_count_request"]

Foreign = dict[str, Any]


def read_count_request(body: bytes, head: Head) -> ChatRequest:
    """Read a ``countTokens`` request: bare contents, or a whole request inside it."""
    document = decode_object(body)
    inner = document.get("generateContentRequest", document.get("generate_content_request"))
    return _read_request(Fields(document if inner is None else inner), head)


def read_chat_request(body: bytes, head: Head) -> ChatRequest:
    """Read a request whole. Raises RequestError with the field's path where its shape is wrong."""
    return _read_request(Fields(decode_object(body)), head)


def _read_request(fields: Fields, head: Head) -> ChatRequest:
    foreign: Foreign = {}
    fields.take("model")
    tier = fields.text("serviceTier")
    request = ChatRequest(
        model=head.model,
        messages=tuple(_read_contents(fields, foreign)),
        system=tuple(_read_system(fields, foreign)),
        tools=tuple(_read_tools(fields, foreign)),
        tool_choice=_read_tool_choice(fields, foreign),
        stream=head.stream,
        metadata=fields.object("labels"),
        service_tier="default" if tier == "standard" else tier,
        foreign=foreign,
    )
    if (config := fields.inner("generationConfig")) is not None:
        request = _with_generation_config(request, config, foreign)
        config.collect_rest(foreign)
    fields.collect_rest(foreign)
    return request


def _read_contents(fields: Fields, foreign: Foreign) -> list[Message]:
    ids = CallIds()
    messages: list[Message] = []
    value = fields.take("contents")
    for index, item in enumerate([value] if isinstance(value, dict) else _array(value, fields.at("contents"))):
        content = Fields(item, f"contents.{index}")
        role = content.text("role") or "user"
        if role not in _ROLES:
            raise RequestError(f"{content.at('role')}: expected user or model, got {role!r}", parameter="contents")
        parts = _read_parts(content, foreign, ids)
        content.collect_rest(foreign)
        messages.append(Message(role=_ROLES[role], parts=tuple(parts)))
    return messages


_ROLES: dict[str, Literal["user", "assistant", "system"]] = {
    "user": "user",
    "model": "assistant",
    "function": "user",
    "tool": "user",
    "system": "system",
}


def _array(value: Any, path: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise RequestError(f"{path}: expected an array", parameter=path)
    return value


def _read_parts(content: Fields, foreign: Foreign, ids: CallIds) -> list[Part]:
    value = content.take("parts")
    items = [value] if isinstance(value, dict) else _array(value, content.at("parts"))
    parts: list[Part] = []
    for index, item in enumerate(items):
        parts += read_part(item, f"{content.at('parts')}.{index}", foreign, ids)
    return parts


def _read_system(fields: Fields, foreign: Foreign) -> list[Text]:
    value = fields.take("systemInstruction")
    if value is None:
        return []
    if isinstance(value, str):
        return [Text(text=value)]
    content = Fields(value, "systemInstruction")
    content.take("role")
    texts: list[Text] = []
    for part in _read_parts(content, foreign, CallIds()):
        if not isinstance(part, Text):
            raise RequestError("systemInstruction.parts: expected text only", parameter="systemInstruction")
        texts.append(part)
    return texts


def _read_tools(fields: Fields, foreign: Foreign) -> list[ToolDefinition]:
    tools: list[ToolDefinition] = []
    value = fields.take("tools")
    for index, item in enumerate([value] if isinstance(value, dict) else _array(value, "tools")):
        tool = Fields(item, f"tools.{index}")
        for number, declared in enumerate(tool.array("functionDeclarations")):
            tools.append(_read_declaration(Fields(declared, f"tools.{index}.functionDeclarations.{number}"), foreign))
        rest: Foreign = {}
        tool.collect_rest(rest)
        if rest:  # tools that Google runs itself
            foreign[f"tools.{index}"] = {path.rpartition(".")[2]: value for path, value in rest.items()}
    return tools


def _read_declaration(declared: Fields, foreign: Foreign) -> ToolDefinition:
    schema = declared.object("parametersJsonSchema")
    if schema is None and (parameters := declared.object("parameters")) is not None:
        schema = _schema(parameters, declared.at("parameters"))
    tool = ToolDefinition(name=declared.required_text("name"), description=declared.text("description"), schema=schema)
    declared.collect_rest(foreign)
    return tool


def _schema(given: dict[str, Any], path: str) -> dict[str, Any]:
    try:
        return to_json_schema(given)
    except ValueError as error:
        raise RequestError(f"{path}: {error}", parameter=path) from error


_MODES: dict[str, Literal["auto", "none", "required"]] = {"AUTO": "auto", "NONE": "none", "ANY": "required"}


def _read_tool_choice(fields: Fields, foreign: Foreign) -> ToolChoice | None:
    config = fields.inner("toolConfig")
    if config is None:
        return None
    choice: ToolChoice | None = None
    if (calling := config.inner("functionCallingConfig")) is not None:
        word = (calling.text("mode") or "AUTO").upper()
        names = calling.texts("allowedFunctionNames")
        if word == "ANY" and len(names) == 1:
            choice = ToolChoice(mode="tool", name=names[0])
        else:
            choice = ToolChoice(mode=_MODES.get(word, "auto"))
            if word not in (*_MODES, "MODE_UNSPECIFIED"):
                foreign[calling.at("mode")] = word
            if names:
                foreign[calling.at("allowedFunctionNames")] = list(names)
        calling.collect_rest(foreign)
    config.collect_rest(foreign)
    return choice


def _with_generation_config(request: ChatRequest, config: Fields, foreign: Foreign) -> ChatRequest:
    return msgspec.structs.replace(
        request,
        max_output_tokens=config.integer("maxOutputTokens"),
        temperature=config.number("temperature"),
        top_p=config.number("topP"),
        top_k=config.integer("topK"),
        stop=config.texts("stopSequences"),
        seed=config.integer("seed"),
        presence_penalty=config.number("presencePenalty"),
        frequency_penalty=config.number("frequencyPenalty"),
        logprobs=config.flag("responseLogprobs"),
        top_logprobs=config.integer("logprobs"),
        choices=config.integer("candidateCount"),
        output_format=_read_output_format(config, foreign),
        reasoning=_read_thinking(config, foreign),
    )


def _read_output_format(config: Fields, foreign: Foreign) -> OutputFormat | None:
    media_type = config.text("responseMimeType")
    schema = config.object("responseJsonSchema")
    if schema is None and (given := config.object("responseSchema")) is not None:
        schema = _schema(given, config.at("responseSchema"))
    if media_type not in (None, "application/json", "text/plain"):
        foreign[config.at("responseMimeType")] = media_type  # text/x.enum
    if schema is not None:
        return OutputFormat(kind="schema", schema=schema)
    if media_type == "application/json":
        return OutputFormat(kind="json")
    return OutputFormat(kind="text") if media_type == "text/plain" else None


def _read_thinking(config: Fields, foreign: Foreign) -> ReasoningSettings | None:
    thinking = config.inner("thinkingConfig")
    if thinking is None:
        return None
    is_shown, budget = thinking.flag("includeThoughts"), thinking.integer("thinkingBudget")
    level = (thinking.text("thinkingLevel") or "").lower()
    effort = level if level not in ("", "thinking_level_unspecified") else None
    thinking.collect_rest(foreign)
    return ReasoningSettings(
        enabled=None if budget is None and effort is None else budget != 0,
        effort=effort,
        budget_tokens=None if budget is None or budget < 0 else budget,  # -1: as much as the model likes
        summary=None if is_shown is None else "auto" if is_shown else "none",
    )
