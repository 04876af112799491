"""``nightkeep prices``: what models cost, since when, and who says so."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, Final

import click
import msgspec

from nightkeep.bootstrap_routes import price_book
from nightkeep.cli.tables import print_table, styled
from nightkeep.config import find_config, load, provider_specs
from nightkeep.models.catalog import load_catalog
from nightkeep.models.prices import Price, PriceBook

__all__ = ["command"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_CONFIG = click.option("--config", "config_file", metavar="FILE", help="Settings, for their own prices.")
_DAY = click.DateTime(["%Y-%m-%d"])
_EXIT_FAILED: Final = 1
_EXIT_NOTHING: Final = 4
_OLD: Final = timedelta(days=90)
_PICO: Final = Decimal(1_000_000)


@click.group("prices")
def command() -> None:
    """Show what models cost, in USD per million tokens."""


@command.command("list")
@click.option("--provider", help="Only this one.")
@click.option("--model", "pattern", default="*", help="Only models like this (*, ?).")
@click.option("--at", type=_DAY, help="The prices of that day (UTC).")
@_CONFIG
@_JSON
def list_prices(
    provider: str | None, pattern: str, at: datetime | None, config_file: str | None, as_json: bool
) -> None:
    """List the prices that hold now, or held on a day."""
    book = _book(config_file)
    day = at.date() if at is not None else _today()
    found = [
        (maker, model, price)
        for maker, model in _targets(book)
        if (provider is None or maker == provider) and fnmatchcase(model, pattern)
        if (price := book.price(maker, model, day)) is not None
    ]
    if as_json:
        click.echo(json.dumps([_facts(f"{maker}/{model}", price) for maker, model, price in found], indent=2))
    elif found:
        print_table(_HEADINGS, [(f"{maker}/{model}", *_cells(price)) for maker, model, price in found])
    if not found:
        click.echo("no price fits; an unknown model has none, and is refused", err=True)
        raise SystemExit(_EXIT_NOTHING)


@command.command("show")
@click.argument("target")
@_CONFIG
@_JSON
def show_price(target: str, config_file: str | None, as_json: bool) -> None:
    """Show every price that TARGET (provider/model, or a model's name) has had, and will have."""
    book = _book(config_file)
    provider, slash, model = target.partition("/")
    makers = [provider] if slash else list(load_catalog().makers(target))
    versions = [(maker, since, price) for maker in makers for since, price in book.versions(maker, model or target)]
    if not versions:
        near = ", ".join(load_catalog().near(model or target))
        raise click.ClickException(
            f'{target} has no price{f"; did you mean {near}" if near else ""}. Add [prices."{target}"] to the settings'
        )
    if as_json:
        rows = [
            {"since": _day(since), **_facts(f"{maker}/{model or target}", price)} for maker, since, price in versions
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    for maker, since, price in versions:
        _print_version(f"{maker}/{model or target}", since, price)
    note = getattr(load_catalog().find(model or target), "note", "")
    if note:
        click.echo(f"note: {note}")


@command.command("diff")
@click.argument("from_day", type=_DAY)
@click.argument("to_day", type=_DAY, required=False)
@_CONFIG
@_JSON
def diff_prices(from_day: datetime, to_day: datetime | None, config_file: str | None, as_json: bool) -> None:
    """Show which prices differ between two days (the second: today)."""
    book = _book(config_file)
    first, second = from_day.date(), to_day.date() if to_day is not None else _today()
    changed = [
        (f"{maker}/{model}", before, after)
        for maker, model in _targets(book)
        if (before := book.price(maker, model, first)) != (after := book.price(maker, model, second))
    ]
    if as_json:
        rows = [
            {"target": target, "before": _facts(target, before), "after": _facts(target, after)}
            for target, before, after in changed
        ]
        click.echo(json.dumps(rows, indent=2))
    elif changed:
        rows_of = [(name, *_changes(before, after)) for name, before, after in changed]
        print_table(("TARGET", "INPUT", "OUTPUT", "CACHED", "OVER A LIMIT", "VERSION"), rows_of)
    else:
        click.echo(f"no price differs between {first} and {second}")


@command.command("check")
@_CONFIG
def check_prices(config_file: str | None) -> None:
    """Say which prices are old, or have no source. Exit code 1: one has none."""
    book, is_bad = _book(config_file), False
    for maker, model in _targets(book):
        price = book.price(maker, model, _today())
        if price is None or (price.source in ("configuration", "") and price.version.startswith("config:")):
            continue
        if not (price.source and price.as_of):
            is_bad = True
            click.echo(f"{styled('error', 'red')}    {maker}/{model}: no source, or no date")
        elif _today() - date.fromisoformat(price.as_of) > _OLD:
            click.echo(f"{styled('old', 'yellow')}      {maker}/{model}: of {price.as_of}, by {price.source[:60]}")
    if is_bad:
        raise SystemExit(_EXIT_FAILED)


_HEADINGS: Final = ("TARGET", "INPUT", "OUTPUT", "CACHED", "WRITE 5M", "1H", "BATCH", "OVER A LIMIT", "SINCE")


def _cells(price: Price) -> tuple[str, ...]:
    batch = f"{price.batch_permille / 10:g}%" if price.batch_permille is not None else "-"
    amounts = (price.input, price.output, price.cache_read, price.cache_write_5m, price.cache_write_1h)
    return (*(_usd(amount) for amount in amounts), batch, _tier(price), price.version.rpartition("@")[2])


def _tier(price: Price) -> str:
    if price.long is None or price.long_above is None:
        return "-"
    what = "above" if price.is_marginal else "over"
    return f"{_usd(price.long.input)}/{_usd(price.long.output)} {what} {price.long_above // 1000}K"


def _print_version(target: str, since: date, price: Price) -> None:
    click.echo(f"{styled(target, bold=True)}  {price.version}  since {_day(since) or 'the beginning'}")
    lines = [
        ("input", _usd(price.input)),
        ("output", _usd(price.output)),
        ("reasoning", _usd(price.output if price.reasoning < 0 else price.reasoning)),
        ("cached input", _usd(price.cache_read)),
        ("cache write", f"{_usd(price.cache_write_5m)} for 5 minutes, {_usd(price.cache_write_1h)} for an hour"),
        (
            "batch",
            f"{price.batch_permille / 10:g} %" if price.batch_permille is not None else "no batch price is known",
        ),
        ("over a limit", _tier(price)),
        ("trial credits", {True: "pay for it", False: "do not pay for it", None: "not known"}[price.credit_eligible]),
        ("source", f"{price.source} ({price.as_of or 'no date'})"),
    ]
    for name, text in lines:
        click.echo(f"  {name:<14} {text}")
    click.echo()


def _changes(before: Price | None, after: Price | None) -> tuple[str, ...]:
    def change(name: str) -> str:
        old, new = (_usd(getattr(price, name)) if price is not None else "-" for price in (before, after))
        return old if old == new else styled(f"{old} → {new}", "yellow")

    tiers = [_tier(price) if price is not None else "-" for price in (before, after)]
    tier = tiers[0] if tiers[0] == tiers[1] else styled(f"{tiers[0]} → {tiers[1]}", "yellow")
    return (
        change("input"),
        change("output"),
        change("cache_read"),
        tier,
        after.version.rpartition("@")[2] if after is not None else "gone",
    )


def _facts(target: str, price: Price | None) -> dict[str, Any]:
    if price is None:
        return {"target": target}
    facts: dict[str, Any] = msgspec.to_builtins(price)
    for name in ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "reasoning"):
        facts[f"{name}_usd_per_million"] = _usd(price.output if facts[name] < 0 else facts[name])
        del facts[name]
    long = facts.pop("long")
    if long is not None:
        facts["long_input_usd_per_million"], facts["long_output_usd_per_million"] = (
            _usd(long["input"]),
            _usd(long["output"]),
        )
    return {"target": target, **facts}


def _usd(pico: int) -> str:
    text = f"{Decimal(pico) / _PICO:.6f}".rstrip("0")
    whole, _, rest = text.partition(".")
    return f"{whole}.{rest:0<2}"


def _targets(book: PriceBook) -> Iterator[tuple[str, str]]:
    seen = set()
    for name in book.configured:
        provider, _, model = name.partition("/")
        seen.add((provider, model))
        yield provider, model
    for row in load_catalog().rows:
        for maker in row.makers:
            if (maker, row.id) not in seen and row.price is not None:
                yield maker, row.id


def _book(config_file: str | None) -> PriceBook:
    environ = dict(os.environ)
    settings = load(find_config(environ, config_file), environ).settings
    return price_book(settings, provider_specs(settings))


def _day(since: date) -> str | None:
    return since.isoformat() if since != date.min else None


def _today() -> date:
    return datetime.now(UTC).date()
