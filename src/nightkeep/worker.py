"""One of several gateway processes on one data directory and one port; ``nightkeep.supervisor`` starts it.

What it is to do comes as one line of JSON on standard input; when standard input ends, its supervisor has died and it
ends, too. It answers with one line on standard output when it serves.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from nightkeep.bootstrap import Membership, Running, start
from nightkeep.config import load
from nightkeep.core.errors import NightkeepError

__all__ = ["Orders", "main"]

log = logging.getLogger("nightkeep")


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor tells a worker."""

    config: str | None
    data: str
    overrides: dict[str, Any]
    slot: int  # from 0
    workers: int
    listen_fd: int
    sim_url: str | None = None  # of the simulated provider that the workers share
    owner: str


def main() -> None:
    """Serve until told to stop, or until the supervisor is gone."""
    orders = msgspec.json.decode(sys.stdin.buffer.readline(), type=Orders)
    form = f"%(asctime)s %(levelname)s [worker {orders.slot}] %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, stream=sys.stderr)
    try:
        uvloop.run(_serve(orders))
    except NightkeepError as error:
        sys.stderr.write(f"error: {error.message}\n")
        sys.exit(1)


async def _serve(orders: Orders) -> None:
    environ = dict(os.environ)
    loaded = load(Path(orders.config) if orders.config else None, environ)
    member = Membership(
        owner=orders.owner,
        slot=orders.slot,
        workers=orders.workers,
        listener=socket.socket(fileno=orders.listen_fd),
        sim_url=orders.sim_url,
    )
    running = await start(loaded, environ, Path(orders.data), orders.overrides, member)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: running.reload_soon("SIGHUP"))
    if running.switches is not None:
        loop.add_signal_handler(signal.SIGUSR1, running.switches.signal_stop)
        loop.add_signal_handler(signal.SIGUSR2, running.switches.signal_resume)
    orphaned = asyncio.ensure_future(_wait_for_end_of_input(stop))
    sys.stdout.write(json.dumps({"pid": os.getpid(), "address": running.address}) + "\n")
    sys.stdout.flush()
    watching = asyncio.ensure_future(running.watch())
    await stop.wait()
    watching.cancel()
    orphaned.cancel()
    await _close(running)


async def _wait_for_end_of_input(stop: asyncio.Event) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    log.warning("the supervisor is gone: this worker ends")
    stop.set()


async def _close(running: Running) -> None:
    log.info("stopping: answers in flight have 10 s to end")
    await running.close()


if __name__ == "__main__":
    main()
