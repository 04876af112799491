"""The Anthropic Messages codec: ``/v1/messages`` and ``/v1/messages/count_tokens``.

The parts: ``anthropic_request`` and ``anthropic_write`` (requests), ``anthropic_reply`` and
``anthropic_encoder`` (replies), ``anthropic_errors``. The contract is ``base.Codec``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nightkeep.core.errors import RequestError
from nightkeep.core.messages import ChatRequest
from nightkeep.models.wire.anthropic_encoder import AnthropicEncoder
from nightkeep.models.wire.anthropic_errors import read_error, write_error
from nightkeep.models.wire.anthropic_reply import AnthropicDecoder
from nightkeep.models.wire.anthropic_request import read_chat_request
from nightkeep.models.wire.anthropic_write import write_chat_request
from nightkeep.models.wire.base import Decoder, Encoder, Head, Wire, WireError, Written
from nightkeep.models.wire.shape import encode_json

__all__ = ["AnthropicMessagesCodec"]


class _HeadFields(msgspec.Struct, gc=False):
    model: Any = None
    stream: Any = None
    max_tokens: Any = None
    metadata: msgspec.Raw = msgspec.Raw()


class _Metadata(msgspec.Struct, gc=False):
    user_id: Any = None


class _SessionNote(msgspec.Struct, gc=False):
    session_id: str | None = None


_decode_head = msgspec.json.Decoder(_HeadFields).decode
_decode_metadata = msgspec.json.Decoder(_Metadata).decode
_decode_note = msgspec.json.Decoder(_SessionNote).decode
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config")
"""What ``count_tokens`` takes (``anthropic.types.message_count_tokens_params``)."""


class AnthropicMessagesCodec:
    """One vendor protocol; stateless."""

    wire = Wire.ANTHROPIC_MESSAGES

    def head(self, body: bytes, path_model: str | None = None, *, stream: bool | None = None) -> Head:
        """Read what routing needs. Raises RequestError naming the field."""
        try:
            fields = _decode_head(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestError(f"the request body is not a JSON object: {error}") from error
        model = fields.model if path_model is None else path_model
        if not isinstance(model, str) or not model:
            raise RequestError("model: this field is required and must be a string", parameter="model")
        is_stream = fields.stream if stream is None else stream
        if is_stream is not None and not isinstance(is_stream, bool):
            raise RequestError("stream: expected a boolean", parameter="stream")
        limit = fields.max_tokens
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
            raise RequestError("max_tokens: expected an integer", parameter="max_tokens")
        session = _session(fields.metadata) if fields.metadata else None
        return Head(model, bool(is_stream), limit, session)

    def read_request(self, body: bytes, head: Head) -> ChatRequest:
        """Read a request whole."""
        return read_chat_request(body, head)

    def write_request(self, request: ChatRequest, model: str, source: Wire) -> Written:
        """Say a request on this wire for ``model``."""
        return write_chat_request(request, model, source)

    def retarget(self, body: bytes, head: Head, model: str) -> bytes:
        """The same body for another model; the same object where the model is the same."""
        if model == head.model:
            return body
        fields = _decode_raw(body)
        fields["model"] = msgspec.Raw(encode_json(model))
        return encode_json(fields)

    def decoder(self) -> Decoder:
        """A reader for one reply."""
        return AnthropicDecoder()

    def encoder(self, model: str, request: ChatRequest | None = None) -> Encoder:
        """A writer for one reply."""
        return AnthropicEncoder(model)

    def read_error(self, status: int, body: bytes) -> WireError:
        """Read an error answer."""
        return read_error(status, body)

    def write_error(self, error: WireError) -> tuple[int, bytes]:
        """Write an error answer."""
        return write_error(error)

    def read_count_request(self, body: bytes, head: Head) -> ChatRequest:
        """Read a ``count_tokens`` request: a chat request without a limit."""
        return read_chat_request(body, head)

    def write_count_request(self, request: ChatRequest, model: str, source: Wire) -> Written:
        """A request for ``count_tokens``: the chat request without what does not count."""
        written = write_chat_request(request, model, source)
        fields = _decode_raw(written.body)
        kept = {name: value for name, value in fields.items() if name in _COUNTED}
        stripped = tuple(item for item in written.stripped if "Anthropic requires it" not in item.reason)
        return Written(encode_json(kept), stripped)

    def read_count(self, body: bytes) -> int:
        """The number of input tokens in a ``count_tokens`` answer. Raises ValueError where there is none."""
        try:
            return _decode_count(body).input_tokens
        except msgspec.DecodeError as error:
            raise ValueError(f"not a token count of {self.wire}: {error}") from error

    def write_count(self, tokens: int) -> bytes:
        """The body of a ``count_tokens`` answer."""
        return encode_json({"input_tokens": tokens})


class _Count(msgspec.Struct, gc=False):
    input_tokens: int


_decode_count = msgspec.json.Decoder(_Count).decode


def _session(metadata: msgspec.Raw) -> str | None:
    """Claude Code's session: ``user_…_session_<uuid>``, or JSON with ``session_id``, in ``metadata.user_id``."""
    try:
        user = _decode_metadata(metadata).user_id
        if not isinstance(user, str):
            return None
        if user.startswith("{"):
            return _decode_note(user).session_id
    except msgspec.DecodeError:
        return None
    _, mark, session = user.rpartition("_session_")
    return session if mark and session else None
