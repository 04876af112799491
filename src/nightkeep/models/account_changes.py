"""What the account book tells its listener, and how it asks to be woken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from nightkeep.core.clock import Clock
from nightkeep.models.accounts import AccountChange
from nightkeep.models.pools import PoolEpisode

__all__ = ["BreakerChange", "Change", "Schedule", "schedule_on_running_loop"]

Schedule = Callable[[float, Callable[[], None]], Callable[[], None] | None]
"""``schedule(at_monotonic, callback)`` returns what cancels it, or None when nothing can be scheduled here."""


class BreakerChange(msgspec.Struct, frozen=True, kw_only=True, tag="breaker_changed"):
    """The breaker of an account and model opened (again) or closed."""

    account: str
    model: str
    is_open: bool
    at: float  # epoch seconds
    until: float | None  # epoch seconds


Change = AccountChange | BreakerChange | PoolEpisode


def schedule_on_running_loop(clock: Clock) -> Schedule:
    """Timers of the event loop that is running; outside of one nobody waits, and states lapse when looked at."""

    def schedule(at: float, callback: Callable[[], None]) -> Callable[[], None] | None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return None
        return loop.call_later(max(0.0, at - clock.monotonic()), callback).cancel

    return schedule
