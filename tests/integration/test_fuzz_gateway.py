"""10,000 malformed requests at a running gateway: each is refused in JSON or its connection closed; none is a fault of
ours, none reaches a provider, and afterwards everything is as before."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from nightkeep.bootstrap import Running, start
from nightkeep.config import load

DOORS = [
    "/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/v1/embeddings",
    "/v1beta/models/gemini-2.5-flash:generateContent", "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
    "/v1beta/models/gemini-2.5-flash:countTokens", "/v1beta/models/gemini-2.5-flash:embedContent",
]  # fmt: skip
JUNK: list[Any] = [
    None, True, -1, 1e308, 10**400, "", "\x00", "a" * 9_000, [], {}, [[]], {"a": None}, [None], {"type": "nope"},
    [{"role": "wizard", "content": "x"}], [{"role": "user"}], [{"role": "user", "content": [{"type": "image_url"}]}],
    [{"parts": [{"inlineData": 3}]}], {"type": "json_schema"}, "é\u202e",
]  # fmt: skip
FIELDS = [
    "model", "messages", "input", "contents", "max_tokens", "stream", "tools", "tool_choice", "temperature", "stop",
    "response_format", "system", "generationConfig", "metadata", "reasoning", "n", "content", "requests",
]  # fmt: skip
RAW = [
    b"", b"{", b"nul", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe", b'{"model": "\xed\xa0\x80"}', b"NaN", b"[1,2]",
    b'"text"', b'{"model":"m","model":"n"}', b"{}" + b" " * 10_000 + b"x", b"\x1f\x8b\x08broken", b'{"model": 1e999}',
]  # fmt: skip
HEADERS = [
    b"x-nightkeep-scope: ../../etc", b"x-nightkeep-scope: a/b/c/d/e/f/g/h/i/j", b"x-nightkeep-deadline-ms: -1",
    b"x-nightkeep-deadline-ms: 1e9", b"x-nightkeep-task: no_such_task", b"x-nightkeep-cache: maybe",
    b"content-encoding: br", b"content-encoding: gzip", b"idempotency-key: " + b"k" * 9_000,
    b"x-nightkeep-tag: " + b"t" * 5_000, b"x-nightkeep-resume-from: -5",
]  # fmt: skip
POST = b"POST /v1/messages HTTP/1.1\r\n"
CLOSE = b"connection: close\r\n"
GEMINI = b":generateContent HTTP/1.1\r\n" + CLOSE + b"content-length: 2\r\n\r\n{}"
BROKEN = [
    b"GET /\r\n\r\n",
    b"POST /v1/messages HTTP/9.9\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00",
    POST + b"content-length: -1\r\n\r\n",
    POST + b"content-length: 1, 2\r\n\r\nab",
    POST + b"content-length: 99999999999\r\n\r\n",
    POST + b"transfer-encoding: chunked\r\n\r\nZZ\r\n",
    b"\r\n" * 50 + b"X",
    b"DELETE / HTTP/1.1\r\nhost: \x00\r\n\r\n",
    b"POST /v1beta/models/..%2f..%2fetc" + GEMINI,
    b"POST /v1beta/models/" + GEMINI,
    b"GET /%00 HTTP/1.1\r\n" + CLOSE + b"\r\n",
    b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
    POST + b"x: " + b"b" * 70_000,
]
WAITING = [line for line in BROKEN if line.endswith(b"b" * 9)]


def malformed(chance: random.Random) -> bytes:
    """One malformed request, as bytes on the wire."""
    kind = chance.random()
    if kind < 0.1:
        return chance.choice(BROKEN)
    header = chance.choice(HEADERS) + b"\r\n" if kind > 0.85 else b""
    if kind < 0.35:
        body = chance.choice(RAW)
    else:
        fields = {name: chance.choice(JUNK) for name in chance.sample(FIELDS, chance.randint(0, 6))}
        body = json.dumps(fields).encode()
    if chance.random() < 0.1:
        body = body[: chance.randint(0, len(body))]
    line = f"POST {chance.choice(DOORS)} HTTP/1.1\r\nconnection: close\r\n".encode()
    return line + header + b"content-length: %d\r\n\r\n%b" % (len(body), body)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    (tmp_path / "data").mkdir()
    running = await start(load(None, {}), {}, tmp_path / "data", {"port": 0})
    yield running
    await running.close(0)


async def say(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        if data.startswith(tuple(WAITING)):
            return b""  # it waits for the rest of such a request; here the client leaves instead
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


@pytest.mark.timeout(120)
async def test_ten_thousand_malformed_requests_leave_nothing_behind(
    gateway: Running, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(7)
    port = int(gateway.address.rsplit(":", 1)[1])
    bad: list[tuple[bytes, bytes]] = []
    left = 10_000

    async def client() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            data = malformed(chance)
            answer = await say(port, data)
            status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
            if status >= 500 or (status == 0 and answer):
                bad.append((data[:300], answer[:300]))

    with caplog.at_level(logging.ERROR):
        await asyncio.gather(*(client() for _ in range(50)))
    assert not bad, bad[:5]
    assert "Traceback" not in caplog.text
    good = b'{"model": "gpt-4.1", "messages": [{"role": "user", "content": "still there?"}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(good)
    assert (await say(port, head + good)).startswith(b"HTTP/1.1 200 ")
    status = gateway.status()
    assert status.calls_in_flight == 0
    assert status.calls_waiting == 0
    assert status.memory_mb < 400
