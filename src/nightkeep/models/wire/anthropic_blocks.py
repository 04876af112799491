"""Parts of a turn as Anthropic's content blocks; the request around them is ``anthropic_write``."""

from __future__ import annotations

import base64
import re
from typing import Any

import msgspec

from nightkeep.core.errors import RequestError, UntranslatableError
from nightkeep.core.messages import (
    CacheMark,
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
from nightkeep.models.wire.signatures import own_signature
from nightkeep.models.wire.stripping import StripList

__all__ = ["BlockWriter", "cache_control"]

_WIRE = Wire.ANTHROPIC_MESSAGES
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")


def cache_control(mark: CacheMark | None) -> dict[str, Any]:
    """The ``cache_control`` field for a mark; empty without one."""
    if mark is None:
        return {}
    return {"cache_control": {"type": "ephemeral"} | ({"ttl": mark.ttl} if mark.ttl else {})}


class BlockWriter:
    """Writes the parts of a request's turns, reporting what this wire cannot say."""

    def __init__(self, source: Wire, strips: StripList) -> None:
        self._source = source
        self._strips = strips

    def blocks(self, message: Message, path: str) -> list[dict[str, Any]]:
        """The content blocks of one turn; parts that are nothing here are left out and reported."""
        written = (self._block(part, path) for part in message.parts)
        return [block for block in written if block is not None]

    def _block(self, part: Part, path: str) -> dict[str, Any] | None:
        match part:
            case Text():
                return self._text(part)
            case Media():
                return self._media(part, path)
            case ToolCall():
                tool_input = _tool_input(part, path)
                block = {"type": "tool_use", "id": _NOT_IN_IDS.sub("_", part.id), "name": part.name}
                return block | {"input": tool_input} | cache_control(part.cache)
            case ToolResult():
                return self._tool_result(part, path)
            case Reasoning():
                return self._reasoning(part)
            case Refusal(text=text):
                return {"type": "text", "text": text} if text else None
            case Opaque():
                return self._opaque(part, path)

    def _text(self, part: Text) -> dict[str, Any] | None:
        if not part.text:
            return None  # this wire refuses empty text, and it says nothing
        block: dict[str, Any] = {"type": "text", "text": part.text}
        if part.citations and self._source is _WIRE:
            block["citations"] = part.citations
        elif part.citations:
            self._strips.note_named("citations")
        return block | cache_control(part.cache)

    def _media(self, part: Media, path: str) -> dict[str, Any]:
        if part.kind not in ("image", "document"):
            raise UntranslatableError(f"{path}: Anthropic takes no {part.kind}", parameter=path)
        if part.detail is not None:
            self._strips.note_named("image_url.detail", "Anthropic decides on an image's detail itself")
        block: dict[str, Any] = {"type": part.kind, "source": self._media_source(part, path)}
        if part.name is not None and part.kind == "document":
            block["title"] = part.name
        return block | cache_control(part.cache)

    def _media_source(self, part: Media, path: str) -> dict[str, Any]:
        if part.text is not None:
            return {"type": "text", "media_type": "text/plain", "data": part.text}
        if part.data is not None:
            media_type = part.media_type or ("image/png" if part.kind == "image" else "application/pdf")
            if part.kind == "document" and media_type.startswith("text/") and self._source is not _WIRE:
                return {"type": "text", "media_type": "text/plain", "data": _decoded(part.data, path)}
            return {"type": "base64", "media_type": media_type, "data": part.data}
        if part.url is not None:
            return {"type": "url", "url": part.url}
        if self._source is not _WIRE:
            raise UntranslatableError(
                f"{path}: the file {part.file_id} is stored at the vendor of {self._source}; send its content or a URL",
                parameter=path,
            )
        return {"type": "file", "file_id": part.file_id}

    def _tool_result(self, part: ToolResult, path: str) -> dict[str, Any]:
        written = (self._text(item) if isinstance(item, Text) else self._media(item, path) for item in part.content)
        content = [block for block in written if block is not None]
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": _NOT_IN_IDS.sub("_", part.call_id)}
        if self._source is not _WIRE and len(content) == 1 and content[0].keys() == {"type", "text"}:
            block["content"] = content[0]["text"]
        elif content:
            block["content"] = content
        if part.is_error:
            block["is_error"] = True
        return block | cache_control(part.cache)

    def _reasoning(self, part: Reasoning) -> dict[str, Any] | None:
        if (data := own_signature(part.encrypted, self._source, _WIRE)) is not None:
            return {"type": "redacted_thinking", "data": data}
        signature = own_signature(part.signature, self._source, _WIRE)
        if signature is None:
            self._strips.note_named("reasoning content", "Anthropic takes back only thoughts that it signed itself")
            return None
        return {"type": "thinking", "thinking": part.text, "signature": signature}

    def _opaque(self, part: Opaque, path: str) -> dict[str, Any]:
        if part.wire != _WIRE:
            raise UntranslatableError(f"{path}: {part.kind} is known to {part.wire} only; leave it out", parameter=path)
        return part.raw


def _tool_input(call: ToolCall, path: str) -> Any:
    text = call.arguments or "{}"
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        value = None
    if not isinstance(value, dict):
        raise RequestError(f"{path}: the arguments of tool call {call.id} are not a JSON object", parameter=path)
    return msgspec.Raw(text.encode())


def _decoded(data: str, path: str) -> str:
    try:
        return base64.b64decode(data).decode()
    except ValueError as error:
        raise RequestError(f"{path}: the document is not base64 of UTF-8 text", parameter=path) from error
