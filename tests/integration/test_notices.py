"""Notices reach a real webhook, once per episode, and a webhook that fails is reported and stands in nobody's way."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from nightkeep.models.accounts import AccountChange, AccountStatus
from nightkeep.models.pools import PoolEpisode
from nightkeep.models.transport import HttpClient
from nightkeep.ops.notices import Notifier, describe
from nightkeep.server.http import Exchange, serve

EXHAUSTED = PoolEpisode(
    pool="production", segment=None, kind="exhausted", at=1.7e9, down=15, total=15, resets_at=1.7e9 + 60, states={}
)
COOLING = AccountChange(
    account="a", pool="p", before=AccountStatus.AVAILABLE, after=AccountStatus.COOLING, at=1.7e9, until=None, why=""
)


async def test_an_exhausted_pool_is_told_to_the_webhook_in_one_sentence() -> None:
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def take(exchange: Exchange) -> None:
        told.put_nowait(json.loads(exchange.request.body))
        exchange.respond(204, [], b"")

    server = await serve(take)
    client = HttpClient()
    notifier = Notifier(client, f"http://127.0.0.1:{server.port}/hook?x=1")
    notifier.tell(COOLING)
    notifier.tell(EXHAUSTED)
    notice = await asyncio.wait_for(told.get(), 5)
    assert "ALL 15 accounts of pool production are exhausted" in notice["text"]
    assert notice["level"] == "critical"
    assert notice["resets_at"].startswith("2023-11-14")
    assert told.empty()
    await notifier.close()
    client.close()
    await server.close(0)


async def test_a_webhook_that_fails_is_tried_again_then_reported_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    asked = 0

    async def fail(exchange: Exchange) -> None:
        nonlocal asked
        asked += 1
        exchange.respond(500, [], b"")

    server = await serve(fail)
    client = HttpClient()
    notifier = Notifier(client, f"http://127.0.0.1:{server.port}/")
    with caplog.at_level(logging.ERROR, "nightkeep.notices"):
        notifier.tell(EXHAUSTED)
        await asyncio.wait_for(notifier.flush(), 20)
    assert notifier.failed == 1
    assert asked == 3
    assert "could not be delivered" in caplog.text
    await notifier.close()
    client.close()
    await server.close(0)


@pytest.mark.parametrize("status", [AccountStatus.SUSPENDED, AccountStatus.AUTH_FAILED])
def test_an_account_that_does_not_come_back_by_itself_is_told_with_the_way_out(status: AccountStatus) -> None:
    change = AccountChange(
        account="main", pool="p", before=AccountStatus.AVAILABLE, after=status, at=1.7e9, until=None, why="HTTP 403"
    )
    notice = describe(change)
    assert notice is not None
    assert "main" in notice.text
    assert notice.level == "warning"
