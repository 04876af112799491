"""Budgets as values: what is configured, what a call asks for, what it gets. No decisions here.

One configured budget may limit up to three metrics: dollars (in micro-dollars), tokens and requests. Each is an
integer that only grows; the rest of the budgets' code does not know which is which.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from nightkeep.core.windows import Per

__all__ = [
    "Action",
    "BudgetSpec",
    "BudgetView",
    "Claim",
    "Directive",
    "Metric",
    "Period",
    "Spent",
    "Threshold",
    "ThresholdReached",
]

Metric = Literal["usd", "tokens", "requests"]
Period = Per | Literal["run", "once"]
Action = Literal["notify", "degrade", "interactive_only", "stop_batch", "deny"]


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """What happens when a share of a budget is spent."""

    at: float  # share of the limit, above 0 and up to 1
    do: Action = "notify"
    to: str | None = None  # for "degrade": the alias that serves instead


DEFAULT_THRESHOLDS = (
    Threshold(at=0.5),
    Threshold(at=0.8),
    Threshold(at=0.9),
    Threshold(at=0.9, do="stop_batch"),
    Threshold(at=1.0),
)
"""S8.2, S8.3, Q-COST-08: a person hears of 50, 80, 90 and 100 %, and batch work ends at 90 %."""


class BudgetSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One ``[[budgets]]`` of the configuration."""

    scope: str  # a path; "acme/*": every child of acme has one of its own
    per: Period
    limits: dict[Metric, int]  # micro-dollars, tokens, requests
    is_hard: bool = True
    resets_at: str | None = None  # "HH:MM Area/City"
    resets_on: str | None = None  # weekday
    thresholds: tuple[Threshold, ...] = DEFAULT_THRESHOLDS
    reserve: dict[str, int] = {}  # tag -> micro-dollars that only this tag may use
    is_strict: bool = False  # input is reserved at its upper bound, not at what experience says

    @property
    def is_pattern(self) -> bool:
        """Whether every child has a budget of its own."""
        return self.scope == "*" or self.scope.endswith("/*")

    @property
    def window(self) -> str:
        """Which windows it has, as people write it: ``day``, ``day 06:00 Europe/Berlin``."""
        words = [self.per, self.resets_on, self.resets_at]
        return " ".join(word for word in words if word)

    @property
    def book(self) -> str:
        """Under which it is kept: a budget of ``acme`` and one of each child of ``/`` are two, also for ``acme``."""
        return f"{self.window} each" if self.is_pattern else self.window


class Claim(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What an attempt asks of every budget above it: a base, and a rate for each token of output.

    It takes room for ``most`` output tokens where there is plenty, for no less than ``likely`` while more may come
    free, and for no less than ``least`` at the very end of a budget. With all three alike it takes all or nothing.
    """

    base_pico_usd: int  # input, at its upper estimate
    base_bound_pico_usd: int  # input, at its upper bound (for strict budgets)
    output_pico_usd: int  # per token of output
    base_tokens: int
    most: int  # output tokens
    likely: int
    least: int
    requests: int = 1
    is_priced: bool = True  # False: nobody knows what it costs
    is_unknown: bool = False  # its target has not yet reported how it counts: ``least`` may be far too little

    def amount(self, metric: Metric, output: int, *, is_strict: bool = False) -> int:
        """What ``output`` tokens need of a metric; dollars are rounded up to the micro-dollar."""
        if metric == "usd":
            base = self.base_bound_pico_usd if is_strict else self.base_pico_usd
            return -(-(base + output * self.output_pico_usd) // 1_000_000)
        return self.base_tokens + output if metric == "tokens" else self.requests

    def output_within(self, metric: Metric, room: int, *, is_strict: bool = False) -> int:
        """How many output tokens fit into ``room``; negative where not even the base does."""
        if metric == "usd":
            base = self.base_bound_pico_usd if is_strict else self.base_pico_usd
            left = room * 1_000_000 - base
            if left < 0:
                return -1
            return left // self.output_pico_usd if self.output_pico_usd else self.most
        if metric == "tokens":
            return room - self.base_tokens
        return self.most if room >= self.requests else -1


class Spent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What an attempt has really used."""

    micro_usd: int = 0
    tokens: int = 0
    requests: int = 0

    def of(self, metric: Metric) -> int:
        """The amount of one metric."""
        return self.micro_usd if metric == "usd" else self.tokens if metric == "tokens" else self.requests


class Directive(msgspec.Struct, frozen=True, kw_only=True):
    """What the thresholds that are reached ask of a call."""

    refuses: bool = False
    degrade_to: str | None = None
    why: str = ""
    scope: str = ""
    resets_at: datetime | None = None


class ThresholdReached(msgspec.Struct, frozen=True, kw_only=True):
    """A share of a budget is spent; told once in each window."""

    scope: str
    metric: Metric
    window: str
    at: float  # the share that is reached
    spent: int
    limit: int
    actions: tuple[Threshold, ...]  # those at this share, beside telling
    is_hard: bool
    moment: datetime
    resets_at: datetime | None


class BudgetView(msgspec.Struct, frozen=True, kw_only=True):
    """One budget in its present window. Amounts are micro-dollars, tokens or requests, as ``metric`` says."""

    scope: str
    metric: Metric
    per: str
    is_hard: bool
    limit: int
    spent: int  # settled, for certain
    held: int  # reserved for what is under way, or kept by a process for what comes next
    lost: int  # kept by a process that died; counts as spent until ``nightkeep spend reconcile``
    left: int
    window_start: datetime | None
    resets_at: datetime | None
    actions: tuple[str, ...] = ()  # in force now
