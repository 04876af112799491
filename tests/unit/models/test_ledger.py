"""The ledger: a row for each attempt that was sent, and totals that are the sum of their parts, however it is cut."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightkeep.core.clock import new_id
from nightkeep.core.messages import Usage
from nightkeep.core.money import MicroUsd
from nightkeep.core.scope import is_within
from nightkeep.models.call_record import AttemptRecord, CallRecord
from nightkeep.models.calls import CallLog, RecordPolicy
from nightkeep.models.ledger_queries import By, Group, Spend, SpendFilter, fold, select_span, select_spend
from nightkeep.models.ledger_rows import CLASSES, sent_rows, uncached_pico
from nightkeep.models.ledger_savings import project, read_runs, select_runs
from nightkeep.models.prices import Price
from nightkeep.models.sessions import Sessions
from nightkeep.store import SqliteStore
from nightkeep.store.port import Row, Value
from nightkeep.store.schema import load_migrations, statements
from nightkeep.testing.clock import FakeClock

CHANCE = random.Random(9)
START = datetime(2026, 11, 1, 12, tzinfo=UTC)
GROUPINGS: tuple[By, ...] = get_args(By)


def attempt(n: int = 1, **more: Any) -> AttemptRecord:
    known: dict[str, Any] = {
        "provider": "lab", "account": "lab-1", "model": "big", "wire": "openai_chat", "started_at": START,
        "outcome": "success", "duration_ms": 250.0,
    }  # fmt: skip
    return AttemptRecord(n=n, **{**known, **more})


def call(*attempts: AttemptRecord, at: datetime = START, **more: Any) -> CallRecord:
    known: dict[str, Any] = {
        "id": new_id("call", at, CHANCE), "scope": "acme/triage", "tag": None, "task": None, "key": "team",
        "wire": "openai_chat", "door": "/v1/chat/completions", "operation": "chat", "asked": "smart",
        "is_stream": False, "started_at": at, "attempts": list(attempts), "outcome": "success",
    }  # fmt: skip
    return CallRecord(**{**known, **more})


class World:
    """A store and a log on it, as process "p1"."""

    def __init__(self, directory: Path) -> None:
        clock = FakeClock()
        self.store = SqliteStore.open(directory, clock, pid=os.getpid())
        self.log = CallLog(self.store, RecordPolicy(bodies="none"), Sessions(1, CHANCE), clock, CHANCE, "p1")
        self.written: set[str] = set()

    async def write(self, *records: CallRecord) -> None:
        for record in records:
            self.log.begin(record)
            self.log.finish(record)
            self.written.add(record.id)
        wanted = len(self.written)
        while await self.count("calls WHERE outcome <> 'running'") < wanted:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.001)

    async def count(self, what: str) -> int:
        return int((await self.store.read(f"SELECT count(*) FROM {what}"))[0][0] or 0)

    async def rows(self, columns: str) -> list[Row]:
        return await self.store.read(f"SELECT {columns} FROM ledger ORDER BY id")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    world.log.close()
    await world.store.close()


# -- what is written


async def test_each_attempt_that_was_sent_is_a_row_and_those_that_were_refused_are_none(world: World) -> None:
    record = call(
        attempt(1, outcome="rate_limited", account="lab-0"),
        attempt(2, outcome="cut_stream", basis="open", reserved=MicroUsd(700), price="p@1"),
        attempt(3, basis="usage", usage=Usage(input=10, output=5), cost=MicroUsd(35), price="p@1"),
        tag="batch", task="t", run="run_1", release="r7", alias="smart", agent="codex/1",
    )  # fmt: skip
    await world.write(record)
    rows = await world.rows(
        "id, request_id, basis, cost_micro_usd, reserved_micro_usd, is_estimate, estimated_micro_usd, price"
    )
    assert rows == [
        (f"{record.id}/2", f"{record.id}-2", "open", 700, 700, 1, 700, "p@1"),
        (f"{record.id}/3", f"{record.id}-3", "usage", 35, None, 0, 0, "p@1"),
    ]
    who = await world.rows(
        "DISTINCT scope, tag, task, run_id, release_name, alias, asked, agent, key_name, owner, kind"
    )
    assert who == [("acme/triage", "batch", "t", "run_1", "r7", "smart", "smart", "codex/1", "team", "p1", "attempt")]
    assert await world.rows("DISTINCT at, ended_at") == [
        (int(START.timestamp() * 1000), int(START.timestamp() * 1000) + 250)
    ]


@pytest.mark.parametrize(
    ("made", "basis", "cost", "unpriced", "estimate"),
    [
        (attempt(usage=Usage(input=1), cost=MicroUsd(3)), "usage", 3, 0, 0),
        (attempt(usage=Usage(input=1)), "unpriced", 0, 1, 0),
        (attempt(basis="usage", usage=Usage(input=1)), "unpriced", 0, 1, 0),
        (attempt(basis="free", usage=Usage(input=1), cost=MicroUsd(0)), "free", 0, 0, 0),
        (attempt(basis="open"), "open", 0, 0, 1),
        (attempt(basis="open", reserved=MicroUsd(9), cost=MicroUsd(4)), "open", 4, 0, 1),
    ],
)
def test_the_cost_is_never_null_and_says_on_what_grounds_it_stands(
    made: AttemptRecord, basis: str, cost: int, unpriced: int, estimate: int
) -> None:
    (row,) = sent_rows(call(made), "")
    assert (row[19], row[27], row[31], row[29]) == (basis, cost, unpriced, estimate)
    assert row[30] == (cost if estimate else 0)


def test_what_it_would_have_cost_without_a_cache_is_known_where_no_cache_had_a_part_in_it() -> None:
    (plain,) = sent_rows(call(attempt(usage=Usage(input=5), cost=MicroUsd(50))), "")
    (cached,) = sent_rows(call(attempt(usage=Usage(input=5, cache_read=1), cost=MicroUsd(50))), "")
    (told,) = sent_rows(call(attempt(usage=Usage(input=5, cache_read=1), cost=MicroUsd(50), uncached=MicroUsd(60))), "")
    assert (plain[28], cached[28], told[28]) == (50, None, 60)
    price = Price(input=10, output=30, cache_read=1, cache_write_5m=12, cache_write_1h=20)
    usage = Usage(input=1, cache_read=100, cache_write_5m=10, output=2, reasoning=3)
    assert uncached_pico(price, usage) == 111 * 10 + 5 * 30


async def test_writing_a_group_again_changes_nothing(world: World) -> None:
    record = call(attempt(usage=Usage(input=10), cost=MicroUsd(35)))
    await world.write(record)
    before = await world.rows("*")
    await world.write(record)
    await world.write(call(attempt(usage=Usage(input=1), cost=MicroUsd(1)), at=START + timedelta(days=1)))
    assert (await world.rows("*"))[:1] == before


async def test_the_ledger_outlives_the_record_of_calls(world: World) -> None:
    await world.write(call(attempt(usage=Usage(input=10), cost=MicroUsd(35)), at=START - timedelta(days=900)))
    assert await world.log.purge() == 1
    assert await world.rows("cost_micro_usd") == [(35,)]


# -- totals

SCOPES = ("/", "acme", "acme/triage", "acme/triage/run_1", "acme/other", "acme2", "b/c/d/e")
_numbers = st.integers(0, 10**12)
_rows = st.fixed_dictionaries(
    {
        "at": st.integers(0, 400 * 86_400_000).map(lambda ms: int(START.timestamp() * 1000) + ms),
        "kind": st.sampled_from(["attempt", "adjustment"]),
        "scope": st.sampled_from(SCOPES),
        "agent": st.sampled_from(["codex", "claude", ""]),
        "model": st.sampled_from(["big", "small"]),
        "account": st.sampled_from(["a", "b", "c"]),
        "provider": st.sampled_from(["lab", "other"]),
        "tag": st.sampled_from([None, "batch", "health"]),
        "key_name": st.sampled_from(["", "team"]),
        "release_name": st.sampled_from(["", "r1"]),
        "run_id": st.sampled_from([None, "run_1", "run_2"]),
        "basis": st.sampled_from(["usage", "open", "free", "unpriced", "bill", "report", "total"]),
        "outcome": st.sampled_from(["success", "cut_stream", ""]),
        "cost_micro_usd": st.integers(-(10**9), 10**12),
        "uncached_micro_usd": st.none() | _numbers,
        "is_estimate": st.integers(-1, 1),
        "estimated_micro_usd": st.integers(-(10**9), 10**12),
        "is_unpriced": st.integers(-1, 1),
        **{f"{name}_tokens": st.integers(-100, 10**9) for name in CLASSES},
    }
)
FIXED = ("ended_at", "asked", "price", "request_id", "owner")


def ledger_of(rows: Sequence[dict[str, Value]]) -> sqlite3.Connection:
    """A ledger in memory."""
    database = sqlite3.connect(":memory:")
    (migration,) = [each for each in load_migrations() if each.name == "0003_ledger"]
    for statement in statements(migration.sql):
        database.execute(statement)
    for number, row in enumerate(rows):
        full = {"id": str(number), **dict.fromkeys(FIXED, ""), **row}
        marks = ", ".join("?" * len(full))
        database.execute(f"INSERT INTO ledger ({', '.join(full)}) VALUES ({marks})", [*full.values()])
    return database


def groups(database: sqlite3.Connection, wanted: SpendFilter, by: By | None = None, **more: Any) -> list[Group]:
    return fold(database.execute(*select_spend(wanted, by)).fetchall(), by, **more)


def total(found: Sequence[Group]) -> Spend:
    spend = Spend()
    for group in found:
        spend.add(group.spend)
    return spend


@settings(max_examples=60)
@given(st.lists(_rows, max_size=25), st.sampled_from(["UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Apia"]))
def test_totals_are_the_sum_of_their_parts_in_every_grouping(rows: list[dict[str, Value]], zone: str) -> None:
    database = ledger_of(rows)
    (whole,) = groups(database, SpendFilter())
    assert whole.spend.cost_micro_usd == sum(int(row["cost_micro_usd"] or 0) for row in rows)
    for by in GROUPINGS:
        found = groups(database, SpendFilter(), by, zone=zone)
        assert total(found) == whole.spend, by
        assert len({group.name for group in found}) == len(found)
    database.close()


@settings(max_examples=60)
@given(st.lists(_rows, max_size=25))
def test_a_scope_is_what_is_below_it_and_its_own_at_every_level(rows: list[dict[str, Value]]) -> None:
    database = ledger_of(rows)
    for scope in SCOPES:
        (own,) = groups(database, SpendFilter(scope=scope))
        parts = groups(database, SpendFilter(scope=scope), "scope")
        assert all(is_within(group.name, scope) for group in parts)
        assert total(parts) == own.spend
        for depth in range(1, 6):
            assert total(groups(database, SpendFilter(scope=scope), "scope", depth=depth)) == own.spend
    for group in groups(database, SpendFilter(), "scope", depth=1):
        if group.name != "/":
            assert groups(database, SpendFilter(scope=group.name))[0].spend == group.spend
    database.close()


@settings(max_examples=40)
@given(st.lists(_rows, max_size=20), st.integers(0, 400 * 24))
def test_before_and_after_any_moment_are_the_whole(rows: list[dict[str, Value]], hours: int) -> None:
    database = ledger_of(rows)
    at = START + timedelta(hours=hours)
    (before,), (after,) = groups(database, SpendFilter(until=at)), groups(database, SpendFilter(since=at))
    assert total([before, after]) == groups(database, SpendFilter())[0].spend
    database.close()


def test_days_begin_at_midnight_of_the_zone_also_when_the_clocks_change() -> None:
    def at(text: str) -> dict[str, Value]:
        row = dict.fromkeys(("cost_micro_usd", "is_estimate", "estimated_micro_usd", "is_unpriced"), 0)
        tokens = {f"{name}_tokens": 0 for name in CLASSES}
        words = dict.fromkeys(
            ("scope", "agent", "key_name", "release_name", "provider", "account", "model", "basis", "outcome"), ""
        )
        return {
            "at": int(datetime.fromisoformat(text).timestamp() * 1000), "kind": "attempt", **row, **tokens, **words
        }  # fmt: skip

    times = ("2026-10-31T23:59-04:00", "2026-11-01T00:00-04:00", "2026-11-01T23:59-05:00", "2026-11-02T00:00-05:00")
    database = ledger_of([at(text) for text in times])
    found = groups(database, SpendFilter(), "day", zone="America/New_York")
    assert [(group.name, group.spend.requests) for group in found] == [
        ("2026-10-31", 1), ("2026-11-01", 2), ("2026-11-02", 1)
    ]  # fmt: skip
    assert database.execute(*select_span(SpendFilter())).fetchone()[0] == int(
        datetime.fromisoformat(times[0]).timestamp() * 1000
    )
    database.close()


# -- what it means


async def test_a_successful_run_bears_the_cost_of_the_failed_ones(world: World) -> None:
    def one(run: str, outcome: str, cost: int, minutes: int) -> CallRecord:
        at = START + timedelta(minutes=minutes)
        tried = attempt(usage=Usage(input=1), cost=MicroUsd(cost), outcome=outcome)
        return call(tried, run=run, outcome=outcome, at=at)

    await world.write(
        one("run_a", "cut_stream", 100, 0),
        one("run_a", "success", 50, 1),
        one("run_b", "success", 30, 2),
        one("run_b", "cut_stream", 20, 3),
        call(run="run_b", outcome="budget_exhausted", at=START + timedelta(minutes=4)),
        one("run_c", "success", 1, 5),
        call(run="run_c", outcome="budget_exhausted", at=START + timedelta(minutes=6)),
    )
    costs = read_runs(await world.store.read(*select_runs(SpendFilter())))
    assert (costs.runs, costs.successful, costs.cost_micro_usd) == (3, 1, 201)
    assert costs.per_successful_micro_usd == 201
    await world.store.write(lambda transaction: transaction.execute("DELETE FROM calls"))
    costs = read_runs(await world.store.read(*select_runs(SpendFilter())))
    assert (costs.runs, costs.successful) == (3, 2)  # of run_c only its last attempt is known now


def test_a_projection_is_the_average_times_the_load_and_is_rounded_up() -> None:
    spend = Spend(requests=3, cost_micro_usd=1_000_001)
    lines = project(spend, START, START + timedelta(hours=12))
    assert [(line.factor, line.a_day_micro_usd, line.a_month_micro_usd) for line in lines] == [
        (1, 2_000_002, 60_000_060), (10, 20_000_020, 600_000_600), (100, 200_000_200, 6_000_006_000)
    ]  # fmt: skip
    assert lines[0].requests_a_day == 6
    assert project(spend, START, START) == []
