"""What one worker has learnt of an account, told to the others: suspended, without quota, switched off.

Counters stay each worker's own (each has its share of the limits); a status is the account's, whoever saw it first.
News are rows that are only added; each worker looks for those of the others a few times a second.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Final

import msgspec

from nightkeep.core.clock import Clock, Randomness, new_id
from nightkeep.core.errors import StoreError
from nightkeep.models.account_book import AccountBook, Change
from nightkeep.models.accounts import AccountChange, AccountState
from nightkeep.store.port import Store, Transaction

__all__ = ["AccountNews"]

log = logging.getLogger("nightkeep.accounts")

_LOOK_S: Final = 0.25
_BACK_MS: Final = 3_000  # news may be written a little after they are dated
_KEPT: Final = timedelta(hours=1)


class AccountNews:
    """Tells and hears. For one event loop."""

    def __init__(self, store: Store, book: AccountBook, owner: str, clock: Clock, randomness: Randomness) -> None:
        self._store = store
        self._book = book
        self._owner = owner
        self._clock = clock
        self._randomness = randomness
        self._seen: dict[str, int] = {}
        self._since = int(clock.now().timestamp() * 1000)
        self._listening: asyncio.Task[None] | None = None

    def note(self, change: Change) -> None:
        """Tell the others when an account changes its status."""
        if not isinstance(change, AccountChange):
            return
        # After the change is complete: listeners are told in the middle of it.
        asyncio.get_running_loop().call_soon(self._tell, change.account)

    def _tell(self, account: str) -> None:
        found = self._book.state_of(account)
        if found is None:
            return
        fingerprint, state = found
        now = self._clock.now()
        row = (
            new_id("news", now, self._randomness),
            int(now.timestamp() * 1000),
            self._owner,
            account,
            fingerprint,
            msgspec.json.encode(state).decode(),
        )
        into = "INTO account_news (id, at, owner, account, key_fingerprint, state)"
        self._store.post(lambda transaction: transaction.insert(into, [row]))

    def start(self) -> None:
        """Begin to listen."""
        self._listening = asyncio.ensure_future(self._listen_on())

    async def _listen_on(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self.listen()
            except StoreError as error:
                log.warning("what other workers know of accounts cannot be read: %s", error)

    async def listen(self) -> None:
        """Take what the others have told since the last time. Raises StoreError."""
        rows = await self._store.read(
            "SELECT id, at, account, key_fingerprint, state FROM account_news WHERE at > ? AND owner <> ? ORDER BY id",
            (self._since - _BACK_MS, self._owner),
        )
        for name, at, account, fingerprint, state in rows:
            if str(name) in self._seen:
                continue
            self._seen[str(name)] = int(at or 0)
            self._since = max(self._since, int(at or 0))
            self._book.adopt(str(account), str(fingerprint), msgspec.json.decode(str(state), type=AccountState))
        self._seen = {name: at for name, at in self._seen.items() if at > self._since - 2 * _BACK_MS}

    async def close(self) -> None:
        """Stop, and take away old news."""
        if self._listening is not None:
            self._listening.cancel()
        before = int((self._clock.now() - _KEPT).timestamp() * 1000)

        def work(transaction: Transaction) -> None:
            transaction.execute("DELETE FROM account_news WHERE at < ?", (before,))

        self._store.post(work)
