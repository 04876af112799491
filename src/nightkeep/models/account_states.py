"""Account states on disk, so that a restart goes on where it stood (suspended stays suspended).

What changed is written in groups, at the latest half a second after it did, and at once when an account
changes its status. What a state means is ``models.account_book``'s business.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from nightkeep.core.clock import Clock
from nightkeep.core.errors import StoreError
from nightkeep.models.account_book import AccountBook, Change
from nightkeep.models.accounts import AccountChange
from nightkeep.store.port import Row, Store, Transaction

__all__ = ["AccountStates"]

log = logging.getLogger("nightkeep.accounts")

_EVERY_S = 0.5
_INTO = "INTO account_states (account, body, updated_at)"
_AFTER = "ON CONFLICT (account) DO UPDATE SET body = excluded.body, updated_at = excluded.updated_at"


class AccountStates:
    """Keeps the states of a book in a store."""

    def __init__(self, store: Store, book: AccountBook, clock: Clock, slot: int = 0) -> None:
        """``slot``: which of several workers this is; each keeps counters of its own."""
        self._suffix = f"@{slot}" if slot else ""
        self._store = store
        self._book = book
        self._clock = clock
        self._unsaved: list[dict[str, Any]] = []
        self._saving: asyncio.Task[None] | None = None

    async def restore(self) -> None:
        """Go on where the last process stood. Raises StoreError: without the states nothing may be served."""
        rows = await self._store.read("SELECT account, body FROM account_states ORDER BY updated_at")
        for name in self._book.restore(self._merged(rows)):
            log.info("account %s begins afresh: its key is another one, or it is gone from the settings", name)

    def _merged(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Each account's last status, whichever worker wrote it, with the counters of this worker. Oldest rows first.

        A status is the account's: one that was switched off stays so when there are more workers than before.
        """
        own, last = dict[str, dict[str, Any]](), dict[str, dict[str, Any]]()
        for name, body in rows:
            row = msgspec.json.decode(str(body), type=dict[str, Any])
            account, *whose = str(name).split("@", 1)
            last[account] = row
            if whose == [self._suffix[1:]] * bool(self._suffix):
                own[account] = row
        return [{**row, "quotas": own.get(account, {}).get("quotas", [])} for account, row in last.items()]

    def start(self) -> None:
        """Begin to save what changes."""
        self._saving = asyncio.ensure_future(self._save_on())

    def note(self, change: Change) -> None:
        """Save at once when an account changes its status."""
        if isinstance(change, AccountChange):
            # After the change is complete: listeners are told in the middle of it.
            asyncio.get_running_loop().call_soon(self.save)

    def save(self) -> None:
        """Write what changed since the last time; what the store does not take is kept for the next."""
        rows = self._unsaved + self._book.drain_dirty()
        if rows:
            self._unsaved = [] if self._store.post(self._work(rows)) else rows

    async def remember(self) -> None:
        """Write what changed and wait until it is on the disk: a suspension must outlive a crash in the next moment.

        A store that fails is reported and stops no call (law 7); what it did not take is kept for the next time.
        """
        rows = self._unsaved + self._book.drain_dirty()
        try:
            await self._store.write(self._work(rows))
            self._unsaved = []
        except StoreError as error:
            self._unsaved = rows
            log.error("account states cannot be written: %s", error)

    def _work(self, rows: list[dict[str, Any]]) -> Callable[[Transaction], None]:
        now_ms = int(self._clock.now().timestamp() * 1000)
        values = [(f"{row['account']}{self._suffix}", msgspec.json.encode(row).decode(), now_ms) for row in rows]

        def work(transaction: Transaction) -> None:
            if values:
                transaction.insert(_INTO, values, _AFTER)

        return work

    async def _save_on(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            self.save()

    def close(self) -> None:
        """Save a last time; the store writes it before it closes."""
        if self._saving is not None:
            self._saving.cancel()
        self.save()
