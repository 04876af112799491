"""An HTTP/1.1 server: asyncio glue around llhttp (httptools), because the gateway's time is spent here.

It knows requests, answers and connections; not routes, JSON or errors (``server.doors``,
``server.api``). Parsing, and with it the defence against request smuggling, is llhttp's; this file
owns limits, keep-alive, back-pressure, time-outs of slow clients and a graceful close. A handler runs
in one task per request and is cancelled when the client hangs up. ADR 0002 has the measurements.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import cast

import httptools

__all__ = ["Exchange", "Handler", "HttpServer", "Request", "serve"]

log = logging.getLogger("nightkeep.http")

_MAX_HEAD_BYTES = 64 << 10  # as nginx's large_client_header_buffers in all (4 × 16 KB)
_MAX_HEADERS = 200
_MAX_PIPELINED = 16
_WRITE_HIGH_WATER = 256 << 10
_SWEEP_S = 2.0
_REASONS = {status.value: status.phrase for status in HTTPStatus} | {529: "Overloaded"}
_STATUS_LINES = {code: f"HTTP/1.1 {code} {reason}\r\n".encode() for code, reason in _REASONS.items()}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Request:
    """One request, read whole. Header names are lower-case; a repeated one is joined with ``", "``."""

    __slots__ = ("body", "headers", "method", "peer", "query", "target")

    def __init__(self, method: str, target: str, query: str, headers: dict[str, str], body: bytes, peer: str) -> None:
        self.method = method
        self.target = target
        self.query = query
        self.headers = headers
        self.body = body
        self.peer = peer


class Exchange:
    """One request and its answer: either ``respond``, or ``start``, ``send`` …, ``finish``."""

    __slots__ = ("_connection", "_is_chunked", "_state", "is_gone", "request")

    def __init__(self, request: Request, connection: _Connection) -> None:
        self.request = request
        self.is_gone = False
        self._connection = connection
        self._is_chunked = False
        self._state = "waiting"

    @property
    def has_started(self) -> bool:
        """Whether a status line has been sent; from then on only the body can tell of an error."""
        return self._state != "waiting"

    def respond(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer whole. Later calls on this exchange are ignored, so that an error path is always safe."""
        if self._state != "waiting":
            return
        self._state = "done"
        head = self._head(status, headers, f"content-length: {len(body)}\r\n")
        if self.request.method == "HEAD" or status in (204, 304):
            body = b""
        self._connection.write(head + body)

    def start(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Begin an answer of unknown length."""
        if self._state != "waiting":
            return
        self._state = "streaming"
        self._is_chunked = self._connection.is_http11
        if not self._is_chunked:
            self._connection.keep_alive = False
        self._connection.write(
            self._head(status, headers, "transfer-encoding: chunked\r\n" if self._is_chunked else "")
        )

    def send(self, data: bytes) -> None:
        """Send one piece; the transport buffers it (see ``drain``)."""
        if data and self._state == "streaming":
            self._connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)

    async def drain(self) -> None:
        """Wait while the client reads more slowly than we write."""
        waiting = self._connection.write_gate
        if waiting is not None:
            await waiting

    def finish(self) -> None:
        """End a begun answer."""
        if self._state == "streaming":
            self._state = "done"
            if self._is_chunked:
                self._connection.write(b"0\r\n\r\n")

    def abort(self) -> None:
        """Cut the connection, so that the client knows that the answer is not whole."""
        self._state = "done"
        self._connection.abort()

    def is_finished(self) -> bool:
        """Whether the answer has been ended."""
        return self._state == "done"

    def _head(self, status: int, headers: list[tuple[str, str]], framing: str) -> bytes:
        connection = self._connection
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
        if lines.count("\r") != len(headers) or lines.count("\n") != len(headers):
            lines = "".join([f"{name}: {' '.join(value.split())}\r\n" for name, value in headers])
        closing = "" if connection.keep_alive else "connection: close\r\n"
        first = _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status
        return first + f"{lines}date: {connection.server.date}\r\n{framing}{closing}\r\n".encode("latin-1", "replace")


Handler = Callable[[Exchange], Awaitable[None]]


class _Connection(asyncio.Protocol):
    """One client connection: bytes to requests, one at a time, in order."""

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.keep_alive = True
        self.is_http11 = True
        self.write_gate: asyncio.Future[None] | None = None
        self.waiting_since = server.loop.time()  # for the sweep: when the client was last owed something by itself
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._peer = ""
        self._queue: deque[tuple[Request, bool, bool]] = deque()
        self._current: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_broken = False
        self._begin_message()

    def _begin_message(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._head_count = 0
        self._body: list[bytes] = []
        self._body_bytes = 0

    # -- transport callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by shape only
        stream.set_write_buffer_limits(high=_WRITE_HIGH_WATER)
        peer = stream.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else "local"
        self.server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.forget(self)
        self._transport = None
        self._queue.clear()
        self.resume_writing()
        if self._current is not None:
            self._current.is_gone = True
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._is_broken:
            return
        self.waiting_since = self.server.loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "upgrades are not supported here; speak plain HTTP/1.1")
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, _RefusedError):
                self._refuse(cause.status, cause.reason)
            else:
                self._refuse(400, "malformed HTTP")
        except httptools.HttpParserError as error:
            self._refuse(400, f"malformed HTTP: {error}")

    def eof_received(self) -> bool:
        return False  # close: a half-closed client counts as gone (SDKs close both ways)

    def pause_writing(self) -> None:
        if self.write_gate is None:
            self.write_gate = self.server.loop.create_future()

    def resume_writing(self) -> None:
        gate, self.write_gate = self.write_gate, None
        if gate is not None and not gate.done():
            gate.set_result(None)

    # -- parser callbacks

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        self._head_count += 1
        if self._head_count > _MAX_HEADERS:
            raise _RefusedError(431, f"more than {_MAX_HEADERS} headers")
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        length = self._headers.get("content-length")
        if length is not None and int(length) > self.server.max_body_bytes:
            raise _RefusedError(413, f"the body is {length} bytes; the limit is {self.server.max_body_bytes}")
        if self._headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self.server.max_body_bytes:
            raise _RefusedError(413, f"the body is over the limit of {self.server.max_body_bytes} bytes")
        self._body.append(body)

    def on_message_complete(self) -> None:
        parser = self._parser
        target, _, query = self._url.decode("latin-1").partition("?")
        if target.startswith("http"):  # absolute form, RFC 9112 §3.2.2
            target = "/" + target.split("//", 1)[-1].partition("/")[2]
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = Request(parser.get_method().decode("latin-1"), target, query, self._headers, body, self._peer)
        self._begin_message()
        arrived = (request, parser.should_keep_alive(), parser.get_http_version() != "1.0")
        if self._current is None:
            self._run(*arrived)
        elif len(self._queue) >= _MAX_PIPELINED:
            raise _RefusedError(429, f"more than {_MAX_PIPELINED} requests were pipelined")
        else:
            self._queue.append(arrived)

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > _MAX_HEAD_BYTES:
            raise _RefusedError(431, f"the request's head is over {_MAX_HEAD_BYTES} bytes")

    # -- one request after the other

    def _run(self, request: Request, keep_alive: bool, is_http11: bool) -> None:
        self.keep_alive = keep_alive and not self.server.is_closing
        self.is_http11 = is_http11
        exchange = self._current = Exchange(request, self)
        self._task = self.server.loop.create_task(self._handle(exchange))

    async def _handle(self, exchange: Exchange) -> None:
        try:
            await self.server.handler(exchange)
        except asyncio.CancelledError:
            if not exchange.is_gone:
                exchange.abort()
                raise
        except Exception:
            log.exception("the handler of %s %s failed", exchange.request.method, exchange.request.target)
            self._fail(exchange)
        self._done(exchange)

    def _fail(self, exchange: Exchange) -> None:
        if exchange.has_started:
            exchange.abort()
        else:
            exchange.respond(500, [("content-type", "text/plain")], b"internal error; the log says more\n")

    def _done(self, exchange: Exchange) -> None:
        if not exchange.is_finished():
            self._fail(exchange)
        self._current = self._task = None
        self.waiting_since = self.server.loop.time()
        if not self.keep_alive:
            self._close()
        elif self._queue:
            self._run(*self._queue.popleft())

    # -- what exchanges and the server use

    def write(self, data: bytes) -> None:
        """Put bytes on the wire; nothing happens when the client is gone."""
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        """Cut the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_idle(self) -> bool:
        """No request is being answered."""
        return self._current is None

    @property
    def is_between_requests(self) -> bool:
        """Not even the head of a next request has begun."""
        return self._head_bytes == 0

    def shut(self) -> None:
        """Close when idle, otherwise after the current answer."""
        self.keep_alive = False
        self._queue.clear()
        if self._current is None:
            self._close()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _refuse(self, status: int, reason: str) -> None:
        self._is_broken = True
        self._queue.clear()
        self.keep_alive = False
        if self._current is None:
            request = Request("", "", "", {}, b"", self._peer)
            body = b'{"error": {"type": "invalid_request_error", "message": "%s"}}' % (
                reason.replace("\\", "/").replace('"', "'").encode("ascii", "replace")
            )
            Exchange(request, self).respond(status, [("content-type", "application/json")], body)
            self._close()


class _RefusedError(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class HttpServer:
    """A listening server; made by ``serve``."""

    def __init__(self, handler: Handler, *, max_body_bytes: int, idle_s: float, read_s: float) -> None:
        self.handler = handler
        self.loop = asyncio.get_running_loop()
        self.max_body_bytes = max_body_bytes
        self.connections: set[_Connection] = set()
        self.is_closing = False
        self.emptied = asyncio.Event()  # the last connection of a closing server is gone
        self.port = 0
        self.date = formatdate(usegmt=True)
        self._idle_s = idle_s
        self._read_s = read_s
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._ticker: asyncio.TimerHandle | None = None

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None, inherited: socket.socket | None) -> None:
        """Bind and accept. Raises OSError where the address is taken."""
        if inherited is not None:
            self._listener = await self.loop.create_server(lambda: _Connection(self), sock=inherited, ssl=tls)
        else:
            self._listener = await self.loop.create_server(
                lambda: _Connection(self), host, port, ssl=tls, backlog=2048, reuse_address=True
            )
        bound: socket.socket = self._listener.sockets[0]
        self.port = bound.getsockname()[1]
        self._tick()
        self._sweep()

    async def close(self, grace_s: float = 5.0) -> None:
        """Stop accepting, let answers in flight end for ``grace_s`` seconds, then cut them."""
        self.is_closing = True
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections):
            connection.shut()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.emptied.wait(), grace_s)
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)
        for handle in (self._sweeper, self._ticker):
            if handle is not None:
                handle.cancel()

    def forget(self, connection: _Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        if self.is_closing and not self.connections:
            self.emptied.set()

    def _tick(self) -> None:
        self.date = formatdate(usegmt=True)
        self._ticker = self.loop.call_later(1.0, self._tick)

    def _sweep(self) -> None:
        now = self.loop.time()
        for connection in list(self.connections):
            limit = self._idle_s if connection.is_between_requests else self._read_s
            if connection.is_idle and now - connection.waiting_since > limit:
                connection.abort()
        self._sweeper = self.loop.call_later(_SWEEP_S, self._sweep)


async def serve(
    handler: Handler,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    max_body_bytes: int = 64 << 20,
    idle_s: float = 75.0,
    read_s: float = 30.0,
    tls: ssl.SSLContext | None = None,
    inherited: socket.socket | None = None,
) -> HttpServer:
    """Start a server; ``port=0`` takes a free one (see ``HttpServer.port``).

    Args:
        handler: answers one exchange; it is cancelled when the client hangs up.
        max_body_bytes: a larger body is refused with 413 before it is read.
        idle_s: how long a connection may stay open between requests.
        read_s: how long a client may be silent in the middle of a request (slow-loris).
        tls: serve HTTPS with this context.
        inherited: a socket that listens already, shared with other processes, instead of host and port.

    Raises:
        OSError: the address is in use or not ours.
    """
    server = HttpServer(handler, max_body_bytes=max_body_bytes, idle_s=idle_s, read_s=read_s)
    await server.listen(host, port, tls, inherited)
    return server
