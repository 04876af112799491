"""A gateway, a provider that bills, and the ledger between them: to the micro-dollar, whatever goes wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nightkeep.bootstrap import Running, start
from nightkeep.cli.ledger import command as ledger_command
from nightkeep.cli.spend import command as spend_command
from nightkeep.config import load
from nightkeep.models.transport import HttpClient, Origin, Upstream
from nightkeep.store.sqlite import open_snapshot
from nightkeep.testing.sim import RunningSim, load_scenario, start_sim

SCENARIO = """
prices = { "big" = { input = 5.00, output = 25.00, cached = 0.50 } }
accounts.one = { key = "sk-1" }
accounts.two = { key = "sk-2" }
turns = [
  { match = { contains = "cached" }, reply = { text = "yes", usage = { input = 1000, cached = 800, output = 33 } } },
  { reply = { text = "The quick brown fox jumps over the lazy dog.", usage = { input = 101, output = 37 } } },
]
faults = [
  { fault = "cut_after_chunks:2", match = { contains = "cut" } },
  { fault = "wrong_usage", match = { contains = "wrong" } },
]
"""
KEYS = {"K1": "sk-1", "K2": "sk-2"}


class World:
    """The provider, the gateway, and a client."""

    def __init__(self, sim: RunningSim, gateway: Running, config: Path, data: Path) -> None:
        self.sim = sim
        self.gateway = gateway
        self.config = config
        self.data = data
        self.client = HttpClient()

    async def ask(self, text: str, *, stream: bool = False, **headers: str) -> Upstream:
        origin = Origin("http", "127.0.0.1", int(self.gateway.address.rsplit(":", 1)[1]))
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"host: 127.0.0.1\r\ncontent-type: application/json\r\n{lines}".encode()
        body = json.dumps({"model": "lab/big", "stream": stream, "messages": [{"role": "user", "content": text}]})
        return await self.client.send(origin, "POST", "/v1/chat/completions", head, body.encode(), first_byte_s=10)

    async def whole(self, text: str, **more: Any) -> int:
        answer = await self.ask(text, **more)
        await answer.read(10, 1 << 20)
        return answer.status

    async def get(self, path: str, **headers: str) -> Any:
        origin = Origin("http", "127.0.0.1", int(self.gateway.address.rsplit(":", 1)[1]))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"host: 127.0.0.1\r\n{lines}".encode()
        answer = await self.client.send(origin, "GET", path, head, b"", first_byte_s=10)
        return json.loads(await answer.read(10, 1 << 20))

    @property
    def report(self) -> str:
        return f"{self.sim.base_url}/sim/usage/requests"

    @property
    def billed(self) -> int:
        return sum(line["micro_usd"] for line in self.sim.book.billed_requests())

    async def run(self, command: Any, *arguments: str) -> Result:
        """A command beside the gateway, as another process would run it."""
        line = [*arguments, "--data", str(self.data)]
        return await asyncio.to_thread(CliRunner().invoke, command, line)

    async def stop(self) -> None:
        await self.gateway.close(0)

    async def total(self) -> int:
        snapshot = open_snapshot(self.data)
        assert snapshot is not None
        try:
            return int(snapshot.read("SELECT coalesce(sum(cost_micro_usd), 0) FROM ledger")[0][0] or 0)
        finally:
            snapshot.close()

    async def written(self, calls: int) -> None:
        snapshot = open_snapshot(self.data)
        assert snapshot is not None
        sql = "SELECT count(*) FROM calls WHERE outcome <> 'running'"
        try:
            while snapshot.read(sql) != [(calls,)]:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)
        finally:
            snapshot.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(SCENARIO)
    sim = await start_sim(load_scenario(scenario))
    config = tmp_path / "nightkeep.toml"
    config.write_text(
        f"""
        [providers.lab]
        wire = "openai_chat"
        base_url = "{sim.base_url}/v1"
        [accounts.lab-1]
        provider = "lab"
        key = "env:K1"
        [accounts.lab-2]
        provider = "lab"
        key = "env:K2"
        [prices."lab/big"]
        input = 5.00
        output = 25.00
        cached_input = 0.50
        """
    )
    data = tmp_path / "data"
    data.mkdir()
    gateway = await start(load(config, KEYS), KEYS, data, {"port": 0})
    made = World(sim, gateway, config, data)
    try:
        yield made
    finally:
        made.client.close()
        await made.gateway.close(0)
        await sim.close()


async def test_what_went_well_needs_no_reconciling(world: World) -> None:
    for n in range(6):
        assert (
            await world.whole("cached" if n % 2 else "hi", stream=n % 3 == 0, x_nightkeep_scope=f"acme/a{n % 2}") == 200
        )
    await world.written(6)
    assert await world.total() == world.billed > 0
    said = json.loads((await world.run(spend_command, "--json")).stdout)
    assert said["total"]["cost_micro_usd"] == world.billed
    assert {group["name"] for group in said["groups"]} == {"acme/a0", "acme/a1"}
    assert said["total"]["cache_read_tokens"] == 2_400
    arguments = ("reconcile", "--provider", "lab", "--url", world.report, "--gateway", world.gateway.address)
    result = await world.run(spend_command, *arguments)
    assert result.exit_code == 0, result.output
    assert "the ledger says what the provider does, to the micro-dollar" in result.stdout
    nowhere = await world.run(spend_command, *arguments[:-2])
    assert nowhere.exit_code == 1
    assert "name its address with --gateway" in str(nowhere.exception)


async def test_every_way_to_go_wrong_ends_at_the_bill(world: World) -> None:
    for text in ("hi", "cut here", "wrong numbers", "cached", "cut again"):
        await world.whole(text, stream=True)
    await world.whole("wrong whole")
    await world.written(6)
    gone = await world.ask("hi", stream=True)
    gone.close()
    await world.written(7)
    await world.stop()
    arguments = ("reconcile", "--provider", "lab", "--url", world.report, "--grace", "0")
    dry = await world.run(spend_command, *arguments, "--dry-run", "--json")
    before = await world.total()
    assert before != world.billed
    assert json.loads(dry.stdout)["after_micro_usd"] == world.billed
    result = await world.run(spend_command, *arguments)
    assert result.exit_code == 0, result.output
    assert await world.total() == world.billed
    again = await world.run(spend_command, *arguments, "--json")
    assert json.loads(again.stdout)["adjustments"] == []
    checked = await world.run(ledger_command, "check", "--json", "--config", str(world.config))
    assert json.loads(checked.stdout)["violations"] == []
    said = json.loads((await world.run(spend_command, "--json")).stdout)
    assert said["total"]["estimates"] == 0
    assert said["total"]["cost_micro_usd"] == world.billed


async def test_a_running_gateway_books_itself_for_its_operator_only(world: World) -> None:
    await world.whole("cut here", stream=True)
    await world.written(1)
    arguments = ("reconcile", "--provider", "lab", "--url", world.report, "--gateway", world.gateway.address)
    result = await world.run(spend_command, *arguments, "--grace", "0")
    assert result.exit_code == 0, result.output
    assert await world.total() == world.billed
    body = json.dumps({"providers": ["lab"], "lines": [], "until_ms": 0}).encode()
    origin = Origin("http", "127.0.0.1", int(world.gateway.address.rsplit(":", 1)[1]))
    head = b"host: 127.0.0.1\r\ncontent-type: application/json\r\n"
    refused = await world.client.send(origin, "POST", "/api/spend/reconcile", head, body, first_byte_s=10)
    assert refused.status == 401
    await refused.read(10, 1 << 20)


async def test_a_bill_as_csv_settles_as_well(world: World) -> None:
    await world.whole("cut here", stream=True)
    await world.written(1)
    await world.stop()
    (world.data / "bill.csv").write_text(world.sim.book.billed_csv())
    arguments = ("reconcile", "--provider", "lab", "--csv", str(world.data / "bill.csv"), "--grace", "0")
    mapped = ("--column", "request_id=client_request_id", "--column", "at=at_s", "--column", "line=number")
    result = await world.run(spend_command, *arguments, *mapped)
    assert result.exit_code == 0, result.output
    assert await world.total() == world.billed
    assert (await world.run(spend_command, *arguments, "--column", "usd")).exit_code == 2


async def test_a_key_sees_its_own_scope_and_no_other(world: World) -> None:
    await world.whole("hi", x_nightkeep_scope="acme/a")
    await world.whole("hi", x_nightkeep_scope="globex")
    await world.written(2)
    token = (world.data / "operator.token").read_text().strip()
    origin = Origin("http", "127.0.0.1", int(world.gateway.address.rsplit(":", 1)[1]))
    head = f"host: 127.0.0.1\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n".encode()
    wish = json.dumps({"name": "acme", "scope": "acme"}).encode()
    made = await world.client.send(origin, "POST", "/api/keys", head, wish, first_byte_s=10)
    key = json.loads(await made.read(10, 1 << 20))["key"]
    own = await world.get("/api/spend?by=scope", authorization=f"Bearer {key}")
    assert [group["name"] for group in own["groups"]] == ["acme/a"]
    for path in ("/api/spend?scope=globex", "/api/spend/ablation?scope=globex", "/api/spend?scope=acme2"):
        refused = await world.get(path, authorization=f"Bearer {key}")
        assert refused["error"]["code"] == "denied", path
    assert "error" in await world.get("/api/spend")  # there are keys now: nobody looks without one
    everything = await world.get("/api/spend?by=scope", authorization=f"Bearer {token}")
    assert len(everything["groups"]) == 2


async def test_the_api_and_the_directory_say_the_same(world: World) -> None:
    await world.whole("hi", x_nightkeep_scope="acme/a")
    await world.whole("cached", x_nightkeep_scope="globex")
    await world.written(2)
    api = await world.get("/api/spend?by=scope&depth=1")
    told = json.loads((await world.run(spend_command, "--depth", "1", "--json")).stdout)
    assert api["total"] == told["total"]
    assert api["groups"] == told["groups"]
    asked = await world.run(spend_command, "--url", world.gateway.address, "--json")
    assert json.loads(asked.stdout)["total"] == told["total"]
    assert (await world.get("/api/spend?since=yesterday-ish"))["error"]["code"] == "invalid_request"
    assert (await world.get("/api/spend?scope=../etc"))["error"]["code"] == "invalid_request"
    ablation = await world.get("/api/spend/ablation")
    assert {layer["name"] for layer in ablation["layers"]} == {
        "provider_cache", "exact_cache", "idempotency", "routing"
    }  # fmt: skip
