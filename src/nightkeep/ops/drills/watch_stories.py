"""War stories about watching and stopping: heartbeats, orphans, storms of alerts, and the switch for everything."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from typing import Final

from nightkeep.control.watch import Watch
from nightkeep.control.watch_specs import CallEnded, Now, WatchSpec
from nightkeep.ops.drills.money_stories import LAB, ONE, PRICES
from nightkeep.ops.drills.stage import Stage

__all__ = ["alert_storm", "heartbeat", "orphan_session", "stop_everything"]

_MONDAY: Final = 1_795_000_000.0
_SLOW: Final = """
delivery = { chunk_delay_ms = 40, chunks = 500 }
[[turns]]
reply = { text = "The night is long and somebody has to watch it, all of it, until the morning comes." }
"""


async def stop_everything(stage: Stage) -> None:
    """At 3 AM somebody stops everything: streams under way end within a second and say why, nothing starts, not even
    after a restart, until somebody resumes it. The file STOP and a signal do the same."""
    await stage.play(_SLOW, LAB + ONE)
    streams = [asyncio.ensure_future(stage.ask(f"story {n}", stream=True)) for n in range(50)]
    for _ in range(500):
        if (await stage.stats())["open_streams"] == 50:
            break
        await asyncio.sleep(0.02)
    loop = asyncio.get_running_loop()
    began = loop.time()
    code, output = await stage.run("stop", "/", "--why", "a drill", "--url", stage.gateway_url, "--data", "data")
    answers = await asyncio.gather(*streams)
    took = loop.time() - began
    stage.check("one command stops everything", code == 0 and "50" in output, output.strip().splitlines()[:1])
    stage.check("fifty streams are over within two seconds, all told", took < 2, f"{took:.2f} s")
    told = sum(b"INCOMPLETE" in answer.body and b"a drill" in answer.body for answer in answers)
    stage.check("each client is told why", told == 50, told)
    assert stage.gateway is not None
    await stage.gateway.end(by_kill=True)
    await stage.start_gateway()
    refused = await stage.ask()
    stage.check("nothing starts after kill -9 and a restart", refused.status == 403, refused.json["error"]["message"])
    await stage.run("resume", "/", "--url", stage.gateway_url, "--data", "data")
    (stage.directory / "data" / "STOP").touch()
    stage.check("the file STOP stops it", await _becomes(stage, 403), "403 within a second")
    (stage.directory / "data" / "STOP").unlink()
    stage.check("and lets it go on when it is removed", await _becomes(stage, 200), "200 within a second")
    os.kill(stage.gateway.facts["pid"], signal.SIGUSR1)
    stage.check("a signal stops it", await _becomes(stage, 403), "403 after SIGUSR1")
    os.kill(stage.gateway.facts["pid"], signal.SIGUSR2)
    stage.check("and another lets it go on", await _becomes(stage, 200), "200 after SIGUSR2")


async def _becomes(stage: Stage, status: int) -> bool:
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}
    for _ in range(60):
        if (await stage.send(stage.gateway_url, "POST", "/v1/chat/completions", body)).status == status:
            return True
        await asyncio.sleep(0.02)
    return False


async def orphan_session(stage: Stage) -> None:
    """An old experiment still runs, four days after everybody forgot it: its tokens belong to nobody, and a person is
    told."""
    digest = hashlib.sha256(b"nk-team").hexdigest()
    keys = f'[gateway]\nrequire_key = "never"\n[keys.team]\nscope = "acme"\nhash = "sha256:{digest}"\n'
    watch = "[watch.unattributed]\ntokens = 1000\n"
    usage = 'reply = { text = "Still here.", usage = { input = 900, output = 50 } }\n'
    config = LAB.replace("[gateway.queue]\nmax_wait_s = 2\n", "") + ONE + keys + watch
    await stage.play(PRICES + "[[turns]]\n" + usage, config)
    for n in range(3):
        await stage.ask(f"experiment {n}", authorization="Bearer nk-team")
    quiet = len(stage.person.received)
    stage.check("work under a key is nobody's worry", quiet == 0, f"{quiet} messages")
    for n in range(5):
        await stage.ask(f"old experiment {n}", user_agent="old-experiment/0.1")
    found = await stage.person.until("old-experiment")
    stage.check("tokens that nobody is accountable for are told", found, [m.text for m in stage.person.received][:1])


async def heartbeat(stage: Stage) -> None:
    """An agent looks every three minutes whether anything has happened, with 9,030 tokens, and nothing ever has: its
    cost is said when it is registered, and the rule that watches the rhythm says it again."""
    code, output = await stage.run(
        "estimate", "schedule", "--every", "3m", "--tokens", "9030", "--model", "anthropic/claude-opus-4-1"
    )
    said = " ".join(output.split())
    stage.check(
        "at registration: 480 runs and $65.02 a day", code == 0 and "480" in said and "$65.02" in said, said[:120]
    )
    watch, at = Watch(WatchSpec()), 0.0
    for n in range(6):  # a quarter of an hour, in no time
        at += 180 + (5 if n % 2 else -5)
        watch.fold(_beat(at, 9_000 + n), Now(at, _MONDAY + at))
    found = [each.text for each in watch.look(Now(at, _MONDAY + at)) if each.rule == "idle_heartbeat"]
    stage.check("after six beats a person is told", len(found) == 1, found)
    stage.check("with what it costs a day", bool(found) and "times a day" in found[0] and "$6" in found[0], found)


def _beat(at: float, size: int) -> CallEnded:
    return CallEnded(
        at=at,
        began=at,
        scope="infra/heartbeat",
        run=None,
        model="smart",
        agent="cron",
        peer="127.0.0.1",
        stray="",
        input_tokens=9_030,
        tokens=9_031,
        cost=135_450,
        size=size,
        print=1,
        is_paid=True,
    )


async def alert_storm(stage: Stage) -> None:
    """Sixty accounts break at the same time and their calls fail a hundred times: a person gets a handful of messages
    and one sum of the rest, and no model is asked about it."""
    accounts = "".join(f'[accounts.a{n:02}]\nprovider = "lab"\nkey = "env:KEY_{n}"\n' for n in range(60))
    keys = {f"KEY_{n}": f"sk-lab-{n:02}-0123456789" for n in range(60)}
    known = "".join(f'[accounts.a{n:02}]\nkey = "sk-lab-{n:02}-0123456789"\nstate = "suspended"\n' for n in range(60))
    await stage.play(known + PRICES, LAB + "per_hour = 10\n" + accounts, **keys)
    for n in range(100):
        await stage.ask(f"try {n}")
    asked = (await stage.stats())["requests"]
    await stage.person.until("accounts", 5)
    await asyncio.sleep(0.5)
    count = len(stage.person.received)
    stage.check("the messages are few", 1 <= count <= 12, f"{count} for 60 suspended accounts")
    alerts = (await stage.api("GET", "/api/alerts"))["alerts"]
    stage.check("nothing is lost: all stand in the list of alerts", len(alerts) >= 60, f"{len(alerts)} alerts")
    after = (await stage.stats())["requests"]
    stage.check("no account is asked twice, and no model because of it", asked == after <= 60, f"{after} requests")
