"""Admission: what must be true before an attempt leaves (law 1), and what is taken for it.

A target on which the request can be said, no switch thrown, a permit of every limit, money in every budget, an account.
Each attempt is admitted afresh; what was taken is given back where a later step refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from nightkeep.control.stops import refusal
from nightkeep.control.stops_in_force import StopsInForce
from nightkeep.core.clock import Clock
from nightkeep.core.errors import BudgetError, NightkeepError, PoolExhaustedError, StoppedError, UntranslatableError
from nightkeep.core.scope import ROOT
from nightkeep.models.account_book import AccountBook
from nightkeep.models.gateway.call import Call
from nightkeep.models.gateway.directory import Directory
from nightkeep.models.gateway.limits import clamp_body
from nightkeep.models.gateway.permits import Permits, Taken
from nightkeep.models.gateway.progress import Progress, Said
from nightkeep.models.gateway.spending import Held, Spending
from nightkeep.models.leases import Lease

__all__ = ["Admission", "Admitted", "may_fail_over", "model_names"]


class Patient(Protocol):
    """How long a call may wait."""

    @property
    def max_wait_s(self) -> float:
        """Seconds, for a permit, for money or for an account."""
        ...


class Controls(Protocol):
    """What admission asks; the gateway's parts. A reload replaces some of them."""

    @property
    def settings(self) -> Patient: ...

    @property
    def book(self) -> AccountBook: ...

    @property
    def directory(self) -> Directory: ...

    @property
    def spending(self) -> Spending: ...

    @property
    def switches(self) -> StopsInForce: ...

    @property
    def permits(self) -> Permits: ...

    @property
    def clock(self) -> Clock: ...


class Admitted(NamedTuple):
    """An attempt that may leave: what it says, on which account, with what held for it."""

    said: Said
    lease: Lease
    held: Held
    taken: Taken


class Admission:
    """Admits attempts."""

    def __init__(self, parts: Controls) -> None:
        self._parts = parts

    async def admit(self, progress: Progress) -> Admitted:
        """Find the next target that can take the request, room for it in every budget, and an account.

        Each attempt is admitted afresh: a fallback has another price (law 1). Waits where it must.

        Raises:
            UntranslatableError: no target that is left can be asked this without changing its meaning.
            StoppedError: a switch is thrown for every target that is left.
            LimitError: its scope, or its key, is at its limit.
            BudgetError: no budget has room for any target that is left.
            PoolExhaustedError: no account can serve before the deadline.
        """
        refused: NightkeepError | None = None
        while True:
            candidate = progress.candidate
            try:
                self._check_stopped(progress)
                said = progress.say(candidate.wire, candidate.model)
                return await self._take(progress, said)
            except UntranslatableError:
                if not may_fail_over(progress):
                    raise
            except (PoolExhaustedError, BudgetError, StoppedError) as error:
                refused = _earlier(refused, error)
                if not may_fail_over(progress):
                    raise refused from error
            progress.next_target()

    async def _take(self, progress: Progress, said: Said) -> Admitted:
        """Wait for a permit of every limit, then hold the money, then take an account; all of it or nothing."""
        parts, call = self._parts, progress.call
        until = parts.clock.monotonic() + parts.settings.max_wait_s
        back: list[Callable[[], None]] = []  # what gives back, in the order in which it was taken
        try:
            taken = await parts.permits.acquire(call, progress.tokens, min(call.deadline, until))
            back.append(lambda: parts.permits.release(taken))
            held = await parts.spending.reserve(call, progress.route, progress.candidate, progress.weight, until)
            back.append(lambda: parts.spending.budgets.release(held.reservation))
            lease = await self._lease(progress)
            back.append(lambda: parts.book.release(lease))
            said = _clamped(said, held, progress.candidate.provider)
            return Admitted(parts.directory.adapt(lease.account_id, said), lease, held, taken)
        except BaseException:
            for give_back in reversed(back):
                give_back()
            kept, progress.kept_lease = progress.kept_lease, None
            if kept is not None:
                parts.book.release(kept)
            raise

    def _check_stopped(self, progress: Progress) -> None:
        call = progress.call
        self._parts.switches.check(scope=call.scope, tag=call.tag, models=model_names(call, progress))

    async def _lease(self, progress: Progress) -> Lease:
        call, switches, book = progress.call, self._parts.switches, self._parts.book
        now = self._parts.clock.monotonic()
        while True:
            kept, progress.kept_lease = progress.kept_lease, None
            lease = kept or await self._acquire(progress, now)
            stop = switches.find(scope=call.scope, tag=call.tag, models=model_names(call, progress))
            stopped_account = switches.find(scope=ROOT, tag=None, account=lease.account_id)
            if stop is None and stopped_account is None:
                return lease
            book.release(lease)
            if stop is not None:  # it was thrown while the call waited
                raise refusal(stop)
            progress.excluded |= {lease.account_id}

    async def _acquire(self, progress: Progress, now: float) -> Lease:
        """An account for the target in turn; waits in the queue where it must. Raises PoolExhaustedError."""
        call, candidate = progress.call, progress.candidate
        return await self._parts.book.acquire(
            candidate.pool,
            candidate.provider,
            candidate.model,
            tag=call.tag,
            scope=call.scope,
            tokens=progress.tokens,
            exclude=progress.excluded,
            priority=call.priority,
            deadline=min(call.deadline, now + self._parts.settings.max_wait_s),
        )


def may_fail_over(progress: Progress) -> bool:
    """Whether another target may be asked."""
    return bool(progress.rest) and progress.route.failover != "none"


def model_names(call: Call, progress: Progress | None) -> tuple[str, ...]:
    """The names by which a call's model can be stopped: as it was asked for, and the target in turn."""
    if progress is None:
        return (call.head.model,)
    return call.head.model, progress.candidate.target, progress.candidate.model


def _clamped(said: Said, held: Held, provider: str) -> Said:
    """The request with its output limited to what could be reserved; it is reported with what was stripped."""
    most = held.clamp
    if most is None:
        return said
    why = "what its budget has left"
    body, change = clamp_body(said.wire, said.body, most, why, is_openai=provider in ("openai", "azure"))
    return Said(said.wire, body, (*said.stripped, change))


def _earlier(known: NightkeepError | None, found: NightkeepError) -> NightkeepError:
    """Of two refusals the one that ends first: that is when a retry makes sense."""
    if known is None:
        return found
    first, second = known.retry_after_s, found.retry_after_s
    return found if first is None or (second is not None and second < first) else known
