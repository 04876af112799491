"""The HTTP client against real sockets: every way an exchange can fail below HTTP has its own name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from nightkeep.models.transport import Fault, HttpClient, Origin, TransportError, Upstream

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def peer(behave: Peer) -> AsyncIterator[Origin]:
    open_ones: set[asyncio.StreamWriter] = set()

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.add(writer)
        await behave(reader, writer)

    server = await asyncio.start_server(tracked, "127.0.0.1", 0)
    try:
        yield Origin("http", "127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for writer in open_ones:
            writer.transport.abort()
        await asyncio.sleep(0)  # the event loop closes what was aborted in its next turn


def says(*pieces: bytes) -> Peer:
    """A peer that reads one request's head and then says these bytes and closes."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        writer.close()

    return behave


async def send(client: HttpClient, origin: Origin, first_byte_s: float = 5.0) -> Upstream:
    return await client.send(origin, "POST", "/x", b"host: a\r\n", b"", first_byte_s=first_byte_s)


async def test_an_answer_is_read_whole_however_it_is_framed() -> None:
    for answer in (
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ):
        async with peer(says(answer)) as origin:
            upstream = await send(HttpClient(), origin)
            assert upstream.status == 200
            assert await upstream.read(5, 100) == b"hello"
            assert "link" not in upstream.headers


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"", Fault.RESET),
        (b"SSH-2.0-x\r\n", Fault.MALFORMED),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe", Fault.CUT),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n", Fault.CUT),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n" + b"a" * 500, Fault.TOO_LARGE),
    ],
)
async def test_what_goes_wrong_below_http_has_a_name(answer: bytes, fault: Fault) -> None:
    async with peer(says(answer)) as origin:
        with pytest.raises(TransportError) as caught:
            await (await send(HttpClient(), origin)).read(5, 100)
        assert caught.value.fault is fault
        assert caught.value.was_sent


async def test_nobody_listening_is_refused_and_the_request_was_not_sent() -> None:
    async with peer(says()) as origin:
        pass
    with pytest.raises(TransportError) as caught:
        await send(HttpClient(), origin)
    assert caught.value.fault is Fault.REFUSED
    assert not caught.value.was_sent


async def test_silence_ends_at_the_deadline_before_and_in_the_middle_of_an_answer() -> None:
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()  # until the client cuts the connection
        writer.close()
        ended.set()

    async with peer(silent) as origin:
        with pytest.raises(TransportError) as caught:
            await send(HttpClient(), origin, first_byte_s=0.05)
        assert caught.value.fault is Fault.FIRST_BYTE_TIMEOUT
        await asyncio.wait_for(ended.wait(), 5)

    async def halting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe")
        await reader.read()
        writer.close()

    async with peer(halting) as origin:
        upstream = await send(HttpClient(), origin)
        assert await upstream.next_chunk(5) == b"he"
        with pytest.raises(TransportError) as caught:
            await upstream.next_chunk(0.05)
        assert caught.value.fault is Fault.IDLE_TIMEOUT


async def test_a_connection_is_used_again_unless_its_answer_was_given_up() -> None:
    connections = 0

    async def keep_alive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    client = HttpClient()
    async with peer(keep_alive) as origin:
        for _ in range(3):
            assert await (await send(client, origin)).read(5, 10) == b"ok"
        assert connections == 1
        client.close()


async def test_giving_an_answer_up_cuts_the_connection() -> None:
    cut = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"1\r\nx\r\n")
                await writer.drain()
                await asyncio.sleep(0.001)
        except ConnectionError:
            cut.set()

    async with peer(endless) as origin:
        upstream = await send(HttpClient(), origin)
        await upstream.next_chunk(5)
        upstream.close()
        await asyncio.wait_for(cut.wait(), 5)
