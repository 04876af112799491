"""What a call costs: exact integers from disjoint token classes and dated prices. Never a default price.

Prices come from the configuration first (``[prices."provider/model"]``), then from the catalog
(``nightkeep.models.catalog``); a model without one has none, and a call for it is refused unless the
configuration allows it (Q-COST-10). A price holds from its date until the next one; each has a version, which the
ledger keeps with what it charged, so history never changes. Amounts are pico-dollars (1e-12 USD) until a call is
settled, which ``nightkeep.core.money`` rounds up once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import ROUND_CEILING, Decimal
from typing import Final

import msgspec

from nightkeep.core.messages import Usage
from nightkeep.models.catalog import Catalog, LongRates, Rates

__all__ = ["CLASSES", "FREE", "Price", "PriceBook", "PriceSpec", "cost_parts", "cost_pico", "price_of_rates"]

_PICO_PER_TOKEN: Final = Decimal(1_000_000)
"""USD per million tokens times this is pico-dollars per token: $1/M is 1e-6 USD, which is 1e6 pico-dollars."""

CLASSES: Final = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning")
_INPUT: Final = CLASSES[:4]
_THOUSAND: Final = 1_000


class Price(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one target costs, in pico-dollars per token.

    Cached input without a price of its own costs what input costs. A cache write without one costs 1.25 times
    the input (5 minutes) or twice (1 hour), which is Anthropic's rule, the only vendor that bills writes apart:
    so a gap never makes a call look cheaper than it is. Media are billed as the input tokens that vendors report.
    """

    input: int
    output: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    reasoning: int = -1  # negative: as output
    long_above: int | None = None  # over this many input tokens, cached ones included, ``long`` holds
    long: Price | None = None
    is_marginal: bool = False  # ``long`` holds for the input above only, not for all of the request
    batch_permille: int | None = None  # what a batch costs; None: no batch price is known
    credit_eligible: bool | None = None  # whether trial credits pay for it; None: nobody said
    version: str = ""  # what the ledger keeps: "claude-opus-4-6@2026-11-20", "config:1f0c9a2e"
    source: str = ""
    as_of: str = ""  # ISO date


class PriceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A price from the configuration, in USD per million tokens."""

    target: str  # "provider/model"
    input: Decimal
    output: Decimal = Decimal(0)
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    reasoning: Decimal | None = None
    batch: Decimal | None = None
    credit_eligible: bool | None = None
    long: LongRates | None = None
    since: date | None = None  # None: from the beginning


FREE: Final = Price(
    input=0,
    output=0,
    cache_read=0,
    cache_write_5m=0,
    cache_write_1h=0,
    version="free",
    source="runs on your own machine, or is simulated",
)
_ALWAYS: Final = date.min
_Dated = tuple[tuple[date, Price], ...]
"""Prices with the dates from which they hold, oldest first."""


class PriceBook:
    """Prices by provider and model."""

    def __init__(
        self,
        catalog: Catalog,
        specs: tuple[PriceSpec, ...] = (),
        free_providers: frozenset[str] = frozenset(),
        today: Callable[[], date] | None = None,
    ):
        """``today`` (UTC) tells which price holds now; without it, the newest does."""
        self._catalog = catalog
        self._configured: dict[str, _Dated] = {}
        for spec in specs:
            name = spec.target.lower()
            self._configured[name] = _sorted([*self._configured.get(name, ()), (spec.since or _ALWAYS, _of(spec))])
        self._free = free_providers
        self._today = today
        self._known: dict[tuple[str, str], tuple[date, Price | None]] = {}

    @property
    def configured(self) -> Mapping[str, _Dated]:
        """The prices that the configuration gives, by "provider/model" in lower case."""
        return self._configured

    def price(self, provider: str, model: str, at: date | None = None) -> Price | None:
        """What a model costs at a provider (now, or ``at`` a day); None where nobody said."""
        if at is not None:
            return _at(self.versions(provider, model), at)[0]
        today = self._today() if self._today is not None else date.max
        known = self._known.get((provider, model))
        if known is not None and today < known[0]:
            return known[1]
        if len(self._known) > 4096:  # names come from clients
            self._known.clear()
        found, until = _at(self.versions(provider, model), today)
        self._known[(provider, model)] = (until, found)
        return found

    def versions(self, provider: str, model: str) -> _Dated:
        """Every price that a model has had at a provider, and will have, with the days from which they hold."""
        for name in self._catalog.names_of(model):
            configured = self._configured.get(f"{provider}/{name}".lower())
            if configured is not None:
                return configured
        if provider in self._free:
            return ((_ALWAYS, FREE),)
        row = self._catalog.sold_by(provider, model)
        if row is None or row.price is None:
            return ()
        rates = (*row.past, row.price)
        first = rates[0]
        return _sorted([(_ALWAYS if each is first else _since(each), price_of_rates(each, row.id)) for each in rates])


def cost_pico(price: Price, usage: Usage, *, is_batch: bool = False) -> int:
    """The exact cost of a call in pico-dollars. Reasoning is billed as output where it has no price of its own."""
    if is_batch or (price.is_marginal and price.long is not None):
        return sum(cost_parts(price, usage, is_batch=is_batch).values())
    if price.long is not None and price.long_above is not None and usage.total_input > price.long_above:
        price = price.long
    return (
        usage.input * price.input
        + usage.cache_read * price.cache_read
        + usage.cache_write_5m * price.cache_write_5m
        + usage.cache_write_1h * price.cache_write_1h
        + usage.output * price.output
        + usage.reasoning * (price.output if price.reasoning < 0 else price.reasoning)
    )


def cost_parts(price: Price, usage: Usage, *, is_batch: bool = False) -> dict[str, int]:
    """What each class of tokens costs, in pico-dollars; together they are the whole cost.

    A batch costs its share of each part, rounded up; without a known batch price it costs what a call does.
    """
    long, above = price.long, price.long_above
    is_long = long is not None and above is not None and usage.total_input > above
    parts = {}
    for name in CLASSES:
        tokens = getattr(usage, name)
        parts[name] = tokens * _rate(price, name)
        if is_long and long is not None and above is not None:
            if not price.is_marginal:
                parts[name] = tokens * _rate(long, name)
            elif name in _INPUT:  # each class has its part of what is above, rounded up
                dear = -(-tokens * (usage.total_input - above) // usage.total_input)
                parts[name] += dear * (_rate(long, name) - _rate(price, name))
    if is_batch and price.batch_permille is not None:
        return {name: -(-part * price.batch_permille // _THOUSAND) for name, part in parts.items()}
    return parts


def _rate(price: Price, name: str) -> int:
    if name == "reasoning" and price.reasoning < 0:
        return price.output
    rate: int = getattr(price, name)
    return rate


def price_of_rates(rates: Rates, model: str = "") -> Price:
    """A catalog row's rates as a price."""
    plain = _price(rates.input, rates.output, rates.cached, rates.write_5m, rates.write_1h, rates.reasoning)
    return msgspec.structs.replace(
        plain,
        **_long(rates.long),
        batch_permille=_permille(rates.batch),
        credit_eligible=rates.credit,
        version=f"{model}@{rates.since or rates.as_of}",
        source=rates.source,
        as_of=rates.as_of,
    )


def _of(spec: PriceSpec) -> Price:
    plain = _price(spec.input, spec.output, spec.cached_input, spec.cache_write, spec.cache_write_1h, spec.reasoning)
    price = msgspec.structs.replace(
        plain,
        **_long(spec.long),
        batch_permille=_permille(spec.batch),
        credit_eligible=spec.credit_eligible,
        source="configuration",
        as_of=spec.since.isoformat() if spec.since is not None else "",
    )
    digest = hashlib.sha256(msgspec.json.encode((spec.target.lower(), price))).hexdigest()
    return msgspec.structs.replace(price, version=f"config:{digest[:8]}")


def _long(rates: LongRates | None) -> dict[str, object]:
    if rates is None:
        return {}
    long = _price(rates.input, rates.output, rates.cached, rates.write_5m, rates.write_1h, None)
    return {"long": long, "long_above": rates.above, "is_marginal": rates.marginal}


def _price(
    plain: Decimal,
    output: Decimal,
    cached: Decimal | None,
    write_5m: Decimal | None,
    write_1h: Decimal | None,
    reasoning: Decimal | None,
) -> Price:
    return Price(
        input=_pico(plain),
        output=_pico(output),
        cache_read=_pico(plain if cached is None else cached),
        cache_write_5m=_pico(plain * Decimal("1.25") if write_5m is None else write_5m),
        cache_write_1h=_pico(max(plain * 2, write_5m or Decimal(0)) if write_1h is None else write_1h),
        reasoning=-1 if reasoning is None else _pico(reasoning),
    )


def _at(dated: _Dated, day: date) -> tuple[Price | None, date]:
    """The price that holds on a day, and the day on which the next one begins."""
    found, until = None, date.max
    for since, price in dated:
        if since > day:
            until = since
            break
        found = price
    return found, until


def _sorted(dated: Sequence[tuple[date, Price]]) -> _Dated:
    return tuple(sorted(dated, key=lambda pair: pair[0]))


def _since(rates: Rates) -> date:
    return date.fromisoformat(rates.since or rates.as_of)


def _permille(share: Decimal | None) -> int | None:
    return None if share is None else int((share * _THOUSAND).to_integral_value(ROUND_CEILING))


def _pico(usd_per_million: Decimal) -> int:
    return int((usd_per_million * _PICO_PER_TOKEN).to_integral_value(ROUND_CEILING))
