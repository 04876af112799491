"""The dead man's switch: a ping to a monitor elsewhere while all is well, so that silence is noticed.

It stops when the gateway is not healthy, and of course when the gateway, its machine or its network is gone: the
monitor (healthchecks.io, Cronitor, an Uptime Kuma push address) then tells somebody. It makes no model call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal

import msgspec

from nightkeep.core.clock import Clock
from nightkeep.models.transport import HttpClient
from nightkeep.ops.alert_channels import ask
from nightkeep.ops.alert_courier import Pause

__all__ = ["Heartbeat", "HeartbeatView"]

log = logging.getLogger("nightkeep.alerts")

_FAILURES_TO_TELL: Final = 3


class HeartbeatView(msgspec.Struct, frozen=True, kw_only=True):
    """How the pings go. ``withheld``: the gateway is not healthy, so none is sent."""

    state: Literal["waiting", "ok", "failing", "withheld"]
    every_s: float
    last_ok_at: datetime | None = None
    why: str = ""


class Heartbeat:
    """Pings an address every so many seconds."""

    def __init__(
        self,
        client: HttpClient,
        address: str,
        every_s: float,
        clock: Clock,
        trouble: Callable[[], str],
        tell: Callable[[str], None],
        pause: Pause = asyncio.sleep,
    ) -> None:
        """``trouble`` says why the gateway is not healthy, empty while it is; ``tell`` is told why pings fail.

        ``tell`` gets the reason after three failures in a row, and an empty text when pings arrive again.
        """
        self.view = HeartbeatView(state="waiting", every_s=every_s)
        self._client = client
        self._address = address
        self._every_s = every_s
        self._clock = clock
        self._trouble = trouble
        self._tell = tell
        self._pause = pause
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ping, at once."""
        self._task = asyncio.ensure_future(self._go_on())

    async def _go_on(self) -> None:
        while True:
            await self.ping()
            await self._pause(self._every_s)

    async def ping(self) -> None:
        """One ping, or none where the gateway is not healthy."""
        trouble = self._trouble()
        last = self.view.last_ok_at
        if trouble:
            if self.view.state != "withheld":
                log.error("the dead man's switch is no longer pinged: %s", trouble)
            self.view = HeartbeatView(state="withheld", every_s=self._every_s, last_ok_at=last, why=trouble)
            return
        error = await ask(self._client, "GET", self._address)
        if error:
            self._failures += 1
            self.view = HeartbeatView(state="failing", every_s=self._every_s, last_ok_at=last, why=error)
            if self._failures == _FAILURES_TO_TELL:
                self._tell(error)
            return
        if self._failures >= _FAILURES_TO_TELL:
            self._tell("")
        self._failures = 0
        self.view = HeartbeatView(state="ok", every_s=self._every_s, last_ok_at=self._clock.now())

    def close(self) -> None:
        """Stop; the monitor will say so, as it should."""
        if self._task is not None:
            self._task.cancel()
