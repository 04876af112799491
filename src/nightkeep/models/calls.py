"""The record on disk: calls and attempts, written in groups beside the work, never in front of it.

A finished call costs the event loop an append; every 25 ms (or 256 calls) a group goes to the store's
writer, whose thread makes rows of it. A call that is still running after 100 ms is written down as ``running``
once, so that after a ``kill -9`` it is found as ``interrupted`` and not as nothing. While the store takes no
records they wait in bounded memory, without their bodies; what does not fit is counted and said aloud. Nothing
of this stops a request (law 7). Rows are ``models.call_rows``'s, reading is ``models.call_queries``'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from datetime import timedelta
from typing import Final, Literal

import msgspec

from nightkeep.core.clock import Clock, Randomness
from nightkeep.core.errors import StoreError
from nightkeep.core.outcome import Outcome
from nightkeep.models.call_record import CallRecord
from nightkeep.models.call_retention import purge
from nightkeep.models.call_rows import RUNNING, attempt_rows, call_row, interrupted_by, save_bodies, write_rows
from nightkeep.models.ledger_rows import sent_rows, write_ledger
from nightkeep.models.sessions import Sessions
from nightkeep.store.port import Store, Transaction, Value

__all__ = ["Bodies", "CallLog", "RecordPolicy"]

log = logging.getLogger("nightkeep.record")

Bodies = Literal["none", "failures", "sampled", "all"]

_FLUSH_S: Final = 0.025
_FLUSH_CALLS: Final = 256
_RUNNING_AFTER_S: Final = 0.1
_MOST_IN_A_GROUP: Final = 1_024
_RETRY_S: Final = 1.0
_MOST_IN_FLIGHT: Final = 2  # groups at the writer: one that it writes, one that is ready
_MOST_WAITING: Final = 20_000  # calls; about 40 MB without their bodies
_MOST_WAITING_BYTES: Final = 64 << 20  # of bodies
_PURGE_S: Final = 3_600.0
_NO_FAILURES: Final = frozenset({str(Outcome.SUCCESS), str(Outcome.CANCELLED)})


class RecordPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of each call, and for how long."""

    bodies: Bodies = "failures"
    sample_rate: float = 0.01
    keep_days: int = 30


class CallLog:
    """Writes calls down. A ``CallSink``, for one event loop."""

    def __init__(
        self,
        store: Store,
        policy: RecordPolicy,
        sessions: Sessions,
        clock: Clock,
        randomness: Randomness,
        owner: str = "",
    ) -> None:
        self.policy = policy
        self.owner = owner  # the process, as its reservations name it; written into the ledger
        self.lost = 0  # calls that are not in the record
        self.bodies_lost = 0  # calls that are, without the bodies that the policy keeps
        self._store = store
        self._sessions = sessions
        self._clock = clock
        self._randomness = randomness
        self._running: set[str] = set()
        self._young: deque[tuple[CallRecord, float]] = deque()  # begun, and not yet written as running
        self._finished: list[CallRecord] = []
        self._finished_bytes = 0
        self._in_flight = 0
        self._is_failing = False
        self._is_closed = False
        self._retry_at = 0.0  # monotonic seconds; not before, while the store fails
        self._timer: asyncio.TimerHandle | None = None
        self._purging: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Finished calls that are not handed to the store yet."""
        return len(self._finished)

    async def open(self, *, is_alone: bool = True) -> int:
        """Mark what the last process left running as interrupted; returns how many. Raises StoreError.

        Where it is not alone, whoever looks after all processes does that.
        """
        sql = interrupted_by("")
        interrupted = len(await self._store.write(lambda t: t.execute(sql))) if is_alone else 0
        if interrupted:
            log.warning("%d calls were running when the last process ended; they are marked interrupted", interrupted)
        self._purging = asyncio.ensure_future(self._purge_on())
        return interrupted

    # -- calls

    def begin(self, record: CallRecord) -> None:
        """A call has begun."""
        self._running.add(record.id)
        self._young.append((record, self._clock.monotonic()))
        if self._timer is None:
            self._flush_in(_FLUSH_S)

    def finish(self, record: CallRecord) -> None:
        """A call is over."""
        self._running.discard(record.id)
        is_failure = record.outcome not in _NO_FAILURES
        self._sessions.note(record.run, is_failure=is_failure, usage=record.usage, cost=record.cost)
        if len(self._finished) >= _MOST_WAITING:
            self._lose(1, "the store is slower than the calls come")
            return
        record.keeps_bodies = self._keeps(is_failure)
        if not record.keeps_bodies:
            record.response_body = record.partial_text = None
        size = _body_bytes(record)
        if self._finished_bytes + size > _MOST_WAITING_BYTES:
            self._strip(record)
            size = 0
        self._finished_bytes += size
        self._finished.append(record)
        if len(self._finished) == _FLUSH_CALLS:
            self._flush()
        elif self._timer is None:
            self._flush_in(_FLUSH_S)

    def _keeps(self, is_failure: bool) -> bool:
        """Whether the policy keeps a call's bodies."""
        bodies = self.policy.bodies
        if bodies == "none":
            return False
        if bodies == "all" or is_failure:
            return True
        return bodies == "sampled" and self._randomness.random() < self.policy.sample_rate

    def _strip(self, record: CallRecord) -> None:
        self.bodies_lost += record.keeps_bodies
        record.request_body = record.response_body = record.partial_text = None
        record.keeps_bodies = False

    def _lose(self, calls: int, why: str) -> None:
        if not self.lost:
            log.error("calls are served and not recorded: %s", why)
        self.lost += calls

    # -- groups

    def _flush_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._flush)

    def _flush(self) -> None:
        """Hand what is finished, and what lasts, to the writer; when it has enough to do, it calls back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._in_flight < _MOST_IN_FLIGHT and self._clock.monotonic() >= self._retry_at:
            lasting = self._take_lasting()
            finished, self._finished = self._finished[:_MOST_IN_A_GROUP], self._finished[_MOST_IN_A_GROUP:]
            if finished or lasting:
                self._finished_bytes -= sum(map(_body_bytes, finished))
                self._hand_over(_Group(finished, lasting, self._sessions.take_changed(), self.owner))
        if self._young:
            self._flush_in(_FLUSH_S)

    def _take_lasting(self) -> list[CallRecord]:
        """Calls that have been running for a while and are not written down yet."""
        before = self._clock.monotonic() - _RUNNING_AFTER_S
        young, lasting = self._young, []
        while young and (young[0][1] <= before or young[0][0].id not in self._running):
            record, _ = young.popleft()
            if record.id in self._running:
                lasting.append(record)
        return lasting

    def _hand_over(self, group: _Group) -> None:
        self._in_flight += 1
        self._store.write(group.write).add_done_callback(lambda future: self._written(group, future))

    def _written(self, group: _Group, future: asyncio.Future[None]) -> None:
        self._in_flight -= 1
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is not None:
            self._take_back(group, error)
        elif self._is_failing:
            self._is_failing = False
            log.warning("calls are recorded again; %d were lost since the start", self.lost)
        if self._finished and self._timer is None and not self._is_closed:
            self._flush_in(_RETRY_S if self._is_failing else _FLUSH_S)

    def _take_back(self, group: _Group, error: BaseException) -> None:
        """What was not written waits for better times; a row that can never be written takes only itself along."""
        self._sessions.give_back(group.runs)
        finished = group.finished
        if isinstance(error, StoreError) and error.data.get("is_outage"):
            self._retry_at = self._clock.monotonic() + _RETRY_S
            if not self._is_failing:
                self._is_failing = True
                log.error("calls are not recorded now and wait in memory: %s", error.message)
            for record in finished:
                self._strip(record)
            room = 0 if self._is_closed else max(0, _MOST_WAITING - len(self._finished))
            if len(finished) > room:
                self._lose(len(finished) - room, error.message)
            self._finished[:0] = finished[:room]
        elif len(finished) > 1:
            for record in finished:
                self._hand_over(_Group([record], [], [], self.owner))
        else:
            self._lose(len(finished), str(error))

    # -- the end of things

    async def _purge_on(self) -> None:
        while True:
            try:
                await self.purge()
            except Exception:  # a purge that fails is tried again in an hour; calls are served meanwhile
                log.exception("old records could not be removed")
            await asyncio.sleep(_PURGE_S)

    async def purge(self) -> int:
        """Remove what is older than the policy keeps; returns how many calls. Raises StoreError."""
        now = self._clock.now()
        return await purge(self._store, now - timedelta(days=self.policy.keep_days), now)

    def close(self) -> None:
        """Hand over what is left; the store writes it before it closes."""
        self._is_closed = True
        if self._purging is not None:
            self._purging.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        running = [record for record, _ in self._young if record.id in self._running]
        self._young.clear()
        finished, self._finished = self._finished, []
        if finished or running:
            self._hand_over(_Group(finished, running, self._sessions.take_changed(), self.owner))


class _Group:
    """What is written together; rows are made by the writer's thread, not by the event loop's."""

    __slots__ = ("_lasting", "_owner", "_trying", "finished", "runs")

    def __init__(
        self, finished: list[CallRecord], lasting: list[CallRecord], runs: list[tuple[Value, ...]], owner: str
    ) -> None:
        self.finished = finished
        self.runs = runs
        self._owner = owner
        # These go on changing while the writer works, so their rows are made here.
        self._lasting = [call_row(record, RUNNING) for record in lasting]
        self._trying = [row for record in lasting for row in attempt_rows(record)]

    def write(self, transaction: Transaction) -> None:
        """Write it."""
        transaction.insert(Sessions.INTO, self.runs, Sessions.AFTER)
        calls, attempts = self._lasting.copy(), self._trying.copy()
        spent: list[tuple[Value, ...]] = []
        for record in self.finished:
            bodies = save_bodies(transaction, record) if record.keeps_bodies else (None, None)
            calls.append(call_row(record, record.outcome, *bodies))
            attempts += attempt_rows(record)
            spent += sent_rows(record, self._owner)
        write_rows(transaction, calls, attempts)
        write_ledger(transaction, spent)


def _body_bytes(record: CallRecord) -> int:
    return len(record.request_body or b"") + len(record.response_body or b"")
