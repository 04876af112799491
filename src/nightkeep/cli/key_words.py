"""Virtual keys in words: one as a row, one as a page, and a new one as it is handed over."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import click

from nightkeep.cli.tables import styled

__all__ = ["GOOD", "HEADINGS", "events", "facts", "hand_over", "moment", "print_json", "row"]

GOOD: Final = ("active", "replaced")
"""States in which a key is accepted."""

HEADINGS: Final = ("NAME", "SCOPE", "STATE", "KEY", "MODELS", "TAGS", "EXPIRES", "LAST USED")
_COLOURS: Final = {"active": "green", "replaced": "yellow", "expired": "red", "revoked": "red"}


def hand_over(answer: dict[str, Any], done: str, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    about = answer["about"]
    models, tags = (", ".join(about[part]) or "all" for part in ("models", "tags"))
    click.echo(
        f"key {styled(about['name'], bold=True)} is {done}: {about['fingerprint']}, scope {about['scope']}, "
        f"models {models}, tags {tags}, expires {_until(about['expires_at'])}",
        err=True,
    )
    click.echo("It is shown this once and kept nowhere. A client's OPENAI_API_KEY (or other vendor's) is:", err=True)
    sys.stderr.flush()
    click.echo(answer["key"])


def row(key: dict[str, Any]) -> tuple[str, ...]:
    lists = [_short(key[part]) for part in ("models", "tags")]
    state = styled(key["state"], _COLOURS[key["state"]])
    expires = _until(key["expires_at"]) if key["state"] in GOOD else ""
    return key["name"], key["scope"], state, key["fingerprint"], *lists, expires, _ago(key["last_used_at"])


def facts(key: dict[str, Any]) -> list[tuple[str, str]]:
    limits = ", ".join(f"{_dollars(name, value)}" for name, value in key["limits"].items())
    facts = [
        ("name", styled(key["name"], bold=True)),
        ("id", key["id"]),
        ("key", f"{key['fingerprint']} (the key itself is kept nowhere)"),
        ("state", styled(key["state"], _COLOURS[key["state"]])),
        ("scope", key["scope"]),
        ("models", ", ".join(key["models"]) or "all"),
        ("tags", ", ".join(key["tags"]) or "all"),
        ("default tag", key["default_tag"] or ""),
        ("limits", limits or "none of its own"),
        ("expires", _until(key["expires_at"])),
        ("replaces", key["rotated_from"] or ""),
        ("replaced by", key["replaced_by"] or ""),
        ("last used", _ago(key["last_used_at"])),
    ]
    return [(label, text) for label, text in facts if text]


def events(log: list[dict[str, Any]], key_id: str) -> list[tuple[str, str]]:
    """What was done to a key, under labels."""
    done = [event for event in log if event["key_id"] == key_id]
    return [
        (event["verb"], f"{_stamp(event['at'])} by {event['by']}{': ' if event['why'] else ''}{event['why']}")
        for event in done
    ]


def _dollars(name: str, value: int) -> str:
    if name == "micro_usd_per_day":
        return f"${Decimal(value) / 1_000_000:.2f} a day"
    return f"{value:,} {name.replace('_', ' ')}"


def _short(values: list[str]) -> str:
    text = ", ".join(values[:2]) or "all"
    return text if len(values) <= 2 else f"{text} +{len(values) - 2}"


def _parsed(value: Any) -> datetime | None:
    return datetime.fromisoformat(str(value)).astimezone(UTC) if value else None


def moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else ""


def _stamp(value: Any) -> str:
    return moment(_parsed(value))


def _until(value: Any) -> str:
    end = _parsed(value)
    if end is None:
        return "never"
    left = end - datetime.now(UTC)
    return moment(end) if left > timedelta(days=90) or left < timedelta(0) else f"in {_span(left)}"


def _ago(value: Any) -> str:
    used = _parsed(value)
    return "never" if used is None else f"{_span(max(timedelta(0), datetime.now(UTC) - used))} ago"


def _span(span: timedelta) -> str:
    minutes = int(span.total_seconds() / 60 + 0.5)
    if minutes < 120:
        return f"{minutes} min"
    return f"{round(minutes / 60)} h" if minutes < 48 * 60 else f"{round(minutes / 1440)} d"


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))
