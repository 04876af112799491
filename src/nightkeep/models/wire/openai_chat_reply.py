"""OpenAI Chat Completions replies, read: a stream's chunks and whole completions into neutral events.

Writing them is ``openai_chat_encoder``. The hot path is one text delta: one typed decode, one event.
Tolerant, because some twenty vendors speak dialects of this wire: nulls, missing and extra fields, floats for
integers, usage in any chunk, reasoning under three names, calls in pieces or whole, no ``[DONE]``.
Only malformed JSON and wrong types are errors. Shapes: ``openai.types.chat.chat_completion_chunk``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nightkeep.core.events import (
    Ended,
    Event,
    Finished,
    PartDelta,
    PartEnded,
    PartKind,
    PartStarted,
    Started,
    Unknown,
    UsageReported,
)
from nightkeep.core.messages import Opaque, Part, StopReason, ToolCall
from nightkeep.models.wire.base import Wire
from nightkeep.models.wire.openai_errors import failed
from nightkeep.models.wire.openai_media import google_signature
from nightkeep.models.wire.openai_usage import UsageCount
from nightkeep.models.wire.shape import json_object_text

__all__ = ["STOP_REASONS", "OpenaiChatDecoder"]

STOP_REASONS: dict[str, StopReason] = {
    "stop": StopReason.END,
    "eos": StopReason.END,  # Together
    "length": StopReason.MAX_TOKENS,
    "max_tokens": StopReason.MAX_TOKENS,
    "tool_calls": StopReason.TOOL_CALLS,
    "function_call": StopReason.TOOL_CALLS,
    "content_filter": StopReason.REFUSAL,
    "model_length": StopReason.CONTEXT_FULL,  # Mistral
}
"""The vendors' finish reasons; any other is OTHER with the vendor's word beside it."""

Number = int | float | None


class _Tolerant(msgspec.Struct, gc=False):
    """Base of what is read from the wire: unknown fields are passed over."""


class _Function(_Tolerant):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _Call(_Tolerant):
    index: Number = None
    id: str | None = None
    type: str | None = None
    function: _Function | None = None
    custom: dict[str, Any] | None = None
    extra_content: Any = None  # Google's door to this wire: the call's signature


class _Delta(_Tolerant):
    """A delta, or a whole message: both say the same fields."""

    content: str | list[Any] | None = None
    reasoning_content: str | None = None  # DeepSeek, vLLM, xAI, Moonshot
    reasoning: Any = None  # OpenRouter, Groq, newer vLLM
    tool_calls: list[_Call] | None = None
    refusal: str | None = None
    function_call: _Function | None = None
    annotations: list[dict[str, Any]] | None = None
    audio: dict[str, Any] | None = None
    images: list[dict[str, Any]] | None = None  # OpenRouter


class _Choice(_Tolerant):
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None
    index: Number = None
    stop_reason: Any = None  # vLLM: the stop sequence that was hit
    usage: UsageCount | None = None  # Moonshot


class _Groq(_Tolerant):
    usage: UsageCount | None = None
    error: str | None = None


class _Chunk(_Tolerant):
    choices: list[_Choice] | None = None
    usage: UsageCount | None = None
    error: dict[str, Any] | str | None = None
    x_groq: _Groq | None = None


class _FirstChunk(_Chunk):
    id: str | None = None
    model: str | None = None
    created: Number = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_first = msgspec.json.Decoder(_FirstChunk).decode
_decode_any = msgspec.json.Decoder(dict[str, Any]).decode
_DONE = b"[DONE]"


class OpenaiChatDecoder:
    """Reads one reply: choice 0, since only this wire can say more than one (their bytes pass through)."""

    def __init__(self) -> None:
        self._is_started = False
        self._is_finished = False
        self._is_ended = False
        self._has_refused = False
        self._has_calls = False
        self._count = 0
        self._kind: PartKind | None = None  # of the open part, where it is not a call
        self._index = 0
        self._calls: dict[int, int] = {}  # the wire's index of an open call -> ours
        self._call_ids: dict[int, str] = {}

    def feed(self, data: bytes) -> list[Event]:
        """Read the payload of one server-sent event, ``[DONE]`` included."""
        if data == _DONE or data.strip() == _DONE:
            return self._end()
        try:
            if not self._is_started:
                return self._first(_decode_first(data))
            chunk = _decode_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"not a chunk of {Wire.OPENAI_CHAT}: {error}") from error
        if self._kind == "text" and chunk.usage is None and chunk.choices is not None and len(chunk.choices) == 1:
            choice = chunk.choices[0]
            delta = choice.delta
            if delta is not None and choice.finish_reason is None and not choice.index and _is_plain(delta):
                return [PartDelta(self._index, delta.content)]  # type: ignore[arg-type]
        return self._read(chunk)

    def whole(self, body: bytes) -> list[Event]:
        """Read a whole completion; an error object becomes ``Failed``."""
        try:
            chunk = _decode_first(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"not a completion of {Wire.OPENAI_CHAT}: {error}") from error
        if chunk.error:
            return [failed(chunk.error)]
        if chunk.choices is None:
            raise ValueError(f"not a completion of {Wire.OPENAI_CHAT}: it has no choices")
        for choice in chunk.choices:
            for index, call in enumerate((choice.message and choice.message.tool_calls) or ()):
                call.index = index  # a whole message tells each call once
        events = self._first(chunk)
        if not self._is_finished:
            events += self._finish(_Choice(finish_reason="stop"))
        return [*events, *self._end()]

    def close(self) -> list[Event]:
        """The end of the bytes: a stream whose finish was seen is whole, even without ``[DONE]`` (LM Studio)."""
        return self._end() if self._is_finished else []

    def _end(self) -> list[Event]:
        if self._is_ended:
            return []
        self._is_ended = True
        return [*self._close_all(), Ended()]

    def _first(self, chunk: _FirstChunk) -> list[Event]:
        if not (chunk.id or chunk.model or chunk.choices):
            return self._read(chunk)
        self._is_started = True
        created = None if chunk.created is None else int(chunk.created)
        return [Started(chunk.id or "", chunk.model or "", created), *self._read(chunk)]

    def _read(self, chunk: _Chunk) -> list[Event]:
        events: list[Event] = []
        usage = chunk.usage
        for choice in chunk.choices or ():
            usage = usage or choice.usage
            if choice.index:
                continue
            if (delta := choice.delta or choice.message) is not None:
                events += self._delta(delta)
            if choice.finish_reason and not self._is_finished and not chunk.error:
                events += self._finish(choice)
        if chunk.x_groq is not None:
            usage = usage or chunk.x_groq.usage
            if chunk.x_groq.error:
                events.append(failed(chunk.x_groq.error))
        if usage is not None:
            events.append(UsageReported(usage.neutral()))
        if chunk.error:
            events.append(failed(chunk.error))
        return events

    def _delta(self, delta: _Delta) -> list[Event]:
        events: list[Event] = []
        thought = delta.reasoning_content or (delta.reasoning if isinstance(delta.reasoning, str) else None)
        if thought:
            events += self._text("reasoning", thought)
        if isinstance(delta.content, str):
            if delta.content:
                events += self._text("text", delta.content)
        elif delta.content:
            events += self._pieces(delta.content)
        if delta.refusal:
            self._has_refused = True
            events += self._text("refusal", delta.refusal)
        for call in delta.tool_calls or ():
            events += self._call(call)
        if delta.function_call is not None:
            events += self._call(_Call(index=0, id="", function=delta.function_call))
        for kind in ("annotations", "audio", "images"):
            if value := getattr(delta, kind):
                events.append(Unknown(kind, {kind: value}))
        return events

    def _pieces(self, content: list[Any]) -> list[Event]:
        """Content as a list of parts (Mistral's reasoning models)."""
        events: list[Event] = []
        for piece in content:
            if not isinstance(piece, dict):
                raise ValueError(f"not a chunk of {Wire.OPENAI_CHAT}: content holds a {type(piece).__name__}")
            if piece.get("type") == "thinking":
                inner = piece.get("thinking")
                texts = [inner] if isinstance(inner, str) else [str(item.get("text") or "") for item in inner or ()]
                events += self._text("reasoning", "".join(texts)) if any(texts) else []
            elif isinstance(piece.get("text"), str):
                events += self._text("text", piece["text"]) if piece["text"] else []
            else:
                events.append(Unknown(str(piece.get("type") or "content"), piece))
        return events

    def _text(self, kind: PartKind, text: str) -> list[Event]:
        if self._kind == kind:
            return [PartDelta(self._index, text)]
        events = self._close_text()
        self._index = self._open()
        self._kind = kind
        return [*events, PartStarted(self._index, kind), PartDelta(self._index, text)]

    def _open(self) -> int:
        index = self._count
        self._count += 1
        return index

    def _call(self, call: _Call) -> list[Event]:
        if call.custom is not None:
            return self._custom(call)
        function = call.function or _Function()
        slot = self._slot(call, function)
        events: list[Event] = []
        if slot not in self._calls:
            events += self._close_text()
            index = self._calls[slot] = self._open()
            call_id = call.id or f"call_{index}_{function.name or 'tool'}"
            self._call_ids[slot] = call_id
            self._has_calls = True
            signature = google_signature(call.extra_content)
            begun = ToolCall(id=call_id, name=function.name or "", arguments="", signature=signature)
            events.append(PartStarted(index, "tool_call", begun))
        arguments = function.arguments
        if isinstance(arguments, dict):
            arguments = json_object_text(arguments)
        if arguments:
            events.append(PartDelta(self._calls[slot], arguments))
        return events

    def _slot(self, call: _Call, function: _Function) -> int:
        """Which call a delta belongs to. Without an index: a new id begins a call, else it goes on with the last."""
        last = max(self._calls, default=-1)
        if call.index is None:
            is_new = bool(call.id) and call.id not in self._call_ids.values() and function.name is not None
            if call.id and not is_new:
                return next((slot for slot, known in self._call_ids.items() if known == call.id), last + 1)
            return last + 1 if is_new or last < 0 else last
        slot = int(call.index)
        if slot in self._calls and call.id and function.name and call.id != self._call_ids[slot]:
            return last + 1  # some vendors give every whole call the index 0
        return slot

    def _custom(self, call: _Call) -> list[Event]:
        raw = {"id": call.id, "type": "custom", "custom": call.custom}
        index = self._open()
        self._has_calls = True
        part: Part = Opaque(wire=Wire.OPENAI_CHAT, kind="custom", raw=raw)
        return [*self._close_text(), PartStarted(index, "opaque", part), PartEnded(index)]

    def _close_text(self) -> list[Event]:
        if self._kind is None:
            return []
        self._kind = None
        return [PartEnded(self._index)]

    def _close_all(self) -> list[Event]:
        events = self._close_text()
        events += [PartEnded(index) for index in self._calls.values()]
        self._calls.clear()
        self._call_ids.clear()
        return events

    def _finish(self, choice: _Choice) -> list[Event]:
        self._is_finished = True
        word = choice.finish_reason or ""
        stop = STOP_REASONS.get(word.lower(), StopReason.OTHER)
        detail = word if stop is StopReason.OTHER else None
        if stop is StopReason.END and isinstance(choice.stop_reason, str) and choice.stop_reason:
            stop, detail = StopReason.STOP_SEQUENCE, choice.stop_reason
        elif stop is StopReason.END and self._has_calls:
            stop = StopReason.TOOL_CALLS  # several vendors say "stop" after calls
        elif stop is StopReason.END and self._has_refused:
            stop = StopReason.REFUSAL
        return [*self._close_all(), Finished(stop, detail)]


def _is_plain(delta: _Delta) -> bool:
    """Whether a delta says a piece of text and nothing else."""
    return (
        type(delta.content) is str
        and delta.content != ""
        and not delta.tool_calls
        and not delta.reasoning_content
        and not delta.reasoning
        and not delta.refusal
        and delta.function_call is None
        and not delta.annotations
        and not delta.audio
        and not delta.images
    )
