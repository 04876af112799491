"""``kill -9`` of a gateway that spends, at random moments: after reconciling, the ledger is the provider's bill."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from nightkeep.models.transport import HttpClient, Origin, TransportError
from nightkeep.testing.sim import RunningSim, load_scenario, start_sim

ROUNDS = 4
CONFIG = """
[providers.lab]
wire = "openai_chat"
base_url = "{sim}/v1"
[accounts.good]
provider = "lab"
key = "env:GOOD"
[prices."lab/gpt-4.1"]
input = 2.00
output = 8.00
"""
SCENARIO = """
delivery = { chunk_delay_ms = 15, chunk_chars = 6 }
accounts.good = { key = "sk-good" }
prices = { "gpt-4.1" = { input = 2.00, output = 8.00 } }
turns = [{ reply = { text = "The quick brown fox jumps over the lazy dog, again and again and again." } }]
"""


class Gateway:
    """A gateway process on one data directory, and commands beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.client = HttpClient()

    async def _spawn(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "nightkeep", *arguments),
            cwd=self.directory,
            env={"PATH": os.environ["PATH"], "GOOD": "sk-good", "HOME": str(self.directory)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def start(self) -> None:
        arguments = ("up", "--json", "--port", "0", "--config", "nightkeep.toml", "--data", "data")
        self.process = await self._spawn(*arguments)
        assert self.process.stdout is not None
        facts = json.loads(await asyncio.wait_for(self.process.stdout.readline(), 20))
        self.origin = Origin("http", "127.0.0.1", int(facts["address"].rsplit(":", 1)[1]))

    async def end(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        await asyncio.wait_for(self.process.wait(), 20)

    async def command(self, *arguments: str) -> Any:
        process = await self._spawn(*arguments, "--data", "data", "--json")
        out, _ = await asyncio.wait_for(process.communicate(), 30)
        return json.loads(out)

    async def ask(self, number: int, *, stream: bool) -> None:
        message = {"model": "lab/gpt-4.1", "stream": stream, "messages": [{"role": "user", "content": f"hi {number}"}]}
        head = f"host: 127.0.0.1\r\ncontent-type: application/json\r\nx-nightkeep-scope: acme/a{number % 3}\r\n"
        answer = await self.client.send(
            self.origin, "POST", "/v1/chat/completions", head.encode(), json.dumps(message).encode(), first_byte_s=10
        )
        await answer.read(10, 1 << 20)
        assert answer.status == 200

    def ledger(self) -> int:
        with sqlite3.connect(f"file:{self.directory}/data/nightkeep.db?mode=ro", uri=True) as database:
            return int(database.execute("SELECT coalesce(sum(cost_micro_usd), 0) FROM ledger").fetchone()[0])


async def load(gateway: Gateway, chance: random.Random) -> None:
    """Sixteen clients, until the gateway is killed at a moment of its own."""

    async def client(number: int) -> None:
        while True:
            try:
                await gateway.ask(number, stream=bool(number % 2))
            except TransportError:
                return

    clients = [asyncio.ensure_future(client(number)) for number in range(16)]
    await asyncio.sleep(0.15 + chance.random() * 0.5)
    await gateway.end(signal.SIGKILL)
    await asyncio.gather(*clients)


async def settled(sim: RunningSim) -> int:
    """The bill, once the provider has noticed that its clients are gone."""
    async with asyncio.timeout(10):
        while sim.book.open_streams:  # noqa: ASYNC110 - it is another's server: no event
            await asyncio.sleep(0.01)
    return sum(line["micro_usd"] for line in sim.book.billed_requests())


@pytest.fixture
async def sim(tmp_path: Path) -> AsyncIterator[RunningSim]:
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    sim = await start_sim(load_scenario(tmp_path / "scenario.toml"))
    yield sim
    await sim.close()


@pytest.fixture
async def gateway(tmp_path: Path, sim: RunningSim) -> AsyncIterator[Gateway]:
    (tmp_path / "nightkeep.toml").write_text(CONFIG.format(sim=sim.base_url))
    gateway = Gateway(tmp_path)
    yield gateway
    gateway.client.close()
    if gateway.process.returncode is None:
        await gateway.end(signal.SIGKILL)


@pytest.mark.alone
@pytest.mark.timeout(120)
async def test_after_kills_the_ledger_is_reconciled_to_the_micro_dollar(sim: RunningSim, gateway: Gateway) -> None:
    chance = random.Random(23)
    report = ("spend", "reconcile", "--provider", "lab", "--url", f"{sim.base_url}/sim/usage/requests", "--grace", "0")
    lost = 0
    for _ in range(ROUNDS):
        await gateway.start()
        await load(gateway, chance)
        billed = await settled(sim)
        done = await gateway.command(*report)
        assert done["is_settled"], done["differences"]
        assert done["after_micro_usd"] == billed == gateway.ledger()
        lost += sum(difference["kind"] == "lost" for difference in done["differences"])
        assert (await gateway.command(*report))["adjustments"] == []
    assert lost  # else nothing was put to the test
    checked = await gateway.command("ledger", "check", "--config", "nightkeep.toml")
    assert checked["violations"] == []
    spent = await gateway.command("spend", "--by", "scope")
    assert spent["total"]["cost_micro_usd"] == gateway.ledger()
    assert sum(group["spend"]["cost_micro_usd"] for group in spent["groups"]) == gateway.ledger()
