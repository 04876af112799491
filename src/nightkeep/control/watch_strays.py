"""Unattributed traffic: tokens that nobody is accountable for, though the gateway knows keys or scopes."""

from __future__ import annotations

from collections import deque
from typing import Final

from nightkeep.control.watch_memory import Lately
from nightkeep.control.watch_specs import CallEnded, Finding, Now, RuleName, UnattributedSpec
from nightkeep.core.money import MicroUsd, format_usd

__all__ = ["Unattributed"]

_WINDOW_S: Final = 3_600.0
_MINUTE_S: Final = 60.0
_MOST_WHO: Final = 500


class _Stray:
    __slots__ = ("minutes", "scope", "why")

    def __init__(self) -> None:
        self.minutes: deque[list[float]] = deque()  # [begin, tokens, micro-dollars, calls]
        self.scope = ""
        self.why = ""


class Unattributed:
    """The rule ``unattributed``."""

    name: RuleName = "unattributed"

    def __init__(self, spec: UnattributedSpec) -> None:
        self.spec = spec
        self._strays: Lately[tuple[str, str], _Stray] = Lately(_MOST_WHO, _Stray)

    def ended(self, call: CallEnded, now: Now) -> None:
        """Count what a stray call used."""
        if not call.stray or not call.tokens:
            return
        stray = self._strays.use((call.agent, call.peer))
        stray.scope, stray.why = call.scope, call.stray
        minutes = stray.minutes
        if not minutes or call.at - minutes[-1][0] >= _MINUTE_S:
            minutes.append([call.at, 0, 0, 0])
        last = minutes[-1]
        last[1] += call.tokens
        last[2] += call.cost
        last[3] += 1

    def look(self, now: Now) -> list[Finding]:
        """The programs whose use nobody is accountable for."""
        found = []
        for who, stray in self._strays.items():
            while stray.minutes and stray.minutes[0][0] <= now.at - _WINDOW_S:
                stray.minutes.popleft()
            tokens, cost, calls = (sum(minute[n] for minute in stray.minutes) for n in (1, 2, 3))
            if not stray.minutes:
                self._strays.drop(who)
            elif tokens >= self.spec.tokens:
                found.append(self._finding(who, stray, int(tokens), int(cost), int(calls)))
        return found

    def _finding(self, who: tuple[str, str], stray: _Stray, tokens: int, cost: int, calls: int) -> Finding:
        agent, peer = who
        text = (
            f"{agent or 'An unnamed program'}{f' at {peer}' if peer else ''} used {tokens:,} tokens "
            f"(${format_usd(MicroUsd(cost), places=2)}) in {calls} call{'s' if calls != 1 else ''} "
            f"in the last hour {stray.why}: nobody is accountable for them."
        )
        return Finding(
            rule=self.name,
            key=f"watch:unattributed:{agent}:{peer}",
            scope=stray.scope,
            level="warning",
            text=text,
            wants_pause=self.spec.action == "pause",
        )

    def state(self) -> str:
        """How many such programs were seen."""
        return f"{len(self._strays)} programs without a name seen in the last hour"
