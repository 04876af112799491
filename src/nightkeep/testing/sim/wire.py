"""What the four vendor wires of the simulated provider have in common: their shape and a few helpers.

Each wire reads a vendor's request as strictly as the vendor does, and writes the vendor's bytes by
hand; nothing here is shared with ``nightkeep.models.wire``, so that our codecs are tested against
something else than themselves.
"""

from __future__ import annotations

from typing import Any, NoReturn, Protocol

import msgspec

from nightkeep.testing.sim.asked import Asked, Refusal, Refused
from nightkeep.testing.sim.script import Played

__all__ = ["Error", "Piece", "SimWire", "invalid", "js", "words"]

_encode = msgspec.json.encode


def js(value: Any) -> str:
    """JSON text of a value."""
    return _encode(value).decode()


def words(text: str) -> frozenset[str]:
    """The words of a text: long lists of names stay readable this way."""
    return frozenset(text.split())


class Piece(msgspec.Struct, gc=False):
    """One event of a stream, framed: its bytes and the tokens that are generated once it is sent."""

    data: bytes
    role: str = "content"  # preamble | content | end | done
    tokens: float = 0.0


class Error(msgspec.Struct, frozen=True):
    """An error in the vendor's shape."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class SimWire(Protocol):
    """One vendor protocol, seen from the vendor's side."""

    name: str

    def read(self, body: dict[str, Any], asked: Asked, headers: dict[str, str], known: frozenset[str]) -> None:
        """Check the request as the vendor does and fill ``asked``. ``known``: further parameters to let pass.

        Raises Refused; an empty-handed ``strict=False`` is said by ``"*" in known``.
        """
        ...

    def whole(self, played: Played, asked: Asked) -> bytes:
        """The whole reply."""
        ...

    def pieces(self, played: Played, asked: Asked) -> list[Piece]:
        """The streamed reply."""
        ...

    def error(self, refusal: Refusal, number: int) -> Error:
        """An error answer."""
        ...

    def error_event(self, refusal: Refusal, number: int) -> bytes:
        """An error in the middle of a stream."""
        ...


def invalid(message: str, param: str | None = None, code: str | None = None) -> NoReturn:
    """Refuse the request with the vendor's sentence."""
    raise Refused(Refusal(kind="invalid", message=message, param=param, code=code))
