"""A simulated provider for code that is not async: it runs in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nightkeep.testing.sim.scenario import Scenario
from nightkeep.testing.sim.server import RunningSim, start_sim

__all__ = ["running_sim"]


@contextmanager
def running_sim(scenario: Scenario | None = None) -> Iterator[RunningSim]:
    """Run a simulated provider while the block runs; read its ``log`` and ``book`` when requests are over."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="nightkeep-sim", daemon=True)
    thread.start()
    try:
        sim = asyncio.run_coroutine_threadsafe(start_sim(scenario), loop).result(10)
        try:
            yield sim
        finally:
            asyncio.run_coroutine_threadsafe(sim.close(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
