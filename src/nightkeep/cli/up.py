"""``nightkeep up``: start the gateway, say where it is and what it serves with, and stop it in order."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click
import uvloop

from nightkeep.bootstrap import Running, start
from nightkeep.config import Loaded, Settings, data_dir, find_config, load, prepare_data_dir

__all__ = ["command"]

log = logging.getLogger("nightkeep")

_MOST_SHOWN = 5


@click.command("up")
@click.option("--config", "config_file", metavar="FILE", help="Settings; default: ./nightkeep.toml, else the user's.")
@click.option(
    "--data", "data_option", metavar="DIR", help="Where records are kept; default: the user's data directory."
)
@click.option("--host", help="Address to listen on.  [default: gateway.host, 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 takes a free one.  [default: gateway.port, 7777]")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that serve.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON when it is up.")
def command(
    config_file: str | None, data_option: str | None, host: str | None, port: int | None, workers: int, as_json: bool
) -> None:
    """Start the gateway and serve until interrupted.

    Without a file, keys in the environment (OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY …) become
    accounts; without keys, a simulated provider answers. A changed file is taken within a second; an
    invalid one is refused and the running settings stay.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    environ = dict(os.environ)
    loaded = load(find_config(environ, config_file), environ)
    overrides = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    data = prepare_data_dir(data_dir(environ, data_option))
    try:
        if workers > 1:
            uvloop.run(_supervise(loaded, environ, data, overrides, workers, as_json=as_json))
        else:
            uvloop.run(_serve(loaded, environ, data, overrides, _announce if as_json else _greet))
    except OSError as error:
        gateway = loaded.settings.gateway
        where = f"{host or gateway.host}:{gateway.port if port is None else port}"
        raise click.ClickException(
            f"cannot listen on {where}: {error.strerror or error}; is another gateway running? Choose another --port"
        ) from error


async def _serve(
    loaded: Loaded,
    environ: dict[str, str],
    data: Path,
    overrides: dict[str, str | int],
    greet: Callable[[Running, Path], None],
) -> None:
    running = await start(loaded, environ, data, overrides)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: running.reload_soon("SIGHUP"))
    if running.switches is not None:
        loop.add_signal_handler(signal.SIGUSR1, running.switches.signal_stop)
        loop.add_signal_handler(signal.SIGUSR2, running.switches.signal_resume)
    greet(running, data)
    watching = asyncio.ensure_future(running.watch())
    await stop.wait()
    watching.cancel()
    log.info("stopping: answers in flight have 10 s to end")
    await running.close()


async def _supervise(
    loaded: Loaded, environ: dict[str, str], data: Path, overrides: dict[str, str | int], workers: int, *, as_json: bool
) -> None:
    from nightkeep.supervisor import Supervisor

    supervisor = Supervisor(loaded, environ, data, overrides, workers)

    def on_ready() -> None:
        if as_json:
            sim = supervisor.sim.base_url if supervisor.sim is not None else None
            facts = {"address": supervisor.address, "pid": os.getpid(), "workers": supervisor.pids, "sim": sim}
            facts |= {"simulated": loaded.settings.is_simulated, "data": str(data)}
            click.echo(json.dumps(facts | {"config": str(loaded.path) if loaded.path else None}))
        else:
            address = click.style(supervisor.address, fg="cyan", bold=True)
            click.echo(f"{click.style('Nightkeep', bold=True)} is up at {address} with {workers} workers")
            _say_who_serves(loaded.settings)
            click.echo(f"  settings      {loaded.path or 'none (nightkeep config init writes a first file)'}")
            click.echo(f"  records       {data}")
            _say_where(supervisor.address)
        sys.stdout.flush()

    try:
        await supervisor.open()
        await supervisor.run(on_ready)
    finally:
        await supervisor.close()


def _announce(running: Running, data: Path) -> None:
    facts = {
        "address": running.address,
        "pid": os.getpid(),
        "simulated": running.settings.is_simulated,
        "sim": running.sim.base_url if running.sim is not None else None,
        "config": str(running.loaded.path) if running.loaded.path else None,
        "data": str(data),
    }
    click.echo(json.dumps(facts))
    sys.stdout.flush()


def _greet(running: Running, data: Path) -> None:
    settings = running.settings
    address = running.address
    click.echo(f"{click.style('Nightkeep', bold=True)} is up at {click.style(address, fg='cyan', bold=True)}")
    _say_who_serves(settings)
    click.echo(f"  settings      {running.loaded.path or 'none (nightkeep config init writes a first file)'}")
    click.echo(f"  records       {data}")
    everybody = "whoever can connect (nightkeep keys create NAME --scope PATH changes that)"
    click.echo(f"  clients       {'must present a key' if running.asks_for_keys else everybody}")
    stops = running.switches.stops if running.switches is not None else ()
    for stop in stops[:_MOST_SHOWN]:
        click.echo(f"  {click.style('stopped', fg='red', bold=True)}       {stop.target}, by {stop.by}: {stop.why}")
    if stops:
        click.echo("                nightkeep stop --list shows all; nightkeep resume ends them")
    for note in running.notes:
        colour = "red" if note.is_error else "yellow"
        click.echo(f"  {click.style('account', fg=colour)} {note.account}: {note.what}. {note.fix}")
    _say_where(address)
    sys.stdout.flush()


def _say_who_serves(settings: Settings) -> None:
    if settings.is_simulated:
        click.echo(f"  serves with   {click.style('a SIMULATED provider', fg='yellow')}: no key was found")
    else:
        pools = {account.pool for account in settings.accounts.values()}
        providers = sorted({account.provider for account in settings.accounts.values()})
        click.echo(f"  serves with   {len(settings.accounts)} accounts in {len(pools)} pools: {', '.join(providers)}")


def _say_where(address: str) -> None:
    click.echo("\n  point clients here:")
    click.echo(f"    OPENAI_BASE_URL={address}/v1")
    click.echo(f"    ANTHROPIC_BASE_URL={address}")
    click.echo(f"    GOOGLE_GEMINI_BASE_URL={address}\n")
