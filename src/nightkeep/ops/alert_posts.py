"""Alerts between processes of one database: one of them tells people, the others put theirs in its letter box.

So an episode that every worker sees is told once, and one channel's hour is one hour, however many workers there are.
The table is ``alert_posts``; a post may be taken twice (after a crash), which counts an alert once more and no worse.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Literal, cast

import msgspec

from nightkeep.core.clock import Clock, Randomness, new_id
from nightkeep.ops.alert_episodes import Alert
from nightkeep.store.port import Store, Transaction

__all__ = ["LetterBox", "Post"]

log = logging.getLogger("nightkeep.alerts")

_MOST: Final = 500


class Post(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one process asks of the one that tells people."""

    act: Literal["raise", "resolve", "ack"]
    alert: Alert | None = None
    key: str = ""
    text: str = ""
    alert_id: str = ""
    by: str = ""
    why: str = ""


class LetterBox:
    """Puts posts in, and takes them out."""

    def __init__(self, store: Store, clock: Clock, randomness: Randomness) -> None:
        self._store = store
        self._clock = clock
        self._randomness = randomness
        self._waiting: set[asyncio.Future[None]] = set()

    def put(self, post: Post) -> None:
        """Put a post in. Neither waits nor raises; what the store does not take is said aloud."""
        now = self._clock.now()
        row = (new_id("post", now, self._randomness), int(now.timestamp() * 1000), msgspec.json.encode(post).decode())

        def work(transaction: Transaction) -> None:
            transaction.insert("INTO alert_posts (id, at, body)", [row])

        writing = self._store.write(work)
        self._waiting.add(writing)
        writing.add_done_callback(self._written)

    def _written(self, writing: asyncio.Future[None]) -> None:
        self._waiting.discard(writing)
        error = None if writing.cancelled() else writing.exception()
        if error is not None:
            log.error("an alert did not reach the process that tells people: %s", error)

    async def flush(self) -> None:
        """Wait until what was put in is there, or could not be."""
        if self._waiting:
            await asyncio.wait(self._waiting)

    async def take(self) -> list[Post]:
        """Take out what is there, oldest first. Raises StoreError."""
        rows = await self._store.read("SELECT id, body FROM alert_posts ORDER BY id LIMIT ?", (_MOST,))
        if not rows:
            return []
        marks = ", ".join("?" * len(rows))
        ids = [row[0] for row in rows]
        await self._store.write(
            lambda transaction: transaction.execute(f"DELETE FROM alert_posts WHERE id IN ({marks})", ids)
        )
        return [msgspec.json.decode(cast("str", body), type=Post) for _, body in rows]
