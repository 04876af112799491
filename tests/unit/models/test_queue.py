"""The order of the fair queue."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.models.queue import OLDEST_EVERY, DemandKey, FairQueue, Waiter

LOOP = asyncio.new_event_loop()


@pytest.fixture(autouse=True, scope="module")
def _close_loop() -> Iterator[None]:
    yield
    LOOP.close()


def key(model: str = "m") -> DemandKey:
    return ("p", "lab", None, model, frozenset())


def waiter(scope: str = "s", priority: int = 1, tokens: int = 1) -> Waiter[int]:
    return Waiter(scope, tokens, priority, 1_000.0, LOOP.create_future())


def serve(queue: FairQueue[int], places: int = 1) -> list[Waiter[int]]:
    """Give out a number of places, whoever takes them."""
    served: list[Waiter[int]] = []

    def try_one(candidate: Waiter[int]) -> bool:
        if len(served) >= places:
            return False
        served.append(candidate)
        return True

    queue.serve(list(queue.demands.values()), try_one)
    return served


@given(
    before=st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 2), st.sampled_from("mn")), max_size=30),
    gone=st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 2), st.sampled_from("mn")), max_size=30),
)
def test_waiters_that_leave_change_nothing_for_the_others(
    before: list[tuple[str, int, str]], gone: list[tuple[str, int, str]]
) -> None:
    orders = []
    for leavers in ([], gone):
        queue: FairQueue[int] = FairQueue(1_000)
        stay = []
        for scope, priority, model in before:
            stay.append(waiter(scope, priority))
            queue.add(key(model), stay[-1])
        leaving = []
        for scope, priority, model in leavers:
            leaving.append(waiter(scope, priority))
            queue.add(key(model), leaving[-1])
        for other in leaving:
            queue.remove(other)
            queue.remove(other)
        assert queue.size == len(before)
        orders.append([stay.index(served) for served in serve(queue, 100)])
        assert queue.size == 0
        assert not queue.demands
    assert orders[0] == orders[1]


@given(counts=st.dictionaries(st.sampled_from("vwxyz"), st.integers(1, 40), min_size=2), data=st.data())
def test_scopes_that_wait_get_alike_up_to_the_places_of_the_oldest(counts: dict[str, int], data: st.DataObject) -> None:
    queue: FairQueue[int] = FairQueue(1_000)
    arrivals = data.draw(st.permutations([scope for scope, count in counts.items() for _ in range(count)]))
    for scope in arrivals:
        queue.add(key(), waiter(scope))
    left = Counter(counts)
    got: Counter[str] = Counter()
    places = 0
    while all(left[scope] > 0 for scope in counts):
        scope = serve(queue)[0].scope
        got[scope] += 1
        left[scope] -= 1
        places += 1
        spread = max(got[name] for name in counts) - min(got[name] for name in counts)
        assert spread <= 2 + places // OLDEST_EVERY


@given(
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.sampled_from("mno")), min_size=1, max_size=120),
    position=st.integers(0, 20),
)
def test_nobody_waits_longer_than_the_bound_says(steps: list[tuple[int, int, str]], position: int) -> None:
    queue: FairQueue[int] = FairQueue(10_000)
    for _ in range(position):
        queue.add(key(), waiter("old", 5))
    patient = waiter("patient", 9)
    queue.add(key(), patient)
    bound = OLDEST_EVERY * OLDEST_EVERY * (position + 1)
    for number in range(bound):
        scope, priority, model = steps[number % len(steps)]
        queue.add(key(model), waiter(f"fresh{number}-{scope}", priority))
        if patient in serve(queue):
            return
    raise AssertionError(f"not served within {bound} places")


def test_who_is_more_urgent_goes_first_and_within_a_scope_who_came_first() -> None:
    queue: FairQueue[int] = FairQueue(10)
    late, early, urgent = waiter(), waiter(), waiter(priority=0)
    for one in (early, late, urgent):
        queue.add(key(), one)
    assert serve(queue, 3) == [urgent, early, late]


def test_a_demand_that_cannot_be_served_does_not_hold_up_another() -> None:
    queue: FairQueue[int] = FairQueue(10)
    stuck, free = waiter(), waiter()
    queue.add(key("m"), stuck)
    queue.add(key("n"), free)
    served: list[Waiter[int]] = []
    queue.serve(list(queue.demands.values()), lambda one: one is free and not served.append(one))  # type: ignore[func-returns-value]
    assert served == [free]


def test_a_small_request_does_not_overtake_a_large_one_of_the_same_kind() -> None:
    queue: FairQueue[int] = FairQueue(10)
    queue.add(key(), waiter("a", tokens=100))
    queue.add(key(), waiter("b", tokens=1))
    asked: list[int] = []

    def try_one(one: Waiter[int]) -> bool:
        asked.append(one.tokens)
        return one.tokens == 1

    queue.serve(list(queue.demands.values()), try_one)
    assert asked == [100]


def test_memory_does_not_grow_with_those_that_came_and_went() -> None:
    queue: FairQueue[int] = FairQueue(10_000)
    for _ in range(3):
        queue.add(key(), waiter("rock"))
    demand = queue.demands[key()]
    for number in range(2_000):
        passing = waiter(f"scope{number % 7}")
        queue.add(key(), passing)
        queue.remove(passing)
    known = demand.classes[1]
    assert len(demand.oldest) + len(demand.deadlines) + len(known.turns) + len(known.lines) < 200
