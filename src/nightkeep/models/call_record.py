"""What is kept of a call and of each attempt: plain values, filled while the call is served.

Who writes them down is ``nightkeep.models.calls``; the gateway knows only the port below.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Protocol

import msgspec

from nightkeep.core.messages import Usage
from nightkeep.core.money import MicroUsd
from nightkeep.models.wire.base import Stripped

__all__ = ["AttemptRecord", "Basis", "CallRecord", "CallSink"]


Basis = Literal["none", "usage", "open", "free"]
"""Where an attempt's cost comes from: nothing was billed (refused, never sent), the usage that the provider reported,
nobody said (it was sent and then cut, silent, or hung up on: the provider may have billed it, so what was reserved
counts as spent until the provider's own report settles it), or the target costs nothing."""


class AttemptRecord(msgspec.Struct, kw_only=True):
    """One try of a call on one account."""

    n: int  # from 1
    provider: str
    account: str
    model: str
    wire: str
    started_at: datetime
    outcome: str = ""  # of core.outcome; empty while it runs
    status: int = 0  # HTTP; 0 where no answer arrived
    provider_code: str = ""
    message: str = ""
    first_byte_ms: float | None = None
    duration_ms: float = 0.0
    retry_after_s: float | None = None
    usage: Usage | None = None
    cost: MicroUsd | None = None  # None: unpriced, or not known
    uncached: MicroUsd | None = None  # what it would have cost without the provider's cache (``ledger_rows``)
    basis: Basis = "none"
    price: str = ""  # the version of the price that was used (``models.prices``)
    reserved: MicroUsd | None = None  # what was held for it before it left; None where no budget in USD is above it
    bytes_out: int = 0


class CallRecord(msgspec.Struct, kw_only=True):
    """One request of a client, from its arrival to the last byte of its answer."""

    id: str
    scope: str
    tag: str | None
    task: str | None
    key: str  # name of the virtual key; "" on an open gateway
    release: str = ""  # the release of the agent that asks (``x-nightkeep-release``)
    wire: str
    door: str
    operation: str
    asked: str
    is_stream: bool
    started_at: datetime
    agent: str = ""  # the calling program, by its user agent
    peer: str = ""
    run: str | None = None
    idempotency: str | None = None  # how an Idempotency-Key was answered: run | replayed | joined
    alias: str | None = None
    rule: str = ""
    provider: str = ""
    account: str = ""
    served: str = ""
    outcome: str = ""  # of core.outcome, or the code of the error that refused it; empty while it runs
    status: int = 0
    error_code: str = ""
    error_message: str = ""
    first_byte_ms: float | None = None
    duration_ms: float = 0.0
    usage: Usage | None = None
    cost: MicroUsd | None = None
    stripped: tuple[Stripped, ...] = ()
    degraded: str | None = None
    cache: str | None = None
    bytes_in: int = 0  # from the provider
    bytes_out: int = 0  # of the client's request
    request_body: bytes | None = None
    response_body: bytes | None = None
    partial_text: str | None = None
    keeps_bodies: bool = False  # said by who writes it down, when it is over
    attempts: list[AttemptRecord] = []


class CallSink(Protocol):
    """Where records go. Neither may raise nor wait: recording is never in the way of an answer (law 7)."""

    def begin(self, record: CallRecord) -> None:
        """A call has begun; it may be written down as running if it lasts."""
        ...

    def finish(self, record: CallRecord) -> None:
        """A call is over."""
        ...
