"""The person of a drill: where alerts arrive, and when. A webhook that keeps what it gets."""

from __future__ import annotations

import asyncio

import msgspec

__all__ = ["Message", "Person"]


class Message(msgspec.Struct, frozen=True):
    """What a person received."""

    seconds: float  # into the drill
    level: str
    text: str


class Person:
    """Listens on a port of its own."""

    def __init__(self) -> None:
        self.received: list[Message] = []
        self._began = 0.0
        self._server: asyncio.Server | None = None
        self.url = ""

    async def listen(self) -> None:
        """Begin to listen."""
        self._began = asyncio.get_running_loop().time()
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode("latin-1").lower().split("\r\n")
                length = next((int(line[15:]) for line in lines if line.startswith("content-length:")), 0)
                self._keep(await reader.readexactly(length))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _keep(self, body: bytes) -> None:
        try:
            found = msgspec.json.decode(body, type=dict[str, object])
        except msgspec.MsgspecError:
            found = {"text": body.decode("utf-8", "replace")}
        seconds = round(asyncio.get_running_loop().time() - self._began, 1)
        self.received.append(Message(seconds, str(found.get("level", "")), str(found.get("text", ""))))

    async def until(self, words: str, seconds: float = 5.0) -> bool:
        """Wait for a message with these words; False where none comes in time."""
        for _ in range(int(seconds / 0.05)):
            if any(words in message.text for message in self.received):
                return True
            await asyncio.sleep(0.05)
        return False

    def count(self, words: str) -> int:
        """How many messages have these words."""
        return sum(words in message.text for message in self.received)

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
