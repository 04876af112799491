"""Watching: deterministic rules over what is spent. Facts in, findings out; no clock, no I/O, no model.

``ops.watching`` collects the facts, looks each second, and tells people. A finding lasts as long as ``look`` returns
it; its key makes it one episode.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from nightkeep.control.watch_repeats import IdleHeartbeat, SameRequest
from nightkeep.control.watch_runs import RunCost, TokenGrowth
from nightkeep.control.watch_specs import (
    CallBegun,
    CallEnded,
    Finding,
    HeartbeatSpec,
    Now,
    Rule,
    RuleName,
    RunCostSpec,
    SameRequestSpec,
    SpendRateSpec,
    TokenGrowthSpec,
    UnattributedSpec,
    WatchSpec,
)
from nightkeep.control.watch_spend import SpendRate
from nightkeep.control.watch_strays import Unattributed
from nightkeep.core.money import MicroUsd, format_usd

__all__ = ["RuleView", "Watch"]


class RuleView(msgspec.Struct, frozen=True, kw_only=True):
    """A rule, what it looks for, and what it sees now."""

    rule: RuleName
    is_on: bool
    action: str
    looks_for: str
    state: str
    findings: list[Finding]
    is_here: bool = True  # False: another process watches it


class Watch:
    """All rules together."""

    def __init__(self, spec: WatchSpec) -> None:
        self.spec = spec
        self._spend_rate = SpendRate(spec.spend_rate)
        self._run_cost = RunCost(spec.run_cost)
        self._token_growth = TokenGrowth(spec.token_growth)
        self._same_request = SameRequest(spec.same_request)
        self._unattributed = Unattributed(spec.unattributed)
        self._idle_heartbeat = IdleHeartbeat(spec.idle_heartbeat)
        self._rules: list[Rule] = [
            self._spend_rate,
            self._run_cost,
            self._token_growth,
            self._same_request,
            self._unattributed,
            self._idle_heartbeat,
        ]
        self._active: list[Rule] = []
        self._found: dict[RuleName, list[Finding]] = {}
        self.configure(spec)

    def configure(self, spec: WatchSpec) -> None:
        """Take other numbers; what was learnt stays."""
        self.spec = spec
        self._spend_rate.spec = spec.spend_rate
        self._run_cost.spec = spec.run_cost
        self._token_growth.spec = spec.token_growth
        self._same_request.spec = spec.same_request
        self._unattributed.spec = spec.unattributed
        self._idle_heartbeat.spec = spec.idle_heartbeat
        self._active = [rule for rule in self._rules if _setting(spec, rule.name).is_on]

    @property
    def is_on(self) -> bool:
        """Whether any rule is on."""
        return bool(self._active)

    def restore(
        self, spent: Iterable[tuple[str, int, int]] = (), runs: Iterable[tuple[str, str, int, float]] = ()
    ) -> None:
        """Take the baselines of before (see ``SpendRate.restore`` and ``RunCost.restore``)."""
        self._spend_rate.restore(spent)
        self._run_cost.restore(runs)

    def fold(self, call: CallBegun | CallEnded, now: Now) -> None:
        """Take note of a fact."""
        if isinstance(call, CallBegun):
            if self.spec.same_request.is_on:
                self._same_request.begun(call, now)
        else:
            for rule in self._active:
                rule.ended(call, now)

    def look(self, now: Now) -> list[Finding]:
        """Everything that is found now."""
        self._found = {rule.name: rule.look(now) for rule in self._active}
        return [finding for found in self._found.values() for finding in found]

    def take_urgent(self) -> bool:
        """Whether something was folded that should be looked at now, and not at the next look."""
        is_urgent, self._same_request.is_urgent = self._same_request.is_urgent, False
        return is_urgent

    def view(self) -> list[RuleView]:
        """The rules and what they saw at the last look."""
        return [
            RuleView(
                rule=rule.name,
                is_on=_setting(self.spec, rule.name).is_on,
                action=_setting(self.spec, rule.name).action,
                looks_for=_looks_for(_setting(self.spec, rule.name)),
                state=rule.state() if rule in self._active else "off",
                findings=self._found.get(rule.name, []),
            )
            for rule in self._rules
        ]


_Setting = SpendRateSpec | RunCostSpec | TokenGrowthSpec | SameRequestSpec | UnattributedSpec | HeartbeatSpec


def _setting(spec: WatchSpec, name: RuleName) -> _Setting:
    setting: _Setting = getattr(spec, name)
    return setting


def _looks_for(spec: _Setting) -> str:
    """The rule in words, with its numbers."""
    match spec:
        case SpendRateSpec():
            return (
                f"a scope that spends {spec.factor:g} or {spec.critical_factor:g} times its usual rate, "
                f"and at least {_usd(spec.min_micro)}"
            )
        case RunCostSpec():
            return (
                f"a run that costs {spec.factor:g} times the average of at least {spec.min_runs} before it, "
                f"and at least {_usd(spec.min_micro)}"
            )
        case TokenGrowthSpec():
            return f"a run whose context grows by {spec.tokens:,} tokens or more in each of {spec.calls} calls"
        case SameRequestSpec():
            return f"the same request {spec.times} or {spec.critical_times} times within {spec.window_s:g} s"
        case UnattributedSpec():
            return f"{spec.tokens:,} tokens or more in an hour without a key, or without a scope beside scopes"
        case HeartbeatSpec():
            return (
                f"{spec.calls} calls alike at equal intervals with nothing else going on, "
                f"for {_usd(spec.min_micro)} a day or more"
            )


def _usd(micro: int) -> str:
    return f"${format_usd(MicroUsd(micro), places=2)}"
