"""The permits of an attempt: from the limits of its scopes, and from those of the virtual key that asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from nightkeep.control.keys import NO_LIMITS, KeyLimits
from nightkeep.control.limit_nodes import LimitSpec
from nightkeep.control.limits import Permit, ScopeLimits
from nightkeep.control.meters import Limits
from nightkeep.models.gateway.call import Call

__all__ = ["Permits", "Taken"]


class Taken(NamedTuple):
    """What an attempt has taken."""

    of_scope: Permit
    of_key: Permit | None


class Permits:
    """Takes and gives back. ``keys`` counts by the names of keys as if they were scopes."""

    def __init__(self, scopes: ScopeLimits, keys: ScopeLimits, share: Callable[[int | None], int | None]) -> None:
        """``share`` cuts a key's limit to what is this process's."""
        self._scopes = scopes
        self._keys = keys
        self._share = share
        self._known: dict[str, KeyLimits] = {}

    async def acquire(self, call: Call, tokens: int, deadline: float) -> Taken:
        """Wait for a permit of every limit, until ``deadline`` (monotonic seconds). Raises LimitError."""
        tag, priority = call.tag, call.priority
        of_scope = self._scopes.try_acquire(scope=call.scope, tag=tag, tokens=tokens, priority=priority)
        if of_scope is None:
            of_scope = await self._scopes.acquire(
                scope=call.scope, tag=tag, tokens=tokens, priority=priority, deadline=deadline
            )
        own = call.caller.limits
        if own is NO_LIMITS or own == NO_LIMITS or not call.caller.name:
            return Taken(of_scope, None)
        try:
            self._learn(call.caller.name, call.caller.limits)
            of_key = await self._keys.acquire(
                scope=call.caller.name, tag=None, tokens=tokens, priority=priority, deadline=deadline
            )
        except BaseException:
            self._scopes.release(of_scope)
            raise
        return Taken(of_scope, of_key)

    def _learn(self, name: str, limits: KeyLimits) -> None:
        """Take a key's limits as they are now; what it has used stays counted."""
        if self._known.get(name) == limits:
            return
        self._known[name] = limits
        self._keys.reconfigure([self._spec(*known) for known in self._known.items()])

    def _spec(self, name: str, limits: KeyLimits) -> LimitSpec:
        return LimitSpec(
            name=f"key {name}",
            scope=name,
            limits=Limits(
                requests_per_minute=self._share(limits.requests_per_minute),
                tokens_per_minute=self._share(limits.tokens_per_minute),
                concurrent=self._share(limits.concurrent),
            ),
        )

    def settle(self, taken: Taken, tokens_used: int) -> None:
        """The attempt is over."""
        self._scopes.settle(taken.of_scope, tokens_used)
        if taken.of_key is not None:
            self._keys.settle(taken.of_key, tokens_used)

    def release(self, taken: Taken) -> None:
        """It never left: nothing is counted."""
        self._scopes.release(taken.of_scope)
        if taken.of_key is not None:
            self._keys.release(taken.of_key)
