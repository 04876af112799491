"""What docs/keys.md shows is done as it stands there, by the installed command, against a running gateway."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from nightkeep.control.key_text import KEY_PREFIX, is_whole

PAGE = (Path(__file__).parents[2] / "docs" / "keys.md").read_text(encoding="utf-8")
LINES = [line for block in PAGE.split("```")[1::2] for line in block.strip().splitlines() if " vault " not in line]
COMMANDS = [re.sub(r"\s*\[[^\]]*\]", "", line.split("  #")[0]).strip() for line in LINES if "curl " not in line]


def _run(environ: dict[str, str], line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, shell=True, env=environ, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture(scope="module")
def shell(
    tmp_path_factory: pytest.TempPathFactory, start_nightkeep: Callable[..., Iterator[str]]
) -> Iterator[Callable[[str], subprocess.CompletedProcess[str]]]:
    data = tmp_path_factory.mktemp("keys")
    for address in start_nightkeep("up", "--json", "--port", "0", "--data", str(data)):
        environ = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "NIGHTKEEP_URL": address,
            "NIGHTKEEP_DATA": str(data),
            "KEY": "nk-made-somewhere-else-0123456789",
        }

        yield partial(_run, environ)


def test_each_line_of_the_page_does_what_it_says(
    shell: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    assert len(COMMANDS) >= 7
    for line in COMMANDS:
        done = shell(line)
        assert done.returncode == 0, (line, done.stderr)
        if "keys create " in line or "keys rotate " in line:
            assert is_whole(KEY_PREFIX, done.stdout.strip())
        if " create " not in line:
            assert shell(f"{line} --json").returncode in ((0,) if " hash " not in line else (2,))


def test_a_key_goes_through_a_pipe_without_a_word_around_it(
    shell: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    done = shell("nightkeep keys create piped --scope acme | wc -l -c")
    assert done.stdout.split() == ["1", "53"]
    assert "shown this once" in done.stderr
