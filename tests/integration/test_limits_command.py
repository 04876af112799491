"""``nightkeep limits`` and the API behind it, against a running gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from integration.test_operators import ask, bearer
from nightkeep.bootstrap import Running, start
from nightkeep.cli import limits
from nightkeep.config import load
from nightkeep.control.keys import hash_key

ACME = '[[limits]]\nscope = "acme/*"\nconcurrent = 2\nrequests_per_minute = 50\n'
KEY = f'[keys.agent]\nscope = "acme/a"\nhash = "{hash_key("nk-an-agents-own-key")}"\n'


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    config = tmp_path / "nightkeep.toml"
    config.write_text(ACME)
    running = await start(load(config, {}), {}, tmp_path, {"port": 0})
    yield running
    await running.close(0)


async def run(gateway: Running, directory: Path, *arguments: str) -> Result:
    env = {"NIGHTKEEP_URL": gateway.address, "NIGHTKEEP_DATA": str(directory)}
    runner = CliRunner(env=env)
    return await asyncio.to_thread(runner.invoke, limits.command, list(arguments), prog_name="nightkeep limits")


async def test_what_is_used_is_shown(gateway: Running, tmp_path: Path) -> None:
    idle = await run(gateway, tmp_path)
    assert idle.exit_code == 0, idle.output
    assert idle.output.splitlines()[1].split() == ["acme/*", "0", "of", "50", "-", "0", "of", "2", "0"]
    permit = gateway._limits.try_acquire(scope="acme/a/run_1", tag=None, tokens=10)
    assert permit is not None
    shown = await run(gateway, tmp_path)
    assert shown.output.splitlines()[1].split() == ["acme/a", "acme/*", "1", "of", "50", "-", "1", "of", "2", "0"]
    gateway._limits.settle(permit, 10)
    found = json.loads((await run(gateway, tmp_path, "--json")).output)
    assert (found["waiting"], found["left_out"]) == (0, 0)
    assert [(view["scope"], view["requests_used"], view["in_flight"]) for view in found["limits"]] == [("acme/a", 1, 0)]


async def test_changed_settings_are_taken_and_counts_stay(gateway: Running, tmp_path: Path) -> None:
    assert gateway._limits.try_acquire(scope="acme/a", tag=None, tokens=10) is not None
    (tmp_path / "nightkeep.toml").write_text(ACME.replace("concurrent = 2", "concurrent = 1"))
    assert await gateway.reload()
    assert gateway._limits.try_acquire(scope="acme/a", tag=None, tokens=10) is None
    (tmp_path / "nightkeep.toml").write_text("")
    await gateway.reload()
    gone = await run(gateway, tmp_path)
    assert (gone.exit_code, gone.output) == (4, "no limits: add [[limits]] to nightkeep.toml\n")


async def test_a_key_does_not_see_what_other_tenants_use(gateway: Running, tmp_path: Path) -> None:
    (tmp_path / "nightkeep.toml").write_text(ACME + KEY)
    await gateway.reload()
    token = (tmp_path / "operator.token").read_text().strip()
    assert (await ask(gateway, "GET", "/api/limits", bearer("nk-an-agents-own-key"))).status in (401, 403)
    assert (await ask(gateway, "GET", "/api/limits")).status in (401, 403)
    assert (await ask(gateway, "GET", "/api/limits", bearer(token))).status == 200
