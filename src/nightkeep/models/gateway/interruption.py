"""Ending calls that are under way, with a reason: what a switch does to the calls that it finds running.

A call is interrupted by cancelling its task; the reason stands beside it, so that whoever catches the cancellation
tells the client the truth instead of hanging up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from nightkeep.core.errors import NightkeepError
from nightkeep.models.gateway.call import Call
from nightkeep.models.gateway.progress import Progress

__all__ = ["Interruption", "RunningCalls"]


class Interruption:
    """One call in hand, and why it was ended, if it was."""

    __slots__ = ("_task", "call", "error", "progress")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.progress: Progress | None = None
        self.error: NightkeepError | None = None
        self._task = asyncio.current_task()

    def interrupt(self, error: NightkeepError) -> bool:
        """End the call with a reason; False where it is ending already."""
        if self.error is not None or self._task is None or self._task.done():
            return False
        self.error = error
        return self._task.cancel()

    def take(self) -> NightkeepError | None:
        """For who has caught the cancellation: the reason, and the task goes on; None where the client hung up."""
        if self.error is not None and self._task is not None:
            self._task.uncancel()
        return self.error


class RunningCalls:
    """The calls that are under way in this process."""

    def __init__(self) -> None:
        self._calls: set[Interruption] = set()

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Interruption]:
        return iter(list(self._calls))

    def begin(self, call: Call) -> Interruption:
        """A call begins in the current task."""
        made = Interruption(call)
        self._calls.add(made)
        return made

    def end(self, interruption: Interruption) -> None:
        """It is over."""
        self._calls.discard(interruption)

    def interrupt(self, find: Callable[[Call, Progress | None], NightkeepError | None]) -> int:
        """End every call for which there is a reason; returns how many."""
        ended = 0
        for each in self:
            if each.error is not None:
                continue
            error = find(each.call, each.progress)
            if error is not None:
                ended += each.interrupt(error)
        return ended
