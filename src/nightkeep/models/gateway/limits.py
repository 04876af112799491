"""What a route says of a request's size: the output limit of an alias or task, the temperature of a task.

Applied to the client's own body before anything is translated, and reported with what was stripped.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nightkeep.models.routing import Route
from nightkeep.models.wire.base import Operation, Stripped, Wire

__all__ = ["clamp_body", "limit_body"]

_FIELDS = msgspec.json.Decoder(dict[str, Any])

_LIMIT_NAMES: dict[Wire, tuple[str, ...]] = {
    Wire.OPENAI_CHAT: ("max_tokens", "max_completion_tokens"),
    Wire.OPENAI_RESPONSES: ("max_output_tokens",),
    Wire.ANTHROPIC_MESSAGES: ("max_tokens",),
    Wire.GEMINI: ("maxOutputTokens", "max_output_tokens"),
}
"""The output limit on each wire; the first is written where the client gave none."""


def limit_body(wire: Wire, operation: Operation, body: bytes, route: Route) -> tuple[bytes, tuple[Stripped, ...]]:
    """The body within what the route allows, and what was changed; the same object where nothing was."""
    if operation is not Operation.CHAT or (route.max_output_tokens is None and route.temperature is None):
        return body, ()
    fields = _FIELDS.decode(body)
    place = fields
    prefix = ""
    if wire is Wire.GEMINI:
        name = "generation_config" if "generation_config" in fields else "generationConfig"
        place = fields[name] = fields.get(name) or {}
        prefix = f"{name}."
    changes = [
        *_limit(wire, place, prefix, route.max_output_tokens, route.rule),
        *_temperature(place, prefix, route.temperature, route.rule),
    ]
    return (msgspec.json.encode(fields), tuple(changes)) if changes else (body, ())


def clamp_body(wire: Wire, body: bytes, most: int, why: str, *, is_openai: bool) -> tuple[bytes, Stripped]:
    """The body of a request, already in its target's wire, with an output limit of ``most``; and how it is told.

    OpenAI itself takes ``max_completion_tokens`` for every model; most who speak its wire know ``max_tokens`` only.
    """
    fields = _FIELDS.decode(body)
    place = fields
    if wire is Wire.GEMINI:
        place = fields.get("generation_config") or fields.setdefault("generationConfig", {})
    given = [name for name in _LIMIT_NAMES[wire] if isinstance(place.get(name), int)]
    default = "max_completion_tokens" if wire is Wire.OPENAI_CHAT and is_openai else _LIMIT_NAMES[wire][0]
    for name in given or [default]:
        place[name] = min(most, place.get(name, most))
    return msgspec.json.encode(fields), Stripped((given or [default])[0], f"limited to {most} by {why}")


def _limit(wire: Wire, place: dict[str, Any], prefix: str, most: int | None, rule: str) -> list[Stripped]:
    if most is None:
        return []
    given = [name for name in _LIMIT_NAMES[wire] if isinstance(place.get(name), int)]
    over = [name for name in given if place[name] > most]
    if given and not over:
        return []
    for name in over or _LIMIT_NAMES[wire][:1]:
        place[name] = most
    names = over or _LIMIT_NAMES[wire][:1]
    return [Stripped(prefix + name, f"limited to {most} by {rule}") for name in names]


def _temperature(place: dict[str, Any], prefix: str, temperature: float | None, rule: str) -> list[Stripped]:
    if temperature is None or place.get("temperature") is not None:
        return []
    place["temperature"] = temperature
    return [Stripped(prefix + "temperature", f"set to {temperature:g} by {rule}")]
