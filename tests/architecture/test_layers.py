"""Arrows go down only, and the machine is asked in few places (design.md §4)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from architecture.checkout import PACKAGE, ROOT, sources

MACHINE_READERS = ("cli/", "supervisor.py", "worker.py", "bootstrap", "config", "testing/")
"""Who may ask for the environment, the time and randomness: the top, and those who implement the ports there."""

ASKS_THE_MACHINE = {
    "os": {"environ", "getenv", "urandom", "getpid"},
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
    "random": {"random", "randint", "choice", "uniform", "randrange", "shuffle", "getrandbits", "SystemRandom"},
    "uuid": {"uuid1", "uuid4", "uuid6", "uuid7"},
    "secrets": {"token_hex", "token_bytes", "token_urlsafe", "randbelow", "choice"},
}


def _asks(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if node.attr in ASKS_THE_MACHINE.get(owner, ()):
                yield f"line {node.lineno}: {owner}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module in ASKS_THE_MACHINE:
            names = {alias.name for alias in node.names} & ASKS_THE_MACHINE[node.module]
            yield from (f"line {node.lineno}: from {node.module} import {name}" for name in names)


def test_import_contracts_hold() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("path", [path for path in sources() if not str(path).startswith(MACHINE_READERS)], ids=str)
def test_below_the_top_nothing_asks_the_machine_for_time_randomness_or_environment(path: Path) -> None:
    asked = list(_asks(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))))
    assert not asked, f"{path} takes a Clock, Randomness or setting as an argument instead of {asked}"


@pytest.mark.parametrize("path", sources(), ids=str)
def test_each_file_says_what_it_is_and_no_file_is_called_after_nothing(path: Path) -> None:
    text = (PACKAGE / path).read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
    assert path.stem not in {"utils", "util", "helpers", "helper", "common", "manager", "misc"}


def test_the_help_page_loads_click_and_nothing_else() -> None:
    code = (
        "import sys\n"
        "from nightkeep.cli.main import program\n"
        "program(['--help'], standalone_mode=False)\n"
        "heavy = {'pydantic', 'msgspec', 'asyncio', 'httptools', 'uvloop', 'ssl', 'sqlite3', 'tomllib'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert run.returncode == 0, run.stderr
