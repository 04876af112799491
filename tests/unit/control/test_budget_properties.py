"""Arbitrary trees of budgets, orders, crashes and retries: never overspent, nothing leaked, nothing counted twice."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from nightkeep.control.budget_grants import Room, Want, decide
from nightkeep.control.budget_leases import BudgetLeases
from nightkeep.control.budget_nodes import instance_of
from nightkeep.control.budget_specs import BudgetSpec, Spent
from nightkeep.control.budgets import Budgets, Reservation
from nightkeep.core.errors import BudgetError
from nightkeep.core.scope import is_within, parents
from nightkeep.store.sqlite import SqliteStore
from nightkeep.testing.clock import FakeClock
from unit.control.budget_tools import CENT, cents

SCOPES = ["/", "a", "a/x", "a/y", "b", "b/x", "b/x/run"]
PATTERNS = [*SCOPES, "*", "a/*", "b/*"]

specs = st.lists(
    st.tuples(st.sampled_from(PATTERNS), st.integers(1, 60), st.sampled_from(["day", "once"])),
    min_size=1,
    max_size=4,
    unique_by=(lambda row: (row[0], row[2]), lambda row: row[1]),  # limits tell budgets apart when they are looked at
)

steps = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.sampled_from(SCOPES), st.integers(1, 30)),
        st.tuples(st.just("settle"), st.integers(0, 10), st.integers(0, 30)),
        st.tuples(st.just("again"), st.integers(0, 10), st.integers(0, 30)),
        st.tuples(st.just("release"), st.integers(0, 10), st.just(0)),
        st.tuples(st.just("crash"), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("tick"), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("idle"), st.just(0), st.just(0)),
    ),
    min_size=12,
    max_size=40,
)


class Model:
    """What really happened, told simply."""

    def __init__(self, path: Path, rows: list[tuple[str, int, Any]]) -> None:
        self.clock = FakeClock()
        self.store = SqliteStore.open(path, self.clock, pid=1)
        self.specs = [BudgetSpec(scope=scope, per=per, limits={"usd": limit * CENT}) for scope, limit, per in rows]
        self.born = 0
        self.processes = [self.process(), self.process()]
        self.open: list[tuple[int, str, int, Reservation]] = []  # process, scope, cents, reservation
        self.over: list[tuple[int, Reservation]] = []
        self.spent: list[tuple[str, int]] = []  # scope, cents

    def process(self) -> Budgets:
        self.born += 1
        return Budgets(self.specs, BudgetLeases(self.store, f"own_{self.born}", self.clock), self.clock, is_alone=False)

    async def step(self, kind: str, first: Any, second: int) -> None:
        match kind:
            case "reserve":
                which = second % 2
                await self.reserve(which, first, second)
            case "settle" | "release" if self.open:
                which, scope, amount, held = self.open.pop(first % len(self.open))
                real = min(second, amount) if kind == "settle" else 0
                self.processes[which].settle(held, Spent(micro_usd=real * CENT, tokens=1, requests=1))
                self.spent.append((scope, real))
                self.over.append((which, held))
            case "again" if self.over:  # settled once more: nothing may happen
                which, held = self.over[first % len(self.over)]
                self.processes[which].settle(held, Spent(micro_usd=second * CENT, tokens=1, requests=1))
            case "crash":
                await self.crash(first)
            case "tick":
                await self.processes[first].tick()
            case "idle":
                self.clock.advance(61)
                for process in self.processes:
                    await process.tick()

    async def reserve(self, which: int, scope: str, amount: int) -> None:
        budgets = self.processes[which]
        try:
            held = await budgets.reserve(
                cents(amount), scope=scope, run=None, tag=None, deadline=self.clock.monotonic()
            )
        except BudgetError:
            return
        self.open.append((which, scope, amount, held))

    async def crash(self, which: int) -> None:
        """A process dies; what it had under way may have been billed in full, and that is how it is taken."""
        old = f"own_{self.processes[which]._leases._owner.removeprefix('own_')}"
        for other, scope, amount, _ in [each for each in self.open if each[0] == which]:
            assert other == which
            self.spent.append((scope, amount))
        self.open = [each for each in self.open if each[0] != which]
        self.over = [each for each in self.over if each[0] != which]
        self.processes[which] = self.process()
        await self.processes[which]._leases.mark_lost([old])

    def used(self, spec: BudgetSpec, instance: str, *, with_held: bool) -> int:
        rows = list(self.spent) + ([(scope, amount) for _, scope, amount, _ in self.open] if with_held else [])
        return sum(amount for scope, amount in rows if instance_of(spec.scope, scope) == instance) * CENT

    def check(self) -> None:
        for spec in self.specs:
            for scope in SCOPES:
                instance = instance_of(spec.scope, scope)
                if instance is not None:
                    assert self.used(spec, instance, with_held=True) <= spec.limits["usd"], (spec, instance)

    async def end(self) -> None:
        """Everything ends; then the books are those of what really happened."""
        for which, scope, _, held in self.open:
            self.processes[which].release(held)
            self.spent.append((scope, 0))
        self.open = []
        for process in self.processes:
            await process.close()
        leases = self.processes[0]._leases
        for lost in await leases.lost():
            spec = next(each for each in self.specs if each.book == lost.key.period and _fits(each, lost.key.scope))
            # What living processes have settled is in "used" already; the rest of what really happened is the dead's.
            rows = await leases.in_window("usd", lost.key.period, lost.key.start)
            row = next(each for each in rows if each.key == lost.key)
            known = row.used - sum(each.amount for each in await leases.lost() if each.key == lost.key)
            await leases.forgive(lost.key, self.used(spec, lost.key.scope, with_held=False) - known)
        for view in await self.processes[1].views():
            spec = next(each for each in self.specs if each.window == view.per and each.limits["usd"] == view.limit)
            assert view.spent == self.used(spec, view.scope, with_held=False)
            assert (view.held, view.lost) == (0, 0)
        await self.store.close()


def _fits(spec: BudgetSpec, scope: str) -> bool:
    return instance_of(spec.scope, scope) == scope


async def play(rows: list[tuple[str, int, Any]], script: list[tuple[str, Any, int]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        model = Model(Path(name), rows)
        for kind, first, second in script:
            await model.step(kind, first, second)
            model.check()
        await model.end()


@settings(max_examples=100)
@given(specs, steps)
def test_no_budget_is_ever_exceeded_and_in_the_end_the_books_are_right(
    rows: list[tuple[str, int, Any]], script: list[tuple[str, Any, int]]
) -> None:
    asyncio.run(play(rows, script))


wants = st.tuples(st.integers(0, 100), st.integers(0, 100), st.integers(0, 100)).map(sorted).map(lambda w: Want(*w))


@given(st.integers(-50, 1_000), st.integers(0, 1_000), st.integers(0, 1_000), st.lists(wants, min_size=1, max_size=8))
def test_a_grant_is_never_more_than_is_free_and_serves_the_first_where_it_can(
    free: int, own: int, held: int, asked: list[Want]
) -> None:
    room = Room(free=free, own=own, sure_left=free + own + held)
    grant = decide(room, asked)
    assert 0 <= grant.amount <= max(0, free)
    if grant.can_serve:
        assert own + grant.amount >= min(asked[0].least, own + max(0, free))
        assert own + grant.amount >= asked[0].least
    else:
        assert grant.amount == 0
    assert not (grant.is_final and grant.can_serve)
    if grant.is_final:
        assert room.sure_left < asked[0].least


@given(st.sampled_from(PATTERNS), st.sampled_from(SCOPES))
def test_the_node_of_a_budget_is_the_scope_itself_or_above_it(pattern: str, scope: str) -> None:
    instance = instance_of(pattern, scope)
    if instance is not None:
        assert is_within(scope, instance)
        assert instance in parents(scope)
    elif "*" not in pattern:
        assert not is_within(scope, pattern)
