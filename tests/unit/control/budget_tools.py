"""What the tests of budgets share: a clock that runs, claims in cents, and a store with several processes on it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nightkeep.control.budget_leases import BudgetLeases
from nightkeep.control.budget_specs import BudgetSpec, Claim, Spent
from nightkeep.control.budgets import Budgets
from nightkeep.store.sqlite import SqliteStore

CENT = 10_000


class RunningClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


def spec(scope: str = "acme", usd: int = 100 * CENT, per: Any = "day", **more: Any) -> BudgetSpec:
    return BudgetSpec(scope=scope, per=per, limits=more.pop("limits", {"usd": usd}), **more)


def cents(amount: int, *, tokens: int = 1) -> Callable[[], Claim]:
    """A claim of a fixed amount."""
    pico = amount * CENT * 1_000_000
    return lambda: Claim(
        base_pico_usd=pico,
        base_bound_pico_usd=pico,
        output_pico_usd=0,
        base_tokens=tokens,
        most=0,
        likely=0,
        least=0,
    )


def paid(amount: int, tokens: int = 1) -> Spent:
    return Spent(micro_usd=amount * CENT, tokens=tokens, requests=1)


@asynccontextmanager
async def processes(
    path: Path, specs: list[BudgetSpec], count: int = 1, clock: Any = None, **more: Any
) -> AsyncIterator[list[Budgets]]:
    """Budgets of several owners on one store."""
    clock = clock or RunningClock()
    store = SqliteStore.open(path, clock, pid=1, max_queued=10_000)
    made = [
        Budgets(specs, BudgetLeases(store, f"own_{n}", clock), clock, is_alone=count == 1, **more) for n in range(count)
    ]
    try:
        for each in made:
            each.start()
        yield made
    finally:
        for each in made:
            await each.close()
        await store.close()
