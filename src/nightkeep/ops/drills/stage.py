"""What a drill plays on: a simulated provider and a gateway, as real processes in a directory of their own.

A drill asks, changes the scenario, and checks; each check keeps what was expected and what was seen.
Everything is ended by the handle that was kept, whatever happens.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from nightkeep.models.transport import HttpClient, Origin, TransportError
from nightkeep.ops.drills.person import Person

__all__ = ["Answer", "Check", "DrillError", "Stage", "raise_stage"]

_START_S = 20.0
_WAIT_S = 30.0


class DrillError(Exception):
    """The stage could not be set; that is not the system's failure in the drill."""


class Check(msgspec.Struct, frozen=True):
    """One thing that must hold, and what was seen."""

    what: str
    is_good: bool
    seen: str


class Answer(msgspec.Struct, frozen=True):
    """What a client got. ``status`` 0: the connection ended without an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return msgspec.json.decode(self.body)


class Process:
    """One ``nightkeep …`` process."""

    def __init__(self, process: asyncio.subprocess.Process, facts: dict[str, Any], log: Path) -> None:
        self.process = process
        self.facts = facts
        self.log = log

    async def end(self, *, by_kill: bool = False) -> None:
        """End it and wait for it."""
        if self.process.returncode is None:
            if by_kill:
                self.process.kill()
            else:
                self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), 15)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


class Stage:
    """The running system and its checks."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.checks: list[Check] = []
        self.client = HttpClient()
        self.person = Person()
        self.sim: Process | None = None
        self.gateway: Process | None = None

    # -- the system

    async def play(self, scenario: str, config: str, **environment: str) -> None:
        """Start the simulated provider, then the gateway.

        ``{sim}`` in the config becomes the provider's address, ``{person}`` the webhook that stands for a person.
        """
        await self.person.listen()
        (self.directory / "scenario.toml").write_text(scenario)
        self.sim = await self._start("sim", "--port", "0", "--scenario", "scenario.toml")
        self.write_config(config)
        await self.start_gateway(**environment)

    def write_config(self, config: str) -> None:
        """Write the gateway's settings; a running gateway takes them by itself."""
        path = self.directory / "nightkeep.toml"
        fresh = path.with_suffix(".new")
        fresh.write_text(config.replace("{sim}", self.sim_url).replace("{person}", self.person.url))
        fresh.replace(path)

    async def start_gateway(self, **environment: str) -> None:
        """Start the gateway (again) on the same settings and data."""
        arguments = ("--port", "0", "--config", "nightkeep.toml", "--data", "data")
        self.gateway = await self._start("up", *arguments, **environment)

    async def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Run a command to its end; its exit code, and all that it printed."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "nightkeep", *arguments),
            cwd=self.directory,
            env={**_environment(), **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), _WAIT_S)
        return process.returncode or 0, output.decode("utf-8", "replace")

    async def _start(self, *arguments: str, **environment: str) -> Process:
        log = self.directory / f"{arguments[0]}.log"
        with log.open("ab") as stream:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "nightkeep", *arguments, "--json"),
                cwd=self.directory,
                env={**_environment(), **environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=stream,
            )
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), _START_S)
        if not line.startswith(b"{"):
            raise DrillError(f"nightkeep {arguments[0]} did not start: {log.read_text()[-1500:]}")
        return Process(process, json.loads(line), log)

    @property
    def sim_url(self) -> str:
        """Where the simulated provider listens."""
        assert self.sim is not None
        return str(self.sim.facts["url"])

    @property
    def gateway_url(self) -> str:
        """Where the gateway listens."""
        assert self.gateway is not None
        return str(self.gateway.facts["address"])

    @property
    def gateway_log(self) -> str:
        """All that the gateway said."""
        assert self.gateway is not None
        return self.gateway.log.read_text(errors="replace")

    # -- asking

    async def ask(self, text: str = "hi", *, model: str = "m", stream: bool = False, **headers: str) -> Answer:
        """One OpenAI chat request at the gateway."""
        body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]}
        return await self.send(self.gateway_url, "POST", "/v1/chat/completions", body, headers)

    async def send(
        self, url: str, method: str, target: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request anywhere; header names may use underscores."""
        host, port = url.removeprefix("http://").rsplit(":", 1)
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in (headers or {}).items())
        head = f"host: {host}:{port}\r\ncontent-type: application/json\r\n{lines}".encode()
        data = b"" if body is None else msgspec.json.encode(body)
        try:
            answer = await self.client.send(
                Origin("http", host, int(port)), method, target, head, data, first_byte_s=_WAIT_S
            )
            return Answer(answer.status, answer.headers, await answer.read(_WAIT_S, 1 << 26))
        except TransportError as error:
            return Answer(0, {}, str(error).encode())

    async def stats(self) -> Any:
        """The simulated provider's counters."""
        return (await self.send(self.sim_url, "GET", "/sim/stats")).json

    async def scenario(self, text: str) -> None:
        """Change the provider's scenario while it runs."""
        answer = await self.send(self.sim_url, "PUT", "/sim/scenario", tomllib.loads(text))
        if answer.status != 200:
            raise DrillError(f"the scenario was refused: {answer.body[:500]!r}")

    async def api(self, method: str, target: str, body: Any = None) -> Any:
        """One request at the gateway's API."""
        token = (self.directory / "data" / "operator.token").read_text().strip()
        return (await self.send(self.gateway_url, method, target, body, {"authorization": f"Bearer {token}"})).json

    # -- checking

    def check(self, what: str, is_good: bool, seen: object) -> None:
        """Keep whether something holds, and what was seen."""
        self.checks.append(Check(what, bool(is_good), str(seen)[:300]))

    async def close(self) -> None:
        """End everything."""
        self.person.close()
        self.client.close()
        for process in (self.gateway, self.sim):
            if process is not None:
                await process.end()


@asynccontextmanager
async def raise_stage(kept: Path | None = None) -> AsyncIterator[Stage]:
    """A stage in a fresh directory, which is removed afterwards unless it is to be kept."""
    with tempfile.TemporaryDirectory(prefix="nightkeep-drill-") if kept is None else _Kept(kept) as name:
        stage = Stage(Path(name))
        try:
            yield stage
        finally:
            await stage.close()


class _Kept:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> str:
        self._directory.mkdir(parents=True, exist_ok=True)
        return str(self._directory)

    def __exit__(self, *_: object) -> None:
        """What was kept stays."""


def _environment() -> dict[str, str]:
    """What a process of a drill sees: none of the operator's keys."""
    return {"PATH": "/usr/bin:/bin", "LAB_KEY": "sk-lab-0123456789"}
