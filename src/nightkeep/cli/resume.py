"""``nightkeep resume``: let go on what was stopped."""

from __future__ import annotations

from typing import Any

import click

from nightkeep.cli.api_client import NoGatewayError, call_api, url_option
from nightkeep.cli.switch_words import print_json, sentence, target_of, target_options, whose_hand
from nightkeep.cli.tables import styled

__all__ = ["command"]


@click.command("resume")
@target_options
@click.option("--all", "is_all", is_flag=True, help="Everything that is stopped.")
@click.option("--why", default="", help="Kept in the record.")
@click.option("--dry-run", is_flag=True, help="Only say what would go on.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--data", "data_option", metavar="DIR", help="The data directory; for where no gateway answers.")
@url_option()
def command(
    scope: str | None,
    is_all: bool,
    why: str,
    dry_run: bool,
    as_json: bool,
    data_option: str | None,
    url: str,
    **names: str | None,
) -> None:
    """Let SCOPE, or a model, account, tag or tool, go on: exactly what was stopped, whoever stopped it.

    'resume /' ends the stop of everything and takes the file STOP away; what else was stopped stays so. --all ends
    every stop. Resuming what is not stopped changes nothing.
    """
    target = target_of(scope, names)
    if (target is None) != is_all:
        raise click.UsageError("say what: a SCOPE (/ is everything), --model, --account, --tag, --tool, or --all")
    what: dict[str, Any] = {**target} if target is not None else {"all": True}
    wish = {**what, "why": why, "by": whose_hand(), "source": "command", "dry_run": dry_run}
    try:
        answer = call_api(url, "POST", "/api/switches/resume", wish, data=data_option)
    except NoGatewayError as error:
        from nightkeep.cli import switches_offline

        answer = switches_offline.resume(url, data_option, wish, error)
    if as_json:
        print_json(answer)
    else:
        _say(answer)


def _say(answer: dict[str, Any]) -> None:
    done = "would go on" if answer["dry_run"] else "goes on"
    for stop in answer["resumed"]:
        what = "everything" if (stop["kind"], stop["name"]) == ("scope", "/") else f"{stop['kind']} {stop['name']}"
        click.echo(f"{styled(what, 'green', bold=True)} {done}: it was stopped {sentence(stop)}")
    if not answer["resumed"]:
        what = "nothing is" if answer["target"] == "all" else f"{answer['target']} is not"
        click.echo(f"{what} stopped; nothing changed")
    still = answer["still"]
    if still is not None:
        over = "everything" if (still["kind"], still["name"]) == ("scope", "/") else f"{still['kind']} {still['name']}"
        click.echo(f"{styled('still stopped:', 'red', bold=True)} {over} is, {sentence(still)}")
