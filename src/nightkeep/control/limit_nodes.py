"""What is limited, and which limits lie on the path of a scope.

A ``LimitSpec`` is one configured limit; where it holds for each child of a scope apart (``acme/*``), every child that
is seen gets a ``LimitNode`` of its own. ``LimitTable`` finds the nodes of a scope and forgets those that count nothing.
Who waits for them is the business of ``nightkeep.control.limit_lines``, permits are that of ``…control.limits``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from nightkeep.control.meters import NO_LIMIT, Limits, Meter, MeterEntry
from nightkeep.core.scope import ROOT, is_within

if TYPE_CHECKING:
    from nightkeep.control.limit_lines import Line

__all__ = ["MOST_NODES", "LimitNode", "LimitSpec", "LimitTable", "LimitView"]

MOST_NODES: Final = 20_000
"""So many scopes are counted apart; beyond it, new children of ``acme/*`` share one count until there is room."""
_MOST_KNOWN: Final = 4_096
_SWEEP_FROM: Final = 1_024
_SWEEP_S: Final = 1.0


class LimitSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One limit. ``scope`` ends with ``/*`` where each child has its own; ``*`` is each tenant."""

    name: str
    scope: str
    limits: Limits
    tags: frozenset[str] = frozenset()  # only calls with one of these count; empty: all

    @property
    def key(self) -> tuple[str, frozenset[str]]:
        """What makes it the same limit after the settings have changed."""
        return self.scope, self.tags

    @property
    def is_each(self) -> bool:
        """Whether each child of the scope is limited apart."""
        return self.scope == "*" or self.scope.endswith("/*")

    def place(self, scope: str, tag: str | None) -> str | None:
        """The scope that is counted for a call of ``scope``; None where the limit does not hold."""
        if self.tags and tag not in self.tags:
            return None
        if not self.is_each:
            return self.scope if is_within(scope, self.scope) else None
        if self.scope == "*":
            return None if scope == ROOT else scope.split("/", 1)[0]
        prefix = self.scope[:-1]
        return prefix + scope[len(prefix) :].split("/", 1)[0] if scope.startswith(prefix) else None


class LimitView(msgspec.Struct, frozen=True, kw_only=True):
    """One limit on one scope as it stands in this process; a limit that is None is not set."""

    name: str
    limit: str  # the configured scope, such as "acme/*"
    scope: str
    tags: tuple[str, ...]
    requests_per_minute: int | None
    requests_used: int
    tokens_per_minute: int | None
    tokens_used: int
    concurrent: int | None
    in_flight: int
    waiting: int


class LimitNode:
    """What one limit has counted for one scope, and the lines of those who wait for it."""

    __slots__ = ("depth", "in_flight", "lines", "meter", "most_in_flight", "scope", "serving", "since", "spec", "turns")

    def __init__(self, spec: LimitSpec, scope: str) -> None:
        self.scope = scope
        self.depth = 0 if scope == ROOT else scope.count("/") + 1
        self.in_flight = 0
        self.meter: Meter | None = None
        self.lines: dict[Line, None] = {}
        self.turns: dict[str, float] = {}  # child -> when its next turn begins
        self.serving = 0.0  # the turn that was served last
        self.since = 0  # places since the oldest had one
        self.most_in_flight = NO_LIMIT
        self.set_spec(spec)

    def set_spec(self, spec: LimitSpec) -> None:
        """Take a changed limit and keep what is counted."""
        limits = spec.limits
        self.spec = spec
        self.most_in_flight = NO_LIMIT if limits.concurrent is None else limits.concurrent
        if self.meter is not None:
            self.meter.set_limits(limits)
        elif limits.requests_per_minute is not None or limits.tokens_per_minute is not None:
            self.meter = Meter(limits)

    @property
    def is_shared(self) -> bool:
        """Whether it counts for all children that have no node of their own."""
        return self.spec.is_each and self.scope == self.spec.scope

    def is_ready(self, tokens: int, now: float) -> bool:
        """Whether one more call of ``tokens`` fits."""
        return self.in_flight < self.most_in_flight and (self.meter is None or self.meter.is_ready(tokens, now))

    def is_idle(self, now: float) -> bool:
        """Whether forgetting it changes nothing."""
        if self.in_flight or self.lines:
            return False
        return self.meter is None or self.meter.used(now) == (0, 0)

    def ready_at(self, tokens: int, now: float) -> float | None:
        """When the minute has room if every estimate was right; None where it has it already."""
        if self.meter is None or self.meter.is_ready(tokens, now):
            return None
        return self.meter.latest(tokens, now)

    def perhaps_at(self, tokens: int, now: float) -> float:
        """The first moment at which the minute may have room."""
        return now if self.meter is None else self.meter.earliest(tokens, now)

    def take(self, tokens: int, now: float) -> MeterEntry | None:
        """Count one call (after ``is_ready``)."""
        self.in_flight += 1
        return None if self.meter is None else self.meter.take(tokens, now)

    def view(self, now: float) -> LimitView:
        """What it counts now."""
        requests, tokens = self.meter.used(now) if self.meter is not None else (0, 0)
        return _view(
            self.spec, self.scope, requests, tokens, self.in_flight, sum(len(line.waiters) for line in self.lines)
        )


def _view(spec: LimitSpec, scope: str, requests: int, tokens: int, in_flight: int, waiting: int) -> LimitView:
    return LimitView(
        name=spec.name,
        limit=spec.scope,
        scope=scope,
        tags=tuple(sorted(spec.tags)),
        requests_per_minute=spec.limits.requests_per_minute,
        requests_used=requests,
        tokens_per_minute=spec.limits.tokens_per_minute,
        tokens_used=tokens,
        concurrent=spec.limits.concurrent,
        in_flight=in_flight,
        waiting=waiting,
    )


class LimitTable:
    """The nodes of all limits. ``known`` is the cache of the hot path: (scope, tag) to nodes, narrowest first."""

    __slots__ = ("_most_nodes", "_nodes", "_specs", "_sweep_at", "_swept", "known")

    def __init__(self, specs: Sequence[LimitSpec], most_nodes: int = MOST_NODES) -> None:
        self.known: dict[tuple[str, str | None], tuple[LimitNode, ...]] = {}
        self._nodes: dict[tuple[tuple[str, frozenset[str]], str], LimitNode] = {}
        self._most_nodes = most_nodes
        self._sweep_at = _SWEEP_FROM
        self._swept = 0.0
        self._specs = tuple(specs)

    @property
    def size(self) -> int:
        """How many scopes are counted apart."""
        return len(self._nodes)

    def reconfigure(self, specs: Sequence[LimitSpec]) -> None:
        """Take other limits; what stays the same limit keeps its counts."""
        by_key = {spec.key: spec for spec in specs}
        self._nodes = {key: node for key, node in self._nodes.items() if key[0] in by_key}
        for (key, _), node in self._nodes.items():
            node.set_spec(by_key[key])
        self._specs = tuple(specs)
        self.known.clear()

    def resolve(self, scope: str, tag: str | None, now: float) -> tuple[LimitNode, ...]:
        """Return the nodes that a call passes, narrowest first."""
        found = self.known.get((scope, tag))
        if found is not None:
            return found
        places = [(spec, place) for spec in self._specs if (place := spec.place(scope, tag)) is not None]
        nodes = tuple(sorted((self._node(*each, now) for each in places), key=lambda node: -node.depth))
        if any(node.is_shared for node in nodes):
            return nodes  # to be looked at again: it gets its own when there is room
        if len(self.known) >= _MOST_KNOWN:
            self.known.clear()
        self.known[scope, tag] = nodes
        return nodes

    def _node(self, spec: LimitSpec, scope: str, now: float) -> LimitNode:
        node = self._nodes.get((spec.key, scope))
        if node is not None:
            return node
        if len(self._nodes) >= self._sweep_at and now >= self._swept + _SWEEP_S:
            self._sweep(now)
        if spec.is_each:
            scope = self._own_or_rest(spec, scope, now)
        return self._nodes.setdefault((spec.key, scope), LimitNode(spec, scope))

    def _own_or_rest(self, spec: LimitSpec, scope: str, now: float) -> str:
        """A new child's own place, or the one that is shared while there are too many.

        As long as the shared one counts anything, new children go there: nobody gets a second, fresh minute.
        """
        rest = self._nodes.get((spec.key, spec.scope))
        if rest is not None and rest.is_idle(now):
            self._sweep(now)
            rest = None
        return spec.scope if rest is not None or len(self._nodes) >= self._most_nodes else scope

    def _sweep(self, now: float) -> None:
        self._nodes = {key: node for key, node in self._nodes.items() if not node.is_idle(now)}
        self.known.clear()
        self._swept = now
        self._sweep_at = min(max(_SWEEP_FROM, 2 * len(self._nodes)), self._most_nodes)

    def views(self, now: float) -> Iterable[LimitView]:
        """Every limit with what it counts; those that count nothing once, with the scope that is configured."""
        busy: set[tuple[str, frozenset[str]]] = set()
        for (key, _), node in self._nodes.items():
            if not node.is_idle(now):
                busy.add(key)
                yield node.view(now)
        for spec in self._specs:
            if spec.key not in busy:
                yield _view(spec, spec.scope, 0, 0, 0, 0)
