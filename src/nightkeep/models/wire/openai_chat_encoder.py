"""OpenAI Chat Completions replies, written: neutral events as chunks of a stream or as a whole completion.

Reading them is ``openai_chat_reply``. Thoughts are written as ``reasoning_content``, the name that most clients of
this wire read; the usage chunk comes only where the client asked for it (``stream_options.include_usage``).
"""

from __future__ import annotations

from typing import Any

from nightkeep.core.events import (
    Ended,
    Event,
    Failed,
    Finished,
    PartDelta,
    PartStarted,
    Started,
    UsageReported,
    collect_reply,
)
from nightkeep.core.messages import ChatRequest, Opaque, Part, Reasoning, Refusal, StopReason, Text, ToolCall, Usage
from nightkeep.models.wire.base import Wire, WireError
from nightkeep.models.wire.openai_errors import error_object
from nightkeep.models.wire.openai_usage import chat_usage
from nightkeep.models.wire.shape import encode_json
from nightkeep.models.wire.signatures import tag_signature

__all__ = ["OpenaiChatEncoder", "asks_for_usage"]

_FINISH_WORDS = {
    StopReason.END: "stop",
    StopReason.MAX_TOKENS: "length",
    StopReason.STOP_SEQUENCE: "stop",
    StopReason.TOOL_CALLS: "tool_calls",
    StopReason.REFUSAL: "content_filter",
    StopReason.PAUSE: "stop",
    StopReason.CONTEXT_FULL: "length",
    StopReason.MALFORMED_CALL: "stop",
    StopReason.OTHER: "stop",
}
"""The SDK's type knows five words; what they cannot say is ``stop``, with ours beside it (``_finish_fields``)."""
_TEXT_FIELDS = {"text": b"content", "reasoning": b"reasoning_content", "refusal": b"refusal"}
_TAIL = b'},"logprobs":null,"finish_reason":null}]}\n\n'
_STATUS_KINDS = {429: "rate_limited", 503: "overloaded", 529: "overloaded", 504: "timeout", 400: "invalid_request"}


def asks_for_usage(request: ChatRequest | None) -> bool:
    """Whether the client asked for a usage chunk at the end of its stream."""
    options = request.foreign.get("stream_options") if request is not None else None
    return isinstance(options, dict) and options.get("include_usage") is True


class OpenaiChatEncoder:
    """Writes one reply under the model name that the client asked for."""

    def __init__(self, model: str, request: ChatRequest | None = None) -> None:
        self._model = model
        self._wants_usage = asks_for_usage(request)
        self._started = Started("", model)
        self._head = b""  # every chunk's first bytes, up to its delta
        self._usage: Usage | None = None
        self._has_refused = False
        self._is_finished = False
        self._calls = 0
        self._prefixes: dict[int, tuple[bytes, bytes]] = {}

    def feed(self, event: Event) -> bytes:
        """The chunks for one neutral event."""
        if type(event) is PartDelta:
            affixes = self._prefixes.get(event.index)
            if affixes is None or not event.text:
                return b""
            return b"".join((affixes[0], encode_json(event.text), affixes[1]))
        match event:
            case Started():
                self._started = event
                return self._begin()
            case PartStarted():
                return self._begin() + self._start_part(event)
            case UsageReported(usage=usage):
                self._usage = usage
                return b""
            case Finished():
                self._is_finished = True
                return self._begin() + self._chunk(delta={}, **_finish_fields(event, self._has_refused))
            case Ended():
                return self._end()
            case Failed(code=code, message=message, status=status):
                kind = _STATUS_KINDS.get(status or 0, "api_error")
                return self.fail(WireError(status=status or 500, code=code, message=message, kind=kind))
            case _:
                return b""

    def whole(self, events: list[Event]) -> bytes:
        """The body of a whole completion."""
        reply = collect_reply(events)
        message = _message(reply.parts)
        has_refused = message["refusal"] is not None
        choice = {"index": 0, "message": message, "logprobs": None}
        choice |= _finish_fields(Finished(reply.stop, reply.stop_detail), has_refused)
        body = {
            "id": reply.id or "chatcmpl-nightkeep",
            "object": "chat.completion",
            "created": reply.created or 0,
            "model": self._model,
            "choices": [choice],
        }
        if reply.usage is not None:
            body["usage"] = chat_usage(reply.usage)
        return encode_json(body)

    def fail(self, error: WireError) -> bytes:
        """The chunk with ``error`` from which the SDK raises ``APIError``; no ``[DONE]`` follows."""
        return b"data: %s\n\n" % encode_json({"error": error_object(error)})

    def _begin(self) -> bytes:
        """The first chunk, once: it carries the role."""
        if self._head:
            return b""
        meta = encode_json(self._meta())
        self._head = b'data: %s,"choices":[{"index":0,"delta":{' % meta[:-1]
        return self._chunk(delta={"role": "assistant", "content": ""}, finish_reason=None)

    def _meta(self) -> dict[str, Any]:
        return {
            "id": self._started.id or "chatcmpl-nightkeep",
            "object": "chat.completion.chunk",
            "created": self._started.created or 0,
            "model": self._model,
        }

    def _chunk(self, **choice: Any) -> bytes:
        body = self._meta() | {"choices": [{"index": 0, "logprobs": None, **choice}]}
        return b"data: %s\n\n" % encode_json(body)

    def _start_part(self, event: PartStarted) -> bytes:
        if (field := _TEXT_FIELDS.get(event.kind)) is not None:
            self._has_refused = self._has_refused or event.kind == "refusal"
            self._prefixes[event.index] = (self._head + b'"%s":' % field, _TAIL)
            known = event.part
            text = known.text if isinstance(known, Text | Reasoning | Refusal) else ""
            return self.feed(PartDelta(event.index, text))
        if event.kind == "tool_call":
            return self._start_call(event)
        part = event.part
        if isinstance(part, Opaque) and part.wire == Wire.OPENAI_CHAT and part.kind == "custom":
            self._calls += 1
            return self._chunk(delta={"tool_calls": [{"index": self._calls - 1, **part.raw}]}, finish_reason=None)
        return b""

    def _start_call(self, event: PartStarted) -> bytes:
        call = event.part if isinstance(event.part, ToolCall) else ToolCall(id="", name="", arguments="")
        slot = self._calls
        self._calls += 1
        head = b'"tool_calls":[{"index":%d,"function":{"arguments":' % slot
        self._prefixes[event.index] = (self._head + head, b"}}]" + _TAIL)
        arguments = "" if call.arguments == "{}" else call.arguments
        function = {"name": call.name, "arguments": arguments}
        entry = {"index": slot, "id": call.id, "type": "function", "function": function, **_signed(call)}
        return self._chunk(delta={"tool_calls": [entry]}, finish_reason=None)

    def _end(self) -> bytes:
        out = self._begin()
        if not self._is_finished:
            out += self._chunk(delta={}, finish_reason="stop")
        if self._wants_usage:
            body = self._meta() | {"choices": [], "usage": chat_usage(self._usage or Usage())}
            out += b"data: %s\n\n" % encode_json(body)
        return out + b"data: [DONE]\n\n"


def _finish_fields(finished: Finished, has_refused: bool) -> dict[str, Any]:
    word = _FINISH_WORDS[finished.stop]
    if finished.stop is StopReason.REFUSAL and has_refused:
        word = "stop"  # the model's own refusal is a whole answer on this wire
    if finished.stop in (StopReason.OTHER, StopReason.PAUSE, StopReason.MALFORMED_CALL, StopReason.CONTEXT_FULL):
        return {"finish_reason": word, "native_finish_reason": finished.detail or str(finished.stop)}
    return {"finish_reason": word}


def _message(parts: tuple[Part, ...]) -> dict[str, Any]:
    texts = [part.text for part in parts if isinstance(part, Text)]
    refusals = [part.text for part in parts if isinstance(part, Refusal)]
    thoughts = [part.text for part in parts if isinstance(part, Reasoning) and part.text]
    calls = [call for part in parts if (call := _call(part)) is not None]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(texts) if texts else None,
        "refusal": "".join(refusals) if refusals else None,
    }
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _signed(call: ToolCall) -> dict[str, Any]:
    """Gemini's signature of a call, where Google's own door to this wire puts it; clients send it back there."""
    if not call.signature:
        return {}
    return {"extra_content": {"google": {"thought_signature": tag_signature(Wire.GEMINI, call.signature)}}}


def _call(part: Part) -> dict[str, Any] | None:
    match part:
        case ToolCall():
            function = {"name": part.name, "arguments": part.arguments}
            return {"id": part.id, "type": "function", "function": function, **_signed(part)}
        case Opaque(wire=Wire.OPENAI_CHAT, kind="custom"):
            return part.raw
        case _:
            return None
