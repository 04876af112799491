"""The life of a call: route, admit, attempt, classify, next attempt or answer, settle, record.

This is the shell: it awaits and obeys. What to try is ``models.routing``'s decision, which account
``models.pools``', what an ending means ``models.classify``'s, what comes next ``models.retry``'s.
"""

from __future__ import annotations

import asyncio

import msgspec

from nightkeep.core.clock import Clock, Randomness
from nightkeep.core.errors import (
    ConfigError,
    DeadlineError,
    NightkeepError,
    PoolExhaustedError,
    RequestError,
    UnknownModelError,
)
from nightkeep.core.events import UsageReported
from nightkeep.core.messages import Usage
from nightkeep.core.money import MicroUsd, micro_usd_from_pico
from nightkeep.core.outcome import Outcome, Verdict
from nightkeep.models.calls import AttemptRecord, CallLog, CallRecord
from nightkeep.models.drift import is_mismatch
from nightkeep.models.estimate import estimate_tokens
from nightkeep.models.gateway.answers import answer_headers, forwarded
from nightkeep.models.gateway.attempt import Failure, Opened, Patience, Whole, attempt
from nightkeep.models.gateway.call import Call
from nightkeep.models.gateway.directory import Directory
from nightkeep.models.gateway.failure import provider_failure, retry_headers, wire_error
from nightkeep.models.gateway.progress import Progress, Said
from nightkeep.models.gateway.relay import relay
from nightkeep.models.pools import AccountBook, Lease
from nightkeep.models.prices import cost_pico_usd
from nightkeep.models.retry import GiveUp, NextAccount, NextTarget, RetryBook, RetrySame
from nightkeep.models.routing import RouteTable
from nightkeep.models.transport import HttpClient, TransportError
from nightkeep.models.wire import CODECS
from nightkeep.models.wire.base import Operation

__all__ = ["Gateway", "GatewayParts", "GatewaySettings"]

_CANCELLED = Verdict(outcome=Outcome.CANCELLED, message="the client hung up")
_SUCCESS = Verdict(outcome=Outcome.SUCCESS, status=200)


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How patient the gateway is."""

    first_byte_s: float = 120.0
    idle_s: float = 60.0
    max_wait_s: float = 60.0
    min_events_per_s: float = 0.2
    is_simulated: bool = False


class GatewayParts(msgspec.Struct, kw_only=True):
    """What a gateway is made of; wired in ``bootstrap``. A reload replaces ``routes`` and ``settings``."""

    routes: RouteTable
    settings: GatewaySettings
    book: AccountBook
    directory: Directory
    client: HttpClient
    retries: RetryBook
    log: CallLog
    clock: Clock
    randomness: Randomness


class Gateway:
    """Serves calls."""

    def __init__(self, parts: GatewayParts) -> None:
        self.parts = parts

    async def serve(self, call: Call) -> None:
        """Answer one call, whatever happens; every error leaves in the client's own wire. Raises CancelledError only."""
        record = self._begin(call)
        try:
            await self._serve(call, record)
        except NightkeepError as error:
            self._refuse(call, record, error)
        except asyncio.CancelledError:
            record.outcome = str(Outcome.CANCELLED)
            raise
        finally:
            record.duration_ms = (self.parts.clock.monotonic() - call.started) * 1000
            self.parts.log.finish(record)
