"""CPU time that a client spends on one request, for each candidate: a process each, against a bare server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import load
import uvloop

AT_ONCE = 32
REQUESTS = {"ours": 10_000, "aiohttp": 6_000, "httpx": 1_000, "httpx, one at a time": 1_000}
HEADERS = {"content-type": "application/json", "authorization": "Bearer sk-0123456789"}
Send = Callable[[], Awaitable[None]]


async def send_with(name: str, port: int) -> Send:
    """Make a function that sends one request and reads its answer."""
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    if name == "ours":
        return await ours(port)
    if name == "aiohttp":
        import aiohttp

        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE))

        async def send() -> None:
            async with session.post(url, data=load.BODY, headers=HEADERS) as answer:
                await answer.read()

        return send
    import httpx

    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE))

    async def send_httpx() -> None:
        await client.post(url, content=load.BODY, headers=HEADERS)

    return send_httpx


async def ours(port: int) -> Send:
    from nightkeep.models.transport import HttpClient, Origin

    client = HttpClient()
    origin = Origin("http", "127.0.0.1", port)
    head = b"host: 127.0.0.1\r\n" + b"".join(f"{name}: {value}\r\n".encode() for name, value in HEADERS.items())

    async def send() -> None:
        answer = await client.send(origin, "POST", "/v1/chat/completions", head, load.BODY, first_byte_s=5.0)
        await answer.read(5.0, 1 << 20)

    return send


async def drive(name: str, port: int) -> float:
    """Microseconds of CPU per request."""
    send = await send_with(name, port)
    requests = REQUESTS[name]
    at_once = 1 if name.endswith("one at a time") else AT_ONCE

    async def one(count: int) -> None:
        for _ in range(count):
            await send()

    await asyncio.gather(*(one(5) for _ in range(at_once)))
    before = time.process_time()
    await asyncio.gather(*(one(requests // at_once) for _ in range(at_once)))
    return (time.process_time() - before) / (requests // at_once * at_once) * 1e6


async def answer_all() -> None:
    server = await asyncio.get_running_loop().create_server(load.Answering, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def measure(name: str, port: int) -> float:
    # Sessions are left open at the end, which aiohttp complains of.
    run = subprocess.run(
        [sys.executable, __file__, name, str(port)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    )
    return float(run.stdout)


def main() -> None:
    server = subprocess.Popen([sys.executable, __file__, "server"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        print(json.dumps({name: measure(name, port) for name in REQUESTS}))
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["server"]:
            uvloop.run(answer_all())
        case [name, port]:
            print(uvloop.run(drive(name, int(port))), flush=True)
        case _:
            main()
