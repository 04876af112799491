"""``nightkeep operator``: is the token found, does the gateway take it, and another one in its place."""

from __future__ import annotations

import json
import os
import secrets
import stat
from pathlib import Path
from typing import Any

import click

from nightkeep.cli.api_client import ApiError, NothingThereError, call_api, url_option
from nightkeep.cli.tables import styled
from nightkeep.config_places import data_dir
from nightkeep.control.operator import TOKEN_NAME, renew_token

__all__ = ["command"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_DATA = click.option("--data", "data_option", metavar="DIR", help="The gateway's data directory.")


@click.group("operator")
def command() -> None:
    """Check and replace the operator's token."""


@command.command("check")
@url_option()
@_DATA
@_JSON
def check(url: str, data_option: str | None, as_json: bool) -> None:
    """Say which token commands would show, and whether the gateway takes it. Exit code 1: it does not."""
    path = data_dir(os.environ, data_option) / TOKEN_NAME
    source = "NIGHTKEEP_TOKEN" if os.environ.get("NIGHTKEEP_TOKEN", "").strip() else str(path)
    found = _look_at(path)
    try:
        is_taken = bool(call_api(url, "GET", "/api/me", data=data_option)["is_operator"])
        why = "" if is_taken else "the gateway does not know this token; is it another gateway's?"
    except ApiError as error:
        is_taken, why = False, error.message
    if as_json:
        facts = {"source": source, "file": str(path), "found": found, "gateway": url, "taken": is_taken, "why": why}
        click.echo(json.dumps(facts, indent=2))
    else:
        click.echo(f"token    {source}")
        click.echo(f"file     {path}: {found}")
        click.echo(f"gateway  {url}: {styled('takes it', 'green') if is_taken else styled('does not take it', 'red')}")
        if why:
            click.echo(f"         {why}")
    if not is_taken:
        raise SystemExit(ApiError.exit_code)


@command.command("rotate")
@_DATA
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@_JSON
def rotate(data_option: str | None, dry_run: bool, as_json: bool) -> None:
    """Put another token into the data directory; the old one is refused at once. Exit code 4: there is none."""
    path = data_dir(os.environ, data_option) / TOKEN_NAME
    if not path.exists():
        raise NothingThereError(f"there is no {path}; 'nightkeep up' makes it, or name the directory with --data")
    if not dry_run:
        renew_token(path.parent, secrets.token_bytes)
    if as_json:
        done: dict[str, Any] = {"file": str(path), "dry_run": dry_run}
        click.echo(json.dumps(done, indent=2))
        return
    what = "would hold" if dry_run else "holds"
    click.echo(f"{path} {what} another token; whoever has the old one in NIGHTKEEP_TOKEN needs it")


def _look_at(path: Path) -> str:
    """The state of the token's file, in words."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        with path.open("rb"):
            pass
    except FileNotFoundError:
        return "not there"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "there, for its owner only" if not mode & 0o077 else f"there, and others may read it (mode {mode:03o})"
