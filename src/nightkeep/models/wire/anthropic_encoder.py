"""Anthropic Messages replies, written: neutral events as the server-sent events or the whole message of this wire.

Reading them is ``anthropic_reply``. ``message_start`` waits for the first event after ``Started`` and
``message_delta`` for the end, because other wires tell usage at other moments than this one.
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
from nightkeep.core.messages import Opaque, Part, Reasoning, Refusal, StopReason, Text, ToolCall, Usage
from nightkeep.models.wire.anthropic_errors import error_object
from nightkeep.models.wire.anthropic_reply import STOP_REASONS
from nightkeep.models.wire.base import Wire, WireError
from nightkeep.models.wire.shape import encode_json
from nightkeep.models.wire.signatures import tag_signature

__all__ = ["AnthropicEncoder"]

_STOP_WORDS = {stop: word for word, stop in STOP_REASONS.items()} | {StopReason.MALFORMED_CALL: "malformed_tool_use"}
_DELTAS: dict[PartKind, bytes] = {
    "text": b'"delta":{"type":"text_delta","text":',
    "refusal": b'"delta":{"type":"text_delta","text":',
    "reasoning": b'"delta":{"type":"thinking_delta","thinking":',
    "tool_call": b'"delta":{"type":"input_json_delta","partial_json":',
}
_ERROR_KINDS = {429: "rate_limited", 503: "overloaded", 529: "overloaded", 504: "timeout", 400: "invalid_request"}


class AnthropicEncoder:
    """Writes one reply under the model name that the client asked for."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._started = Started("", model)
        self._is_begun = False
        self._usage = Usage()
        self._finished: Finished | None = None
        self._blocks: dict[int, tuple[int, PartKind, bytes]] = {}
        self._count = 0

    def feed(self, event: Event) -> bytes:
        """The server-sent events for one neutral event."""
        if type(event) is PartDelta:
            block = self._blocks.get(event.index)
            return b"".join((block[2], encode_json(event.text), b"}}\n\n")) if block else b""
        match event:
            case Started():
                self._started = event
                return b""
            case UsageReported(usage=usage):
                self._usage = usage
                return b""
            case Finished():
                self._finished = event
                return self._begin()
            case PartStarted():
                return self._begin() + self._start_block(event)
            case PartEnded():
                return self._end_block(event)
            case Ended():
                return self._begin() + self._end()
            case Failed(code=code, message=message, status=status):
                kind = _ERROR_KINDS.get(status or 0, "api_error")
                return self.fail(WireError(status=status or 500, code=code, message=message, kind=kind))
            case _:
                return b""

    def whole(self, events: list[Event]) -> bytes:
        """The body of a whole message."""
        reply = collect_reply(events)
        blocks = [block for part in reply.parts if (block := _block(part)) is not None]
        message = self._message(reply.id, blocks, reply.usage or Usage())
        message |= _ending(Finished(reply.stop, reply.stop_detail))
        return encode_json(message)

    def fail(self, error: WireError) -> bytes:
        """The error event that the SDK raises from."""
        return _frame("error", error_object(error))

    def _begin(self) -> bytes:
        if self._is_begun:
            return b""
        self._is_begun = True
        message = self._message(self._started.id, [], self._usage) | _ENDING_NOT_YET
        return _frame("message_start", {"type": "message_start", "message": message})

    def _message(self, reply_id: str, content: list[dict[str, Any]], usage: Usage) -> dict[str, Any]:
        return {
            "id": reply_id or "msg_nightkeep",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "usage": _usage(usage),
        }

    def _start_block(self, event: PartStarted) -> bytes:
        block = _first_block(event)
        if block is None:
            return b""
        index = self._count
        self._count += 1
        prefix = b""
        if (delta := _DELTAS.get(event.kind)) is not None:
            prefix = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,%s' % (index, delta)
        self._blocks[event.index] = (index, event.kind, prefix)
        out = _frame("content_block_start", {"type": "content_block_start", "index": index, "content_block": block})
        if isinstance(event.part, ToolCall) and event.part.arguments not in ("", "{}"):
            out += prefix + encode_json(event.part.arguments) + b"}}\n\n"
        return out

    def _end_block(self, event: PartEnded) -> bytes:
        block = self._blocks.pop(event.index, None)
        if block is None:
            return b""
        out = b""
        if block[1] == "reasoning" and event.signature:
            delta = {"type": "signature_delta", "signature": tag_signature(Wire.GEMINI, event.signature)}
            out = _frame("content_block_delta", {"type": "content_block_delta", "index": block[0], "delta": delta})
        return out + _frame("content_block_stop", {"type": "content_block_stop", "index": block[0]})

    def _end(self) -> bytes:
        out = b"".join(self._end_block(PartEnded(index)) for index in list(self._blocks))
        delta = _ending(self._finished or Finished(StopReason.END))
        out += _frame("message_delta", {"type": "message_delta", "delta": delta, "usage": _usage(self._usage)})
        return out + b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


_ENDING_NOT_YET: dict[str, Any] = {"stop_reason": None, "stop_sequence": None}


def _frame(name: str, payload: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), encode_json(payload))


def _ending(finished: Finished) -> dict[str, Any]:
    word = _STOP_WORDS.get(finished.stop) or (finished.detail or "end_turn").lower()
    hit = finished.detail if finished.stop is StopReason.STOP_SEQUENCE else None
    return {"stop_reason": word, "stop_sequence": hit}


def _usage(usage: Usage) -> dict[str, Any]:
    counts: dict[str, Any] = {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write_5m + usage.cache_write_1h,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": usage.total_output,
    }
    if usage.reasoning:
        counts["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    return counts


def _first_block(event: PartStarted) -> dict[str, Any] | None:
    match event.kind:
        case "text" | "refusal":
            return {"type": "text", "text": event.part.text if isinstance(event.part, Text | Refusal) else ""}
        case "reasoning":
            known = event.part if isinstance(event.part, Reasoning) else Reasoning()
            return _thinking(known, "")
        case "tool_call":
            call = event.part if isinstance(event.part, ToolCall) else ToolCall(id="", name="", arguments="")
            return {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        case _:
            return _block(event.part) if event.part is not None else None


def _thinking(part: Reasoning, signature: str) -> dict[str, Any]:
    if part.encrypted and not part.text:
        return {"type": "redacted_thinking", "data": tag_signature(Wire.OPENAI_RESPONSES, part.encrypted)}
    return {"type": "thinking", "thinking": part.text, "signature": signature}


def _block(part: Part) -> dict[str, Any] | None:
    """A whole part as a block; None for what only another wire can say."""
    match part:
        case Text(text=text) | Refusal(text=text):
            return {"type": "text", "text": text}
        case Reasoning():
            return _thinking(part, tag_signature(Wire.GEMINI, part.signature) if part.signature else "")
        case ToolCall():
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": _input(part.arguments)}
        case Opaque(wire=wire, raw=raw) if wire == Wire.ANTHROPIC_MESSAGES:
            return raw
        case _:
            return None


def _input(arguments: str) -> Any:
    """Arguments as an object; what the model wrote malformed is kept as text under a name that says so."""
    try:
        value = msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError:
        return {"malformed_arguments": arguments}
    return msgspec.Raw((arguments or "{}").encode()) if isinstance(value, dict) else {"malformed_arguments": arguments}
