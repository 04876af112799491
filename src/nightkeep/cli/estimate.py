"""``nightkeep estimate``: what a batch or a schedule would cost, before it does."""

from __future__ import annotations

import json
import os
import random
import re
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from nightkeep.bootstrap_routes import price_book, route_table
from nightkeep.cli.api_client import ApiError, call_api, url_option
from nightkeep.cli.tables import print_table, styled
from nightkeep.config import Settings, find_config, load, provider_specs
from nightkeep.config_places import data_dir
from nightkeep.core.errors import StoreError, UnknownModelError
from nightkeep.models.calibration import Calibration, Weight, weigh
from nightkeep.models.catalog import load_catalog
from nightkeep.models.projections import Amount, BatchPlan, Room, first_hit, plan_batch, plan_schedule
from nightkeep.models.routing import Candidate, Needs
from nightkeep.models.wire.base import Wire
from nightkeep.store.sqlite import open_snapshot

__all__ = ["command"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_CONFIG = click.option("--config", "config_file", metavar="FILE", help="Settings, for aliases and prices.")
_DATA = click.option("--data", "data", metavar="DIR", help="The gateway's data directory: what its counter has learnt.")
_SAMPLE: Final = 200
_EXIT_FAILED: Final = 1
_EXIT_USAGE: Final = 2
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


@click.group("estimate")
def command() -> None:
    """Say what work would cost before it is done."""


@command.command("batch")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", required=True, help="Model or alias.")
@click.option("--system", type=click.File("rb"), help="What every item carries along: the system prompt.")
@click.option("--examples", type=click.File("rb"), help="Examples that every item carries along.")
@click.option("--output-tokens", type=click.IntRange(1), help="The limit of each answer.")
@click.option(
    "--margin", type=click.FloatRange(1.0, 10.0), default=1.2, show_default=True, help="Safety, on the upper."
)
@click.option("--batch-price", is_flag=True, help="Reckon with the vendor's batch discount.")
@click.option("--scope", default="/", show_default=True, help="Whose budgets.")
@click.option("--ask-above", type=click.FloatRange(0), default=5.0, show_default=True, help="USD from which it asks.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_CONFIG
@url_option()
@_DATA
@_JSON
def estimate_batch(
    file: Path,
    model: str,
    system: Any,
    examples: Any,
    output_tokens: int | None,
    margin: float,
    batch_price: bool,
    scope: str,
    ask_above: float,
    yes: bool,
    config_file: str | None,
    url: str,
    data: str | None,
    as_json: bool,
) -> None:
    """Estimate the batch in FILE: a line is a request (JSON), an item of a vendor's batch, or a text.

    Above --ask-above it asks; without a terminal it ends with exit code 1 unless --yes is given (Q-COST-03).
    """
    candidate, calibration = _target(config_file, model, data)
    weights, items = _sample(file)
    carried = b"".join(stream.read() for stream in (system, examples) if stream is not None)
    plan = plan_batch(
        weights,
        items,
        calibration,
        candidate.price,
        output_tokens=output_tokens,
        shared=weigh(carried) if carried else None,
        margin=Decimal(str(margin)),
        is_batch=batch_price,
    )
    rooms, speed = _ask_gateway(url, scope, data)
    hit = first_hit(plan.upper, items, rooms)
    duration_s = _duration(plan, speed)
    is_dear = plan.upper.usd is not None and plan.upper.usd > Decimal(str(ask_above))
    if as_json:
        facts = {
            "target": candidate.target,
            **msgspec.to_builtins(plan),
            "likely_usd": _number(plan.likely.usd),
            "upper_usd": _number(plan.upper.usd),
            "duration_s": duration_s,
            "first_budget": msgspec.to_builtins(hit) if hit else None,
            "needs_confirmation": is_dear and not yes,
        }
        click.echo(json.dumps(facts, indent=2, default=str))
    else:
        _print_plan(candidate, plan, duration_s)
        if hit is not None:
            words = (
                f"the budget of {hit.room.scope} per {hit.room.per} would be used up at item {hit.item:,} of {items:,}"
            )
            click.echo(styled(words, "red"))
    if is_dear and not yes:
        _confirm(plan, ask_above, as_json=as_json)


@command.command("schedule")
@click.option("--every", required=True, help="How often: 3m, 1h, 90s.")
@click.option("--tokens", "input_tokens", type=click.IntRange(0), required=True, help="Input of one run.")
@click.option("--output-tokens", type=click.IntRange(0), default=0, show_default=True)
@click.option("--model", required=True, help="Model or alias.")
@click.option("--warn-above", type=click.FloatRange(0), default=1.0, show_default=True, help="USD a day.")
@_CONFIG
@_DATA
@_JSON
def estimate_schedule(
    every: str,
    input_tokens: int,
    output_tokens: int,
    model: str,
    warn_above: float,
    config_file: str | None,
    data: str | None,
    as_json: bool,
) -> None:
    """Say what something costs that runs at an interval, also while nothing happens."""
    candidate, _ = _target(config_file, model, data)
    schedule = plan_schedule(_seconds(every), input_tokens, output_tokens, candidate.price)
    if as_json:
        click.echo(json.dumps({"target": candidate.target, **msgspec.to_builtins(schedule)}, indent=2, default=str))
        return
    click.echo(f"{styled(candidate.target, bold=True)}  every {every}: {schedule.runs_a_day:,.4g} runs a day\n")
    rows = [
        ("a run", f"{schedule.run.tokens:,}", _usd(schedule.run.usd)),
        ("a day", f"{int(schedule.run.tokens * schedule.runs_a_day):,}", _usd(schedule.usd_a_day)),
        ("30 days", f"{int(schedule.run.tokens * schedule.runs_a_day * 30):,}", _usd(schedule.usd_a_month)),
    ]
    print_table(("", "TOKENS", "USD"), rows)
    if schedule.usd_a_day is not None and schedule.usd_a_day > Decimal(str(warn_above)):
        words = f"{_usd(schedule.usd_a_day)} a day before it has done anything: would a check without a model do?"
        click.echo(f"\n{styled(words, 'yellow')}")


@command.command("counter")
@_DATA
@_JSON
def show_counter(data: str | None, as_json: bool) -> None:
    """Show what the counter of tokens has learnt of each model."""
    known = _calibrations(data)
    if as_json:
        click.echo(json.dumps({name: msgspec.to_builtins(each) for name, each in known.items()}, indent=2))
        return
    if not known:
        click.echo("nothing yet: it learns from the usage that providers report")
        return
    rows = [
        (
            name,
            f"{each.calls:,}",
            f"{each.mean:.3f}",
            f"{each.error:.1%}",
            f"{each.output:,.0f}",
            "" if each.is_known else "still learning",
        )
        for name, each in sorted(known.items())
    ]
    print_table(("TARGET", "REPORTS", "TOKENS BY WEIGHT", "ERROR", "OUTPUT", ""), rows)


# -- what is asked of others


def _target(config_file: str | None, model: str, data: str | None) -> tuple[Candidate, Calibration]:
    environ = dict(os.environ)
    settings = load(find_config(environ, config_file), environ).settings
    listed = _listed(settings, model)
    try:
        candidate = route_table(settings).plan(model, needs=Needs()).candidates[0]
    except UnknownModelError:  # nothing serves it here, and yet its price may be known
        if listed is None:
            raise
        candidate = listed
    if settings.is_simulated and listed is not None:  # what it would cost is meant, not that it is simulated now
        candidate = listed
    return candidate, _calibrations(data).get(candidate.target, Calibration())


def _listed(settings: Settings, model: str) -> Candidate | None:
    """A model by its own name, with the price that its maker takes."""
    provider, slash, name = model.partition("/")
    makers = [provider] if slash else list(load_catalog().makers(model))
    book = price_book(settings, provider_specs(settings))
    for maker in makers:
        price = book.price(maker, name or model)
        if price is not None:
            return Candidate(provider=maker, model=name or model, pool="", wire=Wire.OPENAI_CHAT, price=price)
    return None


def _calibrations(data: str | None) -> dict[str, Calibration]:
    snapshot = open_snapshot(data_dir(dict(os.environ), data))
    if snapshot is None:
        return {}
    try:
        rows = snapshot.read("SELECT model, body FROM calibrations")
        return {str(name): msgspec.json.decode(str(body), type=Calibration) for name, body in rows}
    except StoreError:
        return {}
    finally:
        snapshot.close()


def _ask_gateway(url: str, scope: str, data: str | None) -> tuple[list[Room], tuple[int | None, int | None]]:
    """What budgets have left, and what the accounts allow a minute (requests, tokens); nothing without a gateway."""
    try:
        views = call_api(url, "GET", f"/api/budgets?scope={scope}", data=data)["budgets"]
        accounts = call_api(url, "GET", "/api/accounts", data=data)["accounts"]
    except ApiError:
        return [], (None, None)
    above = [view for view in views if view["scope"] in ("/", scope) or scope.startswith(view["scope"] + "/")]
    rooms = [msgspec.convert({name: view[name] for name in Room.__struct_fields__}, Room) for view in above]
    return rooms, (_sum(accounts, "requests_per_minute"), _sum(accounts, "tokens_per_minute"))


def _sum(accounts: list[dict[str, Any]], name: str) -> int | None:
    limits = [(account.get("limits") or {}).get(name) for account in accounts if account.get("status") == "available"]
    known = [int(limit) for limit in limits if limit is not None]
    return sum(known) if known and len(known) == len(limits) else None


def _duration(plan: BatchPlan, speed: tuple[int | None, int | None]) -> int | None:
    """Seconds that the accounts' limits make it last, at the least; None where there is no limit."""
    requests, tokens = speed
    times = [plan.items * 60 // requests if requests else 0, plan.likely.tokens * 60 // tokens if tokens else 0]
    return max(times) if requests or tokens else None


# -- the file


def _sample(file: Path) -> tuple[list[Weight], int]:
    """Weigh some of the items, all with the same chance (reservoir sampling); and count them."""
    chance, items = random.Random(7), 0
    kept: list[tuple[int, bytes]] = []
    for number, line in _lines(file):
        items += 1
        if len(kept) < _SAMPLE:
            kept.append((number, line))
        elif (place := chance.randrange(items)) < _SAMPLE:
            kept[place] = (number, line)
    if not items:
        raise click.ClickException(f"{file} has no items; a line is an item")
    is_json = kept[0][1].lstrip().startswith((b"{", b'"'))
    return [weigh(_body(line, number) if is_json else line) for number, line in kept], items


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield number, line.strip()


def _body(line: bytes, number: int) -> bytes:
    """The request of a line: itself, or inside an item of OpenAI's or Anthropic's batches."""
    try:
        item = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise click.ClickException(f"line {number} is no JSON: {error}") from error
    inner = item.get("body") or item.get("params") or item if isinstance(item, dict) else item
    return inner.encode() if isinstance(inner, str) else msgspec.json.encode(inner)


# -- what is shown


def _print_plan(candidate: Candidate, plan: BatchPlan, duration_s: int | None) -> None:
    sampled = "all weighed" if plan.sampled == plan.items else f"{plan.sampled:,} weighed"
    click.echo(f"{styled(candidate.target, bold=True)}  {plan.items:,} items, {sampled}\n")
    rows = [_row("likely", plan.likely, plan.items), _row("at most", plan.upper, plan.items)]
    print_table(("", "INPUT", "OUTPUT", "TOKENS", "USD", "AN ITEM"), rows)
    if plan.counter_calls:
        learnt = f"off by {plan.counter_error:.1%} on average over {plan.counter_calls:,} reports"
    else:
        learnt = styled("never calibrated: no call to this target was recorded, so this is an upper bound", "yellow")
    click.echo(f"\ncounter   {learnt}")
    if duration_s is not None:
        click.echo(f"duration  {_span(duration_s)} at the accounts' limits, at the least")
    if candidate.price is None:
        click.echo(styled(f"price     nobody has said what {candidate.target} costs; add it under [prices]", "red"))


def _row(name: str, amount: Amount, items: int) -> tuple[str, ...]:
    each = None if amount.usd is None else amount.usd / items
    return (
        name,
        f"{amount.input_tokens:,}",
        f"{amount.output_tokens:,}",
        f"{amount.tokens:,}",
        styled(_usd(amount.usd), bold=True),
        _usd(each, 6),
    )


def _confirm(plan: BatchPlan, ask_above: float, *, as_json: bool) -> None:
    question = f"It may cost up to {_usd(plan.upper.usd)}, more than ${ask_above:.2f}. Go on?"
    if as_json or not sys.stdin.isatty():
        click.echo(f"{question} Say so with --yes.", err=True)
        raise SystemExit(_EXIT_FAILED)
    if not click.confirm(question):
        raise SystemExit(_EXIT_FAILED)


def _usd(amount: Decimal | None, places: int = 2) -> str:
    if amount is None:
        return "not known"
    return f"${amount:,.{places}f}" if places > 2 or amount >= 1 else f"${amount:.4f}"


def _number(amount: Decimal | None) -> float | None:
    return None if amount is None else float(amount)


def _span(seconds: int) -> str:
    hours, rest = divmod(seconds, 3_600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"


def _seconds(text: str) -> Decimal:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if found is None or not Decimal(found[1]):
        raise click.BadParameter("write a number and s, m, h or d, such as 3m", param_hint="--every")
    return Decimal(found[1]) * _UNITS[found[2]]
