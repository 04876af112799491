"""Limits on scopes: requests and tokens per minute, and calls at a time, on any node of the path of scopes.

All limits above a call are taken at once, or none. Who finds no room waits in a fair queue until its deadline. This
makes no I/O and is for one event loop: the time comes from a clock, wake-ups from ``schedule``. Several processes
each enforce their own share of every limit, which ``bootstrap`` has cut out; the shares add up to the limit.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Final

from nightkeep.control.limit_lines import LimitLines, LimitWaiter
from nightkeep.control.limit_nodes import MOST_NODES, LimitNode, LimitSpec, LimitTable, LimitView
from nightkeep.control.meters import MeterEntry
from nightkeep.core.clock import Clock
from nightkeep.core.errors import LimitError

__all__ = ["NO_PERMIT", "Permit", "ScopeLimits"]

Schedule = Callable[[float, Callable[[], None]], Callable[[], None] | None]
"""``schedule(at_monotonic, callback)`` returns what cancels it, or None when nothing can be scheduled here."""


class Permit:
    """What one call took of the limits above it; settled or released once."""

    __slots__ = ("entries", "is_over", "nodes")

    def __init__(self, nodes: tuple[LimitNode, ...], entries: tuple[MeterEntry | None, ...]) -> None:
        self.nodes = nodes
        self.entries = entries
        self.is_over = not nodes


NO_PERMIT: Final = Permit((), ())
"""No limit holds for the call."""


class ScopeLimits:
    """All limits on scopes of this process."""

    def __init__(
        self,
        specs: Sequence[LimitSpec],
        clock: Clock,
        *,
        most_waiting: int = 1_000,
        schedule: Schedule | None = None,
        most_nodes: int = MOST_NODES,
    ) -> None:
        self._clock = clock
        self._monotonic = clock.monotonic
        self._schedule = schedule or self._on_running_loop
        self._table = LimitTable(specs, most_nodes)
        self._known = self._table.known
        self._lines = LimitLines(most_waiting)
        self._timer_at = math.inf
        self._cancel_timer: Callable[[], None] | None = None

    # --- the hot path -------------------------------------------------------------------------------------------

    def try_acquire(self, *, scope: str, tag: str | None, tokens: int, priority: int = 1) -> Permit | None:
        """Take every limit above a call, or none: None says that it has to wait (``acquire``).

        ``scope`` is canonical (``core.scope.parse_scope``). Who waits already for one of the limits goes first.
        """
        nodes = self._known.get((scope, tag))
        if nodes is None:
            nodes = self._table.resolve(scope, tag, self._monotonic())
        if not nodes:
            return NO_PERMIT
        now = self._monotonic()
        for node in nodes:
            if node.lines or not node.is_ready(tokens, now):
                return None
        return Permit(nodes, tuple([node.take(tokens, now) for node in nodes]))

    def settle(self, permit: Permit, tokens_used: int) -> None:
        """The call has ended and used so many tokens, failed or not. A second time does nothing."""
        if permit.is_over:
            return
        permit.is_over = True
        now = self._monotonic()
        for node, entry in zip(permit.nodes, permit.entries, strict=True):
            node.in_flight -= 1
            if entry is not None and node.meter is not None:
                node.meter.correct(entry, tokens_used, now)
        self._serve_after(permit, now)

    def release(self, permit: Permit) -> None:
        """The call was never sent: nothing is counted. A second time does nothing."""
        if permit.is_over:
            return
        permit.is_over = True
        for node, entry in zip(permit.nodes, permit.entries, strict=True):
            node.in_flight -= 1
            if entry is not None and node.meter is not None:
                node.meter.undo(entry)
        self._serve_after(permit, self._monotonic())

    # --- waiting ------------------------------------------------------------------------------------------------

    async def acquire(self, *, scope: str, tag: str | None, tokens: int, priority: int, deadline: float) -> Permit:
        """Take every limit above a call, waiting in the fair queue until ``deadline`` (monotonic seconds).

        A lower ``priority`` is served sooner.

        Raises:
            LimitError: at once when no minute can have room before the deadline or the queue is full, else when the
                deadline passes. ``data``: limit, scope, waiting, and retry_after_s where the minutes tell it.
        """
        permit = self.try_acquire(scope=scope, tag=tag, tokens=tokens, priority=priority)
        if permit is not None:
            return permit
        now = self._monotonic()
        nodes = self._table.resolve(scope, tag, now)
        if max(node.perhaps_at(tokens, now) for node in nodes) > deadline or deadline <= now:
            raise self._refusal(nodes, tokens, now, "there is no room before the deadline")
        waiter = LimitWaiter(scope, tag, tokens, priority, deadline, asyncio.get_running_loop().create_future())
        self._enter(waiter, nodes, now)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            self._leave(waiter)
            raise

    def _enter(self, waiter: LimitWaiter, nodes: tuple[LimitNode, ...], now: float) -> None:
        gives_way = self._lines.make_room(waiter, nodes)
        if gives_way is not None:
            why = f"the queue is full ({self._lines.size} calls wait)"
            if gives_way is waiter:
                raise self._refusal(nodes, waiter.tokens, now, why)
            self._reject(gives_way, now, why)
        self._lines.add(waiter, nodes)
        self._serve(now)

    def _leave(self, waiter: LimitWaiter) -> None:
        """A waiter was cancelled: nothing stays of it."""
        future = waiter.future
        if future.done() and not future.cancelled() and future.exception() is None:
            self.release(future.result())
            return
        self._lines.remove(waiter)
        if self._lines.size:  # those behind it may need less
            self._serve(self._monotonic())

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return self._lines.size

    def _serve_after(self, permit: Permit, now: float) -> None:
        if any(node.lines for node in permit.nodes):
            self._serve(now)

    def _serve(self, now: float) -> None:
        for waiter in self._lines.overdue(now):
            self._reject(waiter, now, "its deadline passed")

        def grant(waiter: LimitWaiter, nodes: tuple[LimitNode, ...]) -> None:
            waiter.future.set_result(Permit(nodes, tuple([node.take(waiter.tokens, now) for node in nodes])))

        wake_at = self._lines.serve(now, grant)
        self._wake_at(min(wake_at, self._lines.first_deadline()))

    def _wake_at(self, at: float) -> None:
        if at == self._timer_at:
            return
        if self._cancel_timer is not None:
            self._cancel_timer()
            self._cancel_timer = None
        self._timer_at = at
        if at < math.inf:
            self._cancel_timer = self._schedule(at, self._wake)

    def _wake(self) -> None:
        self._timer_at = math.inf
        self._cancel_timer = None
        self._serve(self._monotonic())

    def _on_running_loop(self, at: float, callback: Callable[[], None]) -> Callable[[], None] | None:
        loop = asyncio.get_running_loop()
        return loop.call_later(max(0.0, at - self._monotonic()), callback).cancel

    def _reject(self, waiter: LimitWaiter, now: float, why: str) -> None:
        nodes = waiter.line.nodes if waiter.line is not None else ()
        self._lines.remove(waiter)
        if not waiter.future.done():
            waiter.future.set_exception(self._refusal(nodes, waiter.tokens, now, why))

    def _refusal(self, nodes: tuple[LimitNode, ...], tokens: int, now: float, why: str) -> LimitError:
        """The error for a call that may not wait on; ``retry_after_s`` only where the minutes tell it."""
        full = [(at, node) for node in nodes if (at := node.ready_at(tokens, now)) is not None]
        busy = [node for node in nodes if node.in_flight >= node.most_in_flight]
        if full:
            at, node = max(full, key=lambda each: each[0])
            wait_s = math.ceil(1_000 * (at - now)) / 1_000
            what = f"{_per_minute(node)} are used up; there is room in {wait_s:g} s, if nobody else takes it"
            return _error(node, what, why, self._lines.size, retry_after_s=wait_s)
        if busy:
            node = busy[0]
            what = f"{node.most_in_flight} calls at a time are running; when one ends is not known"
            return _error(node, what, why, self._lines.size)
        return _error(nodes[0], "others wait for it, too, and it is their turn", why, self._lines.size)

    # --- settings and views -------------------------------------------------------------------------------------

    def reconfigure(self, specs: Sequence[LimitSpec], *, most_waiting: int | None = None) -> None:
        """Take other limits. Counts and waiters stay; a limit that is new begins at zero."""
        now = self._monotonic()
        waiters = self._lines.drain()
        self._table.reconfigure(specs)
        self._lines.most_waiting = self._lines.most_waiting if most_waiting is None else most_waiting
        for waiter in waiters:
            nodes = self._table.resolve(waiter.scope, waiter.tag, now)
            if nodes:
                self._lines.add(waiter, nodes)
            elif not waiter.future.done():
                waiter.future.set_result(NO_PERMIT)
        self._serve(now)

    def snapshot(self) -> list[LimitView]:
        """Every limit as it stands in this process, by scope."""
        return sorted(self._table.views(self._monotonic()), key=lambda view: (view.scope, view.name))

    @property
    def scopes(self) -> int:
        """How many scopes are counted apart."""
        return self._table.size


def _per_minute(node: LimitNode) -> str:
    limits = node.spec.limits
    amounts = ((limits.requests_per_minute, "requests"), (limits.tokens_per_minute, "tokens"))
    return " and ".join(f"{amount:,} {what}" for amount, what in amounts if amount is not None) + " a minute"


def _error(node: LimitNode, what: str, why: str, waiting: int, **data: float) -> LimitError:
    spec = node.spec
    tags = f" for tag {', '.join(sorted(spec.tags))}" if spec.tags else ""
    return LimitError(
        f"limit {spec.name!r} on {node.scope}{tags}: {what}. Refused because {why}; send less at a time, or raise it.",
        limit=spec.name,
        scope=node.scope,
        waiting=waiting,
        **data,
    )
