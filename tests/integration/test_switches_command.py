"""``nightkeep stop`` and ``resume`` against a running gateway and without one; attacks on the API behind them."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from integration.test_operators import Answer, ask, bearer
from nightkeep.bootstrap import Running, start
from nightkeep.cli import resume, stop
from nightkeep.config import load
from nightkeep.control.keys import hash_key
from nightkeep.control.stop_file import STOP_NAME
from nightkeep.core.errors import StoppedError

NOWHERE = "http://127.0.0.1:1"
AGENT = "nk-an-agents-own-key"
Run = Callable[..., Coroutine[Any, Any, Result]]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    running = await start(load(None, {}), {}, tmp_path, {"port": 0})
    yield running
    await running.close(0)


def invoke(directory: Path, url: str, *arguments: str, **environ: str) -> Result:
    env = {"NIGHTKEEP_URL": url, "NIGHTKEEP_DATA": str(directory), "SUDO_USER": "dana", **environ}
    command = {"stop": stop.command, "resume": resume.command}[arguments[0]]
    return CliRunner(env=env).invoke(command, list(arguments[1:]), prog_name=f"nightkeep {arguments[0]}")


@pytest.fixture
def run(gateway: Running, tmp_path: Path) -> Run:
    async def run(*arguments: str, **environ: str) -> Result:
        return await asyncio.to_thread(invoke, tmp_path, gateway.address, *arguments, **environ)

    return run


def allows(gateway: Running, scope: str = "acme/triage", **action: Any) -> bool:
    assert gateway.switches is not None
    try:
        gateway.switches.check(scope=scope, **{"tag": None, **action})
    except StoppedError:
        return False
    return True


async def post(gateway: Running, verb: str, body: Any, *headers: str) -> Answer:
    token = (gateway._store.directory / "operator.token").read_text().strip() if gateway._store else ""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await ask(gateway, "POST", f"/api/switches/{verb}", *(headers or (bearer(token),)), body=data)


async def test_stopping_everything_is_one_line_and_holds_at_once(gateway: Running, run: Run) -> None:
    done = await run("stop", "/", "--why", "the bill")
    assert done.exit_code == 0, done.output
    assert done.output == "stopped everything: 0 calls in flight were ended; resume with: nightkeep resume /\n"
    assert not allows(gateway)
    again = await run("stop", "/")
    assert again.exit_code == 0
    assert again.output.startswith("everything was stopped already, by dana@")
    assert again.output.rstrip().endswith("the bill; nothing changed")
    back = await run("resume", "/")
    assert back.output.startswith("everything goes on: it was stopped by dana@")
    assert allows(gateway)
    again = await run("resume", "/")
    assert (again.exit_code, again.output) == (0, "everything is not stopped; nothing changed\n")


@pytest.mark.parametrize(
    ("target", "action"),
    [
        (["acme"], {}),
        (["--model", "GPT-*"], {"models": ("smart", "openai/gpt-4.1")}),
        (["--account", "lab-1"], {"account": "lab-1"}),
        (["--tag", "batch"], {"tag": "batch"}),
        (["--tool", "mail.*"], {"tool": "mail.send"}),
    ],
)
async def test_each_kind_of_target_is_stopped_and_resumed(
    gateway: Running, run: Run, target: list[str], action: dict[str, Any]
) -> None:
    stopped = await run("stop", *target)
    assert stopped.exit_code == 0
    assert not allows(gateway, **action)
    assert allows(gateway, scope="other")
    way_back = stopped.output.rstrip().rpartition("nightkeep resume ")[2]
    assert (await run("resume", *shlex.split(way_back))).exit_code == 0
    assert allows(gateway, **action)


async def test_the_list_fits_a_screen_and_says_who_and_why(run: Run) -> None:
    assert (await run("stop", "--list")).output == "nothing is stopped\n"
    await run("stop", "acme/triage", "--why", "it mails everybody " * 20, "--drain")
    await run("stop", "--model", "gpt-*")
    shown = (await run("stop", "--list")).output.splitlines()
    assert shown[0].split() == ["STOPPED", "SINCE", "(UTC)", "BY", "HOW", "WHY"]
    assert max(map(len, shown)) <= 120
    listed = json.loads((await run("stop", "--list", "--json")).output)
    assert {each["name"] for each in listed} == {"acme/triage", "gpt-*"}


async def test_a_dry_run_changes_nothing(gateway: Running, run: Run) -> None:
    said = await run("stop", "/", "--dry-run")
    assert said.output == "everything would be stopped; calls in flight would be cut\n"
    assert allows(gateway)
    await run("stop", "/")
    assert "would go on" in (await run("resume", "--all", "--dry-run")).output
    assert not allows(gateway)


async def test_resuming_a_part_says_what_still_holds(run: Run) -> None:
    await run("stop", "/")
    await run("stop", "acme")
    said = await run("resume", "acme", "--json")
    assert json.loads(said.output)["still"]["name"] == "/"
    assert "still stopped: everything is" in (await run("resume", "acme")).output
    assert "everything goes on" in (await run("resume", "--all")).output


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["stop"], 2, "say what"),
        (["stop", "acme", "--tag", "x"], 2, "one thing at a time, not scope acme and tag x"),
        (["stop", "acme", "--list"], 2, "name nothing beside it"),
        (["stop", "acme%2Ftriage"], 1, "is not allowed"),
        (["stop", "acme/../other"], 1, "is not allowed"),
        (["stop", ""], 1, "/ is everything"),
        (["stop", "--model", ""], 1, "no name of a model"),
        (["resume"], 2, "say what"),
        (["resume", "acme", "--all"], 2, "say what"),
    ],
)
async def test_what_cannot_be_meant_is_refused(run: Run, arguments: list[str], code: int, words: str) -> None:
    said = await run(*arguments)
    assert (said.exit_code, words in said.output) == (code, True), said.output


async def test_without_a_gateway_the_file_stops_the_next_one_and_resume_takes_it_away(tmp_path: Path) -> None:
    gateway = await start(load(None, {}), {}, tmp_path, {"port": 0})
    await gateway.close(0)
    said = await asyncio.to_thread(invoke, tmp_path, NOWHERE, "stop", "/", "--why", "it hangs")
    assert said.exit_code == 0, said.output
    assert f"the file {tmp_path / STOP_NAME} was made" in said.output
    assert "ended" not in said.output
    assert "was stopped already" in invoke(tmp_path, NOWHERE, "stop", "/").output
    listed = json.loads(invoke(tmp_path, NOWHERE, "stop", "--list", "--json").output)
    assert [(each["source"], each["why"].split(" (by ")[0]) for each in listed] == [("file", "it hangs")]
    gateway = await start(load(None, {}), {}, tmp_path, {"port": 0})
    assert not allows(gateway)
    await gateway.close(0)
    assert "goes on" in invoke(tmp_path, NOWHERE, "resume", "/").output
    assert not (tmp_path / STOP_NAME).exists()


async def test_without_a_gateway_only_everything_can_be_stopped(tmp_path: Path) -> None:
    said = invoke(tmp_path, NOWHERE, "stop", "--model", "gpt-4.1")
    assert said.exit_code == 1
    assert "Nothing was changed" in said.output
    dry = invoke(tmp_path, NOWHERE, "stop", "/", "--dry-run")
    assert (dry.exit_code, (tmp_path / STOP_NAME).exists()) == (0, False)
    assert invoke(tmp_path / "none", NOWHERE, "stop", "/").exit_code == 1


async def test_no_file_is_left_here_for_a_gateway_elsewhere(tmp_path: Path) -> None:
    said = invoke(tmp_path, "http://gateway.invalid:7777", "stop", "/")
    assert said.exit_code == 1
    assert not (tmp_path / STOP_NAME).exists()


async def test_a_file_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / STOP_NAME).symlink_to(tmp_path / "precious")
    assert "stopped already" in invoke(tmp_path, NOWHERE, "stop", "/").output
    assert (tmp_path / "precious").read_text() == "kept"


# -- attacks


async def test_only_the_operator_may_use_switches(tmp_path: Path) -> None:
    config = tmp_path / "nightkeep.toml"
    config.write_text(f'[keys.team-a]\nscope = "acme"\nhash = "{hash_key(AGENT)}"\n')
    gateway = await start(load(config, {}), {}, tmp_path / "data", {"port": 0})
    wish = {"kind": "scope", "name": "/"}
    try:
        for verb in ("stop", "resume"):
            assert (await post(gateway, verb, wish, "x-nothing: 1")).status == 401
            assert (await post(gateway, verb, wish, bearer(AGENT))).status == 403
        assert (await ask(gateway, "GET", "/api/switches", bearer(AGENT))).status == 403
        assert (await ask(gateway, "GET", "/api/switches/log", bearer(AGENT))).status == 403
        assert allows(gateway)
    finally:
        await gateway.close(0)


async def test_an_agent_cannot_resume_itself_on_an_open_gateway(gateway: Running) -> None:
    await post(gateway, "stop", {"name": "/"})
    assert (await post(gateway, "resume", {"all": True}, "x-nothing: 1")).status == 401
    assert not allows(gateway)


@pytest.mark.parametrize(
    "header",
    ["origin: https://evil.example", "origin: null", "sec-fetch-site: cross-site", "origin: http://127.0.0.1:1"],
)
async def test_a_page_of_another_site_cannot_use_switches_even_with_the_token(gateway: Running, header: str) -> None:
    token = (gateway._store.directory / "operator.token").read_text().strip() if gateway._store else ""
    assert (await post(gateway, "stop", {"name": "/"}, bearer(token), header)).status == 403
    assert (await ask(gateway, "GET", "/api/switches", "host: evil.example")).status == 403
    assert allows(gateway)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b'"/"', b"{}", b'{"name": null}', b'{"name": 1}', b'{"name": ["/"]}', b"\xff\xfe",
        b'{"kind": "planet", "name": "x"}', b'{"kind": "scope", "name": ""}', b'{"name": "acme%2Fx"}',
        b'{"name": "../x"}', b'{"name": "acme", "dry_ran": true}', b'{"name": "acme", "drain": "yes"}',
        b'{"name": "a\\u0000b"}', b'{"name": "\\ud800"}', b'{"kind": "tag", "name": "a\\nb"}', b"[" * 100_000,
        b'{"name": "acme", "source": "rule:store"}', b'{"kind": "model", "name": "' + b"x" * 5_000_000 + b'"}',
    ],
)  # fmt: skip
async def test_a_malformed_body_is_refused_and_changes_nothing(gateway: Running, body: bytes) -> None:
    for verb in ("stop", "resume"):
        answer = await post(gateway, verb, body)
        assert (answer.status, answer.body["error"]["code"]) == (400, "invalid_request"), verb
    assert gateway.switches is not None
    assert (gateway.switches.stops, gateway.switches.generation) == ((), 0)


async def test_a_why_of_ten_megabytes_stops_all_the_same_and_is_cut_short(gateway: Running) -> None:
    wish = {"name": "acme", "why": "a\r\nx-evil: 1 " + "w" * 10_000_000, "by": "b" * 100_000}
    answer = await post(gateway, "stop", wish)
    assert answer.status == 200
    kept = answer.body["stop"]
    assert (len(kept["why"]), len(kept["by"])) == (500, 80)
    assert kept["why"].isprintable()


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=100000", "limit=x", "limit="])
async def test_a_limit_that_cannot_be_is_refused(gateway: Running, query: str) -> None:
    assert (await ask(gateway, "GET", f"/api/switches/log?{query}")).status == 400


async def test_while_everything_is_stopped_the_gateway_is_not_ready(gateway: Running) -> None:
    assert (await ask(gateway, "GET", "/api/ready")).body["ready"]
    await post(gateway, "stop", {"name": "/", "why": "the bill", "by": "dana"})
    ready = (await ask(gateway, "GET", "/api/ready")).body
    assert (ready["ready"], ready["problems"]) == (False, ["everything is stopped by dana: the bill"])


async def test_each_use_stands_in_the_log_with_who_and_why(gateway: Running, run: Run) -> None:
    await run("stop", "/", "--why", "the bill")
    await run("resume", "/", "--why", "paid")
    uses = (await ask(gateway, "GET", "/api/switches/log?limit=2")).body["uses"]
    assert [(use["verb"], use["why"], use["source"]) for use in uses] == [
        ("resumed", "paid", "command"),
        ("stopped", "the bill", "command"),
    ]
    assert all(use["by"].startswith("dana@") for use in uses)


async def test_hundreds_at_once_stop_and_resume_without_a_fault(gateway: Running) -> None:
    wishes = [("stop" if n % 2 else "resume", {"name": f"acme/t{n % 5}"}) for n in range(200)]
    answers = await asyncio.gather(*(post(gateway, verb, wish) for verb, wish in wishes))
    assert {answer.status for answer in answers} == {200}
    await post(gateway, "resume", {"all": True})
    assert allows(gateway, scope="acme/t1")
    assert (await ask(gateway, "GET", "/api/switches")).body["stops"] == []
