"""Adding the ledger up: what was spent, by whom and on what, and that the parts are the whole.

SQL and values only, for ``Store.read`` and the command line's snapshot alike. The database adds by the plain columns;
what needs more than that (the levels of a scope, the days of a time zone) is folded here, from sums, never from rows.
Every figure of ``Spend`` is additive: over any grouping, the groups' figures add up to the total's.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any, Final, Literal, get_args
from zoneinfo import ZoneInfo

import msgspec

from nightkeep.core.scope import ROOT
from nightkeep.models.call_rows import epoch_ms
from nightkeep.store.port import Row, Value

__all__ = ["By", "Group", "Spend", "SpendFilter", "fold", "select_span", "select_spend"]

By = Literal["scope", "agent", "model", "account", "provider", "tag", "key", "release", "run", "day"]
"""What spending can be grouped by."""

_MOST_DAYS: Final = 3_660
_QUARTER_MS: Final = 900_000  # every offset of a time zone is a multiple of a quarter of an hour
_EXPRESSIONS: Final[dict[By, str]] = {
    "scope": "scope",
    "agent": "agent",
    "model": "provider || '/' || model",
    "account": "account",
    "provider": "provider",
    "tag": "coalesce(tag, '')",
    "key": "key_name",
    "release": "release_name",
    "run": "coalesce(run_id, '')",
    "day": f"at / {_QUARTER_MS}",
}
_FAILED: Final = "outcome NOT IN ('success', '')"


class Spend(msgspec.Struct, kw_only=True):
    """Sums over rows of the ledger; money in micro-dollars, every field additive."""

    requests: int = 0  # that were sent to providers, those that only the bill knows included
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_micro_usd: int = 0
    estimates: int = 0  # requests of which nobody has said yet what was billed
    estimated_micro_usd: int = 0  # what of the cost is theirs
    unpriced: int = 0  # requests whose model has no price: they are in the cost as nothing
    failed_requests: int = 0  # that did not succeed and were billed, or may have been
    failed_micro_usd: int = 0
    adjusted_micro_usd: int = 0  # what of the cost was booked by reconciliation
    cached_plain_micro_usd: int = 0  # what the requests for which that is known would have cost without a cache
    cached_cost_micro_usd: int = 0  # what those did cost

    def add(self, other: Spend) -> None:
        """Take another's figures in."""
        for name in _FIELDS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def cache_saved_micro_usd(self) -> int:
        """What the provider's cache saved; negative where writing to it cost more than reading gave back."""
        return self.cached_plain_micro_usd - self.cached_cost_micro_usd


_FIELDS: Final = Spend.__struct_fields__
_SENT: Final = "kind = 'attempt' OR basis = 'report'"
_SUMS: Final = ", ".join(
    f"coalesce(sum({expression}), 0)"
    for expression in (
        f"CASE WHEN {_SENT} THEN 1 ELSE 0 END",
        "input_tokens",
        "cache_read_tokens",
        "cache_write_5m_tokens + cache_write_1h_tokens",
        "output_tokens",
        "reasoning_tokens",
        "cost_micro_usd",
        "is_estimate",
        "estimated_micro_usd",
        "is_unpriced",
        f"CASE WHEN ({_SENT}) AND {_FAILED} THEN 1 ELSE 0 END",
        f"CASE WHEN {_FAILED} THEN cost_micro_usd ELSE 0 END",
        "CASE WHEN kind = 'adjustment' THEN cost_micro_usd ELSE 0 END",
        "coalesce(uncached_micro_usd, 0)",
        "CASE WHEN uncached_micro_usd IS NULL THEN 0 ELSE cost_micro_usd END",
    )
)


class SpendFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of the ledger: from ``since`` on, before ``until``, of a scope and all below it."""

    since: datetime | None = None
    until: datetime | None = None
    scope: str = ROOT

    def conditions(self, at: str = "at") -> tuple[str, list[Value]]:
        """The WHERE clause, and its parameters; ``at`` is the column of the time."""
        parts: list[tuple[str, list[Value]]] = [("1 = 1", [])]
        if self.since is not None:
            parts.append((f"{at} >= ?", [epoch_ms(self.since)]))
        if self.until is not None:
            parts.append((f"{at} < ?", [epoch_ms(self.until)]))
        if self.scope not in ("", ROOT):
            below = f"{self.scope}/"
            parts.append(("(scope = ? OR substr(scope, 1, ?) = ?)", [self.scope, len(below), below]))
        return " AND ".join(sql for sql, _ in parts), [value for _, values in parts for value in values]


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a table of spending. An empty name: of rows that say nothing (no tag, no key, no release)."""

    name: str
    spend: Spend


def select_spend(wanted: SpendFilter, by: By | None = None) -> tuple[str, list[Value]]:
    """Sums of a part of the ledger, by one of its columns or of all of it; rows for ``fold``."""
    where, values = wanted.conditions()
    if by is None:
        return f"SELECT '', {_SUMS} FROM ledger WHERE {where}", values
    return f"SELECT {_EXPRESSIONS[by]}, {_SUMS} FROM ledger WHERE {where} GROUP BY {_EXPRESSIONS[by]}", values


def select_span(wanted: SpendFilter) -> tuple[str, list[Value]]:
    """The times (ms) of the first and the last row of a part of the ledger; NULL where there is none."""
    where, values = wanted.conditions()
    return f"SELECT min(at), max(at) FROM ledger WHERE {where}", values


def fold(rows: Iterable[Row], by: By | None = None, *, depth: int | None = None, zone: str = "UTC") -> list[Group]:
    """Groups from the rows of ``select_spend``: scopes cut to ``depth`` segments, moments to the days of a zone.

    Days come in order and without gaps, everything else by cost, dearest first. Raises ZoneInfoNotFoundError.
    """
    found: dict[str, Spend] = {}
    time_zone = ZoneInfo(zone)
    for name, *figures in rows:
        spend = Spend(**dict(zip(_FIELDS, map(_integer, figures), strict=True)))
        key = _name(name, by, depth, time_zone)
        if key in found:
            found[key].add(spend)
        else:
            found[key] = spend
    if by == "day":
        return [Group(name=day, spend=found.get(day, Spend())) for day in _days(found)]
    groups = [Group(name=name, spend=spend) for name, spend in found.items()]
    return sorted(groups, key=lambda group: (-group.spend.cost_micro_usd, -group.spend.requests, group.name))


def _days(found: Iterable[str]) -> list[str]:
    """Every day from the first to the last; only those that are there, where that is more than ten years."""
    days = sorted(found)
    if not days:
        return []
    first, last = date.fromisoformat(days[0]).toordinal(), date.fromisoformat(days[-1]).toordinal()
    if last - first > _MOST_DAYS:
        return days
    return [date.fromordinal(day).isoformat() for day in range(first, last + 1)]


def _name(value: Value, by: By | None, depth: int | None, zone: ZoneInfo) -> str:
    if by == "day":
        return datetime.fromtimestamp(_integer(value) * _QUARTER_MS / 1000, UTC).astimezone(zone).date().isoformat()
    name = str(value)
    if by == "scope" and depth is not None and name != ROOT:
        return "/".join(name.split("/")[:depth]) or ROOT
    return name


def _integer(value: Any) -> int:
    return int(value)


assert set(_EXPRESSIONS) == set(get_args(By))
