"""``nightkeep up --workers 4``: real processes on one port and one directory, killed and counted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from nightkeep.models.transport import HttpClient, Origin, TransportError
from nightkeep.testing.sim import RunningSim, load_scenario, start_sim

WORKERS = 4
CONFIG = """
[providers.lab]
wire = "openai_chat"
base_url = "{sim}/v1"
free = true
[accounts.lab-1]
provider = "lab"
key = "env:K"
[accounts.lab-2]
provider = "lab"
key = "env:K"
[models.m]
targets = ["lab/m"]
"""
SCENARIO = """
delivery = { first_byte_ms = 30 }
[[turns]]
reply = { text = "Done." }
"""


class Keep:
    """The running gateway."""

    def __init__(self, directory: Path, process: asyncio.subprocess.Process, facts: dict[str, Any]) -> None:
        self.directory = directory
        self.process = process
        self.facts = facts
        self.client = HttpClient()
        self.origin = Origin("http", "127.0.0.1", int(facts["address"].rsplit(":", 1)[1]))

    async def send(self, method: str, target: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        token = (self.directory / "data" / "operator.token").read_text().strip()
        more = {**({"authorization": f"Bearer {token}"} if target.startswith("/api") else {}), **headers}
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in more.items())
        head = f"host: 127.0.0.1\r\ncontent-type: application/json\r\nconnection: close\r\n{lines}".encode()
        data = b"" if body is None else json.dumps(body).encode()
        answer = await self.client.send(self.origin, method, target, head, data, first_byte_s=15)
        return answer.status, json.loads(await answer.read(10, 1 << 24))

    async def ask(self, text: str = "hi", **headers: str) -> tuple[int, Any]:
        body = {"model": "m", "messages": [{"role": "user", "content": text}]}
        return await self.send("POST", "/v1/chat/completions", body, **headers)

    async def workers(self) -> dict[int, int]:
        """Pids by slot."""
        _, found = await self.send("GET", "/api/workers")
        return {worker["slot"]: worker["pid"] for worker in found["workers"]}


async def until(holds: Callable[[], Any], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            try:
                if await holds():
                    return
            except TransportError:
                pass
            await asyncio.sleep(0.05)


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z" if Path("/proc").exists() else True


@pytest.fixture
async def sim(tmp_path: Path) -> AsyncIterator[RunningSim]:
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    made = await start_sim(load_scenario(tmp_path / "scenario.toml"))
    yield made
    await made.close()


async def start(tmp_path: Path, sim: RunningSim, workers: int) -> Keep:
    (tmp_path / "nightkeep.toml").write_text(CONFIG.format(sim=sim.base_url))
    with (tmp_path / "gateway.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "nightkeep", "up", "--json", "--port", "0", "--workers", str(workers)),
            *("--config", "nightkeep.toml", "--data", "data"),
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "K": "sk-1"},
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout is not None
    return Keep(tmp_path, process, json.loads(await asyncio.wait_for(process.stdout.readline(), 30)))


async def stop(keep: Keep) -> None:
    keep.client.close()
    if keep.process.returncode is None:
        keep.process.terminate()
    await asyncio.wait_for(keep.process.wait(), 30)


@pytest.fixture
async def keep(tmp_path: Path, sim: RunningSim) -> AsyncIterator[Keep]:
    made = await start(tmp_path, sim, WORKERS)
    try:
        yield made
    finally:
        await stop(made)


async def test_all_serve_on_one_port_and_one_that_is_killed_comes_back(keep: Keep) -> None:
    answers = await asyncio.gather(*(keep.ask(f"{n}") for n in range(40)))
    assert {status for status, _ in answers} == {200}
    before = await keep.workers()
    assert sorted(before) == list(range(WORKERS))
    os.kill(before[2], signal.SIGKILL)

    async def is_back() -> bool:
        now = await keep.workers()
        return sorted(now) == list(range(WORKERS)) and now[2] != before[2]

    await until(is_back)
    after = await keep.workers()
    assert {slot: pid for slot, pid in after.items() if slot != 2} == {
        slot: pid for slot, pid in before.items() if slot != 2
    }


async def test_when_the_supervisor_dies_its_workers_end(keep: Keep) -> None:
    pids = list((await keep.workers()).values())
    keep.process.kill()
    await keep.process.wait()

    async def are_gone() -> bool:
        return not any(is_there(pid) for pid in pids)

    await until(are_gone, 20)


async def test_an_account_switched_off_through_one_worker_is_off_in_all(keep: Keep) -> None:
    status, _ = await keep.send("POST", "/api/accounts/lab-1/disable", {"why": "a test"})
    assert status == 200

    async def is_off_everywhere() -> bool:
        views = [(await keep.send("GET", "/api/accounts"))[1]["accounts"] for _ in range(24)]
        return all(account["status"] == "disabled" for view in views for account in view if account["id"] == "lab-1")

    await until(is_off_everywhere)


async def test_one_idempotency_key_is_paid_once_over_all_workers(keep: Keep, sim: RunningSim) -> None:
    answers = await asyncio.gather(*(keep.ask("the same", idempotency_key="k-1") for _ in range(24)))
    assert {status for status, _ in answers} == {200}
    assert len({body["id"] for _, body in answers}) == 1
    assert sim.book.total == 1


async def test_the_calls_of_a_session_are_one_run_whoever_served_them(keep: Keep) -> None:
    await asyncio.gather(*(keep.ask(f"{n}", x_nightkeep_session="s-1") for n in range(30)))
    database = sqlite3.connect(f"file:{keep.directory / 'data' / 'nightkeep.db'}?mode=ro", uri=True)

    async def are_counted() -> bool:
        return database.execute("SELECT calls, failures FROM runs").fetchall() == [(30, 0)]

    try:
        await until(are_counted)
    finally:
        database.close()


async def test_an_account_switched_off_stays_off_when_there_are_more_workers(tmp_path: Path, sim: RunningSim) -> None:
    keep = await start(tmp_path, sim, 1)
    try:
        assert (await keep.send("POST", "/api/accounts/lab-1/disable", {"why": "a test"}))[0] == 200
    finally:
        await stop(keep)
    keep = await start(tmp_path, sim, WORKERS)
    try:
        views = [(await keep.send("GET", "/api/accounts"))[1]["accounts"] for _ in range(24)]
    finally:
        await stop(keep)
    assert {account["status"] for view in views for account in view if account["id"] == "lab-1"} == {"disabled"}
