"""Making, rotating and revoking virtual keys; and the ring of this process kept in step with the store.

What this process changes holds in it at once; what another process changes on the same database, within half a
second: the version of the keys is looked at three times a second. If it cannot be read for ten seconds no stored key is
trusted any more, since one of them may have been revoked (law 7). The key itself is told once, to whoever made it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import msgspec

from nightkeep.control.key_rows import (
    SELECT_KEYS,
    SELECT_VERSION,
    KeyEvent,
    StoredKey,
    add_key,
    find_keys,
    no_key,
    note_use,
    read_event,
    read_key,
    replace_key,
    revoke_key,
    select_log,
)
from nightkeep.control.key_text import KEY_PREFIX, Entropy, make_secret
from nightkeep.control.keys import NO_LIMITS, KeyLimits, KeyRing, hash_key
from nightkeep.core.clock import Clock, Randomness, new_id
from nightkeep.core.errors import ConflictError, RequestError, StoreError
from nightkeep.core.scope import parse_scope
from nightkeep.store.port import Store, Transaction

__all__ = ["KeyStore", "KeyWish", "MadeKey"]

OVERLAP: Final = timedelta(hours=24)
"""How long a rotated key goes on unless it is said: a day, so that every client can be restarted in daylight."""

_LOG: Final = logging.getLogger("nightkeep.keys")
_LOOK_S: Final = 0.3
_TRUSTED_S: Final = 10.0
_USE_NOTED_S: Final = 60.0
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}\Z")  # as config_models.Name
_GLOB: Final = re.compile(r"[\x21-\x7e]{1,200}\Z")
_MOST_LISTED: Final = 100


class KeyWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody wants a key to be."""

    name: str
    scope: str
    models: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    default_tag: str | None = None
    limits: KeyLimits = NO_LIMITS
    expires_at: datetime | None = None
    why: str = ""


class MadeKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new key: its text, which is told once, and what is kept of it."""

    key: str
    about: StoredKey


class KeyStore:
    """Keeps the virtual keys of a store, and one ring in step with them."""

    def __init__(self, store: Store, ring: KeyRing, clock: Clock, randomness: Randomness, entropy: Entropy) -> None:
        self.ring = ring
        self.keys: tuple[StoredKey, ...] = ()
        self._store = store
        self._clock = clock
        self._randomness = randomness
        self._entropy = entropy
        self._version: int | None = None
        self._turn = asyncio.Lock()  # one reading at a time: an older one must not overtake a newer
        self._looked = clock.monotonic()
        self._used: dict[str, datetime] = {}
        self._noted: dict[str, float] = {}
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read the keys. Raises StoreError: without them nobody may be served."""
        await self._read()

    def start(self) -> None:
        """Begin to look for what other processes change."""
        self._watching = asyncio.ensure_future(self._watch())

    async def close(self) -> None:
        """Stop looking, and keep when the keys were last used."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        self._gather_use()
        self._keep_use(self._used)

    def find(self, wanted: str) -> list[StoredKey]:
        """The keys behind a name, id or fingerprint, newest first. Raises RequestError (404): none."""
        found = find_keys(self.keys, wanted)
        if not found:
            raise no_key(wanted, self.keys)
        return found

    async def log(self, keys: Iterable[StoredKey]) -> list[KeyEvent]:
        """What was done to keys, oldest first. Raises StoreError."""
        return [read_event(row) for row in await self._store.read(*select_log([key.id for key in keys]))]

    async def create(self, wish: KeyWish, by: str) -> MadeKey:
        """Make a key.

        Raises:
            RequestError: the wish is not possible.
            ConflictError: the name is taken.
            StoreError: it could not be written; then there is no such key.
        """
        now = self._clock.now()
        _check(wish, now)
        if self.ring.has_configured(wish.name):
            raise ConflictError(f"there is a key {wish.name!r} in the settings file already; take another name")
        made = self._make(wish, by, now, rotated_from=None)
        await self._store.write(lambda transaction: add_key(transaction, made.about, wish.why, now))
        await self._take_change()
        return made

    async def rotate(
        self, wanted: str, by: str, *, overlap: timedelta = OVERLAP, expires_at: datetime | None = None, why: str = ""
    ) -> MadeKey:
        """Make a new key in the place of one, which stays good for ``overlap``. It lives as long as the old one did.

        Raises:
            RequestError: there is no such key, it is over, or the times are not possible.
            ConflictError: somebody else rotated or revoked it.
        """
        now = self._clock.now()
        if not timedelta(0) <= overlap <= timedelta(days=90):
            raise RequestError("the overlap is at most 90 days")
        old = next((key for key in self.find(wanted) if key.state(now) == "active"), None)
        if old is None:
            raise RequestError(f"key {wanted[:80]!r} is over; make a new one with: nightkeep keys create", status=409)
        if expires_at is None and old.expires_at is not None:
            expires_at = now + (old.expires_at - old.created_at)
        wish = KeyWish(
            name=old.name,
            scope=old.scope,
            models=old.models,
            tags=old.tags,
            default_tag=old.default_tag,
            limits=old.limits,
            expires_at=expires_at,
        )
        _check(wish, now)
        made = self._make(wish, by, now, rotated_from=old.id)
        ends_at = now + overlap if old.expires_at is None else min(old.expires_at, now + overlap)
        await self._store.write(lambda transaction: replace_key(transaction, old, made.about, ends_at, why, now))
        await self._take_change()
        return made

    async def revoke(self, wanted: str, by: str, why: str = "") -> list[StoredKey]:
        """End keys at once: all of a name, or the one of an id or a fingerprint. Those that were good until now.

        Raises:
            RequestError: there is no such key.
        """
        now = self._clock.now()
        found = self.find(wanted)

        def work(transaction: Transaction) -> None:
            for key in found:
                revoke_key(transaction, key, by, why, now)

        await self._store.write(work)
        await self._take_change()
        return [key for key in found if key.is_good(now)]

    def _make(self, wish: KeyWish, by: str, now: datetime, *, rotated_from: str | None) -> MadeKey:
        text = make_secret(KEY_PREFIX, self._entropy)
        digest = hash_key(text)
        about = StoredKey(
            id=new_id("key", now, self._randomness),
            name=wish.name,
            scope=parse_scope(wish.scope),
            hash=digest,
            fingerprint=f"#{digest.removeprefix('sha256:')[:8]}",
            models=wish.models,
            tags=wish.tags,
            default_tag=wish.default_tag,
            limits=wish.limits,
            created_at=now,
            created_by=by[:80],
            expires_at=wish.expires_at,
            rotated_from=rotated_from,
        )
        return MadeKey(key=text, about=about)

    # -- in step with the store

    async def look(self) -> None:
        """Take what was changed since the last look, here or in another process."""
        try:
            if await self._current_version() != self._version:
                await self._read()
            self._looked = self._clock.monotonic()
            self.ring.trust_stored()
        except StoreError as error:
            if self._clock.monotonic() - self._looked >= _TRUSTED_S:
                self.ring.distrust_stored(error.message)
                _LOG.error("the virtual keys cannot be read, so no stored key is trusted: %s", error.message)

    async def _take_change(self) -> None:
        """What was written holds here before anybody is told; where it cannot be read back, no stored key holds."""
        try:
            await self._read()
        except StoreError as error:
            self._version = None
            self.ring.distrust_stored(error.message)
            _LOG.error("the virtual keys cannot be read, so no stored key is trusted: %s", error.message)

    async def _read(self) -> None:
        async with self._turn:
            version = await self._current_version()  # before the rows: at worst they are read once more
            rows = await self._store.read(SELECT_KEYS)
            self.keys = tuple(read_key(row) for row in rows)
            self.ring.take_stored(key.spec for key in self.keys)
            self._version = version

    async def _current_version(self) -> int:
        rows = await self._store.read(SELECT_VERSION)
        return int(rows[0][0] or 0)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.look()
            self.note_use()

    def note_use(self) -> None:
        """Keep when keys were last used: at most once a minute for each, beside the work."""
        self._gather_use()
        now = self._clock.monotonic()
        due = {
            key: at for key, at in self._used.items() if now - self._noted.get(key, now - _USE_NOTED_S) >= _USE_NOTED_S
        }
        self._keep_use(due)
        for key in due:
            self._noted[key] = now
            del self._used[key]

    def _gather_use(self) -> None:
        self._used |= self.ring.drain_used()

    def _keep_use(self, used: dict[str, datetime]) -> None:
        if used:
            rows = list(used.items())
            self._store.post(lambda transaction: note_use(transaction, rows))


def _check(wish: KeyWish, now: datetime) -> None:
    """Raise RequestError where a key cannot be as it is wished."""
    if not _NAME.match(wish.name):
        raise RequestError(f"{wish.name[:40]!r} is no name of a key: use up to 80 letters, digits, '.', '_' and '-'")
    parse_scope(wish.scope)
    _check_list("models", wish.models, _GLOB)
    _check_list("tags", wish.tags, _NAME)
    if wish.default_tag is not None:
        _check_list("default_tag", (wish.default_tag,), _NAME)
        if wish.tags and wish.default_tag not in wish.tags:
            raise RequestError(f"the default tag {wish.default_tag!r} is not among the tags that the key may claim")
    for name in KeyLimits.__struct_fields__:
        value = getattr(wish.limits, name)
        if value is not None and not 0 < value <= 10**15:
            raise RequestError(f"limits.{name} is a positive whole number, not {value}")
    if wish.expires_at is not None:
        if wish.expires_at.tzinfo is None:
            raise RequestError("expires_at needs a time zone, for example 2027-01-31T00:00:00Z")
        if wish.expires_at <= now:
            raise RequestError(f"expires_at is over: {wish.expires_at.isoformat()}")


def _check_list(what: str, values: Iterable[str], form: re.Pattern[str]) -> None:
    listed = list(values)
    wrong = [value for value in listed if not form.match(value)]
    if wrong or len(listed) > _MOST_LISTED:
        raise RequestError(f"{what}: {wrong[0][:40]!r} is not possible" if wrong else f"{what}: over {_MOST_LISTED}")
