"""OpenAI Responses replies, read: a stream's events and whole response objects into neutral events.

Writing them is ``openai_responses_encoder``. The hot path is one
text delta: one typed decode, one event. Tolerant, because compatible vendors leave events out: what a later ``done``
says and no delta said is caught up with. Shapes: ``openai.types.responses.response_stream_event``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nightkeep.core.events import (
    Ended,
    Event,
    Failed,
    Finished,
    PartDelta,
    PartEnded,
    PartKind,
    PartStarted,
    Started,
    Unknown,
    UsageReported,
)
from nightkeep.core.messages import Opaque, Part, Reasoning, StopReason, ToolCall
from nightkeep.models.wire.base import Wire
from nightkeep.models.wire.openai_errors import failed
from nightkeep.models.wire.openai_usage import UsageCount

__all__ = ["OpenaiResponsesDecoder"]

Number = int | float | None


class _Tolerant(msgspec.Struct, gc=False):
    """Base of what is read from the wire: unknown fields are passed over."""


class _Response(_Tolerant):
    id: str | None = None
    model: str | None = None
    created_at: Number = None
    status: str | None = None
    error: dict[str, Any] | str | None = None
    incomplete_details: dict[str, Any] | None = None
    output: list[dict[str, Any]] | None = None
    usage: UsageCount | None = None


class _StreamEvent(_Tolerant):
    type: str | None = None
    delta: Any = None
    output_index: Number = None
    content_index: Number = None
    summary_index: Number = None
    item: dict[str, Any] | None = None
    part: dict[str, Any] | None = None
    text: str | None = None
    refusal: str | None = None
    arguments: str | None = None
    response: _Response | None = None
    error: dict[str, Any] | str | None = None
    code: str | int | None = None
    message: str | None = None


_decode_event = msgspec.json.Decoder(_StreamEvent).decode
_decode_response = msgspec.json.Decoder(_Response).decode
_decode_any = msgspec.json.Decoder(dict[str, Any]).decode
_INCOMPLETE = {"max_output_tokens": StopReason.MAX_TOKENS, "content_filter": StopReason.REFUSAL}
_CONTENT_KINDS: dict[str, PartKind] = {"output_text": "text", "refusal": "refusal"}
_TEXT_DELTAS: dict[str, PartKind] = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.function_call_arguments.delta": "tool_call",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.reasoning_text.delta": "reasoning",
}
_TEXT_DONES = {name.removesuffix("delta") + "done": kind for name, kind in _TEXT_DELTAS.items()}
_QUIET = frozenset({"response.in_progress", "response.queued", "keepalive"})
Key = tuple[int, int]
"""Which part: the item's place in the output, and the content's place in it (-1: the item itself)."""


class OpenaiResponsesDecoder:
    """Reads one reply."""

    def __init__(self) -> None:
        self._is_started = False
        self._is_ended = False
        self._has_calls = False
        self._has_refused = False
        self._count = 0
        self._open: dict[Key, int] = {}
        self._said: set[int] = set()  # parts that have had a delta
        self._spoken: set[int] = set()  # items that have had a part, by their place
        self._done: set[int] = set()  # items that are whole, by their place

    def feed(self, data: bytes) -> list[Event]:
        """Read the payload of one server-sent event."""
        if data == b"[DONE]":
            return []
        try:
            event = _decode_event(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"not an event of {Wire.OPENAI_RESPONSES}: {error}") from error
        kind = event.type or ""
        if kind == "response.output_text.delta":
            index = self._open.get((event.output_index or 0, event.content_index or 0))  # type: ignore[arg-type]
            if index is not None and index in self._said and type(event.delta) is str:
                return [PartDelta(index, event.delta)]
        return self._read(kind, event, data)

    def whole(self, body: bytes) -> list[Event]:
        """Read a whole response object; one that failed becomes ``Failed``."""
        try:
            response = _decode_response(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"not a response of {Wire.OPENAI_RESPONSES}: {error}") from error
        if response.error:
            return [failed(response.error)]
        if response.output is None:
            raise ValueError(f"not a response of {Wire.OPENAI_RESPONSES}: it has no output")
        events = self._started(response)
        for place, item in enumerate(response.output):
            events += self._item_added(place, item) + self._item_done(place, item)
        return [*events, *self._ended(response)]

    def close(self) -> list[Event]:
        """The end of the bytes says nothing here: ``response.completed`` and its like are the end mark."""
        return []

    def _read(self, kind: str, event: _StreamEvent, data: bytes) -> list[Event]:
        place = int(event.output_index or 0)
        if (word := _TEXT_DELTAS.get(kind)) is not None:
            return self._say(_key(word, event), word, event.delta)
        if (word := _TEXT_DONES.get(kind)) is not None:
            said = {"refusal": event.refusal, "tool_call": event.arguments}.get(word, event.text)
            return [] if event.summary_index else self._catch_up(_key(word, event), word, said)
        if kind.startswith("response.reasoning_summary_part."):
            is_next = kind.endswith(".added") and self._open.get((place, -1)) in self._said
            return self._say((place, -1), "reasoning", "\n\n") if is_next else []
        match kind:
            case "response.output_item.added":
                return self._item_added(place, event.item or {})
            case "response.output_item.done":
                return self._item_done(place, event.item or {})
            case "response.content_part.added":
                return self._content_added(_key("text", event), event.part or {})
            case "response.content_part.done":
                return self._content_done(_key("text", event), event.part or {})
            case _:
                return self._read_response(kind, event, data)

    def _read_response(self, kind: str, event: _StreamEvent, data: bytes) -> list[Event]:
        """The events that are about the response itself."""
        match kind:
            case "response.created":
                return self._started(event.response or _Response())
            case "response.completed" | "response.incomplete" | "response.done":
                return self._caught_up(event.response or _Response(status=kind.rpartition(".")[2]))
            case "response.failed" | "response.cancelled":
                return [_failure(event.response)]
            case "error":
                return [failed(event.error or {"code": event.code, "message": event.message})]
            case _:
                return [] if kind in _QUIET else [Unknown(kind, _decode_any(data))]

    def _started(self, response: _Response) -> list[Event]:
        if self._is_started:
            return []
        self._is_started = True
        created = None if response.created_at is None else int(response.created_at)
        return [Started(response.id or "", response.model or "", created)]

    def _begin(self, key: Key, kind: PartKind, part: Part | None = None) -> list[Event]:
        index = self._open[key] = self._count
        self._count += 1
        self._spoken.add(key[0])
        return [PartStarted(index, kind, part)]

    def _say(self, key: Key, kind: PartKind, text: Any) -> list[Event]:
        if not isinstance(text, str) or not text:
            return []
        events = [] if key in self._open else self._begin(key, kind)
        self._has_refused = self._has_refused or kind == "refusal"
        index = self._open[key]
        self._said.add(index)
        return [*events, PartDelta(index, text)]

    def _catch_up(self, key: Key, kind: PartKind, text: str | None) -> list[Event]:
        """Say what a ``done`` says, unless deltas said it already."""
        if self._open.get(key) in self._said or key[0] in self._done:
            return []
        return self._say(key, kind, text)

    def _end(self, key: Key, encrypted: str | None = None) -> list[Event]:
        index = self._open.pop(key, None)
        return [] if index is None else [PartEnded(index, None, encrypted)]

    def _item_added(self, place: int, item: dict[str, Any]) -> list[Event]:
        match item.get("type"):
            case "function_call":
                self._has_calls = True
                call_id = str(item.get("call_id") or item.get("id") or "")
                call = ToolCall(id=call_id, name=str(item.get("name") or ""), arguments="")
                return self._begin((place, -1), "tool_call", call)
            case "reasoning":
                return self._begin((place, -1), "reasoning", Reasoning(id=_text(item.get("id"))))
            case _:
                return []

    def _content_added(self, key: Key, part: dict[str, Any]) -> list[Event]:
        kind = _CONTENT_KINDS.get(str(part.get("type")))
        if kind is None or key in self._open:
            return []
        text = part.get("refusal" if kind == "refusal" else "text")
        return self._begin(key, kind) + self._say(key, kind, text)

    def _item_done(self, place: int, item: dict[str, Any]) -> list[Event]:
        kind = item.get("type")
        if place in self._done:
            return []
        events: list[Event] = []
        if kind in ("function_call", "reasoning") and (place, -1) not in self._open:
            events += self._item_added(place, item)
        match kind:
            case "message":
                events += self._message_done(place, item)
            case "function_call":
                events += self._catch_up((place, -1), "tool_call", _text(item.get("arguments")))
                events += self._end((place, -1))
            case "reasoning":
                events += self._catch_up((place, -1), "reasoning", _thought(item))
                events += self._end((place, -1), _text(item.get("encrypted_content")))
            case _:
                part = Opaque(wire=Wire.OPENAI_RESPONSES, kind=str(kind or "item"), raw=item)
                self._has_calls = self._has_calls or kind in ("custom_tool_call", "local_shell_call")
                events += self._begin((place, -1), "opaque", part) + self._end((place, -1))
        self._done.add(place)
        return events

    def _content_done(self, key: Key, part: dict[str, Any]) -> list[Event]:
        kind = _CONTENT_KINDS.get(str(part.get("type")))
        if kind is None:
            return []
        return self._catch_up(key, kind, _text(part.get("refusal" if kind == "refusal" else "text"))) + self._end(key)

    def _message_done(self, place: int, item: dict[str, Any]) -> list[Event]:
        was_spoken = place in self._spoken
        events: list[Event] = []
        for content, part in enumerate(item.get("content") or ()):
            if not was_spoken:
                events += self._content_added((place, content), part)
            if (place, content) in self._open:
                events += self._content_done((place, content), part)
        for key in [key for key in self._open if key[0] == place]:
            events += self._end(key)
        return events

    def _caught_up(self, response: _Response) -> list[Event]:
        """The end, with whatever items only the final object told of."""
        events = self._started(response)
        for place, item in enumerate(response.output or ()):
            if place not in self._done:
                events += self._item_done(place, item)
        return events + self._ended(response)

    def _ended(self, response: _Response) -> list[Event]:
        if self._is_ended:
            return []
        self._is_ended = True
        events: list[Event] = [PartEnded(index) for index in self._open.values()]
        self._open.clear()
        if response.usage is not None:
            events.append(UsageReported(response.usage.neutral()))
        return [*events, self._finished(response), Ended()]

    def _finished(self, response: _Response) -> Finished:
        if response.status == "incomplete":
            reason = str((response.incomplete_details or {}).get("reason") or "incomplete")
            stop = _INCOMPLETE.get(reason, StopReason.OTHER)
            return Finished(stop, reason if stop is StopReason.OTHER else None)
        if response.status not in (None, "completed"):
            return Finished(StopReason.OTHER, response.status)
        if self._has_calls:
            return Finished(StopReason.TOOL_CALLS)
        return Finished(StopReason.REFUSAL if self._has_refused else StopReason.END)


def _key(kind: PartKind, event: _StreamEvent) -> Key:
    is_content = kind in ("text", "refusal")
    return int(event.output_index or 0), int(event.content_index or 0) if is_content else -1


def _failure(response: _Response | None) -> Failed:
    if response is not None and response.error:
        return failed(response.error)
    status = (response.status if response is not None else None) or "failed"
    return Failed(status, f"the response is {status}")


def _thought(item: dict[str, Any]) -> str:
    """The summary's paragraphs, else the reasoning text itself (open-weight models)."""
    pieces = item.get("summary") or item.get("content") or ()
    return "\n\n".join(str(piece.get("text") or "") for piece in pieces if isinstance(piece, dict))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
