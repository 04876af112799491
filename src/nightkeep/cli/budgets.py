"""``nightkeep budgets``: what is spent, held and left, and what a call would cost."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote as quoted

import click

from nightkeep.cli.api_client import call_api, data_option, url_option
from nightkeep.cli.tables import print_table, styled

__all__ = ["ask_quote", "command"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_BAR: Final = 16
_EXIT_NOTHING: Final = 4
_EXIT_FAILED: Final = 1


@click.group("budgets")
def command() -> None:
    """Show budgets; quote a call before it is made."""


@command.command("list")
@click.argument("scope", default="/")
@url_option()
@data_option()
@_JSON
def list_budgets(scope: str, url: str, as_json: bool) -> None:
    """List the budgets above SCOPE and below it, in their present windows."""
    found = call_api(url, "GET", f"/api/budgets?scope={quoted(scope, safe='')}")["budgets"]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        click.echo("no budgets: add [[budgets]] to nightkeep.toml")
        raise SystemExit(_EXIT_NOTHING)
    headings = ("SCOPE", "PER", "SPENT", "", "HELD", "LEFT", "OF", "RESETS", "NOW")
    print_table(headings, [_row(view) for view in found])
    lost = sum(view["lost"] for view in found if view["metric"] == "usd")
    if lost:
        text = f"{_usd(lost)} are held by processes that died: nightkeep spend reconcile settles them"
        click.echo(styled(text, "yellow"))


@command.command("quote")
@click.argument("model")
@click.option("--scope", default="default", show_default=True, help="Whose budgets.")
@click.option("--tag", help="The kind of work.")
@click.option("--input-tokens", type=click.IntRange(1), default=1_000, show_default=True)
@click.option("--output-tokens", type=click.IntRange(1), help="The call's own output limit.")
@url_option()
@data_option()
@_JSON
def quote_call(
    model: str, scope: str, tag: str | None, input_tokens: int, output_tokens: int | None, url: str, as_json: bool
) -> None:
    """Say what a call to MODEL would cost, who would serve it, and whether budgets have room."""
    ask = {"model": model, "scope": scope, "input_tokens": input_tokens, "tag": tag, "output_tokens": output_tokens}
    ask_quote(ask, url, as_json=as_json)


def ask_quote(ask: dict[str, Any], url: str, *, as_json: bool) -> None:
    """Ask the gateway for a quote and print it; exit code 1 where a budget has no room."""
    found = call_api(url, "POST", "/api/quote", {name: value for name, value in ask.items() if value is not None})
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _print_quote(found)
    if not found["fits"]:
        raise SystemExit(_EXIT_FAILED)


def _print_quote(found: dict[str, Any]) -> None:
    click.echo(f"{styled(found['route']['asked'], bold=True)}  {found['route']['rule']}\n")
    rows = [
        (
            styled(str(number), "bright_black"),
            offer["target"],
            _cost(offer["likely_micro_usd"]),
            _cost(offer["most_micro_usd"]),
            f"{offer['likely_output_tokens']:,} to {offer['most_output_tokens']:,}",
            offer["price"] or styled("-", "bright_black"),
        )
        for number, offer in enumerate(found["offers"], 1)
    ]
    print_table(("", "TARGET", "LIKELY", "AT MOST", "OUTPUT TOKENS", "PRICE"), rows)
    if found["budgets"]:
        click.echo()
        headings = ("SCOPE", "PER", "SPENT", "", "HELD", "LEFT", "OF", "RESETS", "NOW")
        print_table(headings, [_row(view) for view in found["budgets"]])
    verdict = styled("it fits", "green") if found["fits"] else styled(f"it does not fit: {found['why_not']}", "red")
    click.echo(f"\n{verdict}")


def _row(view: dict[str, Any]) -> tuple[str, ...]:
    metric, share = view["metric"], view["spent"] / view["limit"] if view["limit"] else 1.0
    colour = "red" if share >= 0.9 else "yellow" if share >= 0.8 else "green"
    actions = ", ".join(dict.fromkeys(view["actions"])) or ("" if view["is_hard"] else "soft")
    resets = view["resets_at"]
    return (
        view["scope"],
        view["per"],
        _amount(metric, view["spent"]),
        styled(_bar(share), colour) + f" {share:4.0%}",
        _amount(metric, view["held"] + view["lost"]),
        _amount(metric, view["left"]),
        _amount(metric, view["limit"]),
        f"{resets[5:10]} {resets[11:16]}Z" if resets else "never",
        styled(actions, "yellow"),
    )


def _bar(share: float) -> str:
    filled = min(_BAR, round(share * _BAR))
    return "█" * filled + "░" * (_BAR - filled)


def _amount(metric: str, amount: int) -> str:
    return _usd(amount) if metric == "usd" else f"{amount:,} {'tok' if metric == 'tokens' else 'req'}"


def _usd(micro: int) -> str:
    return f"${micro / 1e6:,.2f}" if micro >= 1_000_000 or micro % 10_000 == 0 else f"${micro / 1e6:.4f}"


def _cost(micro: int | None) -> str:
    return styled("not known", "red") if micro is None else f"${micro / 1e6:.6f}"
