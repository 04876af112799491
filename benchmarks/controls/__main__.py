"""What each control costs a call that it lets through, in microseconds on one core: ``./dev bench controls``.

Everything runs as in the gateway, on a real store, without the network. The gateway's own benchmark shows the sum.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from nightkeep.control.budget_leases import BudgetLeases
from nightkeep.control.budget_specs import BudgetSpec, Claim, Spent
from nightkeep.control.budgets import Budgets
from nightkeep.control.stops import Stop
from nightkeep.control.stops_in_force import StopsInForce
from nightkeep.models.calibration import Calibration, weigh
from nightkeep.store.sqlite import SqliteStore

CALLS = 20_000
BODY = b'{"model":"gpt-4.1","messages":[{"role":"user","content":"' + b"Tell me about the night. " * 40 + b'"}]}'


class Clock:
    """The machine's."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


async def measure(name: str, once: Callable[[], Awaitable[object]] | Callable[[], object]) -> None:
    """Print the best of five rounds, in CPU time."""
    best = float("inf")
    for _ in range(5):
        begin = time.process_time()
        for _ in range(CALLS // 5):
            found = once()
            if isinstance(found, Awaitable):
                await found
        best = min(best, (time.process_time() - begin) / (CALLS // 5))
    print(f"{name:<58} {best * 1e6:8.2f}")


def claim() -> Claim:
    """An ordinary call."""
    return Claim(
        base_pico_usd=1_000_000,
        base_bound_pico_usd=2_000_000,
        output_pico_usd=1_600_000,
        base_tokens=300,
        most=1_000,
        likely=500,
        least=100,
    )


async def budgets(store: SqliteStore, levels: int) -> None:
    """Reserve and settle under budgets that many levels deep."""
    scopes = ["/", "acme", "acme/*", "acme/triage/*"][:levels]
    specs = [BudgetSpec(scope=scope, per="day", limits={"usd": 10**12}) for scope in scopes]
    made = Budgets(specs, BudgetLeases(store, f"own_{levels}", Clock()), Clock())
    spent = Spent(micro_usd=400, tokens=500, requests=1)
    deadline = time.monotonic() + 3_600

    async def once() -> None:
        if await made.directive("acme/triage/run_1", "run_1", None) is not None:
            raise AssertionError
        held = await made.reserve(claim, scope="acme/triage/run_1", run="run_1", tag=None, deadline=deadline)
        made.settle(held, spent)

    await measure(f"budgets, {levels} deep: reserve and settle", once)
    await made.close()


def stops(count: int) -> Callable[[], object]:
    """Check the switches while some are thrown for others."""
    board = StopsInForce()
    for n in range(count):
        now = datetime.now(UTC)
        board._hold(Stop(id=f"s{n}", kind="scope", name=f"o{n}", why="", by="", since=now, drain=False, source="api"))
    return lambda: board.check(scope="acme/triage/run_1", tag="batch", models=("smart", "lab/gpt-4.1", "gpt-4.1"))


async def main() -> None:
    """Measure all."""
    print(f"{'control':<58} {'µs CPU':>8}")
    with tempfile.TemporaryDirectory() as directory:
        store = SqliteStore.open(Path(directory), Clock(), pid=1)
        for levels in (0, 1, 3):
            await budgets(store, levels)
        for count in (0, 1, 100):
            await measure(f"switches, {count} thrown for others", stops(count))
        calibration = Calibration()
        weight = weigh(BODY)
        for _ in range(64):
            calibration.note(weight, 250, 300, 900)
        await measure("weighing a request of 1 kB", lambda: weigh(BODY))
        await measure("estimating it, and learning from its report", lambda: _learn(calibration))
        await store.close()


def _learn(calibration: Calibration) -> None:
    weight = weigh(b"")
    calibration.upper(weight)
    calibration.note(weight, 250, 300, 900)


if __name__ == "__main__":
    asyncio.run(main())
