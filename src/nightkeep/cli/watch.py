"""``nightkeep watch``: the rules that watch spending, and what they see now."""

from __future__ import annotations

import json
from typing import Any

import click

from nightkeep.cli.api_client import call_api, data_option, url_option
from nightkeep.cli.tables import print_table, styled

__all__ = ["command"]

_WIDTH = 100
_COLOURS = {"critical": "red", "warning": "yellow"}


@click.command("watch")
@url_option()
@data_option()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(url: str, as_json: bool) -> None:
    """Show the rules that watch spending, what each knows, and what it sees now. Asks no model."""
    watched: dict[str, Any] = call_api(url, "GET", "/api/watch")
    if as_json:
        click.echo(json.dumps(watched, ensure_ascii=False, indent=2))
        return
    print_table(("RULE", "DOES", "SEES", "KNOWS"), [_row(rule) for rule in watched["rules"]])
    click.echo()
    for rule in watched["rules"]:
        click.echo(click.wrap_text(f"{rule['rule']} looks for {rule['looks_for']}.", _WIDTH, "", "  "))
    for finding in (finding for rule in watched["rules"] for finding in rule["findings"]):
        level = styled(f"{finding['level']:<8}", _COLOURS.get(finding["level"]), bold=True)
        click.echo(f"\n{level}  {styled(finding['key'], 'bright_black')}")
        click.echo(click.wrap_text(finding["text"], _WIDTH, "  ", "  "))
    if watched["lost"]:
        click.echo(f"\n{watched['lost']} calls were not looked at: too many came at once", err=True)


def _row(rule: dict[str, Any]) -> tuple[str, ...]:
    n = len(rule["findings"])
    sees = styled(f"{n} finding{'s' if n != 1 else ''}", "yellow") if n else styled("nothing", "green")
    is_seen = rule["is_on"] and rule["is_here"]
    return rule["rule"], rule["action"] if rule["is_on"] else "off", sees if is_seen else "", rule["state"]
