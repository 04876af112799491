"""Switches as rows: what is kept of a stop, and what each use writes, as pieces of work for the store's writer.

Every use is noted in ``switch_log``, also one that changes nothing; its highest number is the version by which other
processes see that there is something new.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from nightkeep.control.stops import Stop, Target, TargetKind
from nightkeep.store.port import Row, Transaction, Value

__all__ = [
    "SELECT_LOG",
    "SELECT_STOPS",
    "SELECT_VERSION",
    "Hand",
    "Use",
    "Verb",
    "add_stop",
    "end_stops",
    "note",
    "read_stop",
    "read_use",
]

_COLUMNS: Final = "id, kind, name, why, by_whom, since, drain, source"
SELECT_STOPS: Final = f"SELECT {_COLUMNS} FROM switches ORDER BY since, id"
SELECT_VERSION: Final = "SELECT MAX(n) FROM switch_log"
SELECT_LOG: Final = "SELECT n, at, verb, kind, name, by_whom, why, source FROM switch_log ORDER BY n DESC LIMIT ?"


Verb = Literal["stopped", "stopped again", "cut", "resumed", "was not stopped"]
"""What a use did; ``cut``: a draining stop became one that ends what is in flight."""


class Hand(msgspec.Struct, frozen=True, kw_only=True):
    """Whose hand is on a switch, why and when."""

    by: str
    why: str
    source: str
    at: datetime


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """One use of a switch."""

    n: int
    at: datetime
    verb: Verb
    kind: TargetKind
    name: str
    by: str
    why: str
    source: str


def read_stop(row: Row) -> Stop:
    """A row of ``SELECT_STOPS``."""
    return msgspec.convert(
        {
            **dict(zip(("id", "kind", "name", "why", "by"), row[:5], strict=True)),
            "since": _moment(row[5]),
            "drain": bool(row[6]),
            "source": row[7],
        },
        Stop,
    )


def read_use(row: Row) -> Use:
    """A row of ``SELECT_LOG``."""
    fields = ("n", "at", "verb", "kind", "name", "by", "why", "source")
    return msgspec.convert({**dict(zip(fields, row, strict=True)), "at": _moment(row[1])}, Use)


def add_stop(transaction: Transaction, stop: Stop) -> tuple[Stop, Verb]:
    """Write a stop; where its family holds the target already, the first stays. The one that holds, and the verb.

    A stop that cuts makes a draining one cut, too: somebody has lost patience.
    """
    rows = transaction.execute(
        f"SELECT {_COLUMNS} FROM switches WHERE kind = ? AND name = ? AND family = ?",
        [stop.kind, stop.name, stop.family],
    )
    first, verb = _first(rows, stop)
    if verb == "stopped":
        values: list[Value] = [stop.id, stop.kind, stop.name, stop.why, stop.by]
        values += [_ms(stop.since), int(stop.drain), stop.source, stop.family]
        transaction.insert(f"INTO switches ({_COLUMNS}, family)", [values])
    elif verb == "cut":
        transaction.execute("UPDATE switches SET drain = 0 WHERE id = ?", [first.id])
    hand = Hand(by=stop.by, why=stop.why, source=stop.source, at=stop.since)
    note(transaction, verb, stop.target, hand, first.id)
    return first, verb


def _first(rows: Sequence[Row], stop: Stop) -> tuple[Stop, Verb]:
    if not rows:
        return stop, "stopped"
    first = read_stop(rows[0])
    if first.drain and not stop.drain:
        return msgspec.structs.replace(first, drain=False), "cut"
    return first, "stopped again"


def end_stops(
    transaction: Transaction, target: Target | None, family: str | None, hand: Hand, *, is_held: bool = False
) -> list[Stop]:
    """End the stops of a target (None: of all) that a family holds (None: whoever holds them).

    ``is_held``: there is one beside the rows, so it is not said that there was none.
    """
    every = [read_stop(row) for row in transaction.execute(SELECT_STOPS)]
    ended = [stop for stop in every if target in (None, stop.target) and family in (None, stop.family)]
    for stop in ended:
        transaction.execute("DELETE FROM switches WHERE id = ?", [stop.id])
        note(transaction, "resumed", stop.target, hand, stop.id)
    if not ended and target is not None:
        note(transaction, "resumed" if is_held else "was not stopped", target, hand)
    return ended


def note(transaction: Transaction, verb: Verb, target: Target, hand: Hand, stop_id: str = "") -> None:
    """Keep that a switch was used."""
    transaction.execute(
        "INSERT INTO switch_log (n, at, verb, kind, name, by_whom, why, source, stop_id) "
        "SELECT COALESCE(MAX(n), 0) + 1, ?, ?, ?, ?, ?, ?, ?, ? FROM switch_log",
        [_ms(hand.at), verb, target.kind, target.name, hand.by, hand.why, hand.source, stop_id],
    )


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _moment(value: object) -> datetime:
    return datetime.fromtimestamp(int(str(value)) / 1000, UTC)
