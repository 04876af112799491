"""Virtual keys as rows: what is kept of one, how it is read, and what each change writes.

The changes are pieces of work for the store's writer (``store.port.Work``), so that the check of a rule and the write
behind it are one transaction. Never kept: the key itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from nightkeep.control.keys import NO_LIMITS, KeyLimits, KeySpec
from nightkeep.core.errors import ConflictError, RequestError
from nightkeep.store.port import Row, Transaction, Value

__all__ = [
    "SELECT_KEYS",
    "SELECT_VERSION",
    "KeyEvent",
    "KeyState",
    "KeyView",
    "StoredKey",
    "add_key",
    "find_keys",
    "no_key",
    "note_use",
    "read_event",
    "read_key",
    "replace_key",
    "revoke_key",
    "select_log",
    "view_of",
]

_COLUMNS: Final = (
    "id, name, scope, hash, fingerprint, models, tags, default_tag, limits, created_at, created_by, expires_at, "
    "revoked_at, rotated_from, replaced_by, last_used_at"
)
SELECT_KEYS: Final = f"SELECT {_COLUMNS} FROM keys ORDER BY id"
SELECT_VERSION: Final = "SELECT MAX(n) FROM key_log"
_CURRENT: Final = "revoked_at IS NULL AND replaced_by IS NULL"

KeyState = Literal["active", "replaced", "expired", "revoked"]
"""``replaced``: rotated, and still good until its overlap ends."""


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a key."""

    id: str
    name: str
    scope: str
    hash: str
    fingerprint: str  # "#" and the first 8 digits of the hash
    models: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    default_tag: str | None = None
    limits: KeyLimits = NO_LIMITS
    created_at: datetime
    created_by: str = ""
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    rotated_from: str | None = None
    replaced_by: str | None = None
    last_used_at: datetime | None = None

    def state(self, now: datetime) -> KeyState:
        """What the key is at a moment."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and now >= self.expires_at:
            return "expired"
        return "active" if self.replaced_by is None else "replaced"

    def is_good(self, now: datetime) -> bool:
        """Whether it is accepted."""
        return self.state(now) in ("active", "replaced")

    @property
    def spec(self) -> KeySpec:
        """For the ring."""
        return KeySpec(
            id=self.id,
            name=self.name,
            scope=self.scope,
            hash=self.hash,
            models=self.models,
            tags=self.tags,
            default_tag=self.default_tag,
            limits=self.limits,
            expires_at=self.expires_at,
            revoked_at=self.revoked_at,
        )


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is shown: everything but its hash."""

    id: str
    name: str
    state: KeyState
    scope: str
    fingerprint: str
    models: tuple[str, ...]
    tags: tuple[str, ...]
    default_tag: str | None
    limits: KeyLimits
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    rotated_from: str | None
    replaced_by: str | None
    last_used_at: datetime | None


class KeyEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What was done to a key."""

    at: datetime
    key_id: str
    verb: str  # created | rotated (it was made in the place of another) | revoked
    by: str
    why: str


def select_log(key_ids: Sequence[str]) -> tuple[str, list[Value]]:
    """The query for what was done to keys, oldest first; its rows are ``read_event``'s."""
    marks = ", ".join("?" * len(key_ids))
    return f"SELECT at, key_id, verb, by_whom, why FROM key_log WHERE key_id IN ({marks}) ORDER BY n", [*key_ids]


def read_event(row: Row) -> KeyEvent:
    """A row of ``select_log``."""
    at = _moment(row[0])
    assert at is not None
    return KeyEvent(at=at, key_id=str(row[1]), verb=str(row[2]), by=str(row[3]), why=str(row[4]))


def view_of(key: StoredKey, now: datetime) -> KeyView:
    """A key as it is shown at a moment."""
    fields = {name: getattr(key, name) for name in StoredKey.__struct_fields__ if name != "hash"}
    return KeyView(state=key.state(now), **fields)


def find_keys(keys: Sequence[StoredKey], wanted: str) -> list[StoredKey]:
    """The keys that a name, an id or a fingerprint stands for, newest first."""
    found = [key for key in keys if wanted in (key.name, key.id, key.fingerprint, key.fingerprint[1:])]
    return sorted(found, key=lambda key: key.id, reverse=True)


def no_key(wanted: str, keys: Sequence[StoredKey]) -> RequestError:
    """There is no such key."""
    names = ", ".join(dict.fromkeys(key.name for key in keys[:20]))
    return RequestError(f"there is no key {wanted[:80]!r}; there are: {names or 'none'}", status=404)


def read_key(row: Row) -> StoredKey:
    """A row of ``SELECT_KEYS``."""
    texts = [None if value is None else str(value) for value in row]
    times = [_moment(row[n]) for n in (9, 11, 12, 15)]
    created_at = times[0]
    assert created_at is not None
    return StoredKey(
        id=str(row[0]),
        name=str(row[1]),
        scope=str(row[2]),
        hash=str(row[3]),
        fingerprint=str(row[4]),
        models=msgspec.json.decode(str(row[5]), type=tuple[str, ...]),
        tags=msgspec.json.decode(str(row[6]), type=tuple[str, ...]),
        default_tag=texts[7],
        limits=msgspec.json.decode(str(row[8]), type=KeyLimits),
        created_at=created_at,
        created_by=str(row[10]),
        expires_at=times[1],
        revoked_at=times[2],
        rotated_from=texts[13],
        replaced_by=texts[14],
        last_used_at=times[3],
    )


def add_key(transaction: Transaction, key: StoredKey, why: str, now: datetime) -> None:
    """Write a new key. Raises ConflictError: its name is taken by one that is good."""
    _let_go(transaction, key.name, now)
    if transaction.execute(f"SELECT id FROM keys WHERE name = ? AND {_CURRENT}", [key.name]):
        raise ConflictError(
            f"there is a key {key.name!r} already; rotate it (nightkeep keys rotate {key.name}), revoke it, or take "
            "another name"
        )
    _insert(transaction, key)
    _note(transaction, "created", key.id, key.created_by, why, now)


def replace_key(
    transaction: Transaction, old: StoredKey, new: StoredKey, old_ends_at: datetime, why: str, now: datetime
) -> None:
    """Put a new key in the place of an old one, which ends later. Raises ConflictError: somebody else was first."""
    if not transaction.execute(f"SELECT id FROM keys WHERE id = ? AND {_CURRENT}", [old.id]):
        raise ConflictError(f"key {old.name!r} was rotated or revoked by somebody else a moment ago; look again")
    transaction.execute(
        "UPDATE keys SET replaced_by = ?, expires_at = ? WHERE id = ?", [new.id, _ms(old_ends_at), old.id]
    )
    _insert(transaction, new)
    _note(transaction, "rotated", new.id, new.created_by, why, now)


def revoke_key(transaction: Transaction, key: StoredKey, by: str, why: str, now: datetime) -> bool:
    """End a key at once; False where it was revoked before."""
    if not transaction.execute("SELECT id FROM keys WHERE id = ? AND revoked_at IS NULL", [key.id]):
        return False
    transaction.execute("UPDATE keys SET revoked_at = ? WHERE id = ?", [_ms(now), key.id])
    _note(transaction, "revoked", key.id, by, why, now)
    return True


def note_use(transaction: Transaction, used: Sequence[tuple[str, datetime]]) -> None:
    """Keep when keys were last used."""
    for key_id, at in used:
        transaction.execute("UPDATE keys SET last_used_at = ? WHERE id = ?", [_ms(at), key_id])


def _let_go(transaction: Transaction, name: str, now: datetime) -> None:
    """A key that expired gives its name back."""
    transaction.execute(
        f"UPDATE keys SET revoked_at = expires_at WHERE name = ? AND {_CURRENT} AND expires_at <= ?", [name, _ms(now)]
    )


def _insert(transaction: Transaction, key: StoredKey) -> None:
    values: list[Value] = [
        *(key.id, key.name, key.scope, key.hash, key.fingerprint),
        *(msgspec.json.encode(each).decode() for each in (key.models, key.tags)),
        key.default_tag,
        msgspec.json.encode(key.limits).decode(),
        *(_ms(key.created_at), key.created_by, _ms(key.expires_at), None, key.rotated_from, None, None),
    ]
    transaction.insert(f"INTO keys ({_COLUMNS})", [values])


def _note(transaction: Transaction, verb: str, key_id: str, by: str, why: str, now: datetime) -> None:
    transaction.execute(
        "INSERT INTO key_log (n, at, key_id, verb, by_whom, why) "
        "SELECT COALESCE(MAX(n), 0) + 1, ?, ?, ?, ?, ? FROM key_log",
        [_ms(now), key_id, verb, by, why[:500]],
    )


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)


def _moment(value: Value) -> datetime | None:
    return None if value is None else datetime.fromtimestamp(int(value) / 1000, UTC)
