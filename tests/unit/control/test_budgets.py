"""Budgets hold: in a race, in several processes, over windows, for streams and for whole replies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from nightkeep.control.budget_nodes import KeyBudget
from nightkeep.control.budget_specs import Claim, Spent, Threshold, ThresholdReached
from nightkeep.control.budgets import Budgets
from nightkeep.core.errors import BudgetError
from nightkeep.testing.clock import FakeClock
from unit.control.budget_tools import CENT, RunningClock, cents, paid, processes, spec


async def call(budgets: Budgets, amount: int, real: int | None = None, scope: str = "acme", **more: object) -> int:
    """One call; the cents that it spent, 0 where it was refused."""
    clock = RunningClock()
    try:
        held = await budgets.reserve(
            cents(amount),
            scope=scope,
            run=None,
            tag=more.get("tag"),
            deadline=clock.monotonic() + 20,  # type: ignore[arg-type]
        )
    except BudgetError:
        return 0
    await asyncio.sleep(random.random() / 500)
    spent = amount if real is None else real
    budgets.settle(held, paid(spent))
    return spent


@pytest.mark.parametrize("count", [1, 4])
async def test_two_hundred_calls_at_once_spend_what_fits_and_not_a_cent_more(tmp_path: Path, count: int) -> None:
    async with processes(tmp_path, [spec()], count) as made:
        spent = await asyncio.gather(*(call(made[n % count], 6) for n in range(200)))
    assert sum(spent) == 96


async def test_what_is_only_held_makes_others_wait_and_then_serves_them(tmp_path: Path) -> None:
    async with processes(tmp_path, [spec()], 2) as made:
        spent = await asyncio.gather(*(call(made[n % 2], 50, real=4) for n in range(12)))
    assert sum(spent) == 12 * 4


async def test_a_call_that_can_never_fit_is_refused_at_once_and_told_why(tmp_path: Path) -> None:
    async with processes(tmp_path, [spec()]) as (budgets,):
        with pytest.raises(BudgetError, match=r"the budget of acme \(\$1.00 per day\) has \$1.00 left") as caught:
            await budgets.reserve(cents(101), scope="acme/triage", run=None, tag=None, deadline=1e12)
        assert caught.value.data["needed"] == 101 * CENT
        assert caught.value.data["resets_at"] is not None


async def test_every_budget_above_a_call_holds(tmp_path: Path) -> None:
    specs = [spec("acme/triage", 30 * CENT), spec("acme", 50 * CENT), spec("/", 1_000 * CENT)]
    async with processes(tmp_path, specs) as (budgets,):
        triage = await asyncio.gather(*(call(budgets, 5, scope="acme/triage") for _ in range(20)))
        others = await asyncio.gather(*(call(budgets, 5, scope="acme/other") for _ in range(20)))
        assert (sum(triage), sum(others)) == (30, 20)
        assert await call(budgets, 5, scope="beta") == 5


async def test_each_child_has_a_budget_of_its_own_whoever_it_is(tmp_path: Path) -> None:
    async with processes(tmp_path, [spec("users/*", 10 * CENT)]) as (budgets,):
        for user in ("ann", "bob", "nobody-knows-me"):
            assert sum([await call(budgets, 5, scope=f"users/{user}") for _ in range(4)]) == 10
        assert await call(budgets, 5, scope="users") == 5  # the parent itself is no child


async def test_what_is_spent_is_still_spent_after_a_restart(tmp_path: Path) -> None:
    async with processes(tmp_path, [spec()]) as (budgets,):
        assert await call(budgets, 60) == 60
    async with processes(tmp_path, [spec()]) as (budgets,):
        assert await call(budgets, 60) == 0
        assert await call(budgets, 40) == 40


async def test_settling_twice_counts_once_and_releasing_costs_nothing(tmp_path: Path) -> None:
    async with processes(tmp_path, [spec()]) as (budgets,):
        held = await budgets.reserve(cents(90), scope="acme", run=None, tag=None, deadline=1e12)
        budgets.settle(held, paid(10))
        budgets.settle(held, paid(10))
        again = await budgets.reserve(cents(90), scope="acme", run=None, tag=None, deadline=1e12)
        budgets.release(again)
        assert await call(budgets, 90) == 90


async def test_a_call_that_cost_more_than_it_held_is_written_down_as_it_is(tmp_path: Path) -> None:
    async with processes(tmp_path, [spec()]) as (budgets,):
        assert await call(budgets, 50, real=120) == 120
        assert await call(budgets, 1) == 0
    async with processes(tmp_path, [spec()]) as (budgets,):
        assert await call(budgets, 1) == 0


async def test_a_soft_budget_counts_and_refuses_nothing(tmp_path: Path) -> None:
    told: list[ThresholdReached] = []
    async with processes(tmp_path, [spec(is_hard=False)], on_threshold=told.append) as (budgets,):
        assert sum([await call(budgets, 50) for _ in range(4)]) == 200
        await asyncio.sleep(0.05)
    assert {mark.at for mark in told} >= {0.5, 1.0}


async def test_tokens_and_requests_are_budgets_too(tmp_path: Path) -> None:
    async with processes(tmp_path, [spec(limits={"tokens": 100})]) as (budgets,):
        held = await budgets.reserve(cents(0, tokens=80), scope="acme", run=None, tag=None, deadline=1e12)
        budgets.settle(held, Spent(tokens=80, requests=1))
        with pytest.raises(BudgetError, match="20 tokens left"):
            await budgets.reserve(cents(0, tokens=30), scope="acme", run=None, tag=None, deadline=1e12)
    async with processes(tmp_path / "requests", [spec(limits={"requests": 3})]) as (budgets,):
        assert sum([await call(budgets, 1) for _ in range(5)]) == 3


async def test_a_run_has_its_own_budget(tmp_path: Path) -> None:
    async with processes(tmp_path, [spec(per="run", usd=10 * CENT)]) as (budgets,):
        for run in ("run_1", "run_2"):
            held = await budgets.reserve(cents(10), scope="acme", run=run, tag=None, deadline=1e12)
            budgets.settle(held, paid(10))
        with pytest.raises(BudgetError, match="acme/run_1"):
            await budgets.reserve(cents(1), scope="acme", run="run_1", tag=None, deadline=1e12)


async def test_a_reserve_for_escalations_is_kept_from_everybody_else(tmp_path: Path) -> None:
    budget = spec(reserve={"escalation": 20 * CENT})
    async with processes(tmp_path, [budget]) as (budgets,):
        assert sum([await call(budgets, 10) for _ in range(12)]) == 80
        assert sum([await call(budgets, 10, tag="escalation") for _ in range(4)]) == 20


async def test_a_target_without_a_price_never_passes_a_budget_in_dollars(tmp_path: Path) -> None:
    claim = Claim(
        base_pico_usd=0,
        base_bound_pico_usd=0,
        output_pico_usd=0,
        base_tokens=1,
        most=0,
        likely=0,
        least=0,
        is_priced=False,
    )
    async with processes(tmp_path, [spec()]) as (budgets,):
        with pytest.raises(BudgetError, match="price is not known"):
            await budgets.reserve(lambda: claim, scope="acme", run=None, tag=None, deadline=1e12)


def reply(most: int, likely: int, least: int) -> Callable[[], Claim]:
    """A cent for the request, a hundredth of a cent for each token of the answer."""
    pico = CENT * 1_000_000
    return lambda: Claim(
        base_pico_usd=pico,
        base_bound_pico_usd=pico,
        output_pico_usd=pico // 100,
        base_tokens=1,
        most=most,
        likely=likely,
        least=least,
    )


async def test_a_whole_reply_is_clamped_to_what_can_be_reserved(tmp_path: Path) -> None:
    async with processes(tmp_path, [spec()]) as (budgets,):
        first = await budgets.reserve(reply(1_000_000, 100, 10), scope="acme", run=None, tag=None, deadline=1e12)
        assert first.output == 2_400  # a quarter of what is free
        budgets.settle(first, paid(97))
        last = await budgets.reserve(reply(1_000_000, 1_000, 10), scope="acme", run=None, tag=None, deadline=1e12)
        assert last.output == 200  # all that is left
        budgets.settle(last, paid(3))
        with pytest.raises(BudgetError):
            await budgets.reserve(reply(1_000_000, 1_000, 10), scope="acme", run=None, tag=None, deadline=1e12)


async def test_a_stream_tops_up_and_is_stopped_at_the_cap(tmp_path: Path) -> None:
    async with processes(tmp_path, [spec()]) as (budgets,):
        stream = await budgets.reserve(reply(100, 100, 100), scope="acme", run=None, tag=None, deadline=1e12)
        await budgets.top_up(stream, 5_000, deadline=1e12)
        assert stream.output == 5_000
        with pytest.raises(BudgetError):
            await budgets.top_up(stream, 10_000, deadline=1e12)
        budgets.settle(stream, paid(51))
        assert await call(budgets, 49) == 49


async def test_thresholds_are_told_once_and_their_actions_hold(tmp_path: Path) -> None:
    told: list[ThresholdReached] = []
    marks = (
        Threshold(at=0.5),
        Threshold(at=0.6, do="degrade", to="cheap"),
        Threshold(at=0.8, do="stop_batch"),
        Threshold(at=0.9, do="interactive_only"),
        Threshold(at=0.95, do="deny"),
    )
    async with processes(tmp_path, [spec(thresholds=marks)], 2, on_threshold=told.append) as (one, two):
        assert await one.directive("acme", None, None) is None
        await call(one, 55)
        await asyncio.sleep(0.02)
        assert [mark.at for mark in told] == [0.5]
        await call(one, 10)
        found = await one.directive("acme", None, "batch")
        assert found is not None
        assert (found.refuses, found.degrade_to) == (False, "cheap")
        await call(one, 20)
        stopped = await one.directive("acme", None, "batch")
        assert stopped is not None
        assert stopped.refuses
        await call(one, 6)
        await one.tick()
        elsewhere = await two.directive("acme", None, "research")
        assert elsewhere is not None
        assert elsewhere.refuses
        interactive = await one.directive("acme", None, "interactive")
        assert interactive is not None
        assert not interactive.refuses
        await call(one, 5)
        denied = await one.directive("acme", None, "interactive")
        assert denied is not None
        assert denied.refuses
        await asyncio.sleep(0.02)
    assert [mark.at for mark in told] == [0.5, 0.6, 0.8, 0.9, 0.95]


async def test_a_new_window_begins_with_the_clock_and_an_old_one_is_never_fresh_again(tmp_path: Path) -> None:
    clock = FakeClock()
    async with processes(tmp_path, [spec(per="hour")], clock=clock) as (budgets,):
        assert await call(budgets, 100) == 100
        clock.advance(3_600)
        assert await call(budgets, 70) == 70
        clock.jump_wall(-3_600)  # the clock is set back into the hour that is spent
        clock.advance(10)
        assert await call(budgets, 1) == 0
        clock.jump_wall(3_600)
        assert await call(budgets, 31) == 0
        assert await call(budgets, 30) == 30


async def test_a_process_that_died_keeps_what_it_held_until_it_is_settled(tmp_path: Path) -> None:
    async with processes(tmp_path, [spec()], 2) as (dead, living):
        held = await dead.reserve(cents(60), scope="acme", run=None, tag=None, deadline=1e12)
        assert held.micro_usd == 60 * CENT
        dead._table.retired.clear()  # it ends without a word
        leases = living._leases
        await leases.mark_lost(["own_0"])
        assert await call(living, 50) == 0
        lost = await leases.lost()
        assert [lease.amount for lease in lost] == [60 * CENT]
        await leases.forgive(lost[0].key, 10 * CENT)
        await leases.forgive(lost[0].key, 10 * CENT)  # safe to repeat
        await asyncio.sleep(0)
        for node in living._table:
            node.looked_at = float("-inf")
        assert await call(living, 90) == 90
        assert await call(living, 1) == 0
        dead._table._nodes.clear()


async def test_nothing_is_left_in_memory_of_scopes_that_nobody_uses(tmp_path: Path) -> None:
    clock = FakeClock()
    async with processes(tmp_path, [spec("*", 10 * CENT)], clock=clock) as (budgets,):
        for n in range(50):
            assert await call(budgets, 1, scope=f"user{n}") == 1
        clock.advance(120)
        await budgets.tick()
        assert list(budgets._table) == []
        rows = await budgets._leases.in_window("usd", "day each", int(start_of_day(clock)))
        assert [(row.used, row.unspent) for row in rows] == [(CENT, 0)] * 50


def start_of_day(clock: FakeClock) -> float:
    return clock.now().replace(hour=0, minute=0, second=0, microsecond=0).timestamp()


async def test_a_virtual_key_may_have_a_budget_of_its_own_wherever_it_is_used(tmp_path: Path) -> None:
    holder = KeyBudget("team-a", 10 * CENT)
    async with processes(tmp_path, []) as (budgets,):
        spent = []
        for scope in ("acme", "beta", "acme"):
            try:
                held = await budgets.reserve(cents(5), scope=scope, run=None, tag=None, deadline=1e12, holder=holder)
            except BudgetError as error:
                spent.append(error.data["scope"])
                continue
            budgets.settle(held, paid(5))
            spent.append(scope)
        assert spent == ["acme", "beta", "key:team-a"]
        assert await call(budgets, 5) == 5  # others are not held by it
        (view,) = await budgets.views()
        assert (view.scope, view.spent, view.left) == ("key:team-a", 10 * CENT, 0)


async def test_what_is_taken_ahead_is_taken_before_it_is_needed_and_given_back_at_the_end(tmp_path: Path) -> None:
    async with processes(tmp_path, [spec(usd=100_000 * CENT)]) as (budgets,):
        for _ in range(400):
            assert await call(budgets, 5) == 5
        (node,) = budgets.nodes("acme", None)
        (part,) = node.slices.values()
        assert part.free >= part.refill_at > 0
    async with processes(tmp_path, [spec(usd=100_000 * CENT)]) as (budgets,):
        (view,) = await budgets.views()
        assert (view.spent, view.held, view.lost) == (2_000 * CENT, 0, 0)
