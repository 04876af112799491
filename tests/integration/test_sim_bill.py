"""The simulated provider's bill, request by request: what a gateway's ledger is held against."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from nightkeep.models.usage_report import CsvReport, SimReport
from nightkeep.testing.sim import RunningSim, load_scenario, start_sim
from nightkeep.testing.sim.records import Record, Records
from nightkeep.testing.sim.script import Tokens

EXAMPLE = Path(__file__).parents[2] / "examples" / "scenarios" / "billing.toml"


@pytest.fixture
async def sim() -> AsyncIterator[RunningSim]:
    sim = await start_sim(load_scenario(EXAMPLE))
    yield sim
    await sim.close()


async def ask(sim: RunningSim, name: str | None, **more: Any) -> int:
    headers = {"authorization": "Bearer sk-sim-a", **({"x-client-request-id": name} if name else {})}
    body = {"model": "gpt-5", "messages": [{"role": "user", "content": "hi"}], **more}
    async with httpx.AsyncClient(base_url=sim.base_url) as client:
        return (await client.post("/v1/chat/completions", json=body, headers=headers)).status_code


async def report(sim: RunningSim, query: str = "") -> httpx.Response:
    async with httpx.AsyncClient(base_url=sim.base_url) as client:
        return await client.get(f"/sim/usage/requests{query}")


async def test_each_billed_request_is_a_line_with_the_clients_own_name(sim: RunningSim) -> None:
    assert [await ask(sim, "call_x-1"), await ask(sim, None), await ask(sim, "call_y-1", nonsense=1)] == [200, 200, 400]
    first, second = (await report(sim)).json()["requests"]
    assert (first["client_request_id"], second["client_request_id"]) == ("call_x-1", "")
    assert (first["account"], first["input"], first["cached"], first["output"], first["micro_usd"]) == (
        "team-a", 1000, 800, 100, 1350
    )  # fmt: skip
    assert sum(line["micro_usd"] for line in (first, second)) == 2_700


async def test_json_and_csv_say_the_same(sim: RunningSim) -> None:
    await ask(sim, "call_x-1")
    (line,) = SimReport().read((await report(sim)).content)
    answer = await report(sim, "?format=csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert len(list(csv.DictReader(io.StringIO(answer.text)))) == 1
    (same,) = CsvReport({"at": "at_s", "request_id": "client_request_id"}).read(answer.content)
    assert (same.request_id, same.micro_usd, same.at_ms) == (line.request_id, line.micro_usd, line.at_ms)


async def test_since_is_a_time_and_other_providers_are_left_out(sim: RunningSim) -> None:
    await ask(sim, "call_x-1")
    assert (await report(sim, "?since=99999999999")).json()["requests"] == []
    assert (await report(sim, "?provider=other")).json()["requests"] == []
    assert len((await report(sim, "?since=1")).json()["requests"]) == 1
    assert (await report(sim, "?since=yesterday")).status_code == 400


def test_the_bill_is_bounded_and_each_request_is_rounded_up_by_itself() -> None:
    book = Records()
    assert book.billed.maxlen == 1_000_000
    for number in range(3):
        record = Record(number=number, at_s=1.0, provider="", method="POST", path="/", account="a", model="m")
        book.begin(record, {"x-client-request-id": "n" * 1_000}, b"")
        book.charge(record, Tokens(input=1, output=0), 1)
    lines = list(book.billed_requests())
    assert [line["micro_usd"] for line in lines] == [1, 1, 1]
    assert len(lines[0]["client_request_id"]) == 200
    assert len({id(billed.key) for billed in book.billed}) == 1  # kept once
