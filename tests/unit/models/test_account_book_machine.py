"""The account book under anything that may happen to it: what must hold after every step."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nightkeep.control.meters import Limits
from nightkeep.core.errors import PoolExhaustedError
from nightkeep.core.outcome import Outcome, Verdict
from nightkeep.models.account_book import AccountBook, Change
from nightkeep.models.accounts import AccountChange, AccountSpec, AccountStatus
from nightkeep.models.leases import Lease, Wait
from nightkeep.models.pools import PoolEpisode, PoolSpec, TagLimit
from nightkeep.models.quota import Quota
from nightkeep.testing.clock import FakeClock

RPM, TPM, CONCURRENT, HOURLY, ROLLING = 6, 1_000, 2, 20, 4_000
RESERVED = {"a3", "a4"}
TAGS = st.sampled_from([None, "batch", "monitoring"])
BATCH_RPM, BATCH_CONCURRENT = 9, 3


class Grant:
    """What the model remembers of a lease."""

    def __init__(self, lease: Lease, at: float, wall: datetime) -> None:
        self.lease = lease
        self.at = at
        self.wall = wall
        self.tokens = lease.tokens_reserved
        self.is_open = True


class Bookkeeping(RuleBasedStateMachine):
    """Drives the book with calls, answers, time, operators, reloads and cancelled waiters."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.changes: list[Change] = []
        self.grants: list[Grant] = []
        self.waiting: list[tuple[asyncio.Task[Lease], str | None, float]] = []
        self.closed: set[str] = set()
        self.strategy = "round_robin"

    @initialize(strategy=st.sampled_from(["round_robin", "fill_first", "least_loaded"]))
    def begin(self, strategy: str) -> None:
        self.strategy = strategy
        self.book = AccountBook(
            [self._pool()],
            self._accounts(),
            self.clock,
            on_change=self.changes.append,
            schedule=self.clock.schedule,
            tag_limits=[self._tag_limit()],
            most_waiting=12,
        )

    def _pool(self) -> PoolSpec:
        return PoolSpec(name="p", strategy=self.strategy, reserve={"monitoring": 2})  # type: ignore[arg-type]

    @staticmethod
    def _tag_limit() -> TagLimit:
        limits = Limits(requests_per_minute=BATCH_RPM, concurrent=BATCH_CONCURRENT)
        return TagLimit(tags=("batch",), limits=limits)

    @staticmethod
    def _accounts() -> list[AccountSpec]:
        limits = Limits(requests_per_minute=RPM, tokens_per_minute=TPM, concurrent=CONCURRENT)
        quota = (
            Quota(per="hour", requests=HOURLY),
            Quota(per="day", tokens=ROLLING, window="rolling"),
        )
        return [AccountSpec(id=f"a{n}", provider="lab", pool="p", limits=limits, quota=quota) for n in range(5)]

    def _run(self) -> None:
        for _ in range(4):
            self.loop.run_until_complete(asyncio.sleep(0))
        pending = []
        for task, tag, deadline in self.waiting:
            if not task.done():
                pending.append((task, tag, deadline))
            elif not task.cancelled() and task.exception() is None:
                self._granted(task.result(), tag)
            elif not task.cancelled():
                assert isinstance(task.exception(), PoolExhaustedError)
        self.waiting = pending

    def _granted(self, lease: Lease, tag: str | None) -> None:
        assert lease.account_id not in self.closed
        assert tag == "monitoring" or lease.account_id not in RESERVED
        self.grants.append(Grant(lease, self.clock.monotonic(), self.clock.now()))

    @rule(tag=TAGS, tokens=st.integers(0, 600), model=st.sampled_from(["m", "n"]))
    def try_a_call(self, tag: str | None, tokens: int, model: str) -> None:
        answer = self.book.try_acquire("p", "lab", model, tag=tag, scope="s", tokens=tokens)
        if isinstance(answer, Lease):
            self._granted(answer, tag)
        elif isinstance(answer, Wait) and answer.until is not None:
            assert answer.until > self.clock.monotonic()

    @rule(
        tag=TAGS,
        tokens=st.integers(0, 600),
        model=st.sampled_from(["m", "n"]),
        scope=st.sampled_from(["x", "y", "z"]),
        priority=st.integers(0, 2),
        patience_s=st.sampled_from([1.0, 30.0, 90.0, 4_000.0]),
        count=st.sampled_from([1, 2, 6, 15]),
    )
    def queue_calls(
        self, tag: str | None, tokens: int, model: str, scope: str, priority: int, patience_s: float, count: int
    ) -> None:
        deadline = self.clock.monotonic() + patience_s
        for _ in range(count):
            call = self.book.acquire(
                "p", "lab", model, tag=tag, scope=scope, tokens=tokens, priority=priority, deadline=deadline
            )
            self.waiting.append((self.loop.create_task(call), tag, deadline))
        self._run()

    def _open(self) -> list[Grant]:
        return [grant for grant in self.grants if grant.is_open]

    @precondition(lambda self: self._open())
    @rule(
        data=st.data(),
        outcome=st.sampled_from([*([Outcome.SUCCESS] * 8), *Outcome]),
        retry_after_s=st.sampled_from([None, None, 3.0]),
    )
    def answer(self, data: st.DataObject, outcome: Outcome, retry_after_s: float | None) -> None:
        grant = data.draw(st.sampled_from(self._open()))
        used = data.draw(st.integers(0, grant.lease.tokens_reserved))
        grant.is_open = False
        grant.tokens = used
        if outcome in (Outcome.SUSPENDED, Outcome.AUTH_FAILED):
            self.closed.add(grant.lease.account_id)
        verdict = Verdict(outcome=outcome, retry_after_s=retry_after_s)
        self.book.settle(grant.lease, verdict, used)
        self.book.settle(grant.lease, verdict, used)  # a second time does nothing
        self._run()

    @precondition(lambda self: self._open())
    @rule(data=st.data())
    def give_back_unsent(self, data: st.DataObject) -> None:
        grant = data.draw(st.sampled_from(self._open()))
        self.grants.remove(grant)
        self.book.release(grant.lease)
        self.book.release(grant.lease)
        self._run()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def hang_up(self, data: st.DataObject) -> None:
        task, _, _ = data.draw(st.sampled_from(self.waiting))
        task.cancel()
        self._run()

    @rule(seconds=st.sampled_from([0.0, 0.5, 7.0, 31.0, 61.0, 1_800.0]))
    def wait(self, seconds: float) -> None:
        end = self.clock.monotonic() + seconds
        while (next_s := self.clock.next_timer_s) is not None and self.clock.monotonic() + next_s <= end:
            self.clock.advance(next_s)
            self._run()
        self.clock.advance(max(0.0, end - self.clock.monotonic()))
        self._run()

    @precondition(lambda self: self.closed)
    @rule(data=st.data())
    def reset_by_hand(self, data: st.DataObject) -> None:
        account = data.draw(st.sampled_from(sorted(self.closed)))
        self.closed.discard(account)
        self.book.reset(account)
        self._run()

    @rule()
    def reload(self) -> None:
        self.book.reconfigure([self._pool()], self._accounts(), tag_limits=[self._tag_limit()])
        self._run()

    @invariant()
    def no_limit_is_broken(self) -> None:
        now, wall = self.clock.monotonic(), self.clock.now()
        hour = wall.replace(minute=0, second=0, microsecond=0)
        for account in (f"a{n}" for n in range(5)):
            mine = [grant for grant in self.grants if grant.lease.account_id == account]
            minute = [grant for grant in mine if now - grant.at < 60.0]
            assert sum(grant.is_open for grant in mine) <= CONCURRENT
            assert len(minute) <= RPM
            assert sum(grant.tokens for grant in minute) <= TPM
            assert sum(grant.wall >= hour for grant in mine) <= HOURLY
            assert sum(grant.tokens for grant in mine if wall - grant.wall < timedelta(days=1)) <= ROLLING
        batch = [grant for grant in self.grants if grant.lease.tag == "batch"]
        assert sum(grant.is_open for grant in batch) <= BATCH_CONCURRENT
        assert sum(now - grant.at < 60.0 for grant in batch) <= BATCH_RPM

    @invariant()
    def nobody_is_lost_in_the_queue(self) -> None:
        if not hasattr(self, "book"):
            return
        assert self.book.waiting == len(self.waiting)
        assert all(deadline > self.clock.monotonic() for _, _, deadline in self.waiting)

    @invariant()
    def nobody_waits_who_could_be_served(self) -> None:
        if not hasattr(self, "book"):
            return
        before = len(self.grants)
        self.book.tick()  # may tell some that their hope is gone, which calls of others have taken
        self._run()
        assert len(self.grants) == before

    @invariant()
    def what_is_counted_in_flight_is_in_flight(self) -> None:
        if not hasattr(self, "book"):
            return
        for view in self.book.snapshot():
            open_here = [g for g in self._open() if g.lease.account_id == view.id]
            assert view.in_flight == len(open_here)
            assert all(quota.tokens_held == sum(g.lease.tokens_reserved for g in open_here) for quota in view.quotas)

    @invariant()
    def episodes_alternate(self) -> None:
        episodes = [change for change in self.changes if isinstance(change, PoolEpisode) and change.segment is None]
        told: list[str] = []
        for episode in episodes:
            if episode.kind == "recovered":
                assert told
                told = []
            else:
                assert episode.kind not in told
                told.append(episode.kind)

    @invariant()
    def a_closed_account_only_comes_back_by_hand(self) -> None:
        for change in self.changes:
            if isinstance(change, AccountChange) and change.before in (
                AccountStatus.SUSPENDED,
                AccountStatus.AUTH_FAILED,
            ):
                assert change.after is AccountStatus.AVAILABLE
                assert "reset" in change.why

    def teardown(self) -> None:
        if hasattr(self, "book"):
            for grant in self._open():
                grant.is_open = False
                self.book.settle(grant.lease, Verdict(outcome=Outcome.SUCCESS), 0)
            for _ in range(200):
                self._run()
                for grant in self._open():
                    grant.is_open = False
                    self.book.settle(grant.lease, Verdict(outcome=Outcome.SUCCESS), 0)
                self._run()
                if not self.waiting and not self._open():
                    break
                self.wait(61.0)
            assert not self.waiting
            assert self.book.waiting == 0
        self.loop.close()


Bookkeeping.TestCase.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestBookkeeping = pytest.mark.timeout(300)(Bookkeeping.TestCase)
