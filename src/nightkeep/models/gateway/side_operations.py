"""Embeddings and token counts: what is not a reply, and yet goes the way of every call.

The same wire passes bytes through; another wire is said in neutral words. Where a target has no way to
count tokens, the gateway's own estimate is the answer, and says that it is one.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from nightkeep.core.errors import UntranslatableError
from nightkeep.core.events import Ended, Event, UsageReported
from nightkeep.core.messages import ChatRequest, Usage
from nightkeep.models.estimate import estimate_tokens
from nightkeep.models.gateway.call import Call
from nightkeep.models.wire import CODECS, gemini_embeddings, openai_embeddings
from nightkeep.models.wire.anthropic_messages import AnthropicMessagesCodec
from nightkeep.models.wire.base import Operation, Stripped, Wire, Written
from nightkeep.models.wire.gemini import GeminiCodec

__all__ = ["answer_side", "estimated_count", "read_side", "say_side"]

_BATCH = "batchEmbedContents"


class _Counter(Protocol):
    def read_count_request(self, body: bytes, head: Any) -> ChatRequest: ...

    def write_count_request(self, request: ChatRequest, model: str, source: Wire) -> Written: ...

    def read_count(self, body: bytes) -> int: ...

    def write_count(self, tokens: int) -> bytes: ...


_COUNTERS: dict[Wire, _Counter] = {
    Wire.ANTHROPIC_MESSAGES: AnthropicMessagesCodec(),
    Wire.GEMINI: GeminiCodec(),
}


def say_side(call: Call, wire: Wire, model: str) -> tuple[bytes, tuple[Stripped, ...]]:
    """The request of an embedding or a count as a target will read it. Raises UntranslatableError."""
    source = call.door.wire
    if call.door.operation is Operation.COUNT_TOKENS:
        if wire is source:
            return CODECS[wire].retarget(call.body, call.head, model), ()
        request = _counter(source).read_count_request(call.body, call.head)
        written = _counter(wire).write_count_request(request, model, source)
    else:
        if wire is source and wire is Wire.OPENAI_CHAT:
            return openai_embeddings.retarget_embed_request(call.body, call.head, model), ()
        module = gemini_embeddings if source is Wire.GEMINI else openai_embeddings
        embed = module.read_embed_request(call.body, call.head)
        target = gemini_embeddings if wire is Wire.GEMINI else openai_embeddings
        written = target.write_embed_request(embed, model, source)
    return written.body, written.stripped


def read_side(operation: Operation, wire: Wire, model: str, body: bytes) -> list[Event]:
    """What an answer says as far as the record goes. Raises ValueError where it is not an answer."""
    if operation is Operation.COUNT_TOKENS:
        _counter(wire).read_count(body)
        return [Ended()]
    usage: Usage | None
    if wire is Wire.GEMINI:
        usage = gemini_embeddings.read_embed_reply(body, model).usage
    else:
        if not msgspec.json.decode(body, type=_Vectors).data:
            raise ValueError("an embedding without vectors")
        usage = openai_embeddings.read_embed_usage(body)
    return [UsageReported(usage), Ended()] if usage is not None else [Ended()]


def answer_side(call: Call, wire: Wire, model: str, body: bytes) -> bytes:
    """The answer in the client's own wire."""
    source = call.door.wire
    if call.door.operation is Operation.COUNT_TOKENS:
        return body if wire is source else _counter(source).write_count(_counter(wire).read_count(body))
    if wire is source and wire is Wire.OPENAI_CHAT:
        return body
    module = gemini_embeddings if wire is Wire.GEMINI else openai_embeddings
    reply = module.read_embed_reply(body, model)
    if source is Wire.GEMINI:
        return gemini_embeddings.write_embed_reply(reply, is_batch=_BATCH in call.door.path)
    asked = openai_embeddings.read_embed_request(call.body, call.head)
    return openai_embeddings.write_embed_reply(reply, model, asked.encoding_format)


def estimated_count(call: Call) -> bytes:
    """A count in the client's wire from the size of its request (``models.estimate``)."""
    return _counter(call.door.wire).write_count(estimate_tokens(call.body))


class _Vectors(msgspec.Struct):
    data: list[msgspec.Raw] = []


def _counter(wire: Wire) -> _Counter:
    counter = _COUNTERS.get(wire)
    if counter is None:
        raise UntranslatableError(f"{wire} has no way to count tokens", parameter="count_tokens")
    return counter
