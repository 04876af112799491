"""Runs: one that costs far more than those before it, while it runs; and one whose context grows with every call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from nightkeep.control.watch_memory import Lately
from nightkeep.control.watch_specs import (
    CallEnded,
    Finding,
    Now,
    RuleName,
    RunCostSpec,
    TokenGrowthSpec,
)
from nightkeep.core.money import MicroUsd, format_usd

__all__ = ["RunCost", "TokenGrowth", "kind_of_work"]

_MOST_KINDS: Final = 2_000
_MOST_RUNS_OF_A_KIND: Final = 50
_AVERAGED: Final = 20
_QUIET_S: Final = 120.0  # a run without a call for so long counts for the average
_OVER_S: Final = 600.0  # and for so long is no longer watched
_MOST_RUNS: Final = 5_000


def kind_of_work(scope: str, run: str) -> str:
    """What a run is compared with: the runs of its scope; where each run has a scope of its own, of the one above."""
    above, _, last = scope.rpartition("/")
    return above if above and (last == run or last.startswith("run_")) else scope


class _Run:
    __slots__ = ("cost", "last_at", "scope")

    def __init__(self) -> None:
        self.cost = 0
        self.last_at = 0.0
        self.scope = ""


def _runs() -> Lately[str, _Run]:
    return Lately(_MOST_RUNS_OF_A_KIND, _Run)


class RunCost:
    """The rule ``run_cost``."""

    name: RuleName = "run_cost"

    def __init__(self, spec: RunCostSpec) -> None:
        self.spec = spec
        self._kinds: Lately[str, Lately[str, _Run]] = Lately(_MOST_KINDS, _runs)
        self._watched: dict[tuple[str, str], None] = {}

    def restore(self, runs: Iterable[tuple[str, str, int, float]]) -> None:
        """Take runs of before, oldest first: scope, run, micro-dollars, last call (monotonic; may be negative)."""
        for scope, run, cost, last_at in runs:
            known = self._kinds.use(kind_of_work(scope, run)).use(run)
            known.cost, known.last_at, known.scope = known.cost + cost, last_at, scope

    def ended(self, call: CallEnded, now: Now) -> None:
        """Add a call to its run."""
        if call.run is None:
            return
        kind = kind_of_work(call.scope, call.run)
        run = self._kinds.use(kind).use(call.run)
        run.cost += call.cost
        run.last_at, run.scope = call.at, call.scope
        self._watched[kind, call.run] = None

    def look(self, now: Now) -> list[Finding]:
        """The runs that cost far more than those before them."""
        found = []
        for kind, id_of_run in list(self._watched):
            runs = self._kinds.peek(kind)
            run = runs.peek(id_of_run) if runs is not None else None
            if runs is None or run is None or now.at - run.last_at > _OVER_S:
                del self._watched[kind, id_of_run]
                continue
            if run.cost >= self.spec.min_micro:
                finding = self._judge(kind, id_of_run, run, runs, now)
                found += [finding] if finding is not None else []
        return found

    def _judge(self, kind: str, id_of_run: str, run: _Run, runs: Lately[str, _Run], now: Now) -> Finding | None:
        others = [each.cost for id_of, each in runs.items() if id_of != id_of_run and now.at - each.last_at >= _QUIET_S]
        counted = [cost for cost in others if cost > 0][-_AVERAGED:]
        if len(counted) < self.spec.min_runs:
            return None
        average = sum(counted) / len(counted)
        if run.cost < self.spec.factor * average:
            return None
        text = (
            f"Run {id_of_run} of {kind} has cost ${format_usd(MicroUsd(run.cost), places=2)} so far and goes on: "
            f"{run.cost / average:.1f} times the average of the last {len(counted)} runs "
            f"(${format_usd(MicroUsd(round(average)), places=4)})."
        )
        return Finding(
            rule=self.name,
            key=f"watch:run_cost:{id_of_run}",
            scope=run.scope,
            level="warning",
            text=text,
            wants_pause=self.spec.action == "pause",
        )

    def state(self) -> str:
        """How many kinds of work have an average."""
        kinds = [runs for _, runs in self._kinds.items()]
        known = sum(1 for runs in kinds if len(runs) > self.spec.min_runs)
        return f"{known} kinds of work with an average, {len(kinds) - known} still learning"


class _Context:
    __slots__ = ("first", "last", "last_at", "scope", "streak")

    def __init__(self) -> None:
        self.first = 0
        self.last = 0
        self.last_at = 0.0
        self.scope = ""
        self.streak = 0


class TokenGrowth:
    """The rule ``token_growth``. A run's models are looked at apart: a small one between does not hide the growth."""

    name: RuleName = "token_growth"

    def __init__(self, spec: TokenGrowthSpec) -> None:
        self.spec = spec
        self._contexts: Lately[tuple[str, str], _Context] = Lately(_MOST_RUNS, _Context)
        self._growing: set[tuple[str, str]] = set()

    def ended(self, call: CallEnded, now: Now) -> None:
        """Compare a call's input with that of the call before."""
        if call.run is None or not call.input_tokens:
            return
        place = (call.run, call.model)
        context = self._contexts.use(place)
        if context.last and call.input_tokens - context.last >= self.spec.tokens:
            context.streak += 1
            if context.streak >= self.spec.calls:
                self._growing.add(place)
        else:
            context.streak, context.first = 0, call.input_tokens
            self._growing.discard(place)
        context.last, context.last_at, context.scope = call.input_tokens, call.at, call.scope

    def look(self, now: Now) -> list[Finding]:
        """The runs whose context grows and grows."""
        found = []
        for place in sorted(self._growing):
            context = self._contexts.peek(place)
            if context is None or now.at - context.last_at > _OVER_S:
                self._growing.discard(place)
                continue
            run, model = place
            text = (
                f"The context of run {run} of {context.scope} grows with every call to {model}: "
                f"from {context.first:,} to {context.last:,} tokens in {context.streak} calls, "
                f"and each call pays for all of it again."
            )
            found.append(
                Finding(
                    rule=self.name,
                    key=f"watch:token_growth:{run}:{model}",
                    scope=context.scope,
                    level="warning",
                    text=text,
                    wants_pause=self.spec.action == "pause",
                )
            )
        return found

    def state(self) -> str:
        """How many contexts are followed."""
        return f"{len(self._contexts)} contexts followed"
