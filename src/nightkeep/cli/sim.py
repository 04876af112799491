"""``nightkeep sim``: run the simulated provider, or check a scenario file for it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import click
import uvloop

from nightkeep.core.errors import ConfigError
from nightkeep.testing.sim import Scenario, load_scenario, start_sim

__all__ = ["command"]

_EXIT_FAILED = 1
_EXIT_CONFIG = 3
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("sim", invoke_without_command=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=7788, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option("--scenario", "scenario_file", type=click.Path(path_type=Path), help="Scenario file (TOML).")
@_JSON
@click.pass_context
def command(context: click.Context, host: str, port: int, scenario_file: Path | None, as_json: bool) -> None:
    """Run a simulated provider that speaks all four wires, until interrupted.

    Without a scenario it answers every key and model with a sentence that says it is simulated.
    Exit codes: 1 the port is taken, 3 the scenario is not valid.
    """
    if context.invoked_subcommand is not None:
        return
    scenario = _load(scenario_file, as_json) if scenario_file is not None else Scenario()
    try:
        uvloop.run(_serve(scenario, host, port, as_json))
    except OSError as error:
        _fail(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port", as_json, {})
        sys.exit(_EXIT_FAILED)


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@_JSON
def check(file: Path, as_json: bool) -> None:
    """Check a scenario FILE; exit code 3 when it is not valid."""
    scenario = _load(file, as_json)
    found: dict[str, Any] = {
        "valid": True,
        "file": str(file),
        "name": scenario.name,
        "turns": len(scenario.turns),
        "faults": len(scenario.faults),
        "accounts": len(scenario.accounts),
        "providers": sorted(scenario.providers),
    }
    if as_json:
        click.echo(json.dumps(found))
        return
    counts = ", ".join([f"{found[noun]} {noun}" for noun in ("turns", "faults", "accounts")])
    click.echo(f"{file}: valid; scenario {scenario.name!r}: {counts}")


async def _serve(scenario: Scenario, host: str, port: int, as_json: bool) -> None:
    sim = await start_sim(scenario, host=host, port=port)
    if as_json:
        said = {"simulated": True, "url": sim.base_url, "port": sim.port, "scenario": scenario.name}
        click.echo(json.dumps(said))
    else:
        click.echo(f"Simulated provider (scenario {scenario.name!r}) at {sim.base_url}; nothing here is a real model.")
        click.echo(f"  OPENAI_BASE_URL={sim.base_url}/v1  ANTHROPIC_BASE_URL={sim.base_url}")
        click.echo(f"  GOOGLE_GEMINI_BASE_URL={sim.base_url}  what it got: {sim.base_url}/sim/stats")
    sys.stdout.flush()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
    await sim.close()


def _load(file: Path, as_json: bool) -> Scenario:
    try:
        return load_scenario(file)
    except ConfigError as error:
        _fail(error.message, as_json, error.data)
        sys.exit(_EXIT_CONFIG)


def _fail(message: str, as_json: bool, data: dict[str, Any]) -> None:
    if as_json:
        click.echo(json.dumps({"valid": False, "error": message, **data}))
    else:
        click.echo(f"error: {message}", err=True)
