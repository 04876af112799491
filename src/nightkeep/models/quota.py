"""Quota windows: what an account may use in an hour, a day, a week or a month.

Calendar windows begin at the account's own reset time in its own time zone (``nightkeep.core.windows``); rolling
windows look back over a fixed span. Counters and boundaries are plain numbers (epoch seconds). Limits per minute are
in ``nightkeep.control.meters``. Sources: Q-PROXY-16, S8.8 (50 requests a week), S3.3.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Final, Literal

import msgspec

from nightkeep.core.windows import Per, calendar_window

__all__ = ["NEVER", "CalendarWindow", "Per", "Quota", "QuotaWindow", "RollingWindow", "make_window"]

NEVER: Final = math.inf
_SPAN_S: Final = {"hour": 3_600.0, "day": 86_400.0, "week": 604_800.0, "month": 2_592_000.0}
_BUCKETS: Final = 96  # of a rolling window; a bucket is held until its youngest use is out of the window


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """What may be used in a window; None is no limit."""

    per: Per
    tokens: int | None = None
    requests: int | None = None
    window: Literal["calendar", "rolling"] = "calendar"
    resets_at: str | None = None  # "HH:MM Area/City"; None is 00:00 UTC. Of an hour only the minutes count
    resets_on: str | None = None  # weekday, of a week; None is monday. A month resets on its first day

    @property
    def key(self) -> str:
        """Which window it is, whatever the amounts: counters survive when only an amount is changed."""
        return f"{self.window} {self.per} {self.resets_on or 'monday'} {self.resets_at or '00:00 UTC'}"


class QuotaWindow:
    """What is used and held in a window. ``now`` is epoch seconds.

    Held is what calls in flight have reserved; it moves into the next window with them.
    """

    __slots__ = ("held_tokens", "most_requests", "most_tokens", "quota", "used_requests", "used_tokens")

    def __init__(self, quota: Quota) -> None:
        self.used_tokens = 0
        self.used_requests = 0
        self.held_tokens = 0
        self.set_quota(quota)

    def set_quota(self, quota: Quota) -> None:
        """Change the amounts and keep what is counted."""
        self.quota = quota
        self.most_tokens: float = NEVER if quota.tokens is None else quota.tokens
        self.most_requests: float = NEVER if quota.requests is None else quota.requests

    def roll(self, now: float) -> None:
        """Forget what is out of the window."""
        raise NotImplementedError

    def resets_at(self, now: float) -> float:
        """When something that is used now becomes free again."""
        raise NotImplementedError

    def earliest(self, tokens: int, now: float) -> float:
        """When one more request fits if everything held is given back; ``NEVER`` if it is larger than the quota."""
        raise NotImplementedError

    def load(self, row: dict[str, Any], now: float) -> None:
        """Take over what ``dump`` gave, as far as it is still in the window."""
        raise NotImplementedError

    def dump(self) -> dict[str, Any]:
        """What must survive a restart. Held counts as used: the calls may have been sent."""
        raise NotImplementedError

    def _add(self, tokens: int, requests: int, now: float) -> None:
        self.used_tokens += tokens
        self.used_requests += requests

    def is_ready(self, tokens: int, now: float) -> bool:
        """Whether one more request of ``tokens`` fits beside what is used and held."""
        self.roll(now)
        return (
            self.used_requests + 1 <= self.most_requests
            and self.used_tokens + self.held_tokens + tokens <= self.most_tokens
        )

    def is_spent(self, now: float) -> bool:
        """Whether nothing at all is left, whatever is held."""
        self.roll(now)
        return self.used_requests >= self.most_requests or self.used_tokens >= self.most_tokens

    def share_used(self, now: float) -> float:
        """The larger share of tokens or requests that is used."""
        self.roll(now)
        return max(self.used_requests / self.most_requests, self.used_tokens / self.most_tokens)

    def take(self, tokens: int, now: float) -> None:
        """Count a request and hold its tokens (after ``is_ready``)."""
        self.roll(now)
        self.held_tokens += tokens
        self._add(0, 1, now)

    def settle(self, reserved: int, used: int, now: float) -> None:
        """Replace what a call held by what it used."""
        self.roll(now)
        self.held_tokens = max(0, self.held_tokens - reserved)
        self._add(used, 0, now)

    def undo(self, reserved: int, now: float) -> None:
        """The request was never sent."""
        self.roll(now)
        self.held_tokens = max(0, self.held_tokens - reserved)
        if self.used_requests:
            self._add(0, -1, now)


class CalendarWindow(QuotaWindow):
    """A window of the calendar."""

    __slots__ = ("_end", "_start")

    def __init__(self, quota: Quota) -> None:
        super().__init__(quota)
        self._start = -NEVER
        self._end = -NEVER

    def roll(self, now: float) -> None:
        """Begin the window that holds ``now``; a clock that was set back does not clear it."""
        if now < self._end:
            return
        self._start, self._end = calendar_window(self.quota.per, now, self.quota.resets_at, self.quota.resets_on)
        self.used_tokens = self.used_requests = 0

    def resets_at(self, now: float) -> float:
        """The end of the window."""
        self.roll(now)
        return self._end

    def earliest(self, tokens: int, now: float) -> float:
        """Now, the end of the window, or never."""
        if tokens > self.most_tokens or self.most_requests < 1:
            return NEVER
        self.roll(now)
        fits = self.used_requests + 1 <= self.most_requests and self.used_tokens + tokens <= self.most_tokens
        return now if fits else self._end

    def dump(self) -> dict[str, Any]:
        """Key, end of the window and what is used."""
        used = {"tokens": self.used_tokens + self.held_tokens, "requests": self.used_requests}
        return {"key": self.quota.key, "ends_at": self._end if math.isfinite(self._end) else 0.0, **used}

    def load(self, row: dict[str, Any], now: float) -> None:
        """Nothing is left of a window that has ended."""
        self.roll(now)
        if row["ends_at"] > now:
            self.used_tokens, self.used_requests = int(row["tokens"]), int(row["requests"])


class RollingWindow(QuotaWindow):
    """A window that looks back over a fixed span (a month is 30 days)."""

    __slots__ = ("_buckets", "_span_s", "_width_s")

    def __init__(self, quota: Quota) -> None:
        super().__init__(quota)
        self._buckets: deque[list[float]] = deque()  # [its last moment, tokens, requests]
        self._span_s = _SPAN_S[quota.per]
        self._width_s = self._span_s / _BUCKETS

    def roll(self, now: float) -> None:
        """Drop the buckets that are wholly out of the window."""
        oldest = now - self._span_s
        while self._buckets and self._buckets[0][0] <= oldest:
            _, tokens, requests = self._buckets.popleft()
            self.used_tokens -= int(tokens)
            self.used_requests -= int(requests)

    def resets_at(self, now: float) -> float:
        """When the oldest use leaves the window."""
        self.roll(now)
        return self._buckets[0][0] + self._span_s if self._buckets else now

    def earliest(self, tokens: int, now: float) -> float:
        """When enough of the oldest use has left the window."""
        if tokens > self.most_tokens or self.most_requests < 1:
            return NEVER
        self.roll(now)
        used_tokens: float = self.used_tokens
        used_requests: float = self.used_requests
        at = now
        for end, bucket_tokens, bucket_requests in self._buckets:
            if used_requests + 1 <= self.most_requests and used_tokens + tokens <= self.most_tokens:
                return at
            used_tokens -= bucket_tokens
            used_requests -= bucket_requests
            at = end + self._span_s
        return at

    def _add(self, tokens: int, requests: int, now: float) -> None:
        self.roll(now)
        end = (math.floor(now / self._width_s) + 1) * self._width_s
        if not self._buckets or self._buckets[-1][0] < end:
            self._buckets.append([end, 0, 0])
        bucket = self._buckets[-1]
        bucket[1] += tokens
        bucket[2] += requests
        super()._add(tokens, requests, now)

    def dump(self) -> dict[str, Any]:
        """Key and buckets; held counts in the youngest."""
        buckets = [list(bucket) for bucket in self._buckets]
        if self.held_tokens and buckets:
            buckets[-1][1] += self.held_tokens
        return {"key": self.quota.key, "buckets": buckets}

    def load(self, row: dict[str, Any], now: float) -> None:
        """Take over the buckets; the old ones leave at once."""
        self._buckets = deque([float(end), int(tokens), int(requests)] for end, tokens, requests in row["buckets"])
        self.used_tokens = sum(int(bucket[1]) for bucket in self._buckets)
        self.used_requests = sum(int(bucket[2]) for bucket in self._buckets)
        self.roll(now)


def make_window(quota: Quota) -> QuotaWindow:
    """Begin an empty window of the right kind."""
    return CalendarWindow(quota) if quota.window == "calendar" else RollingWindow(quota)
