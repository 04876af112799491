"""The processes that work, or have worked, on one database: who is there, and who did not end in order."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from nightkeep.core.clock import Clock
from nightkeep.store.port import Store, Transaction

__all__ = ["OwnerView", "Owners"]


class OwnerView(msgspec.Struct, frozen=True, kw_only=True):
    """One process."""

    id: str
    slot: int
    pid: int
    started_at: datetime


class Owners:
    """The table of processes. A slot is a worker's place, from 0; a single process has slot 0."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)

    async def begin(self, owner: str, slot: int, pid: int) -> None:
        """A process begins. Raises StoreError."""
        row = (owner, slot, pid, self._now_ms())
        await self._store.write(lambda t: t.insert("INTO owners (id, slot, pid, started_at)", [row]))

    async def end(self, owner: str, how: str) -> None:
        """A process has ended. Raises StoreError."""
        values = (self._now_ms(), how, owner)
        sql = "UPDATE owners SET ended_at = ?, how = ? WHERE id = ? AND ended_at IS NULL"
        await self._store.write(lambda transaction: transaction.execute(sql, values))

    async def bury_all(self, but: str = "") -> int:
        """Nobody else is there (the directory is ours): who has no end died. Returns how many. Raises StoreError."""
        values = (self._now_ms(), but)

        def work(transaction: Transaction) -> int:
            sql = "UPDATE owners SET ended_at = ?, how = 'died' WHERE ended_at IS NULL AND id <> ? RETURNING 1"
            return len(transaction.execute(sql, values))

        return await self._store.write(work)

    async def living(self) -> list[OwnerView]:
        """Who is there. Raises StoreError."""
        rows = await self._store.read("SELECT id, slot, pid, started_at FROM owners WHERE ended_at IS NULL")
        return [
            OwnerView(
                id=str(row[0]),
                slot=int(row[1] or 0),
                pid=int(row[2] or 0),
                started_at=datetime.fromtimestamp(int(row[3] or 0) / 1000, UTC),
            )
            for row in sorted(rows, key=lambda row: int(row[1] or 0))
        ]
