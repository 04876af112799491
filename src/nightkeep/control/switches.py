"""The switches of a running gateway: what is stopped, thrown and seen in every process within a second.

A stop holds in this process before it is written, and is durable before ``stop`` returns; a resume is durable before it
holds. What other processes of one database do is looked for five times a second, and so is the file ``STOP``
(``control.stop_file``). Where neither can be told for two seconds, everything counts as stopped (law 7). What a stop
covers: ``control.stops``. Calls in flight are ended by ``listeners`` (``control.stops_in_force``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from nightkeep.control.stop_file import StopFile, remove_stop_file
from nightkeep.control.stops import Stop, Target, clipped, make_target
from nightkeep.control.stops_in_force import EVERYTHING, StopsInForce
from nightkeep.control.switch_rows import (
    SELECT_LOG,
    SELECT_STOPS,
    SELECT_VERSION,
    Hand,
    Use,
    Verb,
    add_stop,
    end_stops,
    note,
    read_stop,
    read_use,
)
from nightkeep.core.clock import Clock, Randomness, new_id
from nightkeep.core.errors import StoreError
from nightkeep.store.port import WatchedStore

__all__ = ["Stopped", "Switchboard"]

log = logging.getLogger("nightkeep.switches")

_LOOK_S: Final = 0.2
_BLIND_S: Final = 2.0
_BLIND_LOOKS: Final = 3  # so that a process that was itself asleep looks again before it refuses
_MOST_WHY: Final = 500
_MOST_BY: Final = 80
T = TypeVar("T")


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a stop."""

    stop: Stop  # the one that holds: the first, where there was one
    verb: Verb

    @property
    def is_new(self) -> bool:
        """It was not stopped before."""
        return self.verb == "stopped"


class Switchboard(StopsInForce):
    """The stops in force in this process, in step with the store and the file."""

    def __init__(
        self, store: WatchedStore, directory: Path, clock: Clock, randomness: Randomness, *, look_s: float = _LOOK_S
    ) -> None:
        super().__init__()
        self._store = store
        self._directory = directory
        self._file = StopFile(directory)
        self._clock = clock
        self._randomness = randomness
        self._look_s = look_s
        self._version: int | None = None
        self._looked = clock.monotonic()
        self._missed = 0
        self._change = asyncio.Lock()  # one change of this process at a time
        self._reading = asyncio.Lock()  # an older reading must not overtake a newer
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watching: asyncio.Task[None] | None = None

    async def history(self, limit: int = 100) -> list[Use]:
        """The uses of switches, newest first. Raises StoreError."""
        return [read_use(row) for row in await self._store.read(SELECT_LOG, [limit])]

    # -- what people and rules do

    async def stop(
        self, kind: str, name: str, *, by: str, why: str = "", source: str = "api", drain: bool = False
    ) -> Stopped:
        """Stop a target: at once here, durably before this returns. What was stopped before keeps its first stop.

        Raises:
            RequestError: the target is not possible.
            StoreError: it holds here, but could not be written down; it is tried again with each look.
        """
        target = make_target(kind, name)
        stop = self._made(target, self._hand(by, why, source), drain=drain)
        held = self._hold(stop)
        return await asyncio.shield(self._later(self._keep(stop, held)))

    async def resume(self, kind: str, name: str, *, by: str, why: str = "", source: str = "api") -> tuple[Stop, ...]:
        """End every stop of exactly this target, whoever made it; that of ``/`` takes the STOP file away, too.

        Raises:
            RequestError: the target is not possible.
            StoreError: it could not be written, so all is as it was; or the STOP file cannot be removed.
        """
        return await asyncio.shield(self._later(self._resume(make_target(kind, name), self._hand(by, why, source))))

    async def resume_all(self, *, by: str, why: str = "", source: str = "api") -> tuple[Stop, ...]:
        """End every stop. Raises StoreError, as ``resume``."""
        return await asyncio.shield(self._later(self._resume(None, self._hand(by, why, source))))

    async def release(self, kind: str, name: str, *, by: str, why: str = "", source: str) -> tuple[Stop, ...]:
        """End what one source stopped (``rule:NAME``), and leave what others did. Raises as ``resume``."""
        hand = self._hand(by, why, source)
        return await asyncio.shield(self._later(self._resume(make_target(kind, name), hand, family=source)))

    def signal_stop(self) -> None:
        """From a signal handler: stop everything at once, and write it down as soon as that can be done."""
        stop = self._made(EVERYTHING, self._hand("whoever sent SIGUSR1", "stopped by a signal", "signal"), drain=False)
        log.warning("everything is stopped: SIGUSR1; SIGUSR2 or 'nightkeep resume /' ends it")
        held = self._hold(stop)
        self._later(self._keep(stop, held))

    def signal_resume(self) -> None:
        """From a signal handler: end what a signal stopped."""
        log.warning("what a signal had stopped is resumed: SIGUSR2")
        self._later(self._resume(EVERYTHING, self._hand("whoever sent SIGUSR2", "", "signal"), family="signal"))

    # -- life

    async def restore(self) -> None:
        """Read what is stopped, at the start. Raises StoreError: then nothing may be served."""
        await self._read()
        self._take_file()
        self._looked = self._clock.monotonic()

    def start(self) -> None:
        """Begin to watch."""
        self._watching = asyncio.ensure_future(self.watch())

    async def close(self) -> None:
        """Stop watching, and let what is being written be written; before the store closes."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def watch(self) -> None:
        """Take what other processes and the file change, until cancelled. A look that hangs counts as a failed one."""
        looking: asyncio.Task[None] | None = None
        try:
            while True:
                if looking is None or looking.done():
                    looking = asyncio.ensure_future(self.look())
                await asyncio.wait({looking}, timeout=self._look_s)
                if not looking.done():
                    self._miss("the store does not answer")
                await asyncio.sleep(self._look_s)
        finally:
            if looking is not None:
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)

    async def look(self) -> None:
        """Look once; a failure is counted."""
        try:
            self._take_file()
            if await self._current_version() != self._version:
                await self._read()
        except StoreError as error:
            self._miss(error.message)
            return
        except Exception as error:  # whatever it is: it must not end the watch
            log.exception("a look at the switches failed")
            self._miss(repr(error))
            return
        self._looked = self._clock.monotonic()
        self._missed = 0
        if self._blind is not None:
            log.warning("switches can be read again")
            self._blind = None
            self._take()
        if self._unwritten() and not self._change.locked():
            self._later(self._keep_held())

    # -- how it is done

    def _hand(self, by: str, why: str, source: str) -> Hand:
        return Hand(by=clipped(by, _MOST_BY) or "?", why=clipped(why, _MOST_WHY), source=source, at=self._clock.now())

    def _made(self, target: Target, hand: Hand, *, drain: bool) -> Stop:
        return Stop(
            id=new_id("stop", hand.at, self._randomness),
            kind=target.kind,
            name=target.name,
            why=hand.why,
            by=hand.by,
            since=hand.at,
            drain=drain,
            source=hand.source,
        )

    async def _keep(self, stop: Stop, held: Stop) -> Stopped:
        async with self._change:
            try:
                first, verb = await self._store.write(lambda transaction: add_stop(transaction, stop))
            except StoreError as error:
                raise StoreError(
                    f"{stop.target} is stopped in this process, but that could not be written down: {error.message}. "
                    "It is tried again; until then a restart would lose it, and other processes do not see it",
                    **error.data,
                ) from error
            self._written.add(held.id)
            await self._read_back()
        if verb != "stopped again":
            log.warning(
                "%s is stopped by %s (%s): %s", first.target, stop.by, stop.source, stop.why or "no reason given"
            )
        return Stopped(stop=first, verb=verb)

    async def _keep_held(self) -> None:
        """Write what could not be written before."""
        for stop in self._unwritten():
            if not self._change.locked() and self._is_held(stop):
                await self._keep(stop, stop)

    async def _resume(self, target: Target | None, hand: Hand, family: str | None = None) -> tuple[Stop, ...]:
        async with self._change:
            beside = self._held_of(target, family)
            ended = await self._store.write(lambda t: end_stops(t, target, family, hand, is_held=bool(beside)))
            gone = {stop.id: stop for stop in (*ended, *beside)}
            self._drop(set(gone))
            if family is None and target in (None, EVERYTHING):
                remove_stop_file(self._directory)
                self._by_file = self._file.look(hand.at)
                self._take()
            await self._read_back()
        for stop in gone.values():
            log.warning("%s is resumed by %s (%s)", stop.target, hand.by, hand.source)
        return tuple(gone.values())

    def _take_file(self) -> None:
        before, self._by_file = self._by_file, self._file.look(self._clock.now())
        if before is self._by_file:
            return
        self._take()
        now, there = self._clock.now(), self._by_file
        if there is None:
            self._note("resumed", Hand(by="?", why="the file STOP is gone", source="file", at=now))
        elif before is None:
            self._note("stopped", Hand(by=there.by, why=there.why, source="file", at=now))

    def _note(self, verb: Verb, hand: Hand) -> None:
        log.warning("the file STOP: everything is %s: %s", verb, hand.why or "no reason given")
        self._store.post(lambda transaction: note(transaction, verb, EVERYTHING, hand))

    def _miss(self, reason: str) -> None:
        self._missed += 1
        is_over = self._clock.monotonic() - self._looked > _BLIND_S
        if self._blind is not None or not is_over or self._missed < _BLIND_LOOKS:
            return
        log.error("switches cannot be read, so nothing is served: %s", reason)
        why = clipped(f"switches cannot be read ({reason})", _MOST_WHY)
        hand = Hand(by="nightkeep", why=why, source="store", at=self._clock.now())
        self._blind = self._made(EVERYTHING, hand, drain=True)
        self._take()

    async def _read_back(self) -> None:
        """Let what was written hold. Where that cannot be had soon, the next look does it."""
        try:
            async with asyncio.timeout(_BLIND_S):
                await self._read()
        except (StoreError, TimeoutError) as error:
            self._version = None
            log.warning("switches were written and cannot be read back: %s", error)

    async def _read(self) -> None:
        async with self._reading:
            settled = set(self._written)
            version = await self._current_version()  # before the rows: at worst they are read once more
            rows = await self._store.look(SELECT_STOPS)
            try:
                stored = [read_stop(row) for row in rows]
            except (msgspec.ValidationError, ValueError) as error:
                raise StoreError(f"a switch cannot be understood: {error}") from error
            self._version = version
            self._settle(stored, settled)

    async def _current_version(self) -> int:
        rows = await self._store.look(SELECT_VERSION)
        return int(rows[0][0] or 0)

    def _later(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin work that goes on, also where whoever asked for it hangs up."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a switch could not be written down: %s", error)
