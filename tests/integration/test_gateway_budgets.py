"""Budgets at the doors: real requests, a provider that bills, and never a cent above the cap."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import pytest

from integration.money_world import GATEWAY, money_world, read

DOLLAR = """
[[budgets]]
scope = "/"
usd = 1.00
per = "day"
"""


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("fields", [{}, {"max_tokens": 2000}], ids=["no-limit", "limit"])
async def test_two_hundred_calls_of_six_cents_spend_a_dollar_at_most(
    tmp_path: Path, stream: bool, fields: dict[str, int]
) -> None:
    async with money_world(tmp_path, DOLLAR) as world:
        answers = await asyncio.gather(*(world.ask(f"call {n}", stream=stream, fields=fields) for n in range(200)))
        bodies = await asyncio.gather(*(read(answer) for answer in answers))
        billed = await world.billed()
        assert billed <= 1_000_000
        assert billed >= 940_000
        refused = [json.loads(body) for answer, body in zip(answers, bodies, strict=True) if answer.status != 200]
        assert {body["error"]["code"] for body in refused} == {"budget_exceeded"}
        assert {answer.status for answer in answers} == {200, 402}
        (view,) = (await world.api("/api/budgets"))["budgets"]
        assert (view["spent"], view["left"]) == (billed, 1_000_000 - billed)


LIMITED = """
[[limits]]
scope = "acme"
requests_per_minute = 3
[keys.slow]
scope = "beta"
hash = "{hash}"
limits = {{ requests_per_minute = 2 }}
[gateway]
require_key = "never"
[gateway.queue]
max_wait_s = 0.2
"""


async def test_limits_of_scopes_and_of_keys_refuse_what_is_too_much_and_nothing_else(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"nk-slow").hexdigest()
    async with money_world(tmp_path, LIMITED.format(hash=f"sha256:{digest}")) as world:
        of_scope = [await world.ask(f"{n}", x_nightkeep_scope="acme/bot") for n in range(5)]
        assert [answer.status for answer in of_scope] == [200, 200, 200, 429, 429]
        assert b'"scope_limited"' in await read(of_scope[-1])
        assert int(of_scope[-1].headers["retry-after"]) > 5
        of_key = [await world.ask(f"{n}", authorization="Bearer nk-slow") for n in range(3)]
        assert [answer.status for answer in of_key] == [200, 200, 429]
        assert (await world.ask("other", x_nightkeep_scope="gamma")).status == 200
        assert world.sim.book.total == 6


STRICT = """
[[budgets]]
scope = "/"
usd = 0.05
per = "day"
strict = true
"""
COUNTED = """
[prices."*"]
input = 30.0
output = 15.0
[[turns]]
match = { contains = "dense" }
reply = { text = "Done.", usage = { input = 1_000, output = 10 } }
[[turns]]
reply = { text = "Done.", usage = { output = 10 } }
"""


async def test_a_strict_budget_is_not_passed_by_text_that_is_denser_than_all_before(tmp_path: Path) -> None:
    """A thousand characters that are a token each, after plain words: held at their bound, or refused."""
    prices = GATEWAY.replace("input = 3.0", "input = 30.0")
    async with money_world(tmp_path, STRICT, COUNTED, prices) as world:
        for n in range(5):
            assert (await world.ask(f"plain words {n}", fields={"max_tokens": 10})).status == 200
        dense = "dense " + "0123456789" * 99
        answers = await asyncio.gather(*(world.ask(f"{dense}{n}", fields={"max_tokens": 10}) for n in range(5)))
        assert {answer.status for answer in answers} == {200, 402}
        assert await world.billed() <= 50_000
