"""The Gemini codec: ``:generateContent``, ``:streamGenerateContent`` and ``:countTokens``.

The parts: ``gemini_request``, ``gemini_write``, ``gemini_contents``, ``gemini_parts``, ``gemini_schema`` and
``gemini_thinking`` (requests), ``gemini_reply`` and ``gemini_encoder`` (replies), ``gemini_errors``;
embeddings are ``gemini_embeddings``. Model and stream stand in the path, not in the body.
The contract is ``base.Codec``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nightkeep.core.errors import RequestError
from nightkeep.core.messages import ChatRequest
from nightkeep.models.wire.base import Decoder, Encoder, Head, Wire, WireError, Written
from nightkeep.models.wire.gemini_encoder import GeminiEncoder
from nightkeep.models.wire.gemini_errors import read_error, write_error
from nightkeep.models.wire.gemini_reply import GeminiDecoder
from nightkeep.models.wire.gemini_request import read_chat_request, read_count_request
from nightkeep.models.wire.gemini_write import write_body, write_chat_request
from nightkeep.models.wire.shape import encode_json

__all__ = ["GeminiCodec"]


class _HeadFields(msgspec.Struct, gc=False):
    model: Any = None
    generationConfig: msgspec.Raw = msgspec.Raw()
    generation_config: msgspec.Raw = msgspec.Raw()


class _Limit(msgspec.Struct, gc=False):
    maxOutputTokens: int | None = None
    max_output_tokens: int | None = None


class _Count(msgspec.Struct, gc=False, rename="camel"):
    total_tokens: int


_decode_head = msgspec.json.Decoder(_HeadFields).decode
_decode_limit = msgspec.json.Decoder(_Limit | None).decode
_decode_count = msgspec.json.Decoder(_Count).decode


class GeminiCodec:
    """One vendor protocol; stateless."""

    wire = Wire.GEMINI

    def head(self, body: bytes, path_model: str | None = None, *, stream: bool | None = None) -> Head:
        """Read what routing needs; model and stream are the path's. Raises RequestError naming the field."""
        try:
            fields = _decode_head(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestError(f"the request body is not a JSON object: {error}") from error
        model = fields.model if path_model is None else path_model
        if not isinstance(model, str) or not model:
            raise RequestError("model: the path names no model", parameter="model")
        config = fields.generationConfig or fields.generation_config
        return Head(model.removeprefix("models/"), bool(stream), _limit(config) if config else None)

    def read_request(self, body: bytes, head: Head) -> ChatRequest:
        """Read a request whole."""
        return read_chat_request(body, head)

    def write_request(self, request: ChatRequest, model: str, source: Wire) -> Written:
        """Say a request on this wire for ``model``."""
        return write_chat_request(request, model, source)

    def retarget(self, body: bytes, head: Head, model: str) -> bytes:
        """The body itself: the model stands in the path."""
        return body

    def decoder(self) -> Decoder:
        """A reader for one reply."""
        return GeminiDecoder()

    def encoder(self, model: str, request: ChatRequest | None = None) -> Encoder:
        """A writer for one reply."""
        return GeminiEncoder(model)

    def read_error(self, status: int, body: bytes) -> WireError:
        """Read an error answer."""
        return read_error(status, body)

    def write_error(self, error: WireError) -> tuple[int, bytes]:
        """Write an error answer."""
        return write_error(error)

    def read_count_request(self, body: bytes, head: Head) -> ChatRequest:
        """Read a ``countTokens`` request: bare contents, or a whole request inside it."""
        return read_count_request(body, head)

    def write_count_request(self, request: ChatRequest, model: str, source: Wire) -> Written:
        """A request for ``countTokens``: the contents alone where they are all, else the request whole."""
        body, strips = write_body(request, model, source)
        if body.keys() == {"contents"}:
            return Written(encode_json(body), strips.done())
        inner = {"model": f"models/{model}"} | body
        return Written(encode_json({"generateContentRequest": inner}), strips.done())

    def read_count(self, body: bytes) -> int:
        """The number of input tokens in a ``countTokens`` answer. Raises ValueError where there is none."""
        try:
            return _decode_count(body).total_tokens
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"not a token count of {self.wire}: {error}") from error

    def write_count(self, tokens: int) -> bytes:
        """The body of a ``countTokens`` answer."""
        return encode_json({"totalTokens": tokens})


def _limit(config: msgspec.Raw) -> int | None:
    try:
        limits: _Limit | None = _decode_limit(config)
    except msgspec.DecodeError as error:
        raise RequestError(f"generationConfig: {error}", parameter="generationConfig.maxOutputTokens") from error
    return limits.maxOutputTokens or limits.max_output_tokens if limits else None
