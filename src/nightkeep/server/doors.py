"""The model doors: which URL means which wire and operation, and how a request becomes a call.

A door parses, calls the gateway and renders errors in the client's own wire. It decides nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from urllib.parse import parse_qs, unquote

import msgspec

from nightkeep.control.keys import Caller, KeyRing, presented_key
from nightkeep.core.clock import Clock, Randomness, new_id
from nightkeep.core.errors import NightkeepError, RequestError, RequestTooLargeError
from nightkeep.models.gateway.call import Call, Door
from nightkeep.models.gateway.failure import retry_headers, wire_error
from nightkeep.models.gateway.gateway import Gateway
from nightkeep.models.sessions import Sessions, agent_name, session_key
from nightkeep.models.wire import CODECS
from nightkeep.models.wire.base import Operation, Wire
from nightkeep.server.http import Exchange, Request
from nightkeep.server.origin import LOCAL_HOSTS, check_page

__all__ = ["DOORS", "GEMINI_PREFIXES", "DoorKeeper", "DoorSettings", "refuse"]

DOORS: dict[str, Door] = {
    "/v1/chat/completions": Door(Wire.OPENAI_CHAT, Operation.CHAT, "/v1/chat/completions"),
    "/v1/responses": Door(Wire.OPENAI_RESPONSES, Operation.CHAT, "/v1/responses"),
    "/v1/embeddings": Door(Wire.OPENAI_CHAT, Operation.EMBED, "/v1/embeddings"),
    "/v1/messages": Door(Wire.ANTHROPIC_MESSAGES, Operation.CHAT, "/v1/messages"),
    "/v1/messages/count_tokens": Door(Wire.ANTHROPIC_MESSAGES, Operation.COUNT_TOKENS, "/v1/messages/count_tokens"),
}
GEMINI_PREFIXES = ("/v1beta/models/", "/v1/models/", "/v1alpha/models/")
_GEMINI_METHODS: dict[str, tuple[Door, bool]] = {
    "generateContent": (Door(Wire.GEMINI, Operation.CHAT, "/v1beta/models/{model}:generateContent"), False),
    "streamGenerateContent": (Door(Wire.GEMINI, Operation.CHAT, "/v1beta/models/{model}:streamGenerateContent"), True),
    "countTokens": (Door(Wire.GEMINI, Operation.COUNT_TOKENS, "/v1beta/models/{model}:countTokens"), False),
    "embedContent": (Door(Wire.GEMINI, Operation.EMBED, "/v1beta/models/{model}:embedContent"), False),
    "batchEmbedContents": (Door(Wire.GEMINI, Operation.EMBED, "/v1beta/models/{model}:batchEmbedContents"), False),
}
_PRIORITIES = {"interactive": 0, "monitoring": 0, "health_check": 0, "batch": 2}
_DEFAULT_PRIORITY = 1


class DoorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the doors need of the configuration."""

    total_s: float
    max_body_bytes: int


class DoorKeeper:
    """Turns exchanges at the model doors into calls."""

    def __init__(
        self,
        gateway: Gateway,
        keys: KeyRing,
        sessions: Sessions,
        settings: DoorSettings,
        clock: Clock,
        randomness: Randomness,
        mark: str = "",
    ) -> None:
        """``mark`` ends the id of every call, so that it tells which process has made it."""
        self.gateway = gateway
        self._mark = mark
        self._sessions = sessions
        self.keys = keys
        self.settings = settings
        self._clock = clock
        self._randomness = randomness

    def find(self, target: str) -> tuple[Door, str | None, bool | None] | None:
        """The door behind a path, with the model and the streaming that the path itself names (Gemini)."""
        door = DOORS.get(target)
        if door is not None:
            return door, None, None
        for prefix in GEMINI_PREFIXES:
            if target.startswith(prefix):
                model, _, method = unquote(target[len(prefix) :]).rpartition(":")
                known = _GEMINI_METHODS.get(method)
                return (known[0], model, known[1]) if known and model else None
        return None

    async def answer(self, exchange: Exchange, door: Door, path_model: str | None, stream: bool | None) -> None:
        """Serve one call; every error leaves in the shape of the client's own wire."""
        try:
            call = self._call(exchange, door, path_model, stream)
        except NightkeepError as error:
            refuse(exchange, door.wire, error)
            return
        except RecursionError:
            refuse(exchange, door.wire, RequestError("the body is nested too deeply"))
            return
        await self.gateway.serve(call)

    def _call(self, exchange: Exchange, door: Door, path_model: str | None, stream: bool | None) -> Call:
        request = exchange.request
        headers = request.headers
        caller = self.authenticate(request)
        if stream and request.query:
            _check_alt(request.query)
        body = request.body if "content-encoding" not in headers else self._decompressed(headers, request.body)
        head = CODECS[door.wire].head(body, path_model, stream=stream)
        tag = headers.get("x-nightkeep-tag") or caller.default_tag
        caller.check(head.model, tag)
        started = self._clock.monotonic()
        now = self._clock.now()
        scope = caller.narrowed(headers.get("x-nightkeep-scope"))
        session = session_key(scope, headers, head.session, caller.name, request.peer)
        return Call(
            id=new_id("call", now, self._randomness)[: -len(self._mark) or None] + self._mark,
            door=door,
            head=head,
            body=body,
            headers=headers,
            peer=request.peer,
            caller=caller,
            scope=scope,
            tag=tag,
            task=headers.get("x-nightkeep-task"),
            priority=_PRIORITIES.get(tag or "", _DEFAULT_PRIORITY),
            started=started,
            deadline=started + self._patience(headers),
            answer=exchange,
            run=self._sessions.join(session, agent_name(headers), now),
        )

    def authenticate(self, request: Request) -> Caller:
        """Who is asking. Raises AuthenticationError; DeniedError for a web page where no key is asked for."""
        if self.keys.is_open:
            check_page(request, LOCAL_HOSTS)
        query_key = parse_qs(request.query).get("key", [None])[0] if "key=" in request.query else None
        return self.keys.authenticate(presented_key(request.headers, query_key), self._clock.now())

    def _patience(self, headers: Mapping[str, str]) -> float:
        """Seconds until the caller's deadline: its own (header, milliseconds), at most the configured one."""
        text = headers.get("x-nightkeep-deadline-ms")
        if text is None:
            return self.settings.total_s
        if not text.isdecimal() or int(text) == 0:
            raise RequestError(f"x-nightkeep-deadline-ms must be a positive whole number, not {text!r}")
        return min(self.settings.total_s, int(text) / 1000)

    def _decompressed(self, headers: Mapping[str, str], body: bytes) -> bytes:
        """Undo a request's compression, bounded, so that a small bomb stays small."""
        encoding = headers["content-encoding"].lower()
        limit = self.settings.max_body_bytes
        if encoding == "identity":
            return body
        if encoding not in ("gzip", "deflate"):
            raise RequestError(
                f"content-encoding {encoding!r} is not supported; send gzip, deflate or none", status=415
            )
        decompressor = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            plain = decompressor.decompress(body, limit + 1)
        except zlib.error as error:
            raise RequestError(f"the body is not valid {encoding}: {error}") from error
        if len(plain) > limit:
            raise RequestTooLargeError(f"the decompressed body is over {limit} bytes", limit_bytes=limit)
        return plain


def _check_alt(query: str) -> None:
    form = parse_qs(query).get("alt", ["sse"])[0]
    if form != "sse":
        raise RequestError(f"alt={form!r} is not offered; stream with alt=sse", parameter="alt")


def refuse(exchange: Exchange, wire: Wire, error: NightkeepError) -> None:
    """Answer an error in a wire's own shape, before there was a call."""
    said = wire_error(error)
    status, body = CODECS[wire].write_error(said)
    exchange.respond(status, [("content-type", "application/json"), *retry_headers(said)], body)
