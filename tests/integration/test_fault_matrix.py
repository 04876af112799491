"""Every fault that the provider can have × whole/streamed × same/other wire: a whole answer, or a typed error; never a
silent cut, never a hang past the deadline, never more upstream requests than are allowed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from nightkeep.bootstrap import Running, start
from nightkeep.config import load
from nightkeep.models.transport import Fault, HttpClient, Origin, TransportError
from nightkeep.testing.sim import RunningSim, load_scenario, start_sim

FAULTS = {
    "rate_limited:30", "rate_limited_silent", "quota", "no_credit", "suspended", "unauthorized", "server_error",
    "overloaded", "unavailable", "gateway_timeout", "not_found", "bad_request", "context_too_long", "content_refused",
    "abort", "delay:0.05", "hang", "hang_after_preamble", "hang_after_chunks:1", "slow_drip:0.01",
    "cut_after_bytes:100", "cut_after_chunks:1", "cut_after_preamble", "byte_by_byte", "stream_error:1",
    "malformed_json", "malformed_sse", "html_502", "html_200", "empty", "duplicate_done", "no_done", "crlf", "pings",
    "other_model", "wrong_usage", "no_usage", "huge_reply:64",
}  # fmt: skip
HARMLESS = {
    "delay:0.05", "slow_drip:0.01", "byte_by_byte", "duplicate_done", "crlf", "pings", "other_model", "wrong_usage",
    "no_usage", "huge_reply:64",
}  # fmt: skip
FINAL = {"bad_request", "context_too_long", "content_refused"}  # the same request fails anywhere
MOST_ATTEMPTS = 3
CONFIG = """
[providers.lab]
wire = "openai_chat"
base_url = "{sim}/a/lab/v1"
free = true
[providers.other]
wire = "anthropic_messages"
base_url = "{sim}/a/other"
free = true
[providers.spare]
wire = "openai_chat"
base_url = "{sim}/a/spare/v1"
free = true
[accounts.lab-1]
provider = "lab"
key = "env:K"
[accounts.other-1]
provider = "other"
key = "env:K"
[accounts.spare-1]
provider = "spare"
key = "env:K"
[models.same]
targets = ["lab/gpt-4.1"]
[models.cross]
targets = ["other/claude-sonnet-4-5"]
[models.same-with-spare]
targets = ["lab/gpt-4.1", "spare/gpt-4.1"]
[models.cross-with-spare]
targets = ["other/claude-sonnet-4-5", "spare/gpt-4.1"]
[gateway.deadlines]
first_byte_s = 0.4
idle_s = 0.4
total_s = 4
connect_s = 1
[gateway.retries]
max_attempts = 3
[gateway.queue]
max_wait_s = 0.5
"""


class Got(NamedTuple):
    """What a client saw: ``is_cut`` where its connection was cut in the middle of an answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_cut: bool


class World:
    """A simulated provider, a gateway over it, and a client."""

    def __init__(self, sim: RunningSim, gateway: Running) -> None:
        self.sim = sim
        self.gateway = gateway
        self.client = HttpClient()

    async def ask(self, model: str, *, stream: bool) -> Got:
        origin = Origin("http", "127.0.0.1", int(self.gateway.address.rsplit(":", 1)[1]))
        head = b"host: 127.0.0.1\r\ncontent-type: application/json\r\n"
        messages = [{"role": "user", "content": "hi"}]
        body = json.dumps({"model": model, "stream": stream, "messages": messages}).encode()
        answer = await self.client.send(origin, "POST", "/v1/chat/completions", head, body, first_byte_s=10)
        try:
            return Got(answer.status, answer.headers, await answer.read(10, 1 << 24), False)
        except TransportError as error:
            assert error.fault in (Fault.CUT, Fault.RESET)
            return Got(answer.status, answer.headers, b"", True)


@pytest.fixture
async def make_world(tmp_path: Path) -> AsyncIterator[object]:
    made: list[World] = []

    async def make(fault: str) -> World:
        scenario = tmp_path / "scenario.toml"
        rule = f'faults = [{{ fault = "{fault}" }}]'
        scenario.write_text(f"[providers.lab]\n{rule}\n[providers.other]\n{rule}\n[providers.spare]\n")
        sim = await start_sim(load_scenario(scenario))
        config = tmp_path / "nightkeep.toml"
        config.write_text(CONFIG.replace("{sim}", sim.base_url))
        data = tmp_path / "data"
        data.mkdir()
        environ = {"K": "sk-1"}
        made.append(World(sim, await start(load(config, environ), environ, data, {"port": 0})))
        return made[-1]

    yield make
    for world in made:
        world.client.close()
        await world.gateway.close(0)
        await world.sim.close()


def is_whole(got: Got, *, stream: bool) -> bool:
    """Whether the client has a whole, well-formed answer."""
    if got.status != 200 or got.is_cut:
        return False
    if not stream:
        return bool(json.loads(got.body)["choices"][0]["message"]["content"])
    return got.body.rstrip().endswith(b"data: [DONE]") and b'"error"' not in got.body


def is_typed_error(got: Got, *, stream: bool) -> bool:
    """Whether the client has an error that its SDK raises: by status, or by the last event of the stream."""
    if got.is_cut:
        return False
    if got.status != 200:
        error = json.loads(got.body)["error"]
        return bool(error["message"]) and bool(error["nightkeep"]["code"])
    last = got.body.rstrip().rpartition(b"data: ")[2]
    return stream and last != b"[DONE]" and "INCOMPLETE" in json.loads(last)["error"]["message"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("wire", ["same", "cross"])
@pytest.mark.parametrize("fault", sorted(FAULTS))
async def test_a_fault_is_a_whole_answer_or_a_typed_error(make_world, fault: str, wire: str, stream: bool) -> None:  # type: ignore[no-untyped-def]
    world = await make_world(fault)
    got = await asyncio.wait_for(world.ask(wire, stream=stream), 8)
    assert is_whole(got, stream=stream) != is_typed_error(got, stream=stream), (got.status, got.body[:500])
    if fault in HARMLESS:
        assert is_whole(got, stream=stream), (got.status, got.body[:500])
    assert 1 <= len(world.sim.log) <= MOST_ATTEMPTS
    assert int(got.headers["x-nightkeep-attempts"]) <= MOST_ATTEMPTS


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("wire", ["same", "cross"])
@pytest.mark.parametrize("fault", sorted(FAULTS - HARMLESS - FINAL))
async def test_with_another_target_the_client_gets_a_whole_answer(
    make_world, fault: str, wire: str, stream: bool
) -> None:  # type: ignore[no-untyped-def]
    world = await make_world(fault)
    got = await asyncio.wait_for(world.ask(f"{wire}-with-spare", stream=stream), 8)
    was_committed = stream and b"INCOMPLETE" in got.body
    assert is_whole(got, stream=stream) or was_committed, (got.status, got.body[:500])
    if is_whole(got, stream=stream) and int(got.headers["x-nightkeep-attempts"]) > 1:
        assert "failover from" in got.headers["x-nightkeep-degraded"]


async def test_the_matrix_is_over_every_fault_that_there_is(make_world) -> None:  # type: ignore[no-untyped-def]
    world = await make_world("delay:0.05")
    origin = Origin("http", "127.0.0.1", world.sim.port)
    answer = await world.client.send(origin, "GET", "/sim/faults", b"host: a\r\n", b"", first_byte_s=5)
    assert set(json.loads(await answer.read(5, 1 << 20))) == {fault.partition(":")[0] for fault in FAULTS}
