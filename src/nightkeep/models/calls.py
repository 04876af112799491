"""The record on disk: calls and attempts, written in groups beside the work, never in front of it.

A finished call costs the event loop an append; every 25 ms (or 256 calls) a group goes to the store's
writer. A call that is still running after 100 ms is written down as ``running`` once, so that after a
``kill -9`` it is found as ``interrupted`` and not as nothing. Recording that fails is counted and said
aloud, and stops no request (law 7). Reading is ``models.call_queries``'s.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from nightkeep.core.clock import Clock, Randomness
from nightkeep.core.messages import Usage
from nightkeep.core.outcome import Outcome
from nightkeep.models.call_record import AttemptRecord, CallRecord
from nightkeep.models.sessions import Sessions
from nightkeep.store.blobs import Blob, save_blobs
from nightkeep.store.port import Store, Transaction, Value

__all__ = ["Bodies", "CallLog", "RecordPolicy"]

log = logging.getLogger("nightkeep.record")

Bodies = Literal["none", "failures", "sampled", "all"]

_FLUSH_S: Final = 0.025
_FLUSH_CALLS: Final = 256
_RUNNING_AFTER_S: Final = 0.1
_PURGE_S: Final = 3_600.0
_PURGE_ROWS: Final = 2_000
_NO_FAILURES: Final = frozenset({str(Outcome.SUCCESS), str(Outcome.CANCELLED)})

_COLUMNS: Final = (
    "id, run_id, scope, tag, task, key_name, agent, peer, wire, operation, door, asked, alias, rule, provider, "
    "account, served, is_stream, started_at, duration_ms, first_byte_ms, outcome, status, error_code, error_message, "
    "bytes_out, bytes_in, input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, "
    "output_tokens, reasoning_tokens, cost_micro_usd, stripped, degraded, cache, idempotency, request_hash, "
    "request_blob, response_blob"
)
_UPDATES: Final = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS.split(", ")[1:])
_INTO: Final = f"INTO calls ({_COLUMNS})"
_AFTER: Final = f"ON CONFLICT (id) DO UPDATE SET {_UPDATES}"
_ATTEMPTS: Final = (
    "INTO attempts (call_id, n, provider, account, model, wire, started_at, duration_ms, first_byte_ms, outcome, "
    "status, provider_code, message, retry_after_s, bytes_out, input_tokens, cache_read_tokens, cache_write_5m_tokens, "
    "cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_micro_usd)"
)
_INTERRUPTED: Final = (
    "UPDATE calls SET outcome = 'interrupted', error_code = 'interrupted', error_message = "
    "'the gateway ended while this call was running: whether the provider answered, and billed, is not known' "
    "WHERE outcome = 'running'"
)


class RecordPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of each call, and for how long."""

    bodies: Bodies = "failures"
    sample_rate: float = 0.01
    keep_days: int = 30


class CallLog:
    """Writes calls down. A ``CallSink``."""

    def __init__(
        self, store: Store, policy: RecordPolicy, sessions: Sessions, clock: Clock, randomness: Randomness
    ) -> None:
        self.policy = policy
        self._store = store
        self._sessions = sessions
        self._clock = clock
        self._randomness = randomness
        self._running: dict[str, tuple[CallRecord, float]] = {}
        self._noted: set[str] = set()  # running calls that are written down as such
        self._finished: list[CallRecord] = []
        self._timer: asyncio.TimerHandle | None = None
        self._purging: asyncio.Task[None] | None = None
        self.lost = 0  # calls whose record the store did not take

    async def open(self) -> int:
        """Mark what the last process left running as interrupted; returns how many. Raises StoreError."""

        def work(transaction: Transaction) -> int:
            rows = transaction.execute("SELECT count(*) FROM calls WHERE outcome = 'running'")
            transaction.execute(_INTERRUPTED)
            return int(rows[0][0] or 0)

        interrupted = await self._store.write(work)
        if interrupted:
            log.warning("%d calls were running when the last process ended; they are marked interrupted", interrupted)
        self._purging = asyncio.ensure_future(self._purge_on())
        return interrupted

    def begin(self, record: CallRecord) -> None:
        """A call has begun."""
        self._running[record.id] = (record, self._clock.monotonic())
        if self._timer is None:
            self._flush_in(_RUNNING_AFTER_S)

    def finish(self, record: CallRecord) -> None:
        """A call is over."""
        self._running.pop(record.id, None)
        is_failure = record.outcome not in _NO_FAILURES
        self._sessions.note(record.run, is_failure=is_failure, usage=record.usage, cost=record.cost)
        self._finished.append(record)
        if len(self._finished) >= _FLUSH_CALLS:
            self._flush()
        elif len(self._finished) == 1:
            self._flush_in(_FLUSH_S)

    def _flush_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._flush)

    def _flush(self) -> None:
        """Hand what is finished, and what lasts, to the writer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        finished, self._finished = self._finished, []
        before = self._clock.monotonic() - _RUNNING_AFTER_S
        lasting = [
            record for record, began in self._running.values() if began <= before and record.id not in self._noted
        ]
        self._noted.update(record.id for record in lasting)
        self._noted.difference_update(record.id for record in finished)
        if finished or lasting:
            kept = {record.id for record in finished if self._keeps(record)}
            group = _Group(finished, lasting, self._sessions.take_changed(), kept)
            if not self._store.post(group.write):
                self._lose(len(finished))
        if len(self._noted) < len(self._running):
            self._flush_in(_RUNNING_AFTER_S)

    def _lose(self, calls: int) -> None:
        if not self.lost:
            log.error("the store does not take records now; calls are served and not recorded")
        self.lost += calls

    def _keeps(self, record: CallRecord) -> bool:
        """Whether the bodies of a call are kept."""
        bodies = self.policy.bodies
        if bodies == "all":
            return True
        if bodies == "none":
            return False
        is_failure = record.outcome not in _NO_FAILURES
        return is_failure or (bodies == "sampled" and self._randomness.random() < self.policy.sample_rate)

    async def _purge_on(self) -> None:
        while True:
            try:
                await self.purge()
            except Exception:  # a purge that fails is tried again in an hour; calls are served meanwhile
                log.exception("old records could not be removed")
            await asyncio.sleep(_PURGE_S)

    async def purge(self) -> int:
        """Remove what is older than the policy keeps, in small steps; returns how many calls."""
        limit = _ms(self._clock.now() - timedelta(days=self.policy.keep_days))
        total = 0
        while True:
            removed = await self._store.write(lambda transaction: _purge_step(transaction, limit))
            total += removed
            if removed < _PURGE_ROWS:
                return total

    def close(self) -> None:
        """Hand over what is left; the store writes it before it closes."""
        if self._purging is not None:
            self._purging.cancel()
        self._flush()
        if self._timer is not None:
            self._timer.cancel()


def _purge_step(transaction: Transaction, limit: int) -> int:
    rows = transaction.execute("SELECT id FROM calls WHERE started_at < ? ORDER BY id LIMIT ?", (limit, _PURGE_ROWS))
    for (call_id,) in rows:
        transaction.execute("DELETE FROM calls WHERE id = ?", (call_id,))
    if not rows:
        transaction.execute("DELETE FROM blobs WHERE last_at < ?", (limit,))
        transaction.execute("DELETE FROM runs WHERE last_at < ?", (limit,))
        transaction.execute("DELETE FROM idempotency WHERE expires_at < ?", (limit,))
    return len(rows)


class _Group:
    """One group on its way; turned into rows by the writer's thread, not by the event loop's."""

    def __init__(
        self, finished: list[CallRecord], lasting: list[CallRecord], runs: list[tuple[Value, ...]], kept: set[str]
    ) -> None:
        self._finished = finished
        self._lasting = [_row(record, "running", None, None) for record in lasting]
        self._runs = runs
        self._kept = kept

    def write(self, transaction: Transaction) -> None:
        """Write it."""
        if self._runs:
            transaction.insert(Sessions.INTO, self._runs, Sessions.AFTER)
        if self._lasting:
            transaction.insert(_INTO, self._lasting, _AFTER)
        rows = []
        for record in self._finished:
            request = response = None
            if record.id in self._kept:
                request, response = _save_bodies(transaction, record)
            rows.append(_row(record, record.outcome, request, response))
        transaction.insert(_INTO, rows, _AFTER)
        attempts = [_attempt_row(record.id, attempt) for record in self._finished for attempt in record.attempts]
        if attempts:
            transaction.insert(_ATTEMPTS, attempts, "ON CONFLICT (call_id, n) DO NOTHING")


def _save_bodies(transaction: Transaction, record: CallRecord) -> tuple[str | None, str | None]:
    at_ms = _ms(record.started_at)
    response = record.response_body
    if response is None and record.partial_text is not None:
        response = record.partial_text.encode()
    request = Blob.of(record.request_body) if record.request_body else None
    answer = Blob.of(response) if response else None
    save_blobs(transaction, [blob for blob in (request, answer) if blob is not None], at_ms)
    return request.hash if request else None, answer.hash if answer else None


def _row(record: CallRecord, outcome: str, request: str | None, response: str | None) -> tuple[Value, ...]:
    return (
        record.id,
        record.run,
        record.scope,
        record.tag,
        record.task,
        record.key,
        record.agent,
        record.peer,
        record.wire,
        record.operation,
        record.door,
        record.asked,
        record.alias,
        record.rule,
        record.provider,
        record.account,
        record.served,
        int(record.is_stream),
        _ms(record.started_at),
        record.duration_ms,
        record.first_byte_ms,
        outcome,
        record.status,
        record.error_code or None,
        record.error_message[:2000] or None,
        record.bytes_out,
        record.bytes_in,
        *_usage(record.usage),
        record.cost,
        "; ".join(f"{item.name}: {item.reason}" for item in record.stripped) or None,
        record.degraded,
        record.cache,
        record.idempotency,
        _hash(record.request_body),
        request,
        response,
    )


def _attempt_row(call_id: str, attempt: AttemptRecord) -> tuple[Value, ...]:
    return (
        call_id,
        attempt.n,
        attempt.provider,
        attempt.account,
        attempt.model,
        attempt.wire,
        _ms(attempt.started_at),
        attempt.duration_ms,
        attempt.first_byte_ms,
        attempt.outcome,
        attempt.status,
        attempt.provider_code or None,
        attempt.message or None,
        attempt.retry_after_s,
        attempt.bytes_out,
        *_usage(attempt.usage),
        attempt.cost,
    )


def _usage(usage: Usage | None) -> tuple[int | None, ...]:
    if usage is None:
        return (None,) * 6
    return (
        usage.input,
        usage.cache_read,
        usage.cache_write_5m,
        usage.cache_write_1h,
        usage.output,
        usage.reasoning,
    )


def _hash(body: bytes | None) -> str | None:
    return hashlib.sha256(body).hexdigest()[:16] if body else None


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
