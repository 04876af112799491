"""Questions about spending, answered whole: one value each, for the API and the command line alike.

What is added up is ``models.ledger_queries``'s, what it means ``models.ledger_savings``'s; this file asks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol
from zoneinfo import ZoneInfo

import msgspec

from nightkeep.core.errors import RequestError
from nightkeep.core.scope import ROOT, parse_scope
from nightkeep.models.ledger_queries import By, Group, Spend, SpendFilter, fold, select_span, select_spend
from nightkeep.models.ledger_savings import (
    Ablation,
    Projection,
    RunCosts,
    ablation,
    project,
    read_runs,
    select_asked,
    select_cached,
    select_paying,
    select_runs,
    select_unpaid,
)
from nightkeep.store.port import Row, Value

__all__ = ["Reads", "SpendQuery", "Spending", "filter_of", "parse_moment", "read_ablation", "read_spending"]

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_MOST_GROUPS: Final = 1_000


class Reads(Protocol):
    """Where the ledger can be read: a store, or a snapshot of one."""

    async def read(self, sql: str, parameters: Sequence[Value] = ()) -> list[Row]:
        """Run a query. Raises StoreError."""
        ...


class SpendQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked. Moments are spans back from now (``24h``, ``7d``) or dates, in ``zone`` unless they say."""

    by: By | None = None
    since: str | None = None
    until: str | None = None
    scope: str = ROOT
    depth: int | None = None  # segments of a scope that are shown, when by scope
    zone: str = "UTC"
    limit: int = _MOST_GROUPS  # groups; what is over it is one group, ``others``


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """What was spent, and by whom. The groups and the others add up to the total, to the micro-dollar."""

    by: By | None
    scope: str
    zone: str
    since: datetime | None
    until: datetime | None
    begins_at: datetime | None  # of what there is: the first attempt; None where there is nothing
    ends_at: datetime | None
    total: Spend
    groups: list[Group]
    others: Spend | None
    others_count: int
    runs: RunCosts
    projection: list[Projection]


def parse_moment(text: str | None, now: datetime, zone: str = "UTC") -> datetime | None:
    """A span back from now (``90s``, ``30m``, ``24h``, ``7d``, ``2w``) or an ISO date or time. Raises RequestError."""
    if text is None or not text.strip():
        return None
    span = re.fullmatch(r"\s*(\d{1,9})\s*([smhdw])\s*", text)
    try:
        if span:
            return now - timedelta(seconds=int(span[1]) * _UNITS[span[2]])
        at = datetime.fromisoformat(text.strip())
        return (at if at.tzinfo else at.replace(tzinfo=_zone(zone))).astimezone(UTC)
    except (ValueError, OverflowError):
        raise RequestError(
            f"{text[:40]!r} is neither a span such as 30m, 24h or 7d nor a date such as 2026-11-01"
        ) from None


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise RequestError(
            f"there is no time zone {name[:40]!r}; they are called UTC, Europe/Berlin and so on"
        ) from None


def filter_of(query: SpendQuery, now: datetime) -> SpendFilter:
    """Which part of the ledger a question is about. Raises RequestError."""
    _zone(query.zone)
    if query.depth is not None and query.depth < 1:
        raise RequestError("depth: at least 1")
    return SpendFilter(
        since=parse_moment(query.since, now, query.zone),
        until=parse_moment(query.until, now, query.zone),
        scope=parse_scope(query.scope),
    )


async def read_spending(ledger: Reads, query: SpendQuery, now: datetime) -> Spending:
    """Answer a question. Raises RequestError (a moment, zone or scope is malformed) and StoreError."""
    wanted = filter_of(query, now)
    (total,) = fold(await ledger.read(*select_spend(wanted)))
    groups: list[Group] = []
    if query.by is not None:
        groups = fold(await ledger.read(*select_spend(wanted, query.by)), query.by, depth=query.depth, zone=query.zone)
    first, last = (await ledger.read(*select_span(wanted)))[0]
    begin, end = (datetime.fromtimestamp(int(at) / 1000, UTC) if at is not None else None for at in (first, last))
    shown, others = _cut(groups, query)
    return Spending(
        by=query.by,
        scope=wanted.scope,
        zone=query.zone,
        since=wanted.since,
        until=wanted.until,
        begins_at=begin,
        ends_at=end,
        total=total.spend,
        groups=shown,
        others=others,
        others_count=len(groups) - len(shown),
        runs=read_runs(await ledger.read(*select_runs(wanted))),
        projection=_project(total.spend, wanted, begin, now),
    )


def _cut(groups: list[Group], query: SpendQuery) -> tuple[list[Group], Spend | None]:
    """The groups that are shown (the dearest; of days the last) and the sum of all others."""
    limit = max(1, min(query.limit, _MOST_GROUPS))
    if len(groups) <= limit:
        return groups, None
    shown, rest = (groups[-limit:], groups[:-limit]) if query.by == "day" else (groups[:limit], groups[limit:])
    others = Spend()
    for group in rest:
        others.add(group.spend)
    return shown, others


def _project(spend: Spend, wanted: SpendFilter, begin: datetime | None, now: datetime) -> list[Projection]:
    """From the average of the period that was asked for; where it has no beginning, from the first attempt on."""
    since, until = wanted.since or begin, min(wanted.until or now, now)
    if since is None or until - since < _LEAST_PERIOD:
        return []
    return project(spend, since, until)


_LEAST_PERIOD = timedelta(minutes=10)
"""From less, nothing can be said of a day."""


async def read_ablation(ledger: Reads, query: SpendQuery, now: datetime) -> Ablation:
    """What each way to save has saved. Raises RequestError and StoreError."""
    wanted = filter_of(query, now)
    (total,) = fold(await ledger.read(*select_spend(wanted)))
    return ablation(
        total.spend,
        (await ledger.read(*select_cached(wanted)))[0],
        await ledger.read(*select_unpaid(wanted)),
        await ledger.read(*select_paying(wanted)),
        (await ledger.read(*select_asked(wanted)))[0],
        read_runs(await ledger.read(*select_runs(wanted))),
    )
