"""``kill -9`` of a gateway under load, again and again: what the provider bills never passes the budget, and after
reconciling the ledger and the budget say what the provider says, to the micro-dollar."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from nightkeep.models.transport import HttpClient, Origin, TransportError
from nightkeep.testing.sim import load_scenario, start_sim

KILLS = int(os.environ.get("NIGHTKEEP_TEST_KILLS", "20"))
CAP = 3_000_000
CONFIG = """
[providers.lab]
wire = "openai_chat"
base_url = "{sim}/v1"
[accounts.lab-1]
provider = "lab"
key = "env:K"
[models.m]
targets = ["lab/m"]
[prices."lab/m"]
input = 90.0
output = 15.0
[[budgets]]
scope = "/"
usd = 3.00
per = "once"
[[budgets]]
scope = "acme/*"
usd = 2.00
per = "day"
[gateway.queue]
max_wait_s = 2
"""
SCENARIO = """
delivery = { first_byte_ms = 3, chunk_delay_ms = 2 }
[prices."*"]
input = 90.0
output = 15.0
[[turns]]
reply = { text = "The quick brown fox jumps over the lazy dog.", usage = { output = 120 } }
"""


class Gateway:
    """A gateway of some processes on one data directory."""

    def __init__(self, directory: Path, workers: int) -> None:
        self.directory = directory
        self.workers = workers
        self.client = HttpClient()

    async def start(self) -> None:
        more = ("--workers", str(self.workers)) if self.workers > 1 else ()
        with (self.directory / "gateway.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "nightkeep", "up", "--json", "--port", "0"),
                *("--config", "nightkeep.toml", "--data", "data", *more),
                cwd=self.directory,
                env={"PATH": os.environ["PATH"], "K": "sk-1"},
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        facts = json.loads(await asyncio.wait_for(self.process.stdout.readline(), 30))
        self.origin = Origin("http", "127.0.0.1", int(facts["address"].rsplit(":", 1)[1]))

    async def ask(self, text: str, scope: str, *, stream: bool, most: int = 120) -> int:
        body = {"model": "m", "stream": stream, "max_tokens": most, "messages": [{"role": "user", "content": text}]}
        lines = f"host: 127.0.0.1\r\ncontent-type: application/json\r\nx-nightkeep-scope: {scope}\r\n"
        answer = await self.client.send(
            self.origin, "POST", "/v1/chat/completions", lines.encode(), json.dumps(body).encode(), first_byte_s=10
        )
        await answer.read(10, 1 << 20)
        return answer.status

    async def api(self, method: str, target: str, body: Any = None) -> Any:
        token = (self.directory / "data" / "operator.token").read_text().strip()
        lines = f"host: 127.0.0.1\r\ncontent-type: application/json\r\nauthorization: Bearer {token}\r\n"
        data = b"" if body is None else json.dumps(body).encode()
        for _ in range(50):
            try:
                answer = await self.client.send(self.origin, method, target, lines.encode(), data, first_byte_s=2)
                return json.loads(await answer.read(10, 1 << 24))
            except TransportError:  # whoever was asked has just been killed
                await asyncio.sleep(0.02)
        raise AssertionError("nobody answers")

    async def victim(self) -> int:
        """A process that serves: the only one, or one of the workers."""
        if self.workers == 1:
            return self.process.pid
        workers = (await self.api("GET", "/api/workers"))["workers"]
        return int(random.choice(workers)["pid"])

    async def kill(self) -> None:
        """Kill one process in the middle of its work, and go on."""
        with contextlib.suppress(ProcessLookupError):  # it is dead already, and about to be started again
            os.kill(await self.victim(), signal.SIGKILL)
        if self.workers == 1:
            await self.process.wait()
            await self.start()

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
        await asyncio.wait_for(self.process.wait(), 30)

    async def run(self, *arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "nightkeep", *arguments),
            cwd=self.directory,
            env={"PATH": os.environ["PATH"]},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode or 0, output.decode()


async def billed(client: HttpClient, url: str) -> int:
    origin = Origin("http", "127.0.0.1", int(url.rsplit(":", 1)[1]))
    answer = await client.send(origin, "GET", "/sim/stats", b"host: 127.0.0.1\r\n", b"", first_byte_s=10)
    return int(Decimal(json.loads(await answer.read(10, 1 << 24))["usd"]) * 1_000_000)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [1, 4])
async def test_kill_9_again_and_again_never_passes_the_budget(tmp_path: Path, workers: int) -> None:
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    sim = await start_sim(load_scenario(tmp_path / "scenario.toml"))
    (tmp_path / "nightkeep.toml").write_text(CONFIG.format(sim=sim.base_url))
    gateway = Gateway(tmp_path, workers)
    await gateway.start()
    statuses: set[int] = set()
    is_over = asyncio.Event()

    async def load(n: int) -> None:
        while not is_over.is_set():
            try:
                status = await gateway.ask(f"{n}", f"acme/agent{n % 2}", stream=bool(n % 3))
                statuses.add(status)
                await asyncio.sleep(0 if status == 200 else 0.02)
            except (TransportError, KeyError):
                await asyncio.sleep(0.02)  # its process was killed: the client asks again

    clients = [asyncio.ensure_future(load(n)) for n in range(16)]
    chance = random.Random(7)
    try:
        for n in range(KILLS):
            await asyncio.sleep(0.05 + chance.random() * 0.2)
            await gateway.kill()
            assert await billed(gateway.client, sim.base_url) <= CAP
            if n % 16 == 15:  # a slot that dies ten times in a minute is left alone, rightly
                await gateway.end()
                await gateway.start()
            if n % 5 == 4:
                await reconcile(gateway, sim.base_url, grace="1")
        is_over.set()
        await asyncio.gather(*clients)
        assert 200 in statuses
        assert statuses <= {200, 402, 502, 503}
        await compare(gateway, sim.base_url)
    finally:
        is_over.set()
        await asyncio.gather(*clients, return_exceptions=True)
        await gateway.end()
        gateway.client.close()
        await sim.close()


RACE = """
delivery = { first_byte_ms = 5 }
[prices."*"]
input = 3.0
output = 15.0
[[turns]]
reply = { text = "Done.", usage = { input = 10_000, output = 2_000 } }
"""


@pytest.mark.timeout(120)
async def test_two_hundred_calls_of_six_cents_over_four_processes_use_a_dollar_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "scenario.toml").write_text(RACE)
    sim = await start_sim(load_scenario(tmp_path / "scenario.toml"))
    config = CONFIG.replace("input = 90.0", "input = 3.0").replace("usd = 3.00", "usd = 1.00").format(sim=sim.base_url)
    (tmp_path / "nightkeep.toml").write_text(config)
    gateway = Gateway(tmp_path, 4)
    await gateway.start()
    try:
        asked = (gateway.ask(f"{n}", f"acme/agent{n % 2}", stream=bool(n % 2), most=2_000) for n in range(200))
        statuses = await asyncio.gather(*asked)
        total = await billed(gateway.client, sim.base_url)
    finally:
        await gateway.end()
        gateway.client.close()
        await sim.close()
    assert set(statuses) == {200, 402}
    assert 940_000 <= total <= 1_000_000


async def compare(gateway: Gateway, sim: str) -> None:
    """After reconciling, ledger and budgets say what the provider says."""
    await gateway.end()  # in order: what is under way is settled, what is free goes back
    await gateway.start()
    await asyncio.sleep(0.1)
    await reconcile(gateway, sim)
    total = await billed(gateway.client, sim)
    assert total <= CAP
    views = (await gateway.api("GET", "/api/budgets"))["budgets"]
    everything = next(view for view in views if view["scope"] == "/")
    agents = [view for view in views if view["scope"].startswith("acme/")]
    assert (everything["spent"], everything["lost"]) == (total, 0)
    assert all(view["spent"] <= view["limit"] and view["lost"] == 0 for view in agents)
    code, output = await gateway.run("ledger", "check", "--data", "data", "--json")
    assert code == 0, output
    code, output = await gateway.run("spend", "--data", "data", "--json")
    assert code == 0, output
    assert json.loads(output)["total"]["cost_micro_usd"] == total


async def reconcile(gateway: Gateway, sim: str, grace: str = "0") -> None:
    arguments = (
        "--provider",
        "lab",
        "--url",
        f"{sim}/sim/usage/requests",
        "--data",
        "data",
        "--grace",
        grace,
        "--json",
    )
    address = f"http://127.0.0.1:{gateway.origin.port}"
    code, output = await gateway.run("spend", "reconcile", *arguments, "--gateway", address)
    assert code in (0, 1), output  # 1: calls were under way meanwhile
