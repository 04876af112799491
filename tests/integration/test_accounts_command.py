"""``nightkeep accounts test`` against the simulated provider: what is wrong with each account, and never its key."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nightkeep.cli.accounts import command
from nightkeep.testing.sim import Account, Model, RunningSim, Scenario, start_sim

GOOD = "sk-proj-" + "g" * 60
TYPO = GOOD[:30] + "x" + GOOD[31:]
SCENARIO = Scenario(
    accounts={
        "good": Account(key=GOOD),
        "closed": Account(key="sk-proj-" + "s" * 60, state="suspended"),
        "broke": Account(key="sk-proj-" + "n" * 60, state="no_credit"),
    },
    models={"big-model": Model()},
)


async def run(tmp_path: Path, base_url: str, accounts: dict[str, str], *arguments: str, models: str = "") -> Result:
    config = tmp_path / "nightkeep.toml"
    lines = [
        f'[accounts.{name}]\nprovider = "openai"\nkey = "env:{name.upper()}"\nbase_url = "{base_url}/v1"'
        for name in accounts
    ]
    config.write_text("\n".join([*lines, models]))
    environ = {name.upper(): key for name, key in accounts.items() if key}
    every = ["test", "--config", str(config), *arguments]
    return await asyncio.to_thread(CliRunner(env=environ).invoke, command, every)


@pytest.fixture
async def sim() -> Any:
    running: RunningSim = await start_sim(SCENARIO)
    yield running
    await running.close()


async def test_each_account_is_told_what_is_wrong_with_it(sim: RunningSim, tmp_path: Path) -> None:
    accounts = {
        "good": GOOD,
        "typo": TYPO,
        "others": "sk-ant-" + "a" * 100,
        "missing": "",
        "closed": "sk-proj-" + "s" * 60,
        "broke": "sk-proj-" + "n" * 60,
    }
    result = await run(tmp_path, sim.base_url, accounts, "--json", "--deep", "--model", "big-model")
    assert result.exit_code == 1
    found = {each["account"]: each for each in json.loads(result.stdout)}
    assert {name: each["finding"] for name, each in found.items()} == {
        "good": "ok",
        "typo": "auth_failed",
        "others": "auth_failed",
        "missing": "unusable",
        "closed": "suspended",
        "broke": "quota_exhausted",
    }
    assert "looks like one of Anthropic" in found["others"]["message"]
    assert "MISSING is not set" in found["missing"]["message"]
    assert all(key not in result.output for key in accounts.values() if key)


async def test_a_model_that_the_account_does_not_offer_is_named(sim: RunningSim, tmp_path: Path) -> None:
    models = '[models.smart]\ntargets = ["openai/big-model", "openai/absent"]'
    result = await run(tmp_path, sim.base_url, {"good": GOOD}, "--json", models=models)
    assert json.loads(result.stdout)[0]["missing_models"] == ["absent"]
    assert result.exit_code == 1


async def test_an_address_where_nobody_listens_is_told(tmp_path: Path) -> None:
    running = await start_sim(SCENARIO)
    await running.close()
    result = await run(tmp_path, running.base_url, {"good": GOOD})
    assert result.exit_code == 1
    assert "cannot be reached" in result.output
    assert "\x1b[" not in result.output


async def test_all_well_is_exit_code_0_and_an_unknown_name_4(sim: RunningSim, tmp_path: Path) -> None:
    assert (await run(tmp_path, sim.base_url, {"good": GOOD})).exit_code == 0
    assert (await run(tmp_path, sim.base_url, {"good": GOOD}, "nobody")).exit_code == 4


def test_without_a_gateway_the_list_says_how_to_start_it() -> None:
    result = CliRunner().invoke(command, ["list", "--url", "http://127.0.0.1:1"])
    assert result.exit_code == 1
    assert "nightkeep up" in result.output
