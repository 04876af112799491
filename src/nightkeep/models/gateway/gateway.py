"""The life of a call: route, admit, attempt, classify, next attempt or answer, settle, record.

This is the shell: it awaits and obeys. What to try is ``models.routing``'s decision, which account
``models.book``'s, what an ending means ``models.classify``'s, what comes next ``models.retry``'s.
"""

from __future__ import annotations

import asyncio
import logging
from typing import assert_never

import msgspec

from nightkeep.control.budget_errors import refused_by
from nightkeep.control.budget_specs import Directive
from nightkeep.control.stops import Stop, refusal
from nightkeep.control.stops_in_force import StopsInForce
from nightkeep.core.clock import Clock, Randomness
from nightkeep.core.errors import (
    ConfigError,
    DeadlineError,
    NightkeepError,
    RequestError,
    UnknownModelError,
)
from nightkeep.core.outcome import RETRYABLE_OUTCOMES, Outcome, Verdict
from nightkeep.models.account_book import AccountBook
from nightkeep.models.account_states import AccountStates
from nightkeep.models.calibration import weigh
from nightkeep.models.call_record import CallSink
from nightkeep.models.estimate import needs_of
from nightkeep.models.gateway.admission import Admission, Admitted, model_names
from nightkeep.models.gateway.attempt import Failure, Opened, Patience, Whole, attempt
from nightkeep.models.gateway.cache import ResponseCache
from nightkeep.models.gateway.call import Call
from nightkeep.models.gateway.directory import Directory
from nightkeep.models.gateway.failure import provider_failure, retry_headers, wire_error
from nightkeep.models.gateway.idempotency import Idempotency
from nightkeep.models.gateway.interruption import Interruption, RunningCalls
from nightkeep.models.gateway.ledger import Ledger
from nightkeep.models.gateway.permits import Permits
from nightkeep.models.gateway.progress import Progress, Said
from nightkeep.models.gateway.relay import dated, relay
from nightkeep.models.gateway.side_operations import estimated_count
from nightkeep.models.gateway.spending import Spending, StreamMeter, holder_of
from nightkeep.models.gateway.tape import Tape, Tee
from nightkeep.models.leases import Lease
from nightkeep.models.retry import (
    GiveUp,
    NextAccount,
    NextTarget,
    Options,
    RetryBudget,
    RetryRules,
    RetrySame,
    plan_next,
)
from nightkeep.models.routing import Needs, Route, RouteTable
from nightkeep.models.transport import HttpClient, TransportError
from nightkeep.models.wire import CODECS
from nightkeep.models.wire.base import Operation

__all__ = ["Gateway", "GatewayParts", "GatewaySettings"]

log = logging.getLogger("nightkeep.gateway")

_CANCELLED = Verdict(outcome=Outcome.CANCELLED, message="the client hung up")
_NO_TOKEN = Verdict(outcome=Outcome.AUTH_FAILED, message="the provider gave no access token")


_LASTING = frozenset({Outcome.SUSPENDED, Outcome.AUTH_FAILED, Outcome.QUOTA_EXHAUSTED})
"""What these do to an account is on the disk before the client hears of it."""

_MOST_STOPS = 1_000  # whose ended calls are remembered

_LIKELY_OUTPUT = 4_096
"""Output tokens held in an account's limits until the real count is known. Coding agents ask for 32,000 and use
hundreds: holding what they ask for would leave accounts idle (peers: litellm#38647)."""


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How patient the gateway is. Seconds."""

    first_byte_s: float = 120.0
    idle_s: float = 60.0
    max_wait_s: float = 60.0
    min_bytes_per_s: float = 0.0  # 0: a slow stream is never ended for being slow
    retry_rules: RetryRules = RetryRules()
    retry_ratio: float = 0.2
    is_simulated: bool = False


class GatewayParts(msgspec.Struct, kw_only=True):
    """What a gateway is made of; wired in ``bootstrap``. A reload replaces ``routes`` and ``settings``."""

    routes: RouteTable
    settings: GatewaySettings
    book: AccountBook
    directory: Directory
    client: HttpClient
    states: AccountStates
    spending: Spending
    switches: StopsInForce
    permits: Permits
    log: CallSink
    idempotency: Idempotency
    cache: ResponseCache
    clock: Clock
    randomness: Randomness


class Gateway:
    """Serves calls."""

    def __init__(self, parts: GatewayParts) -> None:
        self.parts = parts
        self.running = RunningCalls()
        self._admission = Admission(parts)
        self.served = 0
        self._ended: dict[str, int] = {}  # calls that a stop has ended, by its id
        parts.switches.listeners.append(self._end_stopped)
        self._budgets: dict[str, RetryBudget] = {}

    @property
    def in_flight(self) -> int:
        """How many calls are under way."""
        return len(self.running)

    def ended_by(self, stop: Stop) -> int:
        """How many calls that were under way a stop has ended in this process."""
        return self._ended.get(stop.id, 0)

    def _end_stopped(self) -> None:
        """End the calls under way that are stopped now; those of a stop that drains go on to their end."""

        def reason(call: Call, progress: Progress | None) -> NightkeepError | None:
            """Why a call is to end; it is asked only about calls that are not ending already."""
            models = model_names(call, progress)
            account = (progress.account or None) if progress is not None else None
            stop = self.parts.switches.find(scope=call.scope, tag=call.tag, models=models, account=account)
            if stop is None or stop.drain:
                return None
            self._ended[stop.id] = self._ended.get(stop.id, 0) + 1
            return refusal(stop)

        while len(self._ended) > _MOST_STOPS:
            del self._ended[next(iter(self._ended))]
        self.running.interrupt(reason)

    async def serve(self, call: Call) -> None:
        """Answer one call, whatever happens: every error leaves in the client's own wire."""
        try:
            self.parts.switches.check(scope=call.scope, tag=call.tag, models=(call.head.model,))
            if "idempotency-key" in call.headers:
                how = await self.parts.idempotency.serve(call, self._answer)
                if how in ("joined", "replayed"):
                    self._note_unpaid(call, idempotency=how)
            else:
                await self._answer(call)
        except NightkeepError as error:
            ledger = Ledger(call, self.parts.log, self.parts.clock)
            _refuse(call, ledger, error)
            ledger.close()

    async def _answer(self, call: Call) -> bool:
        """Answer from the cache where the request allows it, else by a provider; whether it was whole and good."""
        cache = self.parts.cache
        mode = cache.mode(call)
        if mode == "off":
            return await self._call(call, None)
        found = cache.find(call) if mode == "use" else None
        if found is not None:
            recording, age_s = found
            served = [pair for pair in recording.headers if pair[0] not in _OWN_HEADERS]
            more = [("x-nightkeep-call", call.id), ("x-nightkeep-cache", "hit"), ("age", str(age_s))]
            msgspec.structs.replace(recording, headers=served).play(call.answer, more)
            self._note_unpaid(call, cache="hit")
            return True
        tape = Tape()
        is_good = await self._call(msgspec.structs.replace(call, answer=Tee(call.answer, tape)), "miss")
        if is_good:
            cache.keep(call, tape.recording())
        return is_good

    def _note_unpaid(self, call: Call, *, idempotency: str | None = None, cache: str | None = None) -> None:
        """Record a call that was answered with what another one paid for."""
        ledger = Ledger(call, self.parts.log, self.parts.clock)
        ledger.note_unpaid(idempotency, cache)
        ledger.close()

    async def _call(self, call: Call, cache: str | None) -> bool:
        """Answer by a provider, and record it."""
        ledger = Ledger(call, self.parts.log, self.parts.clock)
        ledger.record.cache = cache
        ledger.record.idempotency = "run" if "idempotency-key" in call.headers else None
        running = self.running.begin(call)
        try:
            await self._serve(call, ledger, running)
        except NightkeepError as error:
            _refuse(call, ledger, error)
        except RecursionError:
            _refuse(call, ledger, RequestError("the body is nested too deeply"))
        except asyncio.CancelledError:
            halt = running.take()
            if halt is None:
                ledger.note_cancelled()
                raise
            _refuse(call, ledger, halt)
        except Exception:
            log.exception("call %s failed by a fault of Nightkeep itself", call.id)
            _refuse(call, ledger, NightkeepError(f"a fault of Nightkeep itself; its log says more under {call.id}"))
        finally:
            self.running.end(running)
            self.served += 1
            ledger.close()
        return ledger.record.outcome == Outcome.SUCCESS

    async def _serve(self, call: Call, ledger: Ledger, running: Interruption) -> None:
        needs = needs_of(call.door.wire, call.head, call.body)
        directive = await self.parts.spending.budgets.directive(call.scope, call.run, call.tag, holder_of(call))
        if directive is not None and directive.refuses:
            raise refused_by(directive)
        try:
            route = self._plan(call, call.door.operation, needs, directive)
        except UnknownModelError:
            if call.door.operation is not Operation.COUNT_TOKENS:
                raise
            ledger.note_route(self._plan(call, Operation.CHAT, needs))  # raises where nothing serves the model at all
            self._answer_estimate(call, ledger)
            return
        output = min(call.head.max_output_tokens or _LIKELY_OUTPUT, _LIKELY_OUTPUT)
        weight = weigh(call.body, has_tools=needs.tools)
        progress = Progress(call, route, needs.context_tokens + output, weight)
        ledger.note_route(route)
        running.progress = progress
        while True:
            admitted = await self._admission.admit(progress)
            failure = await self._attempt(progress, admitted, ledger, running)
            if failure is None:
                return
            await self._next(progress, failure)

    def _plan(self, call: Call, operation: Operation, needs: Needs, directive: Directive | None = None) -> Route:
        asked = call.head.model
        cheaper = directive.degrade_to if directive is not None else None
        route = self.parts.routes.plan(
            cheaper or asked, tag=call.tag, task=call.task, wire=call.door.wire, operation=operation, needs=needs
        )
        if directive is None or cheaper is None or cheaper == asked:
            return route
        rule = f"{route.rule}, since {directive.why}"
        return msgspec.structs.replace(route, asked=asked, rule=rule, degraded_from=asked)

    def _answer_estimate(self, call: Call, ledger: Ledger) -> None:
        """No target can count tokens for this model: answer our own estimate, and say that it is one."""
        body = estimated_count(call)
        ledger.note_estimate(body)
        headers = [("x-nightkeep-call", call.id), ("x-nightkeep-degraded", "estimated"), *_JSON]
        call.answer.respond(200, headers, body)

    # -- one attempt

    async def _attempt(
        self, progress: Progress, admitted: Admitted, ledger: Ledger, running: Interruption
    ) -> Verdict | None:
        """Make one attempt and, if it succeeds, answer. Returns the verdict of a failure that was not answered."""
        parts, call, lease, held = self.parts, progress.call, admitted.lease, admitted.held
        progress.attempts += 1
        progress.account = lease.account_id
        said = admitted.said
        ledger.begin_attempt(progress.candidate, lease.account_id, said)
        self._budget(progress.candidate.provider).note_request(parts.clock.monotonic())
        verdict = _CANCELLED
        try:
            patience = self._patience(call)
            outbound = await parts.directory.outbound(
                lease.account_id, call, said, progress.candidate.model, f"{call.id}-{progress.attempts}"
            )
            result = await attempt(parts.client, outbound, patience, parts.clock.now)
            match result:
                case Failure():
                    verdict = result.verdict
                    ledger.note_failure(result)
                    return verdict
                case Whole():
                    verdict = ledger.note_whole(result)
                    self._answer_whole(progress, said, result, ledger)
                case Opened():
                    ledger.note_opened(result)
                    meter = parts.spending.meter(held, progress.candidate)
                    verdict = await self._answer_stream(progress, said, result, patience, ledger, running, meter)
                case _:
                    assert_never(result)
            return None
        except (ConfigError, TransportError) as error:
            verdict = msgspec.structs.replace(_NO_TOKEN, message=str(error)[:300])
            ledger.note_failure(Failure(verdict, was_sent=False))
            return verdict
        finally:
            used = ledger.end_attempt(verdict)
            parts.book.settle(lease, verdict, used)
            parts.permits.settle(admitted.taken, used)
            ledger.settle(parts.spending, held, progress.weight)

    def _patience(self, call: Call) -> Patience:
        settings = self.parts.settings
        return Patience(first_byte_s=settings.first_byte_s, idle_s=settings.idle_s, deadline=call.deadline)

    def _answer_whole(self, progress: Progress, said: Said, whole: Whole, ledger: Ledger) -> None:
        call = progress.call
        events = whole.events
        if said.wire is not call.door.wire:
            events = [dated(event, int(self.parts.clock.now().timestamp())) for event in events]
        body = progress.answer_body(said.wire, ledger.served_model, whole.body, events)
        headers = ledger.headers(progress, said, whole.headers, is_simulated=self.parts.settings.is_simulated)
        ledger.note_answer(200, body)
        call.answer.respond(200, [*_JSON, *headers], body)

    async def _answer_stream(
        self,
        progress: Progress,
        said: Said,
        opened: Opened,
        patience: Patience,
        ledger: Ledger,
        running: Interruption,
        meter: StreamMeter | None,
    ) -> Verdict:
        call = progress.call
        is_same = said.wire is call.door.wire
        headers = ledger.headers(progress, said, opened.headers, is_simulated=self.parts.settings.is_simulated)
        call.answer.start(200, [*_STREAM_HEADERS, *headers])
        try:
            verdict = await relay(
                opened,
                call.answer,
                progress.encoder(said.wire, ledger.served_model),
                patience,
                is_same_wire=is_same,
                hides_usage=is_same and not call.head.wants_usage,
                min_bytes_per_s=self.parts.settings.min_bytes_per_s,
                created=int(self.parts.clock.now().timestamp()),
                interruption=running,
                meter=meter,
            )
        finally:
            ledger.note_stream(opened.stream)
        ledger.note_stream_end(verdict)
        return verdict

    # -- what comes next

    async def _next(self, progress: Progress, verdict: Verdict) -> None:
        """Take the step that follows a failure. Raises ProviderError or DeadlineError where there is none."""
        parts, now = self.parts, self.parts.clock.monotonic()
        if verdict.outcome in _LASTING:
            await parts.states.remember()
        progress.note_failed(verdict.outcome)
        budget = self._budget(progress.candidate.provider)
        other = self._other_account(progress)
        options = Options(
            has_other_account=other is not None,
            has_next_target=bool(progress.rest),
            has_budget=budget.has_token(now),
        )
        step = plan_next(
            progress.history,
            verdict,
            options,
            # A provider's "come back in ten minutes" is the client's to wait for, not a connection's.
            remaining_s=min(progress.call.deadline - now, parts.settings.max_wait_s),
            jitter=parts.randomness.random(),
            failover=progress.route.failover,
            rules=parts.settings.retry_rules,
        )
        if other is not None and not isinstance(step, NextAccount):
            parts.book.release(other)
            other = None
        match step:
            case GiveUp():
                raise self._failure(progress, verdict, step)
            case NextTarget():
                progress.next_target()
            case NextAccount():
                if verdict.outcome in RETRYABLE_OUTCOMES:  # an account that is closed or empty is left, not retried
                    budget.take(now)
                progress.excluded |= {progress.account}
                progress.kept_lease = other
            case RetrySame(delay_s=delay_s):
                budget.take(now)
                progress.excluded = frozenset()
                await asyncio.sleep(delay_s)
            case _:
                assert_never(step)

    def _other_account(self, progress: Progress) -> Lease | None:
        """Another account of the same target, if one is free now: taken, so that nobody else gets it meanwhile."""
        call, candidate = progress.call, progress.candidate
        answer = self.parts.book.try_acquire(
            candidate.pool,
            candidate.provider,
            candidate.model,
            tag=call.tag,
            scope=call.scope,
            tokens=progress.tokens,
            exclude=progress.excluded | {progress.account},
        )
        return answer if isinstance(answer, Lease) else None

    def _budget(self, provider: str) -> RetryBudget:
        budget = self._budgets.get(provider)
        if budget is None:
            ratio = self.parts.settings.retry_ratio
            budget = self._budgets[provider] = RetryBudget(self.parts.clock.monotonic(), ratio=ratio)
        return budget

    def _failure(self, progress: Progress, verdict: Verdict, step: GiveUp) -> NightkeepError:
        if verdict.outcome is Outcome.TIMED_OUT and progress.call.deadline <= self.parts.clock.monotonic():
            return DeadlineError(
                f"the deadline of {progress.call.deadline - progress.call.started:g} s passed while "
                f"{progress.candidate.target} was silent; give the call more time, or another target",
                asked=progress.call.head.model,
                served=progress.candidate.model,
                attempts=progress.attempts,
            )
        return provider_failure(
            verdict,
            asked=progress.call.head.model,
            served=progress.candidate.model,
            provider=progress.candidate.provider,
            account=progress.account,
            attempts=progress.attempts,
            why_final=step.message,
        )


_OWN_HEADERS = frozenset(
    {
        "x-nightkeep-call",
        "x-nightkeep-cache",
        "x-nightkeep-cost-usd",
        "x-nightkeep-attempts",
        "x-request-id",
        "request-id",
    }
)
"""Headers of one answer that another client's answer must not carry."""

_JSON = [("content-type", "application/json")]
_STREAM_HEADERS = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-store")]


def _refuse(call: Call, ledger: Ledger, error: NightkeepError) -> None:
    said = wire_error(error)
    said = msgspec.structs.replace(said, data={**said.data, "call": call.id})
    status, body = CODECS[call.door.wire].write_error(said)
    ledger.note_refusal(error, status, body)
    headers = [("content-type", "application/json"), ("x-nightkeep-call", call.id)]
    headers.append(("x-nightkeep-attempts", str(ledger.attempts)))
    call.answer.respond(status, [*headers, *retry_headers(said)], body)
