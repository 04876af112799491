"""``nightkeep calls``: what the agents asked, who served it, and why each attempt ended as it did.

Reads the database of the data directory beside its owner: it works while the gateway runs and when it does not.
"""

from __future__ import annotations

import os
import re
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import msgspec

from nightkeep.cli.tables import print_table, styled
from nightkeep.config import data_dir
from nightkeep.models.call_queries import CallFilter, CallRow, CallStory, find_calls, load_body, tell_call
from nightkeep.store.sqlite import DATABASE_NAME, Snapshot, open_snapshot

__all__ = ["command"]

_EXIT_NOTHING = 4
_FOLLOW_S = 0.5
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_COLOURS = {"success": "green", "running": "cyan", "cancelled": "yellow"}
_DATA = click.option("--data", "data_option", metavar="DIR", help="The data directory of the gateway.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("calls")
def command() -> None:
    """List, show and follow the calls that were made."""


def _since(context: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,6})([smhd])", value)
    if match is None:
        raise click.BadParameter("write a number and s, m, h or d, for example 90m")
    return datetime.now(UTC) - timedelta(seconds=int(match[1]) * _UNITS[match[2]])


@command.command("list")
@click.option("--since", callback=_since, help="Not older than this: 90s, 15m, 1h, 7d.")
@click.option("--scope", help="This scope and everything below it.")
@click.option("--model", help="Asked or served; the beginning of a name is enough.")
@click.option("--account", help="The account that served last.")
@click.option("--outcome", help="success, rate_limited, pool_exhausted, cancelled …")
@click.option("--tag", help="The kind of work.")
@click.option("--run", help="The run that the calls belong to.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 100_000))
@_DATA
@_JSON
def list_calls(data_option: str | None, as_json: bool, **wanted: Any) -> None:
    """List calls, the newest first."""
    with _open(data_option) as snapshot:
        rows = find_calls(snapshot, CallFilter(**wanted))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=1))
        return
    if not rows:
        is_filtered = any(value is not None for name, value in wanted.items() if name != "limit")
        click.echo("No call matches." if is_filtered else "No calls yet: point a client at the gateway and send one.")
        return
    print_table(_HEADINGS, [_line(row) for row in rows])
    click.echo(styled(_summary(rows), "bright_black"))


@command.command("show")
@click.argument("call")
@click.option("--bodies", is_flag=True, help="Print the request and the answer, where they were kept.")
@_DATA
@_JSON
def show(call: str, bodies: bool, data_option: str | None, as_json: bool) -> None:
    """Tell the story of one CALL: by its id, or the beginning of it."""
    with _open(data_option) as snapshot:
        story = tell_call(snapshot, call)
        if isinstance(story, list):
            hint = f" It could be: {', '.join(story)}." if story else " 'nightkeep calls list' shows what there is."
            click.echo(
                f"There is no call {call!r}.{hint}" if not story else f"{call!r} is not one call.{hint}", err=True
            )
            sys.exit(_EXIT_NOTHING)
        kept = [load_body(snapshot, blob) for blob in (story.request_blob, story.response_blob)] if bodies else []
    if as_json:
        found = msgspec.to_builtins(story)
        if bodies:
            found["request"], found["response"] = [None if b is None else b.decode("utf-8", "replace") for b in kept]
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=1))
        return
    _tell(story)
    for title, body in zip(("request", "answer"), kept, strict=False):
        text = "not kept (record.bodies decides)" if body is None else body.decode("utf-8", "replace")
        click.echo(f"\n{styled(title, bold=True)}\n{text}")


@command.command("tail")
@_DATA
@_JSON
def tail(data_option: str | None, as_json: bool) -> None:
    """Follow the calls as they end, until interrupted."""
    with _open(data_option) as snapshot:
        newest = find_calls(snapshot, CallFilter(limit=1))
        last = newest[0].id if newest else "call_"
        if not as_json:
            click.echo(styled("following; Ctrl-C ends it", "bright_black"), err=True)
        while True:
            rows = [
                row for row in find_calls(snapshot, CallFilter(after_id=last, limit=1000)) if row.outcome != "running"
            ]
            for row in rows:
                last = row.id
                click.echo(msgspec.json.encode(row).decode() if as_json else "  ".join(_line(row)))
            sys.stdout.flush()
            time.sleep(_FOLLOW_S)


class _Opened:
    """A snapshot that is closed in the end."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def __enter__(self) -> Snapshot:
        return self.snapshot

    def __exit__(self, *_: object) -> None:
        self.snapshot.close()


def _open(data_option: str | None) -> _Opened:
    directory = data_dir(os.environ, data_option)
    if not (directory / DATABASE_NAME).exists():
        click.echo(
            f"There is no record in {directory}: start 'nightkeep up' first, or name its directory with --data.",
            err=True,
        )
        sys.exit(_EXIT_NOTHING)
    return _Opened(open_snapshot(Path(directory)))


_HEADINGS = ("time", "call", "outcome", "asked", "served by", "tries", "took", "tokens", "cost")


def _line(row: CallRow) -> list[str]:
    tokens = "" if row.input_tokens is None else f"{row.input_tokens} → {row.output_tokens}"
    served = f"{row.account}" if row.served in ("", row.asked) else f"{row.account} {row.served}"
    return [
        _time(row.started_at),
        row.id,
        styled(row.outcome or "?", _COLOURS.get(row.outcome, "red")),
        row.asked + (" (stream)" if row.is_stream else ""),
        served or "-",
        str(row.attempts),
        _took(row.duration_ms),
        tokens,
        _cost(row.cost_micro_usd),
    ]


def _tell(story: CallStory) -> None:
    call = story.call
    click.echo(f"{styled(call.id, bold=True)}  {styled(call.outcome, _COLOURS.get(call.outcome, 'red'))}")
    click.echo(f"  {_sentence(story)}")
    facts = {
        "asked": f"{call.asked} on {call.wire} ({story.door}{', streamed' if call.is_stream else ''})",
        "by": " ".join(filter(None, [f"scope {call.scope}", call.tag and f"tag {call.tag}", call.agent])),
        "run": call.run_id,
        "route": story.rule,
        "served": f"{call.served} at {call.provider}, account {call.account}" if call.account else None,
        "stripped": story.stripped,
        "degraded": story.degraded,
        "cache": story.cache,
        "idempotency": story.idempotency,
        "tokens": ", ".join(f"{value} {name}" for name, value in story.usage.items() if value) or None,
        "cost": _cost(call.cost_micro_usd) or "not known",
        "error": story.error_message,
    }
    for name, value in facts.items():
        if value:
            click.echo(f"  {styled(name.ljust(12), 'bright_black')}{value}")
    if story.attempts:
        click.echo(f"\n  {styled('attempts', bold=True)}")
    for attempt in story.attempts:
        after = (attempt.started_at - call.started_at).total_seconds()
        ended = styled(attempt.outcome, _COLOURS.get(attempt.outcome, "red"))
        why = f": {attempt.message}" if attempt.message else ""
        status = f" (HTTP {attempt.status})" if attempt.status else ""
        where = f"{attempt.account} ({attempt.provider}/{attempt.model})"
        click.echo(f"  {attempt.n}. after {after:.2f} s  {where}  {ended}{status} in {_took(attempt.duration_ms)}{why}")


def _sentence(story: CallStory) -> str:
    """The call in one sentence."""
    call = story.call
    tries = f"after {call.attempts} attempts" if call.attempts > 1 else "at the first attempt"
    if call.outcome == "success":
        if story.idempotency in ("replayed", "joined") or story.cache == "hit":
            return f"Asked for {call.asked}, and was given an answer that another call had paid for."
        return f"Asked for {call.asked}, answered by {call.served or call.asked} {tries} in {_took(call.duration_ms)}."
    if call.outcome == "running":
        return f"Asked for {call.asked}; the answer is still coming."
    if call.outcome == "interrupted":
        return f"Asked for {call.asked}; the gateway ended meanwhile, and how the provider's answer ended is not known."
    if call.outcome == "cancelled":
        return f"Asked for {call.asked}; the client hung up after {_took(call.duration_ms)}."
    return f"Asked for {call.asked}, and was refused {tries}: {call.outcome}."


def _summary(rows: list[CallRow]) -> str:
    failed = sum(1 for row in rows if row.outcome not in ("success", "running", "cancelled"))
    cost = sum(row.cost_micro_usd or 0 for row in rows)
    unpriced = sum(1 for row in rows if row.cost_micro_usd is None)
    note = f", {unpriced} without a known cost" if unpriced else ""
    return f"{len(rows)} call{'s' if len(rows) != 1 else ''}, {failed} failed, {_cost(cost)} in all{note}"


def _time(at: datetime) -> str:
    local = at.astimezone()
    is_today = local.date() == datetime.now(UTC).astimezone().date()
    return local.strftime("%H:%M:%S" if is_today else "%m-%d %H:%M")


def _took(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "-"
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def _cost(micro_usd: int | None) -> str:
    return "" if micro_usd is None else f"${micro_usd / 1_000_000:.6f}".rstrip("0").rstrip(".") or "$0"
