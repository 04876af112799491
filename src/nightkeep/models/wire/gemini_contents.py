"""A conversation as Gemini's ``contents``: turns, parts, and function responses matched to their calls.

The request around them is ``gemini_write``. Gemini wants the responses to one turn's calls together, in one
content of their own and in the order of the calls; turns of one role that follow each other become one.
"""

from __future__ import annotations

import base64
import mimetypes
from typing import Any

import msgspec

from nightkeep.core.errors import RequestError, UntranslatableError
from nightkeep.core.messages import (
    ChatRequest,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from nightkeep.models.wire.base import Wire
from nightkeep.models.wire.gemini_parts import MADE_ID
from nightkeep.models.wire.signatures import own_signature
from nightkeep.models.wire.stripping import StripList
from nightkeep.models.wire.thinking import is_level_model

__all__ = ["write_contents"]

_WIRE = Wire.GEMINI
_ANY_SIGNATURE = "skip_thought_signature_validator"
"""What Gemini 3 takes for calls that another model made (ai.google.dev/gemini-api/docs/thought-signatures)."""


def write_contents(request: ChatRequest, model: str, source: Wire, strips: StripList) -> list[dict[str, Any]]:
    """The turns of a request for ``model``."""
    writer = _ContentWriter(model, source, strips)
    messages = list(enumerate(request.messages))
    for index, message in messages if source is _WIRE else _joined(messages):
        writer.add(message, f"messages[{index}]")
    return writer.contents


def _joined(messages: list[tuple[int, Message]]) -> list[tuple[int, Message]]:
    """Results that came in a message each (OpenAI's way) as one message, so that they can be put in order."""
    joined: list[tuple[int, Message]] = []
    for index, message in messages:
        if joined and _holds_results_only(message) and _holds_results_only(joined[-1][1]):
            first, before = joined[-1]
            joined[-1] = first, msgspec.structs.replace(before, parts=before.parts + message.parts)
        else:
            joined.append((index, message))
    return joined


def _holds_results_only(message: Message) -> bool:
    return bool(message.parts) and all(isinstance(part, ToolResult) for part in message.parts)


class _ContentWriter:
    def __init__(self, model: str, source: Wire, strips: StripList) -> None:
        self.contents: list[dict[str, Any]] = []
        self._is_level = is_level_model(model)
        self._source = source
        self._strips = strips
        self._names: dict[str, str] = {}
        self._order: dict[str, int] = {}

    def add(self, message: Message, path: str) -> None:
        """Write one turn: tool results as a content of their own, then the rest."""
        if message.name is not None:
            self._strips.note_named("messages[].name")
        if message.role == "system":
            text = "\n".join(part.text for part in message.parts if isinstance(part, Text))
            self._strips.note_named(f"{path}.role", "system text between turns was sent as marked user text")
            self._append("user", [{"text": f"<system>\n{text}\n</system>"}] if text else [])
            return
        results = [part for part in message.parts if isinstance(part, ToolResult)]
        results.sort(key=lambda result: self._order.get(result.call_id, 0))
        rest = [part for part in message.parts if not isinstance(part, ToolResult)]
        self._append("user", [written for result in results for written in self._result(result, path)])
        parts: list[dict[str, Any]] = []
        for part in rest:
            self._add_part(parts, part, path)
        if self._is_level and self._source is not _WIRE:
            _sign_first_call(parts)
        self._append("model" if message.role == "assistant" else "user", parts)

    def _append(self, role: str, parts: list[dict[str, Any]]) -> None:
        if not parts:
            return
        last = self.contents[-1] if self.contents else None
        is_alike = last is not None and last["role"] == role and _is_answer(last["parts"]) == _is_answer(parts)
        if last is not None and is_alike and self._source is not _WIRE:
            last["parts"] += parts
        else:
            self.contents.append({"role": role, "parts": parts})

    def _add_part(self, parts: list[dict[str, Any]], part: Part, path: str) -> None:
        if isinstance(part, Text | Media | ToolCall | ToolResult) and part.cache is not None:
            self._strips.note("cache", "Gemini caches prefixes by itself")
        match part:
            case Text() | Refusal():
                self._add_text(parts, part)
            case Media():
                parts.append(self._media(part, path))
            case ToolCall():
                parts.append(self._call(part, path))
            case Reasoning():
                self._add_reasoning(parts, part)
            case Opaque():
                parts.append(_own_part(part, path))
            case ToolResult():
                pass  # written before, in a content of their own

    def _add_text(self, parts: list[dict[str, Any]], part: Text | Refusal) -> None:
        if isinstance(part, Text) and part.citations:
            self._strips.note_named("citations")
        if part.text or self._source is _WIRE:
            parts.append({"text": part.text})

    def _add_reasoning(self, parts: list[dict[str, Any]], part: Reasoning) -> None:
        signature = own_signature(part.signature, self._source, _WIRE)
        is_foreign = part.encrypted is not None or (signature is None and self._source is not _WIRE)
        if is_foreign or (part.signature is not None and signature is None):
            self._strips.note_named("reasoning content", "Gemini takes back only thoughts of its own")
        elif part.text:
            parts.append({"text": part.text, "thought": True} | _signed(signature))
        elif signature is not None and parts and parts[-1].keys() == {"text"}:
            parts[-1]["thoughtSignature"] = signature
        elif signature is not None:
            parts.append({"text": "", "thoughtSignature": signature})

    def _call(self, part: ToolCall, path: str) -> dict[str, Any]:
        self._names[part.id] = part.name
        self._order[part.id] = len(self._order)
        call: dict[str, Any] = {"name": part.name, "args": _arguments(part, path)}
        if self._source is _WIRE and not part.id.startswith(MADE_ID):
            call["id"] = part.id
        return {"functionCall": call} | _signed(own_signature(part.signature, self._source, _WIRE))

    def _result(self, part: ToolResult, path: str) -> list[dict[str, Any]]:
        if part.cache is not None or any(item.cache for item in part.content):
            self._strips.note("cache", "Gemini caches prefixes by itself")
        name = part.name or self._names.get(part.call_id)
        if name is None:
            raise RequestError(f"{path}: no tool call {part.call_id} came before this result", parameter=path)
        text = "\n".join(item.text for item in part.content if isinstance(item, Text))
        response: dict[str, Any] = {"name": name, "response": _response(text, part.is_error)}
        if self._source is _WIRE and not part.call_id.startswith(MADE_ID):
            response["id"] = part.call_id
        media = [self._media(item, path) for item in part.content if isinstance(item, Media)]
        if media and (self._is_level or self._source is _WIRE):
            response["parts"] = media
            media = []
        return [{"functionResponse": response}, *media]

    def _media(self, part: Media, path: str) -> dict[str, Any]:
        if part.detail is not None:
            self._strips.note_named("image_url.detail", "Gemini sets the resolution for the whole request")
        if part.name is not None and self._source is not _WIRE:
            self._strips.note_named("document.title", "Gemini's documents have no title")
        media_type = part.media_type
        if part.text is not None:
            data = base64.b64encode(part.text.encode()).decode()
            return {"inlineData": {"mimeType": "text/plain", "data": data}}
        if part.data is not None:
            fallback = {"image": "image/png", "document": "application/pdf", "audio": "audio/wav", "video": "video/mp4"}
            return {
                "inlineData": {"mimeType": media_type or fallback[part.kind], "data": part.data} | self._named(part)
            }
        if part.url is None and self._source is not _WIRE:
            raise UntranslatableError(
                f"{path}: the file {part.file_id} is stored at the vendor of {self._source}; send its content or a URL",
                parameter=path,
            )
        uri = part.url or part.file_id or ""
        media_type = media_type or (mimetypes.guess_type(uri)[0] if self._source is not _WIRE else None)
        return {"fileData": {"fileUri": uri} | ({"mimeType": media_type} if media_type else {}) | self._named(part)}

    def _named(self, part: Media) -> dict[str, Any]:
        return {"displayName": part.name} if part.name is not None and self._source is _WIRE else {}


def _own_part(part: Opaque, path: str) -> dict[str, Any]:
    if part.wire != _WIRE:
        raise UntranslatableError(f"{path}: {part.kind} is known to {part.wire} only; leave it out", parameter=path)
    return part.raw


def _is_answer(parts: list[dict[str, Any]]) -> bool:
    return "functionResponse" in parts[0]


def _signed(signature: str | None) -> dict[str, Any]:
    return {} if signature is None else {"thoughtSignature": signature}


def _sign_first_call(parts: list[dict[str, Any]]) -> None:
    first = next((part for part in parts if "functionCall" in part), None)
    if first is not None:
        first.setdefault("thoughtSignature", _ANY_SIGNATURE)


def _arguments(call: ToolCall, path: str) -> Any:
    text = call.arguments or "{}"
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        value = None
    if not isinstance(value, dict):
        raise RequestError(f"{path}: the arguments of tool call {call.id} are not a JSON object", parameter=path)
    return msgspec.Raw(text.encode())


def _response(text: str, is_error: bool) -> dict[str, Any]:
    """What a tool answered as the object that Gemini wants: itself, or under ``output`` or ``error``."""
    try:
        value = msgspec.json.decode(text) if text.startswith("{") else text
    except msgspec.DecodeError:
        value = text
    if is_error:
        return {"error": value}
    return value if isinstance(value, dict) else {"output": value}
