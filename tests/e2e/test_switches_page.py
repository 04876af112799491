"""What docs/switches.md shows is done as it stands there, by the installed command, against a running gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "switches.md").read_text(encoding="utf-8")
LINES = [
    line for block in PAGE.split("```sh\n")[1:] for line in block.split("```")[0].replace("\\\n", " ").splitlines()
]


@pytest.fixture
def environ(tmp_path: Path, start_nightkeep: Callable[..., Iterator[str]]) -> Iterator[dict[str, str]]:
    for address in start_nightkeep("up", "--json", "--port", "0", "--data", str(tmp_path)):
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        yield {"PATH": path, "NIGHTKEEP_URL": address, "NIGHTKEEP_DATA": str(tmp_path)}


def test_each_line_of_the_page_does_what_it_says(environ: dict[str, str]) -> None:
    assert len(LINES) > 15
    for line in LINES:
        done = subprocess.run(line, shell=True, env=environ, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, (line, done.stderr)
        if line.startswith("curl"):
            assert "error" not in json.loads(done.stdout), done.stdout
        elif "nightkeep stop" in line and "--list" not in line:
            assert done.stdout.startswith("stopped ") or "--dry-run" in line or "--drain" in line, (line, done.stdout)
        elif "nightkeep resume" in line:
            assert " goes on: it was stopped by " in done.stdout, (line, done.stdout)
