"""Spend rate: what a scope spends now against what it usually spends.

The baseline is per hour: the median of the hours of the last seven days in which there was spending, or the average of
this hour of the day where that is more (a nightly batch is usual at night). The hour that runs does not count, and the
median keeps yesterday's runaway from becoming today's norm. Spending counts for the scope and all above it; an alarm is
raised for the lowest scope that explains it. Five minutes must be over the factor; whether it is ten times, the last
minute alone may say: so a steady 10x is critical within a minute, and a single costly call is not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from statistics import median
from typing import Final

from nightkeep.control.watch_memory import Lately
from nightkeep.control.watch_specs import CallEnded, Finding, Now, RuleName, SpendRateSpec
from nightkeep.core.money import MicroUsd, format_usd
from nightkeep.core.scope import is_within, parents

__all__ = ["SpendRate"]

_HOUR_S: Final = 3_600
_LONG_S: Final = 300.0
_SHORT_S: Final = 60.0
_BUCKET_S: Final = 10.0
_KEPT_HOURS: Final = 168
_MOST_SCOPES: Final = 2_000


class _Spender:
    """What one scope spent."""

    __slots__ = ("_base", "_base_hour", "hours", "recent")

    def __init__(self) -> None:
        self.hours: dict[int, int] = {}
        self.recent: deque[list[float]] = deque()  # [begin of ten seconds, micro-dollars]
        self._base: float | None = None
        self._base_hour = -1

    def add(self, at: float, hour: int, micro: int) -> None:
        self.hours[hour] = self.hours.get(hour, 0) + micro
        if self.recent and at - self.recent[-1][0] < _BUCKET_S:
            self.recent[-1][1] += micro
        else:
            self.recent.append([at, micro])
            self.forget(at)

    def forget(self, at: float) -> None:
        while self.recent and self.recent[0][0] <= at - _LONG_S:
            self.recent.popleft()

    def within(self, at: float, seconds: float) -> float:
        return sum(micro for began, micro in self.recent if began > at - seconds)

    def baseline(self, hour: int, min_hours: int) -> float | None:
        """Micro-dollars an hour; None while too little is known."""
        if self._base_hour != hour:
            self._base_hour = hour
            self.hours = {each: micro for each, micro in self.hours.items() if each > hour - _KEPT_HOURS}
            self._base = _usual(self.hours, hour, min_hours)
        return self._base


def _usual(hours: dict[int, int], hour: int, min_hours: int) -> float | None:
    active = {each: micro for each, micro in hours.items() if micro > 0 and each != hour}
    if len(active) < min_hours:
        return None
    same = [micro for each, micro in active.items() if each % 24 == hour % 24]
    return max(float(median(active.values())), sum(same) / len(same) if same else 0.0)


class SpendRate:
    """The rule ``spend_rate``."""

    name: RuleName = "spend_rate"

    def __init__(self, spec: SpendRateSpec) -> None:
        self.spec = spec
        self._spenders: Lately[str, _Spender] = Lately(_MOST_SCOPES, _Spender)
        self._looked_at: set[str] = set()

    def restore(self, spent: Iterable[tuple[str, int, int]]) -> None:
        """Take what was spent before: scope, hour since 1970, micro-dollars."""
        for scope, hour, micro in spent:
            for each in parents(scope):
                hours = self._spenders.use(each).hours
                hours[hour] = hours.get(hour, 0) + micro

    def ended(self, call: CallEnded, now: Now) -> None:
        """Book a call's cost on its scope and all above."""
        if call.cost <= 0:
            return
        hour = int(now.wall // _HOUR_S)
        for scope in parents(call.scope):
            self._spenders.use(scope).add(call.at, hour, call.cost)
            self._looked_at.add(scope)

    def look(self, now: Now) -> list[Finding]:
        """The scopes that spend much more than usual, the lowest ones only."""
        found: dict[str, Finding] = {}
        for scope in sorted(self._looked_at, key=len, reverse=True):
            spender = self._spenders.peek(scope)
            if spender is not None:
                spender.forget(now.at)
            if spender is None or not spender.recent:
                self._looked_at.discard(scope)
                continue
            if any(is_within(lower, scope) for lower in found):
                continue
            finding = self._judge(scope, spender, now)
            if finding is not None:
                found[scope] = finding
        return list(found.values())

    def _judge(self, scope: str, spender: _Spender, now: Now) -> Finding | None:
        base = spender.baseline(int(now.wall // _HOUR_S), self.spec.min_hours)
        if not base:
            return None
        seconds, spent = _LONG_S, spender.within(now.at, _LONG_S)
        ratio = spent / (base * _LONG_S / _HOUR_S)
        short = spender.within(now.at, _SHORT_S)
        short_ratio = short / (base * _SHORT_S / _HOUR_S)
        if spent < self.spec.min_micro or ratio < self.spec.factor:
            return None
        if short_ratio >= self.spec.critical_factor and short >= self.spec.min_micro:
            is_critical, seconds, spent, ratio = True, _SHORT_S, short, short_ratio
        else:
            is_critical = ratio >= self.spec.critical_factor
        window = "minute" if seconds == _SHORT_S else "5 minutes"
        usual = format_usd(MicroUsd(round(base * seconds / _HOUR_S)), places=4)
        text = (
            f"{_named(scope)} spends {ratio:.1f} times its usual rate: ${format_usd(MicroUsd(round(spent)), places=2)} "
            f"in the last {window}, where ${usual} is usual."
        )
        return Finding(
            rule=self.name,
            key=f"watch:spend_rate:{scope}",
            scope=scope,
            level="critical" if is_critical else "warning",
            text=text,
            wants_pause=is_critical and self.spec.action == "pause",
        )

    def state(self) -> str:
        """How many scopes have a baseline."""
        spenders = [spender for _, spender in self._spenders.items()]
        known = sum(1 for each in spenders if sum(1 for micro in each.hours.values() if micro) > self.spec.min_hours)
        return f"{known} scopes with a baseline, {len(spenders) - known} still learning"


def _named(scope: str) -> str:
    return "Everything together" if scope == "/" else scope
