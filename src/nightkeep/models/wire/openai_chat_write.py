"""OpenAI Chat Completions requests, written: neutral words, from whatever wire, for any vendor that speaks this one.

The turns are ``openai_chat_turns``; reading is ``openai_chat_request``. What this wire cannot say is stripped and
reported; what would change the meaning is refused.
"""

from __future__ import annotations

from typing import Any

from nightkeep.core.messages import ChatRequest, OutputFormat, ToolChoice, ToolDefinition
from nightkeep.models.wire.base import Wire, Written
from nightkeep.models.wire.openai_chat_turns import write_messages
from nightkeep.models.wire.openai_models import limit_name
from nightkeep.models.wire.openai_reasoning import effort_for
from nightkeep.models.wire.server_tools import refuse_server_tools
from nightkeep.models.wire.shape import encode_json, write_foreign
from nightkeep.models.wire.stripping import StripList

__all__ = ["write_chat_request"]

_WIRE = Wire.OPENAI_CHAT
_SAME_NAMES = (
    "temperature",
    "top_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logprobs",
    "top_logprobs",
    "user",
    "metadata",
    "prompt_cache_key",
    "verbosity",
)
_TIERS = frozenset({"auto", "default", "flex", "scale", "priority"})


def write_chat_request(request: ChatRequest, model: str, source: Wire) -> Written:
    """Write a request for ``model``. Raises UntranslatableError where its meaning would change."""
    refuse_server_tools(request, source, _WIRE)
    strips = StripList(source, _WIRE)
    body: dict[str, Any] = {"model": model, "messages": write_messages(request, source, strips)}
    _write_tools(body, request, strips)
    _write_sampling(body, request, model, source, strips)
    if (form := request.output_format) is not None:
        body["response_format"] = _format(form)
    if (effort := effort_for(request, model, source, strips)) is not None:
        body["reasoning_effort"] = effort
    if request.reasoning is not None and request.reasoning.summary is not None and source is not _WIRE:
        strips.note_named("reasoning.summary", "whether thoughts are shown is this wire's vendor's choice")
    if request.stream:
        body["stream"] = True
        if source is not _WIRE:
            body["stream_options"] = {"include_usage": True}
    if source is _WIRE:
        write_foreign(body, request.foreign)
    else:
        strips.note_foreign(request)
    return Written(encode_json(body), strips.done())


def _write_tools(body: dict[str, Any], request: ChatRequest, strips: StripList) -> None:
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if any(tool.cache is not None for tool in request.tools):
        strips.note("cache")
    if request.tool_choice is not None and (request.tools or request.tool_choice.mode != "auto"):
        body["tool_choice"] = _choice(request.tool_choice)
    if request.parallel_tool_calls is not None and request.tools:
        body["parallel_tool_calls"] = request.parallel_tool_calls


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.schema is not None:
        function["parameters"] = tool.schema
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice) -> Any:
    if choice.mode != "tool":
        return choice.mode
    return {"type": "function", "function": {"name": choice.name}}


def _write_sampling(body: dict[str, Any], request: ChatRequest, model: str, source: Wire, strips: StripList) -> None:
    body.update((name, value) for name in _SAME_NAMES if (value := getattr(request, name)) is not None)
    if request.max_output_tokens is not None:
        body[limit_name(model)] = request.max_output_tokens
    if request.stop:
        body["stop"] = list(request.stop)
    if request.choices is not None:
        body["n"] = request.choices
    if request.top_k is not None and source is _WIRE:
        body["top_k"] = request.top_k  # several vendors of this wire take it
    elif request.top_k is not None:
        strips.note("top_k")
    if request.top_logprobs is not None and source is not _WIRE:
        body["logprobs"] = True
    _write_tier(body, request.service_tier, source, strips)


def _write_tier(body: dict[str, Any], tier: str | None, source: Wire, strips: StripList) -> None:
    if tier is None:
        return
    if source is _WIRE or tier in _TIERS:
        body["service_tier"] = tier
    else:
        strips.note("service_tier", f"{_WIRE} has no service tier {tier!r}")


def _format(form: OutputFormat) -> dict[str, Any]:
    if form.kind != "schema":
        return {"type": "text" if form.kind == "text" else "json_object"}
    schema: dict[str, Any] = {"name": form.name or "answer", "schema": form.schema or {}}
    if form.description is not None:
        schema["description"] = form.description
    if form.strict is not None:
        schema["strict"] = form.strict
    return {"type": "json_schema", "json_schema": schema}
