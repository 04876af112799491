"""From records to rows: what the tables ``calls`` and ``attempts`` hold. For the writer's thread, mostly.

Beside ``models.calls``, which decides what is written and when, and ``models.call_queries``, which reads it again.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Final

from nightkeep.core.messages import Usage
from nightkeep.models.call_record import AttemptRecord, CallRecord
from nightkeep.models.classify import redacted
from nightkeep.store.blobs import Blob, save_blobs
from nightkeep.store.port import Transaction, Value

__all__ = ["RUNNING", "attempt_rows", "call_row", "epoch_ms", "interrupted_by", "save_bodies", "write_rows"]

RUNNING: Final = "running"
_LONGEST_MESSAGE: Final = 2_000
_CALLS: Final = (
    "id, run_id, scope, tag, task, key_name, agent, peer, wire, operation, door, asked, alias, rule, provider, "
    "account, served, is_stream, started_at, duration_ms, first_byte_ms, outcome, status, error_code, error_message, "
    "bytes_out, bytes_in, input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, "
    "output_tokens, reasoning_tokens, cost_micro_usd, stripped, degraded, cache, idempotency, request_hash, "
    "request_blob, response_blob"
)
_ATTEMPTS: Final = (
    "call_id, n, provider, account, model, wire, started_at, duration_ms, first_byte_ms, outcome, status, "
    "provider_code, message, retry_after_s, bytes_out, input_tokens, cache_read_tokens, cache_write_5m_tokens, "
    "cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_micro_usd"
)
_NO_USAGE: Final = (None,) * 6


def _update(columns: str, keys: int) -> str:
    return "DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in columns.split(", ")[keys:])


_AFTER_CALL: Final = f"ON CONFLICT (id) {_update(_CALLS, 1)}"
_AFTER_ATTEMPT: Final = f"ON CONFLICT (call_id, n) {_update(_ATTEMPTS, 2)}"


def interrupted_by(mark: str) -> str:
    """The statement that marks what a process left running; ``mark`` ends the ids of its calls ("": everybody's)."""
    whose = f" AND id LIKE '%{mark}'" if mark.isalnum() else ""
    return (
        "UPDATE calls SET outcome = 'interrupted', error_code = 'interrupted', error_message = "
        "'the gateway ended while this call was running: whether the provider answered, and billed, is not known' "
        f"WHERE outcome = 'running'{whose} RETURNING 1"
    )


def write_rows(transaction: Transaction, calls: list[tuple[Value, ...]], attempts: list[tuple[Value, ...]]) -> None:
    """Write calls, then their attempts; those that are there (as running) are replaced."""
    transaction.insert(f"INTO calls ({_CALLS})", calls, _AFTER_CALL)
    transaction.insert(f"INTO attempts ({_ATTEMPTS})", attempts, _AFTER_ATTEMPT)


def save_bodies(transaction: Transaction, record: CallRecord) -> tuple[str | None, str | None]:
    """Keep the bodies of a call; returns the names of request and answer (partial text, where it was cut)."""
    response = record.response_body
    if response is not None and record.error_code:  # a provider's refusal may repeat the key that it was sent
        response = redacted(response.decode("utf-8", "replace")).encode()
    if response is None and record.partial_text is not None:
        response = record.partial_text.encode("utf-8", "replace")
    request = Blob.of(record.request_body) if record.request_body else None
    answer = Blob.of(response) if response else None
    save_blobs(transaction, [blob for blob in (request, answer) if blob is not None], epoch_ms(record.started_at))
    return request.hash if request else None, answer.hash if answer else None


def call_row(
    record: CallRecord, outcome: str, request: str | None = None, response: str | None = None
) -> tuple[Value, ...]:
    """A call, with the names of its bodies where they are kept."""
    body = record.request_body if outcome != RUNNING else None  # hashed once, at the end
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
        record.is_stream,
        epoch_ms(record.started_at),
        record.duration_ms,
        record.first_byte_ms,
        outcome,
        record.status,
        record.error_code or None,
        record.error_message[:_LONGEST_MESSAGE] or None,
        record.bytes_out,
        record.bytes_in,
        *_usage(record.usage),
        record.cost,
        "\n".join([f"{item.name}: {item.reason}" for item in record.stripped]) if record.stripped else None,
        record.degraded,
        record.cache,
        record.idempotency,
        hashlib.sha256(body).hexdigest()[:16] if body else None,
        request,
        response,
    )


def attempt_rows(record: CallRecord) -> list[tuple[Value, ...]]:
    """The attempts of a call."""
    return [_attempt_row(record.id, attempt) for attempt in record.attempts]


def _attempt_row(call_id: str, attempt: AttemptRecord) -> tuple[Value, ...]:
    return (
        call_id,
        attempt.n,
        attempt.provider,
        attempt.account,
        attempt.model,
        attempt.wire,
        epoch_ms(attempt.started_at),
        attempt.duration_ms,
        attempt.first_byte_ms,
        attempt.outcome,
        attempt.status,
        attempt.provider_code or None,
        attempt.message[:_LONGEST_MESSAGE] or None,
        attempt.retry_after_s,
        attempt.bytes_out,
        *_usage(attempt.usage),
        attempt.cost,
    )


def _usage(usage: Usage | None) -> tuple[int | None, ...]:
    if usage is None:
        return _NO_USAGE
    return (
        usage.input,
        usage.cache_read,
        usage.cache_write_5m,
        usage.cache_write_1h,
        usage.output,
        usage.reasoning,
    )


def epoch_ms(at: datetime) -> int:
    """Milliseconds since 1970."""
    return int(at.timestamp() * 1000)
