"""Every drill passes, on real processes; and the command that runs them says so, or says what failed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from nightkeep.ops.drills.table import DRILLS


def run(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "nightkeep", "drill", *arguments], capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", list(DRILLS))
def test_the_drill_passes(name: str) -> None:
    code, output = run("run", name, "--json")
    found: Any = json.loads(output)
    bad = [check for drill in found["drills"] for check in drill["checks"] if not check["passed"]]
    assert not bad
    assert found["drills"][0]["error"] is None
    assert found["drills"][0]["checks"]
    assert code == 0


def test_every_drill_has_a_story_and_a_source() -> None:
    code, output = run("list", "--json")
    assert code == 0
    rows = json.loads(output)
    assert [row["name"] for row in rows] == list(DRILLS)
    assert all(row["story"] and row["sources"] for row in rows)


def test_an_unknown_drill_is_a_usage_error() -> None:
    code, output = run("run", "no-such-drill")
    assert code == 2
    assert "drill list" in output
