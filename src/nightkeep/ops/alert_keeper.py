"""Writes episodes down, a moment after they change; what the store does not take waits in memory and is tried again."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from nightkeep.ops.alert_episodes import Episode
from nightkeep.ops.alert_rows import row_of, write_episodes
from nightkeep.store.port import Store

__all__ = ["AlertKeeper"]

log = logging.getLogger("nightkeep.alerts")

_SAVE_S: Final = 0.05
_RETRY_S: Final = 1.0


class AlertKeeper:
    """Keeps episodes. For one event loop."""

    def __init__(self, store: Store) -> None:
        self.unsaved: dict[str, Episode] = {}  # by id
        self._store = store
        self._saving: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def save_soon(self, episode: Episode) -> None:
        """Write an episode within a moment. Neither waits nor raises."""
        self.unsaved[episode.id] = episode
        if self._timer is None and not self._is_closed:
            self._timer = asyncio.get_running_loop().call_later(_SAVE_S, self._save)

    async def save_now(self, episode: Episode) -> None:
        """Write an episode and wait until it is durable. Raises StoreError."""
        row = row_of(episode)
        await self._store.write(lambda transaction: write_episodes(transaction, [row]))

    async def save_all(self) -> None:
        """Write what is not written; a store that fails has been reported."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for _ in range(2):
            if self._saving is None:
                self._save()
            if self._saving is not None:
                await asyncio.wait([self._saving])
                await asyncio.sleep(0)  # its callbacks

    async def close(self) -> None:
        """Write a last time."""
        self._is_closed = True
        await self.save_all()

    def _save(self) -> None:
        self._timer = None
        if self._saving is not None or not self.unsaved:
            return
        episodes, self.unsaved = self.unsaved, {}
        values = [row_of(episode) for episode in episodes.values()]
        self._saving = self._store.write(lambda transaction: write_episodes(transaction, values))
        self._saving.add_done_callback(lambda future: self._saved(episodes, future))

    def _saved(self, episodes: dict[str, Episode], future: asyncio.Future[Any]) -> None:
        self._saving = None
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is not None:
            log.error("%d alerts cannot be written down now and are kept in memory: %s", len(episodes), error)
            self.unsaved = {**episodes, **self.unsaved}
        if self.unsaved and self._timer is None and not self._is_closed:
            delay_s = _SAVE_S if error is None else _RETRY_S
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._save)
