"""CPU time that a server spends on one request, for each candidate: a process each, under the same load."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import load
import uvloop

REQUESTS = 12_000


def serve_ours() -> None:
    from nightkeep.server.http import Exchange, serve

    async def handle(exchange: Exchange) -> None:
        exchange.respond(200, [("content-type", "application/json")], load.REPLY_BODY)

    async def run() -> None:
        server = await serve(handle)
        print(server.port, flush=True)
        await asyncio.Event().wait()

    uvloop.run(run())


def serve_uvicorn(parser: str) -> None:
    import uvicorn

    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(load.REPLY_BODY)).encode())]

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": load.REPLY_BODY})

    async def run() -> None:
        config = uvicorn.Config(app, port=0, http=parser, log_level="critical", access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - it offers nothing to wait for
            await asyncio.sleep(0.01)
        print(server.servers[0].sockets[0].getsockname()[1], flush=True)
        await task

    uvloop.run(run())


def serve_aiohttp() -> None:
    from aiohttp import web

    async def handle(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.Response(body=load.REPLY_BODY, content_type="application/json")

    async def run() -> None:
        runner = web.ServerRunner(web.Server(handle))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()

    uvloop.run(run())


CANDIDATES = {
    "ours": serve_ours,
    "uvicorn (httptools, uvloop)": lambda: serve_uvicorn("httptools"),
    "uvicorn (h11, uvloop)": lambda: serve_uvicorn("h11"),
    "aiohttp (uvloop)": serve_aiohttp,
}


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(name: str) -> float:
    """Microseconds of CPU per request."""
    process = subprocess.Popen([sys.executable, __file__, name], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        uvloop.run(load.ask(port, REQUESTS // 10, 32))
        before = cpu_s(process.pid)
        uvloop.run(load.ask(port, REQUESTS, 32))
        time.sleep(0.05)
        return (cpu_s(process.pid) - before) / REQUESTS * 1e6
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        CANDIDATES[sys.argv[1]]()
    else:
        print(json.dumps({name: measure(name) for name in CANDIDATES}))
