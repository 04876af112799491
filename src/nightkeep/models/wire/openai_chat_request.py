"""OpenAI Chat Completions requests, read: ``POST /v1/chat/completions`` into neutral words.

The turns are ``openai_chat_messages``; writing is ``openai_chat_write``; replies are ``openai_chat_reply``.
Shapes: the vendor's SDK, ``openai.types.chat.completion_create_params``; ``reasoning`` is OpenRouter's.
"""

from __future__ import annotations

from typing import Any, Literal

from nightkeep.core.errors import RequestError
from nightkeep.core.messages import ChatRequest, OutputFormat, ReasoningSettings, ToolChoice, ToolDefinition
from nightkeep.models.wire.base import Head
from nightkeep.models.wire.openai_chat_messages import read_messages
from nightkeep.models.wire.openai_media import read_cache
from nightkeep.models.wire.shape import Fields, decode_object

__all__ = ["TOOL_MODES", "read_chat_request", "read_format"]

Foreign = dict[str, Any]


def read_chat_request(body: bytes, head: Head) -> ChatRequest:
    """Read a request whole. Raises RequestError with the field's path where its shape is wrong."""
    fields = Fields(decode_object(body))
    foreign: Foreign = {}
    fields.take("model")
    system, messages = read_messages(fields, foreign)
    tools = _read_tools(fields, foreign)
    choice, tools = _read_tool_choice(fields, tools, foreign)
    limit, old_limit = fields.integer("max_completion_tokens"), fields.integer("max_tokens")
    request = ChatRequest(
        model=head.model,
        messages=messages,
        system=system,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=fields.flag("parallel_tool_calls"),
        max_output_tokens=old_limit if limit is None else limit,
        temperature=fields.number("temperature"),
        top_p=fields.number("top_p"),
        top_k=fields.integer("top_k"),
        stop=_read_stop(fields),
        seed=fields.integer("seed"),
        presence_penalty=fields.number("presence_penalty"),
        frequency_penalty=fields.number("frequency_penalty"),
        logprobs=fields.flag("logprobs"),
        top_logprobs=fields.integer("top_logprobs"),
        choices=fields.integer("n"),
        stream=bool(fields.flag("stream")),
        output_format=_read_output_format(fields, foreign),
        reasoning=_read_reasoning(fields, foreign),
        user=fields.text("user"),
        metadata=fields.object("metadata"),
        service_tier=fields.text("service_tier"),
        prompt_cache_key=fields.text("prompt_cache_key"),
        verbosity=fields.text("verbosity"),
        foreign=foreign,
    )
    fields.collect_rest(foreign)
    return request


def _read_stop(fields: Fields) -> tuple[str, ...]:
    """``stop``: one string or a list."""
    value = fields.take("stop")
    if isinstance(value, str):
        return (value,)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RequestError("stop: expected a string or an array of strings", parameter="stop")
    return tuple(value)


def _read_tools(fields: Fields, foreign: Foreign) -> tuple[ToolDefinition, ...]:
    tools: list[ToolDefinition] = []
    for index, item in enumerate(fields.array("tools")):
        tool = Fields(item, f"tools.{index}")
        function = tool.inner("function") if tool.required_text("type") == "function" else None
        if function is None:
            foreign[f"tools.{index}"] = item
            continue
        tools.append(_read_function(function, tool))
        function.collect_rest(foreign)
        tool.collect_rest(foreign)
    for index, item in enumerate(fields.array("functions")):
        function = Fields(item, f"functions.{index}")
        tools.append(_read_function(function, function))
        function.collect_rest(foreign)
    return tuple(tools)


def _read_function(function: Fields, outer: Fields) -> ToolDefinition:
    return ToolDefinition(
        name=function.required_text("name"),
        description=function.text("description"),
        schema=function.object("parameters"),
        strict=function.flag("strict"),
        cache=read_cache(outer),
    )


TOOL_MODES: dict[str, Literal["auto", "none", "required"]] = {
    "auto": "auto",
    "none": "none",
    "required": "required",
    "any": "required",  # Mistral
}


def _read_tool_choice(
    fields: Fields, tools: tuple[ToolDefinition, ...], foreign: Foreign
) -> tuple[ToolChoice | None, tuple[ToolDefinition, ...]]:
    value = fields.take("tool_choice")
    legacy = fields.take("function_call")
    if value is None and legacy is not None:
        value = {"type": "function", "function": legacy} if isinstance(legacy, dict) else legacy
    if value is None:
        return None, tools
    if isinstance(value, str):
        if value not in TOOL_MODES:
            raise RequestError(f"tool_choice: expected auto, none or required, got {value!r}", parameter="tool_choice")
        return ToolChoice(mode=TOOL_MODES[value]), tools
    choice = Fields(value, "tool_choice")
    kind = choice.required_text("type")
    if kind == "function" and (function := choice.inner("function")) is not None:
        return ToolChoice(mode="tool", name=function.required_text("name")), tools
    if kind == "allowed_tools" and (allowed := choice.inner("allowed_tools")) is not None:
        return _read_allowed(allowed, tools)
    foreign["tool_choice"] = value
    return None, tools


def _read_allowed(allowed: Fields, tools: tuple[ToolDefinition, ...]) -> tuple[ToolChoice, tuple[ToolDefinition, ...]]:
    """A choice among some of the tools: the others are not offered, which says the same on every wire."""
    wanted = set()
    for index, item in enumerate(allowed.array("tools")):
        tool = Fields(item, f"{allowed.at('tools')}.{index}")
        wanted.add((tool.inner("function") or tool).required_text("name"))
    mode = TOOL_MODES.get(allowed.text("mode") or "auto", "auto")
    return ToolChoice(mode=mode), tuple(tool for tool in tools if tool.name in wanted)


def _read_output_format(fields: Fields, foreign: Foreign) -> OutputFormat | None:
    form = fields.inner("response_format")
    if form is None:
        return None
    kind = form.required_text("type")
    if kind == "json_schema":
        inner = form.inner("json_schema")
        if inner is None:
            raise RequestError("response_format.json_schema: this field is required", parameter="response_format")
        form = inner
    return read_format(kind, form, foreign)


def read_format(kind: str, form: Fields, foreign: Foreign) -> OutputFormat:
    """The form of the answer; ``form`` holds the schema's fields (Responses writes them flat)."""
    if kind not in _FORMATS:
        raise RequestError(f"{form.at('type')}: expected text, json_object or json_schema, got {kind!r}")
    output_format = OutputFormat(
        kind=_FORMATS[kind],
        name=form.text("name"),
        description=form.text("description"),
        schema=form.object("schema"),
        strict=form.flag("strict"),
    )
    form.collect_rest(foreign)
    return output_format


_FORMATS: dict[str, Literal["text", "json", "schema"]] = {
    "text": "text",
    "json_object": "json",
    "json_schema": "schema",
}


def _read_reasoning(fields: Fields, foreign: Foreign) -> ReasoningSettings | None:
    effort = fields.text("reasoning_effort")
    enabled: bool | None = None
    budget: int | None = None
    summary: str | None = None
    if (settings := fields.inner("reasoning")) is not None:
        effort = effort or settings.text("effort")
        budget, enabled = settings.integer("max_tokens"), settings.flag("enabled")
        summary = "none" if settings.flag("exclude") else settings.text("summary")
        settings.collect_rest(foreign)
    if (effort, enabled, budget, summary) == (None, None, None, None):
        return None
    return ReasoningSettings(enabled=enabled, effort=effort, budget_tokens=budget, summary=summary)
