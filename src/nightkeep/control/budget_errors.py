"""What a caller is told when a budget has no room: which one, how much of it is spent and held, and the way out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from nightkeep.control.budget_nodes import Node, Slice
from nightkeep.control.budget_specs import Claim, Directive, Metric
from nightkeep.core.errors import BudgetError
from nightkeep.core.money import MicroUsd, format_usd
from nightkeep.core.scope import ROOT

__all__ = ["amount_text", "budget_error", "period_text", "refusal_of", "refused_by", "waited_error"]

_INTERACTIVE: Final = frozenset({"interactive", "monitoring", "health_check"})
_BATCH: Final = "batch"


def amount_text(metric: Metric, amount: int) -> str:
    """An amount for people: ``$1.00``, ``12,000 tokens``."""
    if metric == "usd":
        return f"${format_usd(MicroUsd(amount), places=2 if amount % 10_000 == 0 else 6)}"
    return f"{amount:,} {metric if amount != 1 else metric[:-1]}"


def period_text(window: str) -> str:
    """A window for people: ``per day``, ``in all``."""
    return "in all" if window == "once" else f"per {window}"


def budget_error(node: Node, kind: str, claim: Claim, *, why: str | None = None) -> BudgetError:
    """The refusal of a call that a budget has no room for."""
    needed = claim.amount(node.metric, claim.least, is_strict=node.spec.is_strict)
    left = max(0, node.sure_left(kind))
    text = f"{_whose(node)} has {amount_text(node.metric, left)} left and this call needs up to "
    text += f"{amount_text(node.metric, needed)}" if why is None else f"an amount that nobody can tell: {why}"
    if node.lost:
        text += f"; {amount_text(node.metric, node.lost)} of it are held by a process that died "
        text += "(nightkeep spend reconcile settles them)"
    return _error(node, text, needed)


def waited_error(part: Slice, claim: Claim) -> BudgetError:
    """The refusal of a call that has waited in vain for what other calls held."""
    node = part.node
    needed = claim.amount(node.metric, claim.least, is_strict=node.spec.is_strict)
    text = f"{_whose(node)} is held by calls that are under way, and none of it came free before the deadline"
    error = _error(node, text, needed)
    error.data["retry_after_s"] = 1.0
    return error


def refusal_of(node: Node, tag: str | None) -> Directive | None:
    """The refusal that a threshold in force means for a call with this tag."""
    denied = node.action("deny")
    if denied is not None:
        return _directive(node, f"{_whose(node)} is {denied.at:.0%} spent and takes no more calls")
    stopped = node.action("stop_batch")
    if stopped is not None and tag == _BATCH:
        return _directive(node, f"{_whose(node)} is {stopped.at:.0%} spent: batch work has stopped")
    kept = node.action("interactive_only")
    if kept is not None and tag not in _INTERACTIVE:
        return _directive(node, f"{_whose(node)} is {kept.at:.0%} spent: only interactive work goes on")
    return None


def refused_by(directive: Directive) -> BudgetError:
    """The refusal that a threshold means."""
    ends = directive.resets_at
    way = f" It begins anew at {ends:%Y-%m-%d %H:%M} UTC." if ends else ""
    return BudgetError(
        f"{directive.why}.{way} Raise the budget in nightkeep.toml, or change its thresholds.",
        scope=directive.scope,
        resets_at=ends,
    )


def _directive(node: Node, why: str) -> Directive:
    ends = datetime.fromtimestamp(node.ends, UTC) if node.ends != float("inf") else None
    return Directive(refuses=True, why=why, scope=node.key.scope, resets_at=ends)


def _whose(node: Node) -> str:
    scope = "everything" if node.key.scope == ROOT else node.key.scope
    return f"the budget of {scope} ({amount_text(node.metric, node.limit)} {period_text(node.spec.window)})"


def _error(node: Node, text: str, needed: int) -> BudgetError:
    ends = datetime.fromtimestamp(node.ends, UTC) if node.ends != float("inf") else None
    way = f"It begins anew at {ends:%Y-%m-%d %H:%M} UTC; " if ends else ""
    return BudgetError(
        f"{text}. {way}raise the budget in nightkeep.toml, or send less.",
        scope=node.key.scope,
        metric=node.metric,
        per=node.spec.window,
        limit=node.limit,
        spent=node.spent,
        held=node.held,
        lost=node.lost,
        needed=needed,
        resets_at=ends,
    )
