"""The circuit breaker of one account and one model: stops calls before they leave when calls keep failing.

A small machine with time as an argument; no I/O, no timers. Whether the account itself may be used is in
``nightkeep.models.accounts``; who asks the breaker is ``nightkeep.models.account_live``. Sources: Q-PROXY-02
(5 failures in 60 s, blocks before sending, half-open probe), A7-R3 (only the provider's faults count).
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import Final

import msgspec

from nightkeep.core.outcome import Outcome

__all__ = ["COUNTED_OUTCOMES", "Breaker", "BreakerPolicy", "BreakerState"]

COUNTED_OUTCOMES: Final = frozenset({Outcome.OVERLOADED, Outcome.UNAVAILABLE, Outcome.TIMED_OUT, Outcome.CUT_STREAM})
"""What counts as a failure; all else says that the provider is up (or, when cancelled, says nothing)."""


class BreakerState(StrEnum):
    """Closed lets calls through, open none, half-open exactly one probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a breaker opens and for how long."""

    failures: int = 5  # Q-PROXY-02
    window_s: float = 60.0  # Q-PROXY-02
    least_share: float = 0.5  # of the outcomes in the window; else one failure in a thousand would open a busy one
    open_s: float = 15.0  # the first time; A7 has a fixed 60 s, this one grows
    open_growth: float = 2.0
    most_open_s: float = 300.0


DEFAULT_POLICY: Final = BreakerPolicy()


class Breaker:
    """Counts failures in a sliding window, opens, admits one probe, and closes or opens for longer."""

    __slots__ = ("_failures", "_has_probe", "_opened", "_policy", "_successes", "_until")

    def __init__(self, policy: BreakerPolicy = DEFAULT_POLICY) -> None:
        self._policy = policy
        self._failures: deque[list[float]] = deque()  # [time, successes that followed it]
        self._successes = 0.0
        self._opened = 0  # times in a row; 0 is closed
        self._until = 0.0
        self._has_probe = False

    def state(self, now: float) -> BreakerState:
        """The state at ``now`` (monotonic seconds, as everywhere here)."""
        if not self._opened:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._until else BreakerState.HALF_OPEN

    @property
    def until(self) -> float:
        """When a probe may leave, while it is open; 0 when closed."""
        return self._until if self._opened else 0.0

    @property
    def is_idle(self) -> bool:
        """It is closed and remembers no failure, so that it can be dropped."""
        return not self._opened and not self._failures

    def is_ready(self, now: float) -> bool:
        """Whether a call may leave now."""
        return not self._opened or (now >= self._until and not self._has_probe)

    def admit(self) -> bool:
        """Let a call leave (after ``is_ready``) and tell whether it is the probe."""
        if not self._opened:
            return False
        self._has_probe = True
        return True

    def record(self, outcome: Outcome, now: float, *, is_probe: bool) -> bool:
        """Take the outcome of a call that was admitted; tell whether the state changed.

        While open or half-open only the probe decides: results of calls that left earlier are old news.
        A cancelled probe says nothing, so the next call is the probe.
        """
        if is_probe:
            return self._end_probe(outcome, now)
        if self._opened:
            return False
        self._expire(now)
        if outcome is Outcome.SUCCESS:
            if self._failures:
                self._failures[-1][1] += 1
                self._successes += 1
            return False
        if outcome not in COUNTED_OUTCOMES:
            return False
        self._failures.append([now, 0.0])
        if not self._is_too_much():
            return False
        self._open(now)
        return True

    def forget_probe(self) -> None:
        """The probe was given back unsent."""
        self._has_probe = False

    def _end_probe(self, outcome: Outcome, now: float) -> bool:
        self._has_probe = False
        if not self._opened or outcome is Outcome.CANCELLED:
            return False
        if outcome in COUNTED_OUTCOMES:
            self._open(now)
        else:
            self._opened = 0
        return True

    def _is_too_much(self) -> bool:
        failures = len(self._failures)
        share = failures / (failures + self._successes)
        return failures >= self._policy.failures and share >= self._policy.least_share

    def _open(self, now: float) -> None:
        policy = self._policy
        self._until = now + min(policy.open_s * policy.open_growth**self._opened, policy.most_open_s)
        self._opened = min(self._opened + 1, 64)
        self._failures.clear()
        self._successes = 0.0

    def _expire(self, now: float) -> None:
        oldest = now - self._policy.window_s
        while self._failures and self._failures[0][0] <= oldest:
            self._successes -= self._failures.popleft()[1]
