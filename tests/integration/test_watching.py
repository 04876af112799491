"""Watching on a real gateway: what the rules find reaches people, stops what it may stop, and outlives a restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from integration.money_world import World, money_world
from nightkeep.cli.alerts import command as alerts_command
from nightkeep.cli.watch import command as watch_command
from nightkeep.server.http import Exchange, serve

LOOP = '[watch.same_request]\naction = "pause"\n'


class Phone:
    """A webhook."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def take(self, exchange: Exchange) -> None:
        self.got.put_nowait(json.loads(exchange.request.body))
        exchange.respond(204, [], b"")

    async def next(self, kind: str) -> dict[str, Any]:
        while True:
            message = await asyncio.wait_for(self.got.get(), 10)
            if message["kind"] == kind:
                return message


@pytest.fixture
async def phone() -> AsyncIterator[tuple[Phone, str]]:
    made = Phone()
    server = await serve(made.take)
    yield made, f'[notify]\nwebhook = "http://127.0.0.1:{server.port}/hook"\n'
    await server.close(0)


async def found(world: World, rule: str) -> list[dict[str, Any]]:
    watched = await world.api("/api/watch")
    return next(each["findings"] for each in watched["rules"] if each["rule"] == rule)


async def test_forty_seven_identical_calls_are_stopped_at_ten_and_told_once(
    tmp_path: Path, phone: tuple[Phone, str]
) -> None:
    ear, notify = phone
    async with money_world(tmp_path, notify + LOOP) as world:
        answers = []
        for n in range(47):
            answer = await world.ask("the same", x_nightkeep_scope="acme/triage")
            body = json.loads(await answer.read(10, 1 << 20))
            answers.append((answer.status, body.get("error", {}).get("code")))
            if n in (4, 9):
                assert await found(world, "same_request")
            if n == 9:
                assert (await ear.next("paused"))["level"] == "critical"
        assert [status for status, _ in answers[:10]] == [200] * 10
        assert {status for status, _ in answers[10:]} == {403}
        (await world.ask("something else", x_nightkeep_scope="acme/other")).close()
        told = await world.api("/api/alerts?state=all")
        loops = [alert for alert in told["alerts"] if alert["kind"] == "same_request"]
        assert len(loops) == 1
        assert loops[0]["scope"] == "acme/triage"
        status = await world.api("/api/status")
        assert status["alerts"]["critical"] == 2
        assert status["alerts"]["channels"][0]["state"] == "ok"


async def test_large_bodies_that_differ_in_the_middle_are_not_the_same(tmp_path: Path) -> None:
    async with money_world(tmp_path, "") as world:
        for n in range(12):
            text = "a" * 8_000 + f"{n:04}" + "b" * 8_000
            (await world.ask(text)).close()
        assert not await found(world, "same_request")
        for _ in range(5):
            (await world.ask("c" * 20_000)).close()
        assert len(await found(world, "same_request")) == 1


async def test_traffic_beside_scopes_is_unattributed(tmp_path: Path) -> None:
    async with money_world(tmp_path, "") as world:
        await (await world.ask("one", user_agent="stray/1")).read(10, 1 << 20)
        assert not await found(world, "unattributed")
        await (await world.ask("two", x_nightkeep_scope="acme")).read(10, 1 << 20)
        await found(world, "unattributed")
        await (await world.ask("three", user_agent="stray/1")).read(10, 1 << 20)
        (finding,) = await found(world, "unattributed")
        assert "stray/1 at 127.0.0.1 used 12,000 tokens ($0.06) in 1 call " in finding["text"]


async def test_a_baseline_outlives_a_restart(tmp_path: Path) -> None:
    async with money_world(tmp_path, "[watch.spend_rate]\nmin_usd = 0.05\nmin_hours = 3\n") as world:
        await (await world.ask("now", x_nightkeep_scope="acme")).read(10, 1 << 20)
        assert not await found(world, "spend_rate")
        await world.restart()  # the ledger is written
        store = world.gateway._store
        assert store is not None
        columns = [row[1] for row in await store.read("PRAGMA table_info(ledger)")]
        others = ", ".join(str(name) for name in columns if name not in ("id", "at", "cost_micro_usd"))
        for hours in range(1, 6):
            at = int((world.gateway.clock.now() - timedelta(hours=hours)).timestamp() * 1000)
            await store.write(
                lambda transaction, at=at, hours=hours: transaction.execute(
                    f"INSERT INTO ledger (id, at, cost_micro_usd, {others}) "
                    f"SELECT id || '{hours}', {at}, 100000, {others} FROM ledger WHERE length(id) < 64 LIMIT 1"
                )
            )
        await world.restart()
        await (await world.ask("again", x_nightkeep_scope="acme")).read(10, 1 << 20)
        (finding,) = await found(world, "spend_rate")
        assert finding["scope"] == "acme"
        assert "$0.0017 is usual" in finding["text"]


async def test_the_commands_show_what_the_api_says(tmp_path: Path) -> None:
    async with money_world(tmp_path, '[notify.channels.slack]\nurl = "env:NOT_THERE"\n') as world:
        for _ in range(5):
            await (await world.ask("same", x_nightkeep_scope="acme")).read(10, 1 << 20)
        await found(world, "same_request")
        where = ["--url", world.gateway.address, "--data", str(world.data)]

        async def run(command: Any, *arguments: str) -> Any:
            return await asyncio.to_thread(CliRunner().invoke, command, [*arguments, *where])

        shown = await run(watch_command)
        assert shown.exit_code == 0, shown.output
        assert "acme sent the same request to m 5 times within 5 minutes" in " ".join(shown.output.split())
        assert max(len(line) for line in shown.output.splitlines()) <= 100
        listed = await run(alerts_command, "list")
        assert "warning " in listed.output
        assert "failing" in listed.output
        alerts = json.loads((await run(alerts_command, "list", "--json")).output)
        (alert,) = [each for each in alerts["alerts"] if each["kind"] == "same_request"]
        acked = await run(alerts_command, "ack", alert["id"], "--why", "known")
        assert acked.exit_code == 0, acked.output
        told = await run(alerts_command, "show", alert["id"])
        assert "by operator: known" in told.output
        tested = await run(alerts_command, "test", "slack")
        assert tested.exit_code == 1
        assert "NOT_THERE is not set" in tested.output
        assert (await run(alerts_command, "test", "nobody")).exit_code == 4
        assert (await run(alerts_command, "show", "alert_none")).exit_code == 4
        await world.gateway.close(0)
        offline = await run(alerts_command, "list", "--state", "all")
        assert offline.exit_code == 0, offline.output
        assert "acked" in offline.output
        gone = await run(alerts_command, "ack", alert["id"])
        assert gone.exit_code == 1


async def test_who_changes_alerts_must_be_the_operator(tmp_path: Path) -> None:
    async with money_world(tmp_path, "") as world:
        for path in ("/api/alerts/test", "/api/alerts/alert_1/ack"):
            answer = await world.send("POST", path, {}, authorization="Bearer sk-nk-guess")
            text = await answer.read(10, 1 << 20)
            assert answer.status in (400, 401, 403, 404), text
