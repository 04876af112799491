"""The neutral vocabulary of embeddings: texts in, vectors out, said once for every wire.

Beside ``core.messages``, which is the same for replies. Vectors stay in order of the texts.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from nightkeep.core.messages import Usage

__all__ = ["EmbedReply", "EmbedRequest"]


class EmbedRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request to turn texts into vectors. ``None`` where the client said nothing."""

    model: str
    texts: tuple[str, ...] = ()
    tokens: tuple[tuple[int, ...], ...] = ()  # OpenAI: texts already cut into one model's tokens; instead of ``texts``
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] | None = None  # the form of the vectors in the answer
    user: str | None = None
    purpose: str | None = None  # Gemini's taskType, e.g. "RETRIEVAL_QUERY"
    title: str | None = None  # Gemini's title of a document
    foreign: dict[str, Any] = {}
    """Parameters that only the wire it came on knows, by their path there."""


class EmbedReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The vectors, one for each text in order, always as numbers (base64 is a way to write them)."""

    model: str
    vectors: tuple[tuple[float, ...], ...]
    usage: Usage | None = None  # None where the provider did not say
