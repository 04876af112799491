"""Gemini replies, read: chunks of ``streamGenerateContent`` and whole replies into neutral events.

Writing them is ``gemini_encoder``. This wire has no marks where a part begins or ends: text parts of one kind
that follow each other are one part. A chunk with a ``finishReason`` is the end. Tolerant, as ``anthropic_reply`` is.
Shapes: ``google.genai.types.GenerateContentResponse``.
"""

from __future__ import annotations

import re
from typing import Any, Literal

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
from nightkeep.core.messages import Media, Opaque, Reasoning, StopReason, ToolCall, Usage
from nightkeep.models.wire.base import Wire
from nightkeep.models.wire.gemini_errors import read_error_object
from nightkeep.models.wire.gemini_parts import MADE_ID, media_kind

__all__ = ["STOP_REASONS", "GeminiDecoder"]

STOP_REASONS: dict[str, StopReason] = {
    "STOP": StopReason.END,
    "MAX_TOKENS": StopReason.MAX_TOKENS,
    "SAFETY": StopReason.REFUSAL,
    "RECITATION": StopReason.REFUSAL,
    "BLOCKLIST": StopReason.REFUSAL,
    "PROHIBITED_CONTENT": StopReason.REFUSAL,
    "SPII": StopReason.REFUSAL,
    "IMAGE_SAFETY": StopReason.REFUSAL,
    "IMAGE_PROHIBITED_CONTENT": StopReason.REFUSAL,
    "IMAGE_RECITATION": StopReason.REFUSAL,
    "MODEL_ARMOR": StopReason.REFUSAL,
    "MALFORMED_FUNCTION_CALL": StopReason.MALFORMED_CALL,
    "UNEXPECTED_TOOL_CALL": StopReason.MALFORMED_CALL,
}
"""The vendor's finish reasons; any other is OTHER with the vendor's word beside it."""


class _Tolerant(msgspec.Struct, gc=False, rename="camel"):
    """Base of what is read from the wire: unknown fields are passed over."""


class _FunctionCall(_Tolerant):
    name: str | None = None
    id: str | None = None
    args: msgspec.Raw = msgspec.Raw()
    partial_args: list[Any] | None = None


class _Blob(_Tolerant):
    data: str | None = None
    mime_type: str | None = None


class _Part(_Tolerant):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _FunctionCall | None = None
    inline_data: _Blob | None = None
    executable_code: dict[str, Any] | None = None
    code_execution_result: dict[str, Any] | None = None
    tool_call: dict[str, Any] | None = None
    tool_response: dict[str, Any] | None = None
    file_data: dict[str, Any] | None = None


class _Content(_Tolerant):
    parts: list[_Part] | None = None


class _Candidate(_Tolerant):
    content: _Content | None = None
    finish_reason: str | None = None
    index: int | None = None
    grounding_metadata: dict[str, Any] | None = None
    citation_metadata: dict[str, Any] | None = None
    url_context_metadata: dict[str, Any] | None = None
    logprobs_result: dict[str, Any] | None = None


class _UsageCount(_Tolerant):
    """Tokens as this wire counts them: cached inside the prompt, thoughts and tool use beside."""

    prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None

    def neutral(self) -> Usage:
        """The same tokens in disjoint classes."""
        cached = self.cached_content_token_count or 0
        return Usage(
            input=max(0, (self.prompt_token_count or 0) - cached) + (self.tool_use_prompt_token_count or 0),
            cache_read=cached,
            output=self.candidates_token_count or 0,
            reasoning=self.thoughts_token_count or 0,
        )


class _Feedback(_Tolerant):
    block_reason: str | None = None


class _Chunk(_Tolerant):
    candidates: list[_Candidate] | None = None
    usage_metadata: _UsageCount | None = None
    model_version: str | None = None
    response_id: str | None = None
    prompt_feedback: _Feedback | None = None
    error: dict[str, Any] | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_chunks = msgspec.json.Decoder(list[_Chunk]).decode
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")
_ASIDES = ("grounding_metadata", "citation_metadata", "url_context_metadata", "logprobs_result")
_OWN_PARTS = ("executable_code", "code_execution_result", "tool_call", "tool_response", "file_data")

TextKind = Literal["text", "reasoning"]


class GeminiDecoder:
    """Reads one reply."""

    def __init__(self) -> None:
        self._response_id: str | None = None
        self._index = -1
        self._open: TextKind | None = None
        self._signature: str | None = None
        self._calls = 0
        self._is_finished = False
        self._usage: _UsageCount | None = None

    def feed(self, data: bytes) -> list[Event]:
        """Read the payload of one server-sent event."""
        try:
            chunk = _decode_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"not a reply of {Wire.GEMINI}: {error}") from error
        return self._read(chunk)

    def whole(self, body: bytes) -> list[Event]:
        """Read a whole reply: one object, or the array that a stream without ``alt=sse`` is."""
        try:
            chunks = _decode_chunks(body) if body.lstrip()[:1] == b"[" else [_decode_chunk(body)]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"not a reply of {Wire.GEMINI}: {error}") from error
        events = [event for chunk in chunks for event in self._read(chunk)]
        if not self._is_finished and not any(isinstance(event, Failed) for event in events):
            events += [*self._end_part(), Finished(StopReason.OTHER, "no finishReason"), Ended()]
        return events

    def close(self) -> list[Event]:
        """The end of the bytes says nothing here: ``finishReason`` is the end mark."""
        return []

    def _read(self, chunk: _Chunk) -> list[Event]:
        if chunk.error is not None:
            error = read_error_object(chunk.error)
            return [Failed(error.code, error.message, error.status)]
        events: list[Event] = []
        if self._response_id is None:
            self._response_id = chunk.response_id or ""
            events.append(Started(self._response_id, chunk.model_version or ""))
        finish: str | None = None
        for candidate in chunk.candidates or ():
            if candidate.index:
                events.append(Unknown("candidate", {"index": candidate.index}))
            else:
                self._read_candidate(candidate, events)
                finish = candidate.finish_reason or finish
        if chunk.usage_metadata is not None and chunk.usage_metadata != self._usage:
            self._usage = chunk.usage_metadata
            events.append(UsageReported(chunk.usage_metadata.neutral()))
        blocked = chunk.prompt_feedback.block_reason if chunk.prompt_feedback is not None else None
        if blocked and not chunk.candidates:
            self._finish(StopReason.REFUSAL, blocked, events)
        elif finish is not None and finish != "FINISH_REASON_UNSPECIFIED":
            self._finish(*self._stop(finish), events)
        return events

    def _read_candidate(self, candidate: _Candidate, events: list[Event]) -> None:
        if candidate.content is not None:
            for part in candidate.content.parts or ():
                self._read_part(part, events)
        for name in _ASIDES:
            if (aside := getattr(candidate, name)) is not None:
                events.append(Unknown(name, aside))

    def _stop(self, word: str) -> tuple[StopReason, str | None]:
        stop = STOP_REASONS.get(word, StopReason.OTHER)
        if stop is StopReason.END and self._calls:
            return StopReason.TOOL_CALLS, None
        has_detail = stop in (StopReason.REFUSAL, StopReason.OTHER, StopReason.MALFORMED_CALL)
        return stop, word if has_detail else None

    def _finish(self, stop: StopReason, detail: str | None, events: list[Event]) -> None:
        events += self._end_part()
        if not self._is_finished:
            self._is_finished = True
            events += [Finished(stop, detail), Ended()]

    def _read_part(self, part: _Part, events: list[Event]) -> None:
        if part.text is not None:
            self._read_text(part.text, "reasoning" if part.thought else "text", part.thought_signature, events)
        elif part.function_call is not None:
            self._read_call(part.function_call, part.thought_signature, events)
        elif part.inline_data is not None:
            blob = part.inline_data
            media = Media(kind=media_kind(blob.mime_type), media_type=blob.mime_type, data=blob.data or "")
            self._add_whole(media, events)
        else:
            for name in _OWN_PARTS:
                if (raw := getattr(part, name)) is not None:
                    kind = _camel(name)
                    self._add_whole(Opaque(wire=Wire.GEMINI, kind=kind, raw={kind: raw}), events)
                    return
            if part.thought_signature:
                self._read_text("", "text", part.thought_signature, events)
            else:
                events.append(Unknown("part"))

    def _read_text(self, text: str, kind: TextKind, signature: str | None, events: list[Event]) -> None:
        if text:
            if self._open != kind:
                events += self._end_part()
                self._index += 1
                self._open = kind
                events.append(PartStarted(self._index, kind, None if kind == "text" else Reasoning()))
            events.append(PartDelta(self._index, text))
        if not signature:
            return
        if kind == "reasoning" and self._open == "reasoning":
            self._signature = signature
        else:  # a signature on text, or alone: a thought without words
            events += self._end_part()
            self._index += 1
            events.append(PartStarted(self._index, "reasoning", Reasoning()))
            events.append(PartEnded(self._index, signature))

    def _read_call(self, call: _FunctionCall, signature: str | None, events: list[Event]) -> None:
        if call.partial_args is not None:
            events.append(Unknown("functionCall.partialArgs"))
        events += self._end_part()
        self._index += 1
        call_id = call.id or f"{MADE_ID}{_NOT_IN_IDS.sub('', self._response_id or '')[:22]}_{self._calls}"
        self._calls += 1
        arguments = bytes(call.args).decode()
        known = ToolCall(id=call_id, name=call.name or "", arguments="", signature=signature or None)
        events.append(PartStarted(self._index, "tool_call", known))
        events.append(PartDelta(self._index, "{}" if arguments in ("", "null") else arguments))
        events.append(PartEnded(self._index, signature or None))

    def _add_whole(self, part: Media | Opaque, events: list[Event]) -> None:
        events += self._end_part()
        self._index += 1
        events.append(PartStarted(self._index, "opaque", part))
        events.append(PartEnded(self._index))

    def _end_part(self) -> list[Event]:
        if self._open is None:
            return []
        self._open, signature, self._signature = None, self._signature, None
        return [PartEnded(self._index, signature)]


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
