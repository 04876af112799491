"""``nightkeep config``: write a first file, check one, and show what holds."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

import click

from nightkeep.cli.tables import print_table, styled
from nightkeep.config import InvalidConfigError, Loaded, Problem, find_config, load, resolve_accounts
from nightkeep.config_accounts import KeyNote, Resolution
from nightkeep.config_reload import flatten

__all__ = ["command"]

_EXIT_FAILED = 1
_EXIT_CONFIG = 3
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("config")
def command() -> None:
    """Write, check and show the configuration."""


@command.command("init")
@click.argument("file", type=click.Path(path_type=Path), default=Path("nightkeep.toml"))
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(file: Path, force: bool) -> None:
    """Write a commented starter FILE (nightkeep.toml)."""
    text = resources.files("nightkeep").joinpath("config_starter.toml").read_text(encoding="utf-8")
    try:
        with file.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        click.echo(f"{file} is there already; use --force to replace it", err=True)
        raise SystemExit(_EXIT_FAILED) from None
    except OSError as error:
        click.echo(f"{file} cannot be written: {error.strerror}", err=True)
        raise SystemExit(_EXIT_FAILED) from None
    click.echo(f"wrote {file}; check it with: nightkeep config check")


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--keys/--no-keys", default=True, help="Also fetch the keys (asks no provider).")
@_JSON
def check(file: Path | None, keys: bool, as_json: bool) -> None:
    """Check FILE, or the one that would be loaded; exit code 3 where it cannot be used."""
    path = find_config(os.environ, str(file) if file else None)
    try:
        loaded = load(path, os.environ)
    except InvalidConfigError as error:
        _print_check(path, error.problems, (), (), as_json)
        raise SystemExit(_EXIT_CONFIG) from None
    notes = _resolve(loaded).notes if keys else ()
    _print_check(path, (), loaded.warnings, notes, as_json)
    if any(note.is_error for note in notes):
        raise SystemExit(_EXIT_CONFIG)


def _resolve(loaded: Loaded) -> Resolution:
    return resolve_accounts(loaded.settings, os.environ, loaded.base)


def _print_check(
    path: Path | None,
    errors: tuple[Problem, ...],
    warnings: tuple[Problem, ...],
    notes: tuple[KeyNote, ...],
    as_json: bool,
) -> None:
    is_valid = not errors and not any(note.is_error for note in notes)
    if as_json:
        _print_json(
            {
                "valid": is_valid,
                "file": str(path) if path else None,
                "errors": [_as_dict(each) for each in errors] + [_note(each) for each in notes if each.is_error],
                "warnings": [_as_dict(each) for each in warnings]
                + [_note(each) for each in notes if not each.is_error],
            }
        )
        return
    for problem in errors:
        click.echo(f"{styled('error', 'red')}   {problem}")
    for problem in warnings:
        click.echo(f"{styled('warning', 'yellow')} {problem}")
    for note in notes:
        label = styled("error", "red") + "  " if note.is_error else styled("warning", "yellow")
        click.echo(f"{label} accounts.{note.account}.key: {note.what}" + (f"\n    fix: {note.fix}" if note.fix else ""))
    subject = str(path) if path else "no file: the environment"
    click.echo(styled(f"{subject} is valid", "green") if is_valid else styled(f"{subject} cannot be used", "red"))


def _as_dict(problem: Problem) -> dict[str, Any]:
    return {name: getattr(problem, name) for name in ("file", "line", "setting", "what", "fix")}


def _note(note: KeyNote) -> dict[str, Any]:
    return {"file": None, "line": None, "setting": f"accounts.{note.account}.key", "what": note.what, "fix": note.fix}


@command.command("show")
@click.option("--config", "file", type=click.Path(path_type=Path), help="The file to load.")
@click.option("--all", "with_defaults", is_flag=True, help="Also what has its default.")
@_JSON
def show(file: Path | None, with_defaults: bool, as_json: bool) -> None:
    """Show the settings that hold and where each comes from; keys as fingerprints."""
    path = find_config(os.environ, str(file) if file else None)
    try:
        loaded = load(path, os.environ)
    except InvalidConfigError as error:
        _print_check(path, error.problems, (), (), as_json)
        raise SystemExit(_EXIT_CONFIG) from None
    rows = [(name, value, _origin(loaded, name)) for name, value in flatten(loaded.settings).items()]
    keys = {
        name: account.access.secret.fingerprint
        for name, account in _resolve(loaded).accounts.items()
        if account.access.secret is not None
    }
    if as_json:
        settings = [{"setting": name, "value": value, "origin": origin} for name, value, origin in rows]
        _print_json({"file": str(path) if path else None, "settings": settings, "keys": keys})
        return
    click.echo(f"file: {path or 'none'}")
    if loaded.settings.is_simulated:
        click.echo("no accounts: the built-in simulated provider answers")
    shown = [row for row in rows if with_defaults or row[2] != "default"]
    if shown:
        print_table(("SETTING", "VALUE", "FROM"), shown)
    if keys:
        click.echo("")
        print_table(("ACCOUNT", "KEY"), list(keys.items()))


def _origin(loaded: Loaded, name: str) -> str:
    if any(name.startswith(f"accounts.{account}.") for account in loaded.from_environment):
        return "environment"
    is_set = any(name == each or each.startswith(f"{name}[") for each in loaded.in_file)
    return "file" if is_set else "default"


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))
