"""The account book, story by story."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nightkeep.control.meters import Limits
from nightkeep.core.errors import ConfigError, PoolExhaustedError
from nightkeep.core.outcome import Outcome, Verdict
from nightkeep.models.account_book import AccountBook, BreakerChange, Change
from nightkeep.models.accounts import AccountChange, AccountSpec, AccountStatus
from nightkeep.models.leases import Exhausted, Lease, Wait
from nightkeep.models.pools import PoolEpisode, PoolSpec, TagLimit
from nightkeep.models.quota import Quota
from nightkeep.testing.clock import FakeClock

OK = Verdict(outcome=Outcome.SUCCESS, status=200)
DOWN = Verdict(outcome=Outcome.UNAVAILABLE, status=500)
EMPTY = Verdict(outcome=Outcome.QUOTA_EXHAUSTED, status=429)


def specs(count: int, **settings: Any) -> list[AccountSpec]:
    return [
        AccountSpec(id=f"a{n}", provider="lab", pool="p", key_fingerprint=f"k{n}", **settings) for n in range(count)
    ]


class World:
    """A book on a clock of its own, and what it said."""

    def __init__(self, accounts: list[AccountSpec], pool: PoolSpec | None = None, **settings: Any) -> None:
        self.clock = FakeClock()
        self.changes: list[Change] = []
        self.pool = pool or PoolSpec(name="p")
        self.book = AccountBook(
            [self.pool],
            accounts,
            self.clock,
            on_change=self.changes.append,
            schedule=self.clock.schedule,
            **settings,
        )

    def ask(
        self, tag: str | None = None, *, model: str = "m", tokens: int = 10, **more: Any
    ) -> Lease | Wait | Exhausted:
        return self.book.try_acquire("p", "lab", model, tag=tag, scope="s", tokens=tokens, **more)

    def take(self, tag: str | None = None, **more: Any) -> Lease:
        lease = self.ask(tag, **more)
        assert isinstance(lease, Lease), lease
        return lease

    def call(self, verdict: Verdict = OK, tag: str | None = None, **more: Any) -> str:
        lease = self.take(tag, **more)
        self.book.settle(lease, verdict, lease.tokens_reserved)
        return lease.account_id

    def queue(
        self,
        *,
        tag: str | None = None,
        scope: str = "s",
        priority: int = 1,
        patience_s: float = 3_600,
        tokens: int = 10,
    ) -> asyncio.Task[Lease]:
        deadline = self.clock.monotonic() + patience_s
        return asyncio.get_running_loop().create_task(
            self.book.acquire(
                "p", "lab", "m", tag=tag, scope=scope, tokens=tokens, priority=priority, deadline=deadline
            )
        )

    def status(self, account: str) -> AccountStatus:
        return next(view.status for view in self.book.snapshot() if view.id == account)

    def episodes(self) -> list[tuple[str | None, str]]:
        return [(change.segment, change.kind) for change in self.changes if isinstance(change, PoolEpisode)]


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# --- who is chosen --------------------------------------------------------------------------------------------------


def test_round_robin_takes_turns_by_weight() -> None:
    accounts = [
        AccountSpec(id="a", provider="lab", pool="p"),
        AccountSpec(id="b", provider="lab", pool="p", weight=2),
        AccountSpec(id="c", provider="lab", pool="p"),
    ]
    world = World(accounts)
    assert [world.call() for _ in range(8)] == ["a", "b", "b", "c", "a", "b", "b", "c"]


def test_fill_first_uses_one_account_up_before_the_next() -> None:
    world = World(specs(3, quota=(Quota(per="week", requests=3),)), PoolSpec(name="p", strategy="fill_first"))
    assert [world.call() for _ in range(7)] == ["a0"] * 3 + ["a1"] * 3 + ["a2"]


def test_least_loaded_takes_the_account_with_the_fewest_calls_in_flight() -> None:
    world = World(specs(3), PoolSpec(name="p", strategy="least_loaded"))
    leases = [world.take() for _ in range(6)]
    assert sorted(lease.account_id for lease in leases) == ["a0", "a0", "a1", "a1", "a2", "a2"]
    world.book.settle(leases[4], OK, 1)
    assert world.take().account_id == leases[4].account_id


def test_an_account_that_was_tried_is_not_given_again() -> None:
    world = World(specs(2))
    assert world.take(exclude=frozenset({"a0"})).account_id == "a1"
    answer = world.ask(exclude=frozenset({"a0", "a1"}))
    assert isinstance(answer, Exhausted)
    assert answer.until is None


def test_batch_is_never_given_an_account_of_monitoring_not_even_when_all_others_are_empty() -> None:
    """Q-PROXY-03, W1.2."""
    world = World(specs(15), PoolSpec(name="p", reserve={"monitoring": 5}))
    for _ in range(10):
        world.call(EMPTY, "batch")
    assert isinstance(world.ask("batch"), Exhausted)
    assert isinstance(world.ask(None), Exhausted)
    assert sorted({world.call(OK, "monitoring") for _ in range(20)}) == ["a10", "a11", "a12", "a13", "a14"]


def test_monitoring_prefers_its_own_accounts_and_may_use_the_shared_ones() -> None:
    world = World(specs(3, limits=Limits(concurrent=1)), PoolSpec(name="p", reserve={"monitoring": 1}))
    assert world.take("monitoring").account_id == "a2"
    assert world.take("monitoring").account_id == "a0"


def test_a_call_that_names_no_pool_respects_the_reservations_of_all() -> None:
    world = World(specs(2), PoolSpec(name="p", reserve={"monitoring": 2}))
    answer = world.book.try_acquire(None, "lab", "m", tag="batch", scope="s", tokens=1)
    assert isinstance(answer, Exhausted)
    assert isinstance(world.book.try_acquire(None, "lab", "m", tag="monitoring", scope="s", tokens=1), Lease)


def test_more_reserved_than_there_are_is_refused_and_changes_nothing() -> None:
    world = World(specs(2))
    with pytest.raises(ConfigError, match="sets 3 accounts apart, but the pool has 2"):
        world.book.reconfigure([PoolSpec(name="p", reserve={"x": 3})], specs(2))
    world.take()


# --- exhaustion -----------------------------------------------------------------------------------------------------


async def test_an_exhausted_pool_lets_nothing_through_until_its_reset() -> None:
    """Q-PROXY-01."""
    world = World(specs(15))
    resets_at = world.clock.now() + timedelta(hours=2)
    for _ in range(15):
        world.call(Verdict(outcome=Outcome.QUOTA_EXHAUSTED, resets_at=resets_at))
    for _ in range(100):
        with pytest.raises(PoolExhaustedError):
            await world.queue(patience_s=60)
        world.clock.advance(0.6)
    with pytest.raises(PoolExhaustedError) as caught:
        await world.queue(patience_s=60)
    assert caught.value.data["resets_at"] == resets_at
    assert caught.value.retry_after_s == pytest.approx(7_200 - 60)
    assert set(caught.value.data["states"].values()) == {"quota_exhausted"}
    world.clock.advance(7_200)
    world.take()


async def test_a_call_with_the_patience_waits_for_the_reset_and_goes_at_that_moment() -> None:
    world = World(specs(1))
    world.call(Verdict(outcome=Outcome.QUOTA_EXHAUSTED, retry_after_s=120.0))
    task = world.queue(patience_s=121)
    await settled()
    assert world.clock.next_timer_s == pytest.approx(120.0)
    world.clock.advance(120.001)
    await settled()
    assert task.done()


def test_partial_and_full_exhaustion_are_told_once_per_episode() -> None:
    """Q-PROXY-04."""
    world = World(specs(4))
    for _ in range(4):
        world.call(EMPTY)
    assert world.episodes() == [(None, "partial"), (None, "exhausted")]
    for _ in range(3):  # the guess was wrong: the accounts come back, and are empty still
        world.clock.advance(4_000)
        for _ in range(4):
            world.call(EMPTY)
    assert world.episodes() == [(None, "partial"), (None, "exhausted")]
    world.clock.advance(4_000)
    for _ in range(4):
        world.call(OK)
    assert world.episodes()[2:] == [(None, "recovered")]
    for _ in range(4):
        world.call(EMPTY)
    assert world.episodes()[3:] == [(None, "partial"), (None, "exhausted")]


def test_a_segment_that_runs_dry_is_told_also_when_the_pool_has_others() -> None:
    world = World(specs(6), PoolSpec(name="p", reserve={"monitoring": 2}, partial_alert=0.9))
    for _ in range(4):
        world.call(EMPTY, "batch")
    assert world.episodes() == [("shared", "exhausted")]


def test_after_a_guessed_end_one_call_at_a_time_is_let_through_until_one_succeeds() -> None:
    world = World(specs(1))
    world.call(EMPTY)
    world.clock.advance(300)
    lease = world.take()
    assert isinstance(world.ask(), Wait)
    world.book.settle(lease, OK, 1)
    world.take()
    world.take()


@pytest.mark.parametrize("outcome", [Outcome.SUSPENDED, Outcome.AUTH_FAILED])
def test_a_closed_account_comes_back_by_reset_or_with_another_key_only(outcome: Outcome) -> None:
    """Q-PROXY-05."""
    world = World(specs(1))
    world.call(Verdict(outcome=outcome))
    world.clock.advance(10**7)
    world.book.set_state("a0", "disabled", "looking")
    world.book.set_state("a0", "available", "looked")
    world.book.reconfigure([world.pool], specs(1))
    answer = world.ask()
    assert isinstance(answer, Exhausted)
    assert (answer.until, answer.states) == (None, {"a0": outcome.value})
    world.book.reset("a0")
    world.call(Verdict(outcome=outcome))
    world.book.reconfigure([world.pool], [AccountSpec(id="a0", provider="lab", pool="p", key_fingerprint="new")])
    world.take()


def test_own_counters_stop_an_account_before_the_provider_has_to() -> None:
    quota = (Quota(per="day", requests=50, resets_at="00:00 America/Los_Angeles"),)
    world = World(specs(1, quota=quota))
    for _ in range(50):
        world.call()
    view = world.book.snapshot()[0]
    assert (view.status, view.quotas[0].requests_used) == (AccountStatus.QUOTA_EXHAUSTED, 50)
    assert view.until == datetime(2026, 11, 21, 8, tzinfo=UTC)
    assert isinstance(world.ask(), Exhausted)
    world.clock.advance(20 * 3_600 + 1)
    world.take()
    changes = [(c.before.value, c.after.value) for c in world.changes if isinstance(c, AccountChange)]
    assert changes == [("available", "quota_exhausted"), ("quota_exhausted", "available")]


# --- breaker --------------------------------------------------------------------------------------------------------


def test_a_breaker_blocks_one_model_of_one_account_and_sends_one_probe() -> None:
    """Q-PROXY-02."""
    world = World(specs(1))
    for _ in range(5):
        world.call(DOWN)
    answer = world.ask()
    assert isinstance(answer, Wait)
    assert answer.until == pytest.approx(world.clock.monotonic() + 15)
    world.take(model="other")
    world.clock.advance(15)
    answers = [world.ask() for _ in range(50)]
    probes = [answer for answer in answers if isinstance(answer, Lease)]
    assert len(probes) == 1
    assert probes[0].is_probe
    world.book.settle(probes[0], OK, 1)
    assert not world.take().is_probe
    assert [change.is_open for change in world.changes if isinstance(change, BreakerChange)] == [True, False]


# --- the queue ------------------------------------------------------------------------------------------------------


async def test_excess_of_a_limited_tag_waits_instead_of_failing() -> None:
    """Q-PROXY-15: batch has 20 requests a minute and 3 in flight."""
    limit = TagLimit(tags=("batch",), limits=Limits(requests_per_minute=20, concurrent=3))
    world = World(specs(5), tag_limits=[limit])
    tasks = [world.queue(tag="batch") for _ in range(50)]
    sent: list[float] = []
    open_leases: list[Lease] = []
    for _ in range(400):
        await settled()
        fresh = [task for task in tasks if task.done()]
        tasks = [task for task in tasks if not task.done()]
        sent += [world.clock.monotonic()] * len(fresh)
        open_leases += [task.result() for task in fresh]
        assert len(open_leases) <= 3
        world.take("interactive")  # others are not held up
        world.clock.advance(1.0)
        for lease in open_leases:
            world.book.settle(lease, OK, 1)
        open_leases = []
        if not tasks:
            break
    assert len(sent) == 50
    assert all(sum(at < other + 60 for at in sent[n:]) <= 20 for n, other in enumerate(sent))


async def test_a_deadline_that_cannot_be_met_is_told_at_once() -> None:
    world = World(specs(1, limits=Limits(requests_per_minute=1)))
    world.call()
    with pytest.raises(PoolExhaustedError) as caught:
        await world.queue(patience_s=30)
    assert caught.value.retry_after_s == pytest.approx(60.0)


async def test_a_waiter_is_told_as_soon_as_its_last_hope_is_gone() -> None:
    world = World(specs(1, limits=Limits(concurrent=1)))
    lease = world.take()
    task = world.queue(patience_s=500)
    await settled()
    world.book.settle(lease, Verdict(outcome=Outcome.SUSPENDED), 0)
    await settled()
    assert isinstance(task.exception(), PoolExhaustedError)


async def test_a_waiter_whose_deadline_passes_is_told_at_that_moment() -> None:
    world = World(specs(1, limits=Limits(concurrent=1)))
    world.take()
    task = world.queue(patience_s=5)
    await settled()
    world.clock.advance(5.0)
    await settled()
    assert isinstance(task.exception(), PoolExhaustedError)
    assert world.book.waiting == 0


async def test_a_full_queue_refuses_at_once() -> None:
    world = World(specs(1, limits=Limits(concurrent=1)), most_waiting=1)
    world.take()
    waiting = world.queue()
    with pytest.raises(PoolExhaustedError, match="the queue is full"):
        await world.queue()
    waiting.cancel()


async def test_scopes_share_fairly_however_many_calls_one_of_them_queues() -> None:
    world = World(specs(1, limits=Limits(concurrent=1)))
    lease = world.take()
    order: list[str] = []
    tasks = [world.queue(scope="greedy") for _ in range(30)] + [world.queue(scope="modest") for _ in range(5)]
    await settled()
    while tasks:
        world.book.settle(lease, OK, 1)
        await settled()
        done = next(task for task in tasks if task.done())
        tasks.remove(done)
        lease = done.result()
        order.append(lease.scope)
    assert order[:12].count("modest") == 5


async def test_nobody_starves_behind_more_urgent_calls() -> None:
    world = World(specs(1, limits=Limits(concurrent=1)))
    lease = world.take()
    patient = world.queue(scope="batch", priority=9)
    urgent = [world.queue(scope=f"run{n}", priority=0) for n in range(3)]
    await settled()
    for served in range(64):
        world.book.settle(lease, OK, 1)
        await settled()
        if patient.done():
            break
        done = next(task for task in urgent if task.done())
        urgent.remove(done)
        lease = done.result()
        urgent.append(world.queue(scope=f"new{served}", priority=0))
        await settled()
    assert patient.done()
    for task in urgent:
        task.cancel()


async def test_a_cancelled_waiter_leaves_no_trace_and_gives_back_what_it_was_just_given() -> None:
    world = World(specs(1, limits=Limits(concurrent=1)))
    lease = world.take()
    first, second = world.queue(), world.queue()
    await settled()
    world.book.settle(lease, OK, 1)  # given to the first, which hangs up before it can run
    first.cancel()
    await settled()
    assert second.result().account_id == "a0"
    assert world.book.waiting == 0
    assert world.book.snapshot()[0].in_flight == 1


async def test_small_requests_do_not_starve_a_large_one() -> None:
    world = World(specs(2, limits=Limits(tokens_per_minute=100)))
    for _ in range(4):
        world.call(tokens=25)
        world.clock.advance(5)
    large = world.queue(tokens=100)
    await settled()
    for _ in range(300):
        answer = world.ask(model="other", tokens=20)
        if isinstance(answer, Lease):
            world.book.settle(answer, OK, 20)
        small = world.queue(tokens=20, priority=0)
        await settled()
        if small.done():
            world.book.settle(small.result(), OK, 20)
        else:
            small.cancel()
        await settled()
        world.clock.advance(1)
        await settled()
        if large.done():
            break
    assert large.done()


# --- keeping --------------------------------------------------------------------------------------------------------


def test_a_restart_goes_on_where_it_stood() -> None:
    quota = (Quota(per="day", tokens=1_000), Quota(per="week", requests=50, window="rolling"))
    world = World(specs(4, quota=quota))
    world.call(tokens=300)
    world.call(Verdict(outcome=Outcome.SUSPENDED, message="closed"))
    world.call(EMPTY)
    world.take(tokens=200)  # in flight when it stops: counts as used
    rows = world.book.drain_dirty()
    rows = [world.book.dump(f"a{n}") for n in range(4)]
    again = World([*specs(3, quota=quota), AccountSpec(id="a3", provider="lab", pool="p", key_fingerprint="other")])
    assert again.book.restore(rows) == ["a3"]
    views = {view.id: view for view in again.book.snapshot()}
    assert views["a0"].quotas[0].tokens_used == 300
    assert views["a0"].quotas[1].requests_used == 1
    assert views["a1"].status is AccountStatus.SUSPENDED
    assert views["a2"].status is AccountStatus.QUOTA_EXHAUSTED
    assert again.changes == []
    assert [again.book.dump(f"a{n}")["state"] for n in range(3)] == [row["state"] for row in rows[:3]]


def test_a_damaged_row_costs_one_account_its_memory_and_nothing_else() -> None:
    world = World(specs(2))
    rows = [
        {"account": "a0", "key_fingerprint": "k0", "state": {"health": "excellent"}},
        {"account": "a1", "key_fingerprint": "k1", "state": {"health": "suspended", "until": None}},
    ]
    assert world.book.restore(rows) == ["a0"]
    assert world.status("a1") is AccountStatus.SUSPENDED


def test_a_reload_keeps_leases_states_and_counters_of_what_has_not_changed() -> None:
    limits = Limits(concurrent=2)
    world = World(specs(3, limits=limits, quota=(Quota(per="day", requests=5),)))
    lease = world.take()
    world.call(Verdict(outcome=Outcome.RATE_LIMITED, retry_after_s=30.0))
    removed = world.take()
    world.book.reconfigure([world.pool], specs(2, limits=limits, quota=(Quota(per="day", requests=9),)))
    views = {view.id: view for view in world.book.snapshot()}
    assert set(views) == {"a0", "a1"}
    assert (views["a0"].in_flight, views["a0"].quotas[0].requests_used) == (1, 1)
    assert views["a1"].status is AccountStatus.COOLING
    world.book.settle(lease, OK, 1)
    world.book.settle(removed, Verdict(outcome=Outcome.SUSPENDED), 1)
    assert world.book.snapshot()[0].in_flight == 0


def test_a_disabling_by_configuration_is_taken_back_by_configuration() -> None:
    world = World(specs(1, enabled=False))
    assert world.status("a0") is AccountStatus.DISABLED
    rows = [world.book.dump("a0")]
    again = World(specs(1))
    again.book.restore(rows)
    assert again.status("a0") is AccountStatus.AVAILABLE


def test_a_jump_of_the_wall_clock_moves_resets_and_no_cooling() -> None:
    world = World(specs(2))
    world.call(Verdict(outcome=Outcome.RATE_LIMITED, retry_after_s=30.0))
    world.call(Verdict(outcome=Outcome.QUOTA_EXHAUSTED, resets_at=world.clock.now() + timedelta(hours=1)))
    world.clock.jump_wall(3_700)
    world.clock.advance(2)
    assert world.status("a0") is AccountStatus.COOLING
    assert world.status("a1") is AccountStatus.AVAILABLE
    world.clock.advance(29)
    assert world.status("a0") is AccountStatus.AVAILABLE


def test_a_listener_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(change: Change) -> None:
        raise RuntimeError("no disk")

    book = AccountBook([], specs(1), FakeClock(), on_change=fail, schedule=FakeClock().schedule)
    lease = book.try_acquire("p", "lab", "m", tag=None, scope="s", tokens=1)
    assert isinstance(lease, Lease)
    book.settle(lease, EMPTY, 1)
    assert "a listener failed" in caplog.text
