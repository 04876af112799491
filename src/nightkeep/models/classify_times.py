"""When to come back: the waits and resets that providers write in headers, error details and sentences.

Pure. Every wait is clamped to 0 … seven days, so that a negative, huge or nonsensical one does no harm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from nightkeep.core.outcome import Outcome

__all__ = ["MOST_WAIT_S", "day_end", "duration_s", "longest_wait", "quota_reset"]

MOST_WAIT_S: Final = 7 * 86_400.0
"""The longest wait that is believed: weekly windows are the longest that vendors have short of a month."""
_MOST_RESET: Final = timedelta(days=32)

_DURATION: Final = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)(ms|s))?\Z")
_AGAIN: Final = re.compile(
    r"(?:try again|retry|available again|retry after|wait)(?: in| after)?:?\s+"
    r"((?:\d{1,6}d)?(?:\d{1,6}h)?(?:\d{1,6}m(?!s))?(?:\d{1,9}(?:\.\d{1,9})?m?s)?)(?![a-z0-9])",
    re.I,
)
_AGAIN_WORDS: Final = re.compile(
    r"(?:again|retry|wait)(?: in| after)?:?\s+(\d{1,6}(?:\.\d+)?) (second|minute|hour)s?", re.I
)
_REGAIN: Final = re.compile(r"regain access on (\d{4}-\d\d-\d\d)(?: at (\d\d:\d\d))?", re.I)
_UNITS: Final = {"second": 1.0, "minute": 60.0, "hour": 3600.0}
_DAILY: Final = re.compile(r"per.?day|daily|\((?:RPD|TPD)\)|PerDay", re.I)
_NUMBER: Final = re.compile(r"-?\d{1,15}(?:\.\d{1,9})?\Z")


def duration_s(text: str) -> float | None:
    """Seconds in a duration such as ``6m0s``, ``1s``, ``20ms``, ``1h2m``, ``34.07s``; None where it is none."""
    match = _DURATION.match(text.strip()) if len(text) < 60 else None
    if match is None or not match[0]:
        return None
    days, hours, minutes, amount, unit = match.groups()
    rest = float(amount or 0) / (1000 if unit == "ms" else 1)
    return _clamped(int(days or 0) * 86_400 + int(hours or 0) * 3600 + int(minutes or 0) * 60 + rest)


def longest_wait(headers: Mapping[str, str], message: str, delay: str | None, now: datetime) -> float | None:
    """Seconds to wait by the most binding word there is; None where nothing is said.

    In this order: ``retry-after-ms``, ``retry-after`` (seconds or an HTTP date), Google's ``retryDelay``, the
    sentence ("try again in 20s"), then the reset headers of those limits that have nothing left.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _clamped(milliseconds / 1000)
    text = headers.get("retry-after")
    if text:
        after = _retry_after(text.strip(), now)
        if after is not None:
            return after
    if delay is not None and (seconds := duration_s(delay)) is not None:
        return seconds
    return _from_sentence(message[:2000]) or _from_resets(headers, now)


def quota_reset(
    outcome: Outcome,
    headers: Mapping[str, str],
    message: str,
    violations: list[str],
    retry_after_s: float | None,
    now: datetime,
) -> datetime | None:
    """When a quota opens again. For a rate limit: only where it is really a quota by the day or longer.

    Google's days end at midnight in California; others' daily limits without a time are taken to end at
    midnight UTC.
    """
    if outcome not in (Outcome.RATE_LIMITED, Outcome.QUOTA_EXHAUSTED):
        return None
    unified = headers.get("anthropic-ratelimit-unified-reset")
    if unified is not None and headers.get("anthropic-ratelimit-unified-status") == "rejected":
        return _moment(unified, now)
    regain = _REGAIN.search(message[:2000])
    if regain is not None:
        return _moment(f"{regain[1]}T{regain[2] or '00:00'}:00+00:00", now)
    if violations:
        return day_end(now, _pacific()) if any("perday" in text.lower() for text in violations) else None
    if _DAILY.search(message[:2000]):
        return now + timedelta(seconds=retry_after_s) if retry_after_s is not None else day_end(now, UTC)
    return None


def day_end(now: datetime, zone: tzinfo) -> datetime:
    """The next midnight in a zone, in UTC."""
    tomorrow = now.astimezone(zone).date() + timedelta(days=1)
    return datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=zone).astimezone(UTC)


@lru_cache(maxsize=1)
def _pacific() -> tzinfo:
    try:
        return ZoneInfo("America/Los_Angeles")
    except ZoneInfoNotFoundError:  # no time zone data on this machine: an hour early for half of the year
        return timezone(timedelta(hours=-8))


def _clamped(seconds: float) -> float:
    return min(max(seconds, 0.0), MOST_WAIT_S)


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and _NUMBER.match(text.strip()) else None


def _retry_after(text: str, now: datetime) -> float | None:
    seconds = _number(text)
    if seconds is not None:
        return _clamped(seconds)
    if (seconds := duration_s(text)) is not None:
        return seconds
    try:
        moment = parsedate_to_datetime(text[:60])
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return _clamped((moment - now).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _from_sentence(message: str) -> float | None:
    match = _AGAIN.search(message)
    if match is not None and match[1]:
        return duration_s(match[1].lower())
    words = _AGAIN_WORDS.search(message)
    return _clamped(float(words[1]) * _UNITS[words[2].lower()]) if words is not None else None


def _from_resets(headers: Mapping[str, str], now: datetime) -> float | None:
    """The longest reset among the limits that have nothing left; where none says so, the shortest of all."""
    spent: list[float] = []
    others: list[float] = []
    for name, text in headers.items():
        if "ratelimit" not in name or "reset" not in name:
            continue
        wait = _reset_wait(text, now)
        if wait is not None:
            left = _number(headers.get(name.replace("reset", "remaining")))
            (spent if left is not None and left <= 0 else others).append(wait)
    if spent:
        return max(spent)
    return min(others) if others else None


def _reset_wait(text: str, now: datetime) -> float | None:
    """A reset header's wait: a duration, seconds, a Unix time in s or ms, or an RFC 3339 time."""
    number = _number(text)
    if number is None:
        seconds = duration_s(text)
        if seconds is not None:
            return seconds
    elif number < 1e8:
        return _clamped(number)
    moment = _moment(text, now)
    return _clamped((moment - now).total_seconds()) if moment is not None else None


def _moment(text: str, now: datetime) -> datetime | None:
    """A time written as RFC 3339, Unix seconds or Unix milliseconds; None where it is none or over 32 days away."""
    number = _number(text)
    try:
        if number is not None:
            moment = datetime.fromtimestamp(number / 1000 if number > 1e11 else number, UTC)
        else:
            moment = datetime.fromisoformat(text.strip()[:40])
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        moment = moment.astimezone(UTC)
        return min(max(moment, now), now + _MOST_RESET)
    except (ValueError, OverflowError, OSError):
        return None
