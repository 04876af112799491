"""A server and a load as small as they can be, so that what is measured is the other end."""

from __future__ import annotations

import asyncio
import json

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "word " * 800}]}).encode()
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    b"authorization: Bearer sk-0123456789\r\nuser-agent: load\r\naccept: */*\r\ncontent-length: %d\r\n\r\n%b"
) % (len(BODY), BODY)
REPLY_BODY = json.dumps({"id": "r", "choices": [{"message": {"content": "word " * 190}}]}).encode()
REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(REPLY_BODY),
    REPLY_BODY,
)


class Answering(asyncio.Protocol):
    """Answers when the bytes of a request have come; it does not read what they say."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.seen = b""

    def data_received(self, data: bytes) -> None:
        self.seen += data
        while (end := self.seen.find(b"\r\n\r\n")) >= 0:
            head = self.seen[:end].lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0]) if b"content-length:" in head else 0
            if len(self.seen) < end + 4 + length:
                return
            self.seen = self.seen[end + 4 + length :]
            self.transport.write(REPLY)  # type: ignore[attr-defined]


class Asking(asyncio.Protocol):
    """Sends a request for each reply, until ``budget`` is spent; replies all have the length of the first."""

    def __init__(self, budget: list[int], done: asyncio.Future[None]) -> None:
        self.budget = budget
        self.done = done
        self.length = 0
        self.missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(REQUEST)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if not self.length:
            head, _, _ = data.partition(b"\r\n\r\n")
            body = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            self.length = self.missing = len(head) + 4 + body
        self.missing -= len(data)
        if self.missing > 0:
            return
        self.missing = self.length
        self.budget[0] -= 1
        if self.budget[0] > 0:
            self.transport.write(REQUEST)  # type: ignore[attr-defined]
        elif not self.done.done():
            self.done.set_result(None)


async def ask(port: int, requests: int, connections: int) -> None:
    """Send ``requests`` over ``connections`` kept alive."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    budget = [requests]
    made = [await loop.create_connection(lambda: Asking(budget, done), "127.0.0.1", port) for _ in range(connections)]
    await done
    for transport, _ in made:
        transport.close()
