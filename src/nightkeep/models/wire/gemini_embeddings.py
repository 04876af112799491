"""Gemini embeddings: ``:embedContent`` (one text) and ``:batchEmbedContents`` (many), requests and replies.

The neutral words are ``core.embeddings``; replies of models are ``gemini_reply``. Written requests are always
batches, whatever their number. Shapes: ai.google.dev/api/embeddings.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nightkeep.core.embeddings import EmbedReply, EmbedRequest
from nightkeep.core.errors import RequestError, UntranslatableError
from nightkeep.core.messages import Usage
from nightkeep.models.wire.base import Head, Wire, Written
from nightkeep.models.wire.shape import Fields, decode_object, encode_json
from nightkeep.models.wire.stripping import StripList

__all__ = [
    "read_embed_reply",
    "read_embed_request",
    "retarget_embed_request",
    "write_embed_reply",
    "write_embed_request",
]


def read_embed_request(body: bytes, head: Head) -> EmbedRequest:
    """Read either form. Raises RequestError with the field's path where its shape is wrong."""
    fields = Fields(decode_object(body))
    foreign: dict[str, Any] = {}
    items = fields.array("requests")
    singles = [Fields(item, f"requests.{index}") for index, item in enumerate(items)] or [fields]
    texts: list[str] = []
    settings: list[tuple[str | None, str | None, int | None]] = []
    for single in singles:
        single.take("model")
        texts.append(_read_text(single))
        settings.append((single.text("taskType"), single.text("title"), single.integer("outputDimensionality")))
        single.collect_rest(foreign)
    if items:
        fields.collect_rest(foreign)
    if len(set(settings)) > 1:
        raise RequestError("requests: taskType, title and outputDimensionality must be alike within one batch")
    purpose, title, dimensions = settings[0]
    return EmbedRequest(
        model=head.model, texts=tuple(texts), purpose=purpose, title=title, dimensions=dimensions, foreign=foreign
    )


def _read_text(single: Fields) -> str:
    content = single.take("content")
    if isinstance(content, str):
        return content
    parts = Fields({} if content is None else content, single.at("content")).array("parts")
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise RequestError(f"{single.at('content')}.parts: expected texts", parameter="content")
    return "\n".join(text for text in texts if isinstance(text, str))


def write_embed_request(request: EmbedRequest, model: str, source: Wire) -> Written:
    """Write a ``:batchEmbedContents`` body. Raises UntranslatableError for texts that are tokens already."""
    strips = StripList(source, Wire.GEMINI)
    if request.tokens:
        raise UntranslatableError("input: tokens are one model's own; send the texts", parameter="input")
    settings = {
        "taskType": request.purpose,
        "title": request.title,
        "outputDimensionality": request.dimensions,
    }
    shared = {name: value for name, value in settings.items() if value is not None}
    for name, value in request.foreign.items():
        if source is Wire.GEMINI and "." not in name:
            shared[name] = value
        else:
            strips.note_named(name)
    if request.user is not None:
        strips.note_named("user")
    name = f"models/{model}"
    items = [{"model": name, "content": {"parts": [{"text": text}]}} | shared for text in request.texts]
    return Written(encode_json({"requests": items}), strips.done())


def retarget_embed_request(body: bytes, head: Head, model: str) -> bytes:
    """The same body for another model, which a batch names once for each text."""
    if model == head.model:
        return body
    document = msgspec.json.decode(body)
    for item in (document, *(document.get("requests") or ())):
        if "model" in item:
            item["model"] = f"models/{model}"
    return encode_json(document)


class _Embedding(msgspec.Struct, gc=False):
    values: tuple[float, ...] = ()


class _EmbedUsage(msgspec.Struct, gc=False, rename="camel"):
    prompt_token_count: int | None = None


class _EmbedAnswer(msgspec.Struct, gc=False, rename="camel"):
    embedding: _Embedding | None = None
    embeddings: list[_Embedding] | None = None
    usage_metadata: _EmbedUsage | None = None


_decode_answer = msgspec.json.Decoder(_EmbedAnswer).decode


def read_embed_reply(body: bytes, model: str) -> EmbedReply:
    """Read either form's answer; ``model`` is what was asked, since the answer names none. Raises ValueError."""
    try:
        answer = _decode_answer(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not an embedding of {Wire.GEMINI}: {error}") from error
    found = answer.embeddings or ([answer.embedding] if answer.embedding is not None else [])
    if not found:
        raise ValueError(f"not an embedding of {Wire.GEMINI}: no vectors")
    tokens = answer.usage_metadata.prompt_token_count if answer.usage_metadata is not None else None
    usage = None if tokens is None else Usage(input=tokens)
    return EmbedReply(model=model, vectors=tuple(item.values for item in found), usage=usage)


def write_embed_reply(reply: EmbedReply, *, is_batch: bool) -> bytes:
    """Write the answer in the form that the client asked for."""
    vectors = [{"values": vector} for vector in reply.vectors]
    answer: dict[str, Any] = {"embeddings": vectors} if is_batch else {"embedding": vectors[0]}
    if reply.usage is not None:
        answer["usageMetadata"] = {"promptTokenCount": reply.usage.total_input}
    return encode_json(answer)
