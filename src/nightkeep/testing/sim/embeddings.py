"""Vectors that depend on nothing but the text: the answers of the embedding endpoints."""

from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec

from nightkeep.testing.sim.asked import Asked, Refusal, Refused
from nightkeep.testing.sim.gemini import embedding, read_gemini_embedding
from nightkeep.testing.sim.openai_chat import embeddings

__all__ = ["embed", "vector"]

_SIZE = 8  # numbers in a vector where the request does not say
_MOST = 8192


def embed(asked: Asked, body: dict[str, Any], *, is_batch: bool) -> bytes:
    """The body of the answer to an embedding request that has been read."""
    if asked.wire == "gemini":
        texts = read_gemini_embedding(body, asked)
        size = _size(body.get("outputDimensionality"))
        return embedding([_vector_json(text, size) for text in texts], is_batch)
    given = body["input"]
    texts = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    size = _size(body.get("dimensions"))
    if body.get("encoding_format") == "base64":
        packed = [struct.pack(f"<{size}f", *vector(str(text), size)) for text in texts]
        return embeddings(asked, [f'"{base64.b64encode(data).decode()}"' for data in packed])
    return embeddings(asked, [_vector_json(str(text), size) for text in texts])


def vector(text: str, size: int) -> list[float]:
    """A unit vector made from the letters of a text: similar texts are near one another."""
    raw = [1.0] * size
    for at, letter in enumerate(text):
        raw[(ord(letter) * 31 + at % 3) % size] += 1.0
    length = sum([value * value for value in raw]) ** 0.5
    return [round(value / length, 6) for value in raw]


def _size(given: Any) -> int:
    if given is None:
        return _SIZE
    if type(given) is not int or not 1 <= given <= _MOST:
        raise Refused(Refusal(kind="invalid", message=f"Invalid value for dimensions: {given!r}.", param="dimensions"))
    return given


def _vector_json(text: str, size: int) -> str:
    return msgspec.json.encode(vector(text, size)).decode()
