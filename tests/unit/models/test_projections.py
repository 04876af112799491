"""Estimates against the oracles of the documents (S1.2, S3.4, S5.10, Q-CTX-06, W2.1, S15.16)."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.models.calibration import Calibration, Weight, weigh
from nightkeep.models.prices import Price
from nightkeep.models.projections import Amount, Room, first_hit, plan_batch, plan_schedule, traffic_factor

FIFTEEN = Price(input=15_000_000, output=75_000_000, cache_read=0, cache_write_5m=0, cache_write_1h=0)
"""$15 a million tokens of input."""


@pytest.mark.parametrize(
    ("minutes", "runs", "usd_a_day"), [(3, 480, "65.016"), (15, 96, "13.0032"), (30, 48, "6.5016")]
)
def test_a_heartbeat_of_9030_tokens_costs_what_the_oracle_says(minutes: int, runs: int, usd_a_day: str) -> None:
    schedule = plan_schedule(Decimal(minutes * 60), 9_030, 0, FIFTEEN)
    assert schedule.runs_a_day == runs
    assert schedule.usd_a_day == Decimal(usd_a_day)


def test_thirty_sessions_a_day_of_9030_tokens_cost_what_the_oracle_says() -> None:
    schedule = plan_schedule(Decimal(86_400) / 30, 9_030, 0, FIFTEEN)
    assert schedule.run.usd == Decimal("0.13545")
    assert schedule.usd_a_day is not None
    assert round(schedule.usd_a_day, 4) == Decimal("4.0635")
    assert schedule.usd_a_month is not None
    assert Decimal("121.90") <= schedule.usd_a_month <= Decimal("121.91")


def test_the_mesh_of_six_agents_burns_what_it_burnt() -> None:
    schedule = plan_schedule(Decimal(30), 1_700, 0, None)
    assert schedule.runs_a_day == 2_880
    assert schedule.run.tokens * schedule.runs_a_day == 4_896_000
    assert schedule.runs_a_day * Decimal("0.012") == Decimal("34.560")
    assert schedule.usd_a_day is None  # nobody said what it costs


@pytest.mark.parametrize(("agents", "factor"), [(1, "1.0"), (5, "1.3"), (10, "1.6"), (20, "2.1")])
def test_agents_that_talk_to_each_other_send_more(agents: int, factor: str) -> None:
    assert traffic_factor(agents) == Decimal(factor)


@given(st.integers(1, 100))
def test_more_agents_never_send_less(agents: int) -> None:
    assert traffic_factor(agents + 1) >= traffic_factor(agents)


def learnt() -> Calibration:
    calibration = Calibration()
    for _ in range(8):
        calibration.note(weigh(b"word " * 100), 125, 80, 300)
    return calibration


def test_a_batch_carries_its_system_prompt_in_every_item() -> None:
    weights = [weigh(b"word " * 100)] * 10
    alone = plan_batch(
        weights, 300, learnt(), FIFTEEN, output_tokens=100, shared=None, margin=Decimal(1), is_batch=False
    )
    carrying = plan_batch(
        weights,
        300,
        learnt(),
        FIFTEEN,
        output_tokens=100,
        shared=weigh(b"rule " * 200),
        margin=Decimal(1),
        is_batch=False,
    )
    assert 300 * 120 <= alone.likely.input_tokens <= 300 * 130
    assert alone.likely.output_tokens == 300 * 80
    assert carrying.likely.input_tokens - alone.likely.input_tokens >= 300 * 240
    assert alone.upper.pico_usd is not None
    assert alone.likely.pico_usd is not None
    assert alone.upper.pico_usd > alone.likely.pico_usd


def test_without_any_report_the_estimate_is_an_upper_bound_and_says_so() -> None:
    weights = [Weight(bound=500, text=499.0, fixed=0)]
    plan = plan_batch(
        weights, 1, Calibration(), FIFTEEN, output_tokens=10, shared=None, margin=Decimal(1), is_batch=False
    )
    assert plan.counter_calls == 0
    assert plan.upper.input_tokens == 500


@given(st.integers(1, 10**6), st.integers(1, 10**12), st.integers(0, 10**9))
def test_the_first_budget_that_is_hit_is_hit_at_the_right_item(items: int, pico: int, left: int) -> None:
    amount = Amount(input_tokens=0, output_tokens=0, pico_usd=pico * 1_000_000)
    hit = first_hit(amount, items, [Room(scope="/", per="day", metric="usd", left=left)])
    if hit is None:
        assert pico <= left
    else:
        assert 1 <= hit.item <= items
        assert (hit.item - 1) * pico <= left * items < hit.item * pico
