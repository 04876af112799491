"""Budgets: nothing leaves before its cost is reserved in every budget above it (law 1).

A call asks for a reservation; it gets one at once where this process has room, after one durable draw where the store
has, and waits where room is only held. It is refused as soon as it is sure that there will be none in this window. A
reservation is settled once, to the real cost. For one event loop; other processes meet in the store
(``nightkeep.control.budget_leases``), and how much one may take is ``nightkeep.control.budget_grants``'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from nightkeep.control.budget_errors import budget_error, refusal_of, waited_error
from nightkeep.control.budget_grants import Want
from nightkeep.control.budget_leases import BudgetLeases, Drawn, WindowKey, WindowRow
from nightkeep.control.budget_nodes import BudgetTable, KeyBudget, Node, Slice, is_instance, window_of
from nightkeep.control.budget_specs import (
    BudgetSpec,
    BudgetView,
    Claim,
    Directive,
    Metric,
    Spent,
    ThresholdReached,
)
from nightkeep.core.clock import Clock
from nightkeep.core.errors import StoreError
from nightkeep.core.scope import ROOT, is_within

__all__ = ["Budgets", "Reservation"]

log = logging.getLogger("nightkeep.budgets")

_TICK_S: Final = 0.1
_POLL_S: Final = 0.1  # between two looks of a call that waits for what another process holds
_IDLE_S: Final = 5.0  # after which what is taken ahead is given back
_FORGET_S: Final = 60.0
_TELL_TICKS: Final = 10
_FRESH_S: Final = 1.0  # what the store said is taken for true so long, where it means a refusal
_REFILL: Final = 3  # a slice is filled again when so large a part of it is left
_PLENTY: Final = 64  # times that part: what must be left of the budget for it
_UNKNOWN_SHARE: Final = 4  # of a budget: what a call must find whose target has never reported
_AT_ONCE: Final = 64  # calls of one line that a single draw serves


class Reservation:
    """What is held for one attempt. Ends with exactly one ``settle``."""

    __slots__ = ("claim", "is_over", "output", "parts")

    def __init__(self, claim: Claim, output: int, parts: list[tuple[Slice, int]]) -> None:
        self.claim = claim
        self.output = output  # tokens of output that are covered
        self.parts = parts
        self.is_over = False

    @property
    def micro_usd(self) -> int:
        """What is held, in micro-dollars."""
        return self.claim.amount("usd", self.output)


class _Waiter:
    __slots__ = ("claim", "future")

    def __init__(self, claim: Callable[[], Claim]) -> None:
        self.claim = claim
        self.future: asyncio.Future[None] | None = None


class Budgets:
    """All budgets, for the calls of one process."""

    def __init__(
        self,
        specs: Sequence[BudgetSpec],
        leases: BudgetLeases,
        clock: Clock,
        *,
        on_threshold: Callable[[ThresholdReached], None] = lambda _: None,
        is_alone: bool = True,
    ) -> None:
        self._table = BudgetTable(specs)
        self._leases = leases
        self._clock = clock
        self._on_threshold = on_threshold
        self._is_alone = is_alone  # no other process draws from the same store
        self._ticking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def specs(self) -> tuple[BudgetSpec, ...]:
        """What is configured."""
        return self._table.specs

    def nodes(self, scope: str, run: str | None, holder: KeyBudget | None = None) -> tuple[Node, ...]:
        """The budgets above a call; ``holder`` is its virtual key, where that has a budget of its own."""
        if not self._table.specs and holder is None:
            return ()
        return self._table.path(scope, run, self._clock.now().timestamp(), holder)

    # -- what the thresholds ask

    async def directive(
        self, scope: str, run: str | None, tag: str | None, holder: KeyBudget | None = None
    ) -> Directive | None:
        """What the thresholds that are reached ask of a call; None where nothing. Raises StoreError."""
        nodes = self.nodes(scope, run, holder)
        for node in nodes:
            if not node.is_loaded:
                await self._draw(node.slice_for(tag), [Want(0, 0, 0)])
        degraded: Directive | None = None
        for node in nodes:
            if not node.actions:
                continue
            found = refusal_of(node, tag)
            if found is not None:
                return found
            mark = node.action("degrade")
            if mark is not None and degraded is None:
                why = f"{mark.at:.0%} of the budget of {node.key.scope} is spent"
                degraded = Directive(degrade_to=mark.to, why=why, scope=node.key.scope)
        return degraded

    # -- reserving

    def try_reserve(
        self, claim: Claim, *, scope: str, run: str | None, tag: str | None, holder: KeyBudget | None = None
    ) -> Reservation | None:
        """Hold what an attempt may cost, where this process has room for it now; None where it has to be waited for."""
        nodes = self.nodes(scope, run, holder)
        if not nodes:
            return Reservation(claim, claim.most, [])
        found = self._take(claim, [node.slice_for(tag) for node in nodes], is_first=False)
        return found if type(found) is Reservation else None

    async def reserve(
        self,
        claim: Callable[[], Claim],
        *,
        scope: str,
        run: str | None,
        tag: str | None,
        deadline: float,
        holder: KeyBudget | None = None,
    ) -> Reservation:
        """Hold what an attempt may cost in every budget above it, waiting until ``deadline`` (monotonic seconds).

        ``claim`` says what it may cost by what is known now; it is asked again after each wait.

        Raises:
            BudgetError: no room, and none will come in this window; or none came before the deadline.
            StoreError: the store does not answer: nothing leaves (law 7).
        """
        found = self.try_reserve(claim(), scope=scope, run=run, tag=tag, holder=holder)
        if found is not None:
            return found
        return await self._wait(claim, lambda: self._slices(scope, run, tag, holder), deadline)

    def _slices(self, scope: str, run: str | None, tag: str | None, holder: KeyBudget | None) -> list[Slice]:
        return [node.slice_for(tag) for node in self.nodes(scope, run, holder)]

    def _take(self, claim: Claim, slices: Sequence[Slice], *, is_first: bool) -> Reservation | Slice:
        """Hold what a claim wants in every slice, or nothing; the first slice that is short is the answer then.

        Who waits for a slice already goes first, unless the caller is that one, or there is plenty for all of them.
        """
        output = claim.most
        for part in slices:
            node = part.node
            strict = node.spec.is_strict
            if node.spec.is_hard and not claim.is_priced and node.metric == "usd":
                return part
            free = part.granted - part.spent - part.held
            amount = claim.amount(node.metric, output, is_strict=strict)
            if part.line and not is_first and free < amount * (len(part.line) + 1):
                return part
            if free < amount and claim.is_unknown and free < _least(claim, node):
                return part
            if free < amount:
                output = min(output, claim.output_within(node.metric, free, is_strict=strict))
                if output < claim.likely:
                    return part
        parts = []
        now = self._clock.monotonic()
        for part in slices:
            amount = claim.amount(part.node.metric, output, is_strict=part.node.spec.is_strict)
            part.held += amount
            part.used_at = now
            if part.free < part.refill_at and not part.is_refilling:
                self._refill_soon(part)
            parts.append((part, amount))
        return Reservation(claim, output, parts)

    async def _wait(self, ask: Callable[[], Claim], find: Callable[[], list[Slice]], deadline: float) -> Reservation:
        waiter, joined = _Waiter(ask), None
        try:
            while True:
                claim = ask()
                slices = find()
                is_first = joined is not None and bool(joined.line) and joined.line[0] is waiter
                found = self._take(claim, slices, is_first=is_first)
                if isinstance(found, Reservation):
                    return found
                if joined is not found:
                    self._leave(joined, waiter)
                    joined = found
                    found.line.append(waiter)
                if found.line[0] is waiter and await self._draw_for_line(claim, found):
                    # Fresh nodes: a window may have ended, or settings changed, while the store was asked.
                    slices = find()
                    served = self._settle_for(claim, found, slices)
                    if isinstance(served, Reservation):
                        return served
                    if served is not found:
                        continue  # this budget has room now, another one is short
                if not await self._sleep(waiter, found, deadline):
                    raise waited_error(found, claim)
        finally:
            self._leave(joined, waiter)

    async def _draw_for_line(self, claim: Claim, short: Slice) -> bool:
        """Draw for the calls of a line; whether the first can be served. Raises BudgetError where it waits in vain."""
        self._check_hope(claim, short)
        wants = [_want(each.claim(), short.node) for each in list(short.line)[:_AT_ONCE]]
        drawn = await self._draw(short, wants)
        self._check_hope(claim, short)
        return drawn.grant.can_serve

    def _settle_for(self, claim: Claim, short: Slice, slices: Sequence[Slice]) -> Reservation | Slice:
        """Take what there is, down to the least that makes sense: no more will come. Else, which slice is short."""
        found = self._take(claim, slices, is_first=True)
        if found is not short:
            return found
        node = short.node
        fits = claim.output_within(node.metric, short.free, is_strict=node.spec.is_strict)
        if fits < claim.least or short.free < _least(claim, node):
            return short
        smaller = Claim(
            base_pico_usd=claim.base_pico_usd,
            base_bound_pico_usd=claim.base_bound_pico_usd,
            output_pico_usd=claim.output_pico_usd,
            base_tokens=claim.base_tokens,
            most=min(fits, claim.most),
            likely=min(fits, claim.likely),
            least=claim.least,
            requests=claim.requests,
            is_priced=claim.is_priced,
        )
        return self._take(smaller, slices, is_first=True)

    def _check_hope(self, claim: Claim, short: Slice) -> None:
        """Raise BudgetError where it is sure that a claim finds no room in this window."""
        node = short.node
        if not claim.is_priced and node.metric == "usd" and node.spec.is_hard:
            raise budget_error(node, short.kind, claim, why="its price is not known")
        is_fresh = self._clock.monotonic() - node.looked_at < _FRESH_S
        if is_fresh and node.sure_left(short.kind) < _want(claim, node).least:
            raise budget_error(node, short.kind, claim)

    async def _draw(self, part: Slice, wants: Sequence[Want]) -> Drawn:
        node = part.node
        limit = node.limit_for(part.kind)
        drawn = await self._leases.draw(node.key, part.kind, limit, wants, own_free=part.free, own_spent=part.spent)
        part.granted += drawn.grant.amount
        if drawn.grant.amount:
            part.refill_at = part.free // _REFILL
        node.learn(drawn, self._clock.monotonic())
        self._pass_marks(node)
        return drawn

    def _refill_soon(self, part: Slice) -> None:
        """Take more ahead before the slice is used up, so that no call has to wait for the disk meanwhile."""
        if part.node.sure_left(part.kind) < _PLENTY * part.refill_at:
            part.refill_at = 0
            return
        part.is_refilling = True
        self._later(self._refill(part))

    async def _refill(self, part: Slice) -> None:
        try:
            amount = part.refill_at
            await self._draw(part, [Want(amount, amount, amount)])
        except StoreError as error:
            log.warning("the budget of %s cannot be drawn ahead: %s", part.node.key.scope, error)
        finally:
            part.is_refilling = False

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sleep(self, waiter: _Waiter, part: Slice, deadline: float) -> bool:
        """Wait for a change; False when the deadline has passed."""
        loop = asyncio.get_running_loop()
        left = deadline - self._clock.monotonic()
        if left <= 0:
            return False
        waiter.future = loop.create_future()
        is_first = part.line[0] is waiter
        handle = loop.call_later(min(left, _POLL_S) if is_first else left, _wake, waiter.future)
        try:
            await waiter.future
        finally:
            handle.cancel()
            waiter.future = None
        return True

    def _leave(self, part: Slice | None, waiter: _Waiter) -> None:
        if part is None:
            return
        if waiter in part.line:
            part.line.remove(waiter)
        self._wake_first(part)

    def _wake_first(self, part: Slice) -> None:
        if part.line:
            first = part.line[0]
            if first.future is not None:
                _wake(first.future)

    # -- while a stream flows

    def try_top_up(self, reservation: Reservation, output: int) -> bool:
        """Cover more output tokens with what this process has."""
        claim, more = reservation.claim, []
        for part, amount in reservation.parts:
            needed = claim.amount(part.node.metric, output, is_strict=part.node.spec.is_strict)
            if part.free < needed - amount:
                return False
            more.append((part, needed))
        for (part, amount), (_, needed) in zip(reservation.parts, more, strict=True):
            part.held += needed - amount
        reservation.parts, reservation.output = more, output
        return True

    async def top_up(self, reservation: Reservation, output: int, *, deadline: float) -> None:
        """Cover more output tokens, waiting for room until ``deadline`` (monotonic seconds).

        Raises:
            BudgetError: there is none: the stream has to be stopped.
        """
        claim = reservation.claim
        while not self.try_top_up(reservation, output):
            for part, amount in reservation.parts:
                node = part.node
                total = claim.amount(node.metric, output, is_strict=node.spec.is_strict)
                needed = total - amount
                if part.free >= needed:
                    continue
                drawn = await self._draw(part, [Want(needed, needed, needed)])
                if node.sure_left(part.kind) < total:  # what this stream holds itself will not come free for it
                    raise budget_error(node, part.kind, claim)
                if not drawn.grant.can_serve:
                    if self._clock.monotonic() >= deadline:
                        raise waited_error(part, claim)
                    await asyncio.sleep(_POLL_S)

    # -- settling

    def settle(self, reservation: Reservation, spent: Spent) -> None:
        """An attempt is over and has used this much; a second time does nothing."""
        if reservation.is_over:
            return
        reservation.is_over = True
        for part, amount in reservation.parts:
            real = spent.of(part.node.metric)
            part.held -= amount
            part.spent += real
            part.node.own += real
            if part.free < 0:
                self._overdraw(part)
            node = part.node
            if node.spent >= node.next_mark:
                self._pass_marks(node)
            if part.line:
                self._wake_first(part)

    def release(self, reservation: Reservation) -> None:
        """An attempt never left: nothing was used."""
        self.settle(reservation, Spent())

    def _overdraw(self, part: Slice) -> None:
        """More was billed than was held (a provider that counts otherwise): the truth is written down."""
        missing = -part.free
        part.granted += missing
        if part.node.spec.is_hard and missing > 0 and part.node.spent > part.node.limit:
            log.error(
                "the budget of %s is overrun by %d: a call used more than its reservation", part.node.key.scope, missing
            )
        self._leases.overdraw(part.node.key, part.kind, missing)

    def _pass_marks(self, node: Node) -> None:
        passed = node.pass_marks()
        if passed:
            self._later(self._tell(node, passed[-1].at))

    async def _tell(self, node: Node, share: float) -> None:
        try:
            if not await self._leases.claim_telling(node.key, round(share * 100)):
                return
        except StoreError as error:
            log.warning("whether somebody was told of the budget of %s is not known: %s", node.key.scope, error)
        self._on_threshold(
            ThresholdReached(
                scope=node.key.scope,
                metric=node.metric,
                window=node.spec.window,
                at=share,
                spent=node.spent,
                limit=node.limit,
                actions=tuple(mark for mark in node.marks if mark.at == share and mark.do != "notify"),
                is_hard=node.spec.is_hard,
                moment=self._clock.now(),
                resets_at=reset_of(node),
            )
        )

    async def correct(self, scope: str, run: str | None, at: float, more: Spent) -> None:
        """A provider's bill says that this much more (or less) was spent than was settled, ``at`` epoch seconds.

        Raises:
            StoreError: it could not be written; nothing has changed.
        """
        amounts = [(key, more.of(metric)) for key, metric in self._table.keys(scope, run, at) if more.of(metric)]
        if not amounts:
            return
        await self._leases.correct(amounts)
        changed = dict(amounts)
        for node in [*self._table, *self._table.retired]:
            node.elsewhere += changed.get(node.key, 0)

    # -- looking

    async def views(self, within: str = ROOT) -> list[BudgetView]:
        """Every budget that stands above ``within`` or below it, in its present window. Raises StoreError."""
        await self._tell_spent(list(self._table))
        now = self._clock.now().timestamp()
        found = []
        for spec in (*self._table.specs, *self._table.of_keys.values()):
            for metric in spec.limits:
                found += await self._views_of(spec, metric, within, now)
        return found

    async def _views_of(self, spec: BudgetSpec, metric: Metric, within: str, now: float) -> list[BudgetView]:
        starts, ends = window_of(spec, now)
        rows = {row.key.scope: row for row in await self._leases.in_window(metric, spec.book, int(starts or 0))}
        for node in self._table:  # what this process has taken ahead is not held by any call
            row = rows.get(node.key.scope)
            if row is not None and row.key == node.key:
                idle = sum(part.free for part in node.slices.values())
                rows[node.key.scope] = WindowRow(row.key, row.used - idle, row.unspent - idle, row.lost)
        if not spec.is_pattern and spec.per != "run":
            rows.setdefault(spec.scope, WindowRow(WindowKey(spec.scope, metric, spec.book, 0), 0, 0, 0))
        return [
            view_of(spec, metric, row, starts, ends)
            for scope, row in rows.items()
            if is_instance(spec, scope) and (is_within(scope, within) or is_within(within, scope))
        ]

    # -- housekeeping

    def start(self) -> None:
        """Begin to give back what lies idle and to tell the store what is spent."""
        self._ticking = asyncio.ensure_future(self._tick_on())

    async def _tick_on(self) -> None:
        count = 0
        while True:
            await asyncio.sleep(_TICK_S)
            count += 1
            try:
                await self.tick(tells=count % _TELL_TICKS == 0)
            except StoreError as error:
                log.warning("budgets cannot be written down now; what is held stays held: %s", error)

    async def tick(self, *, tells: bool = True) -> None:
        """Give back what others want or nobody uses; now and then tell the store what is spent."""
        now = self._clock.monotonic()
        nodes = [*self._table, *self._table.retired]
        wanted: set[WindowKey] = set()
        if not self._is_alone and any(node.slices for node in nodes):
            wanted = await self._leases.wanted()
        for node in nodes:
            for part in node.slices.values():
                # Where somebody waits in this process too, its own rest was too little: two rests may be enough.
                is_idle = now - part.used_at > _IDLE_S and not part.line
                if part.free > 0 and (is_idle or node.key in wanted):
                    self._give_back(part)
        if tells:
            await self._tell_spent(nodes)
            await self._forget(nodes, now)

    def _give_back(self, part: Slice) -> None:
        amount = part.free
        part.granted -= amount
        self._leases.give_back(part.node.key, part.kind, amount)

    async def _tell_spent(self, nodes: Sequence[Node]) -> None:
        changed = [
            (part, part.spent) for node in nodes for part in node.slices.values() if part.spent != part.told_spent
        ]
        if changed:
            await self._leases.tell_spent([(part.node.key, part.kind, spent) for part, spent in changed])
            for part, spent in changed:
                part.told_spent = spent

    async def _forget(self, nodes: Sequence[Node], now: float) -> None:
        """Close the leases of windows that are over, and of scopes that nobody uses."""
        retired = set(map(id, self._table.retired))
        for node in nodes:
            parts = list(node.slices.values())
            if any(part.held or part.line for part in parts):
                continue
            is_over = id(node) in retired
            if not is_over and (not parts or any(now - part.used_at < _FORGET_S for part in parts)):
                continue
            if is_over:
                self._table.retired.remove(node)
            else:
                self._table.drop(node)
            await self._close(parts)

    async def _close(self, parts: Sequence[Slice]) -> None:
        ends = [(part, part.granted, part.granted - part.spent) for part in parts]
        for part in parts:  # before anything is awaited: from here on nothing can be taken from them
            part.node.elsewhere += part.spent
            part.node.own -= part.spent
            part.granted = part.spent = part.told_spent = 0
        for part, granted, unspent in ends:
            if granted:
                await self._leases.close_lease(part.node.key, part.kind, unspent)

    def reconfigure(self, specs: Sequence[BudgetSpec]) -> None:
        """Take other budgets; what is held is settled where it was taken, and what is free goes back."""
        old = self._table
        self._table = BudgetTable(specs)
        self._table.retired = [*old, *old.retired]
        for node in self._table.retired:
            for part in node.slices.values():
                if part.free > 0:
                    self._give_back(part)
                for waiter in part.line:
                    if waiter.future is not None:
                        _wake(waiter.future)

    async def close(self) -> None:
        """Give everything back that is not spent. Calls in flight must be settled before."""
        if self._ticking is not None:
            self._ticking.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)  # what is being drawn must not come after the end
        for node in [*self._table, *self._table.retired]:
            try:
                await self._close([part for part in node.slices.values() if not part.held])
            except StoreError as error:
                log.error("the budget of %s is not given back: %s", node.key.scope, error)
        await self._leases.tell_spent([])  # the store works in order: what was given back before is durable, too


def view_of(spec: BudgetSpec, metric: Metric, row: WindowRow, starts: float | None, ends: float | None) -> BudgetView:
    """One budget in one window, as people see it."""
    limit, spent = spec.limits[metric], row.used - row.unspent - row.lost
    return BudgetView(
        scope=row.key.scope,
        metric=metric,
        per=spec.window,
        is_hard=spec.is_hard,
        limit=limit,
        spent=spent,
        held=row.unspent,
        lost=row.lost,
        left=max(0, limit - row.used),
        window_start=datetime.fromtimestamp(starts, UTC) if starts is not None else None,
        resets_at=datetime.fromtimestamp(ends, UTC) if ends is not None else None,
        actions=tuple(mark.do for mark in spec.thresholds if mark.do != "notify" and spent >= mark.at * limit),
    )


def reset_of(node: Node) -> datetime | None:
    """When the window of a node ends; None where it never does."""
    return datetime.fromtimestamp(node.ends, UTC) if node.ends != float("inf") else None


def _want(claim: Claim, node: Node) -> Want:
    strict, metric = node.spec.is_strict, node.metric
    least = _least(claim, node)
    likely = max(least, claim.amount(metric, claim.likely, is_strict=strict))
    return Want(least, likely, max(likely, claim.amount(metric, claim.most, is_strict=strict)))


def _least(claim: Claim, node: Node) -> int:
    """The least that a call must find. One that nobody can judge yet must find all it may use, or a good part of the
    budget: else the first calls of every process could pass the end of it together."""
    strict, metric = node.spec.is_strict, node.metric
    least = claim.amount(metric, claim.least, is_strict=strict)
    if not claim.is_unknown or metric == "requests":
        return least
    return max(least, min(claim.amount(metric, claim.most, is_strict=strict), node.limit // _UNKNOWN_SHARE))


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
