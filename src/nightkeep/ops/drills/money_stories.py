"""War stories about money: loops, races, wrong estimates, missing prices, crashes. Each is played as in ``stories``."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from nightkeep.control.budget_nodes import BudgetTable
from nightkeep.control.budget_specs import BudgetSpec
from nightkeep.core.windows import calendar_window
from nightkeep.ops.drills.stage import Answer, Stage

__all__ = [
    "LAB",
    "PRICES",
    "billed",
    "budget_race",
    "clock_edge",
    "fifteen_accounts_money",
    "forty_eight_hour_loop",
    "missing_price",
    "reconcile_after_kill",
    "wrong_estimate",
]

LAB: Final = """
[providers.lab]
wire = "openai_chat"
base_url = "{sim}/v1"
[models.m]
targets = ["lab/gpt-4.1"]
[prices."lab/gpt-4.1"]
input = 3.0
output = 15.0
[gateway.queue]
max_wait_s = 2
[notify]
webhook = "{person}"
"""
ONE: Final = '[accounts.lab-1]\nprovider = "lab"\nkey = "env:LAB_KEY"\n'
PRICES: Final = '[prices."*"]\ninput = 3.0\noutput = 15.0\n'
SIX_CENTS: Final = PRICES + '[[turns]]\nreply = { text = "Done.", usage = { input = 10_000, output = 2_000 } }\n'


async def billed(stage: Stage) -> int:
    """What the provider has billed, in micro-dollars."""
    return int(Decimal((await stage.stats())["usd"]) * 1_000_000)


def _codes(answers: list[Answer]) -> list[str]:
    return sorted({answer.json["error"]["code"] for answer in answers if answer.status not in (200, 0)})


async def forty_eight_hour_loop(stage: Stage) -> None:
    """A job classifies for ever and asks again whatever happens, as it did for 48 hours and $500: the daily budget ends
    it at the cap, a person hears of it at every mark, and then nothing reaches the provider any more."""
    budget = '[[budgets]]\nscope = "jobs"\nusd = 1.00\nper = "day"\n'
    await stage.play("delivery = { first_byte_ms = 2 }\n" + SIX_CENTS, LAB + ONE + budget)
    answers = []
    for n in range(60):
        answers.append(await stage.ask(f"classify item {n}", x_nightkeep_scope="jobs/classifier"))
    spent, before = await billed(stage), (await stage.stats())["requests"]
    stage.check("what the provider billed stays under $1.00", spent <= 1_000_000, f"${spent / 1e6:.2f}")
    stage.check("and the budget was of use", spent >= 940_000, f"${spent / 1e6:.2f}")
    stage.check(
        "every further call is refused with one typed error", _codes(answers) == ["budget_exceeded"], _codes(answers)
    )
    again = [await stage.ask(f"classify item {n}", x_nightkeep_scope="jobs/classifier") for n in range(60)]
    after = (await stage.stats())["requests"]
    stage.check("sixty more tries reach nobody", after == before, f"{before} requests before, {after} after")
    advice = {answer.headers.get("x-should-retry") for answer in again}
    stage.check("SDKs are told not to retry", advice == {"false"}, f"x-should-retry: {advice}")
    await stage.person.until("90% spent")
    marks = {mark: stage.person.count(f"{mark}% spent") for mark in (50, 80, 90)}
    stage.check("a person was told at 50, 80 and 90 %, once each", set(marks.values()) == {1}, marks)
    other = await stage.ask(x_nightkeep_scope="people/ann")
    stage.check("others are served", other.status == 200, other.status)


async def budget_race(stage: Stage) -> None:
    """Two hundred calls of six cents arrive at once before one dollar: the dollar is used and not passed, and the rest
    is refused at once. (A peer lets $3.84 through.)"""
    budget = '[[budgets]]\nscope = "/"\nusd = 1.00\nper = "once"\n'
    await stage.play("delivery = { first_byte_ms = 5 }\n" + SIX_CENTS, LAB + ONE + budget)
    answers = list(await asyncio.gather(*(stage.ask(f"call {n}", stream=bool(n % 2)) for n in range(200))))
    spent = await billed(stage)
    served = sum(answer.status == 200 for answer in answers)
    stage.check("no more than $1.00 was billed", spent <= 1_000_000, f"${spent / 1e6:.2f} for {served} calls")
    stage.check("and no less than $0.94", spent >= 940_000, f"${spent / 1e6:.2f}")
    statuses = sorted({answer.status for answer in answers})
    stage.check("all others got 402 and the reason", statuses == [200, 402], f"{statuses}, {_codes(answers)}")


async def wrong_estimate(stage: Stage) -> None:
    """A batch was estimated at two cents an item and costs six: it stops at 90 % of its budget, while people who wait
    for an answer are still served from what is left."""
    budget = '[[budgets]]\nscope = "posts"\nusd = 1.50\nper = "day"\n'
    await stage.play(SIX_CENTS, LAB + ONE + budget)
    answers = []
    for n in range(40):
        answers.append(await stage.ask(f"post {n}", x_nightkeep_scope="posts/writer", x_nightkeep_tag="batch"))
    spent = await billed(stage)
    refused = next(answer for answer in answers if answer.status != 200)
    stage.check("the batch stopped at 90 %", 1_350_000 <= spent < 1_500_000, f"${spent / 1e6:.2f} of $1.50")
    words = refused.json["error"]["message"]
    stage.check("and was told why", "batch work has stopped" in words, words)
    waiting = await stage.ask("when does it open?", x_nightkeep_scope="posts/editor", x_nightkeep_tag="interactive")
    stage.check("who waits for an answer is served", waiting.status == 200, waiting.status)
    await stage.person.until("batch work has stopped")
    stage.check("a person knows", stage.person.count("batch work has stopped") == 1, len(stage.person.received))


async def fifteen_accounts_money(stage: Stage) -> None:
    """All fifteen accounts are exhausted at once: refusals cost nothing, and the ledger says what the bill says."""
    accounts = "".join(f'[accounts.a{n:02}]\nprovider = "lab"\nkey = "env:KEY_{n}"\n' for n in range(15))
    keys = {f"KEY_{n}": f"sk-lab-{n:02}-0123456789" for n in range(15)}
    known = "".join(
        f'[accounts.a{n:02}]\nkey = "sk-lab-{n:02}-0123456789"\nquota = {{ requests = 2, per = "day" }}\n'
        for n in range(15)
    )
    await stage.play(known + SIX_CENTS, LAB + accounts, **keys)
    answers = [await stage.ask(f"item {n}") for n in range(45)]
    served = sum(answer.status == 200 for answer in answers)
    spent = await billed(stage)
    stage.check("thirty calls are served, as the quotas allow", served == 30, served)
    stage.check("and billed; refusals cost nothing", spent == 30 * 60_000, f"${spent / 1e6:.2f}")
    await _compare(stage, spent)
    await stage.person.until("ALL 15 accounts")
    stage.check("a person was told once", stage.person.count("ALL 15 accounts") == 1, stage.person.count("ALL 15"))


async def missing_price(stage: Stage) -> None:
    """A new model has no price yet: it is refused, never charged at another's, and serves as soon as somebody says what
    it costs."""
    config = LAB + ONE + '[models.new]\ntargets = ["lab/model-of-tomorrow"]\n'
    await stage.play(PRICES, config)
    refused = await stage.ask(model="new")
    words = refused.json["error"]["message"]
    stage.check("it is refused", refused.status == 404, refused.status)
    stage.check("with the line to add", '[prices."lab/model-of-tomorrow"]' in words, words)
    stage.check("nothing reached the provider", (await stage.stats())["requests"] == 0, await stage.stats())
    stage.write_config(config + '[prices."lab/model-of-tomorrow"]\ninput = 1.0\noutput = 2.0\n')
    await stage.api("POST", "/api/reload")
    served = await stage.ask(model="new")
    stage.check("with a price it serves, without a restart", served.status == 200, served.status)
    cost = served.headers.get("x-nightkeep-cost-usd", "")
    stage.check("and says what it cost", Decimal(cost or 0) > 0, cost)


async def clock_edge(stage: Stage) -> None:
    """Windows at the edges of time: days of 23 and 25 hours when the clocks change, and a clock that is set back into a
    window that is spent."""
    zone = "00:00 Europe/Berlin"
    for day, hours in (("2026-03-29T12:00", 23), ("2026-10-25T12:00", 25), ("2026-11-21T12:00", 24)):
        moment = datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()
        start, end = calendar_window("day", moment, zone)
        stage.check(f"the day of {day[:10]} has {hours} hours", end - start == hours * 3_600, (end - start) / 3_600)
        before, after = calendar_window("day", start - 1, zone), calendar_window("day", end, zone)
        stage.check(
            "nothing lies between it and its neighbours", before[1] == start and after[0] == end, (before, after)
        )
    table = BudgetTable([BudgetSpec(scope="/", per="hour", limits={"usd": 1_000_000})])
    noon = datetime(2026, 11, 21, 12, 30, tzinfo=UTC).timestamp()
    (spent,) = table.path("acme", None, noon)
    spent.own = 1_000_000
    (later,) = table.path("acme", None, noon + 3_600)
    stage.check("a new hour is a new window", later is not spent and later.spent == 0, later.key)
    (again,) = table.path("acme", None, noon)
    stage.check("a clock set back finds the old one, spent", again is spent and again.spent == 1_000_000, again.key)


async def reconcile_after_kill(stage: Stage) -> None:
    """The gateway is killed under load (kill -9): the budget keeps what was held, and the provider's own report settles
    it, to the micro-dollar."""
    budget = '[[budgets]]\nscope = "/"\nusd = 2.00\nper = "once"\n'
    await stage.play("delivery = { first_byte_ms = 20, chunk_delay_ms = 5 }\n" + SIX_CENTS, LAB + ONE + budget)
    await stage.ask("so that the counter knows the model")
    asking = [asyncio.ensure_future(stage.ask(f"call {n}", stream=bool(n % 2))) for n in range(16)]
    await asyncio.sleep(0.06)
    assert stage.gateway is not None
    await stage.gateway.end(by_kill=True)
    await asyncio.gather(*asking)
    await stage.start_gateway()
    view = (await stage.api("GET", "/api/budgets"))["budgets"][0]
    spent = await billed(stage)
    stage.check("the bill is within the budget", spent <= 2_000_000, f"${spent / 1e6:.2f}")
    kept = view["spent"] + view["lost"]
    stage.check(
        "what the dead process held counts as spent", kept >= spent, f"${kept / 1e6:.2f} for ${spent / 1e6:.2f}"
    )
    await _compare(stage, spent)
    view = (await stage.api("GET", "/api/budgets"))["budgets"][0]
    stage.check("the budget says the same, and nothing is lost", (view["spent"], view["lost"]) == (spent, 0), view)


async def _compare(stage: Stage, spent: int) -> None:
    await asyncio.sleep(0.2)  # the record of what has just ended is on its way to the disk
    report = f"{stage.sim_url}/sim/usage/requests"
    arguments = ("--provider", "lab", "--url", report, "--grace", "0", "--gateway", stage.gateway_url, "--data", "data")
    code, output = await stage.run("spend", "reconcile", *arguments)
    stage.check(
        "reconciling leaves no difference", code == 0, output.strip().splitlines()[-1:] if code else "exit code 0"
    )
    code, output = await stage.run("spend", "--data", "data", "--json")
    total: Any = json.loads(output)["total"]["cost_micro_usd"] if code == 0 else output
    stage.check("the ledger equals the bill", total == spent, f"ledger {total}, bill {spent} micro-dollars")
