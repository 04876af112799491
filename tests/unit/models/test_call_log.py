"""The record: what is written, when, and what happens when it cannot be."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from nightkeep.core.clock import new_id
from nightkeep.core.errors import StoreError
from nightkeep.core.messages import Usage
from nightkeep.core.money import MicroUsd
from nightkeep.models.call_queries import (
    FAILED,
    AttemptView,
    CallFilter,
    CallView,
    read_attempt,
    read_call,
    select_attempts,
    select_call,
    select_calls,
    select_totals,
)
from nightkeep.models.call_record import AttemptRecord, CallRecord
from nightkeep.models.calls import Bodies, CallLog, RecordPolicy
from nightkeep.models.sessions import SessionKey, Sessions
from nightkeep.models.wire.base import Stripped
from nightkeep.store import SqliteStore, load_blob
from nightkeep.store.blobs import LOAD_BLOB
from nightkeep.testing.clock import FakeClock

RANDOM = random.Random(7)


class World:
    """A store, a log on it, and hands to make calls with."""

    def __init__(self, directory: Path, bodies: Bodies = "none", max_pages: int | None = None) -> None:
        self.clock = FakeClock()
        self.store = SqliteStore.open(directory, self.clock, pid=os.getpid(), max_pages=max_pages)
        self.sessions = Sessions(1_800, RANDOM)
        self.log = CallLog(self.store, RecordPolicy(bodies=bodies), self.sessions, self.clock, RANDOM)

    def record(self, **more: Any) -> CallRecord:
        known: dict[str, Any] = {
            "id": new_id("call", self.clock.now(), RANDOM),
            "scope": "acme/triage",
            "tag": None,
            "task": None,
            "key": "team",
            "wire": "openai_chat",
            "door": "/v1/chat/completions",
            "operation": "chat",
            "asked": "smart",
            "is_stream": False,
            "started_at": self.clock.now(),
            "request_body": b"question",
        }
        record = CallRecord(**{**known, **more})
        self.log.begin(record)
        return record

    def end(self, record: CallRecord, outcome: str = "success", **more: Any) -> CallRecord:
        record.outcome = outcome
        record.response_body = b"answer"
        for name, value in more.items():
            setattr(record, name, value)
        self.log.finish(record)
        return record

    async def calls(self, **wanted: Any) -> list[CallView]:
        return [read_call(row) for row in await self.store.read(*select_calls(CallFilter(**wanted)))]

    async def attempts(self, call_id: str) -> list[AttemptView]:
        return [read_attempt(row) for row in await self.store.read(*select_attempts(call_id))]

    async def until(self, *outcomes: str) -> list[CallView]:
        """The calls, newest first, once they have ended so; the test's time limit ends a wait that is in vain."""
        while True:
            found = await self.calls(limit=10_000)
            if [view.outcome for view in found] == list(outcomes):
                return found
            await asyncio.sleep(0.001)

    async def written(self, calls: int) -> None:
        sql = "SELECT count(*) FROM calls"
        while await self.store.read(sql) != [(calls,)]:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


async def met(condition: Callable[[], bool]) -> None:
    """Wait for it; the test's time limit ends a wait that is in vain."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.001)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    world.log.close()
    await world.store.close()


async def test_a_finished_call_is_written_with_all_that_is_known_of_it(world: World) -> None:
    usage = Usage(input=10, cache_read=20, output=5, reasoning=2)
    record = world.record(tag="batch", task="planning", agent="codex/1", peer="10.0.0.9", is_stream=True)
    attempt = AttemptRecord(
        n=1, provider="lab", account="lab-1", model="big", wire="gemini", started_at=world.clock.now()
    )
    attempt.outcome, attempt.status, attempt.message, attempt.retry_after_s = "rate_limited", 429, "slow down", 20.0
    second = AttemptRecord(
        n=2, provider="lab", account="lab-2", model="big", wire="gemini", started_at=world.clock.now(), usage=usage
    )
    second.outcome, second.cost = "success", MicroUsd(1_234)
    record.attempts += [attempt, second]
    record.stripped = (Stripped("seed", "gemini has no such parameter"), Stripped("n", "one; only one"))
    world.end(record, usage=usage, cost=MicroUsd(1_234), provider="lab", account="lab-2", served="big", status=200)
    (view,) = await world.until("success")
    assert (view.tag, view.task, view.agent, view.peer, view.is_stream) == (
        "batch",
        "planning",
        "codex/1",
        "10.0.0.9",
        True,
    )
    assert (view.usage, view.cost_micro_usd, view.started_at) == (usage, 1_234, record.started_at)
    assert view.stripped == "seed: gemini has no such parameter\nn: one; only one"
    tried, good = await world.attempts(record.id)
    assert (tried.outcome, tried.status, tried.message, tried.retry_after_s, tried.usage) == (
        "rate_limited", 429, "slow down", 20.0, None,
    )  # fmt: skip
    assert (good.n, good.account, good.usage, good.cost_micro_usd) == (2, "lab-2", usage, 1_234)


async def test_a_call_without_a_price_has_no_cost_and_one_that_cost_nothing_has_zero(world: World) -> None:
    world.end(world.record(), cost=None)
    world.end(world.record(), cost=MicroUsd(0))
    found = await world.until("success", "success")
    assert {view.cost_micro_usd for view in found} == {None, 0}


async def test_a_call_that_ends_at_once_is_never_written_as_running(world: World) -> None:
    written: list[str] = []
    for _ in range(300):
        world.end(world.record())
        written += [view.outcome for view in await world.calls()]
    await world.until(*["success"] * 300)
    assert "running" not in written


async def test_a_call_that_lasts_is_written_as_running_once_and_then_as_it_ended(world: World) -> None:
    record = world.record()
    record.attempts.append(
        AttemptRecord(n=1, provider="p", account="a", model="m", wire="gemini", started_at=world.clock.now())
    )
    world.clock.advance(0.2)
    (view,) = await world.until("running")
    assert view.request_hash is None
    assert [attempt.outcome for attempt in await world.attempts(record.id)] == [""]
    works = world.store.health.works
    world.clock.advance(5)
    await world.store.write(lambda _: None)
    assert world.store.health.works == works + 1
    record.attempts[0].outcome = "success"
    world.end(record)
    await world.until("success")
    assert [attempt.outcome for attempt in await world.attempts(record.id)] == ["success"]


async def test_what_the_last_process_left_running_is_marked_interrupted_in_plain_words(tmp_path: Path) -> None:
    first = World(tmp_path)
    first.record()
    first.log.close()  # as running: it has not ended
    await first.store.close()
    second = World(tmp_path)
    assert await second.log.open() == 1
    (view,) = await second.calls()
    assert view.outcome == "interrupted"
    assert "not known" in (view.error_message or "")
    assert await second.log.open() == 0
    second.log.close()
    await second.store.close()


@pytest.mark.parametrize(
    ("bodies", "outcome", "is_kept"),
    [
        ("none", "success", False),
        ("none", "unavailable", False),
        ("failures", "success", False),
        ("failures", "cancelled", False),
        ("failures", "unavailable", True),
        ("sampled", "unavailable", True),
        ("all", "success", True),
    ],
)
async def test_bodies_are_kept_by_policy(tmp_path: Path, bodies: Bodies, outcome: str, is_kept: bool) -> None:
    world = World(tmp_path, bodies)
    world.end(world.record(), outcome)
    (view,) = await world.until(outcome)
    assert (view.request_blob is not None, view.response_blob is not None) == (is_kept, is_kept)
    assert view.request_hash is not None
    if is_kept:
        kept = [
            load_blob((await world.store.read(LOAD_BLOB, (name,)))[0])
            for name in (view.request_blob, view.response_blob)
        ]
        assert kept == [b"question", b"answer"]
    world.log.close()
    await world.store.close()


async def test_the_partial_text_of_a_cut_stream_is_its_kept_answer(tmp_path: Path) -> None:
    world = World(tmp_path, "failures")
    world.end(world.record(), "cut_stream", response_body=None, partial_text="so far, \ud800")
    (view,) = await world.until("cut_stream")
    assert load_blob((await world.store.read(LOAD_BLOB, (view.response_blob,)))[0]) == b"so far, ?"
    world.log.close()
    await world.store.close()


async def test_a_run_counts_its_calls(world: World) -> None:
    run = world.sessions.join(SessionKey("header", "acme", "s"), "codex/1", world.clock.now())
    world.end(world.record(run=run), usage=Usage(input=3, output=4), cost=MicroUsd(9))
    world.end(world.record(run=run), "unavailable")
    await world.written(2)
    rows = await world.store.read("SELECT id, calls, failures, tokens, cost_micro_usd, unpriced_calls FROM runs")
    assert rows == [(run, 2, 1, 7, 9, 1)]


async def test_a_full_disk_stops_no_call_is_said_and_nothing_is_lost_when_there_is_room_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path, "all", max_pages=70)
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            world.end(world.record(request_body=os.urandom(8_000)))
        await met(lambda: not world.store.health.is_ok)
        world.end(world.record())  # still takes no time and raises nothing
        await met(lambda: "calls are not recorded now" in caplog.text)
        world.clock.advance(2)  # the next try is without the bodies: they fit
        await world.written(51)
    assert world.log.lost == 0
    assert world.log.bodies_lost >= 50
    assert "recorded again" in caplog.text
    world.log.close()
    await world.store.close()


async def test_while_the_store_takes_nothing_memory_is_bounded_and_what_does_not_fit_is_counted(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.store.close()
    with caplog.at_level(logging.ERROR):
        for _ in range(21_000):
            world.end(world.record(request_body=bytes(100_000)))
            if world.log.waiting % 256 == 0:
                await asyncio.sleep(0)
        assert world.log.waiting <= 20_000
    assert world.log.lost + world.log.waiting >= 20_000
    assert len([record for record in caplog.records if "recorded" in record.message]) <= 2


async def test_a_call_that_cannot_be_written_takes_no_other_with_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for asked in ("one", "lone surrogate \ud800", "two"):
        world.end(world.record(asked=asked))
    await met(lambda: world.log.lost > 0)
    found = await world.until("success", "success")
    assert {view.asked for view in found} == {"one", "two"}
    assert world.log.lost == 1


async def test_closing_hands_over_what_has_ended_and_what_runs(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.end(world.record())
    world.clock.advance(1)
    world.record()
    world.log.close()
    await world.store.close()
    again = World(tmp_path)
    assert [view.outcome for view in await again.calls()] == ["running", "success"]
    again.log.close()
    await again.store.close()


async def test_a_purge_forgets_old_calls_with_all_that_hangs_on_them_and_nothing_else(tmp_path: Path) -> None:
    world = World(tmp_path, "all")
    run = world.sessions.join(SessionKey("header", "acme", "old"), "", world.clock.now())
    for n in range(450):
        record = world.record(run=run, request_body=b"old %d" % n)
        record.attempts.append(
            AttemptRecord(n=1, provider="p", account="a", model="m", wire="gemini", started_at=world.clock.now())
        )
        world.end(record)
    world.end(world.record(request_body=b"shared"))
    await world.written(451)
    world.clock.advance(31 * 86_400)
    young = world.end(world.record(request_body=b"shared"))
    await world.written(452)
    assert await world.log.purge() == 451
    assert [view.id for view in await world.calls()] == [young.id]
    assert await world.store.read("SELECT count(*) FROM attempts") == [(0,)]
    assert await world.store.read("SELECT count(*) FROM runs") == [(0,)]
    assert await world.store.read("SELECT count(*) FROM blobs") == [(2,)]  # b"shared" and b"answer"
    world.log.close()
    await world.store.close()


async def test_calls_are_found_by_what_is_known_of_them(world: World) -> None:
    world.end(world.record(scope="acme", tag="batch", asked="gpt-4.1"), account="a-1", served="gpt-4.1-mini")
    world.clock.advance(100)
    world.end(world.record(scope="acme/x", asked="100%_sure"), "unavailable", account="a-2")
    world.end(world.record(scope="acmes"), "cancelled")
    await world.written(3)

    async def scopes(**wanted: Any) -> set[str]:
        return {view.scope for view in await world.calls(**wanted)}

    assert await scopes(scope="acme") == {"acme", "acme/x"}
    assert await scopes(scope="/") == {"acme", "acme/x", "acmes"}
    assert await scopes(model="mini") == {"acme"}
    assert await scopes(model="%_") == {"acme/x"}
    assert await scopes(outcome=FAILED) == {"acme/x"}
    assert await scopes(outcome="cancelled") == {"acmes"}
    assert await scopes(account="a-1", tag="batch") == {"acme"}
    assert await scopes(since=world.clock.now() - timedelta(seconds=50)) == {"acme/x", "acmes"}
    assert len(await world.calls(limit=2)) == 2
    totals = await world.store.read(*select_totals(CallFilter(limit=1)))
    assert totals == [(3, 1, 0, 0, 1)]


async def test_a_call_is_found_by_a_part_of_its_id(world: World) -> None:
    record = world.end(world.record())
    await world.until("success")
    for name in (record.id, record.id[:20], record.id[5:20], record.id[-8:]):
        assert [row[0] for row in await world.store.read(*select_call(name))] == [record.id]
    assert await world.store.read(*select_call("%")) == []


async def test_opening_fails_closed_where_the_store_does(world: World) -> None:
    await world.store.close()
    with pytest.raises(StoreError):
        await world.log.open()
