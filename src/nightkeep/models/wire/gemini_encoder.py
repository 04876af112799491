"""Gemini replies, written: neutral events as chunks of ``streamGenerateContent?alt=sse`` or a whole reply.

Reading them is ``gemini_reply``. A function call is written once its arguments are whole, since this wire has
no pieces of them; the last chunk carries the finish reason and the usage.
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
    UsageReported,
    collect_reply,
)
from nightkeep.core.messages import Media, Opaque, Part, Reasoning, Refusal, StopReason, Text, ToolCall, Usage
from nightkeep.models.wire.base import Wire, WireError
from nightkeep.models.wire.gemini_errors import error_object
from nightkeep.models.wire.gemini_parts import pack_signature
from nightkeep.models.wire.gemini_reply import STOP_REASONS
from nightkeep.models.wire.shape import encode_json
from nightkeep.models.wire.signatures import tag_signature

__all__ = ["GeminiEncoder"]

_FINISH_WORDS: dict[StopReason, str] = {
    StopReason.END: "STOP",
    StopReason.STOP_SEQUENCE: "STOP",
    StopReason.TOOL_CALLS: "STOP",
    StopReason.MAX_TOKENS: "MAX_TOKENS",
    StopReason.CONTEXT_FULL: "MAX_TOKENS",
    StopReason.REFUSAL: "SAFETY",
    StopReason.MALFORMED_CALL: "MALFORMED_FUNCTION_CALL",
}
"""PAUSE and OTHER are said as OTHER with a ``finishMessage``."""

_STATUS_KINDS = {
    400: "invalid_request",
    401: "authentication",
    429: "rate_limited",
    503: "overloaded",
    529: "overloaded",
}


class GeminiEncoder:
    """Writes one reply under the model name that the client asked for."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._started = Started("", model)
        self._usage: Usage | None = None
        self._finished: Finished | None = None
        self._open: dict[int, tuple[PartKind, Part | None, list[str]]] = {}
        self._has_calls = False
        self._tail = b""

    def feed(self, event: Event) -> bytes:
        """The server-sent events for one neutral event."""
        match event:
            case PartDelta(index=index, text=text):
                return self._delta(index, text)
            case Started():
                self._started = event
                self._tail = b',"modelVersion":%s,"responseId":%s}\r\n\r\n' % (
                    encode_json(self._model),
                    encode_json(event.id),
                )
                return b""
            case UsageReported(usage=usage):
                self._usage = usage
                return b""
            case Finished():
                self._finished = event
                return b""
            case PartStarted(index=index, kind=kind, part=part):
                self._open[index] = (kind, part, [])
                return b""
            case PartEnded():
                return self._end_part(event)
            case Ended():
                return self._end()
            case Failed(code=code, message=message, status=status):
                word = _STATUS_KINDS.get(status or 500, "api_error")
                return self.fail(WireError(status=status or 500, code=code, message=message, kind=word))
            case _:
                return b""

    def whole(self, events: list[Event]) -> bytes:
        """The body of a whole reply."""
        reply = collect_reply(events)
        self._started = Started(reply.id, reply.model)
        parts = [written for part in reply.parts for written in _parts(part)]
        return encode_json(self._response(parts, Finished(reply.stop, reply.stop_detail), reply.usage))

    def fail(self, error: WireError) -> bytes:
        """The error chunk that the SDK raises from."""
        return b"data: %s\r\n\r\n" % encode_json(error_object(error))

    def _delta(self, index: int, text: str) -> bytes:
        opened = self._open.get(index)
        if opened is None or not text:
            return b""
        kind, _, pieces = opened
        if kind == "tool_call":
            pieces.append(text)
            return b""
        thought = b',"thought":true' if kind == "reasoning" else b""
        return b"".join((_TEXT_HEAD, encode_json(text), thought, _TEXT_FOOT, self._tail))

    def _end_part(self, event: PartEnded) -> bytes:
        opened = self._open.pop(event.index, None)
        if opened is None:
            return b""
        kind, part, pieces = opened
        if kind == "tool_call" and isinstance(part, ToolCall):
            call = msgspec.structs.replace(part, arguments="".join(pieces) or part.arguments)
            return self._chunk(_parts(call))
        if kind == "reasoning":
            encrypted = event.encrypted or (part.encrypted if isinstance(part, Reasoning) else None)
            return self._chunk(_signed_thought("", event.signature, encrypted))
        if kind == "opaque" and part is not None:
            return self._chunk(_parts(part))
        return b""

    def _chunk(self, parts: list[dict[str, Any]]) -> bytes:
        if not parts:
            return b""
        return b"data: %s\r\n\r\n" % encode_json(self._response(parts, None, None))

    def _end(self) -> bytes:
        out = b"".join(self._end_part(PartEnded(index)) for index in list(self._open))
        last = self._response([{"text": ""}], self._finished or Finished(StopReason.END), self._usage)
        return out + b"data: %s\r\n\r\n" % encode_json(last)

    def _response(self, parts: list[dict[str, Any]], end: Finished | None, usage: Usage | None) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}}
        if end is not None:
            candidate |= _ending(end)
        response: dict[str, Any] = {"candidates": [candidate | {"index": 0}]}
        if usage is not None:
            response["usageMetadata"] = _usage(usage)
        return response | {"modelVersion": self._model, "responseId": self._started.id}


_TEXT_HEAD = b'data: {"candidates":[{"content":{"parts":[{"text":'
_TEXT_FOOT = b'}],"role":"model"},"index":0}]'


def _ending(finished: Finished) -> dict[str, Any]:
    detail = finished.detail
    if detail in STOP_REASONS and STOP_REASONS[detail] is finished.stop:
        return {"finishReason": detail}
    word = _FINISH_WORDS.get(finished.stop, "OTHER")
    message = detail or (str(finished.stop) if word == "OTHER" else None)
    return {"finishReason": word} | ({"finishMessage": message} if message and word != "STOP" else {})


def _usage(usage: Usage) -> dict[str, Any]:
    counts: dict[str, Any] = {"promptTokenCount": usage.total_input, "candidatesTokenCount": usage.output}
    if usage.cache_read:
        counts["cachedContentTokenCount"] = usage.cache_read
    if usage.reasoning:
        counts["thoughtsTokenCount"] = usage.reasoning
    return counts | {"totalTokenCount": usage.total}


def _signed_thought(text: str, signature: str | None, encrypted: str | None) -> list[dict[str, Any]]:
    tagged = None
    if signature:
        tagged = tag_signature(Wire.ANTHROPIC_MESSAGES, signature)
    elif encrypted:
        tagged = tag_signature(Wire.OPENAI_RESPONSES, encrypted)
    if not text and tagged is None:
        return []
    return [{"text": text, "thought": True} | ({"thoughtSignature": pack_signature(tagged)} if tagged else {})]


def _parts(part: Part) -> list[dict[str, Any]]:
    """A whole part as this wire's parts; none for what only another wire can say."""
    match part:
        case Text(text=text) | Refusal(text=text):
            return [{"text": text}]
        case Reasoning():
            return _signed_thought(part.text, part.signature, part.encrypted)
        case ToolCall():
            return [{"functionCall": {"id": part.id, "name": part.name, "args": _arguments(part.arguments)}}]
        case Media(data=str()):
            return [{"inlineData": {"mimeType": part.media_type, "data": part.data}}]
        case Opaque(wire=wire, raw=raw) if wire == Wire.GEMINI:
            return [raw]
        case _:
            return []


def _arguments(text: str) -> Any:
    """Arguments as an object; what the model wrote malformed is kept as text under a name that says so."""
    try:
        value = msgspec.json.decode(text or "{}")
    except msgspec.DecodeError:
        return {"malformed_arguments": text}
    return msgspec.Raw((text or "{}").encode()) if isinstance(value, dict) else {"malformed_arguments": text}
