"""``nightkeep ledger``: prove that the ledger is what it must be."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click
import msgspec

from nightkeep.cli.call_words import plural
from nightkeep.cli.ledger_source import read_ledger
from nightkeep.cli.tables import styled
from nightkeep.config_places import find_config
from nightkeep.models.ledger_check import RULES, Checked, PriceOf, check_ledger
from nightkeep.models.prices import Price

__all__ = ["command"]

_MOST_SHOWN = 10


@click.group("ledger")
def command() -> None:
    """Prove that the ledger is what it must be."""


@command.command("check")
@click.option("--config", "file", type=click.Path(path_type=Path), help="The settings file, for its own prices.")
@click.option("--data", "data_option", metavar="DIR", help="Where records are kept.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(file: Path | None, data_option: str | None, as_json: bool) -> None:
    """Hold every row and every sum of the ledger to its rules, and name what breaks one. Changes nothing.

    Exit codes: 1 a rule is broken, 4 there is no ledger.
    """
    prices = _prices(file)
    checked = read_ledger(data_option, lambda ledger, _: check_ledger(ledger, prices))
    if as_json:
        facts = {**msgspec.to_builtins(checked), "is_sound": checked.is_sound}
        click.echo(json.dumps(facts, ensure_ascii=False, indent=2))
    else:
        _print(checked)
    if not checked.is_sound:
        raise SystemExit(1)


def _prices(file: Path | None) -> PriceOf:
    """Prices by version, from the settings and the catalog. Raises ConfigError."""
    from nightkeep.bootstrap_routes import price_book
    from nightkeep.config import load, provider_specs

    settings = load(file or find_config(os.environ), os.environ).settings
    book = price_book(settings, provider_specs(settings))

    def find(provider: str, model: str, version: str) -> Price | None:
        price = book.price(provider, model)
        return price if price is not None and getattr(price, "version", None) == version else None

    return find


def _print(checked: Checked) -> None:
    """A line a rule, and below each that is broken what breaks it."""
    click.echo("")
    holds = {rule.name: rule.holds for rule in RULES}
    for rule, count in checked.rules.items():
        text = holds.get(rule) or "every cost is its tokens times its price, where that version is known"
        mark = styled("✗", "red") if count else styled("✓", "green")
        click.echo(f"  {mark} {text}" + (styled(f": {count:,} times not", "red") if count else ""))
        for each in [each for each in checked.violations if each.rule == rule][:_MOST_SHOWN]:
            click.echo(f"      {styled(each.row, bold=True)}  {each.found}")
        if count > _MOST_SHOWN:
            click.echo(styled(f"      and {count - _MOST_SHOWN:,} more; --json names a hundred", "bright_black"))
    known = f"{checked.reckoned:,} costs reckoned again"
    if checked.unknown_prices:
        known += f", {checked.unknown_prices:,} at prices that are not known here"
    counts = f"{plural(checked.rows, 'row')}, {plural(checked.adjustments, 'adjustment')}, {known}"
    click.echo(f"\n  {styled(counts, 'bright_black')}\n")
