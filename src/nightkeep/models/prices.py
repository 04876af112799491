"""What a call costs: exact integers from disjoint token classes and dated prices. Never a default price.

Prices come from the configuration first (``[prices."provider/model"]``), then from the catalog
(``nightkeep.models.catalog``); a model without one has none, and a call for it is refused unless the
configuration allows it (Q-COST-10). Amounts are pico-dollars (1e-12 USD) until a call is settled, which
``nightkeep.core.money`` rounds up once.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Final

import msgspec

from nightkeep.core.messages import Usage
from nightkeep.models.catalog import Catalog, Rates

__all__ = ["FREE", "Price", "PriceBook", "PriceSpec", "cost_pico", "price_of_rates"]

_PICO_PER_TOKEN: Final = Decimal(1_000_000)
"""USD per million tokens times this is pico-dollars per token: $1/M is 1e-6 USD, which is 1e6 pico-dollars."""


class Price(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one target costs, in pico-dollars per token.

    Cached input without a price of its own costs what input costs. A cache write without one costs 1.25 times
    the input (5 minutes) or twice (1 hour), which is Anthropic's rule, the only vendor that bills writes apart:
    so a gap never makes a call look cheaper than it is.
    """

    input: int
    output: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    long_above: int | None = None  # over this many input tokens, cached ones included, ``long`` holds for all of it
    long: Price | None = None
    source: str = ""
    as_of: str = ""  # ISO date


class PriceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A price from the configuration, in USD per million tokens."""

    target: str  # "provider/model"
    input: Decimal
    output: Decimal = Decimal(0)
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None


FREE: Final = Price(
    input=0,
    output=0,
    cache_read=0,
    cache_write_5m=0,
    cache_write_1h=0,
    source="runs on your own machine, or is simulated",
)


class PriceBook:
    """Prices by provider and model."""

    def __init__(
        self, catalog: Catalog, specs: tuple[PriceSpec, ...] = (), free_providers: frozenset[str] = frozenset()
    ):
        self._catalog = catalog
        self._configured: dict[str, Price] = {spec.target.lower(): _from_spec(spec) for spec in specs}
        self._free = free_providers
        self._known: dict[tuple[str, str], Price | None] = {}

    @property
    def configured(self) -> Mapping[str, Price]:
        """The prices that the configuration gives, by "provider/model" in lower case."""
        return self._configured

    def price(self, provider: str, model: str) -> Price | None:
        """What a model costs at a provider; None where nobody said."""
        key = (provider, model)
        try:
            return self._known[key]
        except KeyError:
            if len(self._known) > 4096:  # names come from clients
                self._known.clear()
            found = self._known[key] = self._find(provider, model)
            return found

    def _find(self, provider: str, model: str) -> Price | None:
        for name in self._catalog.names_of(model):
            configured = self._configured.get(f"{provider}/{name}".lower())
            if configured is not None:
                return configured
        if provider in self._free:
            return FREE
        known = self._catalog.sold_by(provider, model)
        return price_of_rates(known.price) if known is not None and known.price is not None else None


def cost_pico(price: Price, usage: Usage) -> int:
    """The exact cost of a call in pico-dollars. Reasoning is billed as output everywhere."""
    if price.long is not None and price.long_above is not None and usage.total_input > price.long_above:
        price = price.long
    return (
        usage.input * price.input
        + usage.cache_read * price.cache_read
        + usage.cache_write_5m * price.cache_write_5m
        + usage.cache_write_1h * price.cache_write_1h
        + (usage.output + usage.reasoning) * price.output
    )


def price_of_rates(rates: Rates) -> Price:
    """A catalog row's rates as a price."""
    long = None
    if rates.long is not None:
        long = _price(rates.long.input, rates.long.output, rates.long.cached, rates.long.write_5m, rates.long.write_1h)
    plain = _price(rates.input, rates.output, rates.cached, rates.write_5m, rates.write_1h)
    return msgspec.structs.replace(
        plain,
        long=long,
        long_above=rates.long.above if rates.long is not None else None,
        source=rates.source,
        as_of=rates.as_of,
    )


def _from_spec(spec: PriceSpec) -> Price:
    price = _price(spec.input, spec.output, spec.cached_input, spec.cache_write, None)
    return msgspec.structs.replace(price, source="configuration")


def _price(
    plain: Decimal, output: Decimal, cached: Decimal | None, write_5m: Decimal | None, write_1h: Decimal | None
) -> Price:
    return Price(
        input=_pico(plain),
        output=_pico(output),
        cache_read=_pico(plain if cached is None else cached),
        cache_write_5m=_pico(plain * Decimal("1.25") if write_5m is None else write_5m),
        cache_write_1h=_pico(max(plain * 2, write_5m or Decimal(0)) if write_1h is None else write_1h),
    )


def _pico(usd_per_million: Decimal) -> int:
    return int((usd_per_million * _PICO_PER_TOKEN).to_integral_value(ROUND_CEILING))
