"""From attempts to rows of the ledger: what each cost, to whom, and on what grounds. For the writer's thread.

The table is ``store/migrations/0003_ledger.sql``; ``models.calls`` writes these rows in the same transaction as the
call itself, ``models.reconcile`` adds adjustments, ``models.ledger_queries`` adds them up. The ledger outlives the
record of calls: nothing ever removes a row.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from nightkeep.core.messages import Usage
from nightkeep.models.call_record import AttemptRecord, CallRecord
from nightkeep.models.call_rows import epoch_ms
from nightkeep.models.prices import Price, cost_pico
from nightkeep.store.port import Transaction, Value

__all__ = ["CLASSES", "request_id", "row_id", "sent_rows", "uncached_pico", "write_ledger"]

CLASSES: Final = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning")
"""The disjoint token classes, in the order of the columns."""

_COLUMNS: Final = (
    "id, at, ended_at, kind, call_id, n, run_id, scope, tag, task, agent, key_name, release_name, provider, account, "
    "model, asked, alias, price, basis, input_tokens, cache_read_tokens, cache_write_5m_tokens, "
    "cache_write_1h_tokens, output_tokens, reasoning_tokens, reserved_micro_usd, cost_micro_usd, uncached_micro_usd, "
    "is_estimate, estimated_micro_usd, is_unpriced, outcome, request_id, owner"
)
_INTO: Final = f"INTO ledger ({_COLUMNS})"
_AFTER: Final = "ON CONFLICT (id) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in _COLUMNS.split(", ")[1:]
)
_NOTHING: Final = Usage()


def row_id(call_id: str, n: int) -> str:
    """The ledger's name of an attempt."""
    return f"{call_id}/{n}"


def request_id(call_id: str, n: int) -> str:
    """What is sent to the provider as ``x-client-request-id``: its report names the attempt by it."""
    return f"{call_id}-{n}"


def uncached_pico(price: Price, usage: Usage) -> int:
    """What a request would have cost (pico-dollars) had the provider cached nothing: all input at its plain price."""
    return cost_pico(price, Usage(input=usage.total_input, output=usage.output, reasoning=usage.reasoning))


def write_ledger(transaction: Transaction, rows: list[tuple[Value, ...]]) -> None:
    """Write rows of ``sent_rows``; writing them again changes nothing."""
    transaction.insert(_INTO, rows, _AFTER)


def sent_rows(record: CallRecord, owner: str) -> list[tuple[Value, ...]]:
    """A row for each attempt of a call that was sent; none for those that were refused or never left.

    ``owner`` is the process that made the attempt, as its reservations name it.
    """
    return [_row(record, attempt, basis, owner) for attempt in record.attempts if (basis := _basis(attempt)) != "none"]


def _basis(attempt: AttemptRecord) -> str:
    """On what grounds the cost stands. Usage without a price is 'unpriced': counted apart, never as free."""
    if attempt.basis == "open" or attempt.basis == "free":
        return attempt.basis
    if attempt.usage is None:
        return attempt.basis
    return "usage" if attempt.cost is not None else "unpriced"


def _row(record: CallRecord, attempt: AttemptRecord, basis: str, owner: str) -> tuple[Value, ...]:
    usage = attempt.usage or _NOTHING
    is_open = basis == "open"
    # Where nobody said what was billed, what was reserved counts as spent (design.md, law 1).
    cost = int(attempt.cost if attempt.cost is not None else (attempt.reserved or 0) if is_open else 0)
    at = attempt.started_at
    return (
        row_id(record.id, attempt.n),
        epoch_ms(at),
        epoch_ms(at + timedelta(milliseconds=attempt.duration_ms)),
        "attempt",
        record.id,
        attempt.n,
        record.run,
        record.scope,
        record.tag,
        record.task,
        record.agent,
        record.key,
        record.release,
        attempt.provider,
        attempt.account,
        attempt.model,
        record.asked,
        record.alias,
        attempt.price,
        basis,
        usage.input,
        usage.cache_read,
        usage.cache_write_5m,
        usage.cache_write_1h,
        usage.output,
        usage.reasoning,
        attempt.reserved,
        cost,
        None if is_open else _uncached(attempt, cost),
        int(is_open),
        cost if is_open else 0,
        int(basis == "unpriced"),
        attempt.outcome,
        request_id(record.id, attempt.n),
        owner,
    )


def _uncached(attempt: AttemptRecord, cost: int) -> int | None:
    """What it would have cost without the provider's cache: the same, where no cache had a part in it."""
    if attempt.uncached is not None:
        return attempt.uncached
    usage = attempt.usage
    if usage is None or attempt.cost is None or usage.cache_read or usage.cache_write_5m or usage.cache_write_1h:
        return None
    return cost
