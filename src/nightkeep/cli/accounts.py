"""``nightkeep accounts``: what state they are in, what is wrong with one, and the way back for it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import msgspec

from nightkeep.cli.api_client import call_api, data_option, url_option
from nightkeep.cli.tables import print_table, styled
from nightkeep.config import InvalidConfigError, Loaded, Resolution, find_config, load, resolve_accounts
from nightkeep.models.probe import Probe, ProbeResult
from nightkeep.models.transport import HttpClient

__all__ = ["command"]

_EXIT_FAILED = 1
_EXIT_CONFIG = 3
_EXIT_NOTHING = 4
_AT_ONCE = 8
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_GOOD = {"available"}
_WAITING = {"cooling", "quota_exhausted", "disabled"}


@click.group("accounts")
def command() -> None:
    """List, test, enable, disable and reset accounts."""


@command.command("list")
@url_option()
@data_option()
@_JSON
def list_accounts(url: str, as_json: bool) -> None:
    """List the accounts of the running gateway with their states."""
    answer = call_api(url, "GET", "/api/accounts")
    views: list[dict[str, Any]] = answer.get("accounts", []) if isinstance(answer, dict) else answer or []
    if as_json:
        _print_json(views)
        return
    if not views:
        click.echo("no accounts: the built-in simulated provider answers")
        return
    headings = ("ACCOUNT", "PROVIDER", "POOL", "RESERVED", "KEY", "STATE", "BUSY", "UNTIL", "WHY")
    print_table(headings, [_row(view) for view in views])


def _row(view: dict[str, Any]) -> tuple[str, ...]:
    status = str(view.get("status", ""))
    colour = "green" if status in _GOOD else "yellow" if status in _WAITING else "red"
    shown = styled(status.replace("_", " "), colour)
    place = [_text(view, name) for name in ("id", "provider", "pool", "reserved_for", "key_fingerprint")]
    return *place, shown, _text(view, "in_flight"), _text(view, "until"), _text(view, "why")


def _text(view: dict[str, Any], name: str) -> str:
    value = view.get(name)
    return "" if value is None else str(value)


@command.command("test")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--config", "file", type=click.Path(path_type=Path), help="The file to load.")
@click.option("--deep", is_flag=True, help="Send a completion of one token, which costs what that costs.")
@click.option("--model", help="The provider's model to ask for; else the first that the configuration names.")
@_JSON
def test_accounts(names: tuple[str, ...], file: Path | None, deep: bool, model: str | None, as_json: bool) -> None:
    """Ask each account's provider whether the account works, and say what is wrong if not. Shows no key.

    Exit codes: 1 an account does not work, 3 the configuration is not valid, 4 there is no such account.
    """
    loaded = _load(file)
    chosen = _chosen(loaded, names)
    if not chosen:
        click.echo("there are no accounts to test: no key in the configuration or the environment", err=True)
        raise SystemExit(_EXIT_NOTHING)
    resolution = resolve_accounts(loaded.settings, os.environ, loaded.base)
    results = asyncio.run(_probe_all(loaded, resolution, chosen, deep=deep, model=model))
    if as_json:
        _print_json([msgspec.to_builtins(result) for result in results])
    else:
        _print_results(results)
    if not all(result.is_ok for result in results):
        raise SystemExit(_EXIT_FAILED)


def _load(file: Path | None) -> Loaded:
    try:
        return load(find_config(os.environ, str(file) if file else None), os.environ)
    except InvalidConfigError as error:
        click.echo(error.message, err=True)
        raise SystemExit(_EXIT_CONFIG) from None


def _chosen(loaded: Loaded, names: tuple[str, ...]) -> list[str]:
    known = list(loaded.settings.accounts)
    unknown = [name for name in names if name not in known]
    if unknown:
        click.echo(f"there is no account {', '.join(unknown)}; there are: {', '.join(known) or 'none'}", err=True)
        raise SystemExit(_EXIT_NOTHING)
    return list(names) or known


async def _probe_all(
    loaded: Loaded, resolution: Resolution, names: list[str], *, deep: bool, model: str | None
) -> list[ProbeResult]:
    client = HttpClient()
    probe = Probe(client, _SystemClock())
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(name: str) -> ProbeResult:
        account = resolution.accounts.get(name)
        if account is None:
            return _unusable(loaded, resolution, name)
        wanted = (model,) if model else _targets(loaded, loaded.settings.accounts[name].provider)
        async with room:
            return await probe.run(account, wanted, deep=deep)

    try:
        return list(await asyncio.gather(*(one(name) for name in names)))
    finally:
        client.close()


def _targets(loaded: Loaded, provider: str) -> tuple[str, ...]:
    """The provider's models that the configuration asks for."""
    targets = [target for alias in loaded.settings.models.values() for target in alias.targets]
    targets += [route.model for route in loaded.settings.routes if route.model]
    found = [target.removeprefix(f"{provider}/") for target in targets if target.startswith(f"{provider}/")]
    return tuple(dict.fromkeys(found))


def _unusable(loaded: Loaded, resolution: Resolution, name: str) -> ProbeResult:
    note = next((note for note in resolution.notes if note.account == name and note.is_error), None)
    return ProbeResult(
        account=name,
        provider=loaded.settings.accounts[name].provider,
        fingerprint="",
        is_ok=False,
        finding="unusable",
        message=note.what if note else "its key cannot be had",
        fix=note.fix if note else "",
    )


def _print_results(results: list[ProbeResult]) -> None:
    rows = []
    for result in results:
        mark = styled("ok", "green") if result.is_ok else styled("failed", "red")
        status = f" ({result.status})" if result.status else ""
        rows.append((result.account, result.provider, result.fingerprint or "no key", mark, result.message + status))
    print_table(("ACCOUNT", "PROVIDER", "KEY", "RESULT", "FINDING"), rows)
    for result in results:
        if result.provider_message and not result.is_ok:
            click.echo(f"\n{result.account}: the provider says: {result.provider_message}")
        if result.fix and not result.is_ok:
            click.echo(f"{result.account}: fix: {result.fix}")


class _SystemClock:
    """The machine's clock: a command is its own composition root."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


def _change(verb: str, done: str, text: str) -> Callable[..., Any]:
    @command.command(verb, help=text)
    @click.argument("name")
    @click.option("--why", default="", help="Kept in the record.")
    @url_option()
    @data_option()
    @_JSON
    def change(name: str, why: str, url: str, as_json: bool) -> None:
        answer = call_api(url, "POST", f"/api/accounts/{quote(name, safe='')}/{verb}", {"why": why})
        if as_json:
            _print_json(answer)
        else:
            click.echo(f"{name} is {done}")

    return change


enable = _change("enable", "enabled", "Let an account serve again, also after a suspension or a refused key.")
disable = _change("disable", "disabled", "Take an account out until it is enabled; calls under way end as they will.")
reset = _change("reset", "reset", "Forget an account's cooling, quota marks and open breaker.")


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))
