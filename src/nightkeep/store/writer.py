"""The one writer: a thread that takes all that waits, runs it in one transaction, and commits once.

It knows no SQL of its own beyond transactions; ``store.sqlite`` gives it the connection. Each piece of work stands in
a savepoint, so that one that fails takes none of its neighbours with it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from nightkeep.core.clock import Clock
from nightkeep.core.errors import StoreError
from nightkeep.store.port import Row, StoreHealth, Transaction, Value, Work

__all__ = ["GroupWriter", "SqliteTransaction", "store_error"]

_LOG: Final = logging.getLogger(__name__)
_MOST_IN_A_GROUP: Final = 512  # pieces of work; bounds how long the first of them waits
_CHUNKS: Final = (32, 8, 1)  # rows per INSERT: few statements, few plans


def store_error(error: sqlite3.Error) -> StoreError:
    """The store's error for one of SQLite's, with the way out where there is one. ``data``: reason, is_outage."""
    text = str(error)
    hint = ""
    if "full" in text:
        hint = "; free some space where the data directory is"
    elif "readonly" in text or "read-only" in text:
        hint = "; make the data directory writable for this user"
    elif "malformed" in text or "not a database" in text:
        hint = "; move the database away and start again, or restore a copy of it"
    is_outage = isinstance(error, sqlite3.OperationalError)  # the disk or the file, not the statement
    return StoreError(f"the database says: {text}{hint}", reason=text, is_outage=is_outage)


class SqliteTransaction(Transaction):
    """Statements on one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._plans: dict[tuple[str, int, int, str], str] = {}

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> list[Row]:
        """Run one statement."""
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise store_error(error) from error

    def insert(self, into: str, rows: Sequence[Sequence[Value]], after: str = "") -> None:
        """Write rows, up to 32 with a statement: one step outside Python's lock instead of 32."""
        at, left = 0, len(rows)
        for size in _CHUNKS:
            while left >= size:
                sql = self._plan(into, len(rows[at]), size, after)
                values: list[Value] = []
                for row in rows[at : at + size]:
                    values += row
                self.execute(sql, values)
                at += size
                left -= size

    def _plan(self, into: str, width: int, size: int, after: str) -> str:
        key = (into, width, size, after)
        sql = self._plans.get(key)
        if sql is None:
            marks = "(" + ", ".join("?" * width) + ")"
            sql = self._plans[key] = f"INSERT {into} VALUES {', '.join([marks] * size)} {after}"
        return sql


class _GroupLostError(Exception):
    """SQLite gave up the whole transaction (a full disk, an I/O error), not one piece of work."""

    def __init__(self, error: StoreError) -> None:
        super().__init__(error.message)
        self.error = error


class _Item:
    """A piece of work in the queue, and then its result."""

    __slots__ = ("error", "future", "result", "work")

    def __init__(self, work: Work[Any], future: asyncio.Future[Any] | None) -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None


class GroupWriter:
    """Runs work on a connection that is its own."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        clock: Clock,
        *,
        max_queued: int,
        turn: AbstractContextManager[object] | None = None,
    ) -> None:
        """``turn`` is held for each transaction, where other processes write to the same file."""
        self._turn = turn or nullcontext()
        self._connect = connect
        self._clock = clock
        self._max_queued = max_queued
        self._queue: deque[_Item] = deque()
        self._wake = threading.Event()
        self._is_closing = False
        self._groups = self._works = self._failed = self._dropped = 0
        self._failure: tuple[str, Any] | None = None
        self._thread = threading.Thread(target=self._run, name="nightkeep-store", daemon=True)
        self._thread.start()

    # -- for the event loop

    def put(self, work: Work[Any], future: asyncio.Future[Any] | None) -> bool:
        """Queue work; False where there is no room (work that is waited for has ten times the room)."""
        room = self._max_queued if future is None else self._max_queued * 10
        if self._is_closing or len(self._queue) >= room:
            self._dropped += 1
            return False
        self._queue.append(_Item(work, future))
        self._wake.set()  # after the append: the thread clears it before it looks
        return True

    def close(self) -> None:
        """Write what is queued, then end the thread; blocks."""
        self._is_closing = True
        self._wake.set()
        self._thread.join()

    @property
    def health(self) -> StoreHealth:
        """How it goes."""
        failure = self._failure
        return StoreHealth(
            is_ok=failure is None,
            reason=failure[0] if failure else "",
            failing_since=failure[1] if failure else None,
            groups=self._groups,
            works=self._works,
            failed=self._failed,
            dropped=self._dropped,
            queued=len(self._queue),
        )

    # -- the thread

    def _run(self) -> None:
        connection = self._connect()
        transaction = SqliteTransaction(connection)
        while True:
            self._wake.wait()
            self._wake.clear()
            is_last = self._is_closing
            while self._queue:
                self._write_group(connection, transaction, self._take())
            if is_last:
                break
        connection.close()

    def _take(self) -> list[_Item]:
        queue = self._queue
        return [queue.popleft() for _ in range(min(len(queue), _MOST_IN_A_GROUP))]

    def _write_group(self, connection: sqlite3.Connection, transaction: SqliteTransaction, group: list[_Item]) -> None:
        try:
            with self._turn:
                connection.execute("BEGIN IMMEDIATE")
                for item in group:
                    self._do(connection, transaction, item, is_alone=len(group) == 1)
                connection.execute("COMMIT")
        except (sqlite3.Error, _GroupLostError) as error:
            _roll_back(connection)
            failure = error.error if isinstance(error, _GroupLostError) else store_error(error)
            for item in group:
                item.error = item.error or failure
        self._account_for(group)
        _tell(group)

    def _do(
        self, connection: sqlite3.Connection, transaction: SqliteTransaction, item: _Item, *, is_alone: bool
    ) -> None:
        """Do one piece of work. Raises sqlite3.Error or _GroupLostError where the whole transaction is lost."""
        if not is_alone:
            connection.execute("SAVEPOINT work")
        try:
            item.result = item.work(transaction)
        except Exception as error:  # whatever the work does wrong is its owner's to hear
            item.error = error
            if not connection.in_transaction:
                lost = StoreError(f"the transaction was lost: {error}", is_outage=True)
                if isinstance(error, StoreError):
                    lost = StoreError(error.message, **{**error.data, "is_outage": True})
                raise _GroupLostError(lost) from error
            connection.execute("ROLLBACK" if is_alone else "ROLLBACK TO work")
            if is_alone:
                connection.execute("BEGIN")
        if not is_alone:
            connection.execute("RELEASE work")

    def _account_for(self, group: list[_Item]) -> None:
        failures = [item.error for item in group if item.error is not None]
        self._groups += 1
        self._works += len(group) - len(failures)
        self._failed += len(failures)
        broken = next(
            (error for error in failures if isinstance(error, StoreError) and error.data.get("is_outage")), None
        )
        if broken is not None and self._failure is None:
            self._failure = (broken.message, self._clock.now())
            _LOG.error("the store cannot be written: %s", broken.message)
        elif broken is None and len(failures) < len(group) and self._failure is not None:
            _LOG.warning("the store can be written again")
            self._failure = None


def _roll_back(connection: sqlite3.Connection) -> None:
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:  # the next BEGIN will say what is wrong
        _LOG.exception("the store could not roll back")


def _tell(group: list[_Item]) -> None:
    """Finish the futures, with one wake-up per event loop."""
    waited: dict[asyncio.AbstractEventLoop, list[_Item]] = {}
    for item in group:
        if item.future is not None:
            waited.setdefault(item.future.get_loop(), []).append(item)
    for loop, items in waited.items():
        try:
            loop.call_soon_threadsafe(_finish, items)
        except RuntimeError:  # the loop is closed: nobody waits any more
            _LOG.debug("an event loop ended before its work was written")


def _finish(items: list[_Item]) -> None:
    for item in items:
        future = item.future
        if future is None or future.done():
            continue
        if item.error is not None:
            future.set_exception(item.error)
        else:
            future.set_result(item.result)
