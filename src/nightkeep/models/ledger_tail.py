"""What other processes of one database spent just now: the rows they added to the ledger, about a second behind."""

from __future__ import annotations

from typing import Any, Final, cast

import msgspec

from nightkeep.core.clock import Clock
from nightkeep.store.port import Store

__all__ = ["LedgerTail", "SpentElsewhere"]

_NEW: Final = (
    "SELECT id, scope, run_id, asked, agent, key_name, at, ended_at, "
    "input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens, "
    "output_tokens + reasoning_tokens, cost_micro_usd FROM ledger "
    "WHERE at >= ? AND ended_at >= ? AND owner <> ? AND kind = 'attempt' ORDER BY ended_at LIMIT ?"
)
_LONGEST_CALL_MS: Final = 1_800_000
_LATE_MS: Final = 5_000  # a row may be written so long after its attempt has ended
_MOST: Final = 5_000


class SpentElsewhere(msgspec.Struct, frozen=True):
    """An attempt of another process. Times are seconds since 1970."""

    scope: str
    run: str | None
    asked: str
    agent: str
    key: str
    began: float
    ended: float
    input_tokens: int
    output_tokens: int
    cost: int  # micro-dollars


class LedgerTail:
    """Reads what was not read yet."""

    def __init__(self, store: Store, owner: str, clock: Clock) -> None:
        self._store = store
        self._owner = owner
        self._clock = clock
        self._since_ms = self._now_ms()
        self._seen: dict[str, int] = {}

    async def news(self) -> list[SpentElsewhere]:
        """What other processes have added since the last time. Raises StoreError."""
        since_ms = self._since_ms - _LATE_MS
        until_ms = self._now_ms()
        parameters = (since_ms - _LONGEST_CALL_MS, since_ms, self._owner, _MOST)
        rows = cast("list[tuple[Any, ...]]", await self._store.read(_NEW, parameters))
        fresh = [row for row in rows if row[0] not in self._seen]
        self._seen.update({row[0]: row[7] for row in fresh})
        self._since_ms = until_ms if len(rows) < _MOST else rows[-1][7]
        before_ms = self._since_ms - _LATE_MS
        self._seen = {each: ended_ms for each, ended_ms in self._seen.items() if ended_ms >= before_ms}
        return [_spent(row) for row in fresh]

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def _spent(row: tuple[Any, ...]) -> SpentElsewhere:
    _, scope, run, asked, agent, key, at_ms, ended_ms, input_tokens, output_tokens, cost = row
    return SpentElsewhere(
        scope, run, asked, agent, key, at_ms / 1000, ended_ms / 1000, input_tokens, output_tokens, cost
    )
