"""The HTTP server under real sockets: framing, limits, hang-ups, slow clients and a graceful end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from nightkeep.server.http import Exchange, HttpServer, serve


async def _echo(exchange: Exchange) -> None:
    request = exchange.request
    exchange.respond(200, [("x-method", request.method)], request.target.encode() + b"|" + request.body)


@asynccontextmanager
async def running(handler: Callable[[Exchange], Awaitable[None]], **options: float) -> AsyncIterator[HttpServer]:
    server = await serve(handler, **options)  # type: ignore[arg-type]
    try:
        yield server
    finally:
        await server.close(0)


async def talk(server: HttpServer, data: bytes, *, reads: int = 1 << 20) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(reads), 5)
    writer.close()
    return answer


def post(body: bytes, *more: bytes) -> bytes:
    return b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n%b\r\n%b" % (len(body), b"".join(more), body)


async def test_a_request_is_answered_with_its_length() -> None:
    async with running(_echo) as server:
        answer = await talk(server, post(b"abc"))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"content-length: 6\r\n" in answer
        assert answer.endswith(b"\r\n\r\n/x|abc")


async def test_pipelined_requests_are_answered_in_order_and_the_last_may_close() -> None:
    async with running(_echo) as server:
        first, last = post(b"one"), post(b"two", b"connection: close\r\n")
        answer = await talk(server, first + last)
        if b"two" not in answer:
            pytest.fail(f"the second answer is missing: {answer!r}")
        assert answer.index(b"one") < answer.index(b"two")
        assert answer.count(b"connection: close") == 1


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_could_smuggle_a_request_is_refused_and_the_connection_closed(head: bytes) -> None:
    async with running(_echo) as server:
        answer = await talk(server, head)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"connection: close" in answer


async def test_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    async with running(_echo, max_body_bytes=10) as server:
        assert (await talk(server, b"POST / HTTP/1.1\r\ncontent-length: 11\r\n\r\n")).startswith(b"HTTP/1.1 413 ")
        chunked = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nb\r\n01234567890\r\n"
        assert (await talk(server, chunked)).startswith(b"HTTP/1.1 413 ")


async def test_a_head_over_the_limit_is_refused() -> None:
    async with running(_echo) as server:
        answer = await talk(server, b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000 + b"\r\n\r\n")
        assert answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
        many = b"".join(b"x%d: a\r\n" % n for n in range(300))
        assert (await talk(server, b"GET / HTTP/1.1\r\n" + many + b"\r\n")).startswith(b"HTTP/1.1 431 ")


async def test_expect_continue_is_answered_before_the_body() -> None:
    async with running(_echo) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST / HTTP/1.1\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ok")
        assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.close()


async def test_a_streamed_answer_is_chunked_for_http11_and_ends_with_the_connection_for_http10() -> None:
    async def stream(exchange: Exchange) -> None:
        exchange.start(200, [])
        exchange.send(b"one")
        exchange.send(b"")
        exchange.send(b"two")
        exchange.finish()

    async with running(stream) as server:
        answer = await talk(server, b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n")
        assert answer.endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
        answer = await talk(server, b"GET / HTTP/1.0\r\n\r\n")
        assert b"transfer-encoding" not in answer
        assert answer.endswith(b"\r\n\r\nonetwo")


async def test_a_client_that_hangs_up_cancels_its_handler() -> None:
    gone = asyncio.Event()

    async def wait(exchange: Exchange) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            assert exchange.is_gone
            gone.set()

    async with running(wait) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0)
        writer.close()
        await asyncio.wait_for(gone.wait(), 5)


async def test_a_handler_that_fails_is_a_500_before_and_a_cut_after_the_answer_began() -> None:
    async def fail(exchange: Exchange) -> None:
        if exchange.request.target == "/late":
            exchange.start(200, [])
            exchange.send(b"x")
        raise ZeroDivisionError

    async with running(fail) as server:
        assert (await talk(server, b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 500 ")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /late HTTP/1.1\r\n\r\n")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 5)
        writer.close()


async def test_closing_lets_answers_in_flight_end() -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        began.set()
        await go_on.wait()
        exchange.respond(200, [], b"done")

    server = await serve(slow)
    answer = asyncio.ensure_future(talk(server, b"GET / HTTP/1.1\r\n\r\n"))
    await began.wait()
    closing = asyncio.ensure_future(server.close(5))
    await asyncio.sleep(0)
    go_on.set()
    assert (await answer).endswith(b"done")
    await closing
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_a_header_cannot_be_injected_through_a_value() -> None:
    async def respond(exchange: Exchange) -> None:
        exchange.respond(200, [("x-a", "1\r\nx-evil: 2")], b"")

    async with running(respond) as server:
        answer = await talk(server, b"GET / HTTP/1.1\r\n\r\n")
        assert b"\r\nx-evil" not in answer
