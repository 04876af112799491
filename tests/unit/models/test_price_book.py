"""The price book: dated, versioned, exact; and the monthly tables of appendix B, computed."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.core.messages import Usage
from nightkeep.models.catalog import LongRates, load_catalog
from nightkeep.models.prices import CLASSES, Price, PriceBook, PriceSpec, cost_parts, cost_pico

MARCH = date(2026, 3, 1)

rates = st.integers(0, 10**8)
tokens = st.integers(0, 10**6)
usages = st.builds(Usage, **dict.fromkeys(CLASSES, tokens))


@st.composite
def prices(draw: st.DrawFn) -> Price:
    """Prices whose tier is never cheaper."""
    plain = {name: draw(rates) for name in CLASSES}
    more = {name: rate + draw(rates) for name, rate in plain.items()}
    return Price(
        **plain,
        long=Price(**more) if draw(st.booleans()) else None,
        long_above=draw(st.integers(1, 10**6)),
        is_marginal=draw(st.booleans()),
        batch_permille=draw(st.none() | st.integers(0, 1000)),
    )


@given(prices(), usages, st.booleans())
def test_a_cost_is_the_sum_of_its_parts(price: Price, usage: Usage, is_batch: bool) -> None:
    parts = cost_parts(price, usage, is_batch=is_batch)
    assert tuple(parts) == CLASSES
    assert min(parts.values()) >= 0
    assert sum(parts.values()) == cost_pico(price, usage, is_batch=is_batch)


@given(prices(), usages, st.sampled_from(CLASSES), st.integers(1, 10**5))
def test_more_tokens_never_cost_less(price: Price, usage: Usage, name: str, more: int) -> None:
    larger = Usage(**{each: getattr(usage, each) + (more if each == name else 0) for each in CLASSES})
    assert cost_pico(price, larger) >= cost_pico(price, usage)


@given(prices(), usages)
def test_a_tier_is_never_cheaper_and_a_batch_never_dearer(price: Price, usage: Usage) -> None:
    flat = Price(**{name: getattr(price, name) for name in CLASSES})
    assert cost_pico(price, usage) >= cost_pico(flat, usage)
    assert cost_pico(price, usage, is_batch=True) <= cost_pico(price, usage)


@given(usages, usages)
def test_without_tiers_costs_add_up(first: Usage, second: Usage) -> None:
    price = Price(input=3, output=15, cache_read=1, cache_write_5m=4, cache_write_1h=6)
    both = Usage(**{name: getattr(first, name) + getattr(second, name) for name in CLASSES})
    assert cost_pico(price, both) == cost_pico(price, first) + cost_pico(price, second)


def test_a_price_holds_from_its_day_on_and_history_never_changes() -> None:
    today = [date(2026, 11, 20)]
    specs = (
        PriceSpec(target="lab/m", input=Decimal(1)),
        PriceSpec(target="lab/m", input=Decimal(2), since=date(2026, 11, 21)),
    )
    book = PriceBook(load_catalog(), specs, today=lambda: today[0])
    before = book.price("lab", "m")
    today[0] = date(2026, 11, 21)  # midnight passes while it runs
    after = book.price("lab", "m")
    assert before is not None
    assert after is not None
    assert (before.input, after.input) == (1_000_000, 2_000_000)
    assert before.version != after.version
    assert book.price("lab", "m", date(2020, 1, 1)) == before
    again = PriceBook(load_catalog(), specs).price("lab", "m", date(2026, 12, 1))
    assert again == after  # the same price has the same version in every process


def test_an_unknown_model_has_no_price_on_any_day() -> None:
    book = PriceBook(load_catalog())
    assert book.price("openai", "gpt-99") is None
    assert book.price("openai", "gpt-99", MARCH) is None
    assert book.price("reseller", "gpt-4o") is None


def test_a_marginal_tier_counts_the_tokens_above_only() -> None:
    long = LongRates(above=200_000, input=Decimal("2.50"), output=Decimal(10), marginal=True)
    spec = PriceSpec(target="lab/m", input=Decimal("1.25"), output=Decimal(10), long=long)
    price = PriceBook(load_catalog(), (spec,)).price("lab", "m")
    assert price is not None
    assert cost_pico(price, Usage(input=300_000)) == 200_000 * 1_250_000 + 100_000 * 2_500_000


@pytest.mark.parametrize(
    ("target", "usd_a_day"),
    [
        ("anthropic/claude-haiku-4-5", "2.20"),
        ("anthropic/claude-sonnet-4-6", "6.60"),
        ("anthropic/claude-opus-4-6", "11.00"),
        ("openai/gpt-4o", "4.90"),
        ("openai/gpt-4.1", "3.92"),
        ("gemini/gemini-2.5-flash", "0.90"),
        ("deepseek/deepseek-chat", "0.2072"),
    ],
)
def test_appendix_b_computed_where_its_printed_table_is_wrong(target: str, usd_a_day: str) -> None:
    """10.4: 2,500 tokens in and 600 out a request, 400 requests a day. It prints 1.76, 5.25, 8.75, 4.43, 3.55, …"""
    provider, _, model = target.partition("/")
    price = PriceBook(load_catalog()).price(provider, model, MARCH)
    assert price is not None
    a_day = 400 * cost_pico(price, Usage(input=2_500, output=600))
    assert Decimal(a_day) / 10**12 == Decimal(usd_a_day)
    if target == "anthropic/claude-sonnet-4-6":  # 10.2: a batch is half
        assert 400 * cost_pico(price, Usage(input=2_500, output=600), is_batch=True) * 2 == a_day


def test_every_price_of_the_catalog_has_a_source_and_a_day() -> None:
    for row in load_catalog().rows:
        for each in (*row.past, *((row.price,) if row.price else ())):
            assert each.source, row.id
            assert date.fromisoformat(each.as_of), row.id
