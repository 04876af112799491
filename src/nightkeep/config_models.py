"""The settings: every name that ``nightkeep.toml`` may hold, its type, its default and what is allowed.

``docs/configuration.md`` explains each (a test holds the two together). Reading the file is the business of
``nightkeep.config``, rules between settings are in ``nightkeep.config_checks``, and messages in
``nightkeep.config_messages``. Nothing below ``bootstrap`` sees these models: it maps them to each part's own values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from nightkeep.config_controls import Limit
from nightkeep.config_notify import Heartbeat, NotifyChannel
from nightkeep.config_watch import Watch
from nightkeep.core.errors import NightkeepError
from nightkeep.core.scope import parse_scope
from nightkeep.models.credentials import is_key_source, parse_key_source

__all__ = [
    "Account",
    "Budget",
    "BudgetThreshold",
    "Cache",
    "Deadlines",
    "Gateway",
    "Idempotency",
    "KeyLimits",
    "Limits",
    "LongPrice",
    "Match",
    "ModelAlias",
    "Notify",
    "Pool",
    "Price",
    "Provider",
    "Queue",
    "Quota",
    "Record",
    "Retries",
    "Route",
    "RouteLimits",
    "Settings",
    "Sim",
    "Task",
    "VirtualKey",
]

DEFAULT_POOL: Final = "default"
_SECRET_HEADERS: Final = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"})
_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}\Z")
_RESET: Final = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d(?: [A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*)?\Z")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}\Z")
_URL: Final = re.compile(r"https?://([^/?#\s]+)(/[^?#\s]*)?\Z")


def _refused(what: str, fix: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{what}", {"what": what, "fix": fix})


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, Mapping) else _as_tuple(value)


def _as_decimal(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Decimal(str(value)) if is_number else value


def _key_source(value: str) -> str:
    if not is_key_source(value):
        raise _refused(
            "a key may not stand in the file itself",
            "put it in an environment variable or a file and name that: env:NAME, file:PATH or cmd:COMMAND",
        )
    try:
        parse_key_source(value)
    except NightkeepError as error:
        raise _refused(error.message, str(error.data.get("fix", ""))) from error
    return value


def _url(value: str) -> str:
    match = _URL.match(value)
    if match is None:
        raise _refused("is no http or https address", 'write it whole, for example "https://api.example.com/v1"')
    if "@" in match[1]:
        raise _refused("holds a user name or password", "leave them out; a key belongs in the account's key setting")
    port = match[1].rpartition("]")[2].partition(":")[2]
    if port and not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 65536):
        raise _refused("has no valid port", "use a port from 1 to 65535")
    return value.rstrip("/")


def _webhook(value: str) -> str:
    """An address, or where it is kept: with many services the address is itself the secret."""
    return _key_source(value) if is_key_source(value) else _url(value)


def _scope(value: str) -> str:
    try:
        return parse_scope(value)
    except NightkeepError as error:
        raise _refused(error.message, 'write a path such as "acme/triage"') from error


def _scope_pattern(value: str) -> str:
    """A scope, or ``acme/*``: every child of it, each for itself."""
    if value.strip("/") == "*":
        return "*"
    return f"{_scope(value[:-2])}/*" if value.endswith("/*") else _scope(value)


def _name(value: str) -> str:
    if not _NAME.match(value):
        raise _refused("is no allowed name", "use up to 80 letters, digits, '.', '_' and '-', no dot first")
    return value


def _key_hash(value: str) -> str:
    if not _HASH.match(value):
        raise _refused(
            "is no hash of a key",
            "let 'nightkeep keys create' make it: sha256: and 64 hexadecimal digits, never the key",
        )
    return value


def _reset_time(value: str) -> str:
    if not _RESET.match(value):
        raise _refused("is no time of day", 'write "HH:MM" and a time zone, for example "00:00 America/Los_Angeles"')
    return value


def _headers(value: Mapping[str, str]) -> Mapping[str, str]:
    for name, text in value.items():
        if name.lower() in _SECRET_HEADERS:
            raise _refused(f"may not hold {name}", "a key belongs in the account's key setting")
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or not re.fullmatch(r"[\x20-\x7e]*", text):
            raise _refused(f"{name[:40]!r} is no valid header", "use plain ASCII on one line")
    return value


def _target(value: str) -> str:
    provider, slash, model = value.partition("/")
    if not (provider and slash and model):
        raise _refused(f"{value[:60]!r} names no provider", 'write "provider/model", for example "openai/gpt-4.1"')
    return value


def _aware(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise _refused("has no time zone", "write it with one, for example 2027-01-31T00:00:00Z")
    return value


Text = Annotated[str, Field(min_length=1, max_length=4096)]
Name = Annotated[str, AfterValidator(_name)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_as_tuple)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_as_tuple)]
Url = Annotated[str, AfterValidator(_url)]
Target = Annotated[str, AfterValidator(_target)]
Scope = Annotated[str, AfterValidator(_scope)]
Usd = Annotated[Decimal, BeforeValidator(_as_decimal), Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10**15)]
Seconds = Annotated[float, Field(gt=0, le=86_400 * 366, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
WireName = Literal["openai_chat", "openai_responses", "anthropic_messages", "gemini"]
Failover = Literal["ordered", "none"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=(), defer_build=True)


class Provider(_Section):
    """A vendor that is not built in, or another address for one that is."""

    wire: WireName | None = None
    wires: Annotated[tuple[WireName, ...], BeforeValidator(_as_tuple)] = ()
    base_url: Url | None = None
    auth: Literal["bearer", "x-api-key", "x-goog-api-key", "api-key", "none"] | None = None
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = {}
    free: bool = False


class Limits(_Section):
    """What an account may do at a time."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrent: Count | None = None


class Quota(_Section):
    """What an account may use in a window."""

    tokens: Count | None = None
    requests: Count | None = None
    per: Literal["hour", "day", "week", "month"]
    window: Literal["calendar", "rolling"] = "calendar"
    resets_at: Annotated[str, AfterValidator(_reset_time)] | None = None
    resets_on: Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"] | None = None


class Account(_Section):
    """One set of credentials at one provider."""

    provider: Name
    key: Annotated[str, AfterValidator(_key_source)] | None = None
    pool: Name = DEFAULT_POOL
    limits: Limits = Limits.model_construct()
    quota: Annotated[tuple[Quota, ...], BeforeValidator(_one_or_more)] = ()
    enabled: bool = True
    base_url: Url | None = None
    region: Name | None = None
    project: Name | None = None
    location: Name | None = None
    deployment: Text | None = None
    api_version: Name | None = None


class Pool(_Section):
    """How accounts are chosen from a group, and who may use which."""

    strategy: Literal["round_robin", "fill_first", "least_loaded"] = "round_robin"
    reserve: dict[Name, Count] = {}
    partial_alert: Share = 0.5


class ModelAlias(_Section):
    """A model name that agents ask for and the targets that serve it."""

    targets: Annotated[tuple[Text, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
    failover: Failover = "ordered"
    max_output_tokens: Count | None = None
    requires: Annotated[
        tuple[
            Literal[
                "tools", "parallel_tools", "vision", "documents", "audio", "structured_output", "reasoning", "caching"
            ],
            ...,
        ],
        BeforeValidator(_as_tuple),
    ] = ()


class Match(_Section):
    """Which requests a route is for: all that is given must hold."""

    model_prefix: Text | None = None
    tags: Names = ()


class RouteLimits(_Section):
    """What a route lets through at a time; the rest waits in the queue."""

    requests_per_minute: Count | None = None
    concurrent: Count | None = None


class Route(_Section):
    """A rule on the way from a request to a model; the first that matches wins."""

    match: Match
    name: Name | None = None
    model: Text | None = None
    pool: Name | None = None
    failover: Failover | None = None
    limits: RouteLimits = RouteLimits.model_construct()


class Task(_Section):
    """Another policy for one task type."""

    primary: Text
    fallback: Text | None = None
    max_output_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None


class LongPrice(_Section):
    """What a target costs for requests with more input than ``above``."""

    above: Count
    input: Usd
    output: Usd
    marginal: bool = False


class Price(_Section):
    """What a target costs, in USD per million tokens."""

    input: Usd
    output: Usd = Decimal(0)
    cached_input: Usd | None = None
    cache_write: Usd | None = None
    cache_write_1h: Usd | None = None
    reasoning: Usd | None = None
    batch_discount: Share | None = None
    credit_eligible: bool | None = None
    long: LongPrice | None = None
    since: date | None = None


class BudgetThreshold(_Section):
    """What happens when a share of a budget is spent."""

    at: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
    do: Literal["notify", "degrade", "interactive_only", "stop_batch", "deny"] = "notify"
    to: Text | None = None


class Budget(_Section):
    """How much may be spent below a scope in a window."""

    scope: Annotated[str, AfterValidator(_scope_pattern)]
    usd: Usd | None = None
    tokens: Count | None = None
    requests: Count | None = None
    per: Literal["run", "hour", "day", "week", "month", "once"]
    hard: bool = True
    resets_at: Annotated[str, AfterValidator(_reset_time)] | None = None
    resets_on: Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"] | None = None
    thresholds: Annotated[tuple[BudgetThreshold, ...], BeforeValidator(_as_tuple)] | None = None
    reserve: dict[Name, Usd] = {}
    strict: bool = False


class KeyLimits(Limits):
    """What a key may do at a time, beside the limits of its scope."""

    usd_per_day: Usd | None = None


class VirtualKey(_Section):
    """A key that clients of the gateway present."""

    scope: Scope
    hash: Annotated[str, AfterValidator(_key_hash)]
    models: Texts = ()
    tags: Names = ()
    default_tag: Name | None = None
    limits: KeyLimits = KeyLimits.model_construct()
    expires: Annotated[datetime, AfterValidator(_aware)] | None = None


class Deadlines(_Section):
    """How long the gateway waits for a provider."""

    connect_s: Seconds = 5.0
    first_byte_s: Seconds = 120.0
    idle_s: Seconds = 60.0
    total_s: Seconds = 900.0
    min_bytes_per_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class Retries(_Section):
    """How often the gateway tries again."""

    max_attempts: Annotated[int, Field(ge=1, le=50)] = 4
    budget: Share = 0.2


class Queue(_Section):
    """How many requests wait for an account, and how long."""

    max_waiting: Annotated[int, Field(ge=0, le=1_000_000)] = 1_000
    max_wait_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 60.0


class Gateway(_Section):
    """Where the gateway listens and how patient it is."""

    host: Text = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 7777
    max_body_mb: Annotated[int, Field(ge=1, le=1024)] = 64
    require_key: Literal["auto", "always", "never"] = "auto"
    unpriced: Literal["refuse", "allow"] = "refuse"
    deadlines: Deadlines = Deadlines.model_construct()
    retries: Retries = Retries.model_construct()
    queue: Queue = Queue.model_construct()


class Record(_Section):
    """What is kept of each call."""

    bodies: Literal["none", "failures", "sampled", "all"] = "failures"
    sample_rate: Share = 0.01
    keep_days: Annotated[int, Field(ge=1, le=36_500)] = 30
    session_gap_s: Seconds = 1_800.0


class Cache(_Section):
    """The cache of exact matches."""

    enabled: bool = False
    ttl_s: Seconds = 3_600.0
    max_mb: Annotated[int, Field(ge=1, le=1_048_576)] = 256


class Idempotency(_Section):
    """How long an answer is kept for a repeated ``Idempotency-Key``."""

    ttl_s: Seconds = 86_400.0


class Notify(_Section):
    """Who is told; the log always is."""

    webhook: Annotated[str, AfterValidator(_webhook)] | None = None
    channels: dict[Name, NotifyChannel] = {}
    per_hour: Annotated[int, Field(ge=1, le=10_000)] = 20
    heartbeat: Heartbeat | None = None


class Sim(_Section):
    """The simulated provider that serves when there is no account."""

    scenario: Text | None = None


class Settings(_Section):
    """All settings."""

    gateway: Gateway = Gateway.model_construct()
    providers: dict[Name, Provider] = {}
    accounts: dict[Name, Account] = {}
    pools: dict[Name, Pool] = {}
    models: dict[Text, ModelAlias] = {}
    routes: Annotated[tuple[Route, ...], BeforeValidator(_as_tuple)] = ()
    tasks: dict[Name, Task] = {}
    prices: dict[Target, Annotated[tuple[Price, ...], BeforeValidator(_one_or_more), Field(min_length=1)]] = {}
    budgets: Annotated[tuple[Budget, ...], BeforeValidator(_as_tuple)] = ()
    limits: Annotated[tuple[Limit, ...], BeforeValidator(_as_tuple)] = ()
    keys: dict[Name, VirtualKey] = {}
    record: Record = Record.model_construct()
    cache: Cache = Cache.model_construct()
    idempotency: Idempotency = Idempotency.model_construct()
    notify: Notify = Notify.model_construct()
    watch: Watch = Watch.model_construct()
    sim: Sim = Sim.model_construct()

    @property
    def is_simulated(self) -> bool:
        """There is no account, so the built-in simulated provider answers."""
        return not self.accounts
