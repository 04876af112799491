"""Anthropic Messages replies, read: a stream's events and whole messages into neutral events.

Writing them is ``anthropic_encoder``. The hot path is one text delta: one typed decode, one event.
Tolerant, because compatible vendors leave things out or send null: only malformed JSON and wrong types are errors.
Shapes: the vendor's SDK, ``anthropic.types.raw_message_stream_event`` and ``message``.
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
    PartStarted,
    Started,
    Unknown,
    UsageReported,
)
from nightkeep.core.messages import Opaque, Reasoning, StopReason, Text, ToolCall, Usage
from nightkeep.models.wire.anthropic_errors import STATUS_BY_TYPE
from nightkeep.models.wire.base import Wire
from nightkeep.models.wire.shape import json_object_text

__all__ = ["STOP_REASONS", "AnthropicDecoder", "UsageCount"]

STOP_REASONS: dict[str, StopReason] = {
    "end_turn": StopReason.END,
    "max_tokens": StopReason.MAX_TOKENS,
    "stop_sequence": StopReason.STOP_SEQUENCE,
    "tool_use": StopReason.TOOL_CALLS,
    "refusal": StopReason.REFUSAL,
    "pause_turn": StopReason.PAUSE,
    "model_context_window_exceeded": StopReason.CONTEXT_FULL,
}
"""The vendor's stop reasons; any other is OTHER with the vendor's word beside it."""


class _Tolerant(msgspec.Struct, gc=False):
    """Base of what is read from the wire: unknown fields are passed over."""


class _CacheCreation(_Tolerant):
    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class _OutputDetails(_Tolerant):
    thinking_tokens: int | None = None


class UsageCount(_Tolerant):
    """Tokens as this wire counts them: cache classes beside the input, thinking inside the output."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: _CacheCreation | None = None
    output_tokens_details: _OutputDetails | None = None

    def merged(self, newer: UsageCount) -> UsageCount:
        """Cumulative counts: what the newer one says holds, what it leaves out stays."""
        fields = {name: getattr(newer, name) for name in self.__struct_fields__}
        return msgspec.structs.replace(self, **{name: value for name, value in fields.items() if value is not None})

    def neutral(self) -> Usage:
        """The same tokens in disjoint classes; cache writes of unknown lifetime count as five minutes."""
        split = self.cache_creation
        written = self.cache_creation_input_tokens
        hour = (split.ephemeral_1h_input_tokens or 0) if split else 0
        if written is None:
            written = ((split.ephemeral_5m_input_tokens or 0) if split else 0) + hour
        thought = (self.output_tokens_details.thinking_tokens or 0) if self.output_tokens_details else 0
        return Usage(
            input=self.input_tokens or 0,
            cache_read=self.cache_read_input_tokens or 0,
            cache_write_5m=max(0, written - hour),
            cache_write_1h=hour,
            output=max(0, (self.output_tokens or 0) - thought),
            reasoning=thought,
        )


class _Message(_Tolerant):
    id: str | None = None
    model: str | None = None
    content: list[dict[str, Any]] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None
    usage: UsageCount | None = None
    type: str | None = None
    error: dict[str, Any] | None = None


class _Delta(_Tolerant):
    type: str | None = None
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None


class _StreamEvent(_Tolerant):
    type: str | None = None
    index: int | None = None
    delta: _Delta | None = None
    content_block: dict[str, Any] | None = None
    message: _Message | None = None
    usage: UsageCount | None = None
    error: dict[str, Any] | None = None


_decode_event = msgspec.json.Decoder(_StreamEvent).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_decode_any = msgspec.json.Decoder(dict[str, Any]).decode


class _OpenBlock:
    """What a block has shown so far, where its end must say more than its deltas did."""

    __slots__ = ("has_input", "index", "input", "kind", "pieces", "raw", "signature")

    def __init__(self, index: int, raw: dict[str, Any]) -> None:
        self.index = index
        self.raw = raw
        self.kind = str(raw.get("type"))
        self.signature: str | None = None
        self.input = raw.get("input")
        self.has_input = False
        self.pieces: list[str] = []


class AnthropicDecoder:
    """Reads one reply."""

    def __init__(self) -> None:
        self._usage = UsageCount()
        self._open: dict[int, _OpenBlock] = {}

    def feed(self, data: bytes) -> list[Event]:
        """Read the payload of one server-sent event."""
        try:
            event = _decode_event(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"not an event of {Wire.ANTHROPIC_MESSAGES}: {error}") from error
        delta = event.delta
        if event.type == "content_block_delta" and delta is not None and delta.type == "text_delta" and delta.text:
            return [PartDelta(event.index or 0, delta.text)]
        return self._read(event, data)

    def _read(self, event: _StreamEvent, data: bytes) -> list[Event]:
        """Everything but the commonest event."""
        match event.type:
            case "content_block_delta":
                return self._delta(event, data)
            case "content_block_start":
                return self._block_started(event.index or 0, event.content_block or {})
            case "content_block_stop":
                return self._block_ended(event.index or 0)
            case "message_start":
                return self._started(event.message or _Message())
            case "message_delta":
                return self._finished(event.delta or _Delta(), event.usage)
            case "message_stop":
                return [Ended()]
            case "ping":
                return []
            case "error":
                return [_failed(event.error or {})]
            case kind:
                return [Unknown(kind or "", _decode_any(data))]

    def whole(self, body: bytes) -> list[Event]:
        """Read a whole message; an error object becomes ``Failed``."""
        try:
            message = _decode_message(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"not a message of {Wire.ANTHROPIC_MESSAGES}: {error}") from error
        if message.type == "error" or (message.error and message.content is None):
            return [_failed(message.error or {})]
        events = self._started(message)
        for index, block in enumerate(message.content or []):
            events += self._block_started(index, block)
            events += self._block_ended(index)
        ending = _Delta(
            stop_reason=message.stop_reason, stop_sequence=message.stop_sequence, stop_details=message.stop_details
        )
        events += self._finished(ending, None)
        events.append(Ended())
        return events

    def close(self) -> list[Event]:
        """The end of the bytes says nothing here: ``message_stop`` is the end mark."""
        return []

    def _started(self, message: _Message) -> list[Event]:
        events: list[Event] = [Started(message.id or "", message.model or "")]
        if message.usage is not None:
            self._usage = message.usage
            events.append(UsageReported(message.usage.neutral()))
        return events

    def _block_started(self, index: int, raw: dict[str, Any]) -> list[Event]:
        block = self._open[index] = _OpenBlock(index, raw)
        match block.kind:
            case "text":
                citations = tuple(item for item in raw.get("citations") or () if isinstance(item, dict))
                known = Text(text="", citations=citations) if citations else None
                return _begun(PartStarted(index, "text", known), raw.get("text"))
            case "thinking":
                block.signature = raw.get("signature") or None
                return _begun(PartStarted(index, "reasoning", Reasoning()), raw.get("thinking"))
            case "redacted_thinking":
                return [PartStarted(index, "reasoning", Reasoning(encrypted=str(raw.get("data") or "")))]
            case "tool_use":
                call = ToolCall(id=str(raw.get("id") or ""), name=str(raw.get("name") or ""), arguments="")
                return [PartStarted(index, "tool_call", call)]
            case _:
                return []

    def _delta(self, event: _StreamEvent, data: bytes) -> list[Event]:
        delta, index = event.delta or _Delta(), event.index or 0
        block = self._open.get(index)
        if delta.type == "input_json_delta":
            if block is not None and delta.partial_json:
                block.has_input = True
                if block.kind != "tool_use":
                    block.pieces.append(delta.partial_json)
                    return []
            return [PartDelta(index, delta.partial_json)] if delta.partial_json else []
        if delta.type == "thinking_delta":
            return [PartDelta(index, delta.thinking)] if delta.thinking else []
        if delta.type == "signature_delta":
            if block is not None:
                block.signature = delta.signature
            return []
        if delta.type == "text_delta":
            return []
        return [Unknown(delta.type or "", _decode_any(data))]

    def _block_ended(self, index: int) -> list[Event]:
        block = self._open.pop(index, None)
        if block is None:
            return []
        if block.kind == "tool_use" and block.input and not block.has_input:
            return [PartDelta(index, json_object_text(block.input)), PartEnded(index)]
        if block.kind in ("text", "thinking", "redacted_thinking", "tool_use"):
            return [PartEnded(index, block.signature)]
        raw = block.raw
        if block.pieces:
            raw = {**raw, "input": _parsed("".join(block.pieces))}
        part = Opaque(wire=Wire.ANTHROPIC_MESSAGES, kind=block.kind, raw=raw)
        return [PartStarted(index, "opaque", part), PartEnded(index)]

    def _finished(self, delta: _Delta, usage: UsageCount | None) -> list[Event]:
        events: list[Event] = []
        if usage is not None:
            self._usage = self._usage.merged(usage)
            events.append(UsageReported(self._usage.neutral()))
        word = delta.stop_reason
        if word is None:
            return events
        stop = STOP_REASONS.get(word, StopReason.OTHER)
        detail: str | None = None
        if stop is StopReason.OTHER:
            detail = word
        elif stop is StopReason.STOP_SEQUENCE:
            detail = delta.stop_sequence
        elif stop is StopReason.REFUSAL and delta.stop_details:
            detail = delta.stop_details.get("category") or delta.stop_details.get("explanation")
        events.append(Finished(stop, detail))
        return events


def _begun(start: PartStarted, text: Any) -> list[Event]:
    return [start, PartDelta(start.index, text)] if isinstance(text, str) and text else [start]


def _parsed(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _failed(error: dict[str, Any]) -> Failed:
    kind = str(error.get("type") or "api_error")
    return Failed(kind, str(error.get("message") or ""), STATUS_BY_TYPE.get(kind))
