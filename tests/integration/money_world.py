"""A simulated provider that bills, a gateway with budgets over it, and a client: what the tests of money share."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from nightkeep.bootstrap import Running, start
from nightkeep.config import load
from nightkeep.models.transport import HttpClient, Origin, Upstream
from nightkeep.testing.sim import RunningSim, load_scenario, start_sim

SIX_CENTS = """
delivery = { first_byte_ms = 5 }
[prices."*"]
input = 3.0
output = 15.0
[[turns]]
reply = { text = "Done.", usage = { input = 10_000, output = 2_000 } }
"""
"""Each call is billed $0.03 for input and $0.03 for output, whatever its size."""

GATEWAY = """
[providers.lab]
wire = "openai_chat"
base_url = "{sim}/v1"
[accounts.lab-1]
provider = "lab"
key = "env:K"
[models.m]
targets = ["lab/m"]
[prices."lab/m"]
input = 3.0
output = 15.0
"""


class World:
    """The gateway and what is around it."""

    def __init__(self, sim: RunningSim, gateway: Running, config: Path, data: Path) -> None:
        self.sim = sim
        self.gateway = gateway
        self.config = config
        self.data = data
        self.client = HttpClient()

    async def ask(
        self, text: str = "hi", *, stream: bool = False, fields: dict[str, Any] | None = None, **headers: str
    ) -> Upstream:
        body = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": text}], **(fields or {})}
        return await self.send("POST", "/v1/chat/completions", body, **headers)

    async def send(self, method: str, target: str, body: Any = None, **headers: str) -> Upstream:
        token = {"authorization": f"Bearer {self.token}"} if target.startswith("/api") else {}
        origin = Origin("http", "127.0.0.1", int(self.gateway.address.rsplit(":", 1)[1]))
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in {**token, **headers}.items())
        head = f"host: 127.0.0.1\r\ncontent-type: application/json\r\n{lines}".encode()
        data = b"" if body is None else json.dumps(body).encode()
        return await self.client.send(origin, method, target, head, data, first_byte_s=30)

    @property
    def token(self) -> str:
        return (self.data / "operator.token").read_text().strip()

    async def api(self, target: str, body: Any = None, method: str | None = None) -> Any:
        answer = await self.send(method or ("GET" if body is None else "POST"), target, body)
        data = json.loads(await answer.read(10, 1 << 24))
        assert answer.status == 200, data
        return data

    async def billed(self) -> int:
        """What the provider has billed, in micro-dollars."""
        answer = await self.client.send(
            Origin("http", "127.0.0.1", int(self.sim.base_url.rsplit(":", 1)[1])),
            "GET",
            "/sim/stats",
            b"host: 127.0.0.1\r\n",
            b"",
            first_byte_s=10,
        )
        return int(Decimal(json.loads(await answer.read(10, 1 << 24))["usd"]) * 1_000_000)

    async def restart(self) -> None:
        await self.gateway.close(0)
        self.gateway = await start(load(self.config, {"K": "sk-1"}), {"K": "sk-1"}, self.data, {"port": 0})


@asynccontextmanager
async def money_world(
    tmp_path: Path, budgets: str, scenario: str = SIX_CENTS, gateway: str = GATEWAY
) -> AsyncIterator[World]:
    path = tmp_path / "scenario.toml"
    path.write_text(scenario)
    sim = await start_sim(load_scenario(path))
    config = tmp_path / "nightkeep.toml"
    config.write_text(gateway.replace("{sim}", sim.base_url) + budgets)
    data = tmp_path / "data"
    data.mkdir()
    running = await start(load(config, {"K": "sk-1"}), {"K": "sk-1"}, data, {"port": 0})
    world = World(sim, running, config, data)
    try:
        yield world
    finally:
        world.client.close()
        await world.gateway.close(0)
        await sim.close()


async def read(answer: Upstream) -> bytes:
    """A whole answer; what came of it where it was cut."""
    return await answer.read(20, 1 << 24)
