"""Switches at the API: what is stopped, stopping, resuming, and who did it when. For the operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from nightkeep.control.stops import Stop, make_target
from nightkeep.control.switch_rows import Use
from nightkeep.control.switches import Switchboard
from nightkeep.core.errors import RequestError
from nightkeep.server.api import Route

__all__ = ["ResumeWish", "StopWish", "Switches", "switch_routes"]

_MOST_USES = 1_000
_WHO = "operator"
Source = Literal["command", "api"]


class Switches(msgspec.Struct, frozen=True, kw_only=True):
    """What is stopped now; ``generation`` grows with each change in this process."""

    stops: tuple[Stop, ...]
    generation: int


class StopWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be stopped: a scope with all that is below it, or a model, account, tag or tool (a name or a glob)."""

    kind: str = "scope"
    name: str
    why: str = ""
    by: str = ""  # as the asker says; all of them show the same token
    source: Source = "api"
    drain: bool = False  # calls in flight may end as they will
    dry_run: bool = False


class StopDone(msgspec.Struct, frozen=True, kw_only=True):
    """What holds now. ``stop`` is None in a dry run of what is not stopped yet."""

    target: str
    stop: Stop | None
    is_new: bool  # it was not stopped before, or not this hard
    ended: int = 0  # calls in flight in this process that were cut
    dry_run: bool = False


class ResumeWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to go on: exactly what was stopped, or everything (``all``)."""

    kind: str = "scope"
    name: str | None = None
    all: bool = False
    why: str = ""
    by: str = ""
    source: Source = "api"
    dry_run: bool = False


class ResumeDone(msgspec.Struct, frozen=True, kw_only=True):
    """The stops that ended, and one that still holds over what was to go on."""

    target: str
    resumed: tuple[Stop, ...]
    still: Stop | None
    dry_run: bool = False


class LogPage(msgspec.Struct, frozen=True, kw_only=True):
    """How many uses to show."""

    limit: int = 100


class SwitchLog(msgspec.Struct, frozen=True, kw_only=True):
    """Uses of switches, newest first."""

    uses: list[Use]


def switch_routes(board: Switchboard, ended: Callable[[Stop], int] = lambda _: 0) -> list[Route]:
    """The operations on switches; ``ended`` tells how many calls in flight a stop has just cut here."""
    api = _Endpoints(board, ended)
    return [
        Route(method="GET", path="/api/switches", summary="What is stopped", handler=api.list_switches, gives=Switches),
        _post("/api/switches/stop", "Stop a scope, model, account, tag or tool", api.stop_target, StopDone, StopWish),
        _post("/api/switches/resume", "Let it go on", api.resume_target, ResumeDone, ResumeWish),
        Route(method="GET", path="/api/switches/log", summary="Who used a switch, when and why",
              handler=api.list_switch_uses, gives=SwitchLog, query=LogPage, needs="view"),
    ]  # fmt: skip


def _post(path: str, summary: str, handler: Any, gives: Any, takes: Any) -> Route:
    return Route(method="POST", path=path, summary=summary, handler=handler, gives=gives, takes=takes, needs="operator")


class _Endpoints:
    """One method for each operation."""

    def __init__(self, board: Switchboard, ended: Callable[[Stop], int]) -> None:
        self._board = board
        self._ended = ended

    async def list_switches(self) -> Switches:
        return Switches(stops=self._board.stops, generation=self._board.generation)

    async def stop_target(self, body: StopWish) -> StopDone:
        target = make_target(body.kind, body.name)
        if body.dry_run:
            there = next((stop for stop in self._board.stops if stop.target == target), None)
            return StopDone(target=str(target), stop=there, is_new=there is None, dry_run=True)
        done = await self._board.stop(
            body.kind, body.name, by=body.by or _WHO, why=body.why, source=body.source, drain=body.drain
        )
        is_new = done.verb != "stopped again"
        ended = self._ended(done.stop) if is_new and not done.stop.drain else 0
        return StopDone(target=str(target), stop=done.stop, is_new=is_new, ended=ended)

    async def resume_target(self, body: ResumeWish) -> ResumeDone:
        if body.all == (body.name is not None):
            raise RequestError("say what is to go on: a kind and name, or all = true")
        target = None if body.name is None else make_target(body.kind, body.name)
        words = "all" if target is None else str(target)
        if body.dry_run:
            found = tuple(stop for stop in self._board.stops if target in (None, stop.target))
            return ResumeDone(target=words, resumed=found, still=None, dry_run=True)
        hand = {"by": body.by or _WHO, "why": body.why, "source": body.source}
        if target is None:
            resumed = await self._board.resume_all(**hand)
            return ResumeDone(target=words, resumed=resumed, still=next(iter(self._board.stops), None))
        resumed = await self._board.resume(target.kind, target.name, **hand)
        return ResumeDone(target=words, resumed=resumed, still=self._board.over(target))

    async def list_switch_uses(self, query: LogPage) -> SwitchLog:
        if not 0 < query.limit <= _MOST_USES:
            raise RequestError(f"limit is between 1 and {_MOST_USES}")
        return SwitchLog(uses=await self._board.history(query.limit))
