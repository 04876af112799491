"""OpenAI Responses requests, written: neutral words, from whatever wire, as ``POST /v1/responses`` takes them.

Reading is ``openai_responses_request``; the items are ``openai_responses_turns``. Nothing is asked to be stored at the
vendor (``store: false``) for a client of another wire, which could not know of it; the thoughts that must come back
are asked for in encrypted form instead.
"""

from __future__ import annotations

from typing import Any

from nightkeep.core.errors import UntranslatableError
from nightkeep.core.messages import ChatRequest, OutputFormat, ToolChoice, ToolDefinition
from nightkeep.models.wire.base import Wire, Written
from nightkeep.models.wire.openai_models import is_reasoning_model
from nightkeep.models.wire.openai_reasoning import effort_for
from nightkeep.models.wire.openai_responses_turns import write_input
from nightkeep.models.wire.server_tools import refuse_server_tools
from nightkeep.models.wire.shape import encode_json, write_foreign
from nightkeep.models.wire.stripping import PARAMETER_NAMES, StripList

__all__ = ["echo_settings", "write_responses_request"]

_WIRE = Wire.OPENAI_RESPONSES
_SAME_NAMES = ("temperature", "top_p", "top_logprobs", "user", "metadata", "prompt_cache_key", "max_output_tokens")
_UNSAYABLE = ("top_k", "stop", "seed", "presence_penalty", "frequency_penalty")
_TIERS = frozenset({"auto", "default", "flex", "scale", "priority"})


def write_responses_request(request: ChatRequest, model: str, source: Wire) -> Written:
    """Write a request for ``model``. Raises UntranslatableError where its meaning would change."""
    refuse_server_tools(request, source, _WIRE)
    if request.choices is not None and request.choices > 1:
        name = PARAMETER_NAMES["choices"].get(source, "choices")
        raise UntranslatableError(
            f"{name}: {_WIRE} gives one answer a request; ask {request.choices} times instead", parameter=name
        )
    strips = StripList(source, _WIRE)
    body: dict[str, Any] = {"model": model}
    if request.system:
        body["instructions"] = "\n\n".join(text.text for text in request.system)
    body["input"] = write_input(request, source, strips)
    _write_tools(body, request, strips)
    body.update((name, value) for name in _SAME_NAMES if (value := getattr(request, name)) is not None)
    _write_text(body, request)
    _write_thinking(body, request, model, source, strips)
    tier = request.service_tier
    if tier is not None and (source is _WIRE or tier in _TIERS):
        body["service_tier"] = tier
    elif tier is not None:
        strips.note("service_tier", f"{_WIRE} has no service tier {tier!r}")
    if request.stream:
        body["stream"] = True
    _write_rest(body, request, source, strips)
    return Written(encode_json(body), strips.done())


def _write_rest(body: dict[str, Any], request: ChatRequest, source: Wire, strips: StripList) -> None:
    strips.note_unsupported(request, *_UNSAYABLE)
    if any(text.cache is not None for text in request.system) or any(tool.cache is not None for tool in request.tools):
        strips.note("cache")
    if source is _WIRE:
        write_foreign(body, request.foreign)
        return
    strips.note_foreign(request)
    body["store"] = False
    if request.logprobs:
        body.setdefault("include", []).append("message.output_text.logprobs")


def _write_tools(body: dict[str, Any], request: ChatRequest, strips: StripList) -> None:
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = _choice(request.tool_choice)
    if request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    body: dict[str, Any] = {"type": "function", "name": tool.name}
    if tool.description is not None:
        body["description"] = tool.description
    body["parameters"] = tool.schema if tool.schema is not None else {"type": "object", "properties": {}}
    body["strict"] = bool(tool.strict)  # this wire's default is true, every other wire's is false
    return body


def _choice(choice: ToolChoice) -> Any:
    return {"type": "function", "name": choice.name} if choice.mode == "tool" else choice.mode


def _write_text(body: dict[str, Any], request: ChatRequest) -> None:
    text: dict[str, Any] = {}
    if request.output_format is not None:
        text["format"] = _format(request.output_format)
    if request.verbosity is not None:
        text["verbosity"] = request.verbosity
    if text:
        body["text"] = text


def _format(form: OutputFormat) -> dict[str, Any]:
    if form.kind != "schema":
        return {"type": "text" if form.kind == "text" else "json_object"}
    schema: dict[str, Any] = {"type": "json_schema", "name": form.name or "answer", "schema": form.schema or {}}
    if form.description is not None:
        schema["description"] = form.description
    if form.strict is not None:
        schema["strict"] = form.strict
    return schema


def _write_thinking(body: dict[str, Any], request: ChatRequest, model: str, source: Wire, strips: StripList) -> None:
    settings: dict[str, Any] = {}
    if (effort := effort_for(request, model, source, strips)) is not None:
        settings["effort"] = effort
    summary = request.reasoning.summary if request.reasoning is not None else None
    if summary not in (None, "none"):
        if source is _WIRE or is_reasoning_model(model):
            settings["summary"] = summary
        else:
            strips.note_named("reasoning.summary", f"{model} shows no thoughts")
    if settings:
        body["reasoning"] = settings
    if source is not _WIRE and is_reasoning_model(model):
        body["include"] = ["reasoning.encrypted_content"]


def echo_settings(request: ChatRequest | None) -> dict[str, Any]:
    """The request's settings as a response object repeats them; the SDK's type needs tools and their choice."""
    said = request or ChatRequest(model="", messages=())
    text: dict[str, Any] = {"format": _format(said.output_format or OutputFormat(kind="text"))}
    if said.verbosity is not None:
        text["verbosity"] = said.verbosity
    thinking = said.reasoning
    return {
        "instructions": "\n\n".join(part.text for part in said.system) or None,
        "max_output_tokens": said.max_output_tokens,
        "metadata": said.metadata or {},
        "parallel_tool_calls": said.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {
            "effort": thinking.effort if thinking else None,
            "summary": thinking.summary if thinking else None,
        },
        "store": False,
        "temperature": said.temperature,
        "text": text,
        "tool_choice": "auto" if said.tool_choice is None else _choice(said.tool_choice),
        "tools": [_tool(tool) for tool in said.tools],
        "top_p": said.top_p,
        "truncation": "disabled",
    }
