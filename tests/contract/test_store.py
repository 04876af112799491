"""What every store promises. Another implementation joins by a line in ``STORES``."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from nightkeep.core.errors import ConflictError, StoreError
from nightkeep.store import Blob, SqliteStore, Store, Transaction, load_blob, open_snapshot, save_blobs
from nightkeep.store.blobs import LOAD_BLOB
from nightkeep.store.schema import Migration, apply_migrations, load_migrations, statements
from nightkeep.testing.clock import FakeClock

Open = Callable[[Path], Store]

STORES: dict[str, Open] = {"sqlite": lambda path: SqliteStore.open(path, FakeClock(), pid=os.getpid())}
INTO = "INTO account_states (account, body, updated_at)"
NAMES = "SELECT account FROM account_states ORDER BY account"


@pytest.fixture(params=STORES)
def open_store(request: pytest.FixtureRequest) -> Open:
    return STORES[request.param]


@pytest.fixture
async def store(open_store: Open, tmp_path: Path) -> AsyncIterator[Store]:
    store = open_store(tmp_path / "data")
    yield store
    await store.close()


def keep(*names: str) -> Callable[[Transaction], int]:
    def work(transaction: Transaction) -> int:
        transaction.insert(INTO, [(name, "{}", 1) for name in names])
        return len(names)

    return work


def fail_after(*names: str) -> Callable[[Transaction], None]:
    def work(transaction: Transaction) -> None:
        transaction.insert(INTO, [(name, "{}", 1) for name in names])
        raise LookupError("the work itself is wrong")

    return work


async def names_in(store: Store) -> list[str]:
    return [str(row[0]) for row in await store.read(NAMES)]


# -- every store


async def test_what_was_written_is_read_and_the_work_gives_its_result(store: Store) -> None:
    assert await store.write(keep("a", "b")) == 2
    assert await names_in(store) == ["a", "b"]


async def test_what_was_acknowledged_is_there_after_opening_again(open_store: Open, tmp_path: Path) -> None:
    first = open_store(tmp_path / "data")
    await first.write(keep("a"))
    await first.close()
    second = open_store(tmp_path / "data")
    assert await names_in(second) == ["a"]
    await second.close()


async def test_what_waits_together_is_committed_together(store: Store) -> None:
    gate = threading.Event()
    first = store.write(lambda _: gate.wait(10))
    rest = [store.write(keep(f"n{n}")) for n in range(100)]
    gate.set()
    await asyncio.gather(first, *rest)
    assert store.health.works == 101
    assert store.health.groups <= 3


async def test_work_is_done_in_the_order_in_which_it_was_queued(store: Store) -> None:
    seen: list[int] = []
    await asyncio.gather(*(store.write(lambda _, n=n: seen.append(n)) for n in range(50)))
    assert seen == list(range(50))


async def test_work_that_fails_is_undone_and_takes_no_neighbour_with_it(store: Store) -> None:
    gate = threading.Event()
    store.post(lambda _: gate.wait(10))
    works = [store.write(keep("before")), store.write(fail_after("never")), store.write(keep("after"))]
    gate.set()
    before, wrong, after = await asyncio.gather(*works, return_exceptions=True)
    assert (before, after) == (1, 1)
    assert isinstance(wrong, LookupError)
    assert await names_in(store) == ["after", "before"]


async def test_work_that_fails_alone_is_undone(store: Store) -> None:
    with pytest.raises(LookupError):
        await store.write(fail_after("never"))
    await store.write(keep("next"))
    assert await names_in(store) == ["next"]


async def test_a_wrong_statement_is_a_store_error_and_no_outage(store: Store) -> None:
    await store.write(keep("a"))
    with pytest.raises(StoreError):
        await store.write(keep("a"))
    assert store.health.is_ok
    assert store.health.failed == 1


async def test_queries_cannot_write(store: Store) -> None:
    with pytest.raises(StoreError):
        await store.read("DELETE FROM account_states")


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 31, 32, 33, 100])
async def test_any_number_of_rows_is_inserted_once_each(store: Store, count: int) -> None:
    await store.write(keep(*(f"{n:03}" for n in range(count))))
    assert await names_in(store) == [f"{n:03}" for n in range(count)]


async def test_posted_work_over_the_bound_is_dropped_and_counted(store: Store) -> None:
    gate, is_held = threading.Event(), threading.Event()

    def hold(_: Transaction) -> None:
        is_held.set()
        gate.wait(10)

    store.post(hold)
    assert is_held.wait(10)
    took = [store.post(lambda _: None) for _ in range(1_200)]
    gate.set()
    assert not all(took)
    await store.write(lambda _: None)  # who waits still finds room
    assert store.health.dropped == took.count(False)


async def test_closing_writes_what_is_queued_and_may_be_done_twice(open_store: Open, tmp_path: Path) -> None:
    store = open_store(tmp_path / "data")
    for n in range(20):
        store.post(keep(f"{n:02}"))
    await store.close()
    await store.close()
    with pytest.raises(StoreError):
        await store.write(keep("late"))
    again = open_store(tmp_path / "data")
    assert len(await names_in(again)) == 20
    await again.close()


@pytest.mark.parametrize("data", [b"", b"x", b"short", os.urandom(5_000), b'{"a": 1}' * 1_000], ids=len)
async def test_a_body_comes_back_as_it_was(store: Store, data: bytes) -> None:
    blob = Blob.of(data)
    await store.write(lambda transaction: save_blobs(transaction, [blob, blob], 1))
    assert load_blob((await store.read(LOAD_BLOB, (blob.hash,)))[0]) == data


async def test_a_body_is_kept_once_until_the_last_that_refers_to_it(store: Store) -> None:
    blob = Blob.of(b"the same")
    for at in (5, 9, 7):
        await store.write(lambda transaction, at=at: save_blobs(transaction, [blob], at))
    assert await store.read("SELECT count(*), max(last_at) FROM blobs") == [(1, 9)]


# -- SQLite


async def test_a_second_owner_is_turned_away_and_told_who_has_it(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path, FakeClock(), pid=4711)
    with pytest.raises(ConflictError, match=r"process 4711.*--data"):
        SqliteStore.open(tmp_path, FakeClock(), pid=1)
    await store.close()
    await SqliteStore.open(tmp_path, FakeClock(), pid=1).close()


async def test_nobody_else_may_read_the_data_directory(tmp_path: Path) -> None:
    data = tmp_path / "data"
    store = SqliteStore.open(data, FakeClock(), pid=1)
    await store.write(keep("a"))
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in data.iterdir()} == {0o600}
    await store.close()


async def test_a_full_disk_is_said_once_and_writing_goes_on_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteStore.open(tmp_path, FakeClock(), pid=1, max_pages=60)
    big = b"".join(os.urandom(4_000) for _ in range(100))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with pytest.raises(StoreError, match="full") as caught:
                await store.write(lambda transaction: save_blobs(transaction, [Blob.of(big)], 1))
            assert caught.value.data["is_outage"]
        assert not store.health.is_ok
        assert "full" in store.health.reason
        await store.write(keep("small"))
    assert store.health.is_ok
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    await store.close()


async def test_a_full_disk_fails_the_whole_group_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path, FakeClock(), pid=1, max_pages=60)
    await store.write(keep("acknowledged"))
    gate = threading.Event()
    store.post(lambda _: gate.wait(10))
    big = Blob.of(b"".join(os.urandom(4_000) for _ in range(100)))
    works = [store.write(keep("beside")), store.write(lambda transaction: save_blobs(transaction, [big], 1))]
    gate.set()
    results = await asyncio.gather(*works, return_exceptions=True)
    assert isinstance(results[1], StoreError)
    found = await names_in(store)
    assert "acknowledged" in found
    assert ("beside" in found) == (not isinstance(results[0], StoreError))
    await store.close()


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--data"):
        SqliteStore.open(tmp_path / "file" / "data", FakeClock(), pid=1)


def test_a_file_that_is_no_database_is_a_clear_error_and_the_lock_is_given_back(tmp_path: Path) -> None:
    (tmp_path / "nightkeep.db").write_bytes(b"no database at all, but long enough to be looked at" * 100)
    for _ in range(2):
        with pytest.raises(StoreError, match="move the database away"):
            SqliteStore.open(tmp_path, FakeClock(), pid=1)


async def test_a_snapshot_reads_beside_the_owner_and_after_it(tmp_path: Path) -> None:
    assert open_snapshot(tmp_path) is None
    store = SqliteStore.open(tmp_path, FakeClock(), pid=1)
    await store.write(keep("a"))
    beside = open_snapshot(tmp_path)
    assert beside is not None
    assert beside.read(NAMES) == [("a",)]
    with pytest.raises(StoreError):
        beside.read("DELETE FROM account_states")
    beside.close()
    await store.close()
    after = open_snapshot(tmp_path)
    assert after is not None
    assert after.read(NAMES) == [("a",)]
    after.close()


# -- migrations


class Recorder:
    """A transaction that remembers what it was told, and knows some applied migrations."""

    def __init__(self, applied: list[tuple[int, str, str]]) -> None:
        self.applied = applied
        self.told: list[str] = []

    def execute(self, sql: str, parameters: object = ()) -> list[tuple[int, str, str]]:
        self.told.append(sql)
        return self.applied if sql.startswith("SELECT number") else []

    def insert(self, into: str, rows: object, after: str = "") -> None:
        raise AssertionError


ONE, TWO = Migration(1, "0001_one", "CREATE TABLE a (x);\n"), Migration(2, "0002_two", "CREATE TABLE b (x);\n")


def test_only_missing_migrations_are_applied_in_order() -> None:
    recorder = Recorder([(1, ONE.name, ONE.hash)])
    assert apply_migrations(recorder, (ONE, TWO), 1) == [TWO.name]
    assert "CREATE TABLE b (x);" in recorder.told
    assert "CREATE TABLE a (x);" not in recorder.told


def test_a_changed_migration_is_refused() -> None:
    with pytest.raises(StoreError, match="never change"):
        apply_migrations(Recorder([(1, ONE.name, TWO.hash)]), (ONE, TWO), 1)


def test_a_database_of_a_newer_version_is_refused() -> None:
    with pytest.raises(StoreError, match="newer version"):
        apply_migrations(Recorder([(1, ONE.name, ONE.hash), (2, TWO.name, TWO.hash)]), (ONE,), 1)


def test_migrations_are_numbered_without_gaps_and_whole() -> None:
    migrations = load_migrations()
    assert [migration.number for migration in migrations] == list(range(1, len(migrations) + 1))
    for migration in migrations:
        assert all(statement.rstrip().endswith(";") for statement in statements(migration.sql))
