"""Alerts over real HTTP and a real store: told once per episode, kept, and a channel that fails is itself visible."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from nightkeep.models.account_book import AccountBook
from nightkeep.models.accounts import AccountChange, AccountSpec, AccountStatus
from nightkeep.models.pools import PoolEpisode, PoolSpec
from nightkeep.models.transport import HttpClient
from nightkeep.ops.alert_apprise import AppriseChannel, addressed
from nightkeep.ops.alert_channels import ChannelSpec, Message
from nightkeep.ops.alerts import Alert, AlertPolicy, Alerts
from nightkeep.ops.heartbeat import Heartbeat
from nightkeep.ops.notices import describe
from nightkeep.server.http import Exchange, HttpServer, serve
from nightkeep.store.sqlite import SqliteStore
from nightkeep.testing.clock import FakeClock

EXHAUSTED = PoolEpisode(
    pool="production", segment=None, kind="exhausted", at=1.7e9, down=15, total=15, resets_at=1.7e9 + 60, states={}
)
RECOVERED = PoolEpisode(
    pool="production", segment=None, kind="recovered", at=1.7e9, down=0, total=15, resets_at=None, states={}
)
COOLING = AccountChange(
    account="a", pool="p", before=AccountStatus.AVAILABLE, after=AccountStatus.COOLING, at=1.7e9, until=None, why=""
)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of apprise's plug-ins, on older Pythons
LOOP = Alert(key="watch:loop", text="The same request again and again.", level="warning", kind="same_request")


class Phone:
    """A service that messages are posted to."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.asked = 0
        self.status = 204
        self._server: HttpServer | None = None

    async def open(self) -> Phone:
        self._server = await serve(self._take)
        return self

    async def _take(self, exchange: Exchange) -> None:
        self.asked += 1
        if self.status < 300 and exchange.request.body:
            self.got.put_nowait(json.loads(exchange.request.body))
        exchange.respond(self.status, [], b"")

    @property
    def address(self) -> str:
        assert self._server is not None
        return f"127.0.0.1:{self._server.port}"

    async def next(self) -> dict[str, Any]:
        return await asyncio.wait_for(self.got.get(), 10)

    async def close(self) -> None:
        assert self._server is not None
        await self._server.close(0)


@pytest.fixture
async def phone() -> AsyncIterator[Phone]:
    made = await Phone().open()
    yield made
    await made.close()


async def no_pause(seconds: float) -> None:
    await asyncio.sleep(0)


@asynccontextmanager
async def running(data: Path, *channels: ChannelSpec, clock: FakeClock | None = None) -> AsyncIterator[Alerts]:
    clock = clock or FakeClock()
    store = SqliteStore.open(data, clock, pid=1)
    client = HttpClient()
    alerts = Alerts(store, client, clock, random.Random(1), AlertPolicy(channels=channels), pause=no_pause)
    await alerts.open()
    try:
        yield alerts
    finally:
        await alerts.close()
        await store.close()
        client.close()


def hook(phone: Phone, name: str = "hook") -> ChannelSpec:
    return ChannelSpec(name=name, address=f"http://{phone.address}/hook?x=1")


async def test_an_exhausted_pool_is_told_to_the_webhook_in_one_sentence(tmp_path: Path, phone: Phone) -> None:
    async with running(tmp_path, hook(phone)) as alerts:
        alerts.tell(COOLING)
        alerts.tell(EXHAUSTED)
        alerts.tell(EXHAUSTED)
        notice = await phone.next()
        assert "ALL 15 accounts of pool production are exhausted" in notice["text"]
        assert (notice["level"], notice["state"]) == ("critical", "open")
        assert notice["resets_at"].startswith("2023-11-14")
        assert [view.count for view in await alerts.find()] == [2]
        alerts.tell(RECOVERED)
        over = await phone.next()
        assert (over["state"], over["id"]) == ("resolved", notice["id"])
        assert "has recovered" in over["text"]
        await alerts.flush()
        assert phone.asked == 2
        assert not await alerts.find()
        (kept,) = await alerts.find("all")
        assert (kept.state, kept.deliveries) == ("resolved", {"hook": "sent"})


async def test_a_channel_that_fails_is_tried_again_reported_and_told_to_another(
    tmp_path: Path, phone: Phone, caplog: pytest.LogCaptureFixture
) -> None:
    phone.status = 500
    other = await Phone().open()
    async with running(tmp_path, hook(phone), hook(other, "other")) as alerts:
        with caplog.at_level(logging.ERROR, "nightkeep.alerts"):
            alerts.raise_(LOOP)
            texts = {(await other.next())["kind"], (await other.next())["kind"]}
        assert texts == {"same_request", "channel_failed"}
        await alerts.flush()
        assert phone.asked == 3
        assert "alert channel hook failed (HTTP 500)" in caplog.text
        health = alerts.health()
        assert [(view.name, view.state) for view in health.channels] == [("hook", "failing"), ("other", "ok")]
        found = {view.kind: view for view in await alerts.find()}
        assert found["same_request"].deliveries == {"hook": "failed: HTTP 500", "other": "sent"}
        assert found["channel_failed"].deliveries == {"other": "sent"}
        phone.status = 204
        assert [result.ok for result in await alerts.test("hook")] == [True]
        assert (await phone.next())["state"] == "test"
        assert (await phone.next())["kind"] == "same_request"  # what it missed
        assert (await other.next())["kind"] == "channel_failed"
        await alerts.flush()
        assert alerts.open_keys() == ["watch:loop"]
    await other.close()


async def test_an_episode_outlives_a_restart_and_is_not_told_twice(tmp_path: Path, phone: Phone) -> None:
    clock = FakeClock()
    async with running(tmp_path, hook(phone), clock=clock) as alerts:
        alerts.raise_(LOOP)
        first = await phone.next()
        await alerts.flush()
    clock.advance(60)
    async with running(tmp_path, hook(phone), clock=clock) as alerts:
        alerts.raise_(LOOP)
        await alerts.flush()
        (found,) = await alerts.find()
        assert (found.id, found.count) == (first["id"], 2)
        assert phone.asked == 1


async def test_what_was_not_delivered_before_a_restart_is_delivered_after_it(tmp_path: Path, phone: Phone) -> None:
    async with running(tmp_path) as alerts:
        alerts.raise_(LOOP)
        await alerts.flush()
    async with running(tmp_path, hook(phone)) as alerts:
        assert (await phone.next())["kind"] == "same_request"


async def test_an_acknowledged_alert_is_silent_until_it_becomes_worse(tmp_path: Path, phone: Phone) -> None:
    async with running(tmp_path, hook(phone)) as alerts:
        alerts.raise_(LOOP)
        alert_id = (await phone.next())["id"]
        seen = await alerts.acknowledge(alert_id, "operator", "known")
        assert seen is not None
        assert (seen.state, seen.acked_by, seen.acked_why) == ("acked", "operator", "known")
        alerts.raise_(LOOP)
        alerts.raise_(Alert(key=LOOP.key, text="Worse.", level="critical", kind=LOOP.kind))
        assert (await phone.next())["text"] == "Worse."
        assert await alerts.acknowledge("alert_none", "operator", "") is None


async def test_a_store_that_fails_does_not_keep_people_from_being_told(tmp_path: Path, phone: Phone) -> None:
    clock = FakeClock()
    store = SqliteStore.open(tmp_path, clock, pid=1)
    client = HttpClient()
    alerts = Alerts(store, client, clock, random.Random(1), AlertPolicy(channels=(hook(phone),)), pause=no_pause)
    await alerts.open()
    await store.close()
    alerts.raise_(LOOP)
    assert (await phone.next())["kind"] == "same_request"
    assert alerts.health().unsaved == 1
    await alerts.close()
    client.close()


async def test_a_channel_without_an_address_says_why_and_stops_nothing(tmp_path: Path, phone: Phone) -> None:
    broken = ChannelSpec(name="slack", address="", kind="apprise", fault="the environment variable S is not set")
    async with running(tmp_path, broken, hook(phone)) as alerts:
        (result, _) = await alerts.test()
        assert (result.ok, result.error) == (False, "the environment variable S is not set")
        while (await phone.next())["kind"] != "channel_failed":
            pass


async def test_a_channel_that_is_taken_away_no_longer_fails(tmp_path: Path, phone: Phone) -> None:
    broken = ChannelSpec(name="slack", address="", kind="apprise", fault="no address")
    async with running(tmp_path, broken, hook(phone)) as alerts:
        while (await phone.next())["kind"] != "channel_failed":
            pass
        assert alerts.open_keys() == ["channel:slack"]
        alerts.configure(AlertPolicy(channels=(hook(phone),)))
        assert (await phone.next())["state"] == "resolved"
        assert alerts.open_keys() == []
        assert alerts.channels == ["hook"]


async def test_what_was_held_back_is_told_when_the_limit_is_lifted(tmp_path: Path, phone: Phone) -> None:
    async with running(tmp_path) as alerts:
        alerts.configure(AlertPolicy(channels=(hook(phone),), per_hour=1))
        for n in range(3):
            alerts.raise_(Alert(key=f"k{n}", text=f"Alert {n}.", level="warning", kind="t"))
        assert (await phone.next())["key"] == "k0"
        await alerts.flush()
        assert phone.asked == 1
        alerts.configure(AlertPolicy(channels=(hook(phone),), per_hour=100))
        assert {(await phone.next())["key"], (await phone.next())["key"]} == {"k1", "k2"}
        await alerts.flush()
        assert phone.asked == 3


async def test_what_ended_while_no_gateway_ran_is_over(tmp_path: Path) -> None:
    clock = FakeClock()
    accounts = [AccountSpec(id="a", provider="p", pool="production")]
    book = AccountBook(
        [PoolSpec(name="production")], accounts, clock, on_change=lambda change: None, schedule=clock.schedule
    )
    async with running(tmp_path, clock=clock) as alerts:
        for key in ("pool:production", "pool:production (shared)", "account:a", "account:gone", "breaker:a:m"):
            alerts.raise_(Alert(key=key, text=key, level="warning", kind="t"))
        alerts.raise_(LOOP)
        await alerts.flush()
    async with running(tmp_path, clock=clock) as alerts:
        book.set_state("a", "disabled", "")
        alerts.settle(book.snapshot())
        assert sorted(alerts.open_keys()) == ["pool:production", "pool:production (shared)", "watch:loop"]
        book.set_state("a", "available", "")
        alerts.settle(book.snapshot())
        assert alerts.open_keys() == ["watch:loop"]


# -- several processes on one database


@asynccontextmanager
async def two_workers(data: Path, *channels: ChannelSpec) -> AsyncIterator[tuple[Alerts, Alerts]]:
    clock = FakeClock()
    store = SqliteStore.open(data, clock, pid=1)
    client = HttpClient()
    policy = AlertPolicy(channels=channels)
    teller, other = (
        Alerts(store, client, clock, random.Random(n), policy, pause=no_pause, is_teller=n == 0, is_alone=False)
        for n in range(2)
    )
    await teller.open()
    await other.open()
    try:
        yield teller, other
    finally:
        await other.close()
        await teller.close()
        await store.close()
        client.close()


async def test_what_two_workers_see_is_told_once_and_by_one(tmp_path: Path, phone: Phone) -> None:
    async with two_workers(tmp_path, hook(phone)) as (teller, other):
        for _ in range(100):
            other.tell(EXHAUSTED)
        teller.tell(EXHAUSTED)
        await other.flush()
        await teller.read_letters()
        notice = await phone.next()
        await teller.flush()
        assert phone.asked == 1
        (seen,) = await other.find()
        assert (seen.id, seen.count) == (notice["id"], 2)
        assert not other.health().is_teller
        acked = await other.acknowledge(seen.id, "operator", "known")
        assert acked is not None
        assert acked.state == "acked"
        await other.flush()
        await teller.read_letters()
        assert [view.state for view in await teller.find()] == ["acked"]
        other.tell(RECOVERED)
        await other.flush()
        await teller.read_letters()
        assert (await phone.next())["state"] == "resolved"
        assert not await teller.find()


async def test_another_worker_takes_over_when_the_teller_is_gone(tmp_path: Path, phone: Phone) -> None:
    async with two_workers(tmp_path, hook(phone)) as (teller, other):
        other.raise_(LOOP)
        await teller.close()
        await other.flush()
        await other.take_over()
        await other.read_letters()
        assert (await phone.next())["kind"] == "same_request"


# -- apprise


async def test_apprise_carries_a_message_to_a_real_server(tmp_path: Path, phone: Phone) -> None:
    spec = ChannelSpec(name="json", address=f"json://{phone.address}/", kind="apprise")
    async with running(tmp_path, spec) as alerts:
        alerts.raise_(LOOP)
        got = await phone.next()
        assert got["message"] == LOOP.text
        assert got["title"] == "Nightkeep: warning"
        assert got["type"] == "warning"


async def test_what_apprise_could_not_send_is_told_without_the_secret(tmp_path: Path, phone: Phone) -> None:
    phone.status = 403
    spec = ChannelSpec(name="json", address=f"json://user:hunter2@{phone.address}/", kind="apprise")
    async with running(tmp_path, spec) as alerts:
        (result,) = await alerts.test()
        assert not result.ok
        assert "403" in result.error or "Forbidden" in result.error
        assert "hunter2" not in result.error


@pytest.mark.parametrize(
    "address",
    [
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#alerts",
        "slack://xoxb-1234-1234-abc124/#alerts",
        "tgram://123456789:abcdefg_hijklmnop/12315544",
        "mailtos://user:password@smtp.example.com?from=a@example.com&to=b@example.com",
        "pagerduty://A1BRTD4JDA1BRTD4JDA1BRTD4JD123@A1BRTD4JDA1BRTD4JDA1",
    ],
)
async def test_the_addresses_of_the_documentation_are_understood(address: str) -> None:
    assert await AppriseChannel(address).check() == ""


@pytest.mark.parametrize("address", ["", "nonsense", "slack://", "carrierpigeon://coop", "pagerduty://x"])
async def test_an_address_that_is_not_understood_makes_a_channel_that_says_so(address: str) -> None:
    assert "not one that apprise knows" in await AppriseChannel(address).check()


async def test_pagerduty_gets_the_key_of_the_episode_so_that_its_end_closes_the_incident() -> None:
    message = Message(text="t", level="critical", kind="k", state="open", key="pool:a", at=FakeClock().now())
    key = "pagerduty://A1BRTD4JDA1BRTD4JDA1BRTD4JD123@A1BRTD4JDA1BRTD4JDA1"
    (first, second) = addressed(key, message), addressed(f"{key}?region=eu", message)
    assert first.startswith(f"{key}?action=map&dedup=")
    assert second.startswith(f"{key}?region=eu&action=map&dedup=")
    assert await AppriseChannel(second).check() == ""
    assert addressed("slack://x", message) == "slack://x"


# -- the dead man's switch


async def test_the_heartbeat_pings_while_all_is_well_and_stops_when_it_is_not(phone: Phone) -> None:
    trouble, told = "", []
    client = HttpClient()
    beat = Heartbeat(client, f"http://{phone.address}/ping", 60, FakeClock(), lambda: trouble, told.append)
    await beat.ping()
    assert (phone.asked, beat.view.state) == (1, "ok")
    trouble = "the disk is full"
    await beat.ping()
    assert (phone.asked, beat.view.state, beat.view.why) == (1, "withheld", "the disk is full")
    trouble = ""
    phone.status = 500
    for _ in range(4):
        await beat.ping()
    assert told == ["HTTP 500"]
    phone.status = 204
    await beat.ping()
    assert told == ["HTTP 500", ""]
    client.close()


@pytest.mark.parametrize("status", [AccountStatus.SUSPENDED, AccountStatus.AUTH_FAILED])
def test_an_account_that_does_not_come_back_by_itself_is_told_with_the_way_out(status: AccountStatus) -> None:
    change = AccountChange(
        account="main", pool="p", before=AccountStatus.AVAILABLE, after=status, at=1.7e9, until=None, why="HTTP 403"
    )
    alert = describe(change)
    assert alert is not None
    assert "main" in alert.text
    assert alert.level == "warning"


async def test_an_account_that_is_back_ends_its_episode(tmp_path: Path) -> None:
    def change(before: AccountStatus, after: AccountStatus) -> AccountChange:
        return AccountChange(account="main", pool="p", before=before, after=after, at=1.7e9, until=None, why="")

    async with running(tmp_path) as alerts:
        alerts.tell(change(AccountStatus.AVAILABLE, AccountStatus.SUSPENDED))
        assert alerts.open_keys() == ["account:main"]
        alerts.tell(change(AccountStatus.SUSPENDED, AccountStatus.AVAILABLE))
        assert alerts.open_keys() == []
