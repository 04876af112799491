"""Calendar windows: when an hour, a day, a week or a month begins and ends, somewhere on Earth.

A window begins at a reset time in a time zone, so a day has 23 or 25 hours when the clocks change. Boundaries are
plain numbers (epoch seconds); a time zone is only asked when a window ends. Used by the accounts' quotas
(``nightkeep.models.quota``) and by budgets (``nightkeep.control.budget_nodes``).
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal
from zoneinfo import ZoneInfo

__all__ = ["Per", "calendar_window"]

Per = Literal["hour", "day", "week", "month"]
_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def calendar_window(
    per: Per, now: float, resets_at: str | None = None, resets_on: str | None = None
) -> tuple[float, float]:
    """Return start and end (epoch seconds) of the calendar window that holds ``now``.

    ``resets_at`` is ``"HH:MM Area/City"`` (None: 00:00 UTC; of an hour only the minutes count), ``resets_on`` the
    weekday on which a week begins (None: monday); a month begins on its first day.

    A reset time that the clocks jump over happens when they have jumped; one that comes twice happens the
    first time: every window has exactly one beginning.
    """
    hour, minute, zone = _reset_of(resets_at)
    if per == "hour":
        return _hour(now, minute, zone)
    local = datetime.fromtimestamp(now, zone)
    day = datetime(local.year, local.month, local.day, hour, minute)
    if per == "week":
        day -= timedelta(days=(day.weekday() - _WEEKDAYS.index(resets_on or "monday")) % 7)
    elif per == "month":
        day = day.replace(day=1)
    start, end = _epoch(day, zone), _epoch(_step(day, per, 1), zone)
    if now < start:
        return _epoch(_step(day, per, -1), zone), start
    if now >= end:
        return end, _epoch(_step(day, per, 2), zone)
    return start, end


@lru_cache(maxsize=1024)
def _reset_of(text: str | None) -> tuple[int, int, ZoneInfo]:
    time, _, zone = (text or "00:00 UTC").partition(" ")
    hour, _, minute = time.partition(":")
    return int(hour), int(minute), ZoneInfo(zone.strip() or "UTC")


def _hour(now: float, minute: int, zone: ZoneInfo) -> tuple[float, float]:
    offset = datetime.fromtimestamp(now, zone).utcoffset() or timedelta()
    shift = minute * 60 - offset.total_seconds()
    start = math.floor((now - shift) / 3_600) * 3_600 + shift
    return start, start + 3_600


def _step(day: datetime, per: Per, count: int) -> datetime:
    if per == "month":
        months = day.year * 12 + day.month - 1 + count
        return day.replace(year=months // 12, month=months % 12 + 1)
    return day + timedelta(days=count * (7 if per == "week" else 1))


def _epoch(naive: datetime, zone: ZoneInfo) -> float:
    return naive.replace(tzinfo=zone).astimezone(UTC).timestamp()
