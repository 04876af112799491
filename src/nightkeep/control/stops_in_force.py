"""What is stopped in this process, and what the hot path asks of it. No I/O; ``control.switches`` keeps it in step.

A stop is known from up to four places: the store, this process itself (thrown, and not read back yet), the file
``STOP``, and the board's own when switches cannot be read. Together they are what holds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from nightkeep.control.stops import Stop, StopIndex, Target, refusal
from nightkeep.core.scope import ROOT

__all__ = ["EVERYTHING", "StopsInForce"]

log = logging.getLogger("nightkeep.switches")

EVERYTHING: Final = Target("scope", ROOT)
_Key = tuple[str, str, str]


class StopsInForce:
    """The stops in force. For one event loop."""

    def __init__(self) -> None:
        self.generation = 0
        """Grows with each change of what is stopped."""
        self.listeners: list[Callable[[], object]] = []
        """Called on the event loop after each change; what they raise is logged."""
        self._index: StopIndex | None = None
        self._stored: dict[_Key, Stop] = {}
        self._held: dict[_Key, Stop] = {}  # thrown here, and not read back from the store yet
        self._written: set[str] = set()  # ids of held ones that are in the store
        self._by_file: Stop | None = None
        self._blind: Stop | None = None  # switches cannot be read

    def check(
        self,
        *,
        scope: str,
        tag: str | None,
        models: tuple[str, ...] = (),
        account: str | None = None,
        tool: str | None = None,
    ) -> None:
        """Raise StoppedError where a stop holds for an action; without any stop this costs one look at a field.

        ``models``: the alias that was asked for, and the targets (``provider/model``).
        """
        index = self._index
        if index is None:
            return
        found = index.find(scope, tag, models, account, tool)
        if found is not None:
            raise refusal(found)

    def find(
        self,
        *,
        scope: str,
        tag: str | None,
        models: tuple[str, ...] = (),
        account: str | None = None,
        tool: str | None = None,
    ) -> Stop | None:
        """The stop that holds for an action, or None."""
        return None if self._index is None else self._index.find(scope, tag, models, account, tool)

    def over(self, target: Target) -> Stop | None:
        """The stop that holds for all that a target names, or None."""
        match target.kind:
            case "scope":
                return self.find(scope=target.name, tag=None)
            case "model":
                return self.find(scope=ROOT, tag=None, models=(target.name,))
            case "account":
                return self.find(scope=ROOT, tag=None, account=target.name)
            case "tag":
                return self.find(scope=ROOT, tag=target.name)
            case "tool":
                return self.find(scope=ROOT, tag=None, tool=target.name)

    @property
    def stops(self) -> tuple[Stop, ...]:
        """The stops in force."""
        return () if self._index is None else self._index.stops

    # -- for who keeps it in step

    def _hold(self, stop: Stop) -> Stop:
        """It holds from now on. An earlier one stays; it cuts from now on where this one does. The one that holds."""
        there = self._held.get(_key(stop)) or self._stored.get(_key(stop))
        if there is not None and (stop.drain or not there.drain):
            return there
        held = stop if there is None else msgspec.structs.replace(there, drain=False)
        self._held[_key(stop)] = held
        self._take()
        return held

    def _unwritten(self) -> list[Stop]:
        """Those that hold and are not in the store."""
        return [stop for stop in self._held.values() if stop.id not in self._written]

    def _is_held(self, stop: Stop) -> bool:
        return self._held.get(_key(stop)) is stop

    def _held_of(self, target: Target | None, family: str | None) -> list[Stop]:
        """Those that are not in the store, of a target (None: all) and a family (None: all)."""
        known = [*self._held.values(), *([self._by_file] if self._by_file else [])]
        return [stop for stop in known if target in (None, stop.target) and family in (None, stop.family)]

    def _settle(self, stored: Iterable[Stop], settled: set[str]) -> None:
        """The store was read; ``settled`` are the held ones that had been written before."""
        self._stored = {_key(stop): stop for stop in stored}
        self._held = {key: stop for key, stop in self._held.items() if stop.id not in settled}
        self._written -= settled
        self._take()

    def _drop(self, ids: set[str]) -> None:
        """These hold no more."""
        self._held, self._stored = (
            {key: stop for key, stop in stops.items() if stop.id not in ids} for stops in (self._held, self._stored)
        )
        self._take()

    def _take(self) -> None:
        """Let what is known hold, and tell the listeners where that is something new."""
        stops = [*({**self._stored, **self._held}).values()]
        stops += [stop for stop in (self._by_file, self._blind) if stop is not None]
        index = StopIndex(stops) if stops else None
        if (index.stops if index else ()) == self.stops:
            return
        self._index = index
        self.generation += 1
        for listener in list(self.listeners):
            try:
                listener()
            except Exception:
                log.exception("a listener of the switches failed")


def _key(stop: Stop) -> _Key:
    """One target can be held by several families."""
    return stop.kind, stop.name, stop.family
