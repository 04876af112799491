"""Put an answer on the connection: pace, and the faults that are about time and the connection itself.

The sleeping is an argument, so that tests and drills can do without real time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from nightkeep.server.http import Exchange
from nightkeep.testing.sim.faults import Fault
from nightkeep.testing.sim.records import Record
from nightkeep.testing.sim.wire import Piece

__all__ = ["Sleep", "abort", "deliver_stream", "deliver_whole", "hang"]

Sleep = Callable[[float], Awaitable[None]]
Headers = list[tuple[str, str]]
_FLUSH_TURNS = 3  # turns of the event loop after which written bytes have left for the kernel


async def hang() -> None:
    """Never return; the client's hanging up, or the server's close, cancels it."""
    await asyncio.Event().wait()


async def abort(exchange: Exchange) -> None:
    """Cut the connection after what was written has left."""
    for _ in range(_FLUSH_TURNS):
        await asyncio.sleep(0)
    exchange.abort()


async def deliver_whole(
    exchange: Exchange, headers: Headers, body: bytes, fault: Fault | None, record: Record, status: int = 200
) -> None:
    """Send a whole answer, or what the fault leaves of it."""
    match fault.name if fault is not None else "":
        case "hang_after_preamble" | "hang_after_chunks":
            record.outcome = "hung"
            exchange.start(status, headers)
            exchange.send(body[:1])
            await hang()
        case "cut_after_bytes" | "cut_after_chunks" | "cut_after_preamble" as name:
            size = int(fault.number(100)) if fault is not None and name == "cut_after_bytes" else len(body) // 2
            record.outcome = "cut"
            exchange.start(status, headers)
            exchange.send(body[: 0 if name == "cut_after_preamble" else size])
            await abort(exchange)
            return
        case "byte_by_byte":
            exchange.start(status, headers)
            for at in range(len(body)):
                exchange.send(body[at : at + 1])
                await asyncio.sleep(0)
            exchange.finish()
        case _:
            exchange.respond(status, headers, body)
    record.outcome = "answered"


async def deliver_stream(
    exchange: Exchange,
    headers: Headers,
    pieces: list[Piece],
    *,
    fault: Fault | None,
    delay_ms: float,
    record: Record,
    sleep: Sleep,
    sent: list[float],
) -> None:
    """Send a stream piece by piece. ``sent[0]`` counts the tokens that have gone out, whatever happens."""
    name = fault.name if fault is not None else ""
    most_contents, most_bytes = _limits(fault)
    exchange.start(200, headers)
    contents = size = 0
    for piece in pieces:
        if contents >= most_contents and piece.role != "preamble":
            await _stop(exchange, name, record)
            return
        if contents and delay_ms:
            await sleep(delay_ms / 1000)
        data = piece.data
        if size + len(data) > most_bytes:
            exchange.send(data[: most_bytes - size])
            await _stop(exchange, name, record)
            return
        await _send(exchange, data, name)
        size += len(data)
        record.events += 1
        sent[0] += piece.tokens
        contents += piece.role == "content"
    exchange.finish()
    record.outcome = "answered"


def _limits(fault: Fault | None) -> tuple[float, int]:
    """After how many content events, or bytes, the stream stops."""
    endless = (float("inf"), 1 << 62)
    match fault.name if fault is not None else "":
        case "hang_after_preamble" | "cut_after_preamble":
            return 0, endless[1]
        case "hang_after_chunks" | "cut_after_chunks":
            return fault.number(1) if fault is not None else 1, endless[1]
        case "cut_after_bytes":
            return endless[0], int(fault.number(100)) if fault is not None else 100
    return endless


async def _stop(exchange: Exchange, name: str, record: Record) -> None:
    if name.startswith("hang"):
        record.outcome = "hung"
        await hang()
    record.outcome = "cut"
    await abort(exchange)


async def _send(exchange: Exchange, data: bytes, name: str) -> None:
    if name != "byte_by_byte":
        exchange.send(data)
        await exchange.drain()
        return
    for at in range(len(data)):
        exchange.send(data[at : at + 1])
        await asyncio.sleep(0)
