"""Gemini requests, written: neutral words, from whatever wire, as ``:generateContent`` takes them.

Reading them is ``gemini_request``; turns are ``gemini_contents``. What this wire cannot say is stripped and
reported; what would change the meaning is refused.
"""

from __future__ import annotations

from typing import Any

from nightkeep.core.errors import UntranslatableError
from nightkeep.core.messages import ChatRequest, OutputFormat, ToolDefinition
from nightkeep.models.wire.base import Wire, Written
from nightkeep.models.wire.gemini_contents import write_contents
from nightkeep.models.wire.gemini_schema import to_gemini_schema
from nightkeep.models.wire.gemini_thinking import write_thinking
from nightkeep.models.wire.server_tools import refuse_server_tools
from nightkeep.models.wire.shape import encode_json, write_foreign
from nightkeep.models.wire.stripping import PARAMETER_NAMES, StripList

__all__ = ["write_body", "write_chat_request"]

_WIRE = Wire.GEMINI


def write_chat_request(request: ChatRequest, model: str, source: Wire) -> Written:
    """Write a request for ``model``. Raises UntranslatableError where its meaning would change."""
    body, strips = write_body(request, model, source)
    return Written(encode_json(body), strips.done())


def write_body(request: ChatRequest, model: str, source: Wire) -> tuple[dict[str, Any], StripList]:
    """The body before it is JSON, and what was stripped."""
    refuse_server_tools(request, source, _WIRE)
    strips = StripList(source, _WIRE)
    body: dict[str, Any] = {"contents": write_contents(request, model, source, strips)}
    if request.system:
        body["systemInstruction"] = {"parts": [{"text": text.text} for text in request.system]}
        if any(text.cache for text in request.system):
            strips.note("cache", "Gemini caches prefixes by itself")
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_write_tool(tool, strips) for tool in request.tools]}]
    _write_tool_choice(body, request, strips)
    config = _generation_config(request, model, source, strips)
    if config:
        body["generationConfig"] = config
    _write_account(body, request, source, strips)
    strips.note_unsupported(request, "user", "prompt_cache_key", "verbosity")
    if source is _WIRE:
        write_foreign(body, request.foreign)
    else:
        strips.note_foreign(request)
    return body, strips


def _write_tool(tool: ToolDefinition, strips: StripList) -> dict[str, Any]:
    body: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        body["description"] = tool.description
    if tool.schema:
        plain = to_gemini_schema(tool.schema)
        if plain is None:
            body["parametersJsonSchema"] = tool.schema
        elif plain.get("properties") or plain.get("type") != "OBJECT":
            body["parameters"] = plain
    if tool.strict is not None:
        strips.note_named("tools[].strict", "Gemini has no strict tools")
    if tool.cache is not None:
        strips.note("cache", "Gemini caches prefixes by itself")
    return body


def _write_tool_choice(body: dict[str, Any], request: ChatRequest, strips: StripList) -> None:
    if request.parallel_tool_calls is False:
        strips.note("parallel_tool_calls", "Gemini decides itself how many tools it calls at once")
    choice = request.tool_choice
    if choice is None:
        return
    modes = {"auto": "AUTO", "none": "NONE", "required": "ANY", "tool": "ANY"}
    calling: dict[str, Any] = {"mode": modes[choice.mode]}
    if choice.mode == "tool":
        calling["allowedFunctionNames"] = [choice.name]
    body["toolConfig"] = {"functionCallingConfig": calling}


_SAMPLING = {
    "maxOutputTokens": "max_output_tokens",
    "temperature": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "seed": "seed",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
    "responseLogprobs": "logprobs",
    "logprobs": "top_logprobs",
    "candidateCount": "choices",
}


def _generation_config(request: ChatRequest, model: str, source: Wire, strips: StripList) -> dict[str, Any]:
    if source is not _WIRE and (request.choices or 1) > 1:
        name = PARAMETER_NAMES["choices"].get(source, "choices")
        raise UntranslatableError(
            f"{name}: several answers cannot be carried between {_WIRE} and {source}; ask {request.choices} times",
            parameter=name,
        )
    config = {name: value for name, field in _SAMPLING.items() if (value := getattr(request, field)) is not None}
    if source is not _WIRE:
        for field in ("logprobs", "top_logprobs"):
            if config.pop("responseLogprobs" if field == "logprobs" else "logprobs", None):
                strips.note(field, f"log probabilities cannot be carried between {_WIRE} and {source}")
        config.pop("candidateCount", None)
    if request.stop:
        config["stopSequences"] = request.stop
    if request.output_format is not None:
        config |= _write_output_format(request.output_format, source, strips)
    write_thinking(config, request, model, source, strips)
    return config


def _write_output_format(wanted: OutputFormat, source: Wire, strips: StripList) -> dict[str, Any]:
    name = PARAMETER_NAMES["output_format"].get(source, "output_format")
    for field in ("name", "description"):
        if getattr(wanted, field) is not None:
            strips.note_named(f"{name}.{field}", "Gemini's output format is the schema alone")
    if wanted.strict is False:
        strips.note_named(f"{name}.strict", "Gemini always holds the answer to the schema")
    if wanted.kind == "text":
        return {"responseMimeType": "text/plain"} if source is _WIRE else {}
    config: dict[str, Any] = {"responseMimeType": "application/json"}
    if wanted.schema is not None:
        plain = to_gemini_schema(wanted.schema)
        config |= {"responseJsonSchema": wanted.schema} if plain is None else {"responseSchema": plain}
    return config


_TIERS = {"default": "standard", "standard": "standard", "flex": "flex", "priority": "priority"}


def _write_account(body: dict[str, Any], request: ChatRequest, source: Wire, strips: StripList) -> None:
    if request.metadata is not None:
        if source is _WIRE:
            body["labels"] = request.metadata
        else:
            strips.note("metadata", "Gemini has no metadata")
    if request.service_tier is not None:
        tier = _TIERS.get(request.service_tier, request.service_tier if source is _WIRE else None)
        if tier is None:
            strips.note("service_tier", f"Gemini has no service tier {request.service_tier!r}")
        else:
            body["serviceTier"] = tier
