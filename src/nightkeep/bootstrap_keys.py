"""From settings and the data directory to the virtual keys and the operator's authority of a running gateway."""

from __future__ import annotations

import random
import secrets
from pathlib import Path

from nightkeep.bootstrap_pools import key_specs
from nightkeep.config import Settings
from nightkeep.control.key_store import KeyStore
from nightkeep.control.keys import KeyRing
from nightkeep.control.operator import obtain_token
from nightkeep.core.clock import Clock
from nightkeep.core.errors import ConfigError
from nightkeep.server.api import Route
from nightkeep.server.api_keys import key_operations
from nightkeep.server.operators import Operators
from nightkeep.store.port import Store

__all__ = ["Authority", "check_exposure", "open_authority"]

_LOCAL = frozenset({"127.0.0.1", "::1", "localhost"})


class Authority:
    """Who may use and who may change a gateway."""

    def __init__(self, ring: KeyRing, keys: KeyStore, operators: Operators, clock: Clock) -> None:
        self.ring = ring
        self.keys = keys
        self.operators = operators
        self._clock = clock

    def configure(self, settings: Settings) -> None:
        """Take new settings."""
        self.ring.configure(key_specs(settings), settings.gateway.require_key)

    def operations(self) -> list[Route]:
        """What the API offers of it."""
        return key_operations(self.keys, self._clock.now)

    async def close(self) -> None:
        """Keep what is to be kept; before the store closes."""
        await self.keys.close()


async def open_authority(store: Store, data: Path, settings: Settings, clock: Clock) -> Authority:
    """Read the keys and the token; made at the first start.

    Raises:
        ConfigError: others could reach the gateway, and there is no key.
        StoreError: the keys or the token cannot be read.
    """
    ring = KeyRing(key_specs(settings), settings.gateway.require_key)
    keys = KeyStore(store, ring, clock, random.SystemRandom(), secrets.token_bytes)
    await keys.open()
    check_exposure(settings, has_stored_keys=bool(keys.keys))
    operators = Operators(
        obtain_token(data, secrets.token_bytes), ring, clock.now, is_local=settings.gateway.host in _LOCAL
    )
    keys.start()
    return Authority(ring, keys, operators, clock)


def check_exposure(settings: Settings, *, has_stored_keys: bool) -> None:
    """A gateway that others can reach asks for keys, unless its operator says otherwise. Raises ConfigError."""
    gateway = settings.gateway
    if settings.keys or has_stored_keys or gateway.require_key == "never":
        return
    is_local = gateway.host in _LOCAL
    if is_local and gateway.require_key == "auto":
        return
    what = (
        f"gateway.host is {gateway.host!r} and there is no virtual key: anybody who reaches it could spend your money"
    )
    if is_local:
        what = "gateway.require_key is 'always' and there is no virtual key: nobody could be served"
    raise ConfigError(
        what,
        setting="gateway.require_key" if is_local else "gateway.host",
        fix="make a key with 'nightkeep keys create' or under [keys], listen on 127.0.0.1, or set "
        "gateway.require_key = 'never'",
    )
