"""Limits per minute: how many requests and tokens an account, a tag or a scope may take in any 60 seconds.

A sliding log, exact in every window of 60 s (a token bucket would let twice the limit through at a burst).
Tokens are reserved as an estimate and corrected when the call is settled. Longer windows are in
``nightkeep.models.quota``; how many calls run at a time is counted by whoever owns the meter.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

__all__ = ["NO_LIMIT", "WINDOW_S", "Limits", "Meter", "MeterEntry"]

NO_LIMIT: Final = 1 << 62
WINDOW_S: Final = 60.0
_MOST_ENTRIES: Final = 4_096
_MERGED_S: Final = 0.25


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What may be done at a time; None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None


class MeterEntry:
    """What one call took from a meter."""

    __slots__ = ("is_counted", "is_estimate", "requests", "tokens", "until")

    def __init__(self, at: float, requests: int, tokens: int) -> None:
        self.until = at + WINDOW_S
        self.requests = requests
        self.tokens = tokens
        self.is_counted = True
        self.is_estimate = requests > 0


class Meter:
    """A sliding log of one minute. Times are monotonic seconds and never go back."""

    __slots__ = ("_log", "_most_entries", "_requests", "_tokens", "most_requests", "most_tokens")

    def __init__(self, limits: Limits) -> None:
        self._log: deque[MeterEntry] = deque()
        self._most_entries = _MOST_ENTRIES
        self._requests = 0
        self._tokens = 0
        self.set_limits(limits)

    def set_limits(self, limits: Limits) -> None:
        """Change the limits and keep what is counted."""
        self.most_requests = NO_LIMIT if limits.requests_per_minute is None else limits.requests_per_minute
        self.most_tokens = NO_LIMIT if limits.tokens_per_minute is None else limits.tokens_per_minute

    @property
    def entries(self) -> int:
        """How much is remembered; bounded at any rate."""
        return len(self._log)

    def used(self, now: float) -> tuple[int, int]:
        """Requests and tokens counted in the last minute."""
        self._expire(now)
        return self._requests, self._tokens

    def is_ready(self, tokens: int, now: float) -> bool:
        """Whether one more request of ``tokens`` fits.

        A request that is larger than the whole limit fits an empty minute: the estimate is a worst case.
        """
        log = self._log
        if log and log[0].until <= now:
            self._expire(now)
        return self._requests < self.most_requests and (
            self._tokens + tokens <= self.most_tokens or (self._tokens <= 0 and tokens > self.most_tokens)
        )

    def earliest(self, tokens: int, now: float) -> float:
        """When one more request of ``tokens`` fits if all that is only estimated turns out to be nothing."""
        return self._fits_at(tokens, now, may_shrink=True)

    def latest(self, tokens: int, now: float) -> float:
        """When one more request of ``tokens`` fits, if nothing else is taken and every estimate was right."""
        return self._fits_at(tokens, now, may_shrink=False)

    def _fits_at(self, tokens: int, now: float, *, may_shrink: bool) -> float:
        self._expire(now)
        tokens = min(tokens, self.most_tokens)
        requests, held = self._requests, self._tokens
        if may_shrink:
            held -= sum(entry.tokens for entry in self._log if entry.is_estimate)
        at = now
        for entry in self._log:
            if requests < self.most_requests and held + tokens <= self.most_tokens:
                return at
            requests -= entry.requests
            held -= 0 if may_shrink and entry.is_estimate else entry.tokens
            at = entry.until
        return at

    def take(self, tokens: int, now: float) -> MeterEntry:
        """Count one request (after ``is_ready``)."""
        if len(self._log) >= self._most_entries:
            self._merge()
        entry = MeterEntry(now, 1, min(tokens, self.most_tokens))
        self._log.append(entry)
        self._requests += 1
        self._tokens += entry.tokens
        return entry

    def correct(self, entry: MeterEntry, tokens: int, now: float) -> None:
        """Replace an estimate by the real count. What a long call used beyond it counts from now."""
        more = tokens - entry.tokens
        entry.is_estimate = False
        if entry.is_counted and entry.until > now:
            entry.tokens = tokens
            self._tokens += more
        elif more > 0:
            self._log.append(MeterEntry(now, 0, more))
            self._tokens += more

    def undo(self, entry: MeterEntry) -> None:
        """The request was never sent."""
        if entry.is_counted:
            self._requests -= entry.requests
            self._tokens -= entry.tokens
            entry.requests = entry.tokens = 0

    def _merge(self) -> None:
        """Keep memory bounded at any rate: settled neighbours become one, which counts as long as its latest.

        So a limit of many thousands a minute is exact to 0.25 s, on the strict side; below that to the call.
        """
        merged: deque[MeterEntry] = deque()
        first_until = 0.0
        for entry in self._log:
            last = merged[-1] if merged else None
            is_near = entry.until - first_until < _MERGED_S
            if last is not None and is_near and not last.is_estimate and not entry.is_estimate:
                last.until = entry.until
                last.requests += entry.requests
                last.tokens += entry.tokens
            else:
                merged.append(entry)
                first_until = entry.until
        self._log = merged
        self._most_entries = max(_MOST_ENTRIES, 2 * len(merged))

    def _expire(self, now: float) -> None:
        log = self._log
        while log and log[0].until <= now:
            entry = log.popleft()
            entry.is_counted = False
            self._requests -= entry.requests
            self._tokens -= entry.tokens
