"""The war stories as drills: each sets its stage, lets the incident happen, and checks what must hold.

A story is an async function of a stage; its docstring is what ``nightkeep drill list`` prints. All of them stand in
``table``; those about money are in ``money_stories`` and ``watch_stories``.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Final

import msgspec

from nightkeep.ops.drills.stage import Stage

__all__ = [
    "batch_beside_monitoring",
    "broken_config",
    "client_hangs_up",
    "cut_stream",
    "fifteen_accounts",
    "hang",
    "key_with_a_typo",
    "model_mismatch",
    "provider_outage",
    "reasoning_parameter",
    "storm_of_429",
    "suspension",
]


_LAB: Final = """
[providers.lab]
wire = "openai_chat"
base_url = "{sim}/v1"
free = true
[models.m]
targets = ["lab/gpt-4.1"]
[gateway.queue]
max_wait_s = 2
"""
_ONE: Final = '[accounts.lab-1]\nprovider = "lab"\nkey = "env:LAB_KEY"\n'


def _accounts(count: int, pool: str = "production") -> str:
    return "".join(
        f'[accounts.a{n:02}]\nprovider = "lab"\npool = "{pool}"\nkey = "env:KEY_{n}"\nlimits = {{ concurrent = 2 }}\n'
        for n in range(count)
    )


def _keys(count: int) -> dict[str, str]:
    return {f"KEY_{n}": f"sk-lab-{n:02}-0123456789" for n in range(count)}


def _sim_accounts(count: int, requests: int) -> str:
    return "suspend_after_refusals_per_minute = 5\n" + "".join(
        f'[accounts.a{n:02}]\nkey = "sk-lab-{n:02}-0123456789"\nquota = {{ requests = {requests}, per = "day" }}\n'
        for n in range(count)
    )


async def fifteen_accounts(stage: Stage) -> None:
    """A batch exhausts all fifteen accounts at once and goes on asking: nothing more leaves, nobody is suspended, one
    notice is raised, and the monitoring's own accounts still serve."""
    config = _LAB + _accounts(15) + "[pools.production]\nreserve = { monitoring = 5 }\n"
    await stage.play(_sim_accounts(15, 2), config, **_keys(15))
    first = await asyncio.gather(*(stage.ask(x_nightkeep_tag="batch") for _ in range(40)))
    served = sum(answer.status == 200 for answer in first)
    stage.check("the batch gets what ten accounts allow, and no more", served == 20, f"{served} of 40 served")
    before = (await stage.stats())["requests"]
    again = await asyncio.gather(*(stage.ask(x_nightkeep_tag="batch") for _ in range(40)))
    after = (await stage.stats())["requests"]
    codes = {answer.json["error"]["code"] for answer in again}
    stage.check("every further request is told so with one typed error", codes == {"pool_exhausted"}, codes)
    stage.check(
        "it names when the first account comes back",
        all("retry-after" in a.headers for a in again),
        again[0].headers.get("retry-after"),
    )
    advice = {answer.headers.get("x-should-retry") for answer in again}
    stage.check("SDKs are told not to retry", advice == {"false"}, f"x-should-retry: {advice}")
    stage.check("zero requests reached the provider meanwhile", after == before, f"{before} before, {after} after")
    monitoring = await stage.ask(x_nightkeep_tag="monitoring")
    stage.check("the monitoring still has accounts", monitoring.status == 200, monitoring.status)
    states = [account["status"] for account in (await stage.api("GET", "/api/accounts"))["accounts"]]
    stage.check("no account was suspended", "suspended" not in states, sorted(set(states)))
    notices = stage.gateway_log.count("ALL 10 accounts of pool production (shared) are exhausted")
    stage.check("a person was told once", notices == 1, f"{notices} notices")


async def batch_beside_monitoring(stage: Stage) -> None:
    """A batch floods the pool: it never gets one of the accounts that are reserved for the monitoring, even when all
    others are empty."""
    config = _LAB + _accounts(3) + "[pools.production]\nreserve = { monitoring = 1 }\n"
    await stage.play(_sim_accounts(3, 3), config, **_keys(3))
    answers = await asyncio.gather(*(stage.ask(x_nightkeep_tag="batch") for _ in range(30)))
    used = {answer.headers["x-nightkeep-account"] for answer in answers if answer.status == 200}
    stage.check("the batch used the shared accounts only", used == {"a00", "a01"}, sorted(used))
    probe = [await stage.ask(x_nightkeep_tag="monitoring") for _ in range(3)]
    own = {answer.headers.get("x-nightkeep-account") for answer in probe}
    stage.check("the monitoring is served by its own account", own == {"a02"}, own)


async def model_mismatch(stage: Stage) -> None:
    """The provider serves another model than it was asked for: the client and the record are told."""
    await stage.play('[[turns]]\nreply = { text = "hello", model = "gpt-4.1-nano" }\n', _LAB + _ONE)
    answer = await stage.ask()
    stage.check(
        "the client sees which model served",
        answer.headers.get("x-nightkeep-model") == "gpt-4.1-nano",
        answer.headers.get("x-nightkeep-model"),
    )
    degraded = answer.headers.get("x-nightkeep-degraded", "")
    stage.check("and that it is not the one that was sent", "mismatch" in degraded, degraded)


async def reasoning_parameter(stage: Stage) -> None:
    """An agent's thinking parameters meet a model of another vendor: they are stripped and reported, and the strict
    provider does not answer 400."""
    config = """
[providers.g]
wire = "gemini"
base_url = "{sim}"
free = true
[accounts.g1]
provider = "g"
key = "env:LAB_KEY"
[models.m]
targets = ["g/gemini-2.0-flash"]
"""
    await stage.play("strict = true\n", config)
    body = {
        "model": "m",
        "max_tokens": 99,
        "betas": ["x-1"],
        "reasoning_effort": "high",
        "messages": [{"role": "user", "content": "hi"}],
    }
    answer = await stage.send(stage.gateway_url, "POST", "/v1/messages", body, {"anthropic-version": "2023-06-01"})
    stage.check("it is answered", answer.status == 200, f"{answer.status} {answer.body[:120]!r}")
    stripped = answer.headers.get("x-nightkeep-stripped", "")
    stage.check("what was stripped is named", "reasoning_effort" in stripped and "betas" in stripped, stripped)


async def broken_config(stage: Stage) -> None:
    """Somebody breaks the settings of a running gateway: not one request fails, and the mistake is named with its
    line."""
    good = _LAB + _ONE
    await stage.play("", good)
    failed = 0
    is_over = asyncio.Event()

    async def load() -> int:
        count = 0
        nonlocal failed
        while not is_over.is_set():
            failed += (await stage.ask()).status != 200
            count += 1
        return count

    load_task = asyncio.ensure_future(load())
    stage.write_config(good + "\n[accounts.lab-1\nprovider =")
    error = await _until(stage, lambda status: status["last_reload_error"])
    stage.check("the mistake is named", "nightkeep.toml" in str(error), error)
    stage.write_config(good + '\n[models.second]\ntargets = ["lab/gpt-4.1"]\n')
    await _until(stage, lambda status: status["last_reload_error"] is None and status["reloaded_at"])
    is_over.set()
    count = await load_task
    stage.check("no request failed meanwhile", failed == 0 and count > 10, f"{failed} of {count} failed")
    second = await stage.ask(model="second")
    stage.check("the corrected file was taken", second.status == 200, f"its new model answers {second.status}")


async def _until(stage: Stage, is_so: Callable[[dict[str, object]], object]) -> object:
    for _ in range(100):
        if found := is_so(await stage.api("GET", "/api/status")):
            return found
        await asyncio.sleep(0.1)
    return None


async def key_with_a_typo(stage: Stage) -> None:
    """A key has one wrong character, the client's or the provider's: the message names a fingerprint and the way out,
    and no output shows a key."""
    key, wrong = "nk-correct-0123456789", "nk-correct-012345678O"
    digest = "sha256:" + hashlib.sha256(key.encode()).hexdigest()
    scenario = '[accounts.a]\nkey = "sk-the-right-one-0123456789"\n'
    await stage.play(
        scenario, f'{_LAB}{_ONE}[keys.team]\nscope = "acme"\nhash = "{digest}"\n', LAB_KEY="sk-the-wrong-one-0123456789"
    )
    answer = await stage.ask(authorization=f"Bearer {wrong}")
    said = answer.json["error"]["message"]
    stage.check("the client's wrong key is a 401 with its fingerprint", answer.status == 401 and "#" in said, said)
    answer = await stage.ask(authorization=f"Bearer {key}")
    stage.check("the provider's wrong key is not the client's fault", answer.status == 502, answer.status)
    states = {a["id"]: a["status"] for a in (await stage.api("GET", "/api/accounts"))["accounts"]}
    stage.check("its account is out, and stays out", states == {"lab-1": "auth_failed"}, states)
    code, output = await stage.run(
        "accounts", "test", "--config", "nightkeep.toml", LAB_KEY="sk-the-wrong-one-0123456789"
    )
    stage.check("'accounts test' names the account", code == 1 and "lab-1" in output, output.strip().splitlines()[-1:])
    shown = [text for text in (said, output, stage.gateway_log) if wrong in text or "sk-the-wrong-one" in text]
    stage.check("no output shows a key", not shown, f"{len(shown)} outputs with a key")


async def provider_outage(stage: Stage) -> None:
    """A provider is down: plain requests and streams are answered by another vendor on another wire, and the answer
    says so."""
    config = """
[providers.first]
wire = "openai_chat"
base_url = "{sim}/a/first/v1"
free = true
[providers.second]
wire = "anthropic_messages"
base_url = "{sim}/a/second"
free = true
[accounts.f]
provider = "first"
key = "env:LAB_KEY"
[accounts.s]
provider = "second"
key = "env:LAB_KEY"
[models.m]
targets = ["first/gpt-4.1", "second/claude-sonnet-4-5"]
"""
    await stage.play('[providers.first]\nfaults = [{ fault = "server_error" }]\n[providers.second]\n', config)
    for stream in (False, True):
        answer = await stage.ask(stream=stream)
        kind = "stream" if stream else "request"
        whole = answer.status == 200 and (not stream or b"[DONE]" in answer.body)
        stage.check(f"the {kind} is answered whole", whole, answer.status)
        stage.check(
            f"by the other vendor, and the {kind} says so",
            "failover from first" in answer.headers.get("x-nightkeep-degraded", ""),
            answer.headers.get("x-nightkeep-degraded"),
        )


async def storm_of_429(stage: Stage) -> None:
    """The provider answers 429 to everybody: the requests that reach it are bounded, and each client gets a typed error
    with the time to wait."""
    await stage.play('[[faults]]\nfault = "rate_limited:30"\n', _LAB + _accounts(3), **_keys(3))
    answers = await asyncio.gather(*(stage.ask() for _ in range(60)))
    reached = (await stage.stats())["requests"]
    stage.check("every client got a 429", {a.status for a in answers} == {429}, {a.status for a in answers})
    stage.check(
        "with the time to wait",
        all("retry-after" in a.headers for a in answers),
        answers[-1].headers.get("retry-after"),
    )
    again = await asyncio.gather(*(stage.ask() for _ in range(60)))
    later = (await stage.stats())["requests"]
    stage.check(
        "once the accounts cool down nothing more reaches the provider", later == reached, f"{reached}, then {later}"
    )
    stage.check("and everybody is told at once", {a.status for a in again} == {429}, {a.status for a in again})


async def suspension(stage: Stage) -> None:
    """The provider suspends an account: it is never tried again by itself, over restarts too, until a person resets
    it."""
    suspended = '[[faults]]\nfault = "suspended"\n'
    await stage.play(suspended, _LAB + _ONE)
    await stage.ask()
    reached = (await stage.stats())["requests"]
    for _ in range(5):
        await stage.ask()
    stage.check("nothing more was asked", (await stage.stats())["requests"] == reached, reached)
    assert stage.gateway is not None
    await stage.gateway.end(by_kill=True)
    await stage.start_gateway()
    states = [account["status"] for account in (await stage.api("GET", "/api/accounts"))["accounts"]]
    stage.check("after kill -9 it is still suspended", states == ["suspended"], states)
    await stage.scenario("")
    meanwhile = await stage.ask()
    stage.check("the provider's change of mind alone does not matter", meanwhile.status == 429, meanwhile.status)
    await stage.api("POST", "/api/accounts/lab-1/reset", {"why": "drill"})
    after = await stage.ask()
    stage.check("a person's reset brings it back", after.status == 200, after.status)


async def hang(stage: Stage) -> None:
    """A provider takes the request and says nothing: after the first-byte deadline another one answers."""
    config = _LAB.replace('["lab/gpt-4.1"]', '["lab/gpt-4.1", "lab/gpt-4.1-mini"]') + _ONE
    config += "[gateway.deadlines]\nfirst_byte_s = 0.5\n"
    await stage.play('[[faults]]\nfault = "hang"\nmatch = { model = "gpt-4.1" }\n', config)
    answer = await stage.ask()
    stage.check(
        "it is answered by the next target",
        answer.headers.get("x-nightkeep-model") == "gpt-4.1-mini",
        answer.headers.get("x-nightkeep-model"),
    )
    await stage.scenario('[[faults]]\nfault = "hang"\n')
    answer = await stage.ask(x_nightkeep_deadline_ms="1500")
    stage.check(
        "with nobody left, the caller's deadline holds",
        answer.status in (502, 504),
        f"{answer.status} {answer.body[:160]!r}",
    )


async def cut_stream(stage: Stage) -> None:
    """A stream breaks: before its first content it is made again, after it the client is told that the text is
    incomplete."""
    await stage.play('[[faults]]\nfault = "cut_after_preamble"\nfirst = 1\n', _LAB + _ONE)
    answer = await stage.ask(stream=True)
    stage.check(
        "before content: made again, and whole", b"[DONE]" in answer.body, answer.headers.get("x-nightkeep-attempts")
    )
    await stage.scenario('[[faults]]\nfault = "cut_after_chunks:3"\n')
    answer = await stage.ask(stream=True)
    stage.check(
        "after content: a typed error, and no end mark",
        b"INCOMPLETE" in answer.body and b"[DONE]" not in answer.body,
        answer.body[-200:],
    )
    stage.check("what had arrived is kept", b"Simulated" in answer.body, answer.body[:120])


async def client_hangs_up(stage: Stage) -> None:
    """A client leaves in the middle of a long stream: the provider's request is stopped at once."""
    await stage.play("delivery = { chunk_delay_ms = 200, chunk_chars = 4 }\n", _LAB + _ONE)
    host, port = stage.gateway_url.removeprefix("http://").rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    body = msgspec.json.encode({"model": "m", "stream": True, "messages": [{"role": "user", "content": "long"}]})
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    await reader.readuntil(b"data: ")
    writer.transport.abort()
    gone = 0
    for _ in range(50):
        gone = (await stage.stats())["gone_clients"]
        if gone:
            break
        await asyncio.sleep(0.05)
    stage.check("the provider's side was ended", gone == 1, f"{gone} ended")
    status = await stage.api("GET", "/api/status")
    stage.check("nothing is left in flight", status["calls_in_flight"] == 0, status["calls_in_flight"])
