"""An HTTP/1.1 client for model providers: asyncio glue around llhttp (httptools), with a pool per origin.

It sends one request and hands back a status, headers and a body in pieces; it does not retry, follow
redirects, decode or decide: that is ``models.gateway``. Redirects are answers like any other (a
provider does not redirect a POST; following one could carry a key to another host). Compressed
answers are not asked for, since streams are scanned as they pass. ADR 0002 has the measurements.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from enum import StrEnum
from typing import NamedTuple, cast

import httptools

__all__ = ["Fault", "HttpClient", "Origin", "TransportError", "Upstream"]

_READ_HIGH_WATER = 256 << 10
_MOST_IDLE = 256
_IDLE_S = 15.0
"""An idle connection is dropped before common providers and load balancers drop it (nginx: 75 s, some: 20 s)."""


class Fault(StrEnum):
    """What went wrong below HTTP."""

    REFUSED = "refused"  # nobody listens, no route, no such host
    TLS = "tls"  # the certificate, or the handshake
    RESET = "reset"  # closed before any byte of an answer
    CUT = "cut"  # closed in the middle of an answer
    MALFORMED = "malformed"  # it is not HTTP
    CONNECT_TIMEOUT = "connect_timeout"
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    TOO_LARGE = "too_large"


class TransportError(Exception):
    """The exchange failed below HTTP; ``was_sent`` tells whether the provider may have seen the request."""

    def __init__(self, fault: Fault, detail: str, *, was_sent: bool) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault
        self.detail = detail
        self.was_sent = was_sent


class Origin(NamedTuple):
    """Where requests go; one pool of connections each."""

    scheme: str
    host: str
    port: int


class Upstream:
    """A provider's answer: its head is here, its body comes with ``next_chunk`` or ``read``."""

    __slots__ = ("_connection", "headers", "status")

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.status: int = connection.status
        self.headers: dict[str, str] = connection.headers

    async def next_chunk(self, idle_s: float) -> bytes:
        """The next piece of the body, all that has arrived; ``b""`` at its end.

        Raises:
            TransportError: CUT, MALFORMED, or IDLE_TIMEOUT after ``idle_s`` without a byte.
        """
        return await self._connection.next_chunk(idle_s)

    async def read(self, idle_s: float, limit_bytes: int) -> bytes:
        """The whole body. Raises as ``next_chunk`` does, and TOO_LARGE over ``limit_bytes``."""
        connection = self._connection
        if connection.is_complete and len(connection.chunks) == 1 and len(connection.chunks[0]) <= limit_bytes:
            return await connection.next_chunk(idle_s)
        pieces: list[bytes] = []
        size = 0
        while piece := await connection.next_chunk(idle_s):
            size += len(piece)
            if size > limit_bytes:
                self.close()
                raise TransportError(Fault.TOO_LARGE, f"the answer is over {limit_bytes} bytes", was_sent=True)
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Give the answer up. Unless it was whole, the connection is cut, so that the provider stops working."""
        self._connection.leave()


class _Connection(asyncio.Protocol):
    """One connection to a provider: at most one exchange at a time."""

    def __init__(self, pool: deque[_Connection], loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.status = 0
        self.headers: dict[str, str] = {}
        self.chunks: deque[bytes] = deque()
        self.is_complete = True
        self.is_closed = False
        self.idle_since = 0.0
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._head: asyncio.Future[None] | None = None
        self._more: asyncio.Future[None] | None = None
        self._error: TransportError | None = None
        self._buffered = 0
        self._is_paused = False
        self._is_busy = False
        self._has_answer = False
        self._may_reuse = False

    # -- one exchange

    async def exchange(self, data: bytes, first_byte_s: float) -> Upstream:
        transport = self._transport
        assert transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self.headers = {}
        self.chunks.clear()
        self._buffered = 0
        self.is_complete = self._has_answer = self._may_reuse = False
        self._is_busy = True
        self._error = None
        head = self._head = self.loop.create_future()
        transport.write(data)
        timer = self.loop.call_later(first_byte_s, self._time_out, Fault.FIRST_BYTE_TIMEOUT, first_byte_s)
        try:
            await head
        except BaseException:
            self.abort()
            raise
        finally:
            timer.cancel()
            self._head = None
        return Upstream(self)

    async def next_chunk(self, idle_s: float) -> bytes:
        if not self.chunks and not self.is_complete:
            if self._error is not None:
                raise self._error
            more = self._more = self.loop.create_future()
            timer = self.loop.call_later(idle_s, self._time_out, Fault.IDLE_TIMEOUT, idle_s)
            try:
                await more
            except BaseException:
                self.abort()
                raise
            finally:
                timer.cancel()
                self._more = None
        if self.chunks:
            return self._take()
        return b""

    def _take(self) -> bytes:
        chunks = self.chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered = 0
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        if self.is_complete:
            self._release()
        return data

    def leave(self) -> None:
        """The caller is done with the exchange, read to its end or not."""
        if not self._is_busy:
            return
        if self.is_complete:
            self.chunks.clear()
            self._release()
        else:
            self.abort()

    def _release(self) -> None:
        if not self._is_busy:
            return
        self._is_busy = False
        if self._may_reuse and not self.is_closed and len(self._pool) < _MOST_IDLE:
            self.idle_since = self.loop.time()
            self._pool.append(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Cut the connection."""
        self._is_busy = False
        self.is_closed = True
        if self._transport is not None:
            self._transport.abort()

    def _time_out(self, fault: Fault, seconds: float) -> None:
        self._fail(TransportError(fault, f"no byte for {seconds:g} s", was_sent=True))

    def _fail(self, error: TransportError) -> None:
        self._error = error
        for future in (self._head, self._more):
            if future is not None and not future.done():
                future.set_exception(error)

    # -- transport callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self._transport = None
        if not self._is_busy:
            if self in self._pool:
                self._pool.remove(self)
            return
        if self.is_complete:
            return
        if self._has_answer and not self._is_framed():
            self.on_message_complete()  # an answer that ends with its connection, RFC 9112 §6.3
            return
        fault = Fault.CUT if self._has_answer else Fault.RESET
        self._fail(TransportError(fault, str(exc or "the connection was closed"), was_sent=True))

    def _is_framed(self) -> bool:
        return "content-length" in self.headers or "chunked" in self.headers.get("transfer-encoding", "")

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        if self._parser is None or not self._is_busy:
            self.abort()  # bytes that nobody asked for: this connection can't be trusted with a next exchange
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(TransportError(Fault.MALFORMED, str(error), was_sent=True))
            self.abort()

    # -- parser callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self.status = self._parser.get_status_code()
        if self.status < 200:  # 100 Continue, 103 Early Hints: not the answer yet
            self.headers = {}
            return
        self._has_answer = True
        if self._head is not None and not self._head.done():
            self._head.set_result(None)

    def on_body(self, body: bytes) -> None:
        self.chunks.append(body)
        self._buffered += len(body)
        if self._buffered > _READ_HIGH_WATER and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    def on_message_complete(self) -> None:
        if not self._has_answer:
            return
        assert self._parser is not None
        self.is_complete = True
        self._may_reuse = self._parser.should_keep_alive() and self._is_framed()
        if self._more is not None and not self._more.done():
            self._more.set_result(None)
        elif not self.chunks and self._head is None:
            self._release()


class HttpClient:
    """Sends requests to providers over pooled connections. One per event loop."""

    def __init__(self, *, connect_s: float = 5.0, tls: ssl.SSLContext | None = None) -> None:
        self._connect_s = connect_s
        self._tls = tls
        self._pools: dict[Origin, deque[_Connection]] = {}

    async def send(
        self, origin: Origin, method: str, target: str, headers: bytes, body: bytes, *, first_byte_s: float
    ) -> Upstream:
        """Send one request and wait for the head of its answer.

        Args:
            origin: scheme, host and port.
            target: the path with its query, percent-encoded.
            headers: ready lines, each ended by CRLF, with ``host`` and without framing headers.
            body: whole; may be empty.
            first_byte_s: how long the provider may be silent before its head.

        Raises:
            TransportError: with the fault, and whether the provider may have seen the request.
        """
        framing = b"content-length: %d\r\n\r\n" % len(body)
        data = b"%b %b HTTP/1.1\r\n%b%b%b" % (method.encode(), target.encode("ascii"), headers, framing, body)
        connection = self._take(origin) or await self._connect(origin)
        return await connection.exchange(data, first_byte_s)

    def _take(self, origin: Origin) -> _Connection | None:
        pool = self._pools.get(origin)
        while pool:
            connection = pool.pop()
            if connection.is_closed:
                continue
            if connection.loop.time() - connection.idle_since < _IDLE_S:
                return connection
            connection.abort()
        return None

    async def _connect(self, origin: Origin) -> _Connection:
        loop = asyncio.get_running_loop()
        pool = self._pools.setdefault(origin, deque())
        secure = self._context() if origin.scheme == "https" else None
        try:
            async with asyncio.timeout(self._connect_s):
                _, connection = await loop.create_connection(
                    lambda: _Connection(pool, loop),
                    origin.host,
                    origin.port,
                    ssl=secure,
                    server_hostname=origin.host if secure else None,
                )
        except TimeoutError as error:
            detail = f"{origin.host}:{origin.port} did not accept within {self._connect_s:g} s"
            raise TransportError(Fault.CONNECT_TIMEOUT, detail, was_sent=False) from error
        except ssl.SSLError as error:
            raise TransportError(Fault.TLS, f"{origin.host}: {error.reason}", was_sent=False) from error
        except OSError as error:
            raise TransportError(Fault.REFUSED, f"{origin.host}:{origin.port}: {error}", was_sent=False) from error
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def close(self) -> None:
        """Drop all idle connections; those in use end with their exchange."""
        for pool in self._pools.values():
            while pool:
                pool.pop().abort()
