"""The faults: what each is called, and how it changes an answer. Pure; ``delivery.py`` performs.

A fault is asked for by a rule of the scenario, by a turn, by the header ``x-sim-fault: NAME[:param]``
or by a key ``sim-fault-NAME[:param]``.
"""

from __future__ import annotations

import msgspec

from nightkeep.testing.sim.asked import Refusal
from nightkeep.testing.sim.script import Played, Tokens
from nightkeep.testing.sim.wire import Piece

__all__ = ["FAULTS", "Fault", "change_body", "change_pieces", "change_reply", "parse_fault", "refusal_of"]

FAULTS: dict[str, str] = {
    # refusals
    "rate_limited": "429, with Retry-After of PARAM seconds (default 2)",
    "rate_limited_silent": "429 that does not say when to come back",
    "quota": "429, the long window is used up; resets in PARAM seconds (default 3600)",
    "no_credit": "the account has no money left: 429 at OpenAI and Gemini, 400 at Anthropic",
    "suspended": "403, the account is suspended",
    "unauthorized": "401 (Gemini: 400), the key is not valid",
    "server_error": "500",
    "overloaded": "529 at Anthropic, 503 elsewhere",
    "unavailable": "503",
    "gateway_timeout": "504",
    "not_found": "404, no such model",
    "bad_request": "400, unknown parameter PARAM",
    "context_too_long": "400, the prompt does not fit PARAM tokens (default 8192)",
    "content_refused": "400, blocked by content policy",
    # the connection
    "abort": "the connection is cut before a byte is sent, as if it had been refused",
    "delay": "the first byte comes PARAM seconds late (default 1)",
    "hang": "nothing is ever sent",
    "hang_after_preamble": "headers and the first events without content are sent, then nothing (whole: headers only)",
    "hang_after_chunks": "nothing more after PARAM content events (default 1)",
    "slow_drip": "one event each PARAM seconds (default 1)",
    "cut_after_bytes": "the connection is cut after PARAM bytes (default 100)",
    "cut_after_chunks": "the connection is cut after PARAM content events (default 1); whole: in the middle",
    "cut_after_preamble": "the connection is cut before the first content; whole: after the headers",
    "byte_by_byte": "each byte in its own packet",
    # the bytes
    "stream_error": "the vendor's error event after PARAM content events (default 1); whole: 500",
    "malformed_json": "JSON that breaks off in the middle, in an answer that is otherwise whole",
    "malformed_sse": "bytes that are no server-sent events",
    "html_502": "502 with an HTML page, as from a proxy in between",
    "html_200": "200 with an HTML page",
    "empty": "200 with no body at all",
    "duplicate_done": "the last event is sent twice",
    "no_done": "the last event is never sent, and the answer ends as if it were whole",
    "crlf": "lines end with CR LF",
    "pings": "a comment or ping between any two events",
    # the content
    "other_model": "the answer says that another model gave it (PARAM, default 'sim-other-model')",
    "wrong_usage": "usage PARAM times too high (default 10)",
    "no_usage": "no usage at all",
    "huge_reply": "a text of PARAM kilobytes (default 1024)",
}
_REFUSALS: dict[str, str] = {
    "rate_limited": "rate_limited",
    "rate_limited_silent": "rate_limited",
    "quota": "quota",
    "no_credit": "no_credit",
    "suspended": "suspended",
    "unauthorized": "authentication",
    "server_error": "server_error",
    "overloaded": "overloaded",
    "unavailable": "unavailable",
    "gateway_timeout": "timeout",
    "not_found": "not_found",
    "bad_request": "invalid",
    "context_too_long": "too_long",
    "content_refused": "content",
}
_RETRY_AFTER_S = {"rate_limited": 2.0, "quota": 3600.0}


class Fault(msgspec.Struct, frozen=True, gc=False):
    """A fault with its parameter."""

    name: str
    param: str = ""

    def number(self, default: float) -> float:
        """The parameter as a number; the default where it is none."""
        try:
            return float(self.param)
        except ValueError:
            return default


def parse_fault(text: str) -> Fault | None:
    """Read ``NAME[:param]`` (also ``NAME-param`` in keys); None where the name is not a fault."""
    name, _, param = text.strip().partition(":")
    name = name.replace("-", "_")
    return Fault(name, param) if name in FAULTS else None


def refusal_of(fault: Fault, *, model: str, key: str) -> Refusal | None:
    """The refusal that a fault stands for; None where it is of another sort."""
    kind = _REFUSALS.get(fault.name)
    if kind is None:
        return None
    retry = _RETRY_AFTER_S.get(fault.name)
    message = f"Unknown parameter: '{fault.param or 'simulated'}'." if kind == "invalid" else None
    return Refusal(
        kind=kind,
        message=message,
        param=(fault.param or "simulated") if kind == "invalid" else None,
        code="unknown_parameter" if kind == "invalid" else None,
        retry_after_s=fault.number(retry) if retry is not None else None,
        model=model,
        key=key,
        limit=int(fault.number(8192)) if kind == "too_long" else 60,
    )


def change_reply(fault: Fault, played: Played) -> None:
    """Apply a fault of the content."""
    match fault.name:
        case "other_model":
            played.model = fault.param or "sim-other-model"
        case "wrong_usage":
            played.tokens = _inflated(played.tokens, fault.number(10))
        case "no_usage":
            played.has_usage = False
        case "huge_reply":
            played.text = "nightkeep sim " * (int(fault.number(1024)) * 1024 // 14 + 1)
            played.chunks = [played.text[at : at + 4096] for at in range(0, len(played.text), 4096)]
            played.chunk_chars = 4096
            played.tokens = msgspec.structs.replace(played.tokens, output=len(played.text) // 4)
        case "slow_drip":
            played.chunk_delay_ms = fault.number(1) * 1000
        case "delay":
            played.first_byte_ms = fault.number(1) * 1000


def _inflated(tokens: Tokens, factor: float) -> Tokens:
    return Tokens(
        input=int(tokens.input * factor),
        cached=int(tokens.cached * factor),
        cache_write=int(tokens.cache_write * factor),
        output=int(tokens.output * factor),
        reasoning=int(tokens.reasoning * factor),
    )


def change_body(fault: Fault, body: bytes) -> bytes:
    """Apply a fault of the bytes to a whole reply."""
    if fault.name in ("malformed_json", "malformed_sse"):
        return body[: len(body) // 2]
    return body


def change_pieces(fault: Fault, pieces: list[Piece], error_event: bytes) -> list[Piece]:
    """Apply a fault of the bytes to a stream."""
    contents = [at for at, piece in enumerate(pieces) if piece.role == "content"] or [len(pieces) - 1]
    match fault.name:
        case "stream_error":
            at = contents[min(int(fault.number(1)), len(contents)) - 1] + 1 if fault.number(1) >= 1 else contents[0]
            return [*pieces[:at], Piece(error_event, "done")]
        case "malformed_json":
            at = contents[len(contents) // 2]
            data = pieces[at].data.rstrip()
            pieces[at] = Piece(data[: len(data) * 2 // 3] + b"\n\n", "content", pieces[at].tokens)
        case "malformed_sse":
            at = contents[len(contents) // 2]
            pieces[at] = Piece(b"\xff\xfe\x00 this is { no event\n\ndata\n\n:\n\n", "content")
        case "duplicate_done":
            pieces.append(pieces[-1])
        case "no_done":
            return [piece for piece in pieces if piece.role != "done"]
        case "crlf":
            for piece in pieces:
                piece.data = piece.data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        case "pings":
            return _with_pings(pieces)
    return pieces


def _with_pings(pieces: list[Piece]) -> list[Piece]:
    is_anthropic = pieces[0].data.startswith(b"event: message_start")
    ping = b'event: ping\ndata: {"type": "ping"}\n\n' if is_anthropic else b": ping\n\n"
    out: list[Piece] = []
    for piece in pieces:
        out += [Piece(ping, "preamble"), piece]
    return out[1:]
