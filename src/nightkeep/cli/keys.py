"""``nightkeep keys``: make, list, rotate and revoke virtual keys, with a running gateway or without one.

A key is printed once, alone on stdout, so that it can be piped into a secret store; everything else goes to stderr.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote

import click

from nightkeep.cli.api_client import ApiError, NoGatewayError, NothingThereError, call_api, url_option
from nightkeep.cli.key_words import GOOD, HEADINGS, events, facts, hand_over, moment, print_json, row
from nightkeep.cli.tables import print_table, styled
from nightkeep.config_places import data_dir
from nightkeep.core.errors import NightkeepError

__all__ = ["command"]

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_WEAK: Final = 20  # characters; shorter ones were made up by somebody
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_DATA = click.option("--data", "data_option", metavar="DIR", help="The data directory, where no gateway runs.")
_WHY = click.option("--why", default="", help="Kept with the change.")


def _place(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say where."""
    for option in (_JSON, _DATA, url_option()):
        function = option(function)
    return function


def _span(context: click.Context, parameter: click.Parameter, text: str) -> timedelta:
    """What ``30d``, ``12h`` or ``0`` means."""
    match = re.fullmatch(r"(\d{1,6})\s*([smhdw]?)", text.strip())
    if match is None or (not match[2] and match[1] != "0"):
        raise click.BadParameter(f"{text!r} is no span such as 30d, 12h or 90m", context, parameter)
    return timedelta(seconds=int(match[1]) * _UNITS.get(match[2], 0))


def _end(context: click.Context, parameter: click.Parameter, text: str | None) -> datetime | None:
    """What a span from now means, or a date."""
    if text is None:
        return None
    try:
        if re.match(r"\d{4}-", text):
            return datetime.fromisoformat(text).astimezone(UTC)
        return datetime.now(UTC) + _span(context, parameter, text)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is no span such as 30d, and no date", context, parameter) from None


@click.group("keys")
def command() -> None:
    """Make, list, rotate and revoke the keys that clients present."""


@command.command("create")
@click.argument("name")
@click.option("--scope", required=True, metavar="PATH", help="What its calls are booked under, such as acme/triage.")
@click.option("--models", multiple=True, metavar="GLOB", help="Models it may ask for; repeat it, or put commas.")
@click.option("--tags", multiple=True, metavar="TAG", help="Tags it may claim; repeat it, or put commas.")
@click.option("--default-tag", metavar="TAG", help="The tag of its calls that name none.")
@click.option("--expires", callback=_end, metavar="WHEN", help="30d, 12h, or a date.  [default: never]")
@click.option("--requests-per-minute", type=click.IntRange(1), metavar="N", help="A limit of the key itself.")
@click.option("--tokens-per-minute", type=click.IntRange(1), metavar="N", help="The same, counting tokens.")
@click.option("--concurrent", type=click.IntRange(1), metavar="N", help="Calls at the same time.")
@click.option("--usd-per-day", metavar="USD", help="Dollars in a day.")
@_WHY
@_place
def create(
    name: str,
    scope: str,
    models: tuple[str, ...],
    tags: tuple[str, ...],
    default_tag: str | None,
    expires: datetime | None,
    usd_per_day: str | None,
    why: str,
    url: str,
    data_option: str | None,
    as_json: bool,
    **limits: int | None,
) -> None:
    """Make a key. It is printed once, alone on stdout, and kept nowhere.

    Exit code 1: the name is taken, or the key is not possible.
    """
    given = {limit: value for limit, value in limits.items() if value is not None}
    if usd_per_day is not None:
        given["micro_usd_per_day"] = _micro(usd_per_day)
    body = {"name": name, "scope": scope, "models": _listed(models), "tags": _listed(tags), "limits": given, "why": why}
    body |= {"default_tag": default_tag} if default_tag else {}
    body |= {"expires_at": expires.isoformat()} if expires else {}
    answer = _ask(url, data_option, "create_key", body=body)
    hand_over(answer, "made", as_json)
    if answer.get("is_first") and not as_json:
        click.echo("It is the first one made here: from now on the gateway serves nobody without a key.", err=True)


@command.command("list")
@click.option("--all", "with_all", is_flag=True, help="Also those that are revoked or expired.")
@_place
def list_keys(with_all: bool, url: str, data_option: str | None, as_json: bool) -> None:
    """List the keys that were made here. Exit code 4: there are none."""
    every = _ask(url, data_option, "list_keys")["keys"]
    shown = [key for key in every if with_all or key["state"] in GOOD]
    if as_json:
        print_json(shown)
    elif shown:
        print_table(HEADINGS, [row(key) for key in shown])
    else:
        click.echo("no keys; make one: nightkeep keys create NAME --scope TENANT/AGENT", err=True)
    if len(shown) < len(every) and not as_json:
        click.echo(f"{len(every) - len(shown)} more are over; --all shows them", err=True)
    if not shown:
        raise SystemExit(NothingThereError.exit_code)


@command.command("show")
@click.argument("key")
@_place
def show(key: str, url: str, data_option: str | None, as_json: bool) -> None:
    """Show what is known of KEY: a name, an id or a fingerprint. Exit code 4: there is none."""
    page = _ask(url, data_option, "show_key", key)
    found = page["keys"]
    if not found:
        raise NothingThereError(f"there is no key {key!r}")
    if as_json:
        print_json(page)
        return
    for number, each in enumerate(found):
        if number:
            click.echo()
        for label, text in [*facts(each), *events(page["log"], each["id"])]:
            click.echo(f"{styled(label.ljust(12), 'bright_black')}{text}")


@command.command("rotate")
@click.argument("key")
@click.option("--overlap", callback=_span, default="24h", show_default=True, help="How long the old one stays good.")
@click.option(
    "--expires", callback=_end, metavar="WHEN", help="30d, 12h, or a date.  [default: as long as the old one]"
)
@_WHY
@_place
def rotate(
    key: str,
    overlap: timedelta,
    expires: datetime | None,
    why: str,
    url: str,
    data_option: str | None,
    as_json: bool,
) -> None:
    """Put a new key in the place of KEY; it is printed once. Exit codes: 1 it is over, 4 there is none."""
    body: dict[str, Any] = {"overlap_s": int(overlap.total_seconds()), "why": why}
    body |= {"expires_at": expires.isoformat()} if expires else {}
    answer = _ask(url, data_option, "rotate_key", key, body)
    hand_over(answer, "rotated", as_json)
    if not as_json:
        until = f"good until {moment(datetime.now(UTC) + overlap)}" if overlap else "refused from now on"
        click.echo(f"The old one is {until}.", err=True)


@command.command("revoke")
@click.argument("key")
@click.option("--dry-run", is_flag=True, help="Only say which keys would end.")
@_WHY
@_place
def revoke(key: str, dry_run: bool, why: str, url: str, data_option: str | None, as_json: bool) -> None:
    """End KEY at once: all keys of a name, or the one of an id or fingerprint. Exit code 4: there is none."""
    if dry_run:
        found = [each for each in _ask(url, data_option, "show_key", key)["keys"] if each["state"] in GOOD]
    else:
        found = _ask(url, data_option, "revoke_key", key, {"why": why})["revoked"]
    if as_json:
        print_json({"dry_run": dry_run, "revoked": found})
        return
    for each in found:
        done = "would be revoked" if dry_run else "is revoked"
        click.echo(f"{each['name']} {each['fingerprint']} of {each['scope']} {done}")
    if not found:
        click.echo(f"{key} was over already; nothing changed")


@command.command("hash")
@click.argument("name", required=False)
@click.option("--scope", metavar="PATH", help="With NAME: what its calls are booked under.")
def hash_line(name: str | None, scope: str | None) -> None:
    """Read a key from stdin and print the line of nightkeep.toml for it; with NAME, the whole section."""
    text = click.prompt("Key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    key = str(text).strip()
    if not key:
        raise click.UsageError('there is no key on stdin; try: printf %s "$KEY" | nightkeep keys hash')
    if len(key) < _WEAK:
        click.echo(f"this key has {len(key)} characters and may be guessed; 'keys create' makes a good one", err=True)
    line = f'hash = "sha256:{sha256(key.encode()).hexdigest()}"'
    click.echo(f'[keys.{name}]\nscope = "{scope or name}"\n{line}' if name else line)


_PATHS: Final = {
    "list_keys": ("GET", "/api/keys"),
    "show_key": ("GET", "/api/keys/{key}"),
    "create_key": ("POST", "/api/keys"),
    "rotate_key": ("POST", "/api/keys/{key}/rotate"),
    "revoke_key": ("POST", "/api/keys/{key}/revoke"),
}


def _ask(url: str, data: str | None, operation: str, key: str = "", body: dict[str, Any] | None = None) -> Any:
    """Ask the running gateway; where none runs, do it on the data directory."""
    method, path = _PATHS[operation]
    try:
        return call_api(url, method, path.format(key=quote(key, safe="")), body, data=data)
    except NoGatewayError:
        from nightkeep.cli import keys_offline

        directory = data_dir(os.environ, data)
        try:
            answer = keys_offline.perform(directory, operation, key, body or {}, url)
        except NightkeepError as error:
            kind = NothingThereError if error.http_status == 404 else ApiError
            raise kind(error.message) from error
        click.echo(f"no gateway answers at {url}: this is about {directory} itself", err=True)
        return answer


def _listed(values: tuple[str, ...]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _micro(text: str) -> int:
    try:
        return int(Decimal(text.removeprefix("$")) * 1_000_000)
    except (InvalidOperation, ValueError, OverflowError):
        raise click.BadParameter(f"--usd-per-day {text!r} is no amount such as 5.00") from None
