"""What work would cost before it is done: batches from samples, schedules from an interval. Pure arithmetic.

Tokens come from ``nightkeep.models.calibration``, rates from the price book. Money is in pico-dollars until shown.
Sources: S1.2, S3.4 (batches), S5.10 and Q-CTX-06 (schedules), S15.16 (traffic between agents).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Final

import msgspec

from nightkeep.core.messages import Usage
from nightkeep.models.calibration import Calibration, Weight
from nightkeep.models.prices import Price, cost_pico

__all__ = [
    "Amount",
    "BatchPlan",
    "Hit",
    "Room",
    "Schedule",
    "first_hit",
    "plan_batch",
    "plan_schedule",
    "traffic_factor",
]

_DAY_S: Final = 86_400
_MONTH_DAYS: Final = 30
_TRAFFIC: Final = ((1, Decimal("1.0")), (5, Decimal("1.3")), (10, Decimal("1.6")), (20, Decimal("2.1")))
"""How much more a group of agents sends because they talk to each other (S15.16)."""


class Amount(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens and their cost."""

    input_tokens: int
    output_tokens: int
    pico_usd: int | None  # None: the price is not known

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.input_tokens + self.output_tokens

    @property
    def usd(self) -> Decimal | None:
        """Dollars, exactly."""
        return None if self.pico_usd is None else Decimal(self.pico_usd) / 10**12


class BatchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch would take."""

    items: int
    sampled: int
    likely: Amount
    upper: Amount  # with the margin; for what has never been measured, an upper bound
    counter_error: Decimal  # share by which the counter was off, on average
    counter_calls: int  # reports it has learnt from; 0: never


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """What something that runs at an interval costs while nothing happens (Q-COST-04)."""

    runs_a_day: Decimal
    run: Amount
    usd_a_day: Decimal | None
    usd_a_month: Decimal | None  # of 30 days


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of a budget: micro-dollars, tokens or requests, as ``metric`` says."""

    scope: str
    per: str
    metric: str
    left: int
    is_hard: bool = True


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """The budget that a batch would use up first, and at which item (from 1)."""

    room: Room
    item: int


def plan_batch(
    weights: Sequence[Weight],
    items: int,
    calibration: Calibration,
    price: Price | None,
    *,
    output_tokens: int | None,
    shared: Weight | None,
    margin: Decimal,
    is_batch: bool,
) -> BatchPlan:
    """Estimate a batch of ``items`` from the weights of some of them.

    ``shared`` is what each item carries along (system prompt, examples); ``output_tokens`` the limit of an answer.
    """
    base = calibration.expected(shared) if shared is not None else 0
    base_upper = calibration.upper(shared) if shared is not None else 0
    likely_in = _scaled(sum(calibration.expected(weight) + base for weight in weights), items, len(weights))
    upper_in = _scaled(sum(calibration.upper(weight) + base_upper for weight in weights), items, len(weights))
    typical = min(calibration.typical_output(), output_tokens or 1 << 40)
    most = output_tokens if output_tokens is not None else 4 * typical
    return BatchPlan(
        items=items,
        sampled=len(weights),
        likely=_amount(likely_in, items * typical, price, is_batch=is_batch),
        upper=_amount(_ceiling(upper_in * margin), _ceiling(items * most * margin), price, is_batch=is_batch),
        counter_error=Decimal(str(round(calibration.error, 3))),
        counter_calls=calibration.calls,
    )


def plan_schedule(every_s: Decimal, input_tokens: int, output_tokens: int, price: Price | None) -> Schedule:
    """Estimate something that runs every ``every_s`` seconds with so many tokens."""
    runs = _DAY_S / every_s
    run = _amount(input_tokens, output_tokens, price, is_batch=False)
    a_day = None if run.usd is None else run.usd * runs
    return Schedule(
        runs_a_day=runs, run=run, usd_a_day=a_day, usd_a_month=None if a_day is None else a_day * _MONTH_DAYS
    )


def first_hit(plan: Amount, items: int, rooms: Sequence[Room]) -> Hit | None:
    """The budget that ends a batch first, if its items are alike; None where all have room."""
    hits = []
    for room in rooms:
        needs = {"usd": (plan.pico_usd or 0) // 1_000_000, "tokens": plan.tokens, "requests": items}[room.metric]
        if needs > room.left:
            hits.append(Hit(room=room, item=room.left * items // needs + 1))
    return min(hits, key=lambda hit: hit.item, default=None)


def traffic_factor(agents: int) -> Decimal:
    """How many times the traffic of its agents a group makes; between the measured sizes, a straight line."""
    if agents <= 1:
        return _TRAFFIC[0][1]
    for (few, low), (many, high) in pairwise(_TRAFFIC):
        if agents <= many:
            return low + (high - low) * (agents - few) / (many - few)
    (few, low), (many, high) = _TRAFFIC[-2:]
    return high + (high - low) * (agents - many) / (many - few)


def _amount(input_tokens: int, output_tokens: int, price: Price | None, *, is_batch: bool) -> Amount:
    usage = Usage(input=input_tokens, output=output_tokens)
    cost = cost_pico(price, usage, is_batch=is_batch) if price is not None else None
    return Amount(input_tokens=input_tokens, output_tokens=output_tokens, pico_usd=cost)


def _scaled(total: int, items: int, sampled: int) -> int:
    return -(-total * items // sampled) if sampled else 0


def _ceiling(amount: Decimal) -> int:
    return -int(-amount // 1)
