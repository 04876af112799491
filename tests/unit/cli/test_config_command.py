"""``nightkeep config``: a first file, its check, and what holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nightkeep.cli.config import command

KEY = "sk-proj-" + "x" * 60


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner(env=environ).invoke(command, list(arguments))


def test_the_starter_file_is_written_once_and_is_valid(tmp_path: Path) -> None:
    assert run("init").exit_code == 0
    assert run("check").exit_code == 0
    (tmp_path / "nightkeep.toml").write_text("[gateway]\nport = 1\n")
    assert run("init").exit_code == 1
    assert "port = 1" in (tmp_path / "nightkeep.toml").read_text()
    assert run("init", "--force").exit_code == 0
    assert "port = 7777" in (tmp_path / "nightkeep.toml").read_text()


def test_a_wrong_file_is_exit_code_3_with_the_line_and_the_fix(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("\n[gateway]\nprot = 1\n")
    result = run("check", str(file))
    assert result.exit_code == 3
    assert f"{file}:3: gateway.prot" in result.output
    assert "did you mean port?" in result.output
    found = json.loads(run("check", str(file), "--json").stdout)
    assert not found["valid"]
    assert found["errors"][0]["line"] == 3


def test_a_key_that_is_not_there_is_exit_code_3_unless_keys_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "nightkeep.toml").write_text('[accounts.a]\nprovider = "openai"\nkey = "env:NOT_THERE"\n')
    result = run("check")
    assert result.exit_code == 3
    assert "NOT_THERE is not set" in result.output
    assert run("check", "--no-keys").exit_code == 0


def test_what_holds_is_shown_with_where_it_comes_from_and_no_key(tmp_path: Path) -> None:
    (tmp_path / "nightkeep.toml").write_text("[gateway]\nport = 8000\n")
    result = run("show", OPENAI_API_KEY=KEY)
    assert result.exit_code == 0
    rows = [line.split() for line in result.output.splitlines()]
    assert ["gateway.port", "8000", "file"] in rows
    assert ["accounts.openai.provider", '"openai"', "environment"] in rows
    assert "sk-p…xx #" in result.output
    assert KEY not in result.output
    found = json.loads(run("show", "--json").stdout)
    origins = {each["setting"]: each["origin"] for each in found["settings"]}
    assert origins["gateway.port"] == "file"
    assert origins["gateway.host"] == "default"
