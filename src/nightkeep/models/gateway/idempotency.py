"""``Idempotency-Key``: the same request again gets the same answer, and is paid once.

Within a scope and under one key: a finished answer is replayed; a concurrent twin follows the answer
that is being given; a client that lost its connection joins it again, from the start or from the byte it
had reached (``x-nightkeep-resume-from``); another body is refused. Only whole, successful answers are
kept; after a failure the request may simply be sent again. Answers outlive a restart. A request that was
running when the process died has an unknown outcome: it is made again, and the answer says so.

A client that hangs up stops its upstream request at once, except here: with a key it may be about to come
back, so the answer goes on for a grace time.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from nightkeep.core.clock import Clock
from nightkeep.core.errors import IdempotencyError, RequestError, StoreError
from nightkeep.models.gateway.call import Call
from nightkeep.models.gateway.tape import Recording, Tape
from nightkeep.store.blobs import LOAD_BLOB, Blob, load_blob, save_blobs
from nightkeep.store.port import Store, Transaction

__all__ = ["Idempotency"]

log = logging.getLogger("nightkeep.idempotency")

Serve = Callable[[Call], Awaitable[bool]]
"""Serves a call and tells whether the answer was whole and successful."""

_MOST_KEY: Final = 255  # characters; as Stripe's
_MOST_KEPT_BYTES: Final = 64 << 20  # in memory, over all answers
_MOST_ANSWER_BYTES: Final = 16 << 20  # of one; a larger one is not kept
_OVERHEAD_BYTES: Final = 2_048  # of an answer beside its body: key, headers
_GRACE_S: Final = 30.0
_REPLAYED: Final = [("idempotent-replayed", "true")]
_SAVE: Final = (
    "INTO idempotency (scope, idempotency_key, request_hash, state, call_id, status, headers, body_blob, started_at, "
    "expires_at)"
)
_AFTER: Final = (
    "ON CONFLICT (scope, idempotency_key) DO UPDATE SET request_hash = excluded.request_hash, state = excluded.state, "
    "call_id = excluded.call_id, status = excluded.status, headers = excluded.headers, body_blob = excluded.body_blob, "
    "started_at = excluded.started_at, expires_at = excluded.expires_at"
)
_LOOK_S: Final = 0.05
_CLEAR_OVER: Final = (
    "DELETE FROM idempotency WHERE scope = ? AND idempotency_key = ? AND state = 'complete' "
    "AND (expires_at <= ? OR NOT EXISTS (SELECT 1 FROM blobs WHERE hash = idempotency.body_blob))"
)
"""An answer whose time is over, or whose body is gone, is nobody's: without this, its key could not be claimed."""

_CLEAR_DEAD: Final = (
    "DELETE FROM idempotency WHERE scope = ? AND idempotency_key = ? AND state = 'running' AND NOT EXISTS "
    "(SELECT 1 FROM owners WHERE ended_at IS NULL AND substr(owners.id, -4) = substr(idempotency.call_id, -4))"
)
"""Calls bear the last letters of the process that made them (``server.doors``)."""
_FIND: Final = (
    "SELECT request_hash, state, status, headers, body_blob FROM idempotency "
    "WHERE scope = ? AND idempotency_key = ? AND expires_at > ?"
)

Key = tuple[str, str]


class _Kept(msgspec.Struct, frozen=True):
    """A finished answer, or (``recording`` None) one that the last process did not finish."""

    digest: str
    recording: Recording | None
    expires: float  # epoch seconds


class _Going(msgspec.Struct):
    """An answer that is being given."""

    digest: str
    tape: Tape
    task: asyncio.Task[bool] | None = None
    listeners: int = 0
    grace: asyncio.TimerHandle | None = None


class Idempotency:
    """All keyed answers of the process. For one event loop."""

    def __init__(self, store: Store, clock: Clock, *, ttl_s: float, is_shared: bool = False) -> None:
        """``is_shared``: other processes may be asked the same; whoever notes a key first in the store serves it."""
        self.ttl_s = ttl_s
        self._is_shared = is_shared
        self._store = store
        self._clock = clock
        self._going: dict[Key, _Going] = {}
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._kept_bytes = 0
        self._forgetting: dict[Key, int] = {}  # failed, and not yet taken out of the store

    async def serve(self, call: Call, serve: Serve) -> str:
        """Answer a call that has a key; returns how: ``run``, ``rerun``, ``joined`` or ``replayed``.

        Raises:
            RequestError: the key, or the byte to resume from, is malformed.
            IdempotencyError: the key was used before with another body.
        """
        key, digest, start = _read(call)
        going = self._going.get(key)
        if going is not None:
            _check(key, going.digest, digest)
            await self._follow(key, going, call, _REPLAYED, start)
            # Nothing on the tape: its own client was refused before it was asked. Then this one asks for itself.
            return "joined" if going.tape.has_started else await self.serve(call, serve)
        going = self._going[key] = _Going(digest, Tape())  # before any waiting: a twin must find it
        try:
            kept = self._remembered(key) or await self._find(key)
            if kept is not None:
                _check(key, kept.digest, digest)
            if self._is_shared and (kept is None or kept.recording is None):
                kept = await self._claim(key, digest, call)
        except BaseException:
            self._drop(key, going)
            raise
        if kept is not None and kept.recording is not None:
            self._drop(key, going, kept.recording)
            kept.recording.play(call.answer, _REPLAYED, start)
            return "replayed"
        going.task = asyncio.ensure_future(self._run(key, going, call, serve))
        more = [("x-nightkeep-idempotency", "interrupted-rerun")] if kept is not None else []
        await self._follow(key, going, call, more, start)
        if not going.tape.has_started:
            await going.task  # it failed in a way that is not the client's; whoever called hears of it
        return "rerun" if kept is not None else "run"

    # -- an answer that is being given

    async def _run(self, key: Key, going: _Going, call: Call, serve: Serve) -> bool:
        """Serve onto the tape, then keep what may be kept."""
        self._save(key, going.digest, call.id, None)
        is_good = False
        try:
            is_good = await serve(msgspec.structs.replace(call, answer=going.tape))
        finally:
            self._going.pop(key, None)
            recording = going.tape.recording()
            if is_good and len(recording.body) <= _MOST_ANSWER_BYTES:
                self._remember(key, going.digest, recording)
                self._save(key, going.digest, call.id, recording)
            else:
                self._forget(key)
            going.tape.finish()
        return is_good

    async def _follow(self, key: Key, going: _Going, call: Call, more: list[tuple[str, str]], start: int) -> None:
        """Play a tape to a client; the last client that leaves starts the grace time."""
        going.listeners += 1
        if going.grace is not None:
            going.grace.cancel()
            going.grace = None
        try:
            await going.tape.play(call.answer, more, start)
        finally:
            going.listeners -= 1
            if not going.listeners and not going.tape.is_finished:
                loop = asyncio.get_running_loop()
                going.grace = loop.call_later(_GRACE_S, self._give_up, key, going)

    def _give_up(self, key: Key, going: _Going) -> None:
        if not going.listeners and going.task is not None:
            log.info("nobody came back for the answer under the key %s: it is stopped", key[1])
            going.task.cancel()

    def _drop(self, key: Key, going: _Going, recording: Recording | None = None) -> None:
        """Take a place that was held while looking back; twins that came meanwhile get what was found."""
        self._going.pop(key, None)
        if recording is not None:
            recording.play(going.tape, [])
        going.tape.finish()

    async def _claim(self, key: Key, digest: str, call: Call) -> _Kept | None:
        """Note the key for this call, or wait for the process that has noted it before; None: this call serves.

        A process that died while it served leaves its note behind: then this call takes it over.
        """
        now_ms = int(self._clock.now().timestamp() * 1000)
        row = (*key, digest, "running", call.id, None, None, None, now_ms, now_ms + int(self.ttl_s * 1000))

        def work(transaction: Transaction) -> bool:
            transaction.execute(_CLEAR_DEAD, key)
            transaction.execute(_CLEAR_OVER, (*key, int(self._clock.now().timestamp() * 1000)))
            transaction.insert(_SAVE, [row], "ON CONFLICT (scope, idempotency_key) DO NOTHING")
            found = transaction.execute("SELECT call_id FROM idempotency WHERE scope = ? AND idempotency_key = ?", key)
            return found == [(call.id,)]

        try:
            while not await self._store.write(work):
                await asyncio.sleep(_LOOK_S)
                kept = await self._find(key)
                if kept is not None:
                    _check(key, kept.digest, digest)
                    if kept.recording is not None:
                        return kept
        except StoreError as error:
            log.error("whether another process answers the same request is not known: %s", error)
        return None

    # -- answers that were given

    def _remembered(self, key: Key) -> _Kept | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.expires <= self._clock.now().timestamp():
            self._let_go(key)
            return None
        self._kept.move_to_end(key)
        return kept

    def _remember(self, key: Key, digest: str, recording: Recording) -> None:
        self._let_go(key)
        expires = self._clock.now().timestamp() + self.ttl_s
        self._kept[key] = _Kept(digest, recording, expires)
        self._kept_bytes += _size(recording)
        while self._kept_bytes > _MOST_KEPT_BYTES:
            self._let_go(next(iter(self._kept)))

    def _let_go(self, key: Key) -> None:
        """Out of memory; the store still has it."""
        kept = self._kept.pop(key, None)
        if kept is not None and kept.recording is not None:
            self._kept_bytes -= _size(kept.recording)

    async def _find(self, key: Key) -> _Kept | None:
        """Look into the store. One that cannot be read is no reason to refuse: the request is made."""
        if key in self._forgetting:
            return None
        now = self._clock.now().timestamp()
        try:
            rows = await self._store.read(_FIND, (*key, int(now * 1000)))
            if not rows:
                return None
            digest, state, status, headers, blob = rows[0]
            recording = None
            if state == "complete" and blob is not None:
                found = await self._store.read(LOAD_BLOB, (blob,))
                pairs = msgspec.json.decode(str(headers), type=_Stored)
                recording = Recording(int(status or 0), pairs.headers, load_blob(found[0]), pairs.is_stream)
        except (StoreError, IndexError, msgspec.MsgspecError) as error:
            log.error("a stored answer cannot be read, so its request is made again: %s", error)
            return None
        return _Kept(str(digest), recording, now + self.ttl_s)

    def _save(self, key: Key, digest: str, call_id: str, recording: Recording | None) -> None:
        now_ms = int(self._clock.now().timestamp() * 1000)
        expires_ms = now_ms + int(self.ttl_s * 1000)

        def work(transaction: Transaction) -> None:
            blob = Blob.of(recording.body) if recording is not None else None
            if blob is not None:
                save_blobs(transaction, [blob], expires_ms)
            stored = (
                msgspec.json.encode(_Stored(recording.headers, recording.is_stream)).decode() if recording else None
            )
            state = "complete" if recording is not None else "running"
            row = (
                *key, digest, state, call_id, recording.status if recording else None, stored,
                blob.hash if blob else None, now_ms, expires_ms,
            )  # fmt: skip
            transaction.insert(_SAVE, [row], _AFTER)

        self._store.post(work)

    def _forget(self, key: Key) -> None:
        """A failure is not kept: the same request may be sent again, also before the store has heard of it."""
        number = self._forgetting[key] = self._forgetting.get(key, 0) + 1

        def work(transaction: Transaction) -> None:
            transaction.execute("DELETE FROM idempotency WHERE scope = ? AND idempotency_key = ?", key)

        def forgotten(future: asyncio.Future[None]) -> None:
            if not future.cancelled() and future.exception() is not None:
                log.warning("a failed request under the key %s stays noted as running: the store failed", key[1])
            if self._forgetting.get(key) == number:
                del self._forgetting[key]

        self._store.write(work).add_done_callback(forgotten)


def _size(recording: Recording) -> int:
    return len(recording.body) + _OVERHEAD_BYTES


class _Stored(msgspec.Struct):
    headers: list[tuple[str, str]]
    is_stream: bool


def _read(call: Call) -> tuple[Key, str, int]:
    """The key, the request's digest, and the byte to resume from."""
    name = call.headers["idempotency-key"]
    if not 0 < len(name) <= _MOST_KEY or not name.isprintable():
        raise RequestError(
            f"the Idempotency-Key has {len(name)} characters; use 1 to {_MOST_KEY} printable ones",
            parameter="idempotency-key",
        )
    resume = call.headers.get("x-nightkeep-resume-from", "0")
    if not (resume.isascii() and resume.isdecimal() and len(resume) < 13):
        raise RequestError(f"x-nightkeep-resume-from must be a number of bytes, not {resume[:40]!r}")
    digest = hashlib.sha256(
        f"{call.door.path}\n{call.head.model}\n{call.head.stream}\n".encode() + call.body
    ).hexdigest()
    return (call.scope, name), digest, int(resume)


def _check(key: Key, known: str, given: str) -> None:
    if known != given:
        raise IdempotencyError(
            f"the Idempotency-Key {key[1]!r} was used before with another request; use a new key for a new request"
        )
