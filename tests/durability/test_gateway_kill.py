"""``kill -9`` of a gateway under load, at random moments: it starts again, its accounts stand as they stood, and what
clients were told is in the record."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from nightkeep.models.transport import HttpClient, Origin, TransportError
from nightkeep.testing.sim import load_scenario, start_sim

ROUNDS = 5
FLUSH_S = 1.0  # far over the 25 ms after which a finished call is on its way to the disk
CONFIG = """
[providers.lab]
wire = "openai_chat"
base_url = "{sim}/v1"
free = true
[accounts.good]
provider = "lab"
key = "env:GOOD"
[accounts.closed]
provider = "lab"
pool = "second"
key = "env:CLOSED"
[models.m]
targets = ["lab/gpt-4.1"]
[[routes]]
match = {{ model_prefix = "closed" }}
model = "lab/gpt-4.1"
pool = "second"
"""
SCENARIO = """
delivery = { chunk_delay_ms = 5 }
accounts.good = { key = "sk-good" }
accounts.closed = { key = "sk-closed", state = "suspended" }
"""


class Gateway:
    """A gateway process on one data directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.client = HttpClient()

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "nightkeep", "up", "--json", "--port", "0"),
            *("--config", "nightkeep.toml", "--data", "data"),
            cwd=self.directory,
            env={"PATH": os.environ["PATH"], "GOOD": "sk-good", "CLOSED": "sk-closed"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert self.process.stdout is not None
        facts = json.loads(await asyncio.wait_for(self.process.stdout.readline(), 20))
        self.origin = Origin("http", "127.0.0.1", int(facts["address"].rsplit(":", 1)[1]))

    async def end(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        await asyncio.wait_for(self.process.wait(), 20)

    async def ask(self, model: str, *, stream: bool = False) -> tuple[int, str]:
        body = json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}).encode()
        head = b"host: 127.0.0.1\r\ncontent-type: application/json\r\n"
        answer = await self.client.send(self.origin, "POST", "/v1/chat/completions", head, body, first_byte_s=10)
        await answer.read(10, 1 << 20)
        return answer.status, answer.headers["x-nightkeep-call"]

    async def states(self) -> dict[str, Any]:
        answer = await self.client.send(
            self.origin, "GET", "/api/accounts", b"host: 127.0.0.1\r\n", b"", first_byte_s=10
        )
        accounts = json.loads(await answer.read(10, 1 << 20))["accounts"]
        return {account["id"]: account["status"] for account in accounts}


@pytest.mark.timeout(120)
async def test_kill_9_under_load_loses_no_state_and_no_record(tmp_path: Path) -> None:
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    sim = await start_sim(load_scenario(tmp_path / "scenario.toml"))
    (tmp_path / "nightkeep.toml").write_text(CONFIG.format(sim=sim.base_url))
    gateway = Gateway(tmp_path)
    chance = random.Random(11)
    told: dict[str, float] = {}
    loop = asyncio.get_running_loop()
    await gateway.start()
    assert (await gateway.ask("closed-model"))[0] in (429, 502)
    for _ in range(ROUNDS):
        is_over = asyncio.Event()

        async def load(is_over: asyncio.Event, stream: bool) -> None:
            while not is_over.is_set():
                try:
                    status, call = await gateway.ask("m", stream=stream)
                except TransportError:
                    return
                assert status == 200
                told[call] = loop.time()

        clients = [asyncio.ensure_future(load(is_over, stream)) for stream in (False, True) * 8]
        await asyncio.sleep(FLUSH_S + chance.random() * 0.3)
        killed_at = loop.time()
        await gateway.end(signal.SIGKILL)
        is_over.set()
        await asyncio.gather(*clients)
        for call in [call for call, at in told.items() if at >= killed_at - FLUSH_S]:
            del told[call]  # told too shortly before the end to be on the disk for certain
        await gateway.start()
        assert await gateway.states() == {"good": "available", "closed": "suspended"}
        with sqlite3.connect(f"file:{tmp_path}/data/nightkeep.db?mode=ro", uri=True) as database:
            kept = {row[0] for row in database.execute("SELECT id FROM calls")}
            running = database.execute("SELECT count(*) FROM calls WHERE outcome = 'running'").fetchone()[0]
        assert told.keys() <= kept
        assert told
        assert running == 0
    assert len(sim.log) > 0
    closed = [record for record in sim.log if record.status == 403]
    assert len(closed) <= 1  # the suspended account was asked once in its life
    await gateway.end(signal.SIGTERM)
    gateway.client.close()
    await sim.close()
