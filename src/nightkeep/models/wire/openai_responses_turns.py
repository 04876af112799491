"""The ``input`` items of a Responses request, written from neutral messages of whatever wire.

Reading is ``openai_responses_input``. A thought is sent back only where this vendor made it (``signatures``).
"""

from __future__ import annotations

from typing import Any

from nightkeep.core.errors import UntranslatableError
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
from nightkeep.models.wire.openai_media import data_url, media_audio, refuse_foreign_file
from nightkeep.models.wire.openai_responses_input import SIGNATURE_MARK
from nightkeep.models.wire.signatures import own_signature
from nightkeep.models.wire.stripping import StripList

__all__ = ["write_input"]

_WIRE = Wire.OPENAI_RESPONSES
Items = list[dict[str, Any]]


def write_input(request: ChatRequest, source: Wire, strips: StripList) -> Items:
    """All items, in order. Raises UntranslatableError for parts that this wire cannot hold."""
    writer = _Writer(source, strips)
    items: Items = []
    for index, message in enumerate(request.messages):
        items += writer.items(message, f"messages[{index}]")
    return items


class _Writer:
    def __init__(self, source: Wire, strips: StripList) -> None:
        self._source = source
        self._strips = strips

    def items(self, message: Message, path: str) -> Items:
        """The items of one turn: what the parts say between the items that stand for themselves, in order."""
        if message.name is not None:
            self._strips.note_named("messages[].name")
        items: Items = []
        content: Items = []
        for part in message.parts:
            if isinstance(part, ToolCall | ToolResult | Reasoning | Opaque) and not _is_content(part):
                if content:
                    items.append(_message(message.role, content))
                    content = []
                items += self._item(part, path)
            else:
                content.append(self._content(part, message.role, path))
        if content or not message.parts:
            items.append(_message(message.role, content))
        return items

    def _item(self, part: ToolCall | ToolResult | Reasoning | Opaque, path: str) -> Items:
        match part:
            case ToolCall():
                self._note_cache(part)
                if part.signature:
                    self._strips.note_named("thoughtSignature", "only Gemini takes back what it signed")
                call = {"type": "function_call", "call_id": part.id, "name": part.name}
                return [call | {"arguments": part.arguments or "{}"}]
            case ToolResult():
                return [self._result(part, path)]
            case Reasoning():
                return self._reasoning(part)
            case Opaque():
                if part.wire != _WIRE:
                    raise UntranslatableError(
                        f"{path}: {part.kind} is known to {part.wire} only; leave it out", parameter=path
                    )
                return [part.raw]

    def _result(self, part: ToolResult, path: str) -> dict[str, Any]:
        self._note_cache(part)
        if part.is_error:
            self._strips.note_named("tool_result.is_error", "this wire has no such mark: the text alone must say it")
        content = [self._content(item, "user", path) for item in part.content]
        output: Any = content
        if not content or (len(content) == 1 and content[0]["type"] == "input_text"):
            output = content[0]["text"] if content else ""
        return {"type": "function_call_output", "call_id": part.call_id, "output": output}

    def _reasoning(self, part: Reasoning) -> Items:
        encrypted = own_signature(part.encrypted, self._source, _WIRE)
        if self._source is _WIRE and part.signature is not None:
            encrypted = SIGNATURE_MARK + part.signature
        if encrypted is None and (self._source is not _WIRE or part.id is None):
            self._strips.note_named("messages[].reasoning", "OpenAI takes back only thoughts that it encrypted itself")
            return []
        item: dict[str, Any] = {"type": "reasoning", "summary": _summary(part.text)}
        if part.id is not None and self._source is _WIRE:
            item["id"] = part.id
        if encrypted is not None:
            item["encrypted_content"] = encrypted
        return [item]

    def _content(self, part: Part, role: str, path: str) -> dict[str, Any]:
        match part:
            case Text():
                self._note_cache(part)
                if part.citations:
                    self._strips.note_named("citations")
                return {"type": "output_text" if role == "assistant" else "input_text", "text": part.text}
            case Refusal(text=text):
                return {"type": "refusal", "refusal": text}
            case Media():
                self._note_cache(part)
                return self._media(part, role, path)
            case Opaque(wire=Wire.OPENAI_RESPONSES):
                return part.raw
            case _:
                kind = part.kind if isinstance(part, Opaque) else type(part).__name__.lower()
                raise UntranslatableError(f"{path}: {kind} cannot be said on {_WIRE}", parameter=path)

    def _media(self, part: Media, role: str, path: str) -> dict[str, Any]:
        refuse_foreign_file(
            part, self._source, path, is_same_vendor=self._source in (Wire.OPENAI_CHAT, Wire.OPENAI_RESPONSES)
        )
        if role == "assistant" or part.kind == "video":
            raise UntranslatableError(f"{path}: {_WIRE} takes no {part.kind} from the {role}", parameter=path)
        if part.url is not None and not part.url.startswith(("http://", "https://")):
            raise UntranslatableError(f"{path}: {part.url} can be read by {self._source} only", parameter=path)
        if part.kind == "audio":
            return {"type": "input_audio", "input_audio": media_audio(part, _WIRE, path)}
        if part.kind == "document":
            return _file(part)
        image: dict[str, Any] = {"type": "input_image", "detail": part.detail or "auto"}
        return image | ({"file_id": part.file_id} if part.file_id else {"image_url": data_url(part)})

    def _note_cache(self, part: Text | Media | ToolCall | ToolResult) -> None:
        if part.cache is not None:
            self._strips.note("cache")


def _is_content(part: Part) -> bool:
    """Whether an opaque part stands inside a message: a content part, not an item."""
    return isinstance(part, Opaque) and part.wire == _WIRE and part.kind.startswith(("input_", "output_"))


def _message(role: str, content: Items) -> dict[str, Any]:
    if len(content) == 1 and content[0]["type"] == "input_text":
        return {"type": "message", "role": role, "content": content[0]["text"]}
    return {"type": "message", "role": role, "content": content}


def _summary(text: str) -> Items:
    return [{"type": "summary_text", "text": text}] if text else []


def _file(part: Media) -> dict[str, Any]:
    if part.text is not None:
        return {"type": "input_text", "text": f"{part.name}\n\n{part.text}" if part.name else part.text}
    file: dict[str, Any] = {"type": "input_file"}
    if part.data is not None:
        return file | {"filename": part.name or "document.pdf", "file_data": data_url(part)}
    file |= {"file_id": part.file_id} if part.file_id else {"file_url": part.url}
    return file | ({"detail": part.detail} if part.detail else {})
