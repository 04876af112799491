"""``nightkeep keys`` and ``nightkeep accounts`` against a running gateway, and on a data directory without one."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nightkeep.bootstrap import Running, start
from nightkeep.cli import accounts, keys, operator
from nightkeep.config import load
from nightkeep.control.key_text import KEY_PREFIX, is_whole
from nightkeep.core.errors import AuthenticationError, ConfigError

NOWHERE = "http://127.0.0.1:1"
Run = Callable[..., Coroutine[Any, Any, Result]]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    running = await start(load(None, {}), {}, tmp_path, {"port": 0})
    yield running
    await running.close(0)


@pytest.fixture
def run(gateway: Running, tmp_path: Path) -> Run:
    async def run(*arguments: str, stdin: str | None = None, **environ: str) -> Result:
        env = {"NIGHTKEEP_URL": gateway.address, "NIGHTKEEP_DATA": str(tmp_path), **environ}
        verb, *rest = arguments
        command = {"enable": accounts, "disable": accounts, "check": operator, "replace": operator}.get(
            verb, keys
        ).command
        words = ["rotate" if verb == "replace" else verb, *rest]
        return await asyncio.to_thread(CliRunner(env=env).invoke, command, words, stdin)

    return run


def offline(directory: Path, *arguments: str) -> Result:
    return CliRunner(env={"NIGHTKEEP_URL": NOWHERE, "NIGHTKEEP_DATA": str(directory)}).invoke(
        keys.command, list(arguments)
    )


def name_of(gateway: Running, key: str) -> str:
    try:
        return gateway._doors.keys.authenticate(key, gateway.clock.now()).name
    except AuthenticationError:
        return "refused"


async def test_a_key_is_alone_on_stdout_and_works_at_once(gateway: Running, run: Run) -> None:
    made = await run("create", "team-a", "--scope", "acme", "--models", "gpt-*,claude-*", "--expires", "30d")
    key = made.stdout.removesuffix("\n")
    assert is_whole(KEY_PREFIX, key)
    assert key not in made.stderr
    assert "serves nobody without a key" in made.stderr
    assert name_of(gateway, key) == "team-a"
    shown = await run("show", "team-a")
    assert "gpt-*, claude-*" in shown.stdout
    assert key not in shown.output


async def test_rotate_and_revoke_hold_at_once(gateway: Running, run: Run) -> None:
    old = (await run("create", "team-a", "--scope", "acme")).stdout.strip()
    new = (await run("rotate", "team-a", "--overlap", "1h")).stdout.strip()
    assert [name_of(gateway, each) for each in (old, new)] == ["team-a", "team-a"]
    dry = await run("revoke", "team-a", "--dry-run")
    assert dry.stdout.count("would be revoked") == 2
    assert name_of(gateway, new) == "team-a"
    assert (await run("revoke", "team-a", "--why", "leaked")).exit_code == 0
    assert [name_of(gateway, each) for each in (old, new)] == ["refused", "refused"]
    page = await run("show", "team-a")
    assert page.stdout.count("by operator: leaked") == 2
    told = json.loads((await run("show", "team-a", "--json")).stdout)["log"]
    assert [event["verb"] for event in told] == ["created", "rotated", "revoked", "revoked"]
    again = await run("revoke", "team-a")
    assert (again.exit_code, "nothing changed" in again.stdout) == (0, True)
    assert (await run("list")).exit_code == 4
    assert json.loads((await run("list", "--all", "--json")).stdout)[0]["state"] == "revoked"


async def test_the_table_is_not_wider_than_a_screen(run: Run) -> None:
    await run("create", "team-a", "--scope", "acme/triage", "--models", "gpt-*,claude-*,gemini-*", "--expires", "30d")
    lines = (await run("list")).stdout.splitlines()
    assert lines[0].split() == ["NAME", "SCOPE", "STATE", "KEY", "MODELS", "TAGS", "EXPIRES", "LAST", "USED"]
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("create", "a b", "--scope", "x"), 1, "is no name of a key"),
        (("create", "a", "--scope", "x//y"), 1, "segment"),
        (("create", "a"), 2, "--scope"),
        (("create", "a", "--scope", "x", "--expires", "soon"), 2, "is no span"),
        (("create", "a", "--scope", "x", "--expires", "2020-01-01"), 1, "is over"),
        (("create", "a", "--scope", "x", "--expires", "2020-99-99"), 2, "no date"),
        (("create", "a", "--scope", "x", "--usd-per-day", "much"), 2, "no amount"),
        (("create", "a", "--scope", "x", "--usd-per-day", "NaN"), 2, "no amount"),
        (("create", "a", "--scope", "x", "--usd-per-day", "-1"), 1, "positive"),
        (("show", "nobody"), 4, "no key 'nobody'"),
        (("revoke", "nobody"), 4, "no key 'nobody'"),
        (("revoke", "nobody", "--dry-run"), 4, "no key 'nobody'"),
        (("rotate", "../../etc"), 4, "no key"),
        (("list",), 4, "keys create"),
    ],
)
async def test_what_cannot_be_is_told_with_the_way_out(
    run: Run, arguments: tuple[str, ...], code: int, words: str
) -> None:
    result = await run(*arguments)
    assert result.exit_code == code, result.output
    assert words in result.output


async def test_without_the_token_the_message_says_where_it_is(run: Run, tmp_path: Path) -> None:
    refused = await run("create", "a", "--scope", "x", NIGHTKEEP_DATA=str(tmp_path / "elsewhere"))
    assert refused.exit_code == 1
    assert "operator.token" in refused.stderr
    assert "--data" in refused.stderr
    assert "NIGHTKEEP_TOKEN" in refused.stderr


async def test_the_token_is_found_by_option_environment_or_directory(run: Run, tmp_path: Path) -> None:
    away = str(tmp_path / "elsewhere")
    token = (tmp_path / "operator.token").read_text()
    assert (await run("disable", "sim-1", NIGHTKEEP_DATA=away)).exit_code == 1
    assert (await run("disable", "sim-1")).exit_code == 0
    assert (await run("enable", "sim-1", "--data", str(tmp_path), NIGHTKEEP_DATA=away)).exit_code == 0
    assert (await run("disable", "sim-1", NIGHTKEEP_DATA=away, NIGHTKEEP_TOKEN=token)).exit_code == 0
    assert (await run("create", "a", "--scope", "x", "--data", str(tmp_path), NIGHTKEEP_DATA=away)).exit_code == 0
    wrong = await run("disable", "sim-1", NIGHTKEEP_TOKEN="nko-wrong")
    assert (wrong.exit_code, "not this gateway's" in wrong.stderr) == (1, True)
    broken = await run("disable", "sim-1", NIGHTKEEP_TOKEN="secret\nx-evil: 1")
    assert (broken.exit_code, "secret" in broken.output) == (1, False)


async def test_a_token_that_was_found_by_itself_is_not_sent_to_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nightkeep.cli.api_client import _secret

    (tmp_path / "operator.token").write_text("nko-found\n")
    monkeypatch.setenv("NIGHTKEEP_DATA", str(tmp_path))
    monkeypatch.delenv("NIGHTKEEP_TOKEN", raising=False)
    monkeypatch.delenv("NIGHTKEEP_KEY", raising=False)
    assert _secret("127.0.0.1", None) == "nko-found"
    assert _secret("gateway.example", None) is None
    assert _secret("gateway.example", str(tmp_path)) == "nko-found"
    monkeypatch.setenv("NIGHTKEEP_TOKEN", "nko-given")
    assert _secret("gateway.example", None) == "nko-given"


async def test_operator_check_says_which_token_is_found_and_whether_it_is_taken(run: Run, tmp_path: Path) -> None:
    good = await run("check", "--json")
    assert (good.exit_code, json.loads(good.stdout)["taken"]) == (0, True)
    lost = await run("check", NIGHTKEEP_DATA=str(tmp_path / "elsewhere"))
    assert lost.exit_code == 1
    assert "not there" in lost.stdout
    wrong = await run("check", NIGHTKEEP_TOKEN="nko-wrong")
    assert wrong.exit_code == 1
    assert "nko-wrong" not in wrong.output
    before = (tmp_path / "operator.token").read_text()
    dry = await run("replace", "--dry-run")
    assert (dry.exit_code, (tmp_path / "operator.token").read_text()) == (0, before)
    replaced = await run("replace")
    assert (replaced.exit_code, (await run("check")).exit_code) == (0, 0)
    after = (tmp_path / "operator.token").read_text()
    assert after != before
    assert after.strip() not in replaced.output
    assert (await run("replace", NIGHTKEEP_DATA=str(tmp_path / "elsewhere"))).exit_code == 4


async def test_a_gateway_at_another_address_is_not_gone_around(gateway: Running, tmp_path: Path) -> None:
    refused = await asyncio.to_thread(offline, tmp_path, "create", "a", "--scope", "x")
    assert refused.exit_code == 1
    assert "--url" in refused.stderr
    assert name_of(gateway, "anything") == ""


def test_without_a_gateway_the_data_directory_is_changed_and_the_next_gateway_asks_for_the_key(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    assert offline(directory, "list").exit_code == 4
    assert not directory.exists()  # looking makes nothing
    key = offline(directory, "create", "team-a", "--scope", "acme").stdout.strip()
    assert offline(directory, "create", "team-a", "--scope", "acme").exit_code == 1
    old = offline(directory, "create", "team-b", "--scope", "beta").stdout.strip()
    new = offline(directory, "rotate", "team-b", "--overlap", "0").stdout.strip()

    async def serve() -> list[str]:
        running = await start(load(None, {}), {}, directory, {"port": 0})
        names = [name_of(running, each) for each in (key, old, new, "nk-other")]
        await running.close(0)
        return names

    assert asyncio.run(serve()) == ["team-a", "refused", "team-b", "refused"]
    assert offline(directory, "revoke", "team-a").exit_code == 0
    assert asyncio.run(serve()) == ["refused", "refused", "team-b", "refused"]


def test_a_gateway_beyond_loopback_starts_with_a_stored_key_only(tmp_path: Path) -> None:
    async def serve() -> None:
        await (await start(load(None, {}), {}, tmp_path, {"port": 0, "host": "0.0.0.0"})).close(0)

    with pytest.raises(ConfigError, match="no virtual key"):
        asyncio.run(serve())
    offline(tmp_path, "create", "team-a", "--scope", "acme")
    asyncio.run(serve())


def test_hash_prints_the_line_of_the_settings_file() -> None:
    key = "nk-" + "x" * 40
    line = f'hash = "sha256:{hashlib.sha256(key.encode()).hexdigest()}"'
    plain = CliRunner().invoke(keys.command, ["hash"], key + "\n")
    assert plain.stdout == line + "\n"
    section = CliRunner().invoke(keys.command, ["hash", "ci", "--scope", "acme/ci"], key)
    assert section.stdout == f'[keys.ci]\nscope = "acme/ci"\n{line}\n'
    assert "may be guessed" in CliRunner().invoke(keys.command, ["hash"], "short").stderr
    assert CliRunner().invoke(keys.command, ["hash"], "").exit_code == 2
