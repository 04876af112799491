"""Limits per minute."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nightkeep.control.meters import Limits, Meter

STEPS = st.lists(st.tuples(st.floats(0, 40), st.integers(0, 150), st.integers(0, 150)), max_size=80)


@given(steps=STEPS)
def test_no_window_of_a_minute_holds_more_than_the_limit(steps: list[tuple[float, int, int]]) -> None:
    meter = Meter(Limits(requests_per_minute=5, tokens_per_minute=100))
    now, taken = 1_000.0, []
    for seconds, tokens, used in steps:
        now += seconds
        if meter.is_ready(tokens, now):
            entry = meter.take(tokens, now)
            spent = min(used, tokens, 100)
            meter.correct(entry, spent, now)
            taken.append((now, spent))
            inside = [tokens for at, tokens in taken if at + 60.0 > now]
            assert len(inside) <= 5
            assert sum(inside) <= 100
            assert meter.used(now) == (len(inside), sum(inside))


@given(steps=STEPS)
def test_the_said_moment_is_the_first_at_which_it_fits(steps: list[tuple[float, int, int]]) -> None:
    meter = Meter(Limits(requests_per_minute=3, tokens_per_minute=100))
    now = 1_000.0
    for seconds, tokens, _ in steps:
        now += seconds
        if meter.is_ready(tokens, now):
            meter.take(tokens, now)
            continue
        at = meter.latest(tokens, now)
        assert at > now
        assert meter.earliest(tokens, now) <= at
        now = at
        assert meter.is_ready(tokens, now)


def test_an_estimate_that_was_too_high_gives_room_back_at_once() -> None:
    meter = Meter(Limits(tokens_per_minute=100))
    entry = meter.take(90, 0.0)
    assert not meter.is_ready(50, 1.0)
    assert meter.earliest(50, 1.0) == 1.0  # perhaps at once
    assert meter.latest(50, 1.0) == 60.0
    meter.correct(entry, 10, 2.0)
    assert meter.is_ready(50, 2.0)


def test_what_a_long_call_used_beyond_its_estimate_counts_from_its_end() -> None:
    meter = Meter(Limits(tokens_per_minute=100))
    entry = meter.take(10, 0.0)
    assert meter.is_ready(0, 70.0)
    meter.correct(entry, 90, 70.0)
    assert meter.used(70.0) == (0, 80)
    assert not meter.is_ready(30, 129.0)
    assert meter.is_ready(30, 130.0)


def test_a_request_larger_than_the_limit_goes_in_an_empty_minute() -> None:
    meter = Meter(Limits(tokens_per_minute=100))
    assert meter.is_ready(5_000, 0.0)
    meter.take(5_000, 0.0)
    assert not meter.is_ready(1, 59.0)
    assert meter.is_ready(5_000, 60.0)


def test_what_was_never_sent_is_not_counted() -> None:
    meter = Meter(Limits(requests_per_minute=1, tokens_per_minute=100))
    meter.undo(meter.take(100, 0.0))
    assert meter.is_ready(100, 0.0)
