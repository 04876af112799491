"""The values of routing: what is configured, what a request needs, and what comes out. No decisions here."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from nightkeep.models.catalog import Capability
from nightkeep.models.prices import Price
from nightkeep.models.wire.base import Wire

__all__ = ["AliasSpec", "Candidate", "Failover", "Needs", "Rejected", "Route", "RouteLimits", "RouteRule", "Why"]

Failover = Literal["ordered", "none"]


class AliasSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A model name that agents ask for (``[models.NAME]``)."""

    name: str
    targets: tuple[str, ...]  # "provider/model", or names that the catalog knows
    failover: Failover = "ordered"
    max_output_tokens: int | None = None
    requires: frozenset[Capability] = frozenset()


class RouteLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a route lets through at a time; the rest waits."""

    requests_per_minute: int | None = None
    concurrent: int | None = None


class RouteRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule of the configuration (``[[routes]]``): the first that matches wins; all that it names must hold."""

    name: str
    model_prefix: str | None = None
    tags: frozenset[str] = frozenset()  # any of them
    model: str | None = None  # replaces the model that was asked
    pool: str | None = None
    failover: Failover | None = None
    limits: RouteLimits = RouteLimits()


class Needs(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a request needs of a model."""

    stream: bool = False
    tools: bool = False
    parallel_tools: bool = False
    images: bool = False
    documents: bool = False
    audio: bool = False
    structured: bool = False
    context_tokens: int = 0  # estimated input (``nightkeep.models.estimate``)
    output_tokens: int | None = None  # what the client allows


class Why(StrEnum):
    """Why a target was not taken."""

    NO_PROVIDER = "no_provider"
    NO_ACCOUNT = "no_account"
    NO_WIRE = "no_wire"
    UNPRICED = "unpriced"
    CAPABILITY = "capability"
    CONTEXT = "context"
    NOT_ALLOWED = "not_allowed"  # outside the class of the task (Q-MODEL-01)
    BUDGET = "budget"
    FAILOVER_NONE = "failover_none"
    NOT_CHOSEN = "not_chosen"


class Rejected(msgspec.Struct, frozen=True):
    """A target that was looked at and not taken."""

    target: str
    reason: str  # a sentence for people
    why: Why = Why.NO_PROVIDER


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A model at a provider that can serve the request."""

    provider: str
    model: str  # the name to send on
    pool: str  # the accounts to take
    wire: Wire  # the wire to ask it on
    price: Price | None = None
    context_window: int | None = None
    max_output: int | None = None
    thinks: bool = False  # it may think before it answers, and be billed for thoughts that it does not show

    @property
    def target(self) -> str:
        """ "provider/model"."""
        return f"{self.provider}/{self.model}"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """The way of one request: candidates in the order they are tried, and why it is so."""

    rule: str  # in words
    asked: str
    alias: str | None = None
    candidates: tuple[Candidate, ...]
    rejected: tuple[Rejected, ...] = ()
    failover: Failover = "ordered"
    degraded_from: str | None = None  # what would have served, had no policy said otherwise
    rule_name: str | None = None  # of the configured rule that matched; the key of its limits
    limits: RouteLimits = RouteLimits()
    max_output_tokens: int | None = None  # a cap of the alias or the task
    temperature: float | None = None  # of the task, where the client did not say
