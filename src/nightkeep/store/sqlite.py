"""The store on SQLite: WAL, ``synchronous=FULL``, one grouped writer, readers beside it.

A commit is on the disk when its future is done (WAL with FULL: one fsync a group; https://sqlite.org/wal.html). The
data directory has one owner (``store.directory``); the command line reads beside it with ``open_snapshot``.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from nightkeep.core.clock import Clock
from nightkeep.core.errors import StoreError
from nightkeep.store.directory import DirectoryLock, WriteTurn, private_file
from nightkeep.store.port import Row, StoreHealth, Value, Work
from nightkeep.store.schema import apply_migrations, load_migrations
from nightkeep.store.writer import GroupWriter, SqliteTransaction, store_error

__all__ = ["DATABASE_NAME", "Snapshot", "SqliteStore", "open_snapshot"]

DATABASE_NAME: Final = "nightkeep.db"
_LOG: Final = logging.getLogger(__name__)
_BUSY_MS: Final = 5_000  # the command line may hold a read; nobody else writes
_READERS: Final = 2
_CHECKED_BYTES: Final = 64 << 20  # after a crash a database up to this size is checked whole (about 0.1 s)
_CHECKPOINT_PAGES: Final = 2_000  # 8 MB of log before it is folded into the main file

T = TypeVar("T")


class SqliteStore:
    """A ``Store`` in one file of a data directory."""

    def __init__(self, directory: Path, lock: DirectoryLock | None, writer: GroupWriter) -> None:
        """Use ``open`` or ``join``."""
        self._is_open = True
        self.directory = directory
        self._lock = lock  # None: another process owns the directory, this one works beside it
        self._writer = writer
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="nightkeep-read")
        self._looker = ThreadPoolExecutor(1, thread_name_prefix="nightkeep-look")

    @classmethod
    def open(
        cls,
        directory: Path,
        clock: Clock,
        *,
        pid: int,
        max_queued: int = 1_000,
        max_pages: int | None = None,
        is_shared: bool = False,
    ) -> SqliteStore:
        """Own the data directory and bring its database up to date.

        ``pid`` is told to a second process that wants the directory. ``max_pages`` bounds the file (pages of 4096
        bytes); writing past it fails as on a full disk. ``is_shared``: others will ``join``.

        Raises:
            ConflictError: another process owns the directory.
            StoreError: it cannot be used, is damaged, or was made by a newer version.
        """
        lock = DirectoryLock(directory, pid)
        path = directory / DATABASE_NAME
        try:
            private_file(path)
            _prepare(path, clock, is_after_crash=not lock.was_left_in_order)
        except (sqlite3.Error, OSError) as error:
            lock.release()
            raise (
                store_error(error)
                if isinstance(error, sqlite3.Error)
                else StoreError(f"{path} cannot be opened: {error.strerror}")
            ) from error
        except StoreError:
            lock.release()
            raise
        turn = WriteTurn(directory) if is_shared else None
        writer = GroupWriter(lambda: _connect(path, max_pages), clock, max_queued=max_queued, turn=turn)
        return cls(directory, lock, writer)

    @classmethod
    def join(cls, directory: Path, clock: Clock, *, max_queued: int = 1_000) -> SqliteStore:
        """Work on the database of a directory that another process owns (``open``): a worker of its.

        Writers of several processes take turns (``store.directory.WriteTurn``).

        Raises:
            StoreError: it cannot be used, or is not of this version.
        """
        path = directory / DATABASE_NAME
        try:
            connection = _connect(path, None)
            try:
                rows = connection.execute("SELECT number, hash FROM schema_migrations ORDER BY number").fetchall()
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise store_error(error) from error
        if rows != [(migration.number, migration.hash) for migration in load_migrations()]:
            raise StoreError(f"{path} is not of this version; start 'nightkeep up' anew, with all its workers")
        turn = WriteTurn(directory)
        return cls(directory, None, GroupWriter(lambda: _connect(path, None), clock, max_queued=max_queued, turn=turn))

    @property
    def health(self) -> StoreHealth:
        """How writing goes."""
        return self._writer.health

    def write(self, work: Work[T]) -> asyncio.Future[T]:
        """Queue work; done when durable."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if not self._writer.put(work, future):
            future.set_exception(
                StoreError("the store is closed or its queue is full; nothing was written", is_outage=True)
            )
        return future

    def post(self, work: Work[object]) -> bool:
        """Queue work that nobody waits for."""
        return self._writer.put(work, None)

    async def read(self, sql: str, parameters: Sequence[Value] = ()) -> list[Row]:
        """Run a query on a reader's thread."""
        if not self._is_open:
            raise StoreError("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, sql, parameters)

    async def look(self, sql: str, parameters: Sequence[Value] = ()) -> list[Row]:
        """Run a query that answers at once, on a thread that long ones never have."""
        if not self._is_open:
            raise StoreError("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._looker, self._read, sql, parameters)

    def _read(self, sql: str, parameters: Sequence[Value]) -> list[Row]:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        try:
            if connection is None:
                connection = self._local.connection = _connect_reader(self.directory / DATABASE_NAME)
                self._connections.append(connection)
            return connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise store_error(error) from error

    async def close(self) -> None:
        """Write what is queued and let go of the directory."""
        if not self._is_open:
            return
        self._is_open = False
        await asyncio.get_running_loop().run_in_executor(None, self._close)
        if self._lock is not None:
            self._lock.release()

    def _close(self) -> None:
        self._readers.shutdown()
        self._looker.shutdown()
        for connection in self._connections:
            connection.close()
        self._writer.close()


class Snapshot:
    """A database read from beside its owner, or without one; for the command line."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def read(self, sql: str, parameters: Sequence[Value] = ()) -> list[Row]:
        """Run a query. Raises StoreError."""
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise store_error(error) from error

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


def open_snapshot(directory: Path) -> Snapshot | None:
    """Open a data directory's database for reading; None where there is none yet.

    Raises:
        StoreError: it cannot be read.
    """
    path = directory / DATABASE_NAME
    if not path.exists() or not path.stat().st_size:
        return None
    try:
        connection = _connect_reader(path)
        connection.execute("SELECT number FROM schema_migrations LIMIT 1").fetchall()
    except sqlite3.Error as error:
        raise store_error(error) from error
    return Snapshot(connection)


def _prepare(path: Path, clock: Clock, *, is_after_crash: bool) -> None:
    connection = _connect(path, None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        if is_after_crash:
            _check(connection, path)
        connection.execute("BEGIN IMMEDIATE")
        now_ms = int(clock.now().timestamp() * 1000)
        applied = apply_migrations(SqliteTransaction(connection), load_migrations(), now_ms)
        connection.execute("COMMIT")
        if applied:
            _LOG.info("the database %s was brought up to date: %s", path, ", ".join(applied))
    finally:
        connection.close()


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """After a crash: what was committed is in the log and is found again by SQLite; here a look that all is whole."""
    if path.stat().st_size > _CHECKED_BYTES:
        _LOG.warning("the last owner of %s did not close it; it is recovered, too large to be checked whole", path)
        return
    rows = connection.execute("PRAGMA quick_check(1)").fetchall()
    if rows != [("ok",)]:
        raise StoreError(
            f"the database {path} is damaged: {rows[0][0]}; move it away and start again, or restore a copy of it"
        )


def _connect(path: Path, max_pages: int | None) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
    for pragma in (
        f"busy_timeout={_BUSY_MS}",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"wal_autocheckpoint={_CHECKPOINT_PAGES}",
        "temp_store=MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}")
    if max_pages is not None:
        connection.execute(f"PRAGMA max_page_count={max_pages}")
    return connection


def _connect_reader(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    connection.execute("PRAGMA query_only=ON")
    return connection
