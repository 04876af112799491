"""What the README and the first pages show is run: curl lines at a gateway, settings through the loader."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nightkeep.config import parse

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "docs/first-ten-minutes.md", "docs/gateway.md", "docs/configuration.md", "docs/routing.md"]
KEYS = {"ANTHROPIC_API_KEY": "sk-ant-" + "x" * 90, "OPENAI_API_KEY": "sk-proj-" + "x" * 90, "LAB_KEY": "sk-lab"}


def blocks(page: str, kind: str) -> list[str]:
    """The fenced blocks of a kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)


def commands(page: str) -> list[str]:
    """The curl commands that a page shows, continuation lines joined."""
    lines = "\n".join(blocks(page, "console")).replace("\\\n", " ")
    return [line[2:] for line in lines.splitlines() if line.startswith("$ curl ")]


CURLS = [(page, command) for page in PAGES for command in commands(page)]
TOMLS = [(page, text) for page in PAGES[:2] for text in blocks(page, "toml")]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory, start_nightkeep: Any) -> Iterator[str]:
    """A gateway as a newcomer has it: no settings, no keys."""
    directory = tmp_path_factory.mktemp("readme")
    yield from start_nightkeep("up", "--json", "--port", "0", "--data", str(directory))


def test_there_is_something_to_run() -> None:
    assert len(CURLS) >= 2
    assert len(TOMLS) >= 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(("page", "command"), CURLS)
def test_curl_lines_work_as_they_stand(simulated: str, page: str, command: str) -> None:
    line = command.replace("http://127.0.0.1:7777", simulated)
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "200 OK" in done.stdout
    assert "x-nightkeep-simulated: 1" in done.stdout


@pytest.mark.parametrize(("page", "text"), TOMLS)
def test_settings_are_valid_as_they_stand(page: str, text: str) -> None:
    assert parse(text.encode(), None, KEYS).settings.accounts
