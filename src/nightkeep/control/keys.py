"""Virtual keys: who is calling, which scope that is, and what the key allows.

These are the keys that clients present to the gateway, not the providers' (``models.credentials``). Some are
configured, others are made while it runs and kept in the store (``control.key_store``); the ring holds both. Only
hashes are kept. A key is looked up by its SHA-256, so the time a look-up takes tells nothing about any stored key, and
a wrong one costs what a right one costs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from nightkeep.control.key_text import is_damaged
from nightkeep.core.errors import AuthenticationError, DeniedError, StoreError
from nightkeep.core.scope import ROOT, is_within, join_scope, parse_scope

__all__ = ["NO_LIMITS", "Caller", "KeyLimits", "KeyRing", "KeySpec", "Requirement", "hash_key", "presented_key"]

OPEN_SCOPE = "default"
"""The scope of callers on a gateway that asks for no key."""


Requirement = Literal["auto", "always", "never"]
"""Whether a key is asked for: always, never, or (auto) from the moment on that there is one."""


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a key may do at a time, beside the limits of its scope. None: no limit of its own."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None
    micro_usd_per_day: int | None = None  # millionths of a US dollar


NO_LIMITS = KeyLimits()


class KeySpec(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual key as it is configured or stored."""

    name: str
    scope: str
    hash: str  # "sha256:" and 64 hex digits
    id: str = ""  # of a stored key; a configured one has none
    models: tuple[str, ...] = ()  # globs over the names that clients ask for; empty: all
    tags: tuple[str, ...] = ()  # tags that the key may claim; empty: all
    default_tag: str | None = None  # of calls that name no tag
    limits: KeyLimits = NO_LIMITS
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who is calling, and within which limits."""

    name: str
    scope: str
    models: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    default_tag: str | None = None
    limits: KeyLimits = NO_LIMITS
    expires_at: datetime | None = None

    def narrowed(self, header_scope: str | None) -> str:
        """The scope of a call: the key's, or one below it that the client names.

        A name that does not begin with the key's scope is taken as relative to it.

        Raises:
            RequestError: the scope is malformed.
        """
        if not header_scope:
            return self.scope
        wanted = parse_scope(header_scope)
        if self.scope == ROOT or is_within(wanted, self.scope):
            return wanted
        return wanted if self.name == "" else join_scope(self.scope, wanted)

    def may_ask_for(self, model: str) -> bool:
        """Whether the key allows a model, by the name that clients ask for."""
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)

    def check(self, model: str, tag: str | None) -> None:
        """Raise DeniedError where the key does not allow the model or the tag."""
        if not self.may_ask_for(model):
            raise DeniedError(
                f"key {self.name!r} may not use model {model!r}; it allows {', '.join(self.models)}",
                rule=f"keys.{self.name}.models",
            )
        if tag and self.tags and tag not in self.tags:
            raise DeniedError(
                f"key {self.name!r} may not use tag {tag!r}; it allows {', '.join(self.tags)}",
                rule=f"keys.{self.name}.tags",
            )


_OPEN = Caller(name="", scope=OPEN_SCOPE)


class KeyRing:
    """All virtual keys. While there is none, everybody who can connect is one open caller.

    A key that was ever stored keeps the gateway closed, also when it is revoked or expired: taking away the last
    key must not let everybody in.
    """

    def __init__(self, keys: Iterable[KeySpec] = (), requirement: Requirement = "auto") -> None:
        self._stored: tuple[KeySpec, ...] = ()
        self._unreadable = ""
        self._used: dict[str, datetime] = {}
        self.configure(keys, requirement)

    def configure(self, keys: Iterable[KeySpec], requirement: Requirement = "auto") -> None:
        """Take the configured keys; the stored ones stay."""
        self._configured = tuple(keys)
        self._requirement = requirement
        self._merge()

    def take_stored(self, keys: Iterable[KeySpec]) -> None:
        """Take the stored keys, with those that are revoked; the configured ones stay."""
        self._stored = tuple(keys)
        self._merge()

    def distrust_stored(self, reason: str) -> None:
        """Serve no stored key until they can be read again: one of them may have been revoked (law 7)."""
        self._unreadable = reason

    def trust_stored(self) -> None:
        """The stored keys are as the store has them."""
        self._unreadable = ""

    def _merge(self) -> None:
        """A revoked key stays revoked, also where its hash stands in the configuration."""
        keys = sorted((*self._stored, *self._configured), key=lambda key: key.revoked_at is not None)
        self._by_hash = {key.hash.removeprefix("sha256:").lower(): key for key in keys}
        self._callers = {digest: _caller(key) for digest, key in self._by_hash.items()}

    @property
    def has_keys(self) -> bool:
        """There is a key, or there was one."""
        return bool(self._by_hash)

    @property
    def is_open(self) -> bool:
        """None is asked for."""
        return self._requirement == "never" or (self._requirement == "auto" and not self._by_hash)

    def has_configured(self, name: str) -> bool:
        """Whether a name is taken by the configuration."""
        return any(key.name == name for key in self._configured)

    def authenticate(self, presented: str | None, now: datetime) -> Caller:
        """Tell who presents a key.

        Raises:
            AuthenticationError: no key, an unknown, revoked or expired one; the message names its fingerprint, never
                the key (Q-PROXY-13).
            StoreError: the key is a stored one and the store cannot be read.
        """
        if not presented:
            if self.is_open:
                return _OPEN
            raise AuthenticationError(
                "no key was presented; send a Nightkeep virtual key as 'Authorization: Bearer …', "
                "'x-api-key' or 'x-goog-api-key'"
            )
        digest = hash_key(presented).removeprefix("sha256:")
        key = self._by_hash.get(digest)
        if key is None:
            if self.is_open:
                return _OPEN
            raise _unknown(presented, digest)
        if key.revoked_at is not None or (key.expires_at is not None and now >= key.expires_at):
            raise _over(key, digest)
        if key.id:
            if self._unreadable:
                raise StoreError(f"the virtual keys cannot be read, so none is trusted: {self._unreadable}")
            self._used[key.id] = now
        return self._callers[digest]

    def drain_used(self) -> dict[str, datetime]:
        """The stored keys that were used since the last time, by id, and when."""
        used, self._used = self._used, {}
        return used


def _caller(key: KeySpec) -> Caller:
    return Caller(
        name=key.name,
        scope=key.scope,
        models=key.models,
        tags=key.tags,
        default_tag=key.default_tag,
        limits=key.limits,
        expires_at=key.expires_at,
    )


def _unknown(presented: str, digest: str) -> AuthenticationError:
    why = "compare it with 'nightkeep keys list' (a provider's own key does not work here)"
    if is_damaged(presented):
        why = "its checksum does not fit, so it was cut off or mistyped: copy it again"
    return AuthenticationError(
        f"the key with fingerprint #{digest[:8]} ({len(presented)} characters) is not a virtual key of this gateway; "
        f"{why}",
        fingerprint=f"#{digest[:8]}",
    )


def _over(key: KeySpec, digest: str) -> AuthenticationError:
    what = ("was revoked", key.revoked_at) if key.revoked_at is not None else ("expired", key.expires_at)
    return AuthenticationError(
        f"key {key.name!r} (fingerprint #{digest[:8]}) {what[0]} at {what[1]:%Y-%m-%d %H:%M %Z}; "
        "ask the operator for a new one",
        fingerprint=f"#{digest[:8]}",
        key=key.name,
    )


def hash_key(key: str) -> str:
    """The form in which a virtual key is stored: ``sha256:`` and 64 hex digits."""
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def presented_key(headers: Mapping[str, str], query_key: str | None = None) -> str | None:
    """Find the key that a client presents, wherever its SDK puts it (Google's may put it in the query)."""
    authorization = headers.get("authorization")
    if authorization is not None and authorization[:7].lower() == "bearer ":
        return authorization[7:].strip()
    return headers.get("x-api-key") or headers.get("x-goog-api-key") or headers.get("api-key") or query_key
