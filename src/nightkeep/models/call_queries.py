"""Reading the record: lists of calls, and one call with its attempts and bodies. Values out, SQL in; no writing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from nightkeep.store.blobs import LOAD_BLOB, load_blob
from nightkeep.store.port import Row, Value

__all__ = ["AttemptRow", "CallFilter", "CallRow", "CallStory", "Reader", "find_calls", "load_body", "tell_call"]


class Reader(Protocol):
    """Anything that can run a query: a snapshot of the database."""

    def read(self, sql: str, parameters: Sequence[Value] = ()) -> list[Row]:
        """Run a query. Raises StoreError."""
        ...


class CallFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which calls. All that is given must hold."""

    since: datetime | None = None
    scope: str | None = None  # it and everything below it
    model: str | None = None  # asked or served, or a beginning of it
    account: str | None = None
    outcome: str | None = None
    tag: str | None = None
    run: str | None = None
    after_id: str | None = None  # newer than this one, oldest first (for following)
    limit: int = 50


class CallRow(msgspec.Struct, frozen=True, kw_only=True):
    """A call in a list."""

    id: str
    started_at: datetime
    scope: str
    tag: str | None
    agent: str
    run_id: str | None
    wire: str
    operation: str
    asked: str
    served: str
    provider: str
    account: str
    is_stream: bool
    outcome: str
    status: int | None
    duration_ms: float | None
    first_byte_ms: float | None
    input_tokens: int | None
    output_tokens: int | None
    cost_micro_usd: int | None
    attempts: int


class AttemptRow(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of a call."""

    n: int
    provider: str
    account: str
    model: str
    wire: str
    started_at: datetime
    duration_ms: float | None
    first_byte_ms: float | None
    outcome: str
    status: int
    provider_code: str | None
    message: str | None
    retry_after_s: float | None
    cost_micro_usd: int | None


class CallStory(msgspec.Struct, frozen=True, kw_only=True):
    """One call with everything that is kept of it but its bodies."""

    call: CallRow
    alias: str | None
    rule: str | None
    key_name: str
    task: str | None
    door: str
    error_code: str | None
    error_message: str | None
    stripped: str | None
    degraded: str | None
    cache: str | None
    idempotency: str | None
    usage: dict[str, int | None]
    bytes_out: int
    bytes_in: int
    request_blob: str | None
    response_blob: str | None
    attempts: tuple[AttemptRow, ...]


_LIST = """
    SELECT c.id, c.started_at, c.scope, c.tag, c.agent, c.run_id, c.wire, c.operation, c.asked, c.served, c.provider,
        c.account, c.is_stream, c.outcome, c.status, c.duration_ms, c.first_byte_ms,
        c.input_tokens + c.cache_read_tokens + c.cache_write_5m_tokens + c.cache_write_1h_tokens,
        c.output_tokens + c.reasoning_tokens, c.cost_micro_usd,
        (SELECT count(*) FROM attempts a WHERE a.call_id = c.id)
    FROM calls c"""
_MORE = """
    SELECT alias, rule, key_name, task, door, error_code, error_message, stripped, degraded, cache, idempotency,
        input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens,
        bytes_out, bytes_in, request_blob, response_blob
    FROM calls WHERE id = ?"""
_ATTEMPTS = """
    SELECT n, provider, account, model, wire, started_at, duration_ms, first_byte_ms, outcome, status, provider_code,
        message, retry_after_s, cost_micro_usd
    FROM attempts WHERE call_id = ? ORDER BY n"""
_USAGE = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning")


def find_calls(reader: Reader, wanted: CallFilter) -> list[CallRow]:
    """The calls that a filter wants: the newest first, or those after an id in their order."""
    where, values = _conditions(wanted)
    order = "ASC" if wanted.after_id is not None else "DESC"
    sql = f"{_LIST} WHERE {' AND '.join(where) or '1 = 1'} ORDER BY c.id {order} LIMIT ?"
    return [_call(row) for row in reader.read(sql, [*values, wanted.limit])]


def _conditions(wanted: CallFilter) -> tuple[list[str], list[Value]]:
    where: list[str] = []
    values: list[Value] = []
    for column, value in (
        ("account", wanted.account),
        ("outcome", wanted.outcome),
        ("tag", wanted.tag),
        ("run_id", wanted.run),
    ):
        if value is not None:
            where.append(f"c.{column} = ?")
            values.append(value)
    if wanted.since is not None:
        where.append("c.started_at >= ?")
        values.append(int(wanted.since.timestamp() * 1000))
    if wanted.scope not in (None, "/"):
        where.append("(c.scope = ? OR substr(c.scope, 1, ?) = ?)")
        values += [wanted.scope, len(wanted.scope or "") + 1, f"{wanted.scope}/"]
    if wanted.model is not None:
        where.append("(substr(c.asked, 1, ?) = ? OR substr(c.served, 1, ?) = ?)")
        values += [len(wanted.model), wanted.model] * 2
    if wanted.after_id is not None:
        where.append("c.id > ?")
        values.append(wanted.after_id)
    return where, values


def tell_call(reader: Reader, call_id: str) -> CallStory | list[str]:
    """One call by its id or the beginning of it; where that is not exactly one, the ids that are near (at most ten)."""
    rows = reader.read(f"{_LIST} WHERE c.id >= ? AND c.id < ? ORDER BY c.id LIMIT 11", (call_id, call_id + "~"))
    exact = [row for row in rows if row[0] == call_id]
    if not exact and len(rows) != 1:
        return [str(row[0]) for row in rows[:10]]
    call = _call((exact or rows)[0])
    (more,) = reader.read(_MORE, (call.id,))
    texts: list[Any] = list(more)
    attempts = [dict(zip(AttemptRow.__struct_fields__, row, strict=True)) for row in reader.read(_ATTEMPTS, (call.id,))]
    return CallStory(
        call=call,
        alias=texts[0],
        rule=texts[1],
        key_name=texts[2],
        task=texts[3],
        door=texts[4],
        error_code=texts[5],
        error_message=texts[6],
        stripped=texts[7],
        degraded=texts[8],
        cache=texts[9],
        idempotency=texts[10],
        usage=dict(zip(_USAGE, texts[11:17], strict=True)),
        bytes_out=texts[17],
        bytes_in=texts[18],
        request_blob=texts[19],
        response_blob=texts[20],
        attempts=tuple(
            msgspec.convert({**one, "started_at": _moment(one["started_at"])}, AttemptRow) for one in attempts
        ),
    )


def load_body(reader: Reader, blob: str | None) -> bytes | None:
    """A stored body; None where none was kept. Raises StoreError where it is damaged."""
    rows = reader.read(LOAD_BLOB, (blob,)) if blob is not None else []
    return load_blob(rows[0]) if rows else None


def _call(row: Row) -> CallRow:
    fields: dict[str, Any] = dict(zip(CallRow.__struct_fields__, row, strict=True))
    return msgspec.convert(
        {**fields, "started_at": _moment(fields["started_at"]), "is_stream": bool(fields["is_stream"])}, CallRow
    )


def _moment(value: Any) -> datetime:
    return datetime.fromtimestamp(int(value) / 1000, UTC)
