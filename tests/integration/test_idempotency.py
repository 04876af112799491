"""Idempotency keys and the cache against a running gateway: paid once, whatever the clients do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nightkeep.bootstrap import Running, start
from nightkeep.config import load
from nightkeep.models.transport import HttpClient, Origin, Upstream
from nightkeep.testing.sim import RunningSim, load_scenario, start_sim

SLOW = """
delivery = { chunk_delay_ms = 20, chunk_chars = 8 }
turns = [
  { match = { contains = "fail first" }, times = 1, reply = { text = "never seen" } },
  { reply = { text = "The quick brown fox jumps over the lazy dog, again and again." } },
]
faults = [{ fault = "bad_request", match = { contains = "fail first" }, first = 1 }]
"""


class World:
    """A simulated provider, a gateway over it, and a client."""

    def __init__(self, sim: RunningSim, gateway: Running, config: Path, data: Path) -> None:
        self.sim = sim
        self.gateway = gateway
        self.config = config
        self.data = data
        self.client = HttpClient()

    async def ask(self, text: str = "hi", *, stream: bool = False, **headers: str) -> Upstream:
        origin = Origin("http", "127.0.0.1", int(self.gateway.address.rsplit(":", 1)[1]))
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"host: 127.0.0.1\r\ncontent-type: application/json\r\n{lines}".encode()
        messages = [{"role": "user", "content": text}]
        body = json.dumps({"model": "m", "stream": stream, "messages": messages}).encode()
        return await self.client.send(origin, "POST", "/v1/chat/completions", head, body, first_byte_s=10)

    async def restart(self) -> None:
        await self.gateway.close(0)
        self.gateway = await start(load(self.config, {"K": "sk-1"}), {"K": "sk-1"}, self.data, {"port": 0})


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(SLOW)
    sim = await start_sim(load_scenario(scenario))
    config = tmp_path / "nightkeep.toml"
    config.write_text(
        f"""
        [providers.lab]
        wire = "openai_chat"
        base_url = "{sim.base_url}/v1"
        free = true
        [accounts.lab-1]
        provider = "lab"
        key = "env:K"
        [models.m]
        targets = ["lab/m"]
        [cache]
        enabled = true
        """
    )
    data = tmp_path / "data"
    data.mkdir()
    gateway = await start(load(config, {"K": "sk-1"}), {"K": "sk-1"}, data, {"port": 0})
    made = World(sim, gateway, config, data)
    try:
        yield made
    finally:
        made.client.close()
        await made.gateway.close(0)
        await sim.close()


async def body(answer: Upstream) -> bytes:
    return await answer.read(10, 1 << 20)


async def test_the_same_request_again_is_replayed_and_not_paid_again(world: World) -> None:
    first = await body(await world.ask(idempotency_key="k1"))
    again = await world.ask(idempotency_key="k1")
    assert await body(again) == first
    assert again.headers["idempotent-replayed"] == "true"
    assert len(world.sim.log) == 1


async def test_concurrent_twins_share_one_upstream_request(world: World) -> None:
    answers = await asyncio.gather(*(world.ask(stream=True, idempotency_key="twin") for _ in range(8)))
    bodies = await asyncio.gather(*(body(answer) for answer in answers))
    assert len(set(bodies)) == 1
    assert b"[DONE]" in bodies[0]
    assert len(world.sim.log) == 1


async def test_another_body_under_the_same_key_is_refused(world: World) -> None:
    await body(await world.ask("one", idempotency_key="k2"))
    other = await world.ask("two", idempotency_key="k2")
    assert other.status == 409
    assert json.loads(await body(other))["error"]["code"] == "idempotency_key_reused"
    assert len(world.sim.log) == 1


async def test_a_client_that_lost_its_stream_joins_it_where_it_was(world: World) -> None:
    first = await world.ask(stream=True, idempotency_key="k3")
    got = await first.next_chunk(10)
    first.close()  # the connection is lost; the answer goes on
    again = await world.ask(stream=True, idempotency_key="k3", x_nightkeep_resume_from=str(len(got)))
    rest = await body(again)
    whole = await body(await world.ask(stream=True, idempotency_key="k3"))
    assert got + rest == whole
    assert b"[DONE]" in whole
    assert len(world.sim.log) == 1


async def test_a_failure_is_not_kept(world: World) -> None:
    first = await world.ask("fail first", idempotency_key="k4")
    assert first.status == 400
    await body(first)
    again = await world.ask("fail first", idempotency_key="k4")
    assert again.status == 200
    await body(again)


async def test_answers_outlive_a_restart(world: World) -> None:
    first = await body(await world.ask(stream=True, idempotency_key="k5"))
    await world.restart()
    again = await world.ask(stream=True, idempotency_key="k5")
    assert await body(again) == first
    assert again.headers["idempotent-replayed"] == "true"
    assert len(world.sim.log) == 1


async def test_keys_of_different_scopes_have_nothing_to_do_with_each_other(world: World) -> None:
    await body(await world.ask("one", idempotency_key="k6", x_nightkeep_scope="acme"))
    other = await world.ask("two", idempotency_key="k6", x_nightkeep_scope="evil")
    assert other.status == 200
    await body(other)
    assert len(world.sim.log) == 2


@pytest.mark.parametrize("key", ["x" * 256, ""])
async def test_a_malformed_key_is_a_clear_refusal(world: World, key: str) -> None:
    answer = await world.ask(idempotency_key=key)
    assert answer.status == 400
    assert "Idempotency-Key" in json.loads(await body(answer))["error"]["message"]


async def test_the_cache_serves_only_requests_that_allow_it_and_never_another_scope(world: World) -> None:
    async def ask(**headers: str) -> str:
        answer = await world.ask(**headers)
        await body(answer)
        return answer.headers.get("x-nightkeep-cache", "none")

    assert await ask() == "none"
    assert await ask(x_nightkeep_cache="use") == "miss"
    assert await ask(x_nightkeep_cache="use") == "hit"
    assert await ask(x_nightkeep_cache="refresh") == "miss"
    assert await ask(x_nightkeep_cache="use", x_nightkeep_scope="other") == "miss"
    assert await ask() == "none"
    assert len(world.sim.log) == 5


async def test_a_cached_answer_names_its_own_call_and_costs_nothing(world: World) -> None:
    first = await world.ask(x_nightkeep_cache="use", stream=True)
    whole = await body(first)
    again = await world.ask(x_nightkeep_cache="use", stream=True)
    assert await body(again) == whole
    assert again.headers["x-nightkeep-call"] != first.headers["x-nightkeep-call"]
    assert "x-nightkeep-cost-usd" not in again.headers
    assert again.headers["age"] == "0"


async def test_a_client_that_hangs_up_without_a_key_stops_the_upstream_request(world: World) -> None:
    answer = await world.ask(stream=True)
    await answer.next_chunk(10)
    answer.close()
    async with asyncio.timeout(5):
        while not world.sim.book.stats()["gone_clients"]:  # noqa: ASYNC110 - it is another's server: no event
            await asyncio.sleep(0.01)
