"""The table ``alerts``: episodes to rows and back. Nobody else reads or writes it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import msgspec

from nightkeep.ops.alert_episodes import Alert, Episode
from nightkeep.store.port import Row, Transaction, Value

__all__ = [
    "SELECT",
    "SELECT_ID",
    "SELECT_OPEN",
    "SELECT_STATE",
    "episode_of",
    "forget_resolved",
    "row_of",
    "write_episodes",
]

_COLUMNS: Final = (
    "id, alert_key, kind, level, about, scope, message, state, first_at, last_at, occurrences, resets_at, lasts_s, "
    "ends_at, acked_at, acked_by, acked_why, resolved_at, deliveries"
)
_AFTER: Final = "ON CONFLICT (id) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in _COLUMNS.split(", ")[1:]
)
SELECT: Final = f"SELECT {_COLUMNS} FROM alerts ORDER BY id DESC LIMIT ?"
SELECT_STATE: Final = f"SELECT {_COLUMNS} FROM alerts WHERE state = ? ORDER BY last_at DESC LIMIT ?"
SELECT_OPEN: Final = f"SELECT {_COLUMNS} FROM alerts WHERE state <> 'resolved' ORDER BY id"
SELECT_ID: Final = f"SELECT {_COLUMNS} FROM alerts WHERE id = ?"
_KEPT: Final = timedelta(days=90)


def write_episodes(transaction: Transaction, rows: Sequence[Sequence[Value]]) -> None:
    """Write episodes; those that are there are replaced."""
    transaction.insert(f"INTO alerts ({_COLUMNS})", rows, _AFTER)


def forget_resolved(transaction: Transaction, now: datetime) -> None:
    """Remove what ended more than 90 days ago."""
    transaction.execute("DELETE FROM alerts WHERE state = 'resolved' AND last_at < ?", (_ms(now - _KEPT),))


def row_of(episode: Episode) -> tuple[Value, ...]:
    """An episode as a row."""
    alert = episode.alert
    return (
        episode.id, alert.key, alert.kind, alert.level, alert.about, alert.scope, alert.text, episode.state,
        _ms(episode.first_at), _ms(episode.last_at), episode.count, _ms(alert.resets_at), alert.lasts_s,
        _ms(alert.ends_at), _ms(episode.acked_at), episode.acked_by, episode.acked_why, _ms(episode.resolved_at),
        msgspec.json.encode(episode.deliveries).decode(),
    )  # fmt: skip


def episode_of(row: Row) -> Episode:
    """A row as an episode."""
    (
        alert_id, key, kind, level, about, scope, text, state, first_at, last_at, count, resets_at, lasts_s,
        ends_at, acked_at, acked_by, acked_why, resolved_at, deliveries,
    ) = cast("tuple[Any, ...]", row)  # fmt: skip
    alert = Alert(
        key=key,
        text=text,
        level=level,
        kind=kind,
        about=about,
        scope=scope,
        resets_at=_at(resets_at),
        lasts_s=lasts_s,
        ends_at=_at(ends_at),
    )
    return Episode(
        id=alert_id,
        alert=alert,
        state=state,
        first_at=cast("datetime", _at(first_at)),
        last_at=cast("datetime", _at(last_at)),
        count=count,
        acked_at=_at(acked_at),
        acked_by=acked_by,
        acked_why=acked_why,
        resolved_at=_at(resolved_at),
        deliveries=msgspec.json.decode(deliveries, type=dict[str, str]),
    )


def _ms(at: datetime | None) -> int | None:
    return int(at.timestamp() * 1000) if at is not None else None


def _at(ms: int | None) -> datetime | None:
    return datetime.fromtimestamp(ms / 1000, UTC) if ms is not None else None
