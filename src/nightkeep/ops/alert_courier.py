"""The courier of one channel: takes messages without waiting, sends them one by one, never more than the hour allows.

What is held back by the limit, and what a failing channel did not take, ends in one summary when there is a place
again or the channel answers again. So a storm of ten thousand alerts is twenty messages an hour, and an outage of the
channel loses nothing but the wording.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from nightkeep.core.clock import Clock
from nightkeep.ops.alert_channels import Channel, ChannelSpec, Message
from nightkeep.ops.alert_rates import RateGate

__all__ = ["ChannelView", "Courier", "Pause"]

log = logging.getLogger("nightkeep.alerts")

Pause = Callable[[float], Awaitable[object]]
"""Lets seconds pass; ``asyncio.sleep``."""

_TRIES: Final = 3
_FIRST_PAUSE_S: Final = 0.5
_BACK_OFF_S: Final = 30.0
_LONGEST_BACK_OFF_S: Final = 600.0
_SHOWN: Final = 3
_RANK: Final = {"info": 0, "warning": 1, "critical": 2}
_MOST_HELD: Final = 5_000
_SEE: Final = "See them with: nightkeep alerts list"


class ChannelView(msgspec.Struct, frozen=True, kw_only=True):
    """A channel as it stands."""

    name: str
    kind: str
    state: Literal["unused", "ok", "failing"]
    levels: list[str]
    scopes: list[str]
    sent: int
    failed: int
    held: int  # waiting for a summary
    waiting: int
    last_sent_at: datetime | None = None
    failing_since: datetime | None = None
    last_error: str = ""


class Courier:
    """Brings messages to one channel. For one event loop."""

    def __init__(
        self,
        spec: ChannelSpec,
        channel: Channel,
        clock: Clock,
        per_hour: int,
        report: Callable[[Courier, Message | None, str], None],
        pause: Pause = asyncio.sleep,
    ) -> None:
        """``report`` is told of each message with an id: ``waiting``, ``sent``, ``held`` or ``failed: why``;
        without a message, of a fault that is known before anything was sent.
        """
        self.spec = spec
        self.gate = RateGate(per_hour)
        self.sent = 0
        self.failed = 0
        self.last_error = ""
        self.last_sent_at: datetime | None = None
        self.failing_since: datetime | None = None
        self._channel = channel
        self._clock = clock
        self._report = report
        self._pause = pause
        self._queue: deque[Message] = deque()
        self._held: list[Message] = []
        self._held_more = 0
        self._back_off_s = 0.0
        self._not_before = 0.0  # monotonic; while the channel fails
        self._awake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    @property
    def held(self) -> int:
        """Messages that wait for a summary."""
        return len(self._held) + self._held_more

    def view(self) -> ChannelView:
        """The channel as it stands."""
        state: Literal["unused", "ok", "failing"] = "ok" if self.sent else "unused"
        return ChannelView(
            name=self.spec.name,
            kind=self.spec.kind,
            state="failing" if self.failing_since else state,
            levels=sorted(self.spec.levels),
            scopes=list(self.spec.scopes),
            sent=self.sent,
            failed=self.failed,
            held=self.held,
            waiting=len(self._queue),
            last_sent_at=self.last_sent_at,
            failing_since=self.failing_since,
            last_error=self.last_error,
        )

    def start(self) -> None:
        """Begin to send."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._work())

    def offer(self, message: Message) -> None:
        """Take a message, if it is for this channel; neither waits nor raises."""
        if not self.spec.wants(message):
            return
        now_s = self._clock.monotonic()
        if self.failing_since is not None:
            self._hold(message)
        else:
            admission = self.gate.admit(now_s, is_critical=message.level == "critical")
            if admission == "hold":
                self._hold(message)
            else:
                self._queue.append(self._announcing(message) if admission == "last" else message)
                self._tell(message, "waiting")
        self._idle.clear()
        self._awake.set()

    async def test(self, message: Message) -> str:
        """Send a message at once, whatever the limit; returns what went wrong."""
        error = await self._send(message)
        self._note(error)
        return error

    def wake(self) -> None:
        """Look at the clock again."""
        self._awake.set()

    async def flush(self) -> None:
        """Wait until nothing is under way: all is delivered, held back, or given up."""
        await self._idle.wait()

    def close(self) -> None:
        """Stop; what still waits is in the record."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    # -- the work

    async def _work(self) -> None:
        fault = await self._channel.check()
        if fault:
            self._note(fault)
            self._report(self, None, f"failed: {fault}")
        while True:
            self._awake.clear()
            if self._queue:
                await self._deliver(self._queue.popleft())
            elif self._held and self._may_summarise():
                await self._summarise()
            else:
                self._idle.set()
                await self._sleep()

    async def _sleep(self) -> None:
        """Until there is something to do."""
        if not self._held:
            await self._awake.wait()
            return
        now_s = self._clock.monotonic()
        free_s = self.gate.free_in_s(now_s, is_critical=self._is_held_critical())
        timeout_s = max(free_s, self._not_before - now_s, 0.05)
        try:
            await asyncio.wait_for(self._awake.wait(), timeout_s)
        except TimeoutError:
            return

    async def _deliver(self, message: Message) -> None:
        error = await self._try(message)
        self._note(error)
        if error:
            self.failed += 1
            log.error("alert channel %s failed (%s): %s", self.spec.name, error, message.text)
            self._hold(message, f"failed: {error}")
        else:
            self._tell(message, "sent")

    async def _try(self, message: Message) -> str:
        error = ""
        for n in range(_TRIES):
            if n:
                await self._pause(_FIRST_PAUSE_S * 2 ** (n - 1))
            error = await self._send(message)
            if not error:
                break
        return error

    async def _send(self, message: Message) -> str:
        try:
            return await self._channel.send(message)
        except Exception as error:  # a channel promises not to; if it does, it must not end the courier
            log.exception("alert channel %s broke its promise", self.spec.name)
            return type(error).__name__

    def _may_summarise(self) -> bool:
        now_s = self._clock.monotonic()
        if now_s < self._not_before:
            return False
        return self.gate.admit(now_s, is_critical=self._is_held_critical()) != "hold"

    async def _summarise(self) -> None:
        held, self._held = self._held, []
        more, self._held_more = self._held_more, 0
        error = await self._send(_summary(held, more, self._clock.now()))
        self._note(error)
        if error:
            self.failed += 1
            self._held, self._held_more = held + self._held, more + self._held_more
            return
        for message in held:
            self._tell(message, "sent")

    def _note(self, error: str) -> None:
        """How the last try ended, for the view and for when to try again."""
        if not error:
            self.sent += 1
            self.last_sent_at, self.failing_since = self._clock.now(), None
            self._back_off_s = self._not_before = 0.0
            return
        self.last_error = error
        self.failing_since = self.failing_since or self._clock.now()
        self._back_off_s = min(max(self._back_off_s * 2, _BACK_OFF_S), _LONGEST_BACK_OFF_S)
        self._not_before = self._clock.monotonic() + self._back_off_s
        while self._queue:
            self._hold(self._queue.popleft())

    # -- what is held back

    def _hold(self, message: Message, why: str = "held") -> None:
        if len(self._held) < _MOST_HELD:
            self._held.append(message)
        else:
            self._held_more += 1
        self._tell(message, why)

    def _is_held_critical(self) -> bool:
        return any(message.level == "critical" for message in self._held)

    def _announcing(self, message: Message) -> Message:
        free_s = self.gate.free_in_s(self._clock.monotonic(), is_critical=message.level == "critical")
        again = self._clock.now() + timedelta(seconds=free_s)
        text = f"{message.text} (Further alerts are held back and summed up at {again:%H:%M UTC}. {_SEE})"
        return msgspec.structs.replace(message, text=text)

    def _tell(self, message: Message, what: str) -> None:
        if message.id:
            self._report(self, message, what)


def _summary(held: list[Message], more: int, now: datetime) -> Message:
    """One message for many, the worst first."""
    if len(held) == 1 and not more:
        return held[0]
    levels = Counter(message.level for message in held)
    counts = ", ".join(f"{levels[level]} {level}" for level in ("critical", "warning", "info") if levels[level])
    newest = sorted(held, key=lambda message: (-_RANK[message.level], -message.at.timestamp()))
    shown = "\n".join(f"- {message.text}" for message in newest[:_SHOWN])
    left = len(held) + more - _SHOWN
    rest = f"\n- and {left} more. {_SEE}" if left > 0 else ""
    text = f"{len(held) + more} alerts were held back since {held[0].at:%H:%M UTC} ({counts}):\n{shown}{rest}"
    return Message(
        text=text,
        level=newest[0].level,
        kind="summary",
        state="summary",
        key="alerts:summary",
        at=now,
        count=len(held) + more,
    )
