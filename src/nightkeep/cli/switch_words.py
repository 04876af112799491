"""What ``stop`` and ``resume`` share: how a target is named, whose hand it is, and how a stop reads."""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import click

from nightkeep.cli.tables import print_table, styled

__all__ = ["HEADINGS", "print_json", "print_stops", "row", "sentence", "target_of", "target_options", "whose_hand"]

KINDS: Final = ("model", "account", "tag", "tool")
HEADINGS: Final = ("STOPPED", "SINCE (UTC)", "BY", "HOW", "WHY")
_MOST_WHY: Final = 40


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument SCOPE and the options that name something else."""
    texts = {
        "tool": "A tool, or a glob.",
        "tag": "A tag, or a glob.",
        "account": "An account, or a glob.",
        "model": "A model: an alias, provider/model, or a glob.",
    }
    for kind, text in texts.items():
        command = click.option(f"--{kind}", metavar="NAME", help=text)(command)
    return click.argument("scope", required=False)(command)


def target_of(scope: str | None, names: dict[str, str | None]) -> dict[str, str] | None:
    """The one thing that is named, for the API; None where nothing is. Raises UsageError: more than one is."""
    given = {"scope": scope, **{kind: names.get(kind) for kind in KINDS}}
    found = [{"kind": kind, "name": name} for kind, name in given.items() if name is not None]
    if len(found) > 1:
        both = " and ".join(f"{each['kind']} {each['name']}" for each in found)
        raise click.UsageError(f"name one thing at a time, not {both}")
    return found[0] if found else None


def whose_hand() -> str:
    """Who is at the keyboard, as the record will say: ``user@host``."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def sentence(stop: dict[str, Any]) -> str:
    """``by dana@ops at 2026-11-20 03:12: it loops``."""
    because = f": {stop['why']}" if stop["why"] else ""
    return f"by {stop['by']} at {_moment(stop['since'])} UTC{because}"


def print_stops(stops: list[dict[str, Any]]) -> None:
    """One line for each."""
    print_table(HEADINGS, [row(stop) for stop in stops])


def row(stop: dict[str, Any]) -> tuple[str, ...]:
    """A stop as a row."""
    name = "/ (everything)" if (stop["kind"], stop["name"]) == ("scope", "/") else stop["name"]
    what = name if stop["kind"] == "scope" else f"{stop['kind']} {name}"
    how = stop["source"] + (", drains" if stop.get("drain") else "")
    why = stop["why"] if len(stop["why"]) <= _MOST_WHY else stop["why"][: _MOST_WHY - 1] + "…"
    return styled(what, "red", bold=True), _moment(stop["since"]), stop["by"], how, why


def _moment(text: str) -> str:
    return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def print_json(value: Any) -> None:
    """Indented, as every command prints it."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))
