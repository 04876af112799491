"""The OpenAI Responses codec: ``/v1/responses``.

The parts: ``openai_responses_request``, ``openai_responses_input`` (reading), ``openai_responses_write``,
``openai_responses_turns`` (writing), ``openai_responses_reply``, ``openai_responses_encoder`` and
``openai_responses_object`` (replies), ``openai_errors``. The contract is ``base.Codec``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nightkeep.core.messages import ChatRequest
from nightkeep.models.wire.base import Decoder, Encoder, Head, Wire, WireError, Written
from nightkeep.models.wire.openai_errors import read_error, write_error
from nightkeep.models.wire.openai_head import decode_head, read_flag, read_limit, read_model
from nightkeep.models.wire.openai_responses_encoder import OpenaiResponsesEncoder
from nightkeep.models.wire.openai_responses_reply import OpenaiResponsesDecoder
from nightkeep.models.wire.openai_responses_request import read_responses_request
from nightkeep.models.wire.openai_responses_write import write_responses_request
from nightkeep.models.wire.shape import encode_json

__all__ = ["OpenaiResponsesCodec"]


class _HeadFields(msgspec.Struct, gc=False):
    model: Any = None
    stream: Any = None
    max_output_tokens: Any = None
    prompt_cache_key: Any = None


_head_decoder = msgspec.json.Decoder(_HeadFields)
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class OpenaiResponsesCodec:
    """One vendor protocol; stateless."""

    wire = Wire.OPENAI_RESPONSES

    def head(self, body: bytes, path_model: str | None = None, *, stream: bool | None = None) -> Head:
        """Read what routing needs; the session is ``prompt_cache_key``, where Codex puts its own id."""
        fields = decode_head(_head_decoder, body)
        is_stream = read_flag(fields.stream, "stream") if stream is None else stream
        limit = read_limit(fields.max_output_tokens, "max_output_tokens")
        session = fields.prompt_cache_key if isinstance(fields.prompt_cache_key, str) else None
        return Head(read_model(fields.model, path_model), is_stream, limit, session or None)

    def read_request(self, body: bytes, head: Head) -> ChatRequest:
        """Read a request whole."""
        return read_responses_request(body, head)

    def write_request(self, request: ChatRequest, model: str, source: Wire) -> Written:
        """Say a request on this wire for ``model``."""
        return write_responses_request(request, model, source)

    def retarget(self, body: bytes, head: Head, model: str) -> bytes:
        """The same body for another model; the same object where the model is the same."""
        if model == head.model:
            return body
        fields = _decode_raw(body)
        fields["model"] = msgspec.Raw(encode_json(model))
        return encode_json(fields)

    def decoder(self) -> Decoder:
        """A reader for one reply."""
        return OpenaiResponsesDecoder()

    def encoder(self, model: str, request: ChatRequest | None = None) -> Encoder:
        """A writer for one reply."""
        return OpenaiResponsesEncoder(model, request)

    def read_error(self, status: int, body: bytes) -> WireError:
        """Read an error answer."""
        return read_error(status, body)

    def write_error(self, error: WireError) -> tuple[int, bytes]:
        """Write an error answer."""
        return write_error(error)
