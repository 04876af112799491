"""What the spending means: what a successful run cost, what it would cost at ten times the load, what was saved.

Pure, over rows that its own queries select; beside ``models.ledger_queries``, which adds up.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec

from nightkeep.models.ledger_queries import Spend, SpendFilter
from nightkeep.store.port import Row, Value

__all__ = [
    "Ablation",
    "Layer",
    "Projection",
    "RunCosts",
    "ablation",
    "project",
    "read_runs",
    "select_asked",
    "select_cached",
    "select_paying",
    "select_runs",
    "select_unpaid",
]

DAYS_A_MONTH: Final = 30
_FACTORS: Final = (1, 10, 100)


class RunCosts(msgspec.Struct, frozen=True, kw_only=True):
    """What runs cost, and what a successful one did (F53).

    A run has succeeded when its last call ended with ``success``. Its last call is the one in the record of calls;
    where that has been purged, the last attempt in the ledger speaks for it. The cost per successful run is the cost
    of all runs, failed ones as well, over the number of those that succeeded.
    """

    runs: int
    successful: int
    unfinished: int  # the last call still runs
    cost_micro_usd: int
    per_successful_micro_usd: int | None  # rounded up; None where none succeeded


class Projection(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a projection (A10-R6): what this period's average comes to at a multiple of its load."""

    factor: int
    requests_a_day: float
    a_day_micro_usd: int
    a_month_micro_usd: int  # of 30 days


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """What one way to save has saved; negative where it cost more than it gave."""

    name: str
    what: str
    saved_micro_usd: int
    requests: int  # on which that is known
    unknown: int  # requests or calls that it touched and of which it is not known


class Ablation(msgspec.Struct, frozen=True, kw_only=True):
    """What it cost, what it would have cost without each way to save, and without all of them (A12-R7, F57)."""

    cost_micro_usd: int
    without_micro_usd: int
    layers: list[Layer]
    runs: RunCosts


def select_runs(wanted: SpendFilter) -> tuple[str, list[Value]]:
    """For each run of a part of the ledger: its cost and how its last call, or attempt, ended."""
    where, values = wanted.conditions()
    sql = (
        "WITH spent AS (SELECT run_id, sum(cost_micro_usd) AS cost, max(CASE WHEN kind = 'attempt' THEN id END) AS last"
        f" FROM ledger WHERE {where} AND run_id IS NOT NULL GROUP BY run_id), "
        "called AS (SELECT run_id, max(id) AS last FROM calls WHERE run_id IN (SELECT run_id FROM spent) "
        "GROUP BY run_id) "
        "SELECT spent.run_id, spent.cost, coalesce((SELECT outcome FROM calls WHERE calls.id = called.last), "
        "(SELECT outcome FROM ledger WHERE ledger.id = spent.last), '') "
        "FROM spent LEFT JOIN called ON called.run_id = spent.run_id"
    )
    return sql, values


def read_runs(rows: Iterable[Row]) -> RunCosts:
    """What the rows of ``select_runs`` come to."""
    runs = successful = unfinished = cost = 0
    for _, spent, outcome in rows:
        runs += 1
        cost += int(spent or 0)
        successful += outcome == "success"
        unfinished += outcome == "running"
    return RunCosts(
        runs=runs,
        successful=successful,
        unfinished=unfinished,
        cost_micro_usd=cost,
        per_successful_micro_usd=-(-cost // successful) if successful else None,
    )


def project(spend: Spend, begin: datetime, end: datetime) -> list[Projection]:
    """What a period's average comes to at 1, 10 and 100 times its load; rounded up. Empty for an empty period."""
    seconds = (end - begin).total_seconds()
    if seconds <= 0:
        return []
    lines = []
    for factor in _FACTORS:
        micro_ms = spend.cost_micro_usd * factor * 86_400_000
        a_day = -(-micro_ms // max(1, round(seconds * 1000)))
        requests = spend.requests * factor * 86_400 / seconds
        month = -(-micro_ms * DAYS_A_MONTH // max(1, round(seconds * 1000)))
        lines.append(Projection(factor=factor, requests_a_day=requests, a_day_micro_usd=a_day, a_month_micro_usd=month))
    return lines


# -- ablation

_UNPAID: Final = "(cache = 'hit' OR idempotency IN ('replayed', 'joined'))"


def select_unpaid(wanted: SpendFilter) -> tuple[str, list[Value]]:
    """Calls that were answered without paying: scope, door and request, how many from the cache, how many by key."""
    where, values = wanted.conditions("started_at")
    sql = (
        "SELECT scope, door, coalesce(request_hash, ''), sum(CASE WHEN cache = 'hit' THEN 1 ELSE 0 END), "
        "sum(CASE WHEN cache = 'hit' THEN 0 ELSE 1 END) "
        f"FROM calls WHERE {where} AND {_UNPAID} GROUP BY scope, door, coalesce(request_hash, '')"
    )
    return sql, values


def select_paying(wanted: SpendFilter) -> tuple[str, list[Value]]:
    """The calls that paid for such requests, whenever that was: scope, door, request, average cost rounded down."""
    where, values = wanted.conditions("started_at")
    sql = (
        "SELECT scope, door, request_hash, sum(cost_micro_usd) / count(*) FROM calls WHERE cost_micro_usd IS NOT NULL "
        f"AND outcome = 'success' AND NOT coalesce({_UNPAID}, 1 = 0) AND request_hash IN "
        f"(SELECT request_hash FROM calls WHERE {where} AND {_UNPAID}) GROUP BY scope, door, request_hash"
    )
    return sql, values


def select_asked(wanted: SpendFilter) -> tuple[str, list[Value]]:
    """Attempts of which it is known what the alias's first target would have cost, and of how many it is not.

    How many, what that would have come to, what they cost, and how many went elsewhere or are not known to have not.
    """
    where, values = wanted.conditions()
    sql = (
        "SELECT coalesce(sum(CASE WHEN asked_micro_usd IS NULL THEN 0 ELSE 1 END), 0), "
        "coalesce(sum(asked_micro_usd), 0), "
        "coalesce(sum(CASE WHEN asked_micro_usd IS NULL THEN 0 ELSE cost_micro_usd END), 0), "
        "coalesce(sum(CASE WHEN asked_micro_usd IS NULL AND alias IS NOT NULL THEN 1 ELSE 0 END), 0) "
        f"FROM ledger WHERE {where} AND kind = 'attempt'"
    )
    return sql, values


def ablation(
    total: Spend, cached: Row, unpaid: Iterable[Row], paying: Iterable[Row], asked: Row, runs: RunCosts
) -> Ablation:
    """What each way to save has saved. Rows of the queries above; ``cached`` counts requests (known, unknown)."""
    prices = {tuple(row[:3]): int(row[3] or 0) for row in paying}
    by_cache, by_key = _Answered(), _Answered()
    for scope, door, request, hits, replays in unpaid:
        price = prices.get((scope, door, request))
        by_cache.count(int(hits or 0), price)
        by_key.count(int(replays or 0), price)
    known, would, did, elsewhere = (int(value or 0) for value in asked)
    layers = [
        Layer(
            name="provider_cache",
            what="the providers' own prompt caches",
            saved_micro_usd=total.cache_saved_micro_usd,
            requests=int(cached[0] or 0),
            unknown=int(cached[1] or 0),
        ),
        by_cache.layer("exact_cache", "our cache of exact matches"),
        by_key.layer("idempotency", "retries answered by their key"),
        Layer(
            name="routing",
            what="routing past the first target",
            saved_micro_usd=would - did,
            requests=known,
            unknown=elsewhere,
        ),
    ]
    saved = sum(layer.saved_micro_usd for layer in layers)
    return Ablation(
        cost_micro_usd=total.cost_micro_usd,
        without_micro_usd=total.cost_micro_usd + saved,
        layers=layers,
        runs=runs,
    )


class _Answered:
    """Calls answered without paying, and what the call that paid had cost."""

    def __init__(self) -> None:
        self.saved = self.known = self.unknown = 0

    def count(self, calls: int, price: int | None) -> None:
        if price is None:
            self.unknown += calls
        else:
            self.known += calls
            self.saved += calls * price

    def layer(self, name: str, what: str) -> Layer:
        return Layer(name=name, what=what, saved_micro_usd=self.saved, requests=self.known, unknown=self.unknown)


def select_cached(wanted: SpendFilter) -> tuple[str, list[Value]]:
    """Requests that had to do with a provider's cache: of how many it is known what they would have cost, or not."""
    where, values = wanted.conditions()
    touched = "cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens > 0"
    sql = (
        "SELECT coalesce(sum(CASE WHEN uncached_micro_usd IS NULL THEN 0 ELSE 1 END), 0), "
        "coalesce(sum(CASE WHEN uncached_micro_usd IS NULL THEN 1 ELSE 0 END), 0) "
        f"FROM ledger WHERE {where} AND kind = 'attempt' AND {touched}"
    )
    return sql, values
