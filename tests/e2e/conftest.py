"""Real processes for the end-to-end tests: a simulated provider that plays four vendors, and a gateway over it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest

WIRES = {"chat": "openai_chat", "responses": "openai_responses", "anthropic": "anthropic_messages", "gemini": "gemini"}
MODELS = {"chat": "gpt-4.1", "responses": "gpt-4.1", "anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash"}
ROOTS = {"chat": "/v1", "responses": "/v1", "anthropic": "", "gemini": ""}
SCENARIO = """
turns = [
  { match = { contains = "use the tools", tool_result = false }, reply = { text = "Let me look.", tool_calls = [
      { name = "disk", arguments = { path = "/var" } }, { name = "disk", arguments = { path = "/tmp" } } ] } },
  { match = { contains = "use the tools", tool_result = true }, reply = { text = "Both are fine." } },
  { match = { contains = "as json" }, reply = { text = '{"city": "Ghent", "people": 265086}' } },
  { match = { contains = "break off" }, reply = { text = "This text will not come to its proper end, as you see." } },
  { reply = { text = "Hello from the simulated model.", usage = { input = 100, cached = 40, output = 20 } } },
]
faults = [
  { fault = "cut_after_chunks:2", match = { contains = "break off" } },
  { fault = "server_error", match = { contains = "internal trouble" } },
  { fault = "bad_request", match = { contains = "bad request" } },
]
"""


class Place(NamedTuple):
    """Where the processes are."""

    gateway: str
    sim: str
    data: Path

    @property
    def token(self) -> str:
        """What the gateway's operator shows."""
        return (self.data / "operator.token").read_text().strip()

    def stats(self) -> Any:
        """The simulated provider's counters."""
        with urlopen(self.sim + "/sim/stats") as answer:
            return json.load(answer)


def start_process(*arguments: str, **environment: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """Start ``nightkeep …`` and read the line of JSON that says that it is up."""
    known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "nightkeep", *arguments],
        env={**known, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("{"):
        end_process(process)
        pytest.fail(f"nightkeep {arguments[0]} did not start; its own words are on stderr")
    return process, json.loads(line)


def end_process(process: subprocess.Popen[str]) -> None:
    """End a process by its handle."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
    if process.stdout is not None:
        process.stdout.close()


def config_text(sim: str) -> str:
    """Settings with one provider, account and alias for each wire."""
    text = ""
    for name, wire in WIRES.items():
        text += f"""
[providers.lab-{name}]
wire = "{wire}"
base_url = "{sim}/a/{name}{ROOTS[name]}"
free = true
[accounts.{name}-1]
provider = "lab-{name}"
key = "env:LAB_KEY"
[models."via-{name}"]
targets = ["lab-{name}/{MODELS[name]}"]
"""
    return text


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A running gateway over a running simulated provider."""
    yield from _run_gateway(tmp_path_factory.mktemp("e2e"), SCENARIO)


@pytest.fixture
def own_place(tmp_path: Path) -> Iterator[Place]:
    """A gateway of a test's own, for those that leave nothing as it was."""
    yield from _run_gateway(tmp_path, SCENARIO)


@pytest.fixture(scope="session")
def start_nightkeep() -> Callable[..., Iterator[str]]:
    """Start a command; gives its address, and ends it."""

    def start(*arguments: str) -> Iterator[str]:
        process, facts = start_process(*arguments)
        try:
            yield facts["address"]
        finally:
            end_process(process)

    return start


@pytest.fixture
def run_gateway() -> Callable[[Path, str], Iterator[Place]]:
    """The same with a scenario of the test's own, in its own directory (``data`` has the record)."""
    return _run_gateway


def _run_gateway(directory: Path, scenario: str) -> Iterator[Place]:
    (directory / "scenario.toml").write_text(scenario)
    sim, sim_facts = start_process("sim", "--json", "--port", "0", "--scenario", str(directory / "scenario.toml"))
    try:
        (directory / "nightkeep.toml").write_text(config_text(sim_facts["url"]))
        arguments = ("--config", str(directory / "nightkeep.toml"), "--data", str(directory / "data"))
        gateway, facts = start_process("up", "--json", "--port", "0", *arguments, LAB_KEY="sk-lab")
        try:
            yield Place(facts["address"], sim_facts["url"], directory / "data")
        finally:
            end_process(gateway)
    finally:
        end_process(sim)
