"""The command's face: the help page, wrong commands, and how expected errors end."""

from __future__ import annotations

import sys
import types

import click
import pytest

from nightkeep.cli import main as cli
from nightkeep.core.errors import ConfigError, NightkeepError, StoreError


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    return stopped.value.code if isinstance(stopped.value.code, int) else -1


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type[NightkeepError]:
    """Put a noun ``fail`` into the table, which raises what its argument names."""

    @click.command()
    @click.argument("kind")
    def command(kind: str) -> None:
        if kind == "config":
            raise ConfigError("nightkeep.toml:3: pools.x is not known", fix="name it pools.main")
        if kind == "nothing":
            raise SystemExit(cli.EXIT_NOTHING)
        raise StoreError("the database cannot be read")

    module = types.ModuleType("nightkeep_test_fail")
    module.__dict__["command"] = command
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.COMMANDS, "fail", cli.Entry(module.__name__, "Run", "Fail"))
    return StoreError


def test_the_help_page_shows_every_noun_in_its_section_within_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--help") == 0
    page = capsys.readouterr().out
    assert max(map(len, page.splitlines())) <= 80
    for noun, entry in cli.COMMANDS.items():
        section = page.split(f"{entry.section}:\n")[1].split("\n\n")[0]
        assert [line for line in section.splitlines() if line.split()[0] == noun and line.endswith(entry.summary)]
    assert "Examples:" in page


def test_a_noun_that_does_not_exist_is_a_usage_error_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("cofnig") == cli.EXIT_USAGE
    assert "Did you mean 'config'?" in capsys.readouterr().err
    assert _run("zzz") == cli.EXIT_USAGE


def test_a_noun_whose_module_is_missing_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.COMMANDS, "gone", cli.Entry("nightkeep.cli.gone", "Run", "Gone"))
    assert _run("gone") == cli.EXIT_USAGE
    assert "not part of this installation" in capsys.readouterr().err


@pytest.mark.usefixtures("failing")
def test_a_wrong_setting_ends_with_code_3_and_its_fix(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("fail", "config") == cli.EXIT_CONFIG
    assert capsys.readouterr().err == "error: nightkeep.toml:3: pools.x is not known\nfix: name it pools.main\n"


@pytest.mark.usefixtures("failing")
def test_another_expected_error_ends_with_code_1_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("fail", "store") == cli.EXIT_FAILED
    assert capsys.readouterr().err == "error: the database cannot be read\n"


@pytest.mark.usefixtures("failing")
def test_a_command_may_choose_its_exit_code() -> None:
    assert _run("fail", "nothing") == cli.EXIT_NOTHING
    assert _run("fail") == cli.EXIT_USAGE


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--version") == 0
    assert capsys.readouterr().out.startswith("nightkeep ")
