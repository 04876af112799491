"""What docs/spend.md shows is done as it stands there, by the installed command, beside a gateway that has spent."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "spend.md").read_text(encoding="utf-8")
BLOCKS = "".join(re.findall(r"^```console\n(.*?)^```", PAGE, re.M | re.S)).replace("\\\n", " ")
COMMANDS = [line[2:].split("  #")[0].strip() for line in BLOCKS.splitlines() if line.startswith("$ ")]
CONFIG = """
[providers.lab]
wire = "openai_chat"
base_url = "{sim}/v1"
[accounts.lab-1]
provider = "lab"
key = "file:key"
[prices."lab/big"]
input = 2.00
output = 8.00
"""
SCENARIO = """
prices = { "big" = { input = 2.00, output = 8.00 } }
faults = [{ fault = "cut_after_chunks:2", match = { contains = "break off" } }]
"""
Shell = Callable[[str], subprocess.CompletedProcess[str]]


def _ask(gateway: str, text: str) -> None:
    body = {"model": "lab/big", "stream": True, "messages": [{"role": "user", "content": text}]}
    headers = {"content-type": "application/json", "x-nightkeep-scope": "acme/triage", "x-nightkeep-session": "one"}
    with urlopen(Request(f"{gateway}/v1/chat/completions", json.dumps(body).encode(), headers)) as answer:
        answer.read()


def _run(environ: dict[str, str], directory: Path, sim: str, line: str) -> subprocess.CompletedProcess[str]:
    line = line.replace("http://127.0.0.1:7788", sim)
    return subprocess.run(
        line, shell=True, cwd=directory, env=environ, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, start_nightkeep: Callable[..., Iterator[str]]) -> Iterator[Shell]:
    directory = tmp_path_factory.mktemp("spend")
    (directory / "scenario.toml").write_text(SCENARIO)
    (directory / "key").write_text("sk-lab")
    (directory / "usage.csv").write_text("date,cost,project\n2026-11-01,0,none\n")
    sim = subprocess.Popen(
        [sys.executable, "-P", "-m", "nightkeep", "sim", "--json", "--port", "0", "--scenario", "scenario.toml"],
        cwd=directory,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert sim.stdout is not None
    try:
        address = json.loads(sim.stdout.readline())["url"]
        config = directory / "nightkeep.toml"
        config.write_text(CONFIG.format(sim=address))
        data = directory / "data"
        for gateway in start_nightkeep("up", "--json", "--port", "0", "--data", str(data), "--config", str(config)):
            for text in ("hello", "break off", "once more"):
                _ask(gateway, text)
            environ = {
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "NIGHTKEEP_URL": gateway,
                "NIGHTKEEP_DATA": str(data),
            }
            yield partial(_run, environ, directory, address)
    finally:
        sim.terminate()
        sim.wait(10)
        sim.stdout.close()


def test_each_line_of_the_page_does_what_it_says(shell: Shell) -> None:
    assert len(COMMANDS) >= 10
    for line in COMMANDS:
        if " reconcile " in line and "http" in line:
            line += " --grace 0"
        done = shell(line)
        allowed = (0, 4) if "2026-" in line else (0,)  # nothing may have been spent in that month
        assert done.returncode in allowed, (line, done.stdout, done.stderr)
        assert max((len(each) for each in done.stdout.splitlines()), default=0) <= 100 or ".csv" in line


def test_after_the_page_the_ledger_is_the_bill(shell: Shell) -> None:
    line = "nightkeep spend reconcile --provider lab --url http://127.0.0.1:7788/sim/usage/requests --grace 0 --json"
    done = json.loads(shell(line).stdout)
    assert done["is_settled"]
    spent = json.loads(shell("nightkeep spend --json").stdout)
    assert spent["total"]["cost_micro_usd"] == done["billed_micro_usd"] > 0
