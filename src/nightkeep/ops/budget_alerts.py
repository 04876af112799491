"""What a threshold of a budget means for people, in one sentence: how much is spent, what happens now, until when."""

from __future__ import annotations

from nightkeep.control.budget_errors import amount_text, period_text
from nightkeep.control.budget_specs import Threshold, ThresholdReached
from nightkeep.core.scope import ROOT
from nightkeep.ops.alert_episodes import Alert

__all__ = ["describe_threshold"]

_CRITICAL_FROM = 0.9
_DOES = {
    "degrade": "calls go to {to} instead",
    "interactive_only": "only interactive work goes on",
    "stop_batch": "batch work has stopped",
    "deny": "no more calls are taken",
}


def describe_threshold(reached: ThresholdReached) -> Alert:
    """Say it. The episode is the window: each share of it is told once."""
    scope = "everything" if reached.scope == ROOT else reached.scope
    spent, limit = amount_text(reached.metric, reached.spent), amount_text(reached.metric, reached.limit)
    what = f"The budget of {scope} is {reached.at:.0%} spent: {spent} of {limit} {period_text(reached.window)}."
    does = [_does(mark) for mark in reached.actions]
    if reached.at >= 1 and reached.is_hard:
        does.append("calls that do not fit are refused")
    elif reached.at >= 1:
        does.append("it is a soft budget: calls go on")
    now = f" From now on {' and '.join(does)}." if does else ""
    until = f" It begins anew at {reached.resets_at:%Y-%m-%d %H:%M UTC}." if reached.resets_at else ""
    return Alert(
        key=f"budget:{reached.scope}:{reached.metric}:{reached.window}:{reached.at}:{reached.resets_at}",
        text=what + now + until,
        level="critical" if reached.at >= _CRITICAL_FROM else "warning",
        kind="budget_threshold",
        about=reached.scope,
        scope=reached.scope,
        resets_at=reached.resets_at,
        ends_at=reached.resets_at,
    )


def _does(mark: Threshold) -> str:
    return _DOES[mark.do].format(to=mark.to)
