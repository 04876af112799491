"""Quota windows: resets at the account's own time, also when the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.core.windows import calendar_window as window_of
from nightkeep.models.quota import NEVER, Quota, make_window

PER = st.sampled_from(["hour", "day", "week", "month"])
ZONES = st.sampled_from(
    ["UTC", "America/Los_Angeles", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"]
)
MOMENTS = st.floats(1_700_000_000, 1_900_000_000)


def calendar_window(quota: Quota, now: float) -> tuple[float, float]:
    return window_of(quota.per, now, quota.resets_at, quota.resets_on)


def epoch(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def hours(window: tuple[float, float]) -> float:
    return (window[1] - window[0]) / 3_600


@pytest.mark.parametrize(
    ("zone", "during", "expected_hours"),
    [
        ("America/Los_Angeles", "2026-03-08T20:00", 23),  # spring forward at 02:00
        ("America/Los_Angeles", "2026-11-01T20:00", 25),  # fall back at 02:00
        ("Europe/Berlin", "2026-03-29T12:00", 23),
        ("Europe/Berlin", "2026-10-25T12:00", 25),
        ("Europe/Berlin", "2026-10-26T12:00", 24),
    ],
)
def test_a_day_is_as_long_as_the_local_day(zone: str, during: str, expected_hours: int) -> None:
    assert hours(calendar_window(Quota(per="day", resets_at=f"00:00 {zone}"), epoch(during))) == expected_hours


def test_a_reset_time_that_the_clocks_jump_over_still_resets_once() -> None:
    quota = Quota(per="day", resets_at="02:30 America/Los_Angeles")
    start, end = calendar_window(quota, epoch("2026-03-08T12:00"))
    assert start == epoch("2026-03-08T10:30")
    assert end == epoch("2026-03-09T09:30")


def test_a_reset_time_that_comes_twice_resets_the_first_time() -> None:
    quota = Quota(per="day", resets_at="01:30 America/Los_Angeles")
    first = epoch("2026-11-01T08:30")
    assert calendar_window(quota, first - 1)[1] == first
    assert calendar_window(quota, first + 3_600) == (first, epoch("2026-11-02T09:30"))


def test_a_week_begins_on_its_own_day() -> None:
    quota = Quota(per="week", resets_at="09:00 Europe/Berlin", resets_on="thursday")
    start, end = calendar_window(quota, epoch("2026-11-20T12:00"))
    assert (start, end) == (epoch("2026-11-19T08:00"), epoch("2026-11-26T08:00"))


def test_a_month_begins_on_its_first_day_also_over_the_turn_of_the_year() -> None:
    assert calendar_window(Quota(per="month"), epoch("2026-12-31T23:59")) == (
        epoch("2026-12-01T00:00"),
        epoch("2027-01-01T00:00"),
    )
    los_angeles = Quota(per="month", resets_at="00:00 America/Los_Angeles")
    assert calendar_window(los_angeles, epoch("2026-03-01T07:59"))[1] == epoch("2026-03-01T08:00")


def test_an_hour_resets_at_its_minute_in_a_zone_of_half_hours() -> None:
    window = calendar_window(Quota(per="hour", resets_at="00:15 Asia/Kolkata"), epoch("2026-11-20T12:00"))
    assert window == (epoch("2026-11-20T11:45"), epoch("2026-11-20T12:45"))


@given(per=PER, zone=ZONES, moment=MOMENTS, minute=st.integers(0, 1_439))
def test_windows_hold_their_moment_and_follow_each_other_without_a_gap(
    per: str, zone: str, moment: float, minute: int
) -> None:
    quota = Quota(per=per, resets_at=f"{minute // 60:02}:{minute % 60:02} {zone}")  # type: ignore[arg-type]
    start, end = calendar_window(quota, moment)
    assert start <= moment < end
    if per != "hour" or zone != "Australia/Lord_Howe":  # its clocks change by half an hour
        assert calendar_window(quota, end)[0] == end
        assert calendar_window(quota, start - 0.001)[1] == start
    local = datetime.fromtimestamp(start, ZoneInfo(zone))
    assert local.minute == minute % 60 or zone == "Australia/Lord_Howe" or per == "hour"


def test_a_calendar_window_clears_at_its_reset_and_not_before() -> None:
    window = make_window(Quota(per="day", requests=2, resets_at="00:00 America/Los_Angeles"))
    now = epoch("2026-11-20T12:00")
    for _ in range(2):
        assert window.is_ready(10, now)
        window.take(10, now)
        window.settle(10, 10, now)
    assert window.is_spent(now)
    reset = window.resets_at(now)
    assert reset == epoch("2026-11-21T08:00")
    assert not window.is_ready(10, reset - 1)
    assert window.is_ready(10, reset)


def test_a_clock_set_back_does_not_clear_a_window() -> None:
    window = make_window(Quota(per="day", requests=1))
    window.take(0, epoch("2026-11-20T00:01"))
    assert not window.is_ready(0, epoch("2026-11-19T23:00"))


def test_what_is_held_moves_into_the_next_window_with_the_call() -> None:
    window = make_window(Quota(per="hour", tokens=100))
    before = epoch("2026-11-20T12:59")
    window.take(80, before)
    after = epoch("2026-11-20T13:00")
    assert not window.is_ready(30, after)
    window.settle(80, 60, after)
    assert window.is_ready(40, after)
    assert not window.is_ready(41, after)


def test_a_request_larger_than_the_quota_never_fits() -> None:
    for kind in ("calendar", "rolling"):
        window = make_window(Quota(per="day", tokens=100, window=kind))
        assert window.earliest(101, epoch("2026-11-20T12:00")) == NEVER


@given(
    steps=st.lists(st.tuples(st.floats(0, 5_000), st.integers(0, 60)), max_size=60),
    per=st.sampled_from(["hour", "day"]),
)
def test_a_rolling_window_never_lets_more_through_in_any_span(steps: list[tuple[float, int]], per: str) -> None:
    window = make_window(Quota(per=per, tokens=100, requests=5, window="rolling"))  # type: ignore[arg-type]
    span = 3_600 if per == "hour" else 86_400
    now = epoch("2026-11-20T12:00")
    taken: list[tuple[float, int]] = []
    for seconds, tokens in steps:
        now += seconds
        if window.is_ready(tokens, now):
            window.take(tokens, now)
            window.settle(tokens, tokens, now)
            taken.append((now, tokens))
            inside = [used for at, used in taken if now - at < span]
            assert len(inside) <= 5
            assert sum(inside) <= 100
        else:
            at = window.earliest(tokens, now)
            assert at > now
            assert at <= now + span * 1.011  # a bucket is a 96th of the span
            now = at + 0.001
            assert window.is_ready(tokens, now)


@given(kind=st.sampled_from(["calendar", "rolling"]), per=PER, uses=st.lists(st.integers(0, 50), max_size=8))
def test_a_dump_goes_on_where_it_stood_and_counts_what_was_held(kind: str, per: str, uses: list[int]) -> None:
    quota = Quota(per=per, tokens=1_000, requests=20, window=kind)  # type: ignore[arg-type]
    now = epoch("2026-11-20T12:34")
    window = make_window(quota)
    for tokens in uses:
        window.take(tokens, now)
        window.settle(tokens, tokens, now)
    window.take(7, now)
    again = make_window(quota)
    again.load(window.dump(), now + 1)
    assert (again.used_tokens, again.used_requests) == (sum(uses) + 7, len(uses) + 1)
    later = make_window(quota)
    later.load(window.dump(), now + timedelta(days=40).total_seconds())
    assert (later.used_tokens, later.used_requests) == (0, 0)
