"""Repetition: the same request again and again, and a call that comes like a clock while nothing else happens."""

from __future__ import annotations

from collections import deque
from itertools import islice, pairwise
from typing import Final

from nightkeep.control.watch_memory import Lately
from nightkeep.control.watch_specs import CallBegun, CallEnded, Finding, HeartbeatSpec, Now, RuleName, SameRequestSpec
from nightkeep.core.money import MicroUsd, format_usd

__all__ = ["IdleHeartbeat", "SameRequest"]

_MOST_REQUESTS: Final = 20_000
_MOST_TIMES: Final = 1_000
_MOST_RHYTHMS: Final = 5_000
_MOST_BEATS: Final = 100
_SHORTEST_S: Final = 20.0  # what comes faster is work, or a loop for the rule above
_ALIKE: Final = 0.05  # of the mean size
_DAY_S: Final = 86_400

_Place = tuple[str, str, int]  # scope, model, print


class SameRequest:
    """The rule ``same_request``: equal body, model and scope within a window. Unpaid answers do not count."""

    name: RuleName = "same_request"

    def __init__(self, spec: SameRequestSpec) -> None:
        self.spec = spec
        self._times: Lately[_Place, deque[float]] = Lately(_MOST_REQUESTS, lambda: deque(maxlen=_MOST_TIMES))
        self._repeated: set[_Place] = set()
        self.is_urgent = False  # a request has just been sent too often: at ten a second each second counts

    def begun(self, call: CallBegun, now: Now) -> None:
        """Count a request: when it begins, so that ten that hang are seen, too."""
        place = (call.scope, call.model, call.print)
        times = self._times.use(place)
        times.extend((call.at,) * call.times)
        if len(times) >= self.spec.times:
            self._repeated.add(place)
        if len(times) == self.spec.critical_times:
            self.is_urgent = True

    def ended(self, call: CallEnded, now: Now) -> None:
        """Take back what was answered without being paid."""
        if not call.is_paid:
            times = self._times.peek((call.scope, call.model, call.print))
            if times:
                times.pop()

    def look(self, now: Now) -> list[Finding]:
        """The requests that are sent again and again: for each scope and model the one that is sent most."""
        most: dict[tuple[str, str], int] = {}
        for place in list(self._repeated):
            times = self._times.peek(place)
            while times and times[0] < now.at - self.spec.window_s:
                times.popleft()
            if times is None or len(times) < self.spec.times:
                self._repeated.discard(place)
                continue
            who = place[:2]
            most[who] = max(most.get(who, 0), len(times))
        return [self._finding(scope, model, n) for (scope, model), n in sorted(most.items())]

    def _finding(self, scope: str, model: str, n: int) -> Finding:
        is_critical = n >= self.spec.critical_times
        counted = f"{n}" if n < _MOST_TIMES else f"more than {n}"
        text = (
            f"{scope} sent the same request to {model} {counted} times within {_span(self.spec.window_s)}: "
            "it asks again without having learnt anything."
        )
        return Finding(
            rule=self.name,
            key=f"watch:same_request:{scope}:{model}",
            scope=scope,
            level="critical" if is_critical else "warning",
            text=text,
            wants_pause=is_critical and self.spec.action == "pause",
        )

    def state(self) -> str:
        """How many requests are remembered."""
        return f"{len(self._times):,} different requests remembered"


class _Beat:
    __slots__ = ("at", "cost", "n", "size")

    def __init__(self, at: float, size: int, cost: int, n: int) -> None:
        self.at = at
        self.size = size
        self.cost = cost
        self.n = n  # the how-many-eth call of its scope


class IdleHeartbeat:
    """The rule ``idle_heartbeat``: near-equal intervals, near-equal sizes, and no other call of the scope between."""

    name: RuleName = "idle_heartbeat"

    def __init__(self, spec: HeartbeatSpec) -> None:
        self.spec = spec
        self._rhythms: Lately[tuple[str, str], deque[_Beat]] = Lately(_MOST_RHYTHMS, lambda: deque(maxlen=_MOST_BEATS))
        self._counts: Lately[str, list[int]] = Lately(_MOST_RHYTHMS, lambda: [0])
        self._beating: set[tuple[str, str]] = set()

    def ended(self, call: CallEnded, now: Now) -> None:
        """Note when a call came, how large it was and what it cost."""
        count = self._counts.use(call.scope)
        count[0] += 1
        beats = self._rhythms.use((call.scope, call.model))
        is_slow = not beats or call.began - beats[-1].at >= _SHORTEST_S / 2
        beats.append(_Beat(call.began, call.size, call.cost, count[0]))
        if is_slow and self._interval(self._last(beats)) is not None:
            self._beating.add((call.scope, call.model))

    def _last(self, beats: deque[_Beat]) -> list[_Beat]:
        return list(islice(beats, max(0, len(beats) - self.spec.calls), None))

    def _interval(self, beats: list[_Beat]) -> float | None:
        """The interval in seconds, where there is one."""
        if len(beats) < self.spec.calls or beats[-1].n - beats[0].n != len(beats) - 1:
            return None
        times = [beat.at for beat in beats]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        mean = sum(gaps) / len(gaps)
        size = sum(beat.size for beat in beats) / len(beats)
        if mean < _SHORTEST_S or any(abs(gap - mean) > self.spec.jitter * mean for gap in gaps):
            return None
        return mean if all(abs(beat.size - size) <= _ALIKE * size for beat in beats) else None

    def look(self, now: Now) -> list[Finding]:
        """The heartbeats that cost money."""
        found = []
        for place in sorted(self._beating):
            beats = self._last(self._rhythms.peek(place) or deque())
            interval_s = self._interval(beats)
            if interval_s is None or now.at - beats[-1].at > 2.5 * interval_s:
                self._beating.discard(place)
                continue
            a_day = sum(beat.cost for beat in beats) / len(beats) * _DAY_S / interval_s
            if a_day >= self.spec.min_micro:
                found.append(self._finding(*place, interval_s, a_day))
        return found

    def _finding(self, scope: str, model: str, interval_s: float, a_day: float) -> Finding:
        text = (
            f"{scope} asks {model} nearly the same every {_span(interval_s)} ({_DAY_S / interval_s:.0f} times a day): "
            f"${format_usd(MicroUsd(round(a_day)), places=2)} a day while nothing happens. "
            "Look without a model, and ask one only when something has changed."
        )
        return Finding(
            rule=self.name,
            key=f"watch:idle_heartbeat:{scope}:{model}",
            scope=scope,
            level="warning",
            text=text,
            wants_pause=self.spec.action == "pause",
        )

    def state(self) -> str:
        """How many rhythms are followed."""
        return f"{len(self._rhythms)} rhythms followed"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.3g} minutes" if seconds < 7_200 else f"{seconds / 3_600:.3g} hours"
