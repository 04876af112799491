"""Costs are exact, dated and never made up."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.core.messages import Usage
from nightkeep.core.money import micro_usd, micro_usd_from_pico
from nightkeep.models.catalog import canonical, load_catalog
from nightkeep.models.prices import Price, PriceBook, PriceSpec, cost_pico

BOOK = PriceBook(load_catalog())
MILLION = 1_000_000


def usd(provider: str, model: str, usage: Usage) -> Decimal:
    price = BOOK.price(provider, model)
    assert price is not None
    return Decimal(cost_pico(price, usage)) / 10**12


@pytest.mark.parametrize(
    ("model", "input_usd", "output_usd"),
    [("claude-opus-4-6", "5", "25"), ("claude-sonnet-4-6", "3", "15"), ("claude-haiku-4-5", "1", "5")],
)
def test_list_prices_are_what_the_vendor_prints(model: str, input_usd: str, output_usd: str) -> None:
    assert usd("anthropic", model, Usage(input=MILLION)) == Decimal(input_usd)
    assert usd("anthropic", model, Usage(output=MILLION)) == Decimal(output_usd)
    assert usd("anthropic", model, Usage(reasoning=MILLION)) == Decimal(output_usd)


def test_the_books_sum_is_right_here() -> None:
    """D32: 200,000 in and 50,000 out of Sonnet are $1.35."""
    assert usd("anthropic", "claude-sonnet-4-6", Usage(input=200_000, output=50_000)) == Decimal("1.35")


def test_cached_tokens_are_counted_once_in_their_own_class() -> None:
    usage = Usage(cache_read=MILLION, cache_write_5m=MILLION, cache_write_1h=MILLION)
    assert usd("anthropic", "claude-sonnet-4-6", usage) == Decimal("0.30") + Decimal("3.75") + Decimal(6)


def test_a_long_prompt_costs_the_long_price_as_a_whole() -> None:
    at = Usage(input=100_000, cache_read=100_000, output=1000)
    over = Usage(input=100_001, cache_read=100_000, output=1000)
    assert usd("gemini", "gemini-2.5-pro", at) == Decimal("0.125") + Decimal("0.0125") + Decimal("0.01")
    assert usd("gemini", "gemini-2.5-pro", over) == Decimal("0.2500025") + Decimal("0.025") + Decimal("0.015")


def test_an_unknown_model_has_no_price() -> None:
    assert BOOK.price("openai", "gpt-99") is None
    assert BOOK.price("openrouter", "openai/gpt-4o") is None  # a reseller's price is not the maker's
    assert BOOK.price("openai", "gpt-4o-2024-05-13") is None  # a dated row of its own, dearer, without a source


def test_a_dated_name_has_the_price_of_its_model() -> None:
    assert BOOK.price("anthropic", "claude-sonnet-4-5-20250929") == BOOK.price("anthropic", "claude-sonnet-4-5")


def test_the_configuration_overrides_and_never_understates_what_it_leaves_out() -> None:
    book = PriceBook(load_catalog(), (PriceSpec(target="openai/gpt-4o", input=Decimal(7), output=Decimal(8)),))
    price = book.price("openai", "gpt-4o")
    assert price is not None and price.source == "configuration"
    assert cost_pico(price, Usage(cache_read=MILLION)) == cost_pico(price, Usage(input=MILLION))
    assert cost_pico(price, Usage(cache_write_1h=MILLION)) == 2 * cost_pico(price, Usage(input=MILLION))


def test_a_fraction_of_a_micro_dollar_is_rounded_up_once() -> None:
    price = BOOK.price("openai", "gpt-5-nano")
    assert price is not None
    assert micro_usd_from_pico(cost_pico(price, Usage(input=1))) == 1
    assert micro_usd_from_pico(cost_pico(price, Usage(input=MILLION))) == micro_usd("0.05")


def test_every_price_says_who_said_so_and_when() -> None:
    for row in load_catalog().rows:
        if row.price is not None:
            assert len(row.price.source) > 10 and len(row.price.as_of) == 10, row.id


tokens = st.integers(0, 3_000_000)
usages = st.builds(
    Usage,
    input=tokens,
    cache_read=tokens,
    cache_write_5m=tokens,
    cache_write_1h=tokens,
    output=tokens,
    reasoning=tokens,
)
rates = st.integers(0, 10**9)
flat = st.builds(Price, input=rates, output=rates, cache_read=rates, cache_write_5m=rates, cache_write_1h=rates)


@given(flat, usages, usages)
def test_the_cost_of_two_calls_is_the_sum_of_both(price: Price, one: Usage, two: Usage) -> None:
    both = Usage(**{name: getattr(one, name) + getattr(two, name) for name in Usage.__struct_fields__})
    assert cost_pico(price, both) == cost_pico(price, one) + cost_pico(price, two)


@given(usages)
def test_no_call_costs_less_than_nothing_or_a_fraction(usage: Usage) -> None:
    for provider, model in (("gemini", "gemini-2.5-pro"), ("anthropic", "claude-haiku-5-5"), ("openai", "o3")):
        price = BOOK.price(provider, model)
        assert price is not None
        assert isinstance(cost_pico(price, usage), int) and cost_pico(price, usage) >= 0


@pytest.mark.parametrize(
    ("name", "one"),
    [
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("Claude-Opus-4-6[1M]", "claude-opus-4-6[1m]"),
        ("claude-opus-4-6[1m]", "claude-opus-4-6"),
        ("models/gemini-2.5-flash-001", "gemini-2.5-flash"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("mistral-large-latest", "mistral-large"),
        ("", ""),
    ],
)
def test_one_model_has_one_name(name: str, one: str) -> None:
    assert canonical(name) == canonical(one)


@given(st.text(max_size=60))
def test_a_name_is_normalised_once_and_for_all(name: str) -> None:
    assert canonical(canonical(name)) == canonical(name)
