"""Reading the record: which calls, and everything about one. Values out, SQL in; no writing, no I/O of its own.

The queries are for ``Store.read`` in the running gateway and for the command line's snapshot alike. The tables are
``models.calls``'s; this file is its reading half.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from nightkeep.core.clock import Randomness, new_id
from nightkeep.core.messages import Usage
from nightkeep.store.port import Row, Value

__all__ = [
    "FAILED",
    "AttemptView",
    "CallFilter",
    "CallView",
    "first_id",
    "read_attempt",
    "read_call",
    "select_attempts",
    "select_by_ids",
    "select_call",
    "select_calls",
    "select_totals",
]

FAILED: Final = "failed"
"""As an outcome to look for: every ending but success, a client that hung up, and a call that still runs."""

_CALL: Final = (
    "id, run_id, scope, tag, task, key_name, agent, peer, wire, operation, door, asked, alias, rule, provider, "
    "account, served, is_stream, started_at, duration_ms, first_byte_ms, outcome, status, error_code, error_message, "
    "bytes_out, bytes_in, cost_micro_usd, stripped, degraded, cache, idempotency, request_hash, request_blob, "
    "response_blob, input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, "
    "reasoning_tokens"
)
_ATTEMPT: Final = (
    "n, provider, account, model, wire, started_at, duration_ms, first_byte_ms, outcome, status, provider_code, "
    "message, retry_after_s, bytes_out, cost_micro_usd, input_tokens, cache_read_tokens, cache_write_5m_tokens, "
    "cache_write_1h_tokens, output_tokens, reasoning_tokens"
)
_USAGE: Final = 6  # columns, the last of both
_CLASSES: Final = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning")
_NO_FAILURES: Final = "('success', 'cancelled', 'running')"
_ID_LENGTH: Final = 31  # "call_" and a ULID


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt, as it is stored. Durations in ms, money in micro-dollars (None: not known)."""

    n: int
    provider: str
    account: str
    model: str
    wire: str
    started_at: datetime
    duration_ms: float | None
    first_byte_ms: float | None
    outcome: str  # empty: it was under way when this was written
    status: int
    provider_code: str | None
    message: str | None
    retry_after_s: float | None
    bytes_out: int
    cost_micro_usd: int | None
    usage: Usage | None


class CallView(msgspec.Struct, frozen=True, kw_only=True):
    """One call, as it is stored. Durations in ms, money in micro-dollars (None: not known)."""

    id: str
    run_id: str | None
    scope: str
    tag: str | None
    task: str | None
    key_name: str
    agent: str
    peer: str
    wire: str
    operation: str
    door: str
    asked: str
    alias: str | None
    rule: str | None
    provider: str
    account: str
    served: str
    is_stream: bool
    started_at: datetime
    duration_ms: float | None
    first_byte_ms: float | None
    outcome: str
    status: int | None
    error_code: str | None
    error_message: str | None
    bytes_out: int
    bytes_in: int
    cost_micro_usd: int | None
    stripped: str | None
    degraded: str | None
    cache: str | None
    idempotency: str | None
    request_hash: str | None
    request_blob: str | None
    response_blob: str | None
    usage: Usage | None


class CallFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which calls: all that is given must hold."""

    since: datetime | None = None
    scope: str | None = None  # it and all below it
    model: str | None = None  # asked or served; a part of the name is enough
    account: str | None = None
    outcome: str | None = None  # or FAILED
    tag: str | None = None
    run: str | None = None
    limit: int = 50

    def conditions(self) -> tuple[str, list[Value]]:
        """The WHERE clause, and its parameters."""
        parts: list[tuple[str, list[Value]]] = [("id > ?", [first_id("call", self.since) if self.since else "call_"])]
        if self.scope not in (None, "", "/"):
            parts.append(("(scope = ? OR scope LIKE ? ESCAPE '!')", [self.scope, _literal(f"{self.scope}/") + "%"]))
        if self.model is not None:
            like = f"%{_literal(self.model)}%"
            parts.append(("(asked LIKE ? ESCAPE '!' OR served LIKE ? ESCAPE '!')", [like, like]))
        if self.outcome == FAILED:
            parts.append((f"outcome NOT IN {_NO_FAILURES}", []))
        elif self.outcome is not None:
            parts.append(("outcome = ?", [self.outcome]))
        exact = (("account", self.account), ("tag", self.tag), ("run_id", self.run))
        parts += [(f"{column} = ?", [value]) for column, value in exact if value is not None]
        return " AND ".join(sql for sql, _ in parts), [value for _, values in parts for value in values]


class _Zero:
    """No randomness: the lowest of all ids of a moment."""

    def random(self) -> float:
        return 0.0

    def getrandbits(self, k: int, /) -> int:
        return 0


_ZERO: Final[Randomness] = _Zero()


def first_id(prefix: str, at: datetime) -> str:
    """The lowest id that could have been given at a moment: ids sort by time."""
    return new_id(prefix, at, _ZERO)


def _literal(text: str) -> str:
    """A text inside a LIKE pattern, meaning itself."""
    return text.replace("!", "!!").replace("%", "!%").replace("_", "!_")


def select_calls(wanted: CallFilter) -> tuple[str, list[Value]]:
    """The newest calls of a filter, newest first."""
    where, values = wanted.conditions()
    return f"SELECT {_CALL} FROM calls WHERE {where} ORDER BY id DESC LIMIT ?", [*values, wanted.limit]


def select_totals(wanted: CallFilter) -> tuple[str, list[Value]]:
    """Over all calls of a filter, whatever its limit: how many, how many failed, tokens, cost, how many unpriced."""
    where, values = wanted.conditions()
    tokens = " + ".join(f"coalesce({name}_tokens, 0)" for name in _CLASSES)
    sql = (
        f"SELECT count(*), coalesce(sum(CASE WHEN outcome NOT IN {_NO_FAILURES} THEN 1 ELSE 0 END), 0), "
        f"coalesce(sum({tokens}), 0), coalesce(sum(cost_micro_usd), 0), "
        "coalesce(sum(CASE WHEN cost_micro_usd IS NULL AND outcome = 'success' THEN 1 ELSE 0 END), 0) "
        f"FROM calls WHERE {where}"
    )
    return sql, values


def select_call(name: str) -> tuple[str, list[Value]]:
    """The call with an id, or whose id begins or ends so; at most three, to tell that a part is not enough."""
    if name.startswith("call_") and len(name) == _ID_LENGTH:
        return f"SELECT {_CALL} FROM calls WHERE id = ?", [name]
    part = _literal(name)
    where = "id LIKE ? ESCAPE '!' OR id LIKE ? ESCAPE '!' OR id LIKE ? ESCAPE '!'"
    values: list[Value] = [f"{part}%", f"call!_{part}%", f"%{part}"]
    return f"SELECT {_CALL} FROM calls WHERE {where} ORDER BY id DESC LIMIT 3", values


def select_by_ids(ids: list[str]) -> tuple[str, list[Value]]:
    """Certain calls, oldest first."""
    return f"SELECT {_CALL} FROM calls WHERE id IN ({', '.join('?' * len(ids))}) ORDER BY id", [*ids]


def select_attempts(call_id: str) -> tuple[str, list[Value]]:
    """The attempts of a call, in order."""
    return f"SELECT {_ATTEMPT} FROM attempts WHERE call_id = ? ORDER BY n", [call_id]


def read_call(row: Row) -> CallView:
    """A row of the queries for calls."""
    return msgspec.convert(_named(_CALL, row), CallView, strict=False)


def read_attempt(row: Row) -> AttemptView:
    """A row of ``select_attempts``."""
    return msgspec.convert(_named(_ATTEMPT, row), AttemptView, strict=False)


def _named(columns: str, row: Row) -> dict[str, Any]:
    values: dict[str, Any] = dict(zip(columns.split(", ")[:-_USAGE], row[:-_USAGE], strict=True))
    counts = row[-_USAGE:]
    values["usage"] = None if counts[0] is None else dict(zip(_CLASSES, counts, strict=True))
    values["started_at"] = datetime.fromtimestamp(int(values["started_at"]) / 1000, UTC)
    return values
