"""Budgets at the doors: real requests, a provider that bills, and never a cent above the cap."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from pathlib import Path

import pytest

from integration.money_world import GATEWAY, SIX_CENTS, World, money_world, read

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


LONG = """
delivery = { chunk_delay_ms = 2, chunk_chars = 40 }
[prices."*"]
input = 3.0
output = 1500.0
[[turns]]
match = { contains = "story" }
reply = { text = "TEXT" }
[[turns]]
reply = { text = "Done and done, that was all of it, thank you." }
""".replace("TEXT", "The night is long and somebody has to watch it. " * 60)
DEAR = GATEWAY.replace("output = 15.0", "output = 1500.0")


async def test_a_stream_is_stopped_at_the_cap_and_says_so(tmp_path: Path) -> None:
    budget = '[[budgets]]\nscope = "/"\nusd = 0.60\nper = "day"\n'
    async with money_world(tmp_path, budget, LONG, DEAR) as world:
        for n in range(5):
            await read(await world.ask(f"{n}", stream=True, fields={"max_tokens": 20}))
        stream = await world.ask("tell me a story", stream=True)
        assert stream.status == 200
        text = (await read(stream)).decode()
        assert "the answer is INCOMPLETE: it was stopped after" in text
        assert '"budget_exceeded"' in text
        assert "The night is long" in text  # what there is stays with the client
        assert await world.billed() <= 600_000
        (call,) = [row for row in await rows(world) if row[1] == "budget_exceeded"]
        assert call[0] == 200


async def rows(world: World) -> list[tuple[object, ...]]:
    await asyncio.sleep(0.1)
    database = sqlite3.connect(f"file:{world.data / 'nightkeep.db'}?mode=ro", uri=True)
    try:
        return database.execute("SELECT status, error_code, stripped, degraded FROM calls ORDER BY id").fetchall()
    finally:
        database.close()


async def test_a_whole_reply_is_clamped_and_the_client_is_told(tmp_path: Path) -> None:
    budget = '[[budgets]]\nscope = "/"\nusd = 0.60\nper = "day"\n'
    async with money_world(tmp_path, budget, LONG, DEAR) as world:
        for n in range(5):
            await read(await world.ask(f"{n}", fields={"max_tokens": 20}))
        answer = await world.ask("tell me a story")
        body = json.loads(await read(answer))
        assert answer.status == 200
        assert "max_tokens" in answer.headers["x-nightkeep-stripped"]
        assert body["choices"][0]["finish_reason"] == "length"
        assert await world.billed() <= 600_000


async def test_many_choices_are_many_answers_to_pay(tmp_path: Path) -> None:
    budget = '[[budgets]]\nscope = "/"\nusd = 1.00\nper = "day"\n'
    async with money_world(tmp_path, budget, LONG, DEAR) as world:
        for n in range(5):
            await read(await world.ask(f"{n}", fields={"max_tokens": 20}))
        before = world.sim.book.total
        refused = await world.ask("x", fields={"max_tokens": 600, "n": 100, "stream": True})
        if refused.status == 200:  # clamped to what there is
            assert "max_tokens" in refused.headers.get("x-nightkeep-stripped", "") or await world.billed() <= 1_000_000
        else:
            assert (refused.status, world.sim.book.total) == (402, before)


DEGRADING = """
[models.cheap]
targets = ["lab/small"]
[prices."lab/small"]
input = 0.1
output = 0.5
[[budgets]]
scope = "/"
usd = 1.00
per = "day"
thresholds = [{ at = 0.5, do = "degrade", to = "cheap" }]
"""


async def test_a_budget_that_is_half_spent_degrades_and_the_answer_says_so(tmp_path: Path) -> None:
    async with money_world(tmp_path, DEGRADING) as world:
        answers = [await world.ask(f"{n}", fields={"max_tokens": 2000}) for n in range(12)]
        served = [answer.headers["x-nightkeep-model"] for answer in answers]
        assert served[:9] == ["m"] * 9
        assert set(served[9:]) == {"small"}
        assert "50% of the budget" in answers[-1].headers["x-nightkeep-degraded"]


async def test_every_door_is_under_the_budget(tmp_path: Path) -> None:
    budget = '[[budgets]]\nscope = "/"\nrequests = 1\nper = "day"\n'
    async with money_world(tmp_path, budget) as world:
        assert (await world.ask()).status == 200
        chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        doors = {
            "/v1/chat/completions": chat,
            "/v1/responses": {"model": "m", "input": "hi"},
            "/v1/messages": {**chat, "max_tokens": 5},
            "/v1/embeddings": {"model": "m", "input": "hi"},
            "/v1beta/models/m:generateContent": {"contents": [{"parts": [{"text": "hi"}]}]},
            "/v1beta/models/m:streamGenerateContent?alt=sse": {"contents": [{"parts": [{"text": "hi"}]}]},
        }
        statuses = {path: (await world.send("POST", path, body)).status for path, body in doors.items()}
        assert set(statuses.values()) == {402}, statuses
        assert world.sim.book.total == 1


async def test_a_key_cannot_leave_its_budget_by_naming_another_scope(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"nk-acme").hexdigest()
    keys = f'[keys.acme]\nscope = "acme"\nhash = "sha256:{digest}"\n'
    budget = '[[budgets]]\nscope = "acme"\nrequests = 1\nper = "day"\n'
    async with money_world(tmp_path, budget + keys) as world:
        key = {"authorization": "Bearer nk-acme"}
        assert (await world.ask(**key)).status == 200
        for scope in ("beta", "/", "acme2", "../beta", "acme/../beta", "ACME", "acme%2f..%2fbeta", "a" * 200, "acme/x"):
            assert (await world.ask(x_nightkeep_scope=scope, **key)).status in (400, 402), scope
        assert world.sim.book.total == 1
        me = await world.send("GET", "/api/me/budgets")
        assert me.status == 200


async def test_counting_tokens_costs_nothing_and_leaves_nothing_open(tmp_path: Path) -> None:
    budget = '[[budgets]]\nscope = "/"\nusd = 0.000001\nper = "day"\n'
    counted = GATEWAY.replace('wire = "openai_chat"', 'wire = "anthropic_messages"')
    async with money_world(tmp_path, budget, SIX_CENTS, counted) as world:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        answer = await world.send("POST", "/v1/messages/count_tokens", body)
        assert answer.status == 200
        assert json.loads(await read(answer))["input_tokens"] > 0
        refused = await world.send("POST", "/v1/messages", {**body, "max_tokens": 100})
        assert refused.status == 402
        await asyncio.sleep(0.1)
        database = sqlite3.connect(f"file:{world.data / 'nightkeep.db'}?mode=ro", uri=True)
        try:
            assert database.execute("SELECT count(*) FROM ledger WHERE is_estimate <> 0").fetchall() == [(0,)]
        finally:
            database.close()
