"""Virtual keys: who is calling, which scope that is, and what the key allows.

These are the keys that clients present to the gateway, not the providers' (``models.credentials``).
Only hashes are kept. A key is looked up by its SHA-256, so the time a look-up takes tells nothing
about any stored key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from fnmatch import fnmatchcase

import msgspec

from nightkeep.core.errors import AuthenticationError, DeniedError
from nightkeep.core.scope import ROOT, is_within, join_scope, parse_scope

__all__ = ["Caller", "KeyRing", "KeySpec", "hash_key", "presented_key"]

OPEN_SCOPE = "default"
"""The scope of callers on a gateway that asks for no key."""


class KeySpec(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual key as it is configured."""

    name: str
    scope: str
    hash: str  # "sha256:" and 64 hex digits
    models: tuple[str, ...] = ()  # globs over the names that clients ask for; empty: all
    tags: tuple[str, ...] = ()  # tags that the key may claim; empty: all
    expires_at: datetime | None = None


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who is calling, and within which limits."""

    name: str
    scope: str
    models: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

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

    def check(self, model: str, tag: str | None) -> None:
        """Raise DeniedError where the key does not allow the model or the tag."""
        if self.models and not any(fnmatchcase(model, pattern) for pattern in self.models):
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
    """All virtual keys; with none configured, everybody who can connect is one open caller."""

    def __init__(self, keys: Iterable[KeySpec]) -> None:
        self._by_hash = {key.hash.removeprefix("sha256:").lower(): key for key in keys}
        self._callers = {
            digest: Caller(name=key.name, scope=key.scope, models=key.models, tags=key.tags)
            for digest, key in self._by_hash.items()
        }

    @property
    def is_open(self) -> bool:
        """No key is configured, so none is asked for."""
        return not self._by_hash

    def authenticate(self, presented: str | None, now: datetime) -> Caller:
        """Tell who presents a key.

        Raises:
            AuthenticationError: no key, an unknown one, or an expired one; the message names its
                fingerprint, never the key (Q-PROXY-13).
        """
        if not self._by_hash:
            return _OPEN
        if not presented:
            raise AuthenticationError(
                "no key was presented; send a Nightkeep virtual key as 'Authorization: Bearer …', "
                "'x-api-key' or 'x-goog-api-key'"
            )
        digest = hash_key(presented).removeprefix("sha256:")
        key = self._by_hash.get(digest)
        if key is None:
            raise AuthenticationError(
                f"the key with fingerprint #{digest[:8]} ({len(presented)} characters) is not a virtual key of "
                "this gateway; compare it with 'nightkeep config show' (a provider's own key does not work here)",
                fingerprint=f"#{digest[:8]}",
            )
        if key.expires_at is not None and now >= key.expires_at:
            raise AuthenticationError(
                f"key {key.name!r} (fingerprint #{digest[:8]}) expired at {key.expires_at:%Y-%m-%d %H:%M %Z}",
                fingerprint=f"#{digest[:8]}",
                key=key.name,
            )
        return self._callers[digest]


def hash_key(key: str) -> str:
    """The form in which a virtual key is stored: ``sha256:`` and 64 hex digits."""
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def presented_key(headers: Mapping[str, str], query_key: str | None = None) -> str | None:
    """Find the key that a client presents, wherever its SDK puts it (Google's may put it in the query)."""
    authorization = headers.get("authorization")
    if authorization is not None and authorization[:7].lower() == "bearer ":
        return authorization[7:].strip()
    return headers.get("x-api-key") or headers.get("x-goog-api-key") or headers.get("api-key") or query_key
