"""Choose the turn for a request and work it out into a reply with every number filled in.

Pure; the wires (``openai_chat.py`` and its siblings) turn a ``Played`` into their vendor's bytes.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from nightkeep.testing.sim.asked import Asked
from nightkeep.testing.sim.sampling import sample
from nightkeep.testing.sim.scenario import Delivery, Match, Reply, ScriptedCall, ScriptedUsage, Turn

__all__ = ["Call", "Context", "Played", "Tokens", "matches", "play"]


class Tokens(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Token counts; ``cached`` and ``cache_write`` are within ``input``, ``reasoning`` within ``output``."""

    input: int
    cached: int = 0
    cache_write: int = 0
    output: int
    reasoning: int = 0


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call to send: arguments as a value and as the JSON text of it."""

    name: str
    arguments: dict[str, Any]
    arguments_json: str
    is_custom: bool = False  # OpenAI's free-text tools


class Context(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known of a request besides its body."""

    account: str = ""
    key: str = ""
    tag: str = ""


class Played(msgspec.Struct, kw_only=True):
    """A reply, complete: what the wires write."""

    number: int  # of the request on this server; ids are made from it
    created: int  # seconds since 1970
    model: str
    text: str = ""
    chunks: list[str] = []
    reasoning: str = ""
    reasoning_chunks: list[str] = []
    calls: list[Call] = []
    refusal: str = ""
    stop: str = "end"
    stop_sequence: str | None = None
    tokens: Tokens
    has_usage: bool = True
    chunk_delay_ms: float = 0.0
    first_byte_ms: float = 0.0
    chunk_chars: int = 12


def matches(match: Match, asked: Asked, context: Context) -> bool:
    """Whether everything that ``match`` names holds for the request."""
    return (
        (match.model is None or fnmatchcase(asked.model, match.model))
        and (match.turn is None or match.turn == asked.turn)
        and (match.tool_result is None or match.tool_result == asked.has_tool_result)
        and (match.has_tools is None or match.has_tools == bool(asked.tools))
        and (match.wire is None or match.wire == asked.wire)
        and (match.stream is None or match.stream == asked.stream)
        and (match.operation is None or match.operation == asked.operation)
        and (match.contains is None or match.contains.lower() in asked.text.lower())
        and (match.regex is None or re.search(match.regex, asked.text) is not None)
        and (match.tag is None or fnmatchcase(context.tag, match.tag))
        and (match.account is None or fnmatchcase(context.account, match.account) or match.account == context.key)
    )


def play(turn: Turn | None, asked: Asked, pace: Delivery, *, number: int, created: int) -> Played:
    """Work ``turn`` (None: the default answer) out into a reply to ``asked``."""
    reply = turn.reply if turn is not None else Reply()
    calls = [_call(call, asked) for call in reply.tool_calls] or _forced_call(reply, asked)
    text = _text(reply, asked, calls)
    text, stop, sequence = _ended(text, reply, asked, calls)
    chars = _chunk_chars(reply, pace, len(text))
    return Played(
        number=number,
        created=created,
        model=reply.model or asked.model,
        text=text,
        chunks=_pieces(text, chars),
        reasoning=reply.reasoning or "",
        reasoning_chunks=_pieces(reply.reasoning, chars) if reply.reasoning else [],
        calls=calls,
        refusal=reply.refusal or "",
        stop=stop,
        stop_sequence=sequence,
        tokens=_tokens(reply, asked, text, calls),
        chunk_delay_ms=pace.chunk_delay_ms if reply.chunk_delay_ms is None else reply.chunk_delay_ms,
        first_byte_ms=pace.first_byte_ms if reply.first_byte_ms is None else reply.first_byte_ms,
        chunk_chars=chars,
    )


def _chunk_chars(reply: Reply, pace: Delivery, length: int) -> int:
    chars = reply.chunk_chars or pace.chunk_chars
    count = reply.chunks or (None if reply.chunk_chars else pace.chunks)
    return max(1, -(-length // count)) if count else max(1, chars)


def _pieces(text: str, chars: int) -> list[str]:
    return [text[start : start + chars] for start in range(0, len(text), chars)]


def _call(call: ScriptedCall, asked: Asked) -> Call:
    arguments = call.arguments
    if arguments is None:
        made = sample(asked.tools.get(call.name) or {"type": "object"})
        arguments = made if isinstance(made, dict) else {}
    is_custom = call.name in asked.custom_tools
    text = str(arguments.get("input", "")) if is_custom else msgspec.json.encode(arguments).decode()
    return Call(name=call.name, arguments=arguments, arguments_json=text, is_custom=is_custom)


def _forced_call(reply: Reply, asked: Asked) -> list[Call]:
    """Obey ``tool_choice`` where the script says nothing."""
    if asked.forced_tool is None or not asked.tools or reply != Reply():
        return []
    name = asked.forced_tool if asked.forced_tool in asked.tools else next(iter(asked.tools))
    return [_call(ScriptedCall(name=name), asked)]


def _text(reply: Reply, asked: Asked, calls: list[Call]) -> str:
    if reply.text is not None:
        return reply.text
    if reply.json is not None:
        return msgspec.json.encode(reply.json).decode()
    if calls or reply.refusal:
        return ""
    if asked.schema is not None:
        value = sample(asked.schema) if asked.schema else {"simulated": True}
        return msgspec.json.encode(value).decode()
    said = asked.text if len(asked.text) <= 80 else asked.text[:77] + "..."
    return f"Simulated answer from nightkeep sim, model {asked.model}, turn {asked.turn}. You said: {said}"


def _ended(text: str, reply: Reply, asked: Asked, calls: list[Call]) -> tuple[str, str, str | None]:
    sequence: str | None = None
    for candidate in asked.stop_sequences:
        if candidate and candidate in text:
            text, sequence = text[: text.index(candidate)], candidate
    limit = asked.max_output
    if limit is not None and len(text) > limit * 4 and (reply.usage is None or reply.usage.output is None):
        return text[: limit * 4], "length", None
    if reply.stop is not None:
        return text, reply.stop, sequence
    if sequence is not None:
        return text, "stop_sequence", sequence
    if reply.refusal:
        return text, "refusal", None
    return text, "tool_use" if calls else "end", None


def _tokens(reply: Reply, asked: Asked, text: str, calls: list[Call]) -> Tokens:
    given = reply.usage or _NO_USAGE
    thought = len(reply.reasoning or "") // 4
    output = (len(text) + len(reply.refusal or "") + sum([len(call.arguments_json) + 16 for call in calls]) + 3) // 4
    return Tokens(
        input=asked.input_tokens if given.input is None else given.input,
        cached=given.cached,
        cache_write=given.cache_write,
        output=max(1, output + thought) if given.output is None else given.output,
        reasoning=given.reasoning or thought,
    )


_NO_USAGE = ScriptedUsage()
