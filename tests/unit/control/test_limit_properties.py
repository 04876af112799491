"""Limits on scopes hold in every interleaving: no overshoot, no leak, nobody starves."""

from __future__ import annotations

import asyncio
from collections import Counter, deque

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightkeep.control.limit_nodes import LimitSpec
from nightkeep.control.limits import Permit
from nightkeep.core.errors import LimitError
from unit.control.limit_tools import World, limit, settle_down

SCOPES = ("acme", "acme/a", "acme/a/run_1", "acme/b", "beta/a")
SPECS = (
    limit("/", requests=12, concurrent=6),
    limit("acme", tokens=300, concurrent=4),
    limit("acme/*", requests=5, tokens=200),
    limit("*", concurrent=3, tags=("batch",)),
)
STEP = st.one_of(
    st.tuples(
        st.just("ask"),
        st.sampled_from(SCOPES),
        st.sampled_from((None, "batch")),
        st.integers(0, 250),
        st.integers(0, 2),
    ),
    st.tuples(st.just("settle"), st.integers(0, 99), st.integers(0, 250)),
    st.tuples(st.just("release"), st.integers(0, 99)),
    st.tuples(st.just("cancel"), st.integers(0, 99)),
    st.tuples(st.just("pass"), st.floats(0.1, 40)),
)


class Auditor:
    """Counts what was let through in a way of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.running: list[tuple[Permit, float, str, str | None]] = []
        self.started: list[tuple[float, str, str | None]] = []
        self.waiting: list[tuple[asyncio.Task[Permit], str, str | None]] = []
        self.cancelled = 0

    def collect(self) -> None:
        """Note who was let through."""
        now = self.world.clock.monotonic()
        for entry in [each for each in self.waiting if each[0].done()]:
            task, scope, tag = entry
            self.waiting.remove(entry)
            if not task.cancelled() and not isinstance(task.exception(), LimitError):
                self.running.append((task.result(), now, scope, tag))
                self.started.append((now, scope, tag))

    def check(self) -> None:
        """No limit is exceeded in the minute that ends now; what runs and waits is what the limits say."""
        now = self.world.clock.monotonic()
        for spec in SPECS:
            minute = Counter(spec.place(scope, tag) for at, scope, tag in self.started if at + 60.0 > now)
            flying = Counter(spec.place(scope, tag) for _, _, scope, tag in self.running)
            for counts, most in ((minute, spec.limits.requests_per_minute), (flying, spec.limits.concurrent)):
                counts.pop(None, None)
                assert most is None or all(count <= most for count in counts.values()), (spec.name, counts)
        assert self.world.limits.waiting == len(self.waiting)

    async def do(self, step: tuple[object, ...]) -> None:
        match step:
            case ("ask", str(scope), tag, int(tokens), int(priority)):
                assert tag is None or isinstance(tag, str)
                task = await self.world.queue(scope, tag=tag, tokens=tokens, priority=priority, patience_s=90)
                self.waiting.append((task, scope, tag))
            case ("settle", int(which), int(used)) if self.running:
                permit, *_ = self.running.pop(which % len(self.running))
                self.world.limits.settle(permit, used)
            case ("release", int(which)) if self.running:
                entry = self.running.pop(which % len(self.running))
                self.started.remove(entry[1:])
                self.world.limits.release(entry[0])
            case ("cancel", int(which)) if self.waiting:
                self.waiting[which % len(self.waiting)][0].cancel()
            case ("pass", float(seconds)):
                await self.world.advance(seconds)
        await settle_down()


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(steps=st.lists(STEP, max_size=60))
async def test_no_limit_is_ever_exceeded_and_nothing_leaks(steps: list[tuple[object, ...]]) -> None:
    world = World(*SPECS)
    auditor = Auditor(world)
    for step in steps:
        await auditor.do(step)
        auditor.collect()
        auditor.check()
    while auditor.running or auditor.waiting:
        for permit, *_ in auditor.running:
            world.limits.settle(permit, 0)
        auditor.running.clear()
        await world.advance(61)
        auditor.collect()
        auditor.check()
    await world.advance(61)
    assert not any(view.requests_used or view.tokens_used or view.in_flight for view in world.limits.snapshot())
    assert not any(view.waiting for view in world.limits.snapshot())
    assert world.clock.next_timer_s is None


TREE: tuple[LimitSpec, ...] = (limit("/", concurrent=3), limit("acme", concurrent=2), limit("acme/old", concurrent=1))
CROWD = st.lists(
    st.tuples(st.sampled_from(("acme/old", "acme/new", "acme/x", "beta/a", "beta/b")), st.integers(0, 2)), max_size=60
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(before=CROWD, after=CROWD, turns=st.lists(st.integers(0, 9), max_size=200))
async def test_a_waiter_with_n_older_ones_is_let_through_with_the_place_8_n_plus_1(
    before: list[tuple[str, int]], after: list[tuple[str, int]], turns: list[int]
) -> None:
    """The least urgent of a narrow limit, while more urgent ones keep coming to every limit above it."""
    world = World(*TREE)
    running = [world.take("acme/old"), world.take("acme/x"), world.take("beta/a")]
    tasks = [await world.queue(scope, priority=priority) for scope, priority in before]
    older = sum(1 for task, (scope, _) in zip(tasks, before, strict=True) if scope == "acme/old" and not task.done())
    old = await world.queue("acme/old", priority=9, name="OLD")
    rushing = deque(after)
    for turn in [*turns, *([0] * 2_000)]:
        if old.done():
            break
        scope, priority = rushing.popleft() if rushing else ("acme/old", 0)
        rushing.append((scope, priority))
        tasks += [await world.queue(scope, priority=priority), await world.queue("acme/old", priority=0)]
        running += [task.result() for task in tasks if task.done() and task.result() not in running]
        flying = [permit for permit in running if not permit.is_over]
        world.limits.settle(flying[turn % len(flying)], 0)
        await settle_down()
    assert old.done(), "it starved"
    assert world.order[: world.order.index("OLD") + 1].count("acme/old") + 1 <= 8 * (older + 1)
    for task in tasks:
        task.cancel()
    await settle_down()
    assert world.limits.waiting == 0


@settings(deadline=None)
@given(
    crowds=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    ends=st.integers(1, 60),
)
async def test_siblings_take_turns_whatever_their_crowds(crowds: list[int], ends: int) -> None:
    world = World(limit("acme", concurrent=1))
    permit = world.take("acme/first")
    tasks = [await world.queue(f"acme/agent{n}") for n, crowd in enumerate(crowds) for _ in range(crowd)]
    for _ in range(min(ends, sum(crowds))):
        world.limits.settle(permit, 0)
        await settle_down()
        permit = next(task.result() for task in tasks if task.done() and not task.result().is_over)
    served = Counter(world.order)
    most = max(served.values())
    for n, crowd in enumerate(crowds):
        mine = served[f"acme/agent{n}"]
        assert mine == crowd or mine >= most - 2 - most // 4, (served, crowds)  # every eighth goes to the oldest
    for task in tasks:
        task.cancel()
    await settle_down()
