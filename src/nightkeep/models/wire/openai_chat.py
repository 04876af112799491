"""The OpenAI Chat Completions codec: ``/v1/chat/completions``, spoken by OpenAI and some twenty other vendors.

The parts: ``openai_chat_request``, ``openai_chat_messages`` (reading), ``openai_chat_write``, ``openai_chat_turns``
(writing), ``openai_chat_reply`` and ``openai_chat_encoder`` (replies), ``openai_errors``.
The contract is ``base.Codec``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nightkeep.core.messages import ChatRequest
from nightkeep.models.wire.base import Decoder, Encoder, Head, Wire, WireError, Written
from nightkeep.models.wire.openai_chat_encoder import OpenaiChatEncoder
from nightkeep.models.wire.openai_chat_reply import OpenaiChatDecoder
from nightkeep.models.wire.openai_chat_request import read_chat_request
from nightkeep.models.wire.openai_chat_write import write_chat_request
from nightkeep.models.wire.openai_errors import read_error, write_error
from nightkeep.models.wire.openai_head import decode_head, read_flag, read_limit, read_model
from nightkeep.models.wire.shape import encode_json

__all__ = ["OpenaiChatCodec"]


class _HeadFields(msgspec.Struct, gc=False):
    model: Any = None
    stream: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    stream_options: Any = None
    session_id: Any = None  # OpenRouter


_head_decoder = msgspec.json.Decoder(_HeadFields)
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder(dict[str, Any]).decode


class OpenaiChatCodec:
    """One vendor protocol; stateless."""

    wire = Wire.OPENAI_CHAT

    def head(self, body: bytes, path_model: str | None = None, *, stream: bool | None = None) -> Head:
        """Read what routing needs. Raises RequestError naming the field."""
        fields = decode_head(_head_decoder, body)
        is_stream = read_flag(fields.stream, "stream") if stream is None else stream
        limit = read_limit(fields.max_completion_tokens, "max_completion_tokens")
        if limit is None:
            limit = read_limit(fields.max_tokens, "max_tokens")
        session = fields.session_id if isinstance(fields.session_id, str) else None
        wants_usage = not is_stream or _includes_usage(fields.stream_options)
        return Head(read_model(fields.model, path_model), is_stream, limit, session or None, wants_usage)

    def read_request(self, body: bytes, head: Head) -> ChatRequest:
        """Read a request whole."""
        return read_chat_request(body, head)

    def write_request(self, request: ChatRequest, model: str, source: Wire) -> Written:
        """Say a request on this wire for ``model``."""
        return write_chat_request(request, model, source)

    def retarget(self, body: bytes, head: Head, model: str) -> bytes:
        """The same body for another model, a stream's usage asked for; the same object where nothing changes."""
        must_ask = head.stream and not head.wants_usage
        if model == head.model and not must_ask:
            return body
        fields = _decode_raw(body)
        fields["model"] = msgspec.Raw(encode_json(model))
        if must_ask:
            fields["stream_options"] = msgspec.Raw(_with_usage(fields.get("stream_options")))
        return encode_json(fields)

    def decoder(self) -> Decoder:
        """A reader for one reply."""
        return OpenaiChatDecoder()

    def encoder(self, model: str, request: ChatRequest | None = None) -> Encoder:
        """A writer for one reply."""
        return OpenaiChatEncoder(model, request)

    def read_error(self, status: int, body: bytes) -> WireError:
        """Read an error answer."""
        return read_error(status, body)

    def write_error(self, error: WireError) -> tuple[int, bytes]:
        """Write an error answer."""
        return write_error(error)


def _includes_usage(options: object) -> bool:
    return isinstance(options, dict) and options.get("include_usage") is True


def _with_usage(options: msgspec.Raw | None) -> bytes:
    known = {} if options is None or bytes(options) == b"null" else _decode_any(options)
    return encode_json(known | {"include_usage": True})
