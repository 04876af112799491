"""OpenAI Responses requests, read: ``POST /v1/responses`` into neutral words.

The items of ``input`` are ``openai_responses_input``; writing is ``openai_responses_write``; replies are
``openai_responses_reply``. What lives at the vendor (``previous_response_id``, ``conversation``, ``prompt``,
``background``) and tools that the vendor runs stand in ``foreign``, and are refused on another wire
(``vendor_state``, ``server_tools``). Shapes: ``openai.types.responses.response_create_params``.
"""

from __future__ import annotations

from typing import Any

from nightkeep.core.messages import ChatRequest, OutputFormat, ReasoningSettings, Text, ToolChoice, ToolDefinition
from nightkeep.models.wire.base import Head
from nightkeep.models.wire.openai_chat_request import TOOL_MODES, read_format
from nightkeep.models.wire.openai_responses_input import read_input
from nightkeep.models.wire.shape import Fields, decode_object

__all__ = ["read_responses_request"]

Foreign = dict[str, Any]


def read_responses_request(body: bytes, head: Head) -> ChatRequest:
    """Read a request whole. Raises RequestError with the field's path where its shape is wrong."""
    fields = Fields(decode_object(body))
    foreign: Foreign = {}
    fields.take("model")
    instructions = fields.text("instructions")
    system, messages = read_input(fields, foreign)
    tools = _read_tools(fields, foreign)
    choice, tools = _read_tool_choice(fields, tools, foreign)
    output_format, verbosity = _read_text(fields, foreign)
    request = ChatRequest(
        model=head.model,
        messages=messages,
        system=(Text(text=instructions), *system) if instructions else system,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=fields.flag("parallel_tool_calls"),
        max_output_tokens=fields.integer("max_output_tokens"),
        temperature=fields.number("temperature"),
        top_p=fields.number("top_p"),
        top_logprobs=fields.integer("top_logprobs"),
        stream=bool(fields.flag("stream")),
        output_format=output_format,
        reasoning=_read_reasoning(fields, foreign),
        user=fields.text("user"),
        metadata=fields.object("metadata"),
        service_tier=fields.text("service_tier"),
        prompt_cache_key=fields.text("prompt_cache_key"),
        verbosity=verbosity,
        foreign=foreign,
    )
    fields.collect_rest(foreign)
    return request


def _read_tools(fields: Fields, foreign: Foreign) -> tuple[ToolDefinition, ...]:
    tools: list[ToolDefinition] = []
    for index, item in enumerate(fields.array("tools")):
        tool = Fields(item, f"tools.{index}")
        if tool.required_text("type") != "function":
            foreign[f"tools.{index}"] = item
            continue
        tools.append(
            ToolDefinition(
                name=tool.required_text("name"),
                description=tool.text("description"),
                schema=tool.object("parameters"),
                strict=tool.flag("strict"),
            )
        )
        tool.collect_rest(foreign)
    return tuple(tools)


def _read_tool_choice(
    fields: Fields, tools: tuple[ToolDefinition, ...], foreign: Foreign
) -> tuple[ToolChoice | None, tuple[ToolDefinition, ...]]:
    value = fields.take("tool_choice")
    if value is None:
        return None, tools
    if isinstance(value, str) and value in TOOL_MODES:
        return ToolChoice(mode=TOOL_MODES[value]), tools
    choice = Fields(value, "tool_choice")
    kind = choice.required_text("type")
    if kind == "function":
        return ToolChoice(mode="tool", name=choice.required_text("name")), tools
    if kind == "allowed_tools":
        allowed = choice.array("tools")
        if all(isinstance(item, dict) and item.get("type") == "function" for item in allowed):
            names = {item.get("name") for item in allowed}
            mode = TOOL_MODES.get(choice.text("mode") or "auto", "auto")
            return ToolChoice(mode=mode), tuple(tool for tool in tools if tool.name in names)
    foreign["tool_choice"] = value
    return None, tools


def _read_text(fields: Fields, foreign: Foreign) -> tuple[OutputFormat | None, str | None]:
    text = fields.inner("text")
    if text is None:
        return None, None
    verbosity, form = text.text("verbosity"), text.inner("format")
    text.collect_rest(foreign)
    if form is None:
        return None, verbosity
    return read_format(form.required_text("type"), form, foreign), verbosity


def _read_reasoning(fields: Fields, foreign: Foreign) -> ReasoningSettings | None:
    settings = fields.inner("reasoning")
    if settings is None:
        return None
    effort = settings.text("effort")
    summary = settings.text("summary") or settings.text("generate_summary")
    settings.collect_rest(foreign)
    if effort is None and summary is None:
        return None
    return ReasoningSettings(effort=effort, summary=summary)
