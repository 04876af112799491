"""``nightkeep spend``: what was spent, by whom, what it saved, and whether the provider's bill agrees."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click
import msgspec

from nightkeep.cli.ledger_source import ask_gateway, read_ledger
from nightkeep.cli.spend_reconcile import reconcile_command
from nightkeep.cli.spend_words import print_ablation, print_spending
from nightkeep.core.money import MicroUsd, format_usd
from nightkeep.models.ledger_queries import By, Spend
from nightkeep.models.ledger_savings import Ablation
from nightkeep.models.spending import Spending, SpendQuery, read_ablation, read_spending

__all__ = ["command"]

_EXIT_NOTHING = 4
_SHOWN = 25  # groups on a terminal
_ALL = 1_000


def _question(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say which part of the ledger."""
    options = (
        click.option("--since", help="From when on: 24h, 7d, 2026-11-01."),
        click.option("--until", help="Until when (not included): 1h, 2026-12-01."),
        click.option("--scope", default="/", help="Of this scope and all below it."),
        click.option("--zone", default="UTC", show_default=True, help="Time zone of days and dates: Europe/Berlin."),
        click.option("--data", "data_option", metavar="DIR", help="Where records are kept."),
        click.option("--url", help="Ask the gateway at this address instead of reading the directory."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.group("spend", invoke_without_command=True)
@click.option("--by", type=click.Choice(get_args(By)), default="scope", help="Who, or what, spent it.")
@click.option("--depth", type=click.IntRange(1, 8), help="By scope: show so many levels.")
@click.option("--csv", "csv_file", metavar="FILE", help="Write the table as CSV to a file, or to - (standard output).")
@click.option("--project", is_flag=True, help="What this comes to a day and a month, at 1, 10 and 100 times the load.")
@_question
def command(
    by: By,
    depth: int | None,
    csv_file: str | None,
    project: bool,
    data_option: str | None,
    url: str | None,
    as_json: bool,
    **part: Any,
) -> None:
    """Show what was spent, by whom; with a verb, what was saved, or settle it with the provider's bill.

    Exit code 4: nothing was spent.
    """
    if click.get_current_context().invoked_subcommand is not None:
        return
    limit = _ALL if as_json or csv_file else _SHOWN
    query = SpendQuery(by=by, depth=depth, limit=limit, **part)
    if url:
        spending = ask_gateway(url, "/api/spend", query, Spending)
    else:
        spending = read_ledger(data_option, lambda ledger, now: read_spending(ledger, query, now))
    if csv_file:
        _write_csv(spending, csv_file)
    if as_json:
        _print_json(spending)
    elif not spending.total.requests and not spending.total.cost_micro_usd:
        click.echo("nothing was spent in that time, by that scope; 'nightkeep spend' shows everything", err=True)
    elif not csv_file:
        print_spending(spending, with_projection=project)
    if not spending.total.requests and not spending.total.cost_micro_usd:
        raise SystemExit(_EXIT_NOTHING)


@command.command("ablation")
@_question
def show_ablation(data_option: str | None, url: str | None, as_json: bool, **part: Any) -> None:
    """Show what the providers' caches, our cache, idempotency keys and routing have saved."""
    query = SpendQuery(**part)
    if url:
        found = ask_gateway(url, "/api/spend/ablation", query, Ablation)
    else:
        found = read_ledger(data_option, lambda ledger, now: read_ablation(ledger, query, now))
    if as_json:
        _print_json(found)
    else:
        print_ablation(found)


command.add_command(reconcile_command)


def _write_csv(spending: Spending, target: str) -> None:
    """The groups (and the others, as one line), so that the lines add up to the total."""
    lines = [(group.name, group.spend) for group in spending.groups]
    if spending.others is not None:
        lines.append((f"({spending.others_count} others)", spending.others))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([spending.by, "cost_usd", *Spend.__struct_fields__])
    for name, spend in lines:
        figures = msgspec.structs.astuple(spend)
        writer.writerow([_literal(name), format_usd(MicroUsd(spend.cost_micro_usd)), *figures])
    if target == "-":
        click.echo(out.getvalue(), nl=False)
        return
    try:
        Path(target).write_text(out.getvalue(), encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{target} cannot be written: {error.strerror}") from error
    click.echo(f"wrote {len(lines):,} lines to {target}", err=True)


def _literal(name: str) -> str:
    """A name that a spreadsheet takes for a text: names come from clients, and ``=…`` would be a formula."""
    return f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t", "\r") else name


def _print_json(value: Any) -> None:
    click.echo(json.dumps(msgspec.to_builtins(value), ensure_ascii=False, indent=2))
