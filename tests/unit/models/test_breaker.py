"""The circuit breaker (Q-PROXY-02, A7-R3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.core.outcome import Outcome
from nightkeep.models.breaker import COUNTED_OUTCOMES, Breaker, BreakerState


def opened(at: float = 100.0) -> Breaker:
    breaker = Breaker()
    for _ in range(5):
        breaker.record(Outcome.UNAVAILABLE, at, is_probe=False)
    return breaker


def test_five_failures_within_a_minute_open_it() -> None:
    breaker = Breaker()
    changed = [breaker.record(Outcome.TIMED_OUT, 100.0 + 14 * n, is_probe=False) for n in range(5)]
    assert changed == [False, False, False, False, True]
    assert not breaker.is_ready(157.0)


def test_five_failures_over_more_than_a_minute_do_not() -> None:
    breaker = Breaker()
    for n in range(20):
        breaker.record(Outcome.TIMED_OUT, 100.0 + 15.1 * n, is_probe=False)
    assert breaker.is_ready(500.0)


def test_a_few_failures_among_many_successes_do_not_open_it() -> None:
    breaker = Breaker()
    for n in range(200):
        breaker.record(Outcome.UNAVAILABLE if n % 10 == 0 else Outcome.SUCCESS, 100.0 + n / 10, is_probe=False)
    assert breaker.state(120.0) is BreakerState.CLOSED


@pytest.mark.parametrize("outcome", sorted(set(Outcome) - COUNTED_OUTCOMES))
def test_what_is_not_the_providers_fault_never_opens_it(outcome: Outcome) -> None:
    breaker = Breaker()
    for _ in range(50):
        breaker.record(outcome, 100.0, is_probe=False)
    assert breaker.is_idle


def test_half_open_lets_exactly_one_probe_through() -> None:
    breaker = opened()
    assert not breaker.is_ready(114.9)
    assert breaker.state(115.0) is BreakerState.HALF_OPEN
    assert breaker.is_ready(115.0)
    assert breaker.admit()
    assert not breaker.is_ready(115.0)
    assert not breaker.is_ready(10_000.0)


def test_a_good_probe_closes_it() -> None:
    breaker = opened()
    breaker.admit()
    assert breaker.record(Outcome.SUCCESS, 116.0, is_probe=True)
    assert breaker.is_idle


def test_a_bad_probe_opens_it_for_longer_up_to_a_cap() -> None:
    breaker, now, spans = opened(), 100.0, []
    for _ in range(8):
        spans.append(breaker.until - now)
        now = breaker.until
        breaker.admit()
        breaker.record(Outcome.OVERLOADED, now, is_probe=True)
    assert spans == [15.0, 30.0, 60.0, 120.0, 240.0, 300.0, 300.0, 300.0]


def test_a_cancelled_probe_says_nothing_and_the_next_call_is_the_probe() -> None:
    breaker = opened()
    breaker.admit()
    assert not breaker.record(Outcome.CANCELLED, 116.0, is_probe=True)
    assert breaker.is_ready(116.0)
    assert breaker.admit()


@given(outcomes=st.lists(st.sampled_from(list(Outcome)), max_size=30))
def test_results_of_calls_that_left_before_do_not_touch_an_open_breaker(outcomes: list[Outcome]) -> None:
    breaker = opened()
    for outcome in outcomes:
        assert not breaker.record(outcome, 101.0, is_probe=False)
    assert breaker.until == 115.0
