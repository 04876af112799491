"""``nightkeep limits``: what is used of the limits on scopes, and who waits."""

from __future__ import annotations

import json
from typing import Any, Final

import click

from nightkeep.cli.api_client import call_api, data_option, url_option
from nightkeep.cli.tables import print_table, styled

__all__ = ["command"]

_EXIT_NOTHING: Final = 4


@click.command("limits")
@url_option()
@data_option()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(url: str, as_json: bool) -> None:
    """Show what is used of the limits on scopes in the last minute, and who waits."""
    found = call_api(url, "GET", "/api/limits")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found["limits"]:
        click.echo("no limits: add [[limits]] to nightkeep.toml")
        raise SystemExit(_EXIT_NOTHING)
    headings = ("SCOPE", "LIMIT", "TAGS", "REQUESTS/MIN", "TOKENS/MIN", "AT A TIME", "WAITING")
    print_table(headings, [_row(view) for view in found["limits"]])
    if found["left_out"]:
        click.echo(f"and {found['left_out']:,} scopes that use less")


def _row(view: dict[str, Any]) -> tuple[str, ...]:
    waiting = view["waiting"]
    return (
        view["scope"],
        view["name"] if view["name"] != view["scope"] else "",
        ", ".join(view["tags"]),
        _used(view["requests_used"], view["requests_per_minute"]),
        _used(view["tokens_used"], view["tokens_per_minute"]),
        _used(view["in_flight"], view["concurrent"]),
        styled(f"{waiting:,}", "yellow") if waiting else "0",
    )


def _used(used: int, limit: int | None) -> str:
    if limit is None:
        return styled("-", "bright_black")
    share = used / limit
    colour = "red" if share >= 1 else "yellow" if share >= 0.8 else "green"
    return styled(f"{used:,}", colour) + f" of {limit:,}"
