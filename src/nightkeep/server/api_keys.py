"""Virtual keys at the API: made, shown, rotated and revoked by the operator; and what a caller may know of itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec

from nightkeep.control.key_rows import KeyEvent, KeyView, view_of
from nightkeep.control.key_store import KeyStore, KeyWish, MadeKey
from nightkeep.control.keys import NO_LIMITS, KeyLimits
from nightkeep.server.api import Route
from nightkeep.server.operators import Asker

__all__ = ["KeyEndpoints", "KeyPage", "Keys", "Me", "NewKey", "Reason", "Rotation", "key_operations"]


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """Virtual keys that were made here; the configured ones stand in the settings file."""

    keys: list[KeyView]


class KeyPage(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of a name, and what was done to them."""

    keys: list[KeyView]
    log: list[KeyEvent] = []


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was just made. Its text is told here, once, and kept nowhere."""

    key: str
    about: KeyView
    is_first: bool = False  # before it, everybody who could connect was served


class Rotation(msgspec.Struct, frozen=True, kw_only=True):
    """How long the old key stays good, and until when the new one is."""

    overlap_s: int = 86_400
    expires_at: datetime | None = None
    why: str = ""


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """The reason for a change, kept with it."""

    why: str = ""


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """The keys that were good until now."""

    revoked: list[KeyView]


class Me(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller may know of itself. An empty name: an open gateway, or the operator."""

    name: str = ""
    scope: str = ""
    is_operator: bool = False
    models: tuple[str, ...] = ()  # empty: all
    tags: tuple[str, ...] = ()  # empty: all
    default_tag: str | None = None
    limits: KeyLimits = NO_LIMITS
    expires_at: datetime | None = None


def key_operations(keys: KeyStore, now: Callable[[], datetime]) -> list[Route]:
    """The operations on keys."""
    api = KeyEndpoints(keys, now)
    return [
        Route(method="GET", path="/api/me", summary="Who you are here, and what your key allows", handler=api.show_me,
              gives=Me, needs="key", takes_asker=True),
        _route("GET", "/api/keys", "The virtual keys", api.list_keys, Keys),
        _route("GET", "/api/keys/{key}", "The keys of a name, id or fingerprint", api.show_key, KeyPage),
        _route("POST", "/api/keys", "Make a key; its text is in the answer, once", api.create_key, NewKey, KeyWish),
        _route("POST", "/api/keys/{key}/rotate", "Put a new key in a key's place", api.rotate_key, NewKey, Rotation),
        _route("POST", "/api/keys/{key}/revoke", "End keys at once", api.revoke_key, Revoked, Reason),
    ]  # fmt: skip


def _route(method: str, path: str, summary: str, handler: Any, gives: Any, takes: Any = None) -> Route:
    return Route(method=method, path=path, summary=summary, handler=handler, gives=gives, takes=takes)


class KeyEndpoints:
    """One method for each operation, for the API and for the command line where no gateway runs."""

    def __init__(self, keys: KeyStore, now: Callable[[], datetime]) -> None:
        self._keys = keys
        self._now = now

    async def show_me(self, asker: Asker) -> Me:
        caller = asker.caller
        if caller is None:
            return Me(scope="/", is_operator=asker.is_operator)
        return Me(
            name=caller.name,
            scope=caller.scope,
            models=caller.models,
            tags=caller.tags,
            default_tag=caller.default_tag,
            limits=caller.limits,
            expires_at=caller.expires_at,
        )

    async def list_keys(self) -> Keys:
        return Keys(keys=[view_of(key, self._now()) for key in self._keys.keys])

    async def show_key(self, key: str) -> KeyPage:
        found = self._keys.find(key)
        return KeyPage(keys=[view_of(each, self._now()) for each in found], log=await self._keys.log(found))

    async def create_key(self, body: KeyWish) -> NewKey:
        is_first = not self._keys.ring.has_keys
        made = await self._keys.create(body, _WHO)
        return self._told(made, is_first=is_first)

    async def rotate_key(self, key: str, body: Rotation) -> NewKey:
        overlap = timedelta(seconds=min(max(body.overlap_s, -1), 10**9))
        made = await self._keys.rotate(key, _WHO, overlap=overlap, expires_at=body.expires_at, why=body.why)
        return self._told(made)

    async def revoke_key(self, key: str, body: Reason) -> Revoked:
        ended = await self._keys.revoke(key, _WHO, body.why)
        found = {each.id: each for each in self._keys.keys}
        return Revoked(revoked=[view_of(found.get(each.id, each), self._now()) for each in ended])

    def _told(self, made: MadeKey, *, is_first: bool = False) -> NewKey:
        return NewKey(key=made.key, about=view_of(made.about, self._now()), is_first=is_first)


_WHO = "operator"
