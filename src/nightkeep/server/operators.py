"""Who may do what at the API: the operator everything, a virtual key what is its own, everybody else next to nothing.

An operation says what it needs (``server.api.Route.needs``):

- ``none``: whoever can connect.
- ``key``: a virtual key; on an open gateway anybody. What it shows is that caller's own.
- ``view``: shows more than one tenant. The operator; on an open gateway anybody may look.
- ``operator``: changes something. The operator, on an open gateway too: an agent that may use the gateway must not be
  able to resume itself (law 8).

A gateway is open while it listens on this machine only and never had a key.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Literal

import msgspec

from nightkeep.control.keys import Caller, KeyRing, presented_key
from nightkeep.control.operator import TOKEN_NAME, OperatorToken
from nightkeep.core.errors import AuthenticationError, DeniedError, NightkeepError
from nightkeep.server.http import Request

__all__ = ["Asker", "Needs", "Operators"]

Needs = Literal["none", "key", "view", "operator"]

_HOW = (
    f"the operator's token: it stands in {TOKEN_NAME} in the gateway's data directory. The command line finds it "
    "there (--data, NIGHTKEEP_DATA), or takes NIGHTKEEP_TOKEN; other programs send 'Authorization: Bearer …'"
)


class Asker(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks at the API."""

    is_operator: bool = False
    is_open: bool = False  # the gateway lets everybody look
    caller: Caller | None = None  # with a virtual key, or anybody where none is asked for

    @property
    def may_view(self) -> bool:
        """May see what is not its own."""
        return self.is_operator or self.is_open

    @property
    def who(self) -> str:
        """For records of who did something: "operator", a key's name, or "anybody"."""
        if self.is_operator:
            return "operator"
        return f"key {self.caller.name}" if self.caller is not None and self.caller.name else "anybody"


class Operators:
    """Admits askers, or tells them what is missing."""

    def __init__(self, token: OperatorToken, keys: KeyRing, now: Callable[[], datetime], *, is_local: bool) -> None:
        """``is_local``: the gateway can be reached from this machine only."""
        self._token = token
        self._keys = keys
        self._now = now
        self.is_local = is_local

    @property
    def is_open(self) -> bool:
        """Everybody who can connect may look."""
        return self.is_local and self._keys.is_open and not self._keys.has_keys

    def is_operator(self, request: Request) -> bool:
        """Whether a request shows the operator's token."""
        presented = presented_key(request.headers)
        return presented is not None and self._token.fits(presented)

    def admit(self, request: Request, needs: Needs) -> Asker:
        """Who asks, if that is enough.

        Raises:
            AuthenticationError: a key or the token is missing, or wrong.
            DeniedError: a virtual key where the operator's token is needed.
        """
        if self.is_operator(request):
            return Asker(is_operator=True, is_open=self.is_open)
        is_open = self.is_open
        if needs == "none" or (needs == "view" and is_open):
            return Asker(is_open=is_open)
        presented = presented_key(request.headers)
        if needs == "key":
            return Asker(is_open=is_open, caller=self._keys.authenticate(presented, self._now()))
        raise self._refusal(presented)

    def _refusal(self, presented: str | None) -> NightkeepError:
        if not presented:
            return AuthenticationError(f"this needs {_HOW}")
        if self._keys.has_keys:
            try:
                name = self._keys.authenticate(presented, self._now()).name
            except NightkeepError:
                name = ""
            if name:
                return DeniedError(f"key {name!r} may not do this; it needs {_HOW}", rule="api.operator")
        return AuthenticationError(f"the token that was sent is not this gateway's. This needs {_HOW}")
