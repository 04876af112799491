"""What is there is documented, and what is documented is there."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from architecture.checkout import ROOT
from nightkeep import __version__
from nightkeep.cli.main import COMMANDS

AWAITED: set[str] = set()
"""Nouns of the table whose modules are being built; empty in a release."""

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _locked(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", text, re.MULTILINE))


@pytest.mark.parametrize("noun", COMMANDS)
def test_each_noun_has_its_module(noun: str) -> None:
    if noun not in AWAITED:
        assert importlib.util.find_spec(COMMANDS[noun].module), COMMANDS[noun].module


@pytest.mark.parametrize("noun", COMMANDS)
def test_docs_mention_each_noun(noun: str) -> None:
    pattern = re.compile(rf"nightkeep {noun}\b")
    assert any(pattern.search(page.read_text(encoding="utf-8")) for page in PAGES), f"no page shows `nightkeep {noun}`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_docs_show_no_noun_that_is_not_there(page: Path) -> None:
    code = re.findall(r"`+[^`]+`+", page.read_text(encoding="utf-8"))
    shown = {noun for each in code for noun in re.findall(r"(?:(?:^|`|\n|\$ )nightkeep|\./nk) ([a-z]+)", each)}
    assert shown <= set(COMMANDS), f"{shown - set(COMMANDS)} is not a command"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_in_docs_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_docs_pages_are_all_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = [page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md"]
    assert not [page for page in pages if f"({page})" not in index]


def test_decisions_are_numbered_without_gaps_and_say_how_they_are_checked() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        text = path.read_text(encoding="utf-8")
        assert all(f"\n## {part}\n" in text for part in ("Why", "Decision", "How it is checked")), path.name


def test_the_version_is_the_same_everywhere() -> None:
    assert PROJECT["version"] == __version__
    assert f"[{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_lock_files_lock_what_the_project_asks_for() -> None:
    text = (ROOT / "requirements" / "runtime.in").read_text(encoding="utf-8")
    asked = [line.replace('"', "'") for line in text.splitlines() if line and not line.startswith("#")]
    assert asked == PROJECT["dependencies"]
    runtime, dev = _locked("runtime.txt"), _locked("dev.txt")
    assert {re.split(r"[>=; ]", line)[0] for line in asked} <= runtime.keys()
    assert runtime.items() <= dev.items(), "run ./dev lock: development runs other versions than users do"


@pytest.mark.parametrize("name", ["runtime.txt", "dev.txt"])
def test_lock_files_name_no_registry_and_no_path(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    assert not re.findall(r"^.*(?:://|--index|--extra|--find|/).*$", text, re.MULTILINE)
    assert len(re.findall(r"^\S+==", text, re.MULTILINE)) == len(
        re.findall(r"^\S+==.*\\\n    --hash", text, re.MULTILINE)
    )
