"""``nightkeep stop``: stop a scope, model, account, tag or tool; through the gateway, or for everything by a file."""

from __future__ import annotations

import shlex
from typing import Any

import click

from nightkeep.cli.api_client import NoGatewayError, call_api, url_option
from nightkeep.cli.switch_words import print_json, print_stops, sentence, target_of, target_options, whose_hand
from nightkeep.cli.tables import styled

__all__ = ["command"]


@click.command("stop")
@target_options
@click.option("--why", default="", help="Told to whoever is refused, and kept in the record.")
@click.option("--drain", is_flag=True, help="Let calls in flight end; else they are cut and told so.")
@click.option("--dry-run", is_flag=True, help="Only say what would be stopped.")
@click.option("--list", "is_list", is_flag=True, help="Only show what is stopped.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--data", "data_option", metavar="DIR", help="The data directory; for where no gateway answers.")
@url_option()
def command(
    scope: str | None,
    why: str,
    drain: bool,
    dry_run: bool,
    is_list: bool,
    as_json: bool,
    data_option: str | None,
    url: str,
    **names: str | None,
) -> None:
    """Stop SCOPE (/ is everything), or a model, account, tag or tool. Nothing of it is served until it is resumed.

    New calls are refused and calls in flight are cut within a second, in every process. Stops survive restarts. Where
    no gateway answers, 'stop /' leaves the file STOP in the data directory, which stops a gateway on it all the same.
    """
    target = target_of(scope, names)
    if is_list:
        if target is not None:
            raise click.UsageError("--list shows everything that is stopped; name nothing beside it")
        _show(url, data_option, as_json)
        return
    if target is None:
        raise click.UsageError("say what: a SCOPE (/ is everything), --model, --account, --tag or --tool; or --list")
    wish = {**target, "why": why, "by": whose_hand(), "source": "command", "drain": drain, "dry_run": dry_run}
    try:
        answer = call_api(url, "POST", "/api/switches/stop", wish, data=data_option)
    except NoGatewayError as error:
        from nightkeep.cli import switches_offline

        answer = switches_offline.stop(url, data_option, wish, error)
    if as_json:
        print_json(answer)
    else:
        _say(answer, wish)


def _say(answer: dict[str, Any], wish: dict[str, Any]) -> None:
    """One line: at this hour nobody reads two."""
    target, there = answer["target"], answer["stop"]
    if answer["dry_run"]:
        state = (
            f"is stopped already, {sentence(there)}"
            if there
            else "would be stopped; calls in flight would " + ("go on to their end" if wish["drain"] else "be cut")
        )
        click.echo(f"{target} {state}")
        return
    if not answer["is_new"]:
        click.echo(f"{target} was stopped already, {sentence(there)}; nothing changed")
        return
    words = wish["name"] if wish["kind"] == "scope" else f"--{wish['kind']} {shlex.quote(wish['name'])}"
    way_back = f"resume with: nightkeep resume {words}"
    click.echo(f"{styled('stopped', 'red', bold=True)} {target}: {_calls(answer, wish)}; {way_back}")


def _calls(answer: dict[str, Any], wish: dict[str, Any]) -> str:
    if answer.get("file"):
        return f"no gateway answers, so the file {answer['file']} was made; a gateway there obeys it within a second"
    if wish["drain"]:
        return "calls in flight go on to their end"
    count = answer["ended"]
    return f"{count} {'call' if count == 1 else 'calls'} in flight {'was' if count == 1 else 'were'} ended"


def _show(url: str, data: str | None, as_json: bool) -> None:
    try:
        stops = call_api(url, "GET", "/api/switches", data=data)["stops"]
    except NoGatewayError as error:
        from nightkeep.cli import switches_offline

        stops = switches_offline.listed(url, data, error)
    if as_json:
        print_json(stops)
    elif stops:
        print_stops(stops)
    else:
        click.echo("nothing is stopped")
