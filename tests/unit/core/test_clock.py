"""Ids are unique, readable, and sort by the time they were made."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from nightkeep.core.clock import new_id

moments = st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))


@given(moments, st.integers())
def test_an_id_is_its_prefix_and_a_ulid(now: datetime, seed: int) -> None:
    assert re.fullmatch(r"call_[0-7][0-9A-HJKMNP-TV-Z]{25}", new_id("call", now, random.Random(seed)))


@given(moments, st.integers(min_value=1, max_value=10**12), st.integers())
def test_ids_sort_by_the_millisecond_they_were_made_in(now: datetime, later_ms: int, seed: int) -> None:
    randomness = random.Random(seed)
    earlier = new_id("run", now, randomness)
    assert earlier < new_id("run", now + timedelta(milliseconds=later_ms + 1), randomness)


def test_ids_of_one_moment_differ() -> None:
    randomness = random.Random(7)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert len({new_id("call", now, randomness) for _ in range(1000)}) == 1000


def test_the_same_time_and_randomness_make_the_same_id() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert new_id("call", now, random.Random(1)) == new_id("call", now, random.Random(1))
