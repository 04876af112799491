"""Reconciling: the ledger ends where the bill does, twice changes nothing, and every difference has a name."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightkeep.core.clock import new_id
from nightkeep.core.errors import RequestError
from nightkeep.core.messages import Usage
from nightkeep.core.money import MicroUsd
from nightkeep.models.call_record import AttemptRecord, CallRecord
from nightkeep.models.call_rows import RUNNING, attempt_rows, call_row, write_rows
from nightkeep.models.ledger_check import check_ledger
from nightkeep.models.ledger_owners import OwnedSpend, spent_of
from nightkeep.models.ledger_rows import request_id, sent_rows, write_ledger
from nightkeep.models.reconcile import Adjustment, Attribution, Known, Period, by_request, plan_requests
from nightkeep.models.reconciliation import Reconciliation, reconcile
from nightkeep.models.usage_report import Billed, CsvReport, SimReport
from nightkeep.store import SqliteStore
from nightkeep.store.port import Row, Transaction
from nightkeep.testing.clock import FakeClock

CHANCE = random.Random(4)
START = datetime(2026, 11, 1, 12, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
HOUR = Period(since_ms=START_MS, until_ms=START_MS + 3_600_000)


def made(cost: int | None, *, basis: str = "usage", run: str | None = None, **more: Any) -> CallRecord:
    tried = AttemptRecord(
        n=1, provider="lab", account="lab-1", model="big", wire="openai_chat", started_at=START, outcome="success",
        usage=None if basis == "open" else Usage(input=10, output=2), cost=None if cost is None else MicroUsd(cost),
        basis=basis,  # type: ignore[arg-type]
        reserved=MicroUsd(900),
    )  # fmt: skip
    known: dict[str, Any] = {
        "id": new_id("call", START, CHANCE), "scope": "acme/triage", "tag": "batch", "task": None, "key": "team",
        "wire": "openai_chat", "door": "/d", "operation": "chat", "asked": "smart", "is_stream": False,
        "started_at": START, "attempts": [tried], "outcome": "success", "cost": tried.cost or tried.reserved,
    }  # fmt: skip
    return CallRecord(**{**known, **more, "run": run})


def billed(call: str, micro_usd: int, *, at: datetime = START, **more: Any) -> Billed:
    known: dict[str, Any] = {
        "at_ms": int(at.timestamp() * 1000), "account": "their-name", "model": "big",
        "usage": Usage(input=10, output=2), "micro_usd": micro_usd, "request_id": request_id(call, 1) if call else "",
    }  # fmt: skip
    return Billed(**{**known, **more})


class World:
    """A store with a ledger, and a reconciliation of it."""

    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock()
        self.store = SqliteStore.open(directory, self.clock, pid=os.getpid())
        self.settled: list[Adjustment] = []
        self.told = 0

    async def spend(self, *records: CallRecord, owner: str = "p1") -> None:
        def write(transaction: Transaction) -> None:
            for record in records:
                write_rows(transaction, [call_row(record, record.outcome)], attempt_rows(record))
                write_ledger(transaction, sent_rows(record, owner))

        await self.store.write(write)

    async def run(self, record: CallRecord) -> None:
        """A call that is written down as running: what a crash leaves."""
        await self.store.write(
            lambda transaction: write_rows(transaction, [call_row(record, RUNNING)], attempt_rows(record))
        )

    async def reconcile(self, *lines: Billed, period: Period = HOUR, **more: Any) -> Reconciliation:
        async def on_settled(done: Reconciliation) -> None:
            self.settled += done.adjustments
            self.told += 1

        return await reconcile(
            self.store, list(lines), ["lab"], period, self.clock, CHANCE, made_by="test", on_settled=on_settled, **more
        )

    async def rows(self, columns: str = "*", where: str = "1 = 1") -> list[Row]:
        return await self.store.read(f"SELECT {columns} FROM ledger WHERE {where} ORDER BY id")

    async def total(self) -> int:
        return int((await self.rows("coalesce(sum(cost_micro_usd), 0)"))[0][0] or 0)

    async def is_sound(self) -> bool:
        checked = await check_ledger(self.store, lambda *_: None)
        assert not checked.violations
        return checked.is_sound


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.store.close()


def kinds(done: Reconciliation) -> list[str]:
    return [each.kind for each in done.differences]


async def test_an_estimate_becomes_what_was_billed(world: World) -> None:
    call = made(None, basis="open")
    await world.spend(call)
    assert await world.total() == 900
    done = await world.reconcile(billed(call.id, 120))
    assert (kinds(done), done.is_settled, done.before_micro_usd, done.after_micro_usd) == (["settled"], True, 900, 120)
    assert await world.rows("sum(cost_micro_usd), sum(is_estimate), sum(estimated_micro_usd), sum(input_tokens)") == [
        (120, 0, 0, 10)
    ]
    assert await world.rows("DISTINCT scope, tag, key_name, owner, at, account") == [
        ("acme/triage", "batch", "team", "p1", START_MS, "lab-1")
    ]
    (adjusted,) = world.settled
    assert (adjusted.request_id, adjusted.micro_usd, adjusted.owner) == (request_id(call.id, 1), -780, "p1")
    assert await world.is_sound()


async def test_an_estimate_that_was_never_billed_becomes_nothing(world: World) -> None:
    paid, cut = made(50), made(None, basis="open")
    await world.spend(paid, cut)
    done = await world.reconcile(billed(paid.id, 50))
    assert [(each.kind, each.ours_micro_usd, each.billed_micro_usd) for each in done.differences] == [
        ("settled", 900, None)
    ]
    assert done.is_settled
    assert await world.total() == 50
    assert await world.is_sound()


async def test_what_was_reported_to_us_and_is_not_billed_is_named_and_stays(world: World) -> None:
    call = made(50)
    await world.spend(call)
    done = await world.reconcile()
    assert kinds(done) == ["unbilled"]
    assert await world.total() == 50
    assert not done.is_settled


async def test_what_was_billed_otherwise_is_corrected_and_named_with_both_numbers(world: World) -> None:
    call = made(50)
    await world.spend(call)
    done = await world.reconcile(billed(call.id, 55))
    (found,) = done.differences
    assert (found.kind, found.ours_micro_usd, found.billed_micro_usd, found.is_booked) == ("corrected", 50, 55, True)
    assert await world.total() == 55


async def test_what_a_crash_lost_is_booked_where_the_record_says_it_belongs(world: World) -> None:
    known, lost = made(50), made(None, run="run_1")
    lost.attempts[0].account, lost.attempts[0].outcome = "lab-7", ""
    await world.spend(known)
    await world.run(lost)
    done = await world.reconcile(billed(known.id, 50), billed(lost.id, 70))
    assert (kinds(done), done.is_settled) == (["lost"], True)
    assert await world.rows(
        "basis, kind, scope, tag, run_id, provider, account, cost_micro_usd, call_id, outcome", "basis = 'report'"
    ) == [("report", "adjustment", "acme/triage", "batch", "run_1", "lab", "lab-7", 70, lost.id, "interrupted")]
    assert await world.is_sound()


async def test_an_attempt_that_seemed_unbilled_and_was_not_is_booked_as_it_ended(world: World) -> None:
    refused = made(None, basis="none")
    refused.attempts[0].usage, refused.attempts[0].outcome, refused.cost = None, "overloaded", None
    await world.spend(refused)
    assert await world.total() == 0
    done = await world.reconcile(billed(refused.id, 12))
    assert kinds(done) == ["lost"]
    assert await world.rows("outcome, note, scope") == [
        ("overloaded", "billed, though it had ended as overloaded", "acme/triage")
    ]
    assert await world.total() == 12


async def test_what_nobody_knows_is_booked_to_all_as_unattributed_on_the_account_we_know(world: World) -> None:
    known = made(50)
    await world.spend(known)
    stranger = new_id("call", START, CHANCE)
    await world.reconcile(billed(known.id, 50), billed(stranger, 70))
    assert await world.rows("scope, provider, account, note", "basis = 'report'") == [
        ("/", "lab", "lab-1", "lost by a crash; unattributed")
    ]
    assert await world.total() == 120


async def test_crashed_owners_may_say_whose_it_was(world: World) -> None:
    stranger = new_id("call", START, CHANCE)

    def whose(line: Billed) -> Attribution:
        return Attribution(scope="acme/crashed", provider="lab", account="lab-3", owner="p9", note="")

    await world.reconcile(billed(stranger, 70), attribute=whose)
    assert await world.rows("scope, account, owner", "basis = 'report'") == [("acme/crashed", "lab-3", "p9")]
    assert world.settled[0].owner == "p9"


async def test_what_a_dead_process_has_spent_is_never_less_than_was_billed(world: World) -> None:
    mine, open_one, others = made(50), made(None, basis="open", scope="acme/b"), made(7)
    await world.spend(mine, open_one, owner="p1")
    await world.spend(others, owner="p2")
    assert await spent_of(world.store, ["p1"], "acme") == OwnedSpend(micro_usd=950, tokens=12, requests=2, estimates=1)
    lost = new_id("call", START, CHANCE)
    await world.reconcile(*[billed(each.id, 50) for each in (mine, open_one)], billed(others.id, 7), billed(lost, 30))
    assert await spent_of(world.store, ["p1"], "acme") == OwnedSpend(
        micro_usd=130, tokens=36, requests=3, estimates=0
    )  # what nobody knows counts against everybody
    assert (await spent_of(world.store, ["p1"], "acme/b")).micro_usd == 80
    assert (await spent_of(world.store, ["p1", "p2"], "/")).micro_usd == 137
    assert (await spent_of(world.store, ["p1"], "/", since_ms=START_MS + 1)).micro_usd == 0
    assert (await spent_of(world.store, [], "globex")).micro_usd == 30


async def test_a_call_that_still_runs_is_left_for_the_next_time(world: World) -> None:
    running = made(None)
    await world.run(running)
    live = Period(since_ms=START_MS, until_ms=START_MS + 3_600_000, is_live=True, grace_ms=5_000)
    done = await world.reconcile(billed(running.id, 70), period=live)
    assert kinds(done) == ["in_flight"]
    young = billed(new_id("call", START, CHANCE), 5, at=START + timedelta(minutes=59, seconds=57))
    assert kinds(await world.reconcile(young, period=live)) == ["in_flight"]
    assert await world.total() == 0


async def test_an_estimate_that_only_just_ended_is_left_for_the_next_time(world: World) -> None:
    call = made(None, basis="open")
    await world.spend(call)
    soon = Period(since_ms=START_MS, until_ms=START_MS + 1_000, grace_ms=5_000)
    assert kinds(await world.reconcile(period=soon)) == ["in_flight"]
    assert await world.total() == 900


async def test_a_row_that_comes_after_its_report_is_taken_back(world: World) -> None:
    late = made(70)
    await world.reconcile(billed(late.id, 70))
    await world.spend(late)
    assert await world.total() == 140
    await world.reconcile(billed(late.id, 70))
    assert await world.total() == 70
    assert await world.is_sound()


async def test_reconciling_twice_changes_nothing(world: World) -> None:
    calls = [made(50), made(None, basis="open"), made(None, basis="open"), made(None)]
    await world.spend(*calls)
    lines = [billed(calls[0].id, 51), billed(calls[1].id, 3), billed(new_id("call", START, CHANCE), 9)]
    await world.reconcile(*lines)
    before = await world.rows(), await world.store.read("SELECT * FROM reconciliations")
    done = await world.reconcile(*lines)
    assert (await world.rows(), await world.store.read("SELECT * FROM reconciliations")) == before
    assert done.adjustments == []
    assert done.is_settled
    assert world.told == 2  # also when there was nothing to book: nothing is open any more


async def test_reconciling_twice_at_once_books_once_and_both_say_that_it_is_settled(world: World) -> None:
    calls = [made(50), made(None, basis="open"), made(None, basis="open")]
    await world.spend(*calls)
    lines = [billed(calls[0].id, 51), billed(calls[1].id, 3), billed(new_id("call", START, CHANCE), 9)]
    both = await asyncio.gather(*(world.reconcile(*lines) for _ in range(4)))
    assert await world.total() == 63
    assert [done.is_settled for done in both] == [True] * 4
    assert sum(len(done.adjustments) for done in both) == 4
    assert await world.is_sound()


async def test_what_was_never_sent_by_us_is_named_and_booked_only_if_asked(world: World) -> None:
    foreign = billed("", 8, request_id="somebody-else", line="req_1")
    assert kinds(await world.reconcile(foreign)) == ["foreign"]
    assert await world.total() == 0
    books = Period(since_ms=START_MS, until_ms=START_MS + 3_600_000, books_all=True)
    assert (await world.reconcile(foreign, period=books)).is_settled
    assert (await world.reconcile(foreign, period=books)).adjustments == []
    assert await world.total() == 8


async def test_a_report_without_requests_is_compared_by_account_model_and_day(world: World) -> None:
    await world.spend(made(50), made(70))
    line = billed("", 100, account="lab-1", requests=2)
    done = await world.reconcile(line)
    (found,) = done.differences
    assert (found.kind, found.ours_micro_usd, found.billed_micro_usd, found.is_booked) == ("total", 120, 100, False)
    assert await world.total() == 120
    books = Period(since_ms=None, until_ms=START_MS + 90_000_000, books_all=True)
    assert (await world.reconcile(line, period=books)).is_settled
    assert await world.total() == 100
    assert (await world.reconcile(line, period=books)).adjustments == []
    assert await world.is_sound()


async def test_a_request_billed_in_two_lines_is_their_sum(world: World) -> None:
    call = made(None, basis="open")
    await world.spend(call)
    await world.reconcile(billed(call.id, 30), billed(call.id, 12))
    assert await world.total() == 42


async def test_what_is_known_from_before_the_report_is_found_by_its_name(world: World) -> None:
    call = made(None, basis="open")
    await world.spend(call)
    later = Period(since_ms=START_MS + 10_000, until_ms=START_MS + 3_600_000)
    assert kinds(await world.reconcile(billed(call.id, 30, at=START + timedelta(seconds=11)), period=later)) == [
        "settled"
    ]
    assert await world.total() == 30


async def test_what_was_spent_before_or_after_the_report_is_not_compared(world: World) -> None:
    early, within, late = made(5), made(50), made(None, basis="open")
    early.attempts[0].started_at = START - timedelta(minutes=10)
    late.attempts[0].started_at = START + timedelta(minutes=90)
    await world.spend(early, within, late)
    done = await world.reconcile(billed(within.id, 50))
    assert (kinds(done), done.before_micro_usd, done.is_settled) == ([], 50, True)
    assert await world.total() == 955


async def test_clocks_that_differ_do_not_tear_a_request_apart(world: World) -> None:
    late = made(70)
    ahead = billed(late.id, 70, at=START + timedelta(seconds=30))
    open_end = Period(since_ms=None, until_ms=START_MS + 3_600_000)
    await world.reconcile(ahead, period=open_end)
    await world.spend(late)
    await world.reconcile(ahead, period=open_end)
    assert await world.total() == 70


# -- the pure part

_known = st.builds(
    Known,
    request_id=st.integers(0, 12).map(lambda n: f"call_{n:026d}-1"),
    row=st.just("row"),
    at_ms=st.integers(0, 100),
    ended_ms=st.integers(0, 100),
    provider=st.just("lab"),
    account=st.sampled_from(["a", "b"]),
    model=st.just("m"),
    scope=st.sampled_from(["/", "acme"]),
    owner=st.just(""),
    classes=st.tuples(*[st.integers(0, 9)] * 6),
    micro_usd=st.integers(0, 1_000),
    estimates=st.integers(0, 1),
    estimated_micro_usd=st.just(0),
    unpriced=st.just(0),
    rows=st.integers(1, 3),
)
_billed = st.builds(
    Billed,
    at_ms=st.integers(0, 100),
    account=st.sampled_from(["x", "y"]),
    model=st.just("m"),
    usage=st.builds(Usage, input=st.integers(0, 9), output=st.integers(0, 9)),
    micro_usd=st.integers(0, 1_000),
    request_id=st.integers(0, 12).map(lambda n: f"call_{n:026d}-1"),
)


@settings(max_examples=200)
@given(st.lists(_known, max_size=8), st.lists(_billed, max_size=8))
def test_after_any_comparison_the_ledger_is_the_bill_but_for_what_is_named(
    known: list[Known], lines: list[Billed]
) -> None:
    ledger = {entry.request_id: entry for entry in known}
    plan = plan_requests(ledger.values(), by_request(lines), {}, Period(since_ms=0, until_ms=200))
    after = plan.ours_micro_usd + sum(each.micro_usd for each in plan.adjustments)
    left = sum(each.ours_micro_usd or 0 for each in plan.differences if each.kind == "unbilled")
    assert after - left == plan.billed_micro_usd == sum(line.micro_usd for line in lines)
    for each in plan.adjustments:
        _book(ledger, each)
    again = plan_requests(ledger.values(), by_request(lines), {}, Period(since_ms=0, until_ms=200))
    assert again.adjustments == []
    assert {each.kind for each in again.differences} <= {"unbilled", "tokens"}


def _book(ledger: dict[str, Known], each: Adjustment) -> None:
    """What the store does with an adjustment, in memory."""
    old = ledger.get(each.request_id)
    if each.adjusts is None or old is None:
        assert old is None
        assert each.adjusts is None
        ledger[each.request_id] = Known(
            request_id=each.request_id, row=each.id, at_ms=each.at_ms, ended_ms=each.at_ms, provider="lab", account="a",
            model="m", scope=each.who.scope, owner="", classes=each.classes, micro_usd=each.micro_usd, estimates=0,
            estimated_micro_usd=0, unpriced=0, rows=1,
        )  # fmt: skip
        return
    classes = tuple(a + b for a, b in zip(old.classes, each.classes, strict=True))
    ledger[each.request_id] = msgspec.structs.replace(
        old, classes=classes, micro_usd=old.micro_usd + each.micro_usd, estimates=old.estimates + each.estimates,
        unpriced=old.unpriced + each.unpriced, rows=old.rows + 1,
    )  # fmt: skip


# -- reports

SIM = b"""{"simulated": true, "requests": [{"at_s": 1.5, "number": 3, "provider": "", "account": "a", "model": "m",
"client_request_id": "call_x-1", "input": 10, "cached": 4, "cache_write": 1, "output": 7, "reasoning": 2,
"micro_usd": 12, "usd": "0.000012"}]}"""


def test_the_simulated_providers_report_is_taken_apart_into_disjoint_classes() -> None:
    (line,) = SimReport().read(SIM)
    assert line.usage == Usage(input=5, cache_read=4, cache_write_5m=1, output=5, reasoning=2)
    assert (line.at_ms, line.micro_usd, line.request_id) == (1_500, 12, "call_x-1")


def test_any_csv_is_read_by_its_headings() -> None:
    text = b"day,cost,who,tokens\n2026-11-01,$1.0000001,org-1,5\n2026-11-02T10:00:00+02:00,0.5,org-2,\n"
    report = CsvReport({"at": "day", "usd": "cost", "account": "who", "input": "tokens"})
    first, second = report.read(text)
    assert (first.micro_usd, first.account, first.usage.input, first.at_ms) == (
        1_000_001, "org-1", 5, int(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000)
    )  # fmt: skip
    assert second.at_ms == int(datetime(2026, 11, 2, 8, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a,b\n1,2\n", "no column 'at'"),
        (b"at,usd\nnever,1\n", "line 2"),
        (b"at,usd\n1,x\n", "line 2"),
        (b"at,usd\n1,NaN\n", "line 2"),
        (b"at,usd\n1e300,1\n", "at_ms"),
        (b"at,usd\n-5,1\n", "at_ms"),
        (b"at,usd\ninf,1\n", "line 2"),
        (b"at,usd\n1,-3\n", "micro_usd"),
        (b"at,usd\n1,1e40\n", "micro_usd"),
        (b"at,usd,input\n1,1,9999999999999999999\n", "token classes"),
        (b"at,usd,model\n1,1," + b"x" * 400 + b"\n", "model"),
        (b"at,usd,input\n1,1,-5\n", "negative"),
        (b"\xff\xfe", "not UTF-8"),
        (b"", "no column 'at'"),
    ],
)
def test_a_malformed_report_is_refused_with_its_line(data: bytes, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        CsvReport().read(data)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"requests": [{}]}', b'{"requests": [{"at_s": "x"}]}'])
def test_what_is_no_report_of_the_simulated_provider_is_refused(data: bytes) -> None:
    with pytest.raises(RequestError):
        SimReport().read(data)


def test_a_column_that_means_nothing_is_refused() -> None:
    with pytest.raises(RequestError, match="there is no 'price'"):
        CsvReport({"price": "x"})
