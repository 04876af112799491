"""What the pages about budgets, prices, estimates, limits and the README's money show, as it is typed."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from architecture.checkout import ROOT
from e2e.conftest import end_process, start_process
from nightkeep.config import load

PAGES = ("README.md", "docs/budgets.md", "docs/prices.md", "docs/estimates.md", "docs/limits.md")
CONFIG = """
[providers.lab]
wire = "openai_chat"
base_url = "{sim}/v1"
[accounts.lab-1]
provider = "lab"
key = "env:LAB_KEY"
[models.smart]
targets = ["lab/big"]
[prices."lab/big"]
input = 3.0
output = 15.0
[[budgets]]
scope = "/"
usd = 20.00
per = "day"
[[limits]]
scope = "acme/*"
concurrent = 4
"""


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def lines() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for line in "\n".join(blocks(page, "sh")).splitlines():
            command = line.partition(" #")[0].strip()
            if command.startswith("nightkeep ") and " up " not in command and " drill " not in command:
                yield page, command


LINES = sorted(set(lines()))


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    directory = tmp_path_factory.mktemp("pages")
    sim, facts = start_process("sim", "--port", "0", "--json")
    (directory / "nightkeep.toml").write_text(CONFIG.format(sim=facts["url"]))
    (directory / "prompt.txt").write_text("Answer briefly.")
    item = json.dumps({"messages": [{"role": "user", "content": "a title, please"}]})
    (directory / "posts.jsonl").write_text(f"{item}\n" * 20)
    options = (
        "--config",
        str(directory / "nightkeep.toml"),
        "--data",
        str(directory / "data"),
        "--port",
        "0",
        "--json",
    )
    gateway, up = start_process("up", *options, LAB_KEY="sk-lab")
    try:
        body = json.dumps({"model": "smart", "messages": [{"role": "user", "content": "hi"}]}).encode()
        request = Request(up["address"] + "/v1/chat/completions", body, {"content-type": "application/json"})
        with urlopen(request) as answer:
            answer.read()
        yield directory, up["address"]
    finally:
        end_process(gateway)
        end_process(sim)


def test_there_is_something_to_run() -> None:
    assert {page for page, _ in LINES} == set(PAGES)


@pytest.mark.parametrize(("page", "command"), LINES)
def test_a_line_of_the_page_works_as_it_stands(there: tuple[Path, str], page: str, command: str) -> None:
    directory, url = there
    environment = {"PATH": os.environ["PATH"], "NIGHTKEEP_URL": url, "NIGHTKEEP_DATA": str(directory / "data")}
    done = subprocess.run(
        [sys.executable, "-P", "-m", *shlex.split(command)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    if command.startswith("nightkeep stop"):
        subprocess.run([sys.executable, "-P", "-m", "nightkeep", "resume", "--all"], env=environment, check=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout


@pytest.mark.parametrize("text", [text for page in PAGES[1:] for text in blocks(page, "toml")])
def test_settings_are_valid_as_they_stand(tmp_path: Path, text: str) -> None:
    names = 'targets = ["lab/big-model"]\n'
    known = f'[providers.lab]\nwire = "openai_chat"\nbase_url = "http://127.0.0.1:9/v1"\n[models.cheap]\n{names}'
    known += "" if '"lab/big-model"]' in text else '[prices."lab/big-model"]\ninput = 1.0\n'
    (tmp_path / "nightkeep.toml").write_text(known + text)
    load(tmp_path / "nightkeep.toml", {})
