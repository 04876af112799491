"""The turns of a Chat Completions request, written from neutral messages of whatever wire.

Tool answers become messages of role ``tool`` before the rest of their turn; pictures in a tool's answer, which this
wire cannot hold, follow it in a message of the user. Reading is ``openai_chat_messages``.
"""

from __future__ import annotations

from collections.abc import Iterable
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
from nightkeep.models.wire.stripping import StripList

__all__ = ["write_messages"]

_WIRE = Wire.OPENAI_CHAT


def write_messages(request: ChatRequest, source: Wire, strips: StripList) -> list[dict[str, Any]]:
    """All messages, the system text first. Raises UntranslatableError for parts that this wire cannot hold."""
    writer = _Writer(source, strips)
    if request.system:
        writer.system(request.system)
    for index, message in enumerate(request.messages):
        writer.message(message, f"messages[{index}]")
    return writer.turns


class _Writer:
    def __init__(self, source: Wire, strips: StripList) -> None:
        self._source = source
        self._strips = strips
        self.turns: list[dict[str, Any]] = []

    def system(self, texts: Iterable[Text], name: str | None = None) -> None:
        """One message: many vendors take system text only once, and only as a string."""
        kept = list(texts)
        for part in kept:
            self._note_marks(part)
        turn: dict[str, Any] = {"role": "system", "content": "\n\n".join(part.text for part in kept)}
        self.turns.append(turn | ({"name": name} if name else {}))

    def message(self, message: Message, path: str) -> None:
        if message.role == "system":
            self.system((part for part in message.parts if isinstance(part, Text)), message.name)
        elif message.role == "assistant":
            self._assistant(message, path)
        else:
            self._user(message, path)

    def _user(self, message: Message, path: str) -> None:
        pictures: list[dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, ToolResult):
                pictures += self._result(part, path)
        rest = [part for part in message.parts if not isinstance(part, ToolResult)]
        content = pictures + [self._part(part, path) for part in rest]
        if not content and message.parts:
            return
        turn: dict[str, Any] = {"role": "user", "content": _shortened(content)}
        self.turns.append(turn | ({"name": message.name} if message.name else {}))

    def _result(self, part: ToolResult, path: str) -> list[dict[str, Any]]:
        """Write the tool's message; give back what must follow it in a message of the user."""
        if part.is_error:
            self._strips.note_named("tool_result.is_error", "this wire has no such mark: the text alone must say it")
        self._note_marks(part)
        texts = [self._text(item) for item in part.content if isinstance(item, Text)]
        pictures = [self._media(item, path) for item in part.content if isinstance(item, Media)]
        if pictures:
            reason = "this wire's tool messages hold text only: moved into a user message after them"
            self._strips.note_named("tool_result.content", reason)
            texts = texts or [{"type": "text", "text": "(the result follows in the next message)"}]
        self.turns.append({"role": "tool", "tool_call_id": part.call_id, "content": _shortened(texts)})
        return pictures

    def _assistant(self, message: Message, path: str) -> None:
        texts: list[str] = []
        refusals: list[str] = []
        calls: list[dict[str, Any]] = []
        for part in message.parts:
            match part:
                case Text():
                    self._note_marks(part)
                    texts.append(part.text)
                case Refusal():
                    refusals.append(part.text)
                case ToolCall():
                    self._note_marks(part)
                    function = {"name": part.name, "arguments": part.arguments or "{}"}
                    calls.append({"id": part.id, "type": "function", "function": function})
                case Reasoning():
                    self._strips.note_named("messages[].reasoning", "this wire takes no thoughts back")
                case Opaque(wire=Wire.OPENAI_CHAT):
                    calls.append(part.raw)
                case _:
                    raise UntranslatableError(f"{path}: {_name(part)} has no place in an answer here", parameter=path)
        turn: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts else None}
        if refusals:
            turn["refusal"] = "".join(refusals)
        if calls:
            turn["tool_calls"] = calls
        if not (texts or refusals or calls):
            turn["content"] = ""
        self.turns.append(turn | ({"name": message.name} if message.name else {}))

    def _part(self, part: Part, path: str) -> dict[str, Any]:
        match part:
            case Text():
                return self._text(part)
            case Refusal(text=text):
                return {"type": "text", "text": text}
            case Media():
                return self._media(part, path)
            case Opaque(wire=Wire.OPENAI_CHAT):
                return part.raw
            case _:
                raise UntranslatableError(f"{path}: {_name(part)} cannot be said on {_WIRE}", parameter=path)

    def _text(self, part: Text) -> dict[str, Any]:
        self._note_marks(part)
        return {"type": "text", "text": part.text}

    def _media(self, part: Media, path: str) -> dict[str, Any]:
        self._note_marks(part)
        refuse_foreign_file(part, self._source, path, is_same_vendor=_is_openai(self._source))
        if part.kind == "audio":
            return {"type": "input_audio", "input_audio": media_audio(part, _WIRE, path)}
        if part.kind in ("image", "video"):
            return self._picture(part, path)
        if part.text is not None:
            return {"type": "text", "text": f"{part.name}\n\n{part.text}" if part.name else part.text}
        if part.data is None and part.file_id is None:
            raise UntranslatableError(f"{path}: {_WIRE} takes no document by URL; send its content", parameter=path)
        file: dict[str, Any] = {"file_id": part.file_id} if part.file_id else {"file_data": data_url(part)}
        file["filename"] = part.name or "document.pdf"
        return {"type": "file", "file": file}

    def _picture(self, part: Media, path: str) -> dict[str, Any]:
        if part.data is None and part.url is None:
            raise UntranslatableError(f"{path}: {_WIRE} takes no {part.kind} by file id", parameter=path)
        if part.url is not None and not part.url.startswith(("http://", "https://")):
            raise UntranslatableError(f"{path}: {part.url} can be read by {self._source} only", parameter=path)
        url: dict[str, Any] = {"url": data_url(part)}
        if part.detail is not None:
            url["detail"] = part.detail
        kind = "image_url" if part.kind == "image" else "video_url"
        return {"type": kind, kind: url}

    def _note_marks(self, part: Text | Media | ToolCall | ToolResult) -> None:
        if part.cache is not None:
            self._strips.note("cache")
        if isinstance(part, Text) and part.citations:
            self._strips.note_named("citations")
        if isinstance(part, ToolCall) and part.signature:
            self._strips.note_named("thoughtSignature", "only Gemini takes back what it signed")


def _is_openai(source: Wire) -> bool:
    return source in (Wire.OPENAI_CHAT, Wire.OPENAI_RESPONSES)


def _name(part: Part) -> str:
    return f"{part.kind} of {part.wire}" if isinstance(part, Opaque) else type(part).__name__.lower()


def _shortened(content: list[dict[str, Any]]) -> Any:
    if not content:
        return ""
    return content[0]["text"] if len(content) == 1 and content[0]["type"] == "text" else content
