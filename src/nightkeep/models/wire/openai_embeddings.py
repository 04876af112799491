"""OpenAI embeddings: ``POST /v1/embeddings``, requests and replies.

The neutral words are ``core.embeddings``; Gemini's side is ``gemini_embeddings``. The official SDKs ask for base64
(little-endian 32-bit floats) unless told otherwise, so both forms are read and written.
Shapes: ``openai.types.embedding_create_params``, ``create_embedding_response``.
"""

from __future__ import annotations

import base64
import binascii
import sys
from array import array
from typing import Any, Literal

import msgspec

from nightkeep.core.embeddings import EmbedReply, EmbedRequest
from nightkeep.core.errors import RequestError
from nightkeep.core.messages import Usage
from nightkeep.models.wire.base import Head, Wire, Written
from nightkeep.models.wire.openai_usage import UsageCount
from nightkeep.models.wire.shape import Fields, decode_object, encode_json
from nightkeep.models.wire.stripping import StripList

__all__ = [
    "read_embed_reply",
    "read_embed_request",
    "read_embed_usage",
    "retarget_embed_request",
    "write_embed_reply",
    "write_embed_request",
]

_FORMATS: dict[str, Literal["float", "base64"]] = {"float": "float", "base64": "base64"}
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_embed_request(body: bytes, head: Head) -> EmbedRequest:
    """Read a request whole. Raises RequestError with the field's path where its shape is wrong."""
    fields = Fields(decode_object(body))
    foreign: dict[str, Any] = {}
    fields.take("model")
    texts, tokens = _read_input(fields.take("input"))
    form = fields.text("encoding_format")
    if form is not None and form not in _FORMATS:
        raise RequestError(f"encoding_format: expected float or base64, got {form!r}", parameter="encoding_format")
    request = EmbedRequest(
        model=head.model,
        texts=texts,
        tokens=tokens,
        dimensions=fields.integer("dimensions"),
        encoding_format=None if form is None else _FORMATS[form],
        user=fields.text("user"),
        foreign=foreign,
    )
    fields.collect_rest(foreign)
    return request


def _read_input(value: Any) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """One text, texts, one list of tokens, or lists of tokens."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not items:
        raise RequestError("input: expected a text, texts or tokens, and at least one", parameter="input")
    if all(isinstance(item, str) for item in items):
        return tuple(items), ()
    lists = [items] if all(isinstance(item, int) for item in items) else items
    if not all(isinstance(item, list) and all(isinstance(token, int) for token in item) for item in lists):
        raise RequestError("input: expected texts or tokens, not a mix", parameter="input")
    return (), tuple(tuple(item) for item in lists)


def write_embed_request(request: EmbedRequest, model: str, source: Wire) -> Written:
    """Write a request for ``model``; a client of another wire gets plain numbers."""
    strips = StripList(source, Wire.OPENAI_CHAT)
    body: dict[str, Any] = {"model": model, "input": request.tokens or request.texts}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    if request.encoding_format is not None:
        body["encoding_format"] = request.encoding_format
    if request.user is not None:
        body["user"] = request.user
    if request.purpose is not None:
        strips.note_named("taskType")
    if request.title is not None:
        strips.note_named("title")
    for name, value in request.foreign.items():
        if source in (Wire.OPENAI_CHAT, Wire.OPENAI_RESPONSES):
            body[name] = value
        else:
            strips.note_named(name)
    return Written(encode_json(body), strips.done())


def retarget_embed_request(body: bytes, head: Head, model: str) -> bytes:
    """The same body for another model; the same object where the model is the same."""
    if model == head.model:
        return body
    fields = _decode_raw(body)
    fields["model"] = msgspec.Raw(encode_json(model))
    return encode_json(fields)


class _Vector(msgspec.Struct, gc=False):
    embedding: list[float] | str
    index: int | None = None


class _Answer(msgspec.Struct, gc=False):
    data: list[_Vector]
    model: str | None = None
    usage: UsageCount | None = None


class _UsageOnly(msgspec.Struct, gc=False):
    usage: UsageCount | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_usage = msgspec.json.Decoder(_UsageOnly).decode


def read_embed_reply(body: bytes, model: str) -> EmbedReply:
    """Read an answer; ``model`` is what was asked, for vendors that do not name theirs. Raises ValueError."""
    try:
        answer = _decode_answer(body)
        vectors = [_numbers(item.embedding) for item in sorted(answer.data, key=lambda item: item.index or 0)]
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, ValueError) as error:
        raise ValueError(f"not an embedding of {Wire.OPENAI_CHAT}: {error}") from error
    usage = None if answer.usage is None else _usage(answer.usage)
    return EmbedReply(model=answer.model or model, vectors=tuple(vectors), usage=usage)


def read_embed_usage(body: bytes) -> Usage | None:
    """The usage alone, where the vectors are passed through unread. Raises ValueError."""
    try:
        usage = _decode_usage(body).usage
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not an embedding of {Wire.OPENAI_CHAT}: {error}") from error
    return None if usage is None else _usage(usage)


def _usage(count: UsageCount) -> Usage:
    """Embeddings have no output: a vendor that tells only the total means the input."""
    if count.prompt_tokens is None and count.input_tokens is None:
        return Usage(input=int(count.total_tokens or 0))
    return count.neutral()


def write_embed_reply(reply: EmbedReply, model: str, encoding_format: str | None = None) -> bytes:
    """Write the answer under the model name that the client will see, in the form that it asked for."""
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if encoding_format == "base64" else vector}
        for index, vector in enumerate(reply.vectors)
    ]
    tokens = reply.usage.total if reply.usage is not None else 0
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return encode_json({"object": "list", "data": data, "model": model, "usage": usage})


def _numbers(value: list[float] | str) -> tuple[float, ...]:
    if not isinstance(value, str):
        return tuple(value)
    numbers = array("f", base64.b64decode(value, validate=True))
    if sys.byteorder == "big":
        numbers.byteswap()
    return tuple(numbers)


def _packed(vector: tuple[float, ...]) -> str:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
