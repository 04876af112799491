"""The scenario file: what the simulated provider answers, whom it knows, and what it does wrong.

These are the values only; ``loading.py`` reads them from TOML and explains mistakes, ``script.py``
chooses the turn, ``accounts.py`` holds the keys to their limits, ``faults.py`` knows the faults.
The reference with examples that run is ``docs/simulated-provider.md``.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = [
    "Account",
    "Delivery",
    "FaultRule",
    "Limits",
    "Match",
    "Model",
    "Price",
    "ProviderSection",
    "Quota",
    "Reply",
    "Scenario",
    "ScriptedCall",
    "ScriptedUsage",
    "Stop",
    "Turn",
]

Stop = Literal["end", "length", "tool_use", "refusal", "content_filter", "stop_sequence"]
"""Why a reply ended; each wire has its own word for it."""


class Match(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which requests a turn or a fault is for; everything that is given must hold."""

    model: str | None = None  # glob: "gpt-*"
    contains: str | None = None  # in the last user text, upper and lower case alike
    regex: str | None = None  # searched in the last user text
    turn: int | None = None  # 1 is the first answer of a conversation (1 + answers already in it)
    tool_result: bool | None = None  # the request ends with the result of a tool
    has_tools: bool | None = None  # the request offers tools
    tag: str | None = None  # header x-nightkeep-tag, glob
    account: str | None = None  # glob over the account's name here, or over the key itself
    wire: str | None = None  # openai_chat | openai_responses | anthropic_messages | gemini
    stream: bool | None = None
    operation: Literal["chat", "embed", "count_tokens", "models"] | None = None


class ScriptedCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A tool call in a reply. Without arguments they are made up from the tool's own schema."""

    name: str
    arguments: dict[str, Any] | None = None


class ScriptedUsage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Token counts to report and bill; what is not given is counted at four characters a token.

    ``cached`` and ``cache_write`` are parts of ``input``, ``reasoning`` is part of ``output``.
    """

    input: int | None = None
    cached: int = 0
    cache_write: int = 0
    output: int | None = None
    reasoning: int | None = None


class Delivery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How fast an answer comes and in which pieces."""

    first_byte_ms: float = 0.0
    chunk_delay_ms: float = 0.0
    chunk_chars: int = 12  # characters of text in one streamed chunk
    chunks: int | None = None  # or: this many chunks


class Reply(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One scripted answer. Nothing given means the default sentence."""

    text: str | None = None
    json: Any = None  # structured output: sent as text, encoded
    reasoning: str | None = None
    tool_calls: tuple[ScriptedCall, ...] = ()
    refusal: str | None = None
    stop: Stop | None = None  # None: follows from the content
    model: str | None = None  # the model name that the answer claims
    usage: ScriptedUsage | None = None
    first_byte_ms: float | None = None
    chunk_delay_ms: float | None = None
    chunk_chars: int | None = None
    chunks: int | None = None


class Turn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A reply for the requests that match; the first turn that matches is played."""

    match: Match = Match()
    reply: Reply = Reply()
    fault: str | None = None  # NAME or NAME:param, see faults.py
    times: int | None = None  # played at most so often, then the next matching turn is


class FaultRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A fault for the requests that match, counted among those only."""

    fault: str
    match: Match = Match()
    every: int | None = None  # each n-th matching request
    first: int | None = None  # the first n of them
    after: int | None = None  # all but the first n
    probability: float | None = None  # from the scenario's seed


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a key may do in a minute and at once."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None


class Quota(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a key may do in a longer window, which begins with its first request."""

    requests: int | None = None
    tokens: int | None = None
    per: Literal["minute", "hour", "day", "week", "month"] = "day"
    window_s: float | None = None  # instead of ``per``
    used: float = 0.0  # share already used at the start, 0 to 1


class Account(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A key that the provider knows."""

    key: str
    secret: str | None = None  # AWS: ``key`` is the access key id, this signs
    state: Literal["active", "suspended", "revoked", "no_credit"] = "active"
    limits: Limits = Limits()
    quota: Quota | None = None
    suspend_after_refusals_per_minute: int | None = None  # more 429s than this in a minute suspend it (W1.2)


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is known about a model; listed models are the only ones that exist."""

    context_window: int | None = None
    max_output_tokens: int | None = None


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """USD per million tokens; ``cached`` and ``cache_write`` default to ``input``."""

    input: float
    output: float
    cached: float | None = None
    cache_write: float | None = None


class ProviderSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One provider of several on one server, reached under ``/a/NAME``; what it leaves out is the root's."""

    strict: bool | None = None
    any_key: bool | None = None
    allow_parameters: tuple[str, ...] | None = None
    suspend_after_refusals_per_minute: int | None = None
    delivery: Delivery | None = None
    turns: tuple[Turn, ...] | None = None
    faults: tuple[FaultRule, ...] | None = None
    accounts: dict[str, Account] | None = None
    models: dict[str, Model] | None = None
    prices: dict[str, Price] | None = None


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A whole scenario. The default one answers every key and model with a sentence that says it is simulated."""

    name: str = "default"
    seed: int = 0
    strict: bool = True  # refuse parameters that the wire does not know, as vendors do (W3.3)
    any_key: bool | None = None  # accept keys that are not listed; None: only when no account is listed
    allow_parameters: tuple[str, ...] = ()  # known besides the vendor's own
    suspend_after_refusals_per_minute: int | None = None
    delivery: Delivery = Delivery()
    turns: tuple[Turn, ...] = ()
    faults: tuple[FaultRule, ...] = ()
    accounts: dict[str, Account] = {}
    models: dict[str, Model] = {}
    prices: dict[str, Price] = {}
    providers: dict[str, ProviderSection] = {}
