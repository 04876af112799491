"""Claude Code and Codex, as they come from npm, do a task with a tool through the gateway over a simulated upstream."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BIN = Path(__file__).resolve().parents[2] / ".cache" / "node" / "node_modules" / ".bin"
WRITTEN = "kept by nightkeep\n"


def program(name: str) -> str:
    """The client's program; where ``./dev`` could not install it the test is skipped, in CI it fails."""
    path = BIN / name
    if not path.exists():
        message = f"{name} is not in .cache/node; './dev setup' installs it with npm"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return str(path)


def scenario(note: Path) -> str:
    """The simulated model calls a tool, and ends when it has the result."""
    return f"""
strict = false
turns = [
  {{ match = {{ contains = "CLAUDE-TASK", tool_result = false }}, reply = {{ text = "I write it.", tool_calls = [
      {{ name = "Write", arguments = {{ file_path = "{note}", content = "kept by nightkeep\\n" }} }} ] }} }},
  {{ match = {{ contains = "CODEX-TASK", tool_result = false }}, reply = {{ text = "I write it.", tool_calls = [
      {{ name = "exec_command", arguments = {{ cmd = "echo kept by nightkeep > {note}" }} }} ] }} }},
  {{ match = {{ tool_result = true }}, reply = {{ text = "The note is written." }} }},
  {{ reply = {{ text = "Simulated." }} }},
]
"""


@pytest.fixture
def world(tmp_path: Path, run_gateway: Callable[..., Iterator[Any]]) -> Iterator[Any]:
    yield from run_gateway(tmp_path, scenario(tmp_path / "work" / "note.txt"))


def run(command: list[str], directory: Path, **environment: str) -> str:
    (directory / "work").mkdir(exist_ok=True)
    (directory / "home").mkdir(exist_ok=True)
    known = {"PATH": os.environ["PATH"], "HOME": str(directory / "home"), **environment}
    done = subprocess.run(
        command,
        cwd=directory / "work",
        env=known,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def recorded_runs(directory: Path) -> list[tuple[str, str, int]]:
    """The runs of the record: where their session's name came from, the program, and how many calls they have."""
    with sqlite3.connect(f"file:{directory}/data/nightkeep.db?mode=ro", uri=True) as database:
        return list(database.execute("SELECT source, agent, calls FROM runs"))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("model", ["via-anthropic", "via-chat", "via-gemini"])
def test_claude_code_writes_a_file(world: Any, tmp_path: Path, model: str) -> None:
    output = run(
        [
            program("claude"),
            "-p",
            "CLAUDE-TASK",
            "--output-format",
            "json",
            "--allowedTools",
            "Write",
            "--model",
            model,
        ],
        tmp_path,
        ANTHROPIC_BASE_URL=world.gateway,
        ANTHROPIC_AUTH_TOKEN="any",
        ANTHROPIC_SMALL_FAST_MODEL=model,
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
        DISABLE_TELEMETRY="1",
        DISABLE_AUTOUPDATER="1",
    )
    assert '"result":"The note is written."' in output
    assert (tmp_path / "work" / "note.txt").read_text() == WRITTEN
    assert [(source, calls >= 2) for source, _, calls in recorded_runs(tmp_path)] == [("client", True)]


@pytest.mark.timeout(120)
def test_codex_runs_a_command(world: Any, tmp_path: Path) -> None:
    home = tmp_path / "codex"
    home.mkdir()
    (home / "config.toml").write_text(
        f"""
model = "via-responses"
model_provider = "nightkeep"
approval_policy = "never"
sandbox_mode = "danger-full-access"

[model_providers.nightkeep]
name = "nightkeep"
base_url = "{world.gateway}/v1"
env_key = "NIGHTKEEP_CLIENT_KEY"
wire_api = "responses"
"""
    )
    command = [program("codex"), "exec", "--json", "--skip-git-repo-check", "CODEX-TASK"]
    output = run(command, tmp_path, CODEX_HOME=str(home), NIGHTKEEP_CLIENT_KEY="any")
    assert "The note is written." in output
    assert (tmp_path / "work" / "note.txt").read_text() == WRITTEN
    assert [(source, calls >= 2) for source, _, calls in recorded_runs(tmp_path)] == [("client", True)]
