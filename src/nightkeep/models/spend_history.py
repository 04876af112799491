"""What was spent in the last days, for whoever needs a baseline: read from the ledger and the runs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from nightkeep.store.port import Store

__all__ = ["hourly_spend", "recent_runs"]

_HOURS = (
    "SELECT scope, at / 3600000 AS spent_hour, SUM(cost_micro_usd) FROM ledger WHERE at >= ? "
    "GROUP BY scope, at / 3600000"
)
_RUNS = (
    "SELECT scope, id, cost_micro_usd, last_at FROM runs WHERE last_at >= ? AND cost_micro_usd > 0 "
    "ORDER BY last_at DESC LIMIT ?"
)


async def hourly_spend(store: Store, since: datetime) -> list[tuple[str, int, int]]:
    """Scope, hour since 1970, micro-dollars. Raises StoreError."""
    rows = await store.read(_HOURS, (int(since.timestamp() * 1000),))
    return [(str(scope), int(cast("Any", hour)), int(cast("Any", micro))) for scope, hour, micro in rows]


async def recent_runs(store: Store, since: datetime, most: int = 5_000) -> list[tuple[str, str, int, float]]:
    """Scope, run, micro-dollars, seconds since 1970 of its last call; oldest first. Raises StoreError."""
    rows = cast("list[tuple[Any, ...]]", await store.read(_RUNS, (int(since.timestamp() * 1000), most)))
    return [(scope, run, int(cost), last_at / 1000) for scope, run, cost, last_at in reversed(rows)]
