"""Anthropic Messages requests, read: ``POST /v1/messages`` and ``/v1/messages/count_tokens`` into neutral words.

Writing them is ``anthropic_write``; replies are ``anthropic_reply``; the codec itself ``anthropic_messages``.
Shapes: the vendor's SDK, ``anthropic.types.message_create_params``.
"""

from __future__ import annotations

from typing import Any, Literal

from nightkeep.core.errors import RequestError
from nightkeep.core.messages import (
    CacheMark,
    ChatRequest,
    Media,
    Message,
    Opaque,
    OutputFormat,
    Part,
    Reasoning,
    ReasoningSettings,
    Text,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    ToolResult,
)
from nightkeep.models.wire.base import Head, Wire
from nightkeep.models.wire.shape import Fields, decode_object, json_object_text

__all__ = ["read_chat_request"]

Foreign = dict[str, Any]


def read_chat_request(body: bytes, head: Head) -> ChatRequest:
    """Read a request whole. Raises RequestError with the field's path where its shape is wrong."""
    fields = Fields(decode_object(body))
    foreign: Foreign = {}
    fields.take("model")
    choice, is_parallel = _read_tool_choice(fields, foreign)
    reasoning, output_format = _read_thinking(fields, foreign)
    user = None
    if (metadata := fields.inner("metadata")) is not None:
        user = metadata.text("user_id")
        metadata.collect_rest(foreign)
    tier = fields.text("service_tier")
    request = ChatRequest(
        model=head.model,
        messages=tuple(_read_messages(fields, foreign)),
        system=tuple(_read_system(fields.take("system"), fields.at("system"), foreign)),
        tools=tuple(_read_tools(fields, foreign)),
        tool_choice=choice,
        parallel_tool_calls=is_parallel,
        max_output_tokens=fields.integer("max_tokens"),
        temperature=fields.number("temperature"),
        top_p=fields.number("top_p"),
        top_k=fields.integer("top_k"),
        stop=fields.texts("stop_sequences"),
        stream=bool(fields.flag("stream")),
        output_format=output_format,
        reasoning=reasoning,
        user=user,
        service_tier="default" if tier == "standard_only" else tier,
        foreign=foreign,
    )
    fields.collect_rest(foreign)
    return request


def _read_messages(fields: Fields, foreign: Foreign) -> list[Message]:
    messages: list[Message] = []
    names: dict[str, str] = {}
    for index, item in enumerate(fields.array("messages")):
        message = Fields(item, f"messages.{index}")
        role = message.required_text("role")
        if role not in ("user", "assistant", "system"):
            raise RequestError(f"{message.at('role')}: expected user, assistant or system, got {role!r}")
        content = message.take("content")
        if isinstance(content, str):
            parts: tuple[Part, ...] = (Text(text=content),)
        else:
            parts = tuple(_read_blocks(content, message.at("content"), foreign, names))
        messages.append(Message(role=_ROLES[role], parts=parts))
        message.collect_rest(foreign)
    return messages


_ROLES: dict[str, Literal["user", "assistant", "system"]] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
}


def _read_system(value: Any, path: str, foreign: Foreign) -> list[Text]:
    if value is None:
        return []
    if isinstance(value, str):
        return [Text(text=value)]
    texts: list[Text] = []
    for index, part in enumerate(_read_blocks(value, path, foreign, {})):
        if not isinstance(part, Text):
            raise RequestError(f"{path}.{index}: expected a text block", parameter=path)
        texts.append(part)
    return texts


def _read_blocks(content: Any, path: str, foreign: Foreign, names: dict[str, str]) -> list[Part]:
    if not isinstance(content, list):
        raise RequestError(f"{path}: expected a string or an array of blocks", parameter=path)
    return [_read_block(item, f"{path}.{index}", foreign, names) for index, item in enumerate(content)]


def _read_block(item: Any, path: str, foreign: Foreign, names: dict[str, str]) -> Part:
    block = Fields(item, path)
    kind = block.required_text("type")
    part: Part | None = None
    match kind:
        case "text":
            part = _read_text(block)
        case "image" | "document":
            part = _read_media(block, "image" if kind == "image" else "document")
        case "tool_use":
            part = ToolCall(
                id=block.required_text("id"),
                name=block.required_text("name"),
                arguments=json_object_text(block.object("input") or {}),
                cache=_read_cache(block),
            )
            names[part.id] = part.name
        case "tool_result":
            part = _read_tool_result(block, foreign, names)
        case "thinking":
            part = Reasoning(text=block.text("thinking") or "", signature=block.text("signature") or None)
        case "redacted_thinking":
            part = Reasoning(encrypted=block.required_text("data"))
        case _:
            pass
    if part is None:
        return Opaque(wire=Wire.ANTHROPIC_MESSAGES, kind=kind, raw=item)
    block.collect_rest(foreign)
    return part


def _read_text(block: Fields) -> Text:
    citations = tuple(item for item in block.array("citations") if isinstance(item, dict))
    return Text(text=block.required_text("text"), cache=_read_cache(block), citations=citations)


def _read_cache(block: Fields) -> CacheMark | None:
    mark = block.inner("cache_control")
    if mark is None:
        return None
    ttl = mark.text("ttl")
    return CacheMark(ttl="1h" if ttl == "1h" else "5m" if ttl == "5m" else None)


def _read_media(block: Fields, kind: Literal["image", "document"]) -> Media | None:
    """An image or a document; None where its source is one that only this wire knows (a list of blocks)."""
    source = block.inner("source")
    if source is None:
        raise RequestError(f"{block.at('source')}: this field is required", parameter=block.at("source"))
    name, cache = block.text("title"), _read_cache(block)
    match source.required_text("type"):
        case "base64":
            data, media_type = source.required_text("data"), source.text("media_type")
            return Media(kind=kind, media_type=media_type, data=data, name=name, cache=cache)
        case "url":
            return Media(kind=kind, url=source.required_text("url"), name=name, cache=cache)
        case "file":
            return Media(kind=kind, file_id=source.required_text("file_id"), name=name, cache=cache)
        case "text":
            return Media(kind=kind, media_type="text/plain", text=source.required_text("data"), name=name, cache=cache)
        case _:
            return None


def _read_tool_result(block: Fields, foreign: Foreign, names: dict[str, str]) -> ToolResult:
    call_id = block.required_text("tool_use_id")
    content = block.take("content")
    parts: list[Text | Media] = []
    if isinstance(content, str):
        parts.append(Text(text=content))
    elif content is not None:
        for index, part in enumerate(_read_blocks(content, block.at("content"), foreign, names)):
            if isinstance(part, Text | Media):
                parts.append(part)
            elif isinstance(part, Opaque):
                foreign[f"{block.at('content')}.{index}"] = part.raw
    is_error = bool(block.flag("is_error"))
    return ToolResult(
        call_id=call_id, name=names.get(call_id), content=tuple(parts), is_error=is_error, cache=_read_cache(block)
    )


def _read_tools(fields: Fields, foreign: Foreign) -> list[ToolDefinition]:
    tools: list[ToolDefinition] = []
    for index, item in enumerate(fields.array("tools")):
        tool = Fields(item, f"tools.{index}")
        if (tool.text("type") or "custom") != "custom":
            foreign[f"tools.{index}"] = item
            continue
        tools.append(
            ToolDefinition(
                name=tool.required_text("name"),
                description=tool.text("description"),
                schema=tool.object("input_schema"),
                strict=tool.flag("strict"),
                cache=_read_cache(tool),
            )
        )
        tool.collect_rest(foreign)
    return tools


def _read_tool_choice(fields: Fields, foreign: Foreign) -> tuple[ToolChoice | None, bool | None]:
    choice = fields.inner("tool_choice")
    if choice is None:
        return None, None
    kind, name = choice.required_text("type"), choice.text("name")
    is_serial = choice.flag("disable_parallel_tool_use")
    choice.collect_rest(foreign)
    modes: dict[str, Literal["auto", "none", "required", "tool"]] = {
        "auto": "auto",
        "any": "required",
        "tool": "tool",
        "none": "none",
    }
    if kind not in modes:
        raise RequestError(f"tool_choice.type: expected auto, any, tool or none, got {kind!r}", parameter="tool_choice")
    return ToolChoice(mode=modes[kind], name=name), None if is_serial is None else not is_serial


def _read_thinking(fields: Fields, foreign: Foreign) -> tuple[ReasoningSettings | None, OutputFormat | None]:
    enabled: bool | None = None
    budget: int | None = None
    summary: str | None = None
    if (thinking := fields.inner("thinking")) is not None:
        kind = thinking.required_text("type")
        enabled, budget = kind != "disabled", thinking.integer("budget_tokens")
        summary = {"summarized": "auto", "omitted": "none"}.get(thinking.text("display") or "")
        if kind not in ("enabled", "disabled", "adaptive"):
            foreign["thinking.type"] = kind
        thinking.collect_rest(foreign)
    effort: str | None = None
    output_format = _read_output_format(fields.object("output_format"))
    if (output := fields.inner("output_config")) is not None:
        effort = output.text("effort")
        output_format = _read_output_format(output.object("format")) or output_format
        output.collect_rest(foreign)
    if effort == "max":  # above what any other wire can say: kept, and said as the most there is
        foreign["output_config.effort"], effort = effort, "xhigh"
    if (enabled, effort) == (None, None):
        return None, output_format
    return ReasoningSettings(enabled=enabled, effort=effort, budget_tokens=budget, summary=summary), output_format


def _read_output_format(value: dict[str, Any] | None) -> OutputFormat | None:
    if value is None:
        return None
    if value.get("type") != "json_schema" or not isinstance(value.get("schema"), dict):
        raise RequestError("output_config.format: expected type json_schema with a schema", parameter="output_config")
    return OutputFormat(kind="schema", schema=value["schema"])
