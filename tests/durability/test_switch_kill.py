"""``kill -9`` right after a switch was answered: what was stopped is stopped, what was resumed is not. And signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from nightkeep.cli import resume, stop
from nightkeep.models.transport import HttpClient, Origin

ROUNDS = 4
MODEL = "gpt-4.1"


class Gateway:
    """A gateway process on one data directory, with the built-in simulated provider."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.client = HttpClient()

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "nightkeep", "up", "--json", "--port", "0", "--data", "data"),
            cwd=self.directory,
            env={"PATH": os.environ["PATH"], "HOME": str(self.directory)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.address = json.loads(await asyncio.wait_for(self.process.stdout.readline(), 20))["address"]

    async def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        await asyncio.wait_for(self.process.wait(), 20)

    async def says(self, words: str) -> None:
        """Wait for a line of the log."""
        assert self.process.stderr is not None
        while words not in (await asyncio.wait_for(self.process.stderr.readline(), 20)).decode():
            assert self.process.returncode is None

    async def ask(self, scope: str = "acme") -> int:
        body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}).encode()
        head = f"host: 127.0.0.1\r\ncontent-type: application/json\r\nx-nightkeep-scope: {scope}\r\n".encode()
        origin = Origin("http", "127.0.0.1", int(self.address.rsplit(":", 1)[1]))
        answer = await self.client.send(origin, "POST", "/v1/chat/completions", head, body, first_byte_s=10)
        await answer.read(10, 1 << 20)
        return answer.status

    async def command(self, *arguments: str) -> str:
        command = {"stop": stop.command, "resume": resume.command}[arguments[0]]
        env = {"NIGHTKEEP_URL": self.address, "NIGHTKEEP_DATA": str(self.directory / "data")}
        done = await asyncio.to_thread(CliRunner(env=env).invoke, command, list(arguments[1:]))
        assert done.exit_code == 0, done.output
        return done.output


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    made = Gateway(tmp_path)
    await made.start()
    yield made
    if made.process.returncode is None:
        await made.end()
    made.client.close()


async def test_what_a_command_has_answered_survives_a_kill(gateway: Gateway) -> None:
    for _ in range(ROUNDS):
        assert await gateway.ask() == 200
        await gateway.command("stop", "acme", "--why", "a rehearsal")
        await gateway.end()
        await gateway.start()
        assert (await gateway.ask("acme/triage"), await gateway.ask("other")) == (403, 200)
        assert "a rehearsal" in await gateway.command("resume", "acme")
        await gateway.end()
        await gateway.start()
    assert await gateway.ask() == 200


async def test_signals_stop_and_resume_everything_and_survive_a_kill(gateway: Gateway) -> None:
    gateway.process.send_signal(signal.SIGUSR1)
    await gateway.says("everything is stopped by whoever sent SIGUSR1")
    assert await gateway.ask() == 403
    await gateway.end()
    await gateway.start()
    assert await gateway.ask() == 403
    gateway.process.send_signal(signal.SIGUSR2)
    await gateway.says("everything is resumed by whoever sent SIGUSR2")
    assert await gateway.ask() == 200


async def test_the_file_stops_a_running_gateway_and_one_that_starts(gateway: Gateway) -> None:
    file = gateway.directory / "data" / "STOP"
    file.touch()
    await gateway.says("the file STOP: everything is stopped")
    assert await gateway.ask() == 403
    await gateway.end()
    await gateway.start()
    assert await gateway.ask() == 403
    file.unlink()
    await gateway.says("the file STOP: everything is resumed")
    assert await gateway.ask() == 200
