"""Virtual keys without a running gateway: the command opens the data directory itself, and owns it for a moment."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from nightkeep.control.key_store import KeyStore, KeyWish
from nightkeep.control.keys import KeyRing
from nightkeep.core.errors import ConflictError
from nightkeep.server.api_keys import KeyEndpoints, Reason, Rotation
from nightkeep.store.sqlite import DATABASE_NAME, SqliteStore

__all__ = ["perform"]


def perform(directory: Path, operation: str, key: str, body: dict[str, Any], url: str) -> Any:
    """Do what the API's operation of this name does; its answer as plain values.

    Raises:
        ConflictError: a gateway owns the directory, or the name is taken.
        NightkeepError: the operation is refused.
    """
    if operation in ("list_keys", "show_key") and not (directory / DATABASE_NAME).exists():
        return {"keys": []}
    return asyncio.run(_perform(directory, operation, key, body, url))


async def _perform(directory: Path, operation: str, key: str, body: dict[str, Any], url: str) -> Any:
    clock = _SystemClock()
    try:
        store = SqliteStore.open(directory, clock, pid=os.getpid())
    except ConflictError as error:
        raise ConflictError(
            f"process {error.data.get('pid') or 'unknown'} runs a gateway on {directory} and does not answer at {url}; "
            "name its address with --url"
        ) from error
    try:
        keys = KeyStore(store, KeyRing(), clock, random.SystemRandom(), secrets.token_bytes)
        await keys.open()
        answer = await _operation(KeyEndpoints(keys, clock.now), operation, key, body)()
        return msgspec.to_builtins(answer)
    finally:
        await store.close()


def _operation(api: KeyEndpoints, name: str, key: str, body: dict[str, Any]) -> Callable[[], Awaitable[Any]]:
    return {
        "list_keys": api.list_keys,
        "show_key": lambda: api.show_key(key),
        "create_key": lambda: api.create_key(msgspec.convert(body, KeyWish)),
        "rotate_key": lambda: api.rotate_key(key, msgspec.convert(body, Rotation)),
        "revoke_key": lambda: api.revoke_key(key, msgspec.convert(body, Reason)),
    }[name]


class _SystemClock:
    """The machine's clock: a command is its own composition root."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()
