"""Who waits for limits on scopes, and who is next.

Those who pass the same limits from the same children of them stand in one line. Lines are served by priority (a lower
number sooner), then fairly: at each limit, from the widest to the narrowest, each child of its scope has its turn, one
call after the other (start-time fair queueing). So a greedy agent takes turns with its siblings, and all agents of one
tenant together take turns with the other tenants.

Nobody starves. At each limit, every eighth place goes to whoever has waited longest there, whatever its priority and
scope: a waiter with *n* older ones at its narrowest limit is served with the 8 x (n + 1)th place of it at the latest.
Whoever is next and finds no room holds the limits that it passes, from its narrowest up to the one that is full, until
it is let through: a small request does not overtake a large one for ever. A wider limit is not held for somebody who
waits for a narrower one, so a stuck agent delays nobody but itself.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from nightkeep.control.limit_nodes import LimitNode

if TYPE_CHECKING:
    from nightkeep.control.limits import Permit

__all__ = ["OLDEST_EVERY", "LimitLines", "LimitWaiter", "Line"]

OLDEST_EVERY: Final = 8
"""Of each this many places of a limit, one goes to the oldest waiter."""
_SLACK: Final = 64

LineKey = tuple[int, tuple[LimitNode, ...], tuple[str, ...]]
Turn = tuple[int, tuple[float, ...], int]


class LimitWaiter:
    """One call that waits."""

    __slots__ = ("deadline", "future", "line", "number", "priority", "scope", "tag", "tokens")

    def __init__(
        self,
        scope: str,
        tag: str | None,
        tokens: int,
        priority: int,
        deadline: float,
        future: asyncio.Future[Permit],
    ) -> None:
        self.scope = scope
        self.tag = tag
        self.tokens = tokens
        self.priority = priority
        self.deadline = deadline  # monotonic seconds
        self.future = future
        self.number = 0  # order of arrival
        self.line: Line | None = None  # None before it waits, and after


class Line:
    """Waiters that pass the same limits from the same children, first come first."""

    __slots__ = ("key", "nodes", "path", "priority", "tenant", "waiters")

    def __init__(self, key: LineKey, tenant: str) -> None:
        self.key = key
        self.priority, self.nodes, children = key
        self.path = tuple(zip(reversed(self.nodes), reversed(children), strict=True))  # widest first
        self.tenant = tenant
        self.waiters: deque[LimitWaiter] = deque()


class _Round:
    """One giving out of what is free."""

    __slots__ = ("closed", "served_before", "wake_at")

    def __init__(self) -> None:
        self.closed: set[LimitNode] = set()  # full, or held for somebody
        self.served_before: dict[LimitNode, float] = {}
        self.wake_at = math.inf

    def turn(self, line: Line) -> Turn:
        """When a line is served; never earlier than it was in this round."""
        before = self.served_before
        turns = [
            max(0.0, node.turns.get(child, 0.0) - before.setdefault(node, node.serving)) for node, child in line.path
        ]
        return line.priority, tuple(turns), line.waiters[0].number

    def has_room(self, waiter: LimitWaiter, line: Line, now: float) -> bool:
        """Whether a waiter may go; if not, what it holds is closed to those after it."""
        for index, node in enumerate(line.nodes):
            if node in self.closed or not node.is_ready(waiter.tokens, now):
                if node not in self.closed:
                    at = node.ready_at(waiter.tokens, now)
                    self.wake_at = min(self.wake_at, math.inf if at is None else at)
                self.closed.update(line.nodes[: index + 1])
                return False
        return True


class LimitLines:
    """All lines."""

    __slots__ = ("_arrivals", "_crowd", "_deadlines", "_due", "_lines", "most_waiting", "size")

    def __init__(self, most_waiting: int) -> None:
        self.most_waiting = most_waiting
        self.size = 0
        self._arrivals = 0
        self._lines: dict[LineKey, Line] = {}
        self._crowd: dict[str, int] = {}  # tenant -> how many of it wait
        self._due: set[LimitNode] = set()  # the next place is the oldest waiter's
        self._deadlines: list[tuple[float, int, LimitWaiter]] = []

    # --- coming and going ---------------------------------------------------------------------------------------

    def add(self, waiter: LimitWaiter, nodes: tuple[LimitNode, ...]) -> None:
        """Let somebody wait (after ``make_room``)."""
        key = _line_key(waiter, nodes)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(key, waiter.scope.split("/", 1)[0])
            for node in nodes:
                node.lines[line] = None
        self._arrivals += 1
        waiter.number = self._arrivals
        waiter.line = line
        line.waiters.append(waiter)
        self.size += 1
        self._crowd[line.tenant] = self._crowd.get(line.tenant, 0) + 1
        heapq.heappush(self._deadlines, (waiter.deadline, waiter.number, waiter))

    def remove(self, waiter: LimitWaiter) -> None:
        """Somebody leaves, served or not; a second time does nothing."""
        line = waiter.line
        if line is None:
            return
        waiter.line = None
        line.waiters.remove(waiter)
        self.size -= 1
        self._crowd[line.tenant] -= 1
        if not self._crowd[line.tenant]:
            del self._crowd[line.tenant]
        if not line.waiters:
            self._end(line)
        if len(self._deadlines) > 2 * self.size + _SLACK:
            self._deadlines = [entry for entry in self._deadlines if entry[2].line is not None]
            heapq.heapify(self._deadlines)

    def _end(self, line: Line) -> None:
        del self._lines[line.key]
        for node in line.nodes:
            node.lines.pop(line, None)
            if not node.lines:
                node.turns.clear()
                node.serving = 0.0
                node.since = 0
                self._due.discard(node)

    def drain(self) -> list[LimitWaiter]:
        """Take all waiters out, in the order in which they came."""
        waiters = sorted(
            (waiter for line in self._lines.values() for waiter in line.waiters), key=lambda waiter: waiter.number
        )
        for waiter in waiters:
            self.remove(waiter)
        return waiters

    def make_room(self, waiter: LimitWaiter, nodes: tuple[LimitNode, ...]) -> LimitWaiter | None:
        """Who must go so that ``waiter`` may wait in a full queue; itself where others hold no more than it would.

        None where there is room. The tenant with the most waiters gives way, within a tenant the longest line:
        nobody can keep others out by filling the queue.
        """
        if self.size < self.most_waiting:
            return None
        if not self._lines:
            return waiter
        tenant = waiter.scope.split("/", 1)[0]
        crowd = self._crowd
        heaviest = max(crowd, key=lambda each: crowd[each])
        if crowd[heaviest] <= crowd.get(tenant, 0) + 1:
            heaviest = tenant
        theirs = [line for line in self._lines.values() if line.tenant == heaviest]
        longest = max(theirs, key=lambda line: len(line.waiters), default=None)
        own = self._lines.get(_line_key(waiter, nodes))
        is_longer = longest is not None and len(longest.waiters) > (len(own.waiters) if own is not None else 0) + 1
        if longest is None or (heaviest == tenant and not is_longer):
            return waiter
        return longest.waiters[-1]

    def first_deadline(self) -> float:
        """The earliest deadline; infinite where nobody waits."""
        heap = self._deadlines
        while heap and heap[0][2].line is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf

    def overdue(self, now: float) -> list[LimitWaiter]:
        """Those whose deadline has come."""
        found = []
        while self.first_deadline() <= now:
            found.append(heapq.heappop(self._deadlines)[2])
        return found

    # --- giving out ---------------------------------------------------------------------------------------------

    def serve(self, now: float, grant: Callable[[LimitWaiter, tuple[LimitNode, ...]], None]) -> float:
        """Let everybody through who may go; return when to try again (monotonic seconds, may be infinite)."""
        round_ = _Round()
        heap = [(round_.turn(line), id(line), line) for line in self._lines.values()]
        heapq.heapify(heap)
        while heap:
            while self._due and self._serve_oldest(round_, now, grant):
                pass
            turn, _, line = heapq.heappop(heap)
            if not line.waiters:
                continue
            fresh = round_.turn(line)
            if fresh > turn:
                heapq.heappush(heap, (fresh, id(line), line))
            elif self._try(line, round_, now, grant, is_oldest=False) and line.waiters:
                heapq.heappush(heap, (round_.turn(line), id(line), line))
        return round_.wake_at

    def _serve_oldest(
        self, round_: _Round, now: float, grant: Callable[[LimitWaiter, tuple[LimitNode, ...]], None]
    ) -> bool:
        """Give a place to the oldest waiter of those limits where it is due; False where none of them can go."""
        lines = {line for node in self._due if node not in round_.closed for line in node.lines}
        open_lines = [line for line in lines if line.nodes[0] not in round_.closed]
        open_lines.sort(key=lambda line: line.waiters[0].number)
        return any(self._try(line, round_, now, grant, is_oldest=True) for line in open_lines)

    def _try(
        self,
        line: Line,
        round_: _Round,
        now: float,
        grant: Callable[[LimitWaiter, tuple[LimitNode, ...]], None],
        *,
        is_oldest: bool,
    ) -> bool:
        """Serve the first of a line; False where it has to wait on."""
        waiter = line.waiters[0]
        if waiter.future.done():  # cancelled, and not yet told
            self.remove(waiter)
            return True
        if not round_.has_room(waiter, line, now):
            return False
        grant(waiter, line.nodes)
        self._count_place(line, is_oldest=is_oldest)
        self.remove(waiter)
        return True

    def _count_place(self, line: Line, *, is_oldest: bool) -> None:
        for node, child in line.path:
            start = max(node.serving, node.turns.get(child, 0.0))
            node.turns[child] = start + 1.0
            if not is_oldest:
                node.serving = start
            if len(node.turns) > 2 * len(node.lines) + _SLACK:
                node.turns = {each: turn for each, turn in node.turns.items() if turn > node.serving}
            if is_oldest and node in self._due:
                node.since = 0
                self._due.discard(node)
                continue
            node.since += 1
            if node.since >= OLDEST_EVERY - 1:
                self._due.add(node)


def _line_key(waiter: LimitWaiter, nodes: tuple[LimitNode, ...]) -> LineKey:
    segments = waiter.scope.split("/")
    return (
        waiter.priority,
        nodes,
        tuple([segments[node.depth] if len(segments) > node.depth else "" for node in nodes]),
    )
