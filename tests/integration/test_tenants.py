"""Two tenants on one gateway, over real HTTP: neither sees what is the other's, whatever it sends. No secret (a virtual
key, a provider's, the operator's token) shows up in an answer, in the log, in a file, or where it does not belong."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nightkeep.bootstrap import Running, start
from nightkeep.config import load
from nightkeep.control.key_store import KeyWish
from nightkeep.control.key_text import KEY_PREFIX, make_secret
from nightkeep.control.keys import hash_key
from nightkeep.store.blobs import load_blob
from nightkeep.testing.sim import RunningSim, load_scenario, start_sim

ACME = make_secret(KEY_PREFIX, lambda _: b"canary of the tenant called acme")
BETA = make_secret(KEY_PREFIX, lambda _: b"canary of the tenant called beta")
STRANGER = make_secret(KEY_PREFIX, lambda _: b"canary that was never made a key")
PROVIDER = "sk-canary-provider-5f2b7c9d1e3a4b6c8d0e"
CONFIG = f"""
[providers.lab]
wire = "openai_chat"
wires = ["openai_responses"]
base_url = "{{sim}}/v1"
free = true
[providers.other]
wire = "anthropic_messages"
base_url = "{{sim}}"
free = true
[providers.echo]
wire = "openai_chat"
base_url = "{{echo}}/v1"
free = true
[accounts.lab-1]
provider = "lab"
key = "env:K"
[accounts.other-1]
provider = "other"
key = "env:K"
[accounts.echo-1]
provider = "echo"
pool = "echo"
key = "env:K"
[models.gpt-shared]
targets = ["lab/gpt-4.1"]
[models.acme-model]
targets = ["lab/gpt-4.1"]
[models.beta-model]
targets = ["lab/gpt-4.1"]
[models.acme-claude]
targets = ["other/claude-sonnet-4-5"]
[models.acme-echo]
targets = ["echo/gpt-4.1"]
[cache]
enabled = true
[record]
bodies = "all"
[keys.acme-key]
scope = "acme"
hash = "{hash_key(ACME)}"
models = ["acme-*", "gpt-*"]
[keys.beta-key]
scope = "beta"
hash = "{hash_key(BETA)}"
models = ["beta-*", "gpt-*"]
"""
SCENARIO = """
delivery = { chunk_chars = 200 }
accounts.known = { key = "%s" }
turns = [
  { match = { contains = "secret of acme" }, reply = { text = "For acme: the vault is under the stairs." } },
  { reply = { text = "Hello." } },
]
faults = [
  { fault = "unauthorized", match = { contains = "unauthorized" } },
  { fault = "server_error", match = { contains = "internal trouble" } },
  { fault = "bad_request", match = { contains = "bad request" } },
  { fault = "cut_after_chunks:1", match = { contains = "break off" } },
]
"""


class Answer(NamedTuple):
    status: int
    headers: str
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class World:
    """A simulated provider, one that echoes what it was sent, a gateway over both, and a client."""

    def __init__(self, sim: RunningSim, gateway: Running, data: Path) -> None:
        self.sim = sim
        self.gateway = gateway
        self.data = data
        self.token = (data / "operator.token").read_text().strip()

    async def ask(self, method: str, target: str, *lines: str, body: Any = None) -> Answer:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.gateway.address.rsplit(":", 1)[1]))
        head = [f"{method} {target} HTTP/1.1", "host: 127.0.0.1", *lines, f"content-length: {len(data)}"]
        writer.write("\r\n".join([*head, "connection: close", "", ""]).encode("latin-1") + data)
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        top, _, rest = answer.partition(b"\r\n\r\n")
        return Answer(int(top.split()[1]), top.decode("latin-1"), rest.decode("utf-8", "replace"))

    async def chat(
        self, key: str, text: str = "hi", *lines: str, model: str = "gpt-shared", stream: bool = False
    ) -> Answer:
        body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]}
        return await self.ask("POST", "/v1/chat/completions", f"authorization: Bearer {key}", *lines, body=body)

    def rows(self, sql: str) -> list[Any]:
        with sqlite3.connect(f"file:{self.data}/nightkeep.db?mode=ro", uri=True) as database:
            return database.execute(sql).fetchall()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A provider that repeats the key it was sent, as careless proxies do."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = next(int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:"))
    await reader.readexactly(length)
    key = next(line[22:] for line in head.split("\r\n") if line.lower().startswith("authorization: bearer "))
    status = b"401 Unauthorized" if b"unauthorized" in head.encode() else b"400 Bad Request"
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {key}", "type": "x", "code": key}}).encode()
    writer.write(b"HTTP/1.1 %b\r\ncontent-type: application/json\r\nx-request-id: %b\r\n" % (status, key.encode()))
    writer.write(b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body))
    await writer.drain()
    writer.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(SCENARIO % PROVIDER)
    sim = await start_sim(load_scenario(scenario))
    echo = await asyncio.start_server(_echo, "127.0.0.1", 0)
    config = tmp_path / "nightkeep.toml"
    at = f"http://127.0.0.1:{echo.sockets[0].getsockname()[1]}"
    config.write_text(CONFIG.replace("{sim}", sim.base_url).replace("{echo}", at))
    data = tmp_path / "data"
    gateway = await start(load(config, {"K": PROVIDER}), {"K": PROVIDER}, data, {"port": 0})
    yield World(sim, gateway, data)
    await gateway.close(0)
    echo.close()
    await sim.close()


# -- tenants


@pytest.mark.parametrize(
    "scope", ["", "acme", "/acme", "acme/", "../acme", "/", "%2facme", "acme/../acme", "beta/../acme"]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_idempotency_key_of_another_tenant_replays_nothing(world: World, scope: str, stream: bool) -> None:
    mine = await world.chat(ACME, "the secret of acme", "idempotency-key: k1", stream=stream)
    assert "stairs" in mine.text
    lines = ["idempotency-key: k1", *([f"x-nightkeep-scope: {scope}"] if scope else [])]
    for more in ([], ["x-nightkeep-resume-from: 0"], ["x-nightkeep-resume-from: 1"]):
        theirs = await world.chat(BETA, "what is kept under this key?", *lines, *more, stream=stream)
        assert theirs.status in (200, 400)
        assert "stairs" not in theirs.text
        assert "acme" not in theirs.headers


@pytest.mark.parametrize("scope", ["acme", "/acme", "../acme", "/"])
async def test_a_cached_answer_of_another_tenant_is_not_served(world: World, scope: str) -> None:
    for _ in range(2):
        mine = await world.chat(ACME, "the secret of acme", "x-nightkeep-cache: use")
    assert "x-nightkeep-cache: hit" in mine.headers
    theirs = await world.chat(BETA, "the secret of acme", "x-nightkeep-cache: use", f"x-nightkeep-scope: {scope}")
    assert "x-nightkeep-cache: hit" not in theirs.headers


async def test_calls_and_runs_are_booked_under_the_keys_own_scope_whatever_the_client_names(world: World) -> None:
    session = "x-nightkeep-session: the-same"
    await world.chat(ACME, "one", session)
    for scope in ("acme", "/acme", "acme/x", "beta/x", ""):
        await world.chat(BETA, "two", session, *([f"x-nightkeep-scope: {scope}"] if scope else []))
    await world.gateway.close(0)
    booked = world.rows("SELECT key_name, scope, run_id FROM calls")
    assert len(booked) == 6
    assert all((scope == "acme" or scope.startswith("acme/")) == (key == "acme-key") for key, scope, _ in booked)
    runs = {key: {run for name, _, run in booked if name == key} for key, _, _ in booked}
    assert runs["acme-key"].isdisjoint(runs["beta-key"])


LISTS = [
    ("/v1/models", []),
    ("/v1/models", ["anthropic-version: 2023-06-01"]),
    ("/v1beta/models", []),
]


@pytest.mark.parametrize(("target", "lines"), LISTS)
async def test_the_list_of_models_shows_a_key_what_it_may_use(world: World, target: str, lines: list[str]) -> None:
    listed = await world.ask("GET", target, f"x-api-key: {BETA}", *lines)
    assert "beta-model" in listed.text
    assert "acme" not in listed.text
    assert "claude" not in listed.text
    one = await world.ask("GET", f"{target}/acme-model", f"x-api-key: {BETA}", *lines)
    none = await world.ask("GET", f"{target}/no-such-model", f"x-api-key: {BETA}", *lines)
    assert (one.status, none.status) == (404, 404)
    assert one.text.replace("acme-model", "…") == none.text.replace("no-such-model", "…")


@pytest.mark.parametrize(
    "model", ["acme-model", "ACME-MODEL", "acme-model ", "lab/gpt-4.1", "other/claude-sonnet-4-5", "*"]
)
async def test_a_model_that_is_another_tenants_is_refused_without_a_word_about_it(world: World, model: str) -> None:
    refused = await world.chat(BETA, "hi", model=model)
    assert refused.status in (403, 404)
    said = refused.text.replace(model, "…")
    assert "acme" not in said
    assert "lab" not in said
    assert not len(world.sim.log)


@pytest.mark.parametrize("target", ["/api/status", "/api/accounts", "/api/accounts/lab-1", "/api/keys", "/api/models"])
async def test_a_key_sees_nothing_of_the_whole_gateway(world: World, target: str) -> None:
    refused = await world.ask("GET", target, f"authorization: Bearer {BETA}")
    assert refused.status == 403
    assert "acme" not in refused.text
    assert "lab" not in refused.text


async def test_of_itself_a_key_sees_nothing_of_another(world: World) -> None:
    mine = await world.ask("GET", "/api/me", f"authorization: Bearer {BETA}")
    assert mine.json["name"] == "beta-key"
    assert "acme" not in mine.text


@pytest.mark.parametrize(
    "target",
    [
        "/api/spend", "/api/spend?by=scope", "/api/spend?by=account", "/api/spend?by=run", "/api/spend/ablation",
        "/api/spend?scope=acme", "/api/spend?scope=/acme/", "/api/spend?scope=beta/../acme", "/api/spend?scope=%2f",
        "/api/spend?scope=beta&scope=acme", "/api/spend?scope=acme&scope=beta", "/api/me/budgets",
        "/api/me/budgets?scope=acme",
    ],
)  # fmt: skip
async def test_what_another_tenant_spent_is_told_to_nobody_else(world: World, target: str) -> None:
    await world.chat(ACME, "hi", "x-nightkeep-session: acme-session")
    answer = await world.ask("GET", target, f"authorization: Bearer {BETA}")
    assert answer.status in (200, 400, 403)
    if answer.status == 200:
        assert "acme" not in answer.text
        assert '"calls":1' not in answer.text
    mine = await world.ask("GET", "/api/spend", f"authorization: Bearer {ACME}")
    assert mine.status == 200


async def test_a_quote_for_another_tenants_scope_is_one_for_a_scope_below_ones_own(world: World) -> None:
    ask = {"model": "gpt-shared", "scope": "acme"}
    answer = await world.ask("POST", "/api/quote", f"authorization: Bearer {BETA}", body=ask)
    assert answer.status in (200, 403)
    assert '"acme"' not in answer.text
    refused = await world.ask("POST", "/api/quote", f"authorization: Bearer {BETA}", body={"model": "acme-model"})
    assert refused.status == 403


async def test_no_request_that_begins_after_a_key_is_revoked_is_served(world: World) -> None:
    """Sixteen clients keep asking while the operator rotates and revokes: what began after that was told is refused."""
    operator = f"authorization: Bearer {world.token}"
    made = await world.ask("POST", "/api/keys", operator, body={"name": "racing", "scope": "race"})
    key = made.json["key"]
    is_over = False
    served_after = served = refused = 0
    is_busy = asyncio.Event()

    async def client() -> None:
        nonlocal served_after, served, refused
        while not refused:
            began_after = is_over
            answer = await world.chat(key)
            assert answer.status in (200, 401)
            served += answer.status == 200
            if served % 32 == 0:
                is_busy.set()
            refused += answer.status == 401
            served_after += answer.status == 200 and began_after

    clients = [asyncio.ensure_future(client()) for _ in range(16)]
    await is_busy.wait()
    rotated = await world.ask("POST", "/api/keys/racing/rotate", operator, body={"overlap_s": 60})
    assert rotated.status == 200
    is_busy.clear()
    await is_busy.wait()
    ended = await world.ask("POST", "/api/keys/racing/revoke", operator, body={"why": "leaked"})
    is_over = True
    assert len(ended.json["revoked"]) == 2
    await asyncio.gather(*clients)
    assert (served_after, (await world.chat(rotated.json["key"])).status) == (0, 401)


# -- secrets


def _requests(secret: str) -> list[tuple[str, str, list[str], Any]]:
    """A secret in every place where clients put keys, at every door, on good and on bad requests."""
    places = [
        f"authorization: Bearer {secret}",
        f"x-api-key: {secret}",
        f"x-goog-api-key: {secret}",
        f"api-key: {secret}",
    ]
    messages = [{"role": "user", "content": "hi"}]
    gemini = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    chat: list[tuple[str, Any]] = [
        ("/v1/chat/completions", {"model": "acme-model", "messages": messages}),
        ("/v1/chat/completions", {"model": "acme-model", "messages": messages, "stream": True}),
        ("/v1/responses", {"model": "acme-model", "input": "hi"}),
        ("/v1/embeddings", {"model": "acme-model", "input": "hi"}),
        ("/v1/messages", {"model": "acme-claude", "max_tokens": 9, "messages": messages}),
        ("/v1/messages/count_tokens", {"model": "acme-claude", "messages": messages}),
        (f"/v1beta/models/acme-model:generateContent?key={secret}", gemini),
        (f"/v1beta/models/acme-model:streamGenerateContent?alt=sse&key={secret}", gemini),
        (f"/v1beta/models/acme-model:nothing?key={secret}", gemini),
        ("/v1/chat/completions", {"model": "nobody-serves-this", "messages": messages}),
        ("/v1/chat/completions", {"model": "acme-model"}),
        ("/v1/chat/completions", b"{"),
        ("/v1/chat/completions", b"[" * 100_000),
    ]
    for trouble in ("unauthorized", "internal trouble", "bad request", "break off"):
        for model in ("acme-model", "acme-claude", "acme-echo"):
            for stream in (False, True):
                said = [{"role": "user", "content": trouble}]
                chat.append(("/v1/chat/completions", {"model": model, "messages": said, "stream": stream}))
    found = [("POST", target, [line], body) for target, body in chat for line in places]
    found += [("POST", target, [places[0], "x-nightkeep-scope: ../x"], body) for target, body in chat]
    found += [
        ("POST", target, [places[0], "idempotency-key: k", "x-nightkeep-cache: use"], body) for target, body in chat
    ]
    others = [
        "/v1/models",
        "/v1/models/none",
        "/v1beta/models",
        "/api/me",
        "/api/status",
        "/api/keys",
        "/api/none",
        "/none",
        "/",
    ]
    found += [("GET", f"{target}?key={secret}", [line], None) for target in others for line in places]
    found += [("POST", "/api/reload", [line], b"{") for line in places]
    found += [("DELETE", "/v1/messages", [line], None) for line in places]
    found += [("GET", "/api/keys", [f"authorization: Bearer {secret}", f"origin: {secret}", "host: x"], None)]
    return found


async def test_no_secret_shows_up_anywhere_whatever_is_asked_with_it(
    world: World, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    stored = await world.gateway._authority.keys.create(KeyWish(name="stored", scope="acme"), "me")  # type: ignore[union-attr]
    secrets = {
        "a key": ACME,
        "a stored key": stored.key,
        "no key": STRANGER,
        "the token": world.token,
        "a provider's": PROVIDER,
    }
    statuses = set()
    for name, secret in secrets.items():
        for method, target, lines, body in _requests(secret):
            for account in ("lab-1", "other-1", "echo-1"):
                world.gateway.change_account(account, "enable", "")
            answer = await world.ask(method, target, *lines, body=body)
            statuses.add(answer.status)
            for other, each in secrets.items():
                assert each not in answer.headers + answer.text, (
                    f"{other} in the answer to {method} {target} with {name}"
                )
    assert {200, 400, 401, 403, 404, 405} <= statuses
    for record in world.sim.log:
        sent = f"{record.path} {record.headers} {record.body!r}"
        assert not [name for name, each in secrets.items() if each in sent and each != PROVIDER], "sent to a provider"
    await world.gateway.close(1)
    log = caplog.text + "".join(capfd.readouterr())
    assert not [name for name, each in secrets.items() if each in log], "in the log"
    for path in world.data.rglob("*"):
        if path.name != "operator.token":
            kept = path.read_bytes()
            assert not [name for name, each in secrets.items() if each.encode() in kept], f"in {path.name}"
    blobs = b"".join(load_blob(row) for row in world.rows("SELECT codec, data, size FROM blobs"))
    assert b"internal trouble" in blobs
    assert not [name for name, each in secrets.items() if each.encode() in blobs], "in a body that was kept"
