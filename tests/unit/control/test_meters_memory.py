"""A meter's memory is bounded at any rate, and merging never lets more through."""

from __future__ import annotations

from nightkeep.control.meters import Limits, Meter


def test_a_hundred_thousand_calls_a_minute_need_few_entries_and_are_counted_to_the_call() -> None:
    meter = Meter(Limits(requests_per_minute=1_000_000, tokens_per_minute=1_000_000_000))
    now = 0.0
    for _ in range(100_000):
        entry = meter.take(100, now)
        meter.correct(entry, 40, now)
        now += 0.0005
    assert meter.used(now) == (100_000, 4_000_000)
    assert meter.entries < 5_000
    assert meter.used(now + 59.7)[0] > 0
    assert meter.used(now + 60.0) == (0, 0)


def test_merging_is_on_the_strict_side() -> None:
    meter = Meter(Limits(requests_per_minute=10_000))
    for number in range(10_000):
        meter.correct(meter.take(1, number * 0.005), 1, number * 0.005)
    assert not meter.is_ready(1, 50.0)
    assert not meter.is_ready(1, 60.0)  # the first are merged with those up to 0.25 s after them
    assert meter.is_ready(1, 60.3)
