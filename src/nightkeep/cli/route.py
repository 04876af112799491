"""``nightkeep route explain``: what would serve a request, and why the others lost (Q-PROXY-08). Works offline."""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import msgspec

from nightkeep.bootstrap_routes import route_table
from nightkeep.cli.api_client import data_option, url_option
from nightkeep.cli.budgets import ask_quote
from nightkeep.cli.tables import print_table, styled
from nightkeep.config import InvalidConfigError, find_config, load
from nightkeep.core.errors import NightkeepError, RequestError
from nightkeep.core.money import micro_usd
from nightkeep.models.estimate import needs_of
from nightkeep.models.policies import TaskType
from nightkeep.models.prices import Price
from nightkeep.models.routing import Candidate, Needs, Route, RouteTable
from nightkeep.models.wire import CODECS
from nightkeep.models.wire.base import Head, Stripped, Wire

__all__ = ["command"]

_EXIT_FAILED = 1
_EXIT_CONFIG = 3
_EXIT_NOTHING = 4
_PICO_PER_TOKEN = 1_000_000


@click.group("route")
def command() -> None:
    """Explain what would serve a request."""


@command.command("explain")
@click.argument("model")
@click.option("--tag", help="The kind of work, as in x-nightkeep-tag.")
@click.option("--task", type=click.Choice(list(TaskType)), help="The task type, as in x-nightkeep-task.")
@click.option("--tokens", type=click.IntRange(min=0), help="Input tokens the request has.")
@click.option("--tools", is_flag=True, help="It offers tools.")
@click.option("--images", is_flag=True, help="It holds images.")
@click.option(
    "--wire", type=click.Choice([str(wire) for wire in Wire]), default="openai_chat", help="The client's wire."
)
@click.option("--body", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A request to translate.")
@click.option("--budget-left", metavar="USD", help="What is left of the budget.")
@click.option("--prefer-fast", is_flag=True, help="Speed before quality, where the task allows it.")
@click.option("--config", "config_file", help="The configuration file.")
@click.option("--cost", "with_cost", is_flag=True, help="Ask the running gateway what it costs and what budgets have.")
@click.option("--scope", default="default", show_default=True, help="With --cost: whose budgets.")
@url_option()
@data_option()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(
    model: str,
    tag: str | None,
    task: str | None,
    tokens: int | None,
    tools: bool,
    images: bool,
    wire: str,
    body: Path | None,
    budget_left: str | None,
    prefer_fast: bool,
    config_file: str | None,
    with_cost: bool,
    scope: str,
    url: str,
    as_json: bool,
) -> None:
    """Say which rule speaks for MODEL, what serves it in which order, and why the others lost.

    Nothing is sent. With --body FILE the request is really translated, so that every parameter that the target does
    not know is named. With --cost the running gateway answers: what it costs, and what its budgets have left.
    Exit codes: 0 there is a route, 1 the request fits no target (or no budget), 4 nothing serves the model.
    """
    if with_cost:
        ask_quote(
            {"model": model, "scope": scope, "tag": tag, "task": task, "input_tokens": tokens}, url, as_json=as_json
        )
        return
    table = _table(config_file)
    client = Wire(wire)
    raw = body.read_bytes() if body is not None else None
    try:
        head = CODECS[client].head(raw, model) if raw is not None and client in CODECS else Head(model)
        needs = needs_of(client, head, raw) if raw is not None else Needs()
        needs = msgspec.structs.replace(
            needs,
            tools=needs.tools or tools,
            images=needs.images or images,
            context_tokens=needs.context_tokens if tokens is None else tokens,
        )
        left = micro_usd(Decimal(budget_left)) if budget_left is not None else None
        route = table.plan(
            model, tag=tag, task=task, wire=client, needs=needs, budget_remaining=left, prefer_fast=prefer_fast
        )
    except NightkeepError as error:
        _print_refusal(error, as_json=as_json)
        is_bad_request = type(error) is RequestError
        raise SystemExit(_EXIT_FAILED if is_bad_request else _EXIT_NOTHING) from error
    stripped = {each.target: _stripped(raw, head, client, each) for each in route.candidates} if raw is not None else {}
    if as_json:
        click.echo(json.dumps(_as_json(route, stripped), indent=2, ensure_ascii=False))
    else:
        _print_route(route, stripped)


def _table(config_file: str | None) -> RouteTable:
    try:
        loaded = load(find_config(os.environ, config_file), os.environ)
        return route_table(loaded.settings)
    except InvalidConfigError as error:
        click.echo(str(error), err=True)
        raise SystemExit(_EXIT_CONFIG) from error


def _stripped(body: bytes | None, head: Head, client: Wire, target: Candidate) -> tuple[Stripped, ...] | str:
    """Run the translation that the gateway would; a text where it is refused."""
    if body is None or target.wire is client:
        return ()
    if client not in CODECS or target.wire not in CODECS:
        return f"no codec for {client} to {target.wire}"
    try:
        request = CODECS[client].read_request(body, head)
        return CODECS[target.wire].write_request(request, target.model, client).stripped
    except NightkeepError as error:
        return error.message


def _print_route(route: Route, stripped: dict[str, tuple[Stripped, ...] | str]) -> None:
    click.echo(f"{styled('asked', bold=True)}     {route.asked}")
    click.echo(f"{styled('rule', bold=True)}      {route.rule}")
    click.echo(f"{styled('failover', bold=True)}  {_failover(route)}")
    if route.degraded_from:
        click.echo(f"{styled('instead of', 'yellow')} {route.degraded_from}")
    if route.max_output_tokens:
        click.echo(f"{styled('limit', bold=True)}     {route.max_output_tokens} output tokens")
    click.echo()
    rows = [_row(number, each) for number, each in enumerate(route.candidates, 1)]
    print_table(("", "TARGET", "POOL", "WIRE", "WINDOW", "IN/OUT USD PER M"), rows)
    for target, items in stripped.items():
        _print_stripped(target, items)
    if route.rejected:
        click.echo()
        print_table(("LOST", "WHY"), [(each.target, each.reason) for each in route.rejected])


def _failover(route: Route) -> str:
    if route.failover == "none":
        return "none: the first target or an error"
    return "in this order" if len(route.candidates) > 1 else "there is one target only"


def _row(number: int, each: Candidate) -> tuple[str, ...]:
    mark = styled("→", "green") if number == 1 else str(number)
    window = f"{each.context_window:,}" if each.context_window else "unknown"
    return mark, each.target, each.pool, str(each.wire), window, _price(each.price)


def _price(price: Price | None) -> str:
    if price is None:
        return "unknown"
    if not price.input and not price.output:
        return "free"
    since = f" ({price.as_of})" if price.as_of else ""
    return f"{_usd(price.input)} / {_usd(price.output)}{since}"


def _usd(pico_per_token: int) -> str:
    return f"{Decimal(pico_per_token) / _PICO_PER_TOKEN:f}"


def _print_stripped(target: str, items: tuple[Stripped, ...] | str) -> None:
    click.echo()
    if isinstance(items, str):
        click.echo(f"{target}: {styled('cannot be translated', 'red')}: {items}")
    elif items:
        click.echo(f"{target} would be sent without:")
        for item in items:
            click.echo(f"  {item.name}: {item.reason}")
    else:
        click.echo(f"{target}: nothing is stripped")


def _print_refusal(error: NightkeepError, *, as_json: bool) -> None:
    if as_json:
        click.echo(
            json.dumps({"error": error.code, "message": error.message, **error.data}, indent=2, ensure_ascii=False)
        )
        return
    click.echo(error.message, err=True)


def _as_json(route: Route, stripped: dict[str, tuple[Stripped, ...] | str]) -> dict[str, Any]:
    value: dict[str, Any] = msgspec.to_builtins(route)
    value["choice"] = route.candidates[0].target
    for each, built in zip(route.candidates, value["candidates"], strict=True):
        built["target"] = each.target
        items = stripped.get(each.target)
        if items is not None:
            built["stripped" if not isinstance(items, str) else "untranslatable"] = msgspec.to_builtins(items)
    return value
