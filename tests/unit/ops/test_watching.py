"""The shell of watching: it passes everything on, tells once, stops once, and its faults stop nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nightkeep.control.watch import Watch
from nightkeep.control.watch_specs import SameRequestSpec, WatchSpec
from nightkeep.core.messages import Usage
from nightkeep.core.money import MicroUsd
from nightkeep.models.call_record import AttemptRecord, CallRecord
from nightkeep.models.ledger_rows import sent_rows, write_ledger
from nightkeep.models.ledger_tail import LedgerTail
from nightkeep.models.transport import HttpClient
from nightkeep.ops.alert_channels import message_of
from nightkeep.ops.alerts import AlertPolicy, Alerts
from nightkeep.ops.watching import Watching, cost_of
from nightkeep.store.sqlite import SqliteStore
from nightkeep.testing.clock import FakeClock


class Sink:
    def __init__(self) -> None:
        self.begun: list[CallRecord] = []
        self.finished: list[CallRecord] = []

    def begin(self, record: CallRecord) -> None:
        self.begun.append(record)

    def finish(self, record: CallRecord) -> None:
        self.finished.append(record)


def attempt(n: int, **fields: Any) -> AttemptRecord:
    return AttemptRecord(
        n=n, provider="p", account="a", model="m", wire="w", started_at=datetime(2026, 11, 20, tzinfo=UTC), **fields
    )


def record(n: int = 0, body: bytes = b"{}", **fields: Any) -> CallRecord:
    usual: dict[str, Any] = {
        "id": f"call_{n}", "scope": "acme", "tag": None, "task": None, "key": "k", "wire": "openai_chat", "door": "/",
        "operation": "chat", "asked": "smart", "is_stream": False, "request_body": body,
        "started_at": datetime(2026, 11, 20, tzinfo=UTC), "attempts": [attempt(1)],
    }  # fmt: skip
    return CallRecord(**{**usual, **fields})


class Stage:
    def __init__(self, data: Path) -> None:
        self.clock = FakeClock()
        self.store = SqliteStore.open(data, self.clock, pid=1)
        self.client = HttpClient()
        self.alerts = Alerts(self.store, self.client, self.clock, random.Random(1), AlertPolicy())
        self.sink = Sink()
        self.stopped: list[tuple[str, str]] = []
        self.fault: Exception | None = None
        self.has_keys = False
        spec = WatchSpec(same_request=SameRequestSpec(action="pause"))
        self.watching = Watching(
            self.sink, Watch(spec), self.clock, self.alerts, pause=self.pause, has_keys=lambda: self.has_keys
        )

    async def pause(self, scope: str, why: str, rule: str) -> None:
        if self.fault is not None:
            raise self.fault
        self.stopped.append((scope, rule))

    def call(self, times: int = 1, **fields: Any) -> None:
        for n in range(times):
            made = record(n, **fields)
            self.watching.begin(made)
            self.watching.finish(made)
        self.watching.tick()

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    def kinds(self) -> list[str]:
        return sorted(key.split(":")[1] for key in self.alerts.open_keys("watch:"))


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(tmp_path)
    yield made
    await made.watching.close()
    await made.alerts.close()
    await made.store.close()
    made.client.close()


async def test_everything_is_passed_on(stage: Stage) -> None:
    stage.call(3)
    assert [len(stage.sink.begun), len(stage.sink.finished)] == [3, 3]


async def test_a_scope_is_stopped_once_an_episode_and_people_are_told_why(stage: Stage) -> None:
    stage.call(12)
    await stage.settle()
    stage.call(12)
    await stage.settle()
    assert stage.stopped == [("acme", "same_request")]
    assert stage.kinds() == ["paused", "same_request"]
    (alert,) = [each for each in await stage.alerts.find() if each.kind == "paused"]
    assert "nightkeep resume acme" in alert.text
    stage.clock.advance(301)
    stage.watching.tick()
    stage.clock.advance(301)
    stage.watching.tick()
    assert stage.kinds() == ["paused"]
    stage.call(12)
    await stage.settle()
    assert len(stage.stopped) == 2


async def test_a_loop_is_stopped_without_waiting_for_the_next_look(stage: Stage) -> None:
    for n in range(10):
        stage.watching.begin(record(n))
    stage.watching.fold()
    await stage.settle()
    assert stage.stopped == [("acme", "same_request")]


async def test_what_cannot_be_stopped_is_told(stage: Stage) -> None:
    stage.fault = RuntimeError("the switchboard is gone")
    stage.call(12)
    await stage.settle()
    (alert,) = [each for each in await stage.alerts.find() if each.kind == "pause_failed"]
    assert "the switchboard is gone" in alert.text


async def test_a_finding_that_lasts_is_one_alert_that_is_counted(stage: Stage) -> None:
    for _ in range(600):
        stage.clock.advance(1)
        stage.call()
    (alert,) = [each for each in await stage.alerts.find() if each.kind == "same_request"]
    assert 8 <= alert.count <= 13


async def test_large_bodies_are_the_same_only_byte_by_byte(stage: Stage) -> None:
    for n in range(30):
        stage.call(body=b"x" * 5_000 + b"%04d" % n + b"y" * 5_000)
    assert stage.kinds() == []
    for n in range(5):
        assert stage.kinds() == []
        stage.call(body=b"z" * 10_000)
        assert (stage.kinds() == ["same_request"]) == (n == 4)


async def test_calls_without_a_key_are_strays_where_there_are_keys(stage: Stage) -> None:
    usage = Usage(input=2_000)
    stage.call(key="", usage=usage, scope="default")
    assert stage.kinds() == []
    stage.has_keys = True
    stage.watching.tick()
    stage.call(key="", usage=usage, scope="default")
    assert stage.kinds() == ["unattributed"]


async def test_counting_tokens_and_answers_of_the_cache_are_not_watched(stage: Stage) -> None:
    stage.call(20, operation="count_tokens")
    stage.call(20, cache="hit")
    stage.call(20, idempotency="replayed")
    stage.call(20, attempts=[])  # refused before anything was sent
    assert stage.kinds() == []


async def test_names_that_a_client_made_up_do_no_harm_where_they_are_shown(stage: Stage) -> None:
    stage.call(5, asked="\x1b[2J\n<!channel>\u202e\ud800" + "x" * 10_000)
    await stage.alerts.flush()
    assert stage.alerts.health().unsaved == 0
    (alert,) = await stage.alerts.find("all")
    assert alert.text.isprintable()
    assert alert.key.isprintable()
    assert "<!channel>" not in message_of(stage.alerts._episodes.all()[0]).text
    assert len(alert.text) < 500


async def test_what_nobody_said_costs_what_was_held_for_it(stage: Stage) -> None:
    attempts = [
        attempt(1, cost=MicroUsd(5)),
        attempt(2, basis="open", reserved=MicroUsd(70)),
        attempt(3, basis="none", reserved=MicroUsd(900)),
    ]
    assert cost_of(record(attempts=attempts)) == 75


async def test_a_rule_with_a_fault_is_told_and_calls_go_on(stage: Stage) -> None:
    stage.watching.watch.look = lambda now: 1 / 0  # type: ignore[method-assign, assignment]
    stage.call(3)
    assert len(stage.sink.finished) == 3
    assert stage.alerts.open_keys() == ["watching"]


async def test_the_first_of_several_processes_watches_what_the_others_spend(stage: Stage) -> None:
    def spent(n: int, ended: float) -> tuple[Any, ...]:
        spent_row = sent_rows(
            record(n, attempts=[attempt(1, cost=MicroUsd(2_000_000), usage=Usage(input=9), outcome="success")]), "other"
        )[0]
        return (*spent_row[:1], int(ended * 1000), int(ended * 1000), *spent_row[3:])

    now = stage.clock.now().timestamp()
    await stage.store.write(
        lambda transaction: write_ledger(transaction, [spent(n, now - 3_600 * n) for n in range(1, 9)])
    )
    first = Watching(
        stage.sink,
        Watch(WatchSpec()),
        stage.clock,
        stage.alerts,
        elsewhere=LedgerTail(stage.store, "me", stage.clock),
    )
    await first.open(stage.store)
    await first.follow()
    first.tick()
    assert stage.kinds() == []
    stage.clock.advance(2)
    await stage.store.write(
        lambda transaction: write_ledger(transaction, [spent(n, now + n / 100) for n in range(100, 110)])
    )
    await first.follow()
    first.tick()
    assert stage.kinds() == ["spend_rate"]
    (alert,) = await stage.alerts.find()
    assert "$20.00" in alert.text
    await first.follow()
    first.tick()
    (alert,) = await stage.alerts.find()
    assert "$20.00" in alert.text  # nothing is counted twice
    await first.close()


async def test_the_others_of_several_processes_watch_for_equal_requests_only(stage: Stage) -> None:
    other = Watching(stage.sink, Watch(WatchSpec()), stage.clock, stage.alerts, is_first=False)
    assert {view.rule for view in other.view() if view.is_here} == {"same_request"}
    assert all(view.is_on for view in other.view())
    assert "the first worker" in other.view()[0].state
    await other.close()


async def test_an_alert_of_before_a_restart_ends_when_nothing_is_found_any_more(tmp_path: Path, stage: Stage) -> None:
    stage.call(5)
    assert stage.kinds() == ["same_request"]
    again = Watching(stage.sink, Watch(WatchSpec()), stage.clock, stage.alerts)
    await again.open(stage.store)
    again.tick()
    assert stage.kinds() == ["same_request"]
    stage.clock.advance(301)
    again.tick()
    assert stage.kinds() == []
    await again.close()
