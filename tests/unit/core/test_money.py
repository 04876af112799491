"""Money adds up exactly and is never under-stated."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.core.money import MicroUsd, format_usd, micro_usd, micro_usd_from_pico

amounts = st.integers(min_value=-(10**15), max_value=10**15).map(MicroUsd)


def test_a_float_means_its_shortest_decimal_text() -> None:
    assert micro_usd(0.06) == 60_000
    assert micro_usd(0.1) + micro_usd(0.2) == micro_usd("0.3")


def test_less_than_a_micro_dollar_is_a_whole_one() -> None:
    assert micro_usd("0.0000001") == 1
    assert micro_usd_from_pico(1) == 1


def test_one_token_at_a_dollar_a_million_is_one_micro_dollar() -> None:
    assert micro_usd_from_pico(1_000_000) == 1


@given(amounts)
def test_what_is_printed_reads_back_as_the_same_amount(amount: MicroUsd) -> None:
    assert micro_usd(format_usd(amount)) == amount


@given(st.integers(min_value=0, max_value=10**21))
def test_a_cost_is_never_under_stated_nor_more_than_a_micro_dollar_over(pico: int) -> None:
    rounded = micro_usd_from_pico(pico) * 1_000_000
    assert pico <= rounded < pico + 1_000_000


@given(st.decimals(min_value=0, max_value=10**9, allow_nan=False, allow_infinity=False, places=9))
def test_dollars_are_rounded_up(dollars: Decimal) -> None:
    exact = dollars * 1_000_000
    assert exact <= micro_usd(dollars) < exact + 1


@pytest.mark.parametrize(
    ("amount", "places", "text"),
    [
        (60_000, 6, "0.060000"),
        (-1, 6, "-0.000001"),
        (1_500_000, 2, "1.50"),
        (-1_250_000, 2, "-1.25"),
        (0, 6, "0.000000"),
    ],
)
def test_amounts_are_printed_with_the_places_asked_for(amount: int, places: int, text: str) -> None:
    assert format_usd(MicroUsd(amount), places=places) == text
