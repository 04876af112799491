"""What a codec is: one vendor protocol, bytes in and neutral values out, and back. No I/O anywhere.

Four codecs stand beside this file; ``CODECS`` in ``nightkeep.models.wire`` names them. A codec is a
stateless object; what has state (a stream being read or written) is made by ``decoder`` and
``encoder``. The same wire in and out never goes through ``write_request`` or an encoder: the gateway
passes bytes through (``retarget``) and reads along with the decoder.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Protocol

import msgspec

from nightkeep.core.events import Event
from nightkeep.core.messages import ChatRequest

__all__ = [
    "Codec",
    "Decoder",
    "Encoder",
    "Head",
    "Operation",
    "Stripped",
    "Wire",
    "WireError",
    "Written",
]


class Wire(StrEnum):
    """The vendor protocols that Nightkeep speaks."""

    OPENAI_CHAT = "openai_chat"
    OPENAI_RESPONSES = "openai_responses"
    ANTHROPIC_MESSAGES = "anthropic_messages"
    GEMINI = "gemini"


class Operation(StrEnum):
    """What is asked of a model."""

    CHAT = "chat"
    EMBED = "embed"
    COUNT_TOKENS = "count_tokens"


class Head(msgspec.Struct, frozen=True, gc=False):
    """What the gateway must know of a request before it looks closer; cheap to read."""

    model: str
    stream: bool = False
    max_output_tokens: int | None = None
    session: str | None = None  # the client's own session id, where its body carries one (Claude Code's user id)
    wants_usage: bool = True  # False: OpenAI streams whose client did not ask for the usage chunk


class Stripped(msgspec.Struct, frozen=True):
    """A parameter that does not exist on the target's wire and was not sent on."""

    name: str  # by its name on the client's wire
    reason: str


class Written(msgspec.Struct, frozen=True):
    """A request as the target's wire says it. The path is the provider's business, not the codec's."""

    body: bytes
    stripped: tuple[Stripped, ...] = ()


class WireError(msgspec.Struct, frozen=True, kw_only=True):
    """An error in neutral words: read from a vendor's answer, written into a client's wire."""

    status: int
    code: str  # our code, or the vendor's machine-readable one
    message: str
    kind: str = "api_error"
    """invalid_request | authentication | permission | not_found | conflict | too_large | rate_limited |
    quota | overloaded | timeout | refused | api_error"""
    parameter: str | None = None
    retry_after_s: float | None = None
    data: dict[str, Any] = {}  # what was asked, what served, what to do: written under "nightkeep"


class Decoder(Protocol):
    """Reads one reply, streamed or whole. One object per reply."""

    def feed(self, data: bytes) -> list[Event]:
        """Take the payload of one server-sent event (the joined ``data:`` lines) and say what it means.

        Raises:
            ValueError: the payload is not what this wire allows (malformed JSON, a wrong type).
        """
        ...

    def whole(self, body: bytes) -> list[Event]:
        """Take a whole reply's body; ends with ``Ended``. Raises ValueError as ``feed`` does."""
        ...

    def close(self) -> list[Event]:
        """The stream's bytes are at their end: say what that means on this wire (usually nothing)."""
        ...


class Encoder(Protocol):
    """Writes one reply in the client's wire. One object per reply."""

    def feed(self, event: Event) -> bytes:
        """The server-sent events for one neutral event, framing included; may be empty."""
        ...

    def whole(self, events: list[Event]) -> bytes:
        """The body of a whole reply."""
        ...

    def fail(self, error: WireError) -> bytes:
        """The typed error event that this wire's SDK raises, after content was sent; framing included."""
        ...


class Codec(Protocol):
    """One vendor protocol."""

    wire: Wire

    def head(self, body: bytes, path_model: str | None = None, *, stream: bool | None = None) -> Head:
        """Read the few fields that routing needs. Gemini gives model and stream in the path.

        Raises:
            RequestError: not JSON, not an object, no model; the message names the field.
        """
        ...

    def read_request(self, body: bytes, head: Head) -> ChatRequest:
        """Read a request whole. Raises RequestError with the field's path on a wrong shape."""
        ...

    def write_request(self, request: ChatRequest, model: str, source: Wire) -> Written:
        """Say a request on this wire for ``model``; what does not exist here is stripped and reported.

        Raises:
            UntranslatableError: it cannot be said here without changing its meaning.
        """
        ...

    def retarget(self, body: bytes, head: Head, model: str) -> bytes:
        """The same request on the same wire for another model: only that (and what streaming usage needs) changes."""
        ...

    def decoder(self) -> Decoder:
        """A reader for one reply."""
        ...

    def encoder(self, model: str, request: ChatRequest | None = None) -> Encoder:
        """A writer for one reply; ``model`` is the name that the client will see."""
        ...

    def read_error(self, status: int, body: bytes) -> WireError:
        """Read a vendor's error answer; never raises: what is not understood is kept as the message."""
        ...

    def write_error(self, error: WireError) -> tuple[int, bytes]:
        """The status and JSON body from which this wire's SDK raises its own typed error."""
        ...
