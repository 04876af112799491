"""The fair queue: who is served next when something becomes free.

Waiters are ordered by priority (a lower number is served sooner), then fairly between scopes (each scope's next
turn is one call after its last one: start-time fair queueing), then first come, first served. Those who want the
same (a *demand*) stand behind one another; who was found to be next there stays next until it is served, leaves,
or somebody more urgent comes. Every eighth place goes to the demand of whoever has waited longest, and every eighth
one of a demand to its own oldest, whatever its priority and scope. So nobody starves: a waiter with *n* older ones
is served after at most 64 x (n + 1) places that could be given to it.

Only order is kept here: whether something is free is asked of the caller's function, and the clock and timers are
in ``nightkeep.models.account_book``. A waiter that leaves takes all its traces with it.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

__all__ = ["OLDEST_EVERY", "Demand", "DemandKey", "FairQueue", "Waiter"]

L = TypeVar("L")
DemandKey = tuple[str | None, str, str | None, str, frozenset[str]]
"""Pool, provider, tag, model, accounts not wanted."""
OLDEST_EVERY: Final = 8
"""Each this many places one goes to the oldest waiter."""


class Waiter(Generic[L]):
    """One call that waits for an ``L``."""

    __slots__ = (
        "deadline",
        "demand",
        "future",
        "has_saved",
        "is_gone",
        "number",
        "priority",
        "scope",
        "since_grant",
        "tag",
        "tokens",
    )

    def __init__(self, scope: str, tokens: int, priority: int, deadline: float, future: asyncio.Future[L]) -> None:
        self.scope = scope
        self.tokens = tokens
        self.priority = priority
        self.deadline = deadline  # monotonic seconds
        self.future = future
        self.is_gone = False
        self.number = 0  # order of arrival
        self.demand: Demand[L] | None = None
        self.tag: str | None = None
        self.since_grant = 0  # how many calls had been let through when it came
        self.has_saved = False  # something is kept free for it


class _Line(Generic[L]):
    """The waiters of one scope, first come first."""

    __slots__ = ("is_gone", "waiters")

    def __init__(self, first: Waiter[L]) -> None:
        self.waiters = deque((first,))
        self.is_gone = False


class _Class(Generic[L]):
    """The waiters of one demand and one priority: a line per scope, and the turn of each line's first."""

    __slots__ = ("lines", "turns")

    def __init__(self) -> None:
        self.lines: dict[str, _Line[L]] = {}
        self.turns: list[tuple[float, int, _Line[L]]] = []  # heap of (turn, arrival of the line's first, line)

    def leave(self, waiter: Waiter[L]) -> None:
        """Take a waiter out of its line, and an empty line out of the order."""
        line = self.lines[waiter.scope]
        line.waiters.remove(waiter)
        if line.waiters:
            return
        line.is_gone = True
        del self.lines[waiter.scope]
        if len(self.turns) > 2 * len(self.lines) + 32:
            self.turns = [entry for entry in self.turns if not entry[2].is_gone]
            heapq.heapify(self.turns)


class Demand(Generic[L]):
    """Waiters that want the same: if one of them cannot be served, those behind it cannot either."""

    __slots__ = (
        "blocked_tokens",
        "classes",
        "deadlines",
        "key",
        "oldest",
        "pick",
        "ready_at",
        "served",
        "size",
        "turn",
    )

    def __init__(self, key: DemandKey) -> None:
        self.key = key
        self.ready_at = math.inf  # monotonic seconds: when to try again; never: when something is given back
        self.blocked_tokens = math.inf  # requests of so many tokens or more are known to find nothing
        self.size = 0
        self.served = 0  # since its oldest had a turn
        self.pick: Waiter[L] | None = None  # who is next
        self.turn = 0.0  # of the pick
        self.classes: dict[int, _Class[L]] = {}
        self.oldest: deque[Waiter[L]] = deque()
        self.deadlines: list[tuple[float, int, Waiter[L]]] = []

    def first_deadline(self) -> float | None:
        """The earliest deadline of those that wait."""
        heap = self.deadlines
        while heap and heap[0][2].is_gone:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def overdue(self, ready_at: float) -> list[Waiter[L]]:
        """Those whose deadline comes before ``ready_at``."""
        found = []
        while (first := self.first_deadline()) is not None and first < ready_at:
            found.append(heapq.heappop(self.deadlines)[2])
        return found

    def oldest_waiter(self) -> Waiter[L]:
        """Who has waited longest (while anybody waits)."""
        line = self.oldest
        while line[0].is_gone:
            line.popleft()
        return line[0]

    def sweep(self) -> None:
        """Forget those that left from the middle, once they are many."""
        most = 2 * self.size + 32
        if len(self.oldest) > most:
            self.oldest = deque(waiter for waiter in self.oldest if not waiter.is_gone)
        if len(self.deadlines) > most:
            self.deadlines = [entry for entry in self.deadlines if not entry[2].is_gone]
            heapq.heapify(self.deadlines)


class FairQueue(Generic[L]):
    """All waiters, by demand."""

    __slots__ = ("_arrivals", "_finished", "_places", "_serving", "demands", "most_waiting", "size")

    def __init__(self, most_waiting: int) -> None:
        self.most_waiting = most_waiting
        self.size = 0
        self.demands: dict[DemandKey, Demand[L]] = {}
        self._arrivals = 0
        self._places = 0  # given so far
        self._finished: dict[tuple[int, str], float] = {}  # (priority, scope) -> when its next turn may begin
        self._serving: dict[int, float] = {}  # priority -> the turn that was served last

    @property
    def is_full(self) -> bool:
        """Whether nobody else may wait."""
        return self.size >= self.most_waiting

    def add(self, key: DemandKey, waiter: Waiter[L]) -> None:
        """Let somebody wait (after ``is_full``)."""
        demand = self.demands.get(key)
        if demand is None:
            demand = self.demands[key] = Demand(key)
        self._arrivals += 1
        waiter.number = self._arrivals
        waiter.demand = demand
        demand.size += 1
        self.size += 1
        demand.oldest.append(waiter)
        heapq.heappush(demand.deadlines, (waiter.deadline, waiter.number, waiter))
        if demand.pick is not None and waiter.priority < demand.pick.priority:
            demand.pick = None
        known = demand.classes.get(waiter.priority)
        if known is None:
            known = demand.classes[waiter.priority] = _Class()
        line = known.lines.get(waiter.scope)
        if line is not None:
            line.waiters.append(waiter)
            return
        line = known.lines[waiter.scope] = _Line(waiter)
        heapq.heappush(known.turns, (self._turn(waiter), waiter.number, line))

    def remove(self, waiter: Waiter[L]) -> None:
        """Somebody leaves, served or not; a second time does nothing."""
        demand = waiter.demand
        if waiter.is_gone or demand is None:
            return
        waiter.is_gone = True
        self.size -= 1
        demand.size -= 1
        if demand.pick is waiter:
            demand.pick = None
        known = demand.classes[waiter.priority]
        known.leave(waiter)
        if not known.lines:
            del demand.classes[waiter.priority]
        if demand.size:
            demand.sweep()
        else:
            del self.demands[demand.key]
        if not self.size:
            self._finished.clear()
            self._serving.clear()

    def serve(self, demands: Iterable[Demand[L]], try_one: Callable[[Waiter[L]], bool]) -> None:
        """Give out what is free: ask ``try_one`` for one waiter after the other until nobody can be served.

        When the next of a demand cannot be served, the whole demand waits: a small request does not overtake a
        large one of the same kind for ever. ``try_one`` may remove waiters, the one asked included.
        """
        hopeful = [demand for demand in demands if demand.size]
        while hopeful:
            demand = self._next_demand(hopeful)
            if not self._serve_one(demand, try_one) or not demand.size:
                hopeful.remove(demand)

    def _serve_one(self, demand: Demand[L], try_one: Callable[[Waiter[L]], bool]) -> bool:
        """Ask for the oldest if it is due, else or then for the next; False when neither can be served."""
        if demand.served >= OLDEST_EVERY - 1:
            oldest = demand.oldest_waiter()
            if try_one(oldest):
                self._count_place(oldest, demand)
                demand.served = 0
                self.remove(oldest)
                return True
            if oldest.is_gone or oldest is demand.pick:
                return oldest.is_gone
        waiter = demand.pick
        if waiter is None:  # refused meanwhile
            return True
        if try_one(waiter):
            self._serving[waiter.priority] = max(self._serving.get(waiter.priority, 0.0), demand.turn)
            self._count_place(waiter, demand)
            self.remove(waiter)
            return True
        return waiter.is_gone

    @property
    def places(self) -> int:
        """How many were served so far."""
        return self._places

    def _next_demand(self, demands: list[Demand[L]]) -> Demand[L]:
        for demand in demands:
            if demand.pick is None:
                self._choose(demand)
        if len(demands) == 1:
            return demands[0]
        if (self._places + 1) % OLDEST_EVERY == 0:
            return min(demands, key=lambda demand: demand.oldest_waiter().number)
        return min(demands, key=lambda demand: (min(demand.classes), demand.turn, demand.oldest_waiter().number))

    def _choose(self, demand: Demand[L]) -> None:
        priority = min(demand.classes)
        demand.turn, _, line = self._first(priority, demand.classes[priority])
        demand.pick = line.waiters[0]

    def _first(self, priority: int, known: _Class[L]) -> tuple[float, int, _Line[L]]:
        """Return the line whose turn is next, after putting right the turns that have changed since."""
        turns = known.turns
        while True:
            turn, number, line = turns[0]
            if line.is_gone:
                heapq.heappop(turns)
                continue
            first = line.waiters[0]
            due = max(turn, self._finished.get((priority, first.scope), 0.0))
            if due == turn and first.number == number:
                return turns[0]
            heapq.heapreplace(turns, (due, first.number, line))

    def _turn(self, waiter: Waiter[L]) -> float:
        slot = (waiter.priority, waiter.scope)
        return max(self._serving.get(waiter.priority, 0.0), self._finished.get(slot, 0.0))

    def _count_place(self, waiter: Waiter[L], demand: Demand[L]) -> None:
        self._places += 1
        demand.served += 1
        self._finished[waiter.priority, waiter.scope] = self._turn(waiter) + 1.0
        serving = self._serving
        if len(self._finished) > 2 * self.size + 64:
            self._finished = {slot: due for slot, due in self._finished.items() if due > serving.get(slot[0], 0.0)}
