"""The turns of a Chat Completions request, read into neutral messages.

System and developer text before the first turn becomes ``ChatRequest.system``; tool answers that follow each other
become one turn of role user. The legacy ``function_call`` and role ``function`` are read too.
Shapes: ``openai.types.chat.chat_completion_message_param``.
"""

from __future__ import annotations

from typing import Any

from nightkeep.core.errors import RequestError
from nightkeep.core.messages import Media, Message, Opaque, Part, Reasoning, Refusal, Text, ToolCall, ToolResult
from nightkeep.models.wire.base import Wire
from nightkeep.models.wire.openai_media import audio_media, file_media, google_signature, read_cache, url_media
from nightkeep.models.wire.shape import Fields

__all__ = ["read_messages"]

Foreign = dict[str, Any]


def read_messages(fields: Fields, foreign: Foreign) -> tuple[tuple[Text, ...], tuple[Message, ...]]:
    """The system text and the turns. Raises RequestError with the field's path where a shape is wrong."""
    reader = _Reader(foreign)
    for index, item in enumerate(fields.array("messages")):
        reader.read(Fields(item, f"messages.{index}"))
    return tuple(reader.system), tuple(reader.messages)


class _Reader:
    """Reads turn after turn, and remembers the calls that later answers belong to."""

    def __init__(self, foreign: Foreign) -> None:
        self.system: list[Text] = []
        self.messages: list[Message] = []
        self._foreign = foreign
        self._names: dict[str, str] = {}  # call id -> tool name
        self._legacy: dict[str, str] = {}  # function name -> id of its latest call

    def read(self, message: Fields) -> None:
        role = message.required_text("role")
        match role:
            case "system" | "developer":
                self._read_system(message)
            case "user":
                parts = self._content(message)
                self.messages.append(Message(role="user", parts=tuple(parts), name=message.text("name")))
            case "assistant":
                self._read_assistant(message)
            case "tool" | "function":
                self._read_result(message, is_legacy=role == "function")
            case _:
                raise RequestError(
                    f"{message.at('role')}: expected system, developer, user, assistant or tool, got {role!r}",
                    parameter=message.at("role"),
                )
        message.collect_rest(self._foreign)

    def _read_system(self, message: Fields) -> None:
        parts = self._content(message)
        texts = [part for part in parts if isinstance(part, Text)]
        if len(texts) != len(parts):
            raise RequestError(f"{message.at('content')}: expected text only", parameter=message.at("content"))
        if self.messages:
            self.messages.append(Message(role="system", parts=tuple(texts), name=message.text("name")))
        else:
            self.system += texts

    def _read_assistant(self, message: Fields) -> None:
        parts: list[Part] = []
        thought = message.take("reasoning_content") or message.take("reasoning")
        if isinstance(thought, str) and thought:
            parts.append(Reasoning(text=thought))
        parts += [part for part in self._content(message) if not (isinstance(part, Text) and not part.text)]
        if refusal := message.text("refusal"):
            parts.append(Refusal(text=refusal))
        for index, item in enumerate(message.array("tool_calls")):
            parts.append(self._read_call(item, f"{message.at('tool_calls')}.{index}"))
        if (legacy := message.inner("function_call")) is not None:
            call_id = f"call_legacy_{len(self.messages)}"
            call = _call(legacy, call_id)
            self._names[call_id], self._legacy[call.name] = call.name, call_id
            parts.append(call)
        self.messages.append(Message(role="assistant", parts=tuple(parts), name=message.text("name")))

    def _read_call(self, item: Any, path: str) -> Part:
        entry = Fields(item, path)
        call_id, kind = entry.required_text("id"), entry.text("type") or "function"
        function = entry.inner("function")
        if function is None:
            return Opaque(wire=Wire.OPENAI_CHAT, kind=kind, raw=item)
        call = _call(function, call_id, google_signature(entry.take("extra_content")))
        self._names[call_id] = call.name
        function.collect_rest(self._foreign)
        entry.collect_rest(self._foreign)
        return call

    def _read_result(self, message: Fields, *, is_legacy: bool) -> None:
        if is_legacy:
            name: str | None = message.required_text("name")
            call_id = self._legacy.get(name or "", f"call_legacy_{name}")
        else:
            call_id, name = message.required_text("tool_call_id"), message.text("name")
        cache = read_cache(message)
        content = self._content(message)
        kept = tuple(part for part in content if isinstance(part, Text | Media))
        if len(kept) != len(content):
            raise RequestError(f"{message.at('content')}: expected text", parameter=message.at("content"))
        if len(kept) == 1 and isinstance(kept[0], Text) and not kept[0].text:
            kept = ()
        result = ToolResult(call_id=call_id, name=name or self._names.get(call_id), content=kept, cache=cache)
        last = self.messages[-1] if self.messages else None
        if last is not None and last.role == "user" and _has_results_only(last):
            self.messages[-1] = Message(role="user", parts=(*last.parts, result))
        else:
            self.messages.append(Message(role="user", parts=(result,)))

    def _content(self, message: Fields) -> list[Part]:
        value = message.take("content")
        if value is None:
            return []
        if isinstance(value, str):
            return [Text(text=value, cache=read_cache(message))]
        if not isinstance(value, list):
            raise RequestError(
                f"{message.at('content')}: expected a string or an array of parts", parameter=message.at("content")
            )
        return [self._part(item, f"{message.at('content')}.{index}") for index, item in enumerate(value)]

    def _part(self, item: Any, path: str) -> Part:
        fields = Fields(item, path)
        kind = fields.required_text("type")
        part: Part
        match kind:
            case "text" | "input_text" | "output_text":
                part = Text(text=fields.required_text("text"), cache=read_cache(fields))
            case "refusal":
                part = Refusal(text=fields.required_text("refusal"))
            case "image_url" | "video_url":
                part = _read_url(fields, kind)
            case "input_audio":
                part = audio_media(_inner(fields, "input_audio"))
            case "file":
                part = file_media(_inner(fields, "file"), read_cache(fields))
            case _:
                return Opaque(wire=Wire.OPENAI_CHAT, kind=kind, raw=item)
        fields.collect_rest(self._foreign)
        return part


def _has_results_only(message: Message) -> bool:
    return bool(message.parts) and all(isinstance(part, ToolResult) for part in message.parts)


def _call(function: Fields, call_id: str, signature: str | None = None) -> ToolCall:
    arguments = function.text("arguments") or "{}"
    return ToolCall(id=call_id, name=function.required_text("name"), arguments=arguments, signature=signature)


def _read_url(fields: Fields, kind: str) -> Media:
    value = fields.take(kind)
    inner = Fields({"url": value} if isinstance(value, str) else value, fields.at(kind))
    return url_media(
        "image" if kind == "image_url" else "video",
        inner.required_text("url"),
        inner.at("url"),
        detail=inner.text("detail"),
        cache=read_cache(fields),
    )


def _inner(fields: Fields, name: str) -> Fields:
    inner = fields.inner(name)
    if inner is None:
        raise RequestError(f"{fields.at(name)}: this field is required", parameter=fields.at(name))
    return inner
