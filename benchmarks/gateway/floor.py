"""The floor: a bare pass-through that reads, forwards and answers, with none of a gateway's duties."""

from __future__ import annotations

import asyncio
import sys

import uvloop

from nightkeep.models.transport import HttpClient, Origin
from nightkeep.server.http import Exchange, serve


async def main(port: int, upstream: int) -> None:
    """Serve until ended."""
    client = HttpClient()
    origin = Origin("http", "127.0.0.1", upstream)
    head = f"host: 127.0.0.1:{upstream}\r\ncontent-type: application/json\r\n".encode()

    async def forward(exchange: Exchange) -> None:
        request = exchange.request
        answer = await client.send(origin, "POST", request.target, head, request.body, first_byte_s=60)
        kind = [("content-type", answer.headers["content-type"])]
        if "content-length" in answer.headers:
            exchange.respond(answer.status, kind, await answer.read(60, 1 << 26))
            return
        exchange.start(answer.status, kind)
        while data := await answer.next_chunk(60):
            exchange.send(data)
        exchange.finish()

    await serve(forward, port=port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
