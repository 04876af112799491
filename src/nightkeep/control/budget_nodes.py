"""Budgets in memory: which of them stand above a call, and what this process holds of each.

A node is one budget, of one scope, in one window. Windows are found by the wall clock; since each is a row of its own
on disk, a clock that jumps forward and back finds in the old window what was spent there. Values and bookkeeping only:
waiting and the store are ``nightkeep.control.budgets``'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from nightkeep.control.budget_leases import Drawn, WindowKey
from nightkeep.control.budget_specs import Action, BudgetSpec, Metric, Threshold
from nightkeep.core.scope import ROOT, is_within, parents
from nightkeep.core.windows import calendar_window

__all__ = ["ANYBODY", "BudgetTable", "KeyBudget", "Node", "Slice", "instance_of", "is_instance", "window_of"]

ANYBODY: Final = ""
"""The class of calls that have no reserve of their own."""

_NEVER: Final = float("inf")
_MOST_PATHS: Final = 4_096


class Slice:
    """What this process has taken of a node for one class of calls."""

    __slots__ = (
        "granted", "held", "is_refilling", "kind", "line", "node", "refill_at", "spent", "told_spent", "used_at",
    )  # fmt: skip

    def __init__(self, node: Node, kind: str) -> None:
        self.node = node
        self.kind = kind
        self.granted = 0
        self.spent = 0
        self.held = 0
        self.refill_at = 0  # free amount below which more is taken ahead; 0: near the limit nothing is
        self.is_refilling = False
        self.told_spent = 0  # what the store knows of it
        self.used_at = 0.0  # monotonic seconds
        self.line: deque[Any] = deque()  # who waits for it, the first one first

    @property
    def free(self) -> int:
        """What can be held now."""
        return self.granted - self.spent - self.held


class Node:
    """One budget of one scope in one window."""

    __slots__ = (
        "actions",
        "elsewhere",
        "ends",
        "is_loaded",
        "key",
        "limit",
        "looked_at",
        "lost",
        "marks",
        "metric",
        "next_mark",
        "own",
        "slices",
        "spec",
        "starts",
    )

    def __init__(self, spec: BudgetSpec, metric: Metric, key: WindowKey, starts: float, ends: float) -> None:
        self.spec = spec
        self.metric: Metric = metric
        self.key = key
        self.starts = starts
        self.ends = ends
        self.limit = spec.limits[metric]
        self.slices: dict[str, Slice] = {}
        self.own = 0  # spent by this process's slices
        self.elsewhere = 0  # spent by others, and before; only grows within a window
        self.lost = 0
        self.is_loaded = False
        self.looked_at = -_NEVER  # monotonic seconds
        self.marks: tuple[Threshold, ...] = tuple(sorted(spec.thresholds, key=lambda threshold: threshold.at))
        self.next_mark: float = self._amount_at(0)
        self.actions: tuple[Threshold, ...] = ()

    @property
    def spent(self) -> int:
        """What is spent for certain, as far as this process knows."""
        return self.elsewhere + self.own

    @property
    def held(self) -> int:
        """What calls of this process hold."""
        return sum([part.held for part in self.slices.values()])

    def slice_for(self, tag: str | None) -> Slice:
        """The slice that a call with this tag takes from."""
        is_kept = tag is not None and self.metric == "usd" and tag in self.spec.reserve
        kind = tag if is_kept and tag is not None else ANYBODY
        found = self.slices.get(kind)
        if found is None:
            found = self.slices[kind] = Slice(self, kind)
        return found

    def limit_for(self, kind: str) -> int:
        """The limit less what only other tags may use. A soft budget has none."""
        if not self.spec.is_hard:
            return 1 << 62
        if not self.spec.reserve or self.metric != "usd":
            return self.limit
        return self.limit - sum(amount for tag, amount in self.spec.reserve.items() if tag != kind)

    def sure_left(self, kind: str) -> int:
        """What could still come free in this window, at the most."""
        return self.limit_for(kind) - self.spent

    def learn(self, drawn: Drawn, now: float) -> None:
        """Take what the store knows."""
        self.elsewhere, self.lost, self.is_loaded, self.looked_at = drawn.elsewhere, drawn.lost, True, now

    def pass_marks(self) -> list[Threshold]:
        """The thresholds that were passed since the last time; their actions are in force from now on."""
        spent = self.spent
        passed = [mark for mark in self.marks if mark not in self.actions and spent >= mark.at * self.limit]
        if passed:
            self.actions = tuple(mark for mark in self.marks if spent >= mark.at * self.limit)
        self.next_mark = self._amount_at(len(self.actions))
        return passed

    def _amount_at(self, index: int) -> float:
        return self.marks[index].at * self.limit if index < len(self.marks) else _NEVER

    def action(self, kind: Action) -> Threshold | None:
        """The threshold in force that asks for an action."""
        return next((mark for mark in self.actions if mark.do == kind), None)


class KeyBudget(NamedTuple):
    """What a virtual key may spend in a day, wherever it is used."""

    name: str
    micro_usd_per_day: int


class BudgetTable:
    """All budgets, and the nodes that are in use."""

    def __init__(self, specs: Sequence[BudgetSpec]) -> None:
        self.specs = tuple(specs)
        self._by_run = any(spec.per == "run" for spec in specs)
        self._nodes: dict[tuple[int, Metric, str], Node] = {}
        self._paths: dict[tuple[str, str | None, KeyBudget | None], tuple[float, float, tuple[Node, ...]]] = {}
        self.of_keys: dict[str, BudgetSpec] = {}  # budgets of virtual keys, by name; as they were used last
        self.retired: list[Node] = []  # of windows that are over, until nothing is held in them

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def keys(self, scope: str, run: str | None, at: float) -> Iterator[tuple[WindowKey, Metric]]:
        """The windows that a call of the past was counted in; makes no nodes."""
        for spec in self.specs:
            instance = node_of(spec, scope, run)
            if instance is None:
                continue
            for metric in spec.limits:
                yield WindowKey(instance, metric, spec.book, int(window_of(spec, at)[0] or 0)), metric

    def path(self, scope: str, run: str | None, now: float, holder: KeyBudget | None = None) -> tuple[Node, ...]:
        """The nodes above a call, those of its own scope first. ``now`` is in epoch seconds.

        ``holder``: the virtual key that asks, where that has a budget of its own.
        """
        key = (scope, run if self._by_run else None, holder)
        found = self._paths.get(key)
        if found is not None and found[0] <= now < found[1]:
            return found[2]
        nodes = tuple(self._find(scope, run, now))
        if holder is not None:
            nodes += (self._node_of_key(holder, now),)
        if len(self._paths) >= _MOST_PATHS:  # names come from clients
            self._paths.clear()
        starts = max((node.starts for node in nodes), default=-_NEVER)
        self._paths[key] = (starts, min((node.ends for node in nodes), default=_NEVER), nodes)
        return nodes

    def _find(self, scope: str, run: str | None, now: float) -> Iterator[Node]:
        for index, spec in enumerate(self.specs):
            instance = node_of(spec, scope, run)
            if instance is None:
                continue
            for metric in spec.limits:
                yield self._node(index, spec, metric, instance, now)

    def _node_of_key(self, holder: KeyBudget, now: float) -> Node:
        spec = self.of_keys.get(holder.name)
        if spec is None or spec.limits["usd"] != holder.micro_usd_per_day:
            limits: dict[Metric, int] = {"usd": holder.micro_usd_per_day}
            spec = self.of_keys[holder.name] = BudgetSpec(scope=f"key:{holder.name}", per="day", limits=limits)
        node = self._node(-1, spec, "usd", spec.scope, now)
        node.spec, node.limit = spec, spec.limits["usd"]
        return node

    def _node(self, index: int, spec: BudgetSpec, metric: Metric, instance: str, now: float) -> Node:
        place = (index, metric, instance)
        node = self._nodes.get(place)
        if node is not None:
            if node.starts <= now < node.ends:
                return node
            self.retired.append(node)
        starts, ends = window_of(spec, now)
        key = WindowKey(instance, metric, spec.book, int(starts or 0))
        # A window that comes back (a clock that was set back) is the same one, with what is held in it.
        node = next((old for old in self.retired if old.key == key), None)
        if node is None:
            node = Node(spec, metric, key, -_NEVER if starts is None else starts, _NEVER if ends is None else ends)
        else:
            self.retired.remove(node)
        self._nodes[place] = node
        return node

    def drop(self, node: Node) -> None:
        """Forget a node that nobody uses; it is found again when it is needed."""
        self._nodes = {place: kept for place, kept in self._nodes.items() if kept is not node}
        self._paths.clear()


def node_of(spec: BudgetSpec, scope: str, run: str | None) -> str | None:
    """The node of a budget that a call belongs to, as a scope; None where the budget is not above it."""
    instance = instance_of(spec.scope, scope)
    if instance is None or spec.per != "run":
        return instance
    if run is None:
        return None
    return f"{'' if instance == ROOT else instance}/{run}".lstrip("/")


def is_instance(spec: BudgetSpec, scope: str) -> bool:
    """Whether a scope is a node of this budget; one of runs has a node for each run below it."""
    if spec.per == "run":
        above = scope.rpartition("/")[0] or ROOT
        return instance_of(spec.scope, above) == above
    return instance_of(spec.scope, scope) == scope


def window_of(spec: BudgetSpec, now: float) -> tuple[float | None, float | None]:
    """Start and end of a budget's window (epoch seconds); None where it has only one."""
    if spec.per == "run" or spec.per == "once":
        return None, None
    return calendar_window(spec.per, now, spec.resets_at, spec.resets_on)


def instance_of(pattern: str, scope: str) -> str | None:
    """The node of a budget that a scope belongs to; None where the budget is not above it.

    ``acme/*`` is every child of ``acme``, each with a budget of its own; ``*`` every child of ``/``.
    """
    base, is_each = pattern, False
    if pattern == "*":
        base, is_each = ROOT, True
    elif pattern.endswith("/*"):
        base, is_each = pattern[:-2], True
    if not is_within(scope, base):
        return None
    if not is_each:
        return base
    if scope == base:
        return None
    depth = 0 if base == ROOT else base.count("/") + 1
    return next(parent for parent in parents(scope) if parent != ROOT and parent.count("/") == depth)
