"""Anthropic Messages requests, written: neutral words, from whatever wire, as ``POST /v1/messages`` takes them.

Reading them is ``anthropic_request``. What this wire cannot say is stripped and reported; what it needs and
the client did not say (``max_tokens``) is set and reported; what would change the meaning is refused.
"""

from __future__ import annotations

from typing import Any

from nightkeep.core.errors import UntranslatableError
from nightkeep.core.messages import ChatRequest, Message, OutputFormat, Text, ToolChoice, ToolDefinition
from nightkeep.models.wire.anthropic_blocks import BlockWriter, cache_control
from nightkeep.models.wire.anthropic_thinking import write_thinking
from nightkeep.models.wire.base import Wire, Written
from nightkeep.models.wire.server_tools import refuse_server_tools
from nightkeep.models.wire.shape import encode_json, write_foreign
from nightkeep.models.wire.stripping import PARAMETER_NAMES, StripList

__all__ = ["DEFAULT_MAX_TOKENS", "write_chat_request"]

DEFAULT_MAX_TOKENS = 4_096
"""Sent where the client set no limit, because this wire requires one (S3.5); reported each time."""

_WIRE = Wire.ANTHROPIC_MESSAGES
_UNSAYABLE = (
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logprobs",
    "top_logprobs",
    "metadata",
    "prompt_cache_key",
    "verbosity",
)


def write_chat_request(request: ChatRequest, model: str, source: Wire) -> Written:
    """Write a request for ``model``. Raises UntranslatableError where its meaning would change."""
    refuse_server_tools(request, source, _WIRE)
    strips = StripList(source, _WIRE)
    body: dict[str, Any] = {"model": model}
    body["messages"] = _write_messages(request, source, strips)
    if request.system:
        body["system"] = _write_system(request.system)
    if request.tools:
        body["tools"] = [_write_tool(tool) for tool in request.tools]
    choice = _write_tool_choice(request)
    if choice is not None:
        body["tool_choice"] = choice
    output_config = _write_output_format(request.output_format, source, strips)
    body["max_tokens"] = DEFAULT_MAX_TOKENS if request.max_output_tokens is None else request.max_output_tokens
    write_thinking(body, output_config, request, source, strips)
    if request.max_output_tokens is None:
        name = PARAMETER_NAMES["max_output_tokens"].get(source, "max_tokens")
        strips.note_named(name, f"max_tokens set to {body['max_tokens']}: Anthropic requires it")
    if output_config:
        body["output_config"] = output_config
    _write_sampling(body, request, source, strips)
    _write_account(body, request, strips)
    if request.stream:
        body["stream"] = True
    strips.note_unsupported(request, *_UNSAYABLE)
    if source is _WIRE:
        write_foreign(body, request.foreign)
    else:
        strips.note_foreign(request)
    return Written(encode_json(body), strips.done())


def _write_system(system: tuple[Text, ...]) -> Any:
    if len(system) == 1 and system[0].cache is None:
        return system[0].text
    return [{"type": "text", "text": text.text, **cache_control(text.cache)} for text in system if text.text]


def _write_messages(request: ChatRequest, source: Wire, strips: StripList) -> list[dict[str, Any]]:
    """Each turn; for another wire's requests, turns of one role that follow each other become one.

    Tool results stand first in their turn, since this wire wants them right after the calls; system text
    between turns stays what it is where the client spoke this wire, else it is marked user text.
    """
    writer = BlockWriter(source, strips)
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(request.messages):
        content = writer.blocks(message, f"messages[{index}]")
        role: str = message.role
        if message.role == "system" and source is not _WIRE:
            role, content = "user", _marked_system(message)
            strips.note_named(f"messages[{index}].role", "system text between turns was sent as marked user text")
        if message.name is not None:
            strips.note_named("messages[].name")
        if not content:
            continue
        if source is not _WIRE and turns and turns[-1]["role"] == role:
            turns[-1]["content"] += content
        else:
            turns.append({"role": role, "content": content})
    if source is not _WIRE:
        for turn in turns:
            turn["content"].sort(key=lambda block: block["type"] != "tool_result")
            turn["content"] = _shortened(turn["content"])
    return turns


def _marked_system(message: Message) -> list[dict[str, Any]]:
    text = "\n".join(part.text for part in message.parts if isinstance(part, Text))
    return [{"type": "text", "text": f"<system>\n{text}\n</system>"}] if text else []


def _shortened(content: list[dict[str, Any]]) -> Any:
    only = content[0] if len(content) == 1 else {}
    return only["text"] if only.keys() == {"type", "text"} else content


def _write_tool(tool: ToolDefinition) -> dict[str, Any]:
    body: dict[str, Any] = {"name": tool.name, "input_schema": tool.schema or {"type": "object", "properties": {}}}
    if "type" not in body["input_schema"]:
        body["input_schema"] = {"type": "object", **body["input_schema"]}
    if tool.description is not None:
        body["description"] = tool.description
    if tool.strict is not None:
        body["strict"] = tool.strict
    return body | cache_control(tool.cache)


_CHOICES = {"auto": "auto", "none": "none", "required": "any", "tool": "tool"}


def _write_tool_choice(request: ChatRequest) -> dict[str, Any] | None:
    choice, is_parallel = request.tool_choice, request.parallel_tool_calls
    has_server_tools = any(name.startswith("tools.") for name in request.foreign)
    if choice is None and (is_parallel is None or not (request.tools or has_server_tools)):
        return None
    choice = choice or ToolChoice(mode="auto")
    body: dict[str, Any] = {"type": _CHOICES[choice.mode]}
    if choice.mode == "tool":
        body["name"] = choice.name
    if is_parallel is not None and choice.mode != "none":
        body["disable_parallel_tool_use"] = not is_parallel
    return body


def _write_output_format(wanted: OutputFormat | None, source: Wire, strips: StripList) -> dict[str, Any]:
    if wanted is None or wanted.kind == "text":
        return {}
    name = PARAMETER_NAMES["output_format"].get(source, "output_format")
    if wanted.kind == "json" or wanted.schema is None:
        raise UntranslatableError(
            f"{name}: Anthropic cannot promise JSON without a schema; give a schema, or a tool that takes the data",
            parameter=name,
        )
    for field in ("name", "description"):
        if getattr(wanted, field) is not None:
            strips.note_named(f"{name}.{field}", "Anthropic's output format is the schema alone")
    if wanted.strict is False:
        strips.note_named(f"{name}.strict", "Anthropic always holds the answer to the schema")
    return {"format": {"type": "json_schema", "schema": wanted.schema}}


def _write_sampling(body: dict[str, Any], request: ChatRequest, source: Wire, strips: StripList) -> None:
    if request.choices is not None and request.choices > 1:
        name = PARAMETER_NAMES["choices"].get(source, "choices")
        raise UntranslatableError(
            f"{name}: Anthropic gives one answer a request; ask {request.choices} times instead", parameter=name
        )
    is_thinking = body.get("thinking", {}).get("type") in ("enabled", "adaptive")
    values = {name: getattr(request, name) for name in ("temperature", "top_p", "top_k")}
    if source is not _WIRE:
        _limit_sampling(values, is_thinking, strips)
    body.update((name, value) for name, value in values.items() if value is not None)
    stops = request.stop if source is _WIRE else tuple(stop for stop in request.stop if stop.strip())
    if len(stops) != len(request.stop):
        strips.note("stop", "Anthropic takes no stop sequence of white space only; the others were sent")
    if stops:
        body["stop_sequences"] = stops


def _limit_sampling(values: dict[str, Any], is_thinking: bool, strips: StripList) -> None:
    """Keep another wire's sampling within what this one takes; each change is reported."""
    if is_thinking:
        for name in ("temperature", "top_p", "top_k"):
            is_allowed = (name == "temperature" and values[name] == 1) or (
                name == "top_p" and (values[name] or 0) >= 0.95
            )
            if values[name] is not None and not is_allowed:
                strips.note(name, f"Anthropic does not take this {name} while the model thinks")
                values[name] = None
    if values["temperature"] is not None and values["temperature"] > 1:
        strips.note("temperature", f"temperature {values['temperature']:g} set to 1: Anthropic's range ends there")
        values["temperature"] = 1
    if values["temperature"] is not None and values["top_p"] is not None:
        strips.note("top_p", "Anthropic takes temperature or top_p, not both")
        values["top_p"] = None


_TIERS = {"auto": "auto", "default": "standard_only", "standard": "standard_only"}


def _write_account(body: dict[str, Any], request: ChatRequest, strips: StripList) -> None:
    if request.user is not None:
        body["metadata"] = {"user_id": request.user}
    if request.service_tier is not None:
        tier = _TIERS.get(request.service_tier)
        if tier is None:
            strips.note("service_tier", f"Anthropic has no service tier {request.service_tier!r}")
        else:
            body["service_tier"] = tier
