"""Several gateway processes on one machine: one port, one data directory, and somebody who looks after them.

The supervisor owns the data directory and the listening socket, which the workers inherit: what arrives is accepted by
whoever is free, and a worker that dies loses its own connections only. It starts a dead worker again, but not for ever
(a loop of restarts is a fault of its own), and marks what the dead one held of budgets as lost.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from nightkeep.bootstrap import SystemClock, start_simulated
from nightkeep.config import Loaded
from nightkeep.control.budget_leases import BudgetLeases
from nightkeep.core.clock import new_id
from nightkeep.core.errors import ConfigError, StoreError
from nightkeep.models.budget_settlement import MARK_LENGTH
from nightkeep.models.call_rows import interrupted_by
from nightkeep.models.owners import Owners
from nightkeep.store.sqlite import SqliteStore
from nightkeep.testing.sim import RunningSim

__all__ = ["Supervisor"]

log = logging.getLogger("nightkeep")

_START_S: Final = 30.0
_END_S: Final = 15.0
_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 5.0
_MOST_DEATHS: Final = 10  # of one slot in a minute (W: 102 restarts in a loop)
_WINDOW_S: Final = 60.0


class Supervisor:
    """Looks after the workers of one gateway."""

    def __init__(
        self, loaded: Loaded, environ: Mapping[str, str], data: Path, overrides: Mapping[str, Any], workers: int
    ) -> None:
        gateway = loaded.settings.gateway
        self._loaded = loaded
        self._environ = environ
        self._data = data
        self._overrides = dict(overrides)
        self._workers = workers
        self._host = str(overrides.get("host", gateway.host))
        self._port = int(overrides.get("port", gateway.port))
        self._clock = SystemClock()
        self._randomness = random.Random()
        self._listener: socket.socket | None = None
        self._store: SqliteStore | None = None
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._stop = asyncio.Event()
        self._trouble = ""
        self._dead_slots: set[int] = set()
        self.sim: RunningSim | None = None

    @property
    def address(self) -> str:
        """Where the workers listen."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def pids(self) -> list[int]:
        """The processes of the workers."""
        return [process.pid for process in self._processes.values()]

    async def open(self) -> None:
        """Take the directory and the port. Raises ConflictError, StoreError, OSError (the port is taken)."""
        self._store = SqliteStore.open(self._data, self._clock, pid=os.getpid(), is_shared=True)
        self._owners = Owners(self._store, self._clock)
        self._leases = BudgetLeases(self._store, "", self._clock)
        dead = await self._owners.bury_all()
        await self._leases.mark_lost(None)
        await self._store.write(lambda transaction: transaction.execute(interrupted_by("")))
        if dead:
            log.warning("%d processes of the last run did not end in order", dead)
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._listener = listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self._host, self._port))
        listener.listen(2048)
        listener.setblocking(False)
        listener.set_inheritable(True)
        self._port = listener.getsockname()[1]
        self._overrides["port"] = self._port
        if self._loaded.settings.is_simulated:
            self.sim = await start_simulated(self._loaded.settings, self._loaded.base)

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Serve until told to stop; ``on_ready`` is called when all workers serve.

        Raises:
            ConfigError: a worker could not even start, or all of them died again and again.
        """
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, self._stop.set)
        for name in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            loop.add_signal_handler(name, self._pass_on, name)
        ready = [asyncio.Event() for _ in range(self._workers)]
        slots = [asyncio.ensure_future(self._look_after(slot, ready[slot])) for slot in range(self._workers)]
        announcing = asyncio.ensure_future(_announce(ready, on_ready))
        await self._stop.wait()
        announcing.cancel()
        self._pass_on(signal.SIGTERM)
        _, late = await asyncio.wait(slots, timeout=_END_S)
        if late:
            log.error("workers that did not end in %g s are killed", _END_S)
            self._pass_on(signal.SIGKILL)
            await asyncio.wait(slots)
        if self._trouble:
            raise ConfigError(self._trouble)

    def _pass_on(self, name: signal.Signals) -> None:
        for process in list(self._processes.values()):
            if process.returncode is None:
                process.send_signal(name)

    async def _look_after(self, slot: int, ready: asyncio.Event) -> None:
        """Keep one slot alive; gives up where it dies again and again."""
        deaths: deque[float] = deque()
        while not self._stop.is_set():
            owner = new_id("own", self._clock.now(), self._randomness)
            try:
                code = await self._run_worker(slot, owner, ready)
            except StoreError as error:
                log.error("worker %d: %s; it is tried again in a second", slot, error)
                await asyncio.sleep(1.0)
                continue
            await self._bury_surely(owner, code)
            if self._stop.is_set():
                return
            if not ready.is_set():
                self._give_up(f"worker {slot} could not start (it ended with {code}); its message stands above")
                return
            now = self._clock.monotonic()
            deaths.append(now)
            while deaths[0] < now - _WINDOW_S:
                deaths.popleft()
            if len(deaths) >= _MOST_DEATHS:
                log.critical(
                    "worker %d has died %d times in a minute and is not started again; see its log, then restart "
                    "'nightkeep up'",
                    slot,
                    len(deaths),
                )
                if len(self._dead_slots) + 1 == self._workers:
                    self._give_up("no worker is left")
                self._dead_slots.add(slot)
                return
            wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (len(deaths) - 1))
            log.error("worker %d has ended with %s; it is started again in %.1f s", slot, code, wait_s)
            await asyncio.sleep(wait_s)

    def _give_up(self, why: str) -> None:
        self._trouble = why
        self._stop.set()

    async def _run_worker(self, slot: int, owner: str, ready: asyncio.Event) -> int:
        assert self._listener is not None
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "nightkeep.worker"),
            env=dict(self._environ),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=(self._listener.fileno(),),
        )
        self._processes[slot] = process
        orders = {
            "config": str(self._loaded.path) if self._loaded.path else None,
            "data": str(self._data),
            "overrides": self._overrides,
            "slot": slot,
            "workers": self._workers,
            "listen_fd": self._listener.fileno(),
            "sim_url": self.sim.base_url if self.sim is not None else None,
            "owner": owner,
        }
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            await self._owners.begin(owner, slot, process.pid)
        except StoreError:
            process.kill()
            await process.wait()
            raise
        process.stdin.write(msgspec.json.encode(orders) + b"\n")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _START_S)
        except TimeoutError:
            log.error("worker %d does not start in %g s", slot, _START_S)
            process.kill()
            line = b""
        if line.startswith(b"{") and json.loads(line):
            ready.set()
        code = await process.wait()
        process.stdin.close()
        return code

    async def _bury_surely(self, owner: str, code: int) -> None:
        """Bury a worker, again and again while the store fails: one thought alive would keep its budgets and keys."""
        while True:
            try:
                await self._bury(owner, code)
                return
            except StoreError as error:
                log.error("what the worker %s leaves behind cannot be written down yet: %s", owner, error)
            if self._stop.is_set():
                return  # the next start buries all
            await asyncio.sleep(1.0)

    async def _bury(self, owner: str, code: int) -> None:
        """What a worker leaves behind: its end, the calls it was serving, what it held of budgets."""
        assert self._store is not None
        await self._owners.end(owner, "in order" if code == 0 else f"ended with {code}")
        if code == 0:
            return
        await self._leases.mark_lost([owner])
        mark = owner[-MARK_LENGTH:]
        await self._store.write(lambda transaction: transaction.execute(interrupted_by(mark)))

    async def close(self) -> None:
        """Let go of everything."""
        if self._listener is not None:
            self._listener.close()
        if self.sim is not None:
            await self.sim.close()
        if self._store is not None:
            await self._store.close()


async def _announce(events: list[asyncio.Event], on_ready: Callable[[], None]) -> None:
    for event in events:
        await event.wait()
    on_ready()
