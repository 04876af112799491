"""A call in hand: what the client asked, who it is, and where the answer goes.

Values and one port; the life of a call is in ``gateway.gateway``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from nightkeep.control.keys import Caller
from nightkeep.models.wire.base import Head, Operation, Wire

__all__ = ["Answer", "Call", "Door"]


class Door(msgspec.Struct, frozen=True):
    """Which endpoint the client used: its wire and what it asks for there."""

    wire: Wire
    operation: Operation
    path: str  # the route's pattern, for records and metrics: bounded cardinality


class Answer(Protocol):
    """Where an answer goes: an HTTP exchange, or a tape that several clients can follow.

    Either ``respond`` once, or ``start``, ``send`` any number of times, ``finish``. Calls after the end
    are ignored.
    """

    @property
    def has_started(self) -> bool:
        """Whether the client has been sent a status."""
        ...

    def respond(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer whole."""
        ...

    def start(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Begin an answer in pieces."""
        ...

    def send(self, data: bytes) -> None:
        """One piece."""
        ...

    async def drain(self) -> None:
        """Wait while the client reads more slowly than we write."""
        ...

    def finish(self) -> None:
        """End an answer in pieces."""
        ...


class Call(msgspec.Struct, kw_only=True):
    """One request of a client, authenticated and read as far as routing needs it."""

    id: str
    door: Door
    head: Head
    body: bytes
    headers: Mapping[str, str]  # the client's, lower-case; never stored
    peer: str
    caller: Caller
    scope: str
    tag: str | None
    task: str | None
    priority: int
    started: float  # monotonic seconds
    deadline: float  # monotonic seconds
    answer: Answer
    run: str | None = None  # the run that this call belongs to (``models.sessions``)
