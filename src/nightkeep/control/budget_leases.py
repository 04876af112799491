"""Budgets on disk: what is used in each window, and what each process has taken of it.

A process takes an amount durably, spends it in memory and gives the rest back. What a process held when it died stays
counted as spent until the ledger proves otherwise (``forgive``). Every statement adds to the row that it reads, in
one transaction, so that any number of processes may do so at once; SQL is what SQLite and PostgreSQL both read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from nightkeep.control.budget_grants import Grant, Room, Want, decide
from nightkeep.core.clock import Clock
from nightkeep.store.port import Store, Transaction

__all__ = ["BudgetLeases", "Drawn", "LostLease", "WindowKey", "WindowRow"]

_WHERE: Final = "scope = ? AND metric = ? AND period = ? AND window_start = ?"
_WANTED_S: Final = 3


class WindowKey(NamedTuple):
    """One budget in one window."""

    scope: str
    metric: str
    period: str
    start: int  # seconds since 1970; 0 where there is only one window


class Drawn(msgspec.Struct, frozen=True, gc=False):
    """What came of asking for more."""

    grant: Grant
    elsewhere: int  # spent for certain by others, what lost leases hold included
    lost: int  # held by leases of processes that died


class WindowRow(msgspec.Struct, frozen=True):
    """A window as it is stored."""

    key: WindowKey
    used: int
    unspent: int  # held by the leases of living processes, by what they last told
    lost: int


class LostLease(msgspec.Struct, frozen=True):
    """What a process that died had taken."""

    owner: str
    key: WindowKey
    amount: int
    spent: int
    lost_ms: int  # when it was known that the process is dead, in ms since 1970


class BudgetLeases:
    """The leases of one process."""

    def __init__(self, store: Store, owner: str, clock: Clock) -> None:
        self._store = store
        self._owner = owner
        self._clock = clock

    def draw(
        self, key: WindowKey, kind: str, limit: int, wants: Sequence[Want], *, own_free: int, own_spent: int
    ) -> asyncio.Future[Drawn]:
        """Take what the waiting calls need, as far as there is room under ``limit``. Raises StoreError.

        ``own_free`` and ``own_spent`` are of this process's lease of the same kind.
        """
        now = int(self._clock.now().timestamp())

        def work(transaction: Transaction) -> Drawn:
            rows = transaction.execute(f"SELECT used FROM budget_windows WHERE {_WHERE}", key)
            if not rows:
                transaction.execute(
                    "INSERT INTO budget_windows (scope, metric, period, window_start, used) VALUES (?, ?, ?, ?, 0) "
                    "ON CONFLICT (scope, metric, period, window_start) DO NOTHING",
                    key,
                )
            used = int(rows[0][0] or 0) if rows else 0
            transaction.execute(
                f"UPDATE budget_leases SET spent = ? WHERE {_WHERE} AND owner = ? AND class = ?",
                (own_spent, *key, self._owner, kind),
            )
            unspent, lost, mine = transaction.execute(
                "SELECT COALESCE(SUM(CASE WHEN is_lost = 0 THEN amount - spent ELSE 0 END), 0), "
                "COALESCE(SUM(CASE WHEN is_lost = 1 THEN amount - spent ELSE 0 END), 0), "
                "COALESCE(SUM(CASE WHEN owner = ? THEN spent ELSE 0 END), 0) "
                f"FROM budget_leases WHERE {_WHERE}",
                (self._owner, *key),
            )[0]
            sure = used - int(unspent or 0)
            grant = decide(Room(free=limit - used, own=own_free, sure_left=limit - sure), wants)
            if grant.amount:
                self._add(transaction, key, kind, grant.amount)
            if not grant.can_serve and not grant.is_final:
                transaction.execute(f"UPDATE budget_windows SET wanted_at = ? WHERE {_WHERE}", (now, *key))
            return Drawn(grant, elsewhere=sure - int(mine or 0), lost=int(lost or 0))

        return self._store.write(work)

    def overdraw(self, key: WindowKey, kind: str, amount: int) -> None:
        """Write down that more was spent than was taken: the truth, even where it is above the limit."""
        self._store.write(lambda transaction: self._add(transaction, key, kind, amount)).add_done_callback(_heard)

    def give_back(self, key: WindowKey, kind: str, amount: int) -> None:
        """Return what was taken and not spent. The caller may not spend it any more."""
        self._store.write(lambda transaction: self._add(transaction, key, kind, -amount)).add_done_callback(_heard)

    async def correct(self, amounts: Sequence[tuple[WindowKey, int]]) -> None:
        """Add to what is used, in windows that somebody has used; for what a bill says otherwise. Raises StoreError."""

        def work(transaction: Transaction) -> None:
            for key, amount in amounts:
                transaction.execute(f"UPDATE budget_windows SET used = used + ? WHERE {_WHERE}", (amount, *key))

        await self._store.write(work)

    def _add(self, transaction: Transaction, key: WindowKey, kind: str, amount: int) -> None:
        transaction.execute(f"UPDATE budget_windows SET used = used + ? WHERE {_WHERE}", (amount, *key))
        transaction.execute(
            "INSERT INTO budget_leases (scope, metric, period, window_start, owner, class, amount, spent) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (scope, metric, period, window_start, owner, class) "
            "DO UPDATE SET amount = budget_leases.amount + excluded.amount",
            (*key, self._owner, kind, amount),
        )

    def tell_spent(self, rows: Sequence[tuple[WindowKey, str, int]]) -> asyncio.Future[None]:
        """Write down what is spent of each lease, by window and class."""

        def work(transaction: Transaction) -> None:
            for key, kind, spent in rows:
                transaction.execute(
                    f"UPDATE budget_leases SET spent = ? WHERE {_WHERE} AND owner = ? AND class = ?",
                    (spent, *key, self._owner, kind),
                )

        return self._store.write(work)

    def close_lease(self, key: WindowKey, kind: str, unspent: int) -> asyncio.Future[None]:
        """Give back the rest and end the lease: what was spent of it stays used."""

        def work(transaction: Transaction) -> None:
            transaction.execute(f"UPDATE budget_windows SET used = used - ? WHERE {_WHERE}", (unspent, *key))
            transaction.execute(
                f"DELETE FROM budget_leases WHERE {_WHERE} AND owner = ? AND class = ?", (*key, self._owner, kind)
            )

        return self._store.write(work)

    def claim_telling(self, key: WindowKey, percent: int) -> asyncio.Future[bool]:
        """Whether it is this process that tells of a threshold: the first to ask, once in each window."""

        def work(transaction: Transaction) -> bool:
            sql = f"UPDATE budget_windows SET told = ? WHERE {_WHERE} AND told < ? RETURNING 1"
            return bool(transaction.execute(sql, (percent, *key, percent)))

        return self._store.write(work)

    async def wanted(self) -> set[WindowKey]:
        """The windows in which some process found no room in the last seconds."""
        since = int(self._clock.now().timestamp()) - _WANTED_S
        rows = await self._store.read(
            "SELECT scope, metric, period, window_start FROM budget_windows WHERE wanted_at > ?", (since,)
        )
        return {_key(row) for row in rows}

    async def in_window(self, metric: str, period: str, start: int, *, most: int = 1_000) -> list[WindowRow]:
        """Every scope's row of one kind of window, the most used first."""
        rows = await self._store.read(
            "SELECT w.scope, w.metric, w.period, w.window_start, w.used, "
            "COALESCE(SUM(CASE WHEN l.is_lost = 0 THEN l.amount - l.spent ELSE 0 END), 0), "
            "COALESCE(SUM(CASE WHEN l.is_lost = 1 THEN l.amount - l.spent ELSE 0 END), 0) "
            "FROM budget_windows w LEFT JOIN budget_leases l ON l.scope = w.scope AND l.metric = w.metric "
            "AND l.period = w.period AND l.window_start = w.window_start "
            "WHERE w.metric = ? AND w.period = ? AND w.window_start = ? "
            "GROUP BY w.scope, w.metric, w.period, w.window_start, w.used ORDER BY w.used DESC LIMIT ?",
            (metric, period, start, most),
        )
        return [WindowRow(_key(row), *(int(value or 0) for value in row[4:7])) for row in rows]

    async def mark_lost(self, is_dead: Sequence[str] | None = None) -> int:
        """Mark the leases of processes that died: of ``is_dead``, or of everybody but this process (None)."""

        now_ms = int(self._clock.now().timestamp() * 1000)

        def work(transaction: Transaction) -> int:
            sql = "UPDATE budget_leases SET is_lost = 1, lost_at = ? WHERE is_lost = 0 AND "
            if is_dead is None:
                return len(transaction.execute(f"{sql} owner <> ? RETURNING 1", (now_ms, self._owner)))
            return sum(len(transaction.execute(f"{sql} owner = ? RETURNING 1", (now_ms, owner))) for owner in is_dead)

        return await self._store.write(work)

    async def lost(self) -> list[LostLease]:
        """What processes that died had taken."""
        rows = await self._store.read(
            "SELECT scope, metric, period, window_start, owner, amount, spent, lost_at FROM budget_leases "
            "WHERE is_lost = 1"
        )
        return [LostLease(str(row[4]), _key(row), *(int(value or 0) for value in row[5:8])) for row in rows]

    async def forgive(self, key: WindowKey, spent: int) -> None:
        """Settle every lost lease of a window: together they have really spent ``spent``. Safe to repeat."""

        def work(transaction: Transaction) -> None:
            rows = transaction.execute(
                f"DELETE FROM budget_leases WHERE {_WHERE} AND is_lost = 1 RETURNING amount", key
            )
            if rows:
                unspent = sum(int(row[0] or 0) for row in rows) - spent
                transaction.execute(f"UPDATE budget_windows SET used = used - ? WHERE {_WHERE}", (unspent, *key))

        await self._store.write(work)


def _key(row: Sequence[object]) -> WindowKey:
    return WindowKey(str(row[0]), str(row[1]), str(row[2]), int(str(row[3])))


def _heard(future: asyncio.Future[None]) -> None:
    """What the store does not take is said by the store itself; the amount stays counted as used, which is safe."""
    if not future.cancelled():
        future.exception()
