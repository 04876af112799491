"""Limits on a clock of their own."""

from __future__ import annotations

import asyncio
from typing import Any

from nightkeep.control.limit_nodes import LimitSpec
from nightkeep.control.limits import Permit, ScopeLimits
from nightkeep.control.meters import Limits
from nightkeep.testing.clock import FakeClock


def limit(
    scope: str,
    *,
    requests: int | None = None,
    tokens: int | None = None,
    concurrent: int | None = None,
    tags: tuple[str, ...] = (),
) -> LimitSpec:
    limits = Limits(requests_per_minute=requests, tokens_per_minute=tokens, concurrent=concurrent)
    return LimitSpec(name=" ".join([scope, *tags]), scope=scope, limits=limits, tags=frozenset(tags))


class World:
    """Limits, a clock, and the calls that wait."""

    def __init__(self, *specs: LimitSpec, **settings: Any) -> None:
        self.clock = FakeClock()
        self.limits = ScopeLimits(specs, self.clock, schedule=self.clock.schedule, **settings)
        self.order: list[str] = []  # names of those that were let through, in order

    def ask(self, scope: str, *, tag: str | None = None, tokens: int = 10) -> Permit | None:
        return self.limits.try_acquire(scope=scope, tag=tag, tokens=tokens)

    def take(self, scope: str, **more: Any) -> Permit:
        permit = self.ask(scope, **more)
        assert permit is not None
        return permit

    async def queue(
        self,
        scope: str,
        *,
        tag: str | None = None,
        tokens: int = 10,
        priority: int = 1,
        patience_s: float = 3_600,
        name: str = "",
    ) -> asyncio.Task[Permit]:
        deadline = self.clock.monotonic() + patience_s

        async def wait() -> Permit:
            permit = await self.limits.acquire(
                scope=scope, tag=tag, tokens=tokens, priority=priority, deadline=deadline
            )
            self.order.append(name or scope)
            return permit

        task = asyncio.ensure_future(wait())
        await settle_down()
        return task

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await settle_down()


async def settle_down() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)
