"""Forgetting in time: calls, runs, bodies and stored answers that are older than they are kept, in small steps.

Each step is a short transaction of its own, so that no call waits for a clean-up.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from nightkeep.models.call_queries import first_id
from nightkeep.models.call_rows import epoch_ms
from nightkeep.store.port import Store, Transaction, Value

__all__ = ["purge"]

_STEP: Final = 200  # rows a transaction; about 2 ms of the writer
_CALLS: Final = "DELETE FROM calls WHERE id IN (SELECT id FROM calls WHERE id < ? ORDER BY id LIMIT ?) RETURNING 1"
_BLOBS: Final = (
    "DELETE FROM blobs WHERE hash IN (SELECT hash FROM blobs WHERE last_at < ? ORDER BY last_at LIMIT ?) RETURNING 1"
)
_RUNS: Final = (
    "DELETE FROM runs WHERE id IN (SELECT id FROM runs WHERE last_at < ? ORDER BY last_at LIMIT ?) RETURNING 1"
)
_ANSWERS: Final = (
    "DELETE FROM idempotency WHERE (scope, idempotency_key) IN "
    "(SELECT scope, idempotency_key FROM idempotency WHERE expires_at < ? ORDER BY expires_at LIMIT ?) RETURNING 1"
)


async def purge(store: Store, before: datetime, now: datetime) -> int:
    """Remove what is older than ``before``, and stored answers that have expired; returns how many calls went.

    A body goes when nothing that refers to it is younger than ``before``. Raises StoreError.
    """
    removed = await _delete(store, _CALLS, first_id("call", before))
    await _delete(store, _RUNS, epoch_ms(before))
    await _delete(store, _ANSWERS, epoch_ms(now))
    await _delete(store, _BLOBS, epoch_ms(before))
    return removed


async def _delete(store: Store, sql: str, limit: Value) -> int:
    def step(transaction: Transaction) -> int:
        return len(transaction.execute(sql, (limit, _STEP)))

    total = 0
    while True:
        count = await store.write(step)
        total += count
        if count < _STEP:
            return total
