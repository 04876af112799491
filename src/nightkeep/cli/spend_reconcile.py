"""``nightkeep spend reconcile``: hold the ledger against a provider's own report, and settle what a crash left open.

With a gateway running it is the gateway that books (it owns the ledger, and its budgets hear of it); without one the
command opens the data directory itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from nightkeep.cli.api_client import DEFAULT_URL, NoGatewayError, call_api
from nightkeep.cli.call_words import plural
from nightkeep.cli.spend_words import amount, plain, right, signed
from nightkeep.cli.tables import print_table, styled
from nightkeep.config_places import data_dir
from nightkeep.core.errors import ConflictError
from nightkeep.models.call_rows import epoch_ms
from nightkeep.models.reconcile import Difference, Period
from nightkeep.models.reconciliation import Reconciliation, find_differences, reconcile, summary
from nightkeep.models.spending import parse_moment
from nightkeep.models.usage_report import COLUMNS, Billed, CsvReport, SimReport
from nightkeep.store.sqlite import DATABASE_NAME, SqliteStore

__all__ = ["reconcile_command"]

_FETCH_S = 60.0
_MOST_SHOWN = 40
_COLOURS = {"settled": "green", "corrected": "yellow", "lost": "yellow", "in_flight": "cyan", "tokens": "cyan"}


class SystemClock:
    """The machine's clock: a command is its own composition root."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()


@click.command("reconcile")
@click.option(
    "--provider", "providers", multiple=True, required=True, help="Whose bill it is, as the settings name it."
)
@click.option("--url", help="Where the provider reports, per request: the simulated one at …/sim/usage/requests.")
@click.option("--csv", "csv_file", metavar="FILE", help="A report as CSV; - reads it from standard input.")
@click.option("--column", "columns", multiple=True, metavar="OURS=THEIRS", help=f"Of a CSV: {', '.join(COLUMNS)}.")
@click.option("--since", help="The report is complete from then on (else: from its first line).")
@click.option("--until", help="The report is complete until then (else: until now).")
@click.option("--grace", type=float, default=5.0, show_default=True, help="Seconds in which a bill may be on its way.")
@click.option("--book", is_flag=True, help="Also book what cannot be tied to a request of ours.")
@click.option("--dry-run", is_flag=True, help="Say what would be booked, and book nothing.")
@click.option("--gateway", envvar="NIGHTKEEP_URL", help=f"Address of the running gateway, else {DEFAULT_URL}.")
@click.option("--data", "data_option", metavar="DIR", help="Where records are kept.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def reconcile_command(
    url: str | None,
    csv_file: str | None,
    columns: tuple[str, ...],
    gateway: str | None,
    data_option: str | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Compare the ledger with a provider's own report, book what it settles, and name every difference.

    Doing it twice changes nothing. Exit code 1: a difference remains.
    """
    if bool(url) == bool(csv_file):
        raise click.UsageError("say where the report is: --url ADDRESS, or --csv FILE")
    now = datetime.now(UTC)
    lines = _fetch(url, columns) if url else _read_csv(str(csv_file), columns)
    body = _body(lines, now, **asked)
    done = _perform(body, gateway, data_option)
    if as_json:
        facts = {**msgspec.to_builtins(done), "is_settled": done.is_settled}
        click.echo(json.dumps(facts, ensure_ascii=False, indent=2))
    else:
        _print(done)
    if not done.is_settled:
        raise SystemExit(1)


def _body(lines: list[Billed], now: datetime, **asked: Any) -> dict[str, Any]:
    """The request to the API (``server.api_spend.ReportedBill``)."""
    since, until = (parse_moment(asked[name], now) for name in ("since", "until"))
    return {
        "providers": asked["providers"],
        "lines": lines,
        "since_ms": epoch_ms(since) if since else None,
        "until_ms": epoch_ms(until or now),
        "grace_ms": round(max(0.0, asked["grace"]) * 1000),
        "books_all": asked["book"],
        "is_dry_run": asked["dry_run"],
    }


# -- the report


def _fetch(url: str, columns: Sequence[str]) -> list[Billed]:
    if not url.startswith(("http://", "https://")):
        raise click.UsageError(f"--url {url}: only http and https addresses can be asked")
    try:
        with urllib.request.urlopen(url, timeout=_FETCH_S) as answer:
            data, kind = answer.read(), answer.headers.get("content-type", "")
    except (OSError, ValueError) as error:
        raise click.ClickException(f"the report at {url} cannot be had: {error}") from error
    return CsvReport(_mapping(columns)).read(data) if "csv" in kind else SimReport().read(data)


def _read_csv(name: str, columns: Sequence[str]) -> list[Billed]:
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise click.ClickException(f"{name} cannot be read: {error.strerror}") from error
    return CsvReport(_mapping(columns)).read(data)


def _mapping(columns: Sequence[str]) -> dict[str, str]:
    pairs = [column.partition("=") for column in columns]
    if any(not ours or not theirs for ours, _, theirs in pairs):
        raise click.UsageError("--column is OURS=THEIRS, such as --column usd=cost")
    return {ours: theirs for ours, _, theirs in pairs}


# -- who books


def _perform(body: dict[str, Any], gateway: str | None, data_option: str | None) -> Reconciliation:
    """Let the running gateway do it; where a directory was named, or none runs, do it there."""
    directory = data_dir(os.environ, data_option)
    if data_option and not gateway:
        try:
            return _alone(directory, body)
        except ConflictError:
            pass  # its gateway runs
    try:
        return _ask(gateway or DEFAULT_URL, body)
    except NoGatewayError:
        if gateway and not data_option:
            raise
    try:
        return _alone(directory, body)
    except ConflictError as error:
        raise ConflictError(
            f"process {error.data.get('pid') or 'unknown'} runs a gateway on {directory} and does not answer at "
            f"{DEFAULT_URL}; name its address with --gateway"
        ) from error


def _ask(gateway: str, body: dict[str, Any]) -> Reconciliation:
    answer = call_api(gateway, "POST", "/api/spend/reconcile", msgspec.to_builtins(body))
    return msgspec.convert(answer, Reconciliation, strict=False)


def _alone(directory: Path, body: dict[str, Any]) -> Reconciliation:
    if not (directory / DATABASE_NAME).exists():
        raise click.ClickException(f"there is no ledger in {directory}, and no gateway runs; name one with --data")
    return asyncio.run(_book(directory, body))


async def _book(directory: Path, body: dict[str, Any]) -> Reconciliation:
    clock = SystemClock()
    period = Period(
        since_ms=body["since_ms"], until_ms=body["until_ms"], grace_ms=body["grace_ms"], books_all=body["books_all"]
    )
    lines, providers = body["lines"], body["providers"]
    store = SqliteStore.open(directory, clock, pid=os.getpid())
    try:
        if body["is_dry_run"]:
            plan, by_request = await find_differences(store, lines, providers, period)
            return summary(plan, plan.adjustments, providers, period, is_by_request=by_request, is_dry_run=True)
        return await reconcile(
            store, lines, providers, period, clock, random.SystemRandom(), made_by="nightkeep spend reconcile"
        )
    finally:
        await store.close()


# -- what came of it


def _print(done: Reconciliation) -> None:
    providers = ", ".join(done.providers)
    click.echo(
        f"\n  {styled(click.unstyle(amount(done.billed_micro_usd)), bold=True)}  billed by {providers}", nl=False
    )
    click.echo(f" for {plural(done.billed_requests, 'request')}; the ledger had {amount(done.before_micro_usd)}\n")
    if done.differences:
        _print_differences(done.differences)
    booked = sum(each.micro_usd for each in done.adjustments)
    if done.adjustments:
        verb = "would book" if done.is_dry_run else "booked"
        click.echo(f"  {verb} {plural(len(done.adjustments), 'adjustment')}: {signed(booked)}")
    if done.is_settled:
        now = "would then say" if done.is_dry_run and done.adjustments else "says"
        click.echo(f"  {styled('✓', 'green')} the ledger {now} what the provider does, to the micro-dollar\n")
        return
    left = done.after_micro_usd - done.billed_micro_usd
    click.echo(f"  {styled('✗', 'red')} {signed(left)} in the ledger that the bill does not have: see the lines above")
    hint = "" if done.is_by_request else "; the report names no requests, --book books its sums"
    click.echo(styled(f"    nothing is booked that cannot be proved{hint}\n", "bright_black"))


def _print_differences(differences: Sequence[Difference]) -> None:
    shown = differences[:_MOST_SHOWN]
    ours = right(["LEDGER", *("-" if each.ours_micro_usd is None else amount(each.ours_micro_usd) for each in shown)])
    bills = right(
        ["BILLED", *("-" if each.billed_micro_usd is None else amount(each.billed_micro_usd) for each in shown)]
    )
    rows = []
    for n, each in enumerate(shown, 1):
        kind = styled(each.kind.replace("_", " "), _COLOURS.get(each.kind, "red"))
        request = f"…{plain(each.request_id[-12:])}" if each.request_id else each.note
        what = plain(f"{each.account} {each.model}".strip())
        rows.append((f"  {kind}", request, ours[n], bills[n], plain(each.scope), what[:30]))
    print_table(["  DIFFERENCE", "REQUEST", ours[0], bills[0], "SCOPE", "ACCOUNT, MODEL"], rows)
    more = len(differences) - len(shown)
    click.echo(styled(f"  and {more:,} more; --json names them all\n" if more else "", "bright_black"))
