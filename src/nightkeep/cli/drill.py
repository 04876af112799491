"""``nightkeep drill``: rehearse incidents on real processes, and read what was seen."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click
import msgspec
import uvloop

from nightkeep.cli.tables import styled
from nightkeep.ops.drills.person import Message
from nightkeep.ops.drills.stage import Check, raise_stage
from nightkeep.ops.drills.table import DRILLS

__all__ = ["command"]

_MOST_SHOWN = 8
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("drill")
def command() -> None:
    """Rehearse an incident: inject faults, assert what happens."""


@command.command("list")
@_JSON
def list_drills(as_json: bool) -> None:
    """Name the incidents that can be rehearsed."""
    if as_json:
        rows = [{"name": name, "story": drill.story, "sources": drill.sources} for name, drill in DRILLS.items()]
        click.echo(json.dumps(rows, indent=1))
        return
    for name, drill in DRILLS.items():
        click.echo(f"{styled(name, bold=True)}  {styled(drill.sources, 'bright_black')}")
        click.echo(click.wrap_text(drill.story, 96, "  ", "  "))


@command.command("run")
@click.argument("names", nargs=-1, required=True, metavar="NAME…|all")
@click.option("--keep", metavar="DIR", type=click.Path(path_type=Path), help="Keep settings, logs and records there.")
@_JSON
def run(names: tuple[str, ...], keep: Path | None, as_json: bool) -> None:
    """Run drills on processes of their own; nothing that is running is touched. Exit code 1 if one fails."""
    chosen = list(DRILLS) if names == ("all",) else list(names)
    unknown = [name for name in chosen if name not in DRILLS]
    if unknown:
        raise click.UsageError(f"there is no drill {unknown[0]!r}; 'nightkeep drill list' names them")
    results = [_run_one(name, keep, as_json) for name in chosen]
    failed = [result["name"] for result in results if not result["passed"]]
    if as_json:
        click.echo(json.dumps({"drills": results, "passed": not failed}, indent=1))
    else:
        total = sum(len(result["checks"]) for result in results)
        words = (
            styled("all passed", "green", bold=True) if not failed else styled(f"failed: {', '.join(failed)}", "red")
        )
        click.echo(f"\n{len(results)} drill{'s' if len(results) != 1 else ''}, {total} checks: {words}")
    if failed:
        sys.exit(1)


def _run_one(name: str, keep: Path | None, as_json: bool) -> dict[str, Any]:
    began = time.perf_counter()
    checks, received, error = uvloop.run(_play(name, keep / name if keep is not None else None))
    seconds = round(time.perf_counter() - began, 1)
    passed = error is None and bool(checks) and all(check.is_good for check in checks)
    if not as_json:
        mark = styled("✓", "green") if passed else styled("✗", "red")
        click.echo(f"\n{mark} {styled(name, bold=True)}  {styled(f'{seconds} s', 'bright_black')}")
        click.echo(click.wrap_text(DRILLS[name].story, 96, "  ", "  "))
        for check in checks:
            click.echo(f"    {styled('✓', 'green') if check.is_good else styled('✗', 'red')} {check.what}")
            click.echo(styled(f"      saw: {check.seen}", None if not check.is_good else "bright_black"))
        if error is not None:
            click.echo(f"    {styled('✗', 'red')} {error}")
        if received:
            click.echo("    what a person received:")
        for message in received[:_MOST_SHOWN]:
            colour = {"critical": "red", "warning": "yellow"}.get(message.level)
            when = styled(f"{message.seconds:5.1f} s", "bright_black")
            words = click.wrap_text(
                message.text, 96, f"      {when}  {styled(message.level, colour)}: ", "               "
            )
            click.echo(words)
        if len(received) > _MOST_SHOWN:
            click.echo(f"      and {len(received) - _MOST_SHOWN} more")
    return {
        "name": name,
        "passed": passed,
        "seconds": seconds,
        "error": error,
        "checks": [{"what": check.what, "passed": check.is_good, "seen": check.seen} for check in checks],
        "received": [msgspec.to_builtins(message) for message in received],
    }


async def _play(name: str, keep: Path | None) -> tuple[list[Check], list[Message], str | None]:
    async with raise_stage(keep) as stage:
        try:
            await DRILLS[name].play(stage)
        except Exception as error:  # noqa: BLE001 - a drill that breaks has failed; the others are still worth running
            return stage.checks, stage.person.received, f"the drill broke off: {type(error).__name__}: {error}"[:2000]
        return stage.checks, stage.person.received, None
