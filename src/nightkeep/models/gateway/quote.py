"""A quote: what a call would cost, who would serve it and why, and whether every budget above it has room."""

from __future__ import annotations

import msgspec

from nightkeep.control.budget_specs import BudgetView
from nightkeep.core.money import MicroUsd
from nightkeep.models.calibration import Calibrations
from nightkeep.models.prices import Price
from nightkeep.models.routing import Candidate, Route

__all__ = ["Offer", "Quote", "QuoteAsk", "make_quote"]

_UNKNOWN_OUTPUT = 4_096


class QuoteAsk(msgspec.Struct, frozen=True, kw_only=True):
    """A call that might be made. Tokens are the asker's own count; ``output_tokens`` is its limit."""

    model: str
    scope: str = "default"
    tag: str | None = None
    task: str | None = None
    input_tokens: int = 1_000
    output_tokens: int | None = None


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What one target would take. Micro-dollars; None: its price is not known."""

    target: str
    price: str
    likely_micro_usd: MicroUsd | None
    most_micro_usd: MicroUsd | None
    likely_output_tokens: int
    most_output_tokens: int


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """The answer in one piece."""

    route: Route
    offers: tuple[Offer, ...]
    budgets: tuple[BudgetView, ...]
    fits: bool  # every hard budget has room for what the first target would likely take
    why_not: str = ""


def make_quote(ask: QuoteAsk, route: Route, budgets: list[BudgetView], calibrations: Calibrations) -> Quote:
    """Put it together; makes no call and reserves nothing."""
    offers = tuple(_offer(ask, candidate, calibrations) for candidate in route.candidates)
    likely = offers[0].likely_micro_usd
    tokens = ask.input_tokens + offers[0].likely_output_tokens
    needs = {"usd": likely or 0, "tokens": tokens, "requests": 1}
    short = [view for view in budgets if view.is_hard and view.left < needs[view.metric]]
    why = "; ".join(f"{view.scope} has {view.left} {view.metric} left per {view.per}" for view in short)
    if likely is None and any(view.is_hard and view.metric == "usd" for view in budgets):
        why = f"the price of {offers[0].target} is not known, and a budget in dollars is above it"
    return Quote(route=route, offers=offers, budgets=tuple(budgets), fits=not why, why_not=why)


def _offer(ask: QuoteAsk, candidate: Candidate, calibrations: Calibrations) -> Offer:
    calibration = calibrations.of(candidate.target)
    limits = [limit for limit in (ask.output_tokens, candidate.max_output) if limit is not None]
    most = min(limits) if limits else _UNKNOWN_OUTPUT
    likely = min(most, calibration.typical_output())
    price = candidate.price
    return Offer(
        target=candidate.target,
        price=price.version if price is not None else "",
        likely_micro_usd=_cost(price, ask.input_tokens, likely),
        most_micro_usd=_cost(price, ask.input_tokens, most),
        likely_output_tokens=likely,
        most_output_tokens=most,
    )


def _cost(price: Price | None, input_tokens: int, output_tokens: int) -> MicroUsd | None:
    if price is None:
        return None
    if price.long is not None and price.long_above is not None and input_tokens > price.long_above:
        price = price.long
    return MicroUsd(-(-(input_tokens * price.input + output_tokens * price.output) // 1_000_000))
