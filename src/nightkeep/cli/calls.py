"""``nightkeep calls``: the record of calls, read from the data directory, whether the gateway runs or not."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click
import msgspec

from nightkeep.cli.call_words import HEADINGS, call_page, call_row, total_line
from nightkeep.cli.tables import print_table, styled
from nightkeep.config import data_dir
from nightkeep.models.call_queries import (
    CallFilter,
    CallView,
    read_attempt,
    read_call,
    select_attempts,
    select_by_ids,
    select_call,
    select_calls,
    select_totals,
)
from nightkeep.store.blobs import LOAD_BLOB, load_blob
from nightkeep.store.sqlite import Snapshot, open_snapshot

__all__ = ["command"]

_EXIT_NOTHING: Final = 4
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_POLL_S: Final = 0.25
_OVERLAP: Final = timedelta(seconds=2)  # a call that began before another may be written down after it
_MOST_RUNNING: Final = 500  # looked up at a time
_WIDTHS: Final = (15, 10, 20, 28, 12, 14, 8, 14, 9)
_EMPTY: Final = """no calls yet; send one:

  curl http://127.0.0.1:7777/v1/chat/completions -H 'content-type: application/json' \\
    -d '{"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}]}'
"""
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_DATA = click.option("--data", "data_option", metavar="DIR", help="Where records are kept.")


@click.group("calls")
def command() -> None:
    """List, show and follow the calls that were made."""


def _filters(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say which calls."""
    options = (
        click.option("--scope", help="Calls of this scope and all below it."),
        click.option("--model", help="Calls that asked for, or were served by, a model of this name or part of it."),
        click.option("--account", help="Calls that this account served last."),
        click.option("--outcome", help="Calls that ended so (success, rate_limited, interrupted …), or 'failed'."),
        click.option("--tag", help="Calls with this tag."),
        click.option("--run", help="Calls of this run."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def _moment(text: str | None) -> datetime | None:
    """What ``--since`` names: ``30m``, ``1h``, ``2d``, or a date and time."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})\s*([smhdw])", text)
    try:
        if match:
            return datetime.now(UTC) - timedelta(seconds=int(match[1]) * _UNITS[match[2]])
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"--since {text!r} is neither a span such as 30m, 1h or 2d nor a date") from None


@command.command("list")
@click.option("--since", help="How far back: 30m, 1h, 2d, or a date and time.")
@_filters
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many.")
@_DATA
@_JSON
def list_calls(since: str | None, data_option: str | None, as_json: bool, **wanted: Any) -> None:
    """List the newest calls, newest first. Exit code 4: there are none."""
    filters = CallFilter(since=_moment(since), **wanted)
    with _Record(data_option) as record:
        views = record.calls(filters)
        if as_json:
            _print_json(views)
        elif not views:
            hint = "no call matches; 'nightkeep calls list' without options shows all"
            click.echo(hint if record.has_any() else _EMPTY, err=True)
        else:
            now = datetime.now(UTC)
            print_table(HEADINGS, [call_row(view, now) for view in views])
            about = f" since {since}" if since else ""
            click.echo("\n" + total_line(len(views), record.totals(filters), about))
    if not views:
        raise SystemExit(_EXIT_NOTHING)


@command.command("show")
@click.argument("name", metavar="CALL")
@click.option("--bodies", is_flag=True, help="Print the request and the answer, where they were kept.")
@_DATA
@_JSON
def show_call(name: str, bodies: bool, data_option: str | None, as_json: bool) -> None:
    """Show one call with all its attempts. CALL is its id, or the beginning or end of it.

    Exit code 4: there is no such call.
    """
    with _Record(data_option) as record:
        view = record.one(name)
        attempts = [read_attempt(row) for row in record.read(*select_attempts(view.id))]
        blobs = (("request", view.request_blob), ("answer", view.response_blob)) if bodies else ()
        texts = {part: record.body(blob) for part, blob in blobs}
    if as_json:
        kept = {f"{part}_body": None if data is None else data.decode(errors="replace") for part, data in texts.items()}
        _print_json({**msgspec.to_builtins(view), "attempts": attempts, **kept})
        return
    for line in call_page(view, attempts):
        click.echo(line)
    for part, data in texts.items():
        click.echo("\n" + styled(part, bold=True))
        click.echo(_readable(data) if data is not None else "not kept (the setting record.bodies says which are)")


@command.command("tail")
@_filters
@_DATA
@_JSON
def tail_calls(data_option: str | None, as_json: bool, **wanted: Any) -> None:
    """Print calls as they end, until interrupted. With --json one object a line."""
    filters = CallFilter(limit=10_000, **wanted)
    try:
        with _Record(data_option, is_awaited=True) as record:
            follower = _Follower(record, filters)
            click.echo(styled("following calls; Ctrl-C ends this", "bright_black"), err=True)
            for view in follower.ended():
                click.echo(json.dumps(msgspec.to_builtins(view), ensure_ascii=False) if as_json else _line(view))
                sys.stdout.flush()
    except (KeyboardInterrupt, BrokenPipeError):
        return


def _line(view: CallView) -> str:
    """One line of ``tail``: columns of fixed width, since what comes is not known."""
    cells = call_row(view, datetime.now(UTC))
    padded = [
        cell + " " * max(0, width - len(click.unstyle(cell))) for cell, width in zip(cells, _WIDTHS, strict=False)
    ]
    return "  ".join([*padded, *cells[len(_WIDTHS) :]]).rstrip()


class _Follower:
    """Finds calls as they end: those that are new, and those that were running when it began."""

    def __init__(self, record: _Record, filters: CallFilter) -> None:
        self._record = record
        self._filters = filters
        self._began = self._newest = datetime.now(UTC)
        self._seen: dict[str, datetime] = {}
        self._running = {view.id for view in record.calls(msgspec.structs.replace(filters, outcome="running"))}

    def ended(self) -> Iterator[CallView]:
        """Each call once, when it has ended; never ends by itself."""
        while True:
            for view in sorted(self._look(), key=lambda each: each.id):
                if view.outcome == "running":
                    self._running.add(view.id)
                elif view.id not in self._seen and (view.id in self._running or _end(view) >= self._began):
                    self._running.discard(view.id)
                    self._seen[view.id] = view.started_at
                    self._newest = max(self._newest, view.started_at)
                    yield view
            limit = self._newest - 2 * _OVERLAP
            self._seen = {name: at for name, at in self._seen.items() if at >= limit}
            time.sleep(_POLL_S)

    def _look(self) -> list[CallView]:
        found = self._record.calls(msgspec.structs.replace(self._filters, since=self._newest - _OVERLAP))
        if self._running:
            ids = sorted(self._running)[-_MOST_RUNNING:]
            found += [read_call(row) for row in self._record.read(*select_by_ids(ids))]
        return found


def _end(view: CallView) -> datetime:
    return view.started_at + timedelta(milliseconds=view.duration_ms or 0)


class _Record:
    """The stored record, while a command reads it."""

    def __init__(self, data_option: str | None, *, is_awaited: bool = False) -> None:
        self._directory = data_dir(os.environ, data_option)
        self._snapshot: Snapshot | None = open_snapshot(self._directory)
        if is_awaited and self._snapshot is None:
            click.echo(f"there is no record in {self._directory} yet; waiting for 'nightkeep up'", err=True)
        while is_awaited and self._snapshot is None:
            time.sleep(_POLL_S)
            self._snapshot = open_snapshot(self._directory)

    def __enter__(self) -> _Record:
        return self

    def __exit__(self, *_: object) -> None:
        if self._snapshot is not None:
            self._snapshot.close()

    def read(self, sql: str, parameters: list[Any]) -> list[Any]:
        """Rows; none where nothing was ever recorded."""
        return self._snapshot.read(sql, parameters) if self._snapshot is not None else []

    def calls(self, filters: CallFilter) -> list[CallView]:
        """The newest calls of a filter, newest first."""
        return [read_call(row) for row in self.read(*select_calls(filters))]

    def totals(self, filters: CallFilter) -> tuple[int, ...]:
        """What they come to."""
        rows = self.read(*select_totals(filters))
        return tuple(int(value) for value in rows[0]) if rows else (0, 0, 0, 0, 0)

    def has_any(self) -> bool:
        """Whether there is any call at all."""
        return bool(self.calls(CallFilter(limit=1)))

    def one(self, name: str) -> CallView:
        """The call that is meant; the command ends where there is none, or more than one."""
        found = [read_call(row) for row in self.read(*select_call(name))]
        if len(found) == 1:
            return found[0]
        if found:
            click.echo(f"{name!r} fits more than one call: {', '.join(view.id for view in found)} …", err=True)
        else:
            click.echo(f"there is no call {name!r} in {self._directory}; 'nightkeep calls list' shows them", err=True)
        raise SystemExit(_EXIT_NOTHING)

    def body(self, blob: str | None) -> bytes | None:
        """A kept body."""
        rows = self.read(LOAD_BLOB, [blob]) if blob else []
        return load_blob(rows[0]) if rows else None


def _readable(data: bytes) -> str:
    try:
        return json.dumps(json.loads(data), ensure_ascii=False, indent=2)
    except ValueError:
        return data.decode(errors="replace")


def _print_json(value: Any) -> None:
    click.echo(json.dumps(msgspec.to_builtins(value), ensure_ascii=False, indent=2))
