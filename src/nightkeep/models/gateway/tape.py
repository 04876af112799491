"""An answer that is kept while it is given, so that others can follow it, late or again.

A tape is an ``Answer``: the gateway speaks onto it as it would to a client. Any number of clients may
play it at once, from its beginning or from a byte on; each gets every byte once and in order.
"""

from __future__ import annotations

import asyncio

import msgspec

from nightkeep.models.gateway.call import Answer

__all__ = ["Recording", "Tape", "Tee"]

Headers = list[tuple[str, str]]


class Recording(msgspec.Struct, frozen=True):
    """A whole answer, as it is stored."""

    status: int
    headers: Headers
    body: bytes
    is_stream: bool

    def play(self, answer: Answer, more: Headers, start: int = 0) -> None:
        """Give it to a client, with more headers, from a byte of the body on."""
        headers = [*self.headers, *more]
        if self.is_stream:
            answer.start(self.status, headers)
            answer.send(self.body[start:])
            answer.finish()
        else:
            answer.respond(self.status, headers, self.body)


class Tape:
    """An answer that is being given."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.is_finished = False
        self._is_stream = False
        self._pieces: list[bytes] = []
        self._changed: asyncio.Event = asyncio.Event()

    # -- the side of the gateway

    @property
    def has_started(self) -> bool:
        """Whether there is a status."""
        return self.status != 0

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer whole."""
        if not self.has_started:
            self.status, self.headers, self._pieces = status, headers, [body]
            self.finish()

    def start(self, status: int, headers: Headers) -> None:
        """Begin an answer in pieces."""
        if not self.has_started:
            self.status, self.headers, self._is_stream = status, headers, True
            self._tell()

    def send(self, data: bytes) -> None:
        """One piece."""
        if data and not self.is_finished:
            self._pieces.append(data)
            self._tell()

    async def drain(self) -> None:
        """A tape takes everything at once: the slowest of its listeners must not stop the others."""

    def finish(self) -> None:
        """End it."""
        self.is_finished = True
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # -- the side of the clients

    def recording(self) -> Recording:
        """What is on it."""
        return Recording(self.status, self.headers, b"".join(self._pieces), self._is_stream)

    async def play(self, answer: Answer, more: Headers, start: int = 0) -> None:
        """Give the answer to a client as it comes, to its end."""
        while not self.has_started:
            if self.is_finished:
                return
            await self._changed.wait()
        if not self._is_stream:
            self.recording().play(answer, more)
            return
        answer.start(self.status, [*self.headers, *more])
        index, skip = 0, start
        while True:
            while index < len(self._pieces):
                piece = self._pieces[index]
                answer.send(piece[skip:])
                skip = max(0, skip - len(piece))
                index += 1
            if self.is_finished:
                break
            await answer.drain()
            if index == len(self._pieces):
                await self._changed.wait()
        answer.finish()


class Tee:
    """An answer that goes to a client and onto a tape."""

    def __init__(self, answer: Answer, tape: Tape) -> None:
        self._answer = answer
        self._tape = tape

    @property
    def has_started(self) -> bool:
        """Whether the client has been sent a status."""
        return self._answer.has_started

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer whole."""
        self._answer.respond(status, headers, body)
        self._tape.respond(status, headers, body)

    def start(self, status: int, headers: Headers) -> None:
        """Begin an answer in pieces."""
        self._answer.start(status, headers)
        self._tape.start(status, headers)

    def send(self, data: bytes) -> None:
        """One piece."""
        self._answer.send(data)
        self._tape.send(data)

    async def drain(self) -> None:
        """Wait while the client reads more slowly than we write."""
        await self._answer.drain()

    def finish(self) -> None:
        """End it."""
        self._answer.finish()
        self._tape.finish()
