"""Limits on scopes, story by story."""

from __future__ import annotations

import asyncio

import pytest

from nightkeep.control.limits import NO_PERMIT, Permit, ScopeLimits
from nightkeep.core.errors import LimitError, RequestError
from nightkeep.core.scope import parse_scope
from nightkeep.testing.clock import FakeClock
from unit.control.limit_tools import World, limit, settle_down


async def serve_one_by_one(world: World, permit: Permit, queued: list[asyncio.Task[Permit]], times: int) -> None:
    """Let one call end after the other."""
    for _ in range(times):
        world.limits.settle(permit, 1)
        await settle_down()
        permit = next(task.result() for task in queued if task.done() and not task.result().is_over)


def test_without_a_limit_above_it_a_call_takes_nothing() -> None:
    world = World(limit("acme", concurrent=1))
    assert world.ask("beta/agent") is NO_PERMIT
    world.limits.settle(NO_PERMIT, 5)
    world.limits.release(NO_PERMIT)
    assert not any(view.in_flight for view in world.limits.snapshot())


def test_a_limit_holds_for_everything_below_its_scope() -> None:
    world = World(limit("acme", requests=2))
    world.take("acme")
    world.take("acme/triage/run_1")
    assert world.ask("acme/other") is None
    assert world.ask("acme2/other") is NO_PERMIT


def test_a_star_gives_each_child_its_own() -> None:
    world = World(limit("acme/*", concurrent=1), limit("*", requests=3))
    world.take("acme/a/run_1")
    assert world.ask("acme/a/run_2") is None
    world.take("acme/b")
    assert world.take("acme") is not None  # acme itself is no child of it
    assert world.ask("acme/c") is None  # three requests of the tenant
    world.take("beta/a")


def test_a_limit_for_tags_counts_only_them() -> None:
    world = World(limit("acme", concurrent=1, tags=("batch",)))
    world.take("acme/a", tag="batch")
    assert world.ask("acme/b", tag="batch") is None
    assert world.ask("acme/b", tag="interactive") is NO_PERMIT
    assert world.ask("acme/b") is NO_PERMIT


def test_all_limits_are_taken_or_none() -> None:
    world = World(limit("/", requests=10), limit("acme", requests=10), limit("acme/a", concurrent=1))
    world.take("acme/a")
    assert world.ask("acme/a") is None
    assert {view.scope: view.requests_used for view in world.limits.snapshot()} == {"/": 1, "acme": 1, "acme/a": 0}


def test_requests_and_tokens_are_separate_windows() -> None:
    world = World(limit("acme", requests=2, tokens=100))
    permit = world.take("acme", tokens=90)
    assert world.ask("acme", tokens=20) is None
    world.limits.settle(permit, 5)
    world.take("acme", tokens=20)
    assert world.ask("acme", tokens=1) is None  # two requests


def test_a_request_larger_than_the_limit_fits_an_empty_minute() -> None:
    world = World(limit("acme", tokens=100))
    permit = world.take("acme", tokens=5_000)
    assert world.ask("acme", tokens=1) is None
    world.limits.settle(permit, 40)
    assert world.ask("acme", tokens=5_000) is None
    world.take("acme", tokens=60)


def test_settling_or_releasing_twice_counts_once() -> None:
    world = World(limit("acme", requests=5, tokens=100, concurrent=2))
    first, second = world.take("acme"), world.take("acme")
    for _ in range(2):
        world.limits.settle(first, 30)
        world.limits.release(second)
        world.limits.settle(second, 99)
    [view] = world.limits.snapshot()
    assert (view.requests_used, view.tokens_used, view.in_flight) == (1, 30, 0)


async def test_who_waits_goes_on_when_the_minute_has_room() -> None:
    world = World(limit("acme", requests=1))
    world.limits.settle(world.take("acme"), 10)
    task = await world.queue("acme")
    await world.advance(59.9)
    assert not task.done()
    await world.advance(0.2)
    assert task.done()


async def test_a_refusal_says_when_and_does_not_wait_in_vain() -> None:
    world = World(limit("acme", requests=1))
    world.limits.settle(world.take("acme/a"), 10)
    await world.advance(20)
    task = await world.queue("acme/b", patience_s=10)
    with pytest.raises(LimitError) as caught:
        task.result()
    error = caught.value
    assert error.http_status == 429
    assert error.retry_after_s == 40
    assert (error.data["limit"], error.data["scope"]) == ("acme", "acme")
    assert "1 requests a minute" in error.message


async def test_waiting_for_calls_in_flight_promises_no_moment() -> None:
    world = World(limit("acme", concurrent=1))
    world.take("acme/a")
    task = await world.queue("acme/b", patience_s=10)
    await world.advance(9.9)
    assert not task.done()
    await world.advance(0.2)
    with pytest.raises(LimitError) as caught:
        task.result()
    assert caught.value.retry_after_s is None
    assert "when one ends is not known" in caught.value.message
    assert world.limits.waiting == 0


async def test_a_cancelled_waiter_leaves_no_trace() -> None:
    world = World(limit("acme", concurrent=1))
    permit = world.take("acme")
    task = await world.queue("acme/a")
    task.cancel()
    await settle_down()
    assert world.limits.waiting == 0
    world.limits.settle(permit, 1)
    world.take("acme")


async def test_who_is_cancelled_in_the_moment_it_is_served_gives_back() -> None:
    world = World(limit("acme", concurrent=1, requests=10))
    permit = world.take("acme")
    first, second = await world.queue("acme/a"), await world.queue("acme/b")
    world.limits.settle(permit, 1)  # serves the first, which has not run yet
    first.cancel()
    await settle_down()
    assert first.cancelled()
    assert second.done()
    [view] = world.limits.snapshot()
    assert (view.in_flight, view.requests_used) == (1, 2)


async def test_a_greedy_agent_takes_turns_with_the_others() -> None:
    world = World(limit("acme", concurrent=1))
    permit = world.take("acme/greedy")
    queued = [await world.queue("acme/greedy", name="greedy") for _ in range(50)]
    queued += [await world.queue("acme/modest/run_1", name="modest") for _ in range(5)]
    await serve_one_by_one(world, permit, queued, 12)
    assert world.order.count("modest") == 5


async def test_tenants_take_turns_however_many_agents_one_has() -> None:
    world = World(limit("/", concurrent=1))
    permit = world.take("beta")
    queued = [await world.queue(f"acme/agent{n}", name="acme") for n in range(40)]
    queued += [await world.queue("beta/only", name="beta") for _ in range(10)]
    await serve_one_by_one(world, permit, queued, 20)
    assert abs(world.order[:20].count("beta") - 10) <= 3


async def test_a_lower_number_goes_first_and_the_old_still_get_through() -> None:
    world = World(limit("acme", concurrent=1))
    permit = world.take("acme")
    queued = [await world.queue("acme/a", priority=2, name="batch")]
    queued += [await world.queue("acme/a", priority=0, name="interactive") for _ in range(20)]
    await serve_one_by_one(world, permit, queued, 8)
    assert world.order == ["interactive"] * 7 + ["batch"]


async def test_a_large_request_is_not_overtaken_for_ever() -> None:
    world = World(limit("acme", tokens=100))
    small = [world.take("acme/small", tokens=10) for _ in range(10)]
    large = await world.queue("acme/large", tokens=90, name="large")
    more = [await world.queue("acme/small", tokens=10, name="small") for _ in range(5)]
    for permit in small[:8]:
        world.limits.settle(permit, 0)
        await settle_down()
    assert not large.done()
    assert not any(task.done() for task in more)
    world.limits.settle(small[8], 0)
    await settle_down()
    assert large.done()


async def test_who_comes_later_and_would_fit_does_not_pass_those_who_wait() -> None:
    world = World(limit("acme", tokens=100))
    permit = world.take("acme/a", tokens=80)
    large = await world.queue("acme/b", tokens=90)
    assert world.ask("acme/c", tokens=10) is None
    small = await world.queue("acme/c", tokens=10)
    assert not small.done()
    world.limits.settle(permit, 0)
    await settle_down()
    assert large.done()
    assert small.done()


async def test_a_stuck_agent_delays_nobody_else() -> None:
    world = World(limit("/", concurrent=10), limit("acme/stuck", concurrent=1))
    world.take("acme/stuck")
    stuck = [await world.queue("acme/stuck") for _ in range(30)]
    for _ in range(50):
        task = await world.queue("acme/well")
        assert task.done()
        world.limits.settle(task.result(), 1)
    assert not any(task.done() for task in stuck)


async def test_a_full_queue_refuses_whoever_holds_most_of_it() -> None:
    world = World(limit("/", concurrent=1), most_waiting=10)
    world.take("acme")
    greedy = [await world.queue(f"acme/agent{n % 3}") for n in range(12)]
    assert sum(task.done() for task in greedy) == 2
    others = [await world.queue("beta/a") for _ in range(4)]
    assert not any(task.done() for task in others)
    assert world.limits.waiting == 10
    refused = [task.exception() for task in greedy if task.done()]
    assert all(isinstance(error, LimitError) and "queue is full" in error.message for error in refused)


async def test_with_no_place_to_wait_a_call_is_refused_at_once() -> None:
    world = World(limit("/", concurrent=1), most_waiting=0)
    world.take("acme")
    with pytest.raises(LimitError):
        (await world.queue("acme")).result()


async def test_other_settings_keep_the_counts_and_those_who_wait() -> None:
    world = World(limit("acme", requests=1), limit("beta", concurrent=1))
    world.take("acme")
    beta = world.take("beta")
    waits, freed = await world.queue("acme/a"), await world.queue("beta/a")
    world.limits.reconfigure([limit("acme", requests=2)])
    await settle_down()
    assert waits.done()
    assert freed.result() is NO_PERMIT
    assert world.ask("acme/b") is None
    world.limits.settle(beta, 1)  # its limit is gone
    assert [view.scope for view in world.limits.snapshot()] == ["acme"]


async def test_a_lowered_limit_holds_from_then_on() -> None:
    world = World(limit("acme", concurrent=5))
    permits = [world.take("acme") for _ in range(5)]
    world.limits.reconfigure([limit("acme", concurrent=2)])
    for permit in permits[:3]:
        world.limits.settle(permit, 1)
        assert world.ask("acme") is None
    world.limits.settle(permits[3], 1)
    world.take("acme")


def test_ten_thousand_invented_scopes_are_forgotten_after_their_minute() -> None:
    world = World(limit("acme/*", requests=5))
    for n in range(10_000):
        world.limits.settle(world.take(f"acme/invented{n}"), 1)
    world.clock.advance(61)
    for n in range(10_000):
        world.limits.settle(world.take(f"acme/again{n}"), 1)
        world.clock.advance(0.1)
    assert world.limits.scopes < 3_000


def test_beyond_what_can_be_counted_apart_new_scopes_share_one_limit() -> None:
    world = World(limit("acme/*", requests=5), most_nodes=100)
    asked = [world.ask(f"acme/invented{n}") for n in range(500)]
    assert sum(permit is not None for permit in asked) == 105
    assert world.limits.scopes == 101
    world.clock.advance(30)
    assert world.ask("acme/invented400") is None
    for permit in asked:
        if permit is not None:
            world.limits.settle(permit, 1)
    world.clock.advance(31)
    world.take("acme/invented400")
    assert world.limits.scopes == 1


@pytest.mark.parametrize("scope", ["acme/../beta", "acme//a", "acme/\u212a", "acme/a%2fb", "acme/ａ", "acme/a\x00"])
def test_a_scope_that_only_looks_like_another_is_no_scope(scope: str) -> None:
    with pytest.raises(RequestError):
        parse_scope(scope)


class LoopClock(FakeClock):
    """The time of the loop that is running."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


async def test_waiting_works_on_the_timers_of_a_running_loop() -> None:
    clock = LoopClock()
    limits = ScopeLimits([limit("acme", concurrent=1)], clock)
    assert limits.try_acquire(scope="acme", tag=None, tokens=1) is not None
    with pytest.raises(LimitError):
        await limits.acquire(scope="acme", tag=None, tokens=1, priority=1, deadline=clock.monotonic() + 0.01)
