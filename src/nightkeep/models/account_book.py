"""The book of all accounts: who may send which call now, who waits, and what each answer does to an account.

The one face of accounts, pools, limits, quotas, breakers and the queue for the gateway. It makes no I/O: the time
comes from a clock, wake-ups from a ``schedule`` function, and what changed goes out through ``on_change``. It is
for one event loop and has no locks. Inside, times are monotonic seconds; the wall clock is only asked about once
a second, and a jump of it moves quota resets but no cooling.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal

import msgspec

from nightkeep.core.clock import Clock
from nightkeep.core.outcome import Outcome, Verdict
from nightkeep.models.account_changes import BreakerChange, Change, Schedule, schedule_on_running_loop
from nightkeep.models.account_live import LiveAccount
from nightkeep.models.account_views import view_account
from nightkeep.models.accounts import (
    AccountChange,
    AccountSpec,
    AccountState,
    AccountStatus,
    disable,
    enable,
    evolve,
    lapse,
    spend,
)
from nightkeep.models.availability import refusal, why_not
from nightkeep.models.breaker import COUNTED_OUTCOMES
from nightkeep.models.leases import AccountView, Exhausted, Lease, Wait, exhausted_error
from nightkeep.models.pool_table import PoolTable, check_pools, make_tag_meters
from nightkeep.models.pools import Group, PoolSpec, TagLimit
from nightkeep.models.queue import OLDEST_EVERY, Demand, FairQueue, Waiter
from nightkeep.models.quota import NEVER, make_window

__all__ = ["AccountBook", "BreakerChange", "Change", "Schedule", "schedule_on_running_loop"]

_LOG: Final = logging.getLogger(__name__)
_IN_CONFIG: Final = "disabled in the configuration"
_CALIBRATE_S: Final = 1.0
_JUMP_S: Final = 0.5  # the wall clock moved on its own by more than this


class AccountBook:
    """All pools and accounts of the process."""

    def __init__(
        self,
        pools: Sequence[PoolSpec],
        accounts: Sequence[AccountSpec],
        clock: Clock,
        *,
        on_change: Callable[[Change], None],
        tag_limits: Sequence[TagLimit] = (),
        jitter: Callable[[], float] = lambda: 1.0,
        schedule: Schedule | None = None,
        most_waiting: int = 1_000,
    ) -> None:
        self._clock = clock
        self._on_change = on_change
        self._jitter = jitter
        self._schedule = schedule or schedule_on_running_loop(clock)
        self._queue: FairQueue[Lease] = FairQueue(most_waiting)
        self._accounts: dict[str, LiveAccount] = {}
        self._dirty: set[str] = set()
        self._grants = 0
        self._has_unsaved = False  # an account that was kept for one waiter is free for all again
        self._cancel_timer: Callable[[], None] | None = None
        self._timer_at = NEVER
        self._calibrated = clock.monotonic()
        self._offset = clock.now().timestamp() - self._calibrated
        self._table = PoolTable((), {}, ())
        self._tag_meters = make_tag_meters((), ())
        self.reconfigure(pools, accounts, tag_limits=tag_limits)

    # --- the hot path -------------------------------------------------------------------------------------------

    def try_acquire(
        self,
        pool: str | None,
        provider: str,
        model: str,
        *,
        tag: str | None,
        scope: str,
        tokens: int,
        exclude: frozenset[str] = frozenset(),
    ) -> Lease | Wait | Exhausted:
        """Take an account for a call now, or say why not. Who waits already for the same goes first."""
        now = self._now()
        known = self._table.known_tag(tag) if tag is not None else None
        group = self._table.group(pool, provider, known)
        if self._queue.size and (pool, provider, known, model, exclude) in self._queue.demands:
            return self._why_not(group, model, tokens, exclude, now, None, "others wait for the same")
        lease = self._take(group, model, tag, scope, tokens, exclude, now, None)
        return lease if lease is not None else self._why_not(group, model, tokens, exclude, now, None)

    def settle(self, lease: Lease, verdict: Verdict, tokens_used: int) -> None:
        """The call of a lease has ended. A second time does nothing."""
        if lease.is_over:
            return
        lease.is_over = True
        now = self._now()
        epoch = now + self._offset
        account = lease.account
        account.settle(lease.entry, lease.tokens_reserved, tokens_used, now, epoch)
        for meter, entry in lease.tag_entries:
            meter.in_flight -= 1
            meter.meter.correct(entry, tokens_used, now)
        account.last_verdict = verdict
        if self._accounts.get(lease.account_id) is account:
            self._dirty.add(lease.account_id)
            self._judge(lease, account, verdict, now, epoch)
        if self._queue.size:
            self._serve_beside(lease, now)

    def _now(self) -> float:
        now = self._clock.monotonic()
        if now - self._calibrated >= _CALIBRATE_S:
            self._calibrate(now)
        return now

    def _take(
        self,
        group: Group,
        model: str,
        tag: str | None,
        scope: str,
        tokens: int,
        exclude: frozenset[str],
        now: float,
        waiter: Waiter[Lease] | None,
    ) -> Lease | None:
        for meter in group.tag_meters:
            if not meter.is_ready(tokens, now):
                return None
        epoch = now + self._offset
        account = group.choose(model, tokens, exclude, now, epoch, waiter)
        if account is None:
            return None
        if account.state.until is not None:
            self._set(account, _lapsed(account, now, epoch), epoch)
        entry, is_probe = account.take(model, tokens, now, epoch)
        self._grants += 1
        lease = Lease(account.spec.id, model, tag, scope, tokens, is_probe, account, entry)
        if group.tag_meters:
            lease.tag_entries = tuple((meter, meter.meter.take(tokens, now)) for meter in group.tag_meters)
            for meter in group.tag_meters:
                meter.in_flight += 1
        return lease

    def _judge(self, lease: Lease, account: LiveAccount, verdict: Verdict, now: float, epoch: float) -> None:
        outcome = verdict.outcome
        if (account.breakers or outcome in COUNTED_OUTCOMES) and account.record(
            lease.model, outcome, now, is_probe=lease.is_probe
        ):
            self._tell_breaker(account, lease.model, epoch)
        state = account.state
        if outcome is not Outcome.SUCCESS or state.rate_streak or state.quota_streak:
            state = evolve(
                _lapsed(account, now, epoch), verdict, epoch, jitter=self._jitter(), own_reset=account.own_reset(epoch)
            )
        if account.quotas:
            window = account.spent_window(epoch)
            if window is not None:
                state = spend(state, window.resets_at(epoch), f"per {window.quota.per}", epoch)
        if state is not account.state:
            self._set(account, state, epoch, outcome)

    # --- waiting ------------------------------------------------------------------------------------------------

    async def acquire(
        self,
        pool: str | None,
        provider: str,
        model: str,
        *,
        tag: str | None,
        scope: str,
        tokens: int,
        priority: int,
        deadline: float,
        exclude: frozenset[str] = frozenset(),
    ) -> Lease:
        """Take an account for a call, waiting in the fair queue until ``deadline`` (monotonic seconds).

        A lower ``priority`` is served sooner.

        Raises:
            PoolExhaustedError: at once when nothing can come back before the deadline or the queue is full, else
                when the deadline passes. ``data``: pool, provider, model, reason, resets_at, retry_after_s, states.
        """
        answer = self.try_acquire(pool, provider, model, tag=tag, scope=scope, tokens=tokens, exclude=exclude)
        if isinstance(answer, Lease):
            return answer
        now = self._now()
        error = self._refusal(answer, deadline, now)
        if error is not None:
            raise exhausted_error(error, pool=pool, provider=provider, model=model, now=now, offset=self._offset)
        waiter: Waiter[Lease] = Waiter(scope, tokens, priority, deadline, asyncio.get_running_loop().create_future())
        waiter.tag = tag
        waiter.since_grant = self._grants
        known = self._table.known_tag(tag) if tag is not None else None
        key = (pool, provider, known, model, exclude)
        self._queue.add(key, waiter)
        self._serve([self._queue.demands[key]], now)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self.release(waiter.future.result())
            else:
                self._leave(waiter)
            raise

    def release(self, lease: Lease) -> None:
        """Give back a lease whose call was never sent: nothing is counted. A second time does nothing."""
        if lease.is_over:
            return
        lease.is_over = True
        now = self._now()
        lease.account.undo(lease.model, lease.entry, lease.tokens_reserved, now + self._offset, is_probe=lease.is_probe)
        for meter, entry in lease.tag_entries:
            meter.in_flight -= 1
            meter.meter.undo(entry)
        if self._queue.size:
            self._serve_beside(lease, now)

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return self._queue.size

    def _refusal(self, answer: Wait | Exhausted, deadline: float, now: float) -> Wait | Exhausted | None:
        """Why a call may not even begin to wait; None when it may."""
        error = refusal(answer, deadline, now)
        if error is not None or not self._queue.is_full:
            return error
        reason = f"the queue is full ({self._queue.size} calls wait); send less at a time, or later"
        return Wait(until=max(now + 1.0, answer.until or 0.0), reason=reason, states=answer.states)

    def _leave(self, waiter: Waiter[Lease]) -> None:
        """A waiter goes, and what was kept for it is free again."""
        demand = waiter.demand
        self._queue.remove(waiter)
        if demand is None:
            return
        if waiter.has_saved:
            self._unsave(waiter, self._group_of(demand))
        if demand.size or self._has_unsaved:  # those behind it may need less
            self._serve([demand], self._now())

    def _unsave(self, waiter: Waiter[Lease], group: Group) -> None:
        for account in group.members:
            if account.saved_for is waiter:
                account.saved_for = None
                self._has_unsaved = True

    def _group_of(self, demand: Demand[Lease]) -> Group:
        pool, provider, tag, _, _ = demand.key
        return self._table.group(pool, provider, tag)

    def _serve_beside(self, lease: Lease, now: float) -> None:
        """Serve those who could take what a lease gave back.

        While its account is well, that account is all that has changed for those whom no shared tag limit holds:
        who needs as much as others could not get, and cannot take it either, waits on without another look.
        """
        account = lease.account
        is_well = account.blocked_until <= now and not account.breakers
        meters = {meter for meter, _ in lease.tag_entries}
        changed: list[Demand[Lease]] = []
        beside: list[Demand[Lease]] = []
        for demand in self._queue.demands.values():
            group = self._group_of(demand)
            if not meters.isdisjoint(group.tag_meters):
                changed.append(demand)
            elif group.has_member(account):
                (beside if is_well else changed).append(demand)
        if changed or beside:
            self._serve(changed, now, beside, account)

    def _serve_all(self, now: float) -> None:
        self._serve(list(self._queue.demands.values()), now)

    def _serve(
        self,
        changed: Sequence[Demand[Lease]],
        now: float,
        beside: Sequence[Demand[Lease]] = (),
        account: LiveAccount | None = None,
    ) -> None:
        """Serve demands for which anything may have changed, and those for which only one account has."""
        for demand in changed:
            demand.ready_at = demand.blocked_tokens = NEVER
        demands = [*changed, *beside]
        for demand in demands:
            self._reject_overdue(demand, now)
        only = account if beside else None
        narrow = {id(demand) for demand in beside}
        self._queue.serve(
            demands, lambda waiter: self._try_waiter(waiter, now, only if id(waiter.demand) in narrow else None)
        )
        if self._has_unsaved:  # free again for demands that were asked before, or not at all
            self._has_unsaved = False
            self._serve_all(now)
            return
        for demand in demands:
            first = demand.first_deadline()
            if first is not None:
                self._wake_at(min(first, demand.ready_at), now)

    def _reject_overdue(self, demand: Demand[Lease], now: float) -> None:
        first = demand.first_deadline()
        if first is None or first > now:
            return
        answer = self._why_not(self._group_of(demand), demand.key[3], 0, demand.key[4], now, None)
        for waiter in demand.overdue(math.nextafter(now, NEVER)):
            self._reject(waiter, answer, now)

    def _try_waiter(self, waiter: Waiter[Lease], now: float, only: LiveAccount | None) -> bool:
        demand = waiter.demand
        if demand is None or waiter.future.done():
            self._queue.remove(waiter)
            return False
        group = self._group_of(demand)
        model, exclude = demand.key[3], demand.key[4]
        if only is not None and waiter.tokens >= demand.blocked_tokens and not waiter.has_saved:
            blocks = only.blocks(model, waiter.tokens, now, now + self._offset, waiter)
            if only.spec.id not in exclude and blocks and all(block.at <= now for block in blocks):
                by_time = [block.retry_at for block in blocks if block.retry_at != NEVER]
                demand.ready_at = min(demand.ready_at, max(by_time, default=NEVER))
                demand.blocked_tokens = max(demand.blocked_tokens, waiter.tokens)
                return False  # it may come free at any moment, so nobody's hope is gone either
        lease = self._take(group, model, waiter.tag, waiter.scope, waiter.tokens, exclude, now, waiter)
        if lease is not None:
            if waiter.has_saved:
                self._unsave(waiter, group)
            waiter.future.set_result(lease)
            return True
        answer = self._why_not(group, model, waiter.tokens, exclude, now, waiter)
        if self._reject(waiter, answer, now):
            return False
        floor = self._why_not(group, model, 0, exclude, now, waiter) if waiter.tokens else answer
        demand.ready_at = min(demand.ready_at, answer.retry_at)
        demand.blocked_tokens = min(demand.blocked_tokens, waiter.tokens)
        bound = NEVER if isinstance(floor, Exhausted) and floor.until is None else floor.until
        if bound is not None:
            for overdue in demand.overdue(bound):
                self._reject(overdue, floor, now)
        self._save_for(waiter, group, model, now)
        return False

    def _reject(self, waiter: Waiter[Lease], answer: Wait | Exhausted, now: float) -> bool:
        error = refusal(answer, waiter.deadline, now)
        demand = waiter.demand
        if error is None or demand is None:
            return False
        self._queue.remove(waiter)
        if waiter.has_saved:
            self._unsave(waiter, self._group_of(demand))
        if not waiter.future.done():
            pool, provider, _, model, _ = demand.key
            waiter.future.set_exception(
                exhausted_error(error, pool=pool, provider=provider, model=model, now=now, offset=self._offset)
            )
        return True

    def _save_for(self, waiter: Waiter[Lease], group: Group, model: str, now: float) -> None:
        """Keep an account free for a request that is too large to ever find enough tokens left by smaller ones."""
        if waiter.has_saved or self._grants - waiter.since_grant < OLDEST_EVERY:
            return
        best: tuple[float, LiveAccount] | None = None
        for account in group.members:
            blocks = account.blocks(model, waiter.tokens, now, now + self._offset, waiter)
            if account.saved_for is None and any(block.reason == "limit per minute" for block in blocks):
                at = max(block.retry_at for block in blocks if block.reason == "limit per minute")
                if all(block.reason in ("limit per minute", "busy") for block in blocks) and (
                    best is None or at < best[0]
                ):
                    best = (at, account)
        if best is not None:
            best[1].saved_for = waiter
            waiter.has_saved = True

    def _why_not(
        self,
        group: Group,
        model: str,
        tokens: int,
        exclude: frozenset[str],
        now: float,
        waiter: Waiter[Lease] | None,
        reason: str = "",
    ) -> Wait | Exhausted:
        return why_not(group, model, tokens, exclude, now=now, offset=self._offset, waiter=waiter, reason=reason)

    # --- time ---------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Take back what has passed and serve who waits. The timers call it; it may be called at any time."""
        now = self._now()
        epoch = now + self._offset
        for account in list(self._accounts.values()):
            if account.state.until is not None and now >= account.blocked_until:
                self._set(account, _lapsed(account, now, epoch), epoch)
        if self._queue.size:
            self._serve_all(now)
        self._wake_for_states(now)

    def _on_timer(self) -> None:
        self._cancel_timer = None
        self._timer_at = NEVER
        self.tick()

    def _wake_at(self, at: float, now: float) -> None:
        if at >= self._timer_at or at == NEVER:
            return
        if self._cancel_timer is not None:
            self._cancel_timer()
        self._cancel_timer = self._schedule(max(at, now), self._on_timer)
        self._timer_at = at if self._cancel_timer is not None else NEVER

    def _wake_for_states(self, now: float) -> None:
        at = min((a.blocked_until for a in self._accounts.values() if a.blocked_until > now), default=NEVER)
        self._wake_at(at, now)

    def _calibrate(self, now: float) -> None:
        """Read the wall clock again. A jump moves quota resets, which are wall-clock times, but no cooling."""
        self._calibrated = now
        offset = self._clock.now().timestamp() - now
        jump, self._offset = offset - self._offset, offset
        if abs(jump) < _JUMP_S:
            return
        for account in self._accounts.values():
            state = account.state
            if state.until is not None and state.health is AccountStatus.COOLING:
                state = msgspec.structs.replace(state, until=state.until + jump)
            account.set_state(state, offset)
        self._wake_for_states(now)

    # --- states -------------------------------------------------------------------------------------------------

    def _set(self, account: LiveAccount, state: AccountState, epoch: float, outcome: Outcome | None = None) -> None:
        before = account.state
        if state is before:
            return
        account.set_state(state, self._offset)
        self._dirty.add(account.spec.id)
        if state.status is not before.status or state.until != before.until:
            self._tell(
                AccountChange(
                    account=account.spec.id,
                    pool=account.spec.pool,
                    before=before.status,
                    after=state.status,
                    at=epoch,
                    until=state.until if state.disabled_why is None else None,
                    why=state.disabled_why or state.why,
                    outcome=outcome,
                )
            )
            now = epoch - self._offset
            if account.blocked_until > now:
                self._wake_at(account.blocked_until, now)
        self._observe(epoch)

    def _observe(self, epoch: float) -> None:
        for tracker in self._table.trackers.values():
            episode = tracker.observe(epoch)
            if episode is not None:
                self._tell(episode)

    def _tell_breaker(self, account: LiveAccount, model: str, epoch: float) -> None:
        breaker = account.breakers.get(model)
        until = breaker.until if breaker is not None else 0.0
        self._tell(
            BreakerChange(
                account=account.spec.id,
                model=model,
                is_open=until > 0.0,
                at=epoch,
                until=until + self._offset if until > 0.0 else None,
            )
        )

    def _tell(self, change: Change) -> None:
        try:
            self._on_change(change)
        except Exception:  # noqa: BLE001 - a listener's fault is reported and never stops the work (design.md §3, law 7)
            _LOG.exception("a listener failed on %r", change)

    def set_state(self, account: str, status: Literal["disabled", "available"], why: str) -> None:
        """Take an account out, or take that back; a suspended one stays suspended (see ``reset``).

        Raises:
            KeyError: there is no such account.
        """
        live = self._accounts[account]
        now = self._now()
        state = disable(live.state, why or "disabled by an operator") if status == "disabled" else enable(live.state)
        self._set(live, state, now + self._offset)
        self._serve_all(now)

    def reset(self, account: str) -> None:
        """Begin afresh after somebody put things right: state, breakers, and own counters that had run out.

        Raises:
            KeyError: there is no such account.
        """
        live = self._accounts[account]
        now = self._now()
        if live.state.is_own_count:
            held = [window.held_tokens for window in live.quotas]
            live.quotas = [make_window(window.quota) for window in live.quotas]
            for window, tokens in zip(live.quotas, held, strict=True):
                window.held_tokens = tokens
        live.breakers.clear()
        fresh = AccountState(since=now + self._offset, why="reset by an operator", disabled_why=live.state.disabled_why)
        self._set(live, fresh, now + self._offset)
        self._serve_all(now)

    def state_of(self, account: str) -> tuple[str, AccountState] | None:
        """An account's key and state, to tell other workers."""
        live = self._accounts.get(account)
        return None if live is None else (live.spec.key_fingerprint, live.state)

    def adopt(self, account: str, key_fingerprint: str, state: AccountState) -> None:
        """Take a state that another worker has seen; nobody is told again. Another key's state is not ours."""
        live = self._accounts.get(account)
        if live is None or live.spec.key_fingerprint != key_fingerprint:
            return
        now = self._now()
        epoch = now + self._offset
        live.set_state(_configured(live, lapse(state, epoch), epoch), self._offset)
        self._dirty.add(account)
        for tracker in self._table.trackers.values():
            tracker.observe(epoch)
        self._wake_for_states(now)
        self._serve_all(now)

    def snapshot(self) -> list[AccountView]:
        """Every account as it stands."""
        self.tick()
        now = self._now()
        return [
            view_account(account, self._table.reserved_for.get(account.spec.id), now, self._offset)
            for account in self._accounts.values()
        ]

    # --- keeping and changing -----------------------------------------------------------------------------------

    def dump(self, account: str) -> dict[str, Any]:
        """What must survive a restart, as plain values; held tokens count as used. KeyError: no such account."""
        return self._accounts[account].dump()

    def drain_dirty(self) -> list[dict[str, Any]]:
        """Dumps of the accounts whose state or counters changed since the last time: what to write next."""
        dirty, self._dirty = self._dirty, set()
        return [self._accounts[name].dump() for name in dirty if name in self._accounts]

    def restore(self, rows: Iterable[dict[str, Any]]) -> list[str]:
        """Go on where a dump stood; called once, before the first call. Nobody is notified again of what was known.

        Returns the accounts that begin afresh: their key is another one, they are gone, or the row is damaged.
        """
        epoch = self._now() + self._offset
        refused = []
        for row in rows:
            account = self._accounts.get(str(row.get("account")))
            if account is None or row.get("key_fingerprint") != account.spec.key_fingerprint:
                refused.append(str(row.get("account")))
                continue
            try:
                state = account.load(row, epoch)
            except (msgspec.ValidationError, LookupError, TypeError, ValueError):
                refused.append(account.spec.id)
                continue
            account.set_state(_configured(account, lapse(state, epoch), epoch), self._offset)
        for tracker in self._table.trackers.values():
            tracker.observe(epoch)
        self._wake_for_states(epoch - self._offset)
        return refused

    def reconfigure(
        self, pools: Sequence[PoolSpec], accounts: Sequence[AccountSpec], *, tag_limits: Sequence[TagLimit] = ()
    ) -> None:
        """Take a new configuration: leases stay valid, unchanged accounts keep state and counters.

        An account with another key or provider begins afresh; leases on its old key end without a trace.

        Raises:
            ConfigError: it cannot be built; nothing has changed then.
        """
        check_pools(pools, accounts)
        now = self._now()
        epoch = now + self._offset
        live = {spec.id: self._renewed(spec) for spec in accounts}
        self._accounts = live
        self._tag_meters = make_tag_meters(tag_limits, self._tag_meters)
        before = self._table.trackers
        self._table = PoolTable(pools, live, self._tag_meters)
        for key, tracker in self._table.trackers.items():
            if key in before:
                tracker.take_over(before[key])
        for demand in self._queue.demands.values():
            for waiter in demand.oldest:
                waiter.has_saved = False
        for account in live.values():
            account.saved_for = None
            self._set(account, _configured(account, account.state, epoch), epoch)
        self._dirty.update(live)
        self._observe(epoch)
        self._serve_all(now)

    def _renewed(self, spec: AccountSpec) -> LiveAccount:
        known = self._accounts.get(spec.id)
        if known is None or (known.spec.key_fingerprint, known.spec.provider) != (spec.key_fingerprint, spec.provider):
            return LiveAccount(spec)
        known.set_spec(spec)
        return known


def _configured(account: LiveAccount, state: AccountState, epoch: float) -> AccountState:
    """Bring a state in line with the account's configuration."""
    if not account.spec.enabled:
        state = disable(state, _IN_CONFIG)
    elif state.disabled_why == _IN_CONFIG:
        state = enable(state)
    if state.is_own_count and account.spent_window(epoch) is None:
        state = AccountState(since=epoch, why="its configured quota has room", disabled_why=state.disabled_why)
    return state


def _lapsed(account: LiveAccount, now: float, epoch: float) -> AccountState:
    """The state with what has passed taken back; the monotonic view decides, whatever was lost in rounding."""
    state = account.state
    return state if state.until is None or now < account.blocked_until else lapse(state, max(epoch, state.until))
