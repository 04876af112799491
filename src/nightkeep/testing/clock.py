"""A clock that moves only when told to, with timers: for tests and drills, so that none of them sleeps."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["FakeClock"]

_START: Final = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


class FakeClock:
    """A ``Clock`` whose ``schedule`` fits ``nightkeep.models.account_book``."""

    def __init__(self, start: datetime = _START, monotonic: float = 1_000.0) -> None:
        self._wall = start
        self._monotonic = monotonic
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._cancelled: set[int] = set()
        self._scheduled = 0

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return self._wall

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self._monotonic

    def schedule(self, at: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when ``advance`` passes ``at`` (monotonic); returns what cancels it."""
        self._scheduled += 1
        number = self._scheduled
        heapq.heappush(self._timers, (at, number, callback))
        return lambda: self._cancelled.add(number)

    @property
    def next_timer_s(self) -> float | None:
        """Seconds until the next timer; None when there is none."""
        while self._timers and self._timers[0][1] in self._cancelled:
            self._cancelled.discard(heapq.heappop(self._timers)[1])
        return max(0.0, self._timers[0][0] - self._monotonic) if self._timers else None

    def advance(self, seconds: float) -> None:
        """Let time pass, running each timer at its own moment."""
        end = self._monotonic + seconds
        while self.next_timer_s is not None and self._timers[0][0] <= end:
            at, _, callback = heapq.heappop(self._timers)
            self._move_to(at)
            callback()
        self._move_to(end)

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator or NTP does; no time passes."""
        self._wall += timedelta(seconds=seconds)

    def _move_to(self, at: float) -> None:
        if at > self._monotonic:
            self._wall += timedelta(seconds=at - self._monotonic)
            self._monotonic = at
