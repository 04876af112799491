"""Runs of foreign agents: the calls of one session belong together, though nobody told us where it begins.

The session's name is, in this order: the header ``x-nightkeep-session``; what the client sends by itself
(Claude Code in ``metadata.user_id``, Codex in a header ``session_id`` or ``conversation_id``); else a call
joins the last run of the same scope, key, peer and program, until it has been idle for half an hour.
"""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import ClassVar, Final, Literal

import msgspec

from nightkeep.core.clock import Randomness, new_id
from nightkeep.core.messages import Usage
from nightkeep.core.money import MicroUsd
from nightkeep.store.port import Store, Value

__all__ = ["Run", "SessionKey", "Sessions", "agent_name", "session_key"]

Source = Literal["header", "client", "idle_gap"]

_COUNTERS: Final = 5
_MOST_RUNS: Final = 20_000
_MOST_NAME: Final = 200
_HEADERS: Final = ("session_id", "session-id", "conversation_id", "x-claude-code-session-id", "x-session-id")


class SessionKey(msgspec.Struct, frozen=True):
    """What makes calls belong together."""

    source: Source
    scope: str
    name: str


class Run(msgspec.Struct):
    """The calls of one session; counters are what this process has not written down yet."""

    id: str
    key: SessionKey
    agent: str
    started_at: datetime
    last_at: datetime
    calls: int = 0
    failures: int = 0
    tokens: int = 0
    cost: int = 0
    unpriced_calls: int = 0

    def row(self) -> tuple[Value, ...]:
        """The run as a row of ``Sessions.INTO``."""
        started, last = (int(at.timestamp() * 1000) for at in (self.started_at, self.last_at))
        key = self.key
        return (
            self.id, key.scope, key.source, key.name, self.agent, started, last, self.calls, self.failures,
            self.tokens, self.cost, self.unpriced_calls,
        )  # fmt: skip

    def count(self, amounts: Sequence[Value], *, is_set: bool = False) -> None:
        """Add to the counters (or set them), in the order of ``row``."""
        for name, amount in zip(("calls", "failures", "tokens", "cost", "unpriced_calls"), amounts, strict=True):
            setattr(self, name, int(amount or 0) + (0 if is_set else getattr(self, name)))


def session_key(scope: str, headers: Mapping[str, str], in_body: str | None, key_name: str, peer: str) -> SessionKey:
    """Say which session a call belongs to."""
    named = headers.get("x-nightkeep-session")
    if named:
        return SessionKey("header", scope, named[:_MOST_NAME])
    own = in_body or next((headers[name] for name in _HEADERS if name in headers), None)
    if own:
        return SessionKey("client", scope, own[:_MOST_NAME])
    return SessionKey("idle_gap", scope, f"{key_name}|{peer}|{agent_name(headers)}")


def agent_name(headers: Mapping[str, str]) -> str:
    """The program that calls, by its user agent: ``claude-cli/2.1``, ``codex_exec/0.169``."""
    words = headers.get("user-agent", "").split()
    return words[0][:60] if words else ""


class Sessions:
    """All runs that are going on, in memory; what changed is written with the calls."""

    INTO: ClassVar[str] = (
        "INTO runs (id, scope, source, session, agent, started_at, last_at, calls, failures, tokens, cost_micro_usd, "
        "unpriced_calls)"
    )
    AFTER: ClassVar[str] = (
        "ON CONFLICT (id) DO UPDATE SET last_at = excluded.last_at, calls = runs.calls + excluded.calls, "
        "failures = runs.failures + excluded.failures, tokens = runs.tokens + excluded.tokens, "
        "cost_micro_usd = runs.cost_micro_usd + excluded.cost_micro_usd, "
        "unpriced_calls = runs.unpriced_calls + excluded.unpriced_calls"
    )

    def __init__(self, gap_s: float, randomness: Randomness, *, is_shared: bool = False) -> None:
        """``is_shared``: other processes see calls of the same sessions; a session with a name is one run for all."""
        self.gap_s = gap_s
        self._is_shared = is_shared
        self._randomness = randomness
        self._runs: OrderedDict[SessionKey, Run] = OrderedDict()
        self._by_id: dict[str, Run] = {}
        self._changed: dict[str, Run] = {}

    async def restore(self, store: Store, now: datetime) -> None:
        """Go on with the runs of the last process. Raises StoreError."""
        rows = await store.read(
            "SELECT id, scope, source, session, agent, started_at, last_at FROM runs ORDER BY last_at DESC LIMIT 2000"
        )
        for row in reversed(rows):
            run = msgspec.convert(
                {
                    "id": row[0],
                    "key": {"source": row[2], "scope": row[1], "name": row[3]},
                    "agent": row[4],
                    "started_at": datetime.fromtimestamp(int(row[5] or 0) / 1000, now.tzinfo),
                    "last_at": datetime.fromtimestamp(int(row[6] or 0) / 1000, now.tzinfo),
                },
                Run,
            )
            self._keep(run)

    def join(self, key: SessionKey, agent: str, now: datetime) -> str:
        """The id of the run that a call belongs to; a new one where the session is new or was idle too long."""
        run = self._runs.get(key)
        if run is None or (key.source == "idle_gap" and (now - run.last_at).total_seconds() > self.gap_s):
            run = Run(id=self._name(key, now), key=key, agent=agent, started_at=now, last_at=now)
            self._keep(run)
        run.last_at = now
        self._runs.move_to_end(key)
        return run.id

    def _name(self, key: SessionKey, now: datetime) -> str:
        if not self._is_shared or key.source == "idle_gap":
            return new_id("run", now, self._randomness)
        digest = hashlib.sha256(f"{key.source}\n{key.scope}\n{key.name}".encode()).digest()
        return f"run_{base64.b32encode(digest)[:26].decode()}"

    def note(self, run_id: str | None, *, is_failure: bool, usage: Usage | None, cost: MicroUsd | None) -> None:
        """Count a finished call in its run."""
        run = self._by_id.get(run_id or "")
        if run is None:
            return
        run.calls += 1
        run.failures += is_failure
        run.tokens += usage.total if usage is not None else 0
        if cost is None:
            run.unpriced_calls += 1
        else:
            run.cost += cost
        self._changed[run.id] = run

    def _keep(self, run: Run) -> None:
        old = self._runs.pop(run.key, None)
        if old is not None:
            self._by_id.pop(old.id, None)
        self._runs[run.key] = run
        self._by_id[run.id] = run
        if len(self._runs) > _MOST_RUNS:  # names come from clients: the one that was idle longest begins anew
            _, oldest = self._runs.popitem(last=False)
            self._by_id.pop(oldest.id, None)

    def take_changed(self) -> list[tuple[Value, ...]]:
        """Rows of the runs that changed since the last time, with what they have counted since then."""
        changed, self._changed = self._changed, {}
        rows = [run.row() for run in changed.values()]
        for run in changed.values():
            run.count((0,) * _COUNTERS, is_set=True)
        return rows

    def give_back(self, rows: Iterable[tuple[Value, ...]]) -> None:
        """These rows were not written: they have changed still."""
        for row in rows:
            run = self._by_id.get(str(row[0]))
            if run is not None:
                run.count(row[-_COUNTERS:])
                self._changed[run.id] = run
