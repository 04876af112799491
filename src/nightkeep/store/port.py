"""What a store promises, whatever database is behind it.

Implementations: ``store.sqlite``. ``tests/contract/test_store.py`` is run over each of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

import msgspec

__all__ = ["Row", "Store", "StoreHealth", "Transaction", "Value", "WatchedStore", "Work"]

Value = str | int | float | bytes | None
"""What a column holds. Times are integers, milliseconds since 1970 in UTC."""

Row = tuple[Value, ...]
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Transaction(Protocol):
    """The writing side, for the time of one piece of work; for the writer's thread only.

    SQL is what SQLite 3.24 and PostgreSQL both read, with ``?`` for parameters.
    """

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> list[Row]:
        """Run one statement; give its rows. Raises StoreError."""
        ...

    def insert(self, into: str, rows: Sequence[Sequence[Value]], after: str = "") -> None:
        """Write many rows with few statements: ``INSERT <into> VALUES (…), (…) … <after>``. Raises StoreError.

        ``into`` is such as ``INTO t (a, b)``; ``after`` may say what happens on a conflict.
        """
        ...


Work = Callable[[Transaction], T_co]
"""A piece of work: all of it is written, or nothing. May be run twice (its first try rolled back)."""


class StoreHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How writing goes."""

    is_ok: bool
    reason: str = ""  # why not, in the database's words
    failing_since: datetime | None = None
    groups: int = 0  # transactions committed
    works: int = 0  # pieces of work written in them
    failed: int = 0  # pieces of work that were not written
    dropped: int = 0  # posted pieces of work that found the queue full
    queued: int = 0  # waiting now


class Store(Protocol):
    """One database with one grouped writer and many readers. Its methods are for one event loop."""

    @property
    def health(self) -> StoreHealth:
        """How writing goes; cheap."""
        ...

    def write(self, work: Work[T]) -> asyncio.Future[T]:
        """Queue work. The future is done when the work is durable, with what the work returned.

        It fails with StoreError where the work could not be written (or with the work's own error). Work is done
        in the order in which it was queued, and what waits together is committed together.
        """
        ...

    def post(self, work: Work[object]) -> bool:
        """Queue work that nobody waits for; False where the queue is full and it was dropped. Failures are counted."""
        ...

    async def read(self, sql: str, parameters: Sequence[Value] = ()) -> list[Row]:
        """Run a query beside the writer; sees all that was durable when it began. Raises StoreError."""
        ...

    async def close(self) -> None:
        """Write what is queued, then let go of the data directory. May be called twice."""
        ...


class WatchedStore(Store, Protocol):
    """A store that a control looks at all the time, and closes when it cannot (``control.switches``)."""

    async def look(self, sql: str, parameters: Sequence[Value] = ()) -> list[Row]:
        """``read`` for a query that answers at once: never behind long ones. Raises StoreError."""
        ...
