"""What one call leaves behind: its record and those of its attempts, and the headers that tell the client.

It collects; ``models.calls`` keeps. Nothing here decides, and a fault in keeping never reaches the client.
"""

from __future__ import annotations

from nightkeep.core.clock import Clock
from nightkeep.core.errors import NightkeepError
from nightkeep.core.events import Event, Started, UsageReported
from nightkeep.core.messages import Usage
from nightkeep.core.money import MicroUsd, micro_usd_from_pico
from nightkeep.core.outcome import Outcome, Verdict
from nightkeep.models.calibration import Weight
from nightkeep.models.call_record import AttemptRecord, CallRecord, CallSink
from nightkeep.models.drift import find_mismatch
from nightkeep.models.gateway.answers import answer_headers, forwarded
from nightkeep.models.gateway.attempt import Failure, Opened, Whole
from nightkeep.models.gateway.call import Call
from nightkeep.models.gateway.progress import Progress, Said
from nightkeep.models.gateway.spending import Held, Spending, basis_of
from nightkeep.models.gateway.stream import ReplyStream
from nightkeep.models.ledger_rows import uncached_pico
from nightkeep.models.prices import cost_pico
from nightkeep.models.routing import Candidate, Route
from nightkeep.models.sessions import agent_name
from nightkeep.models.wire.base import Operation

__all__ = ["Ledger"]

_SUCCESS = Verdict(outcome=Outcome.SUCCESS, status=200)


class Ledger:
    """Takes notes while a call is served."""

    __slots__ = (
        "_attempt",
        "_attempt_started",
        "_candidate",
        "_clock",
        "_first_target",
        "_has_all_usage",
        "_is_answered",
        "_log",
        "_started",
        "_text_bytes",
        "_was_sent",
        "attempts",
        "record",
        "served_model",
    )

    def __init__(self, call: Call, log: CallSink, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._started = call.started
        self._attempt: AttemptRecord | None = None
        self._attempt_started = 0.0
        self._was_sent = True  # the provider may have seen the attempt
        self._is_answered = False  # it refused it: nothing is billed
        self._has_all_usage = False  # what it reported is its last word
        self._text_bytes: int | None = None  # of a stream, what was seen of it
        self._candidate: Candidate | None = None
        self._first_target = ""
        self.attempts = 0
        self.served_model = ""
        self.record = _begin(call, clock)
        log.begin(self.record)

    # -- the way

    def note_route(self, route: Route) -> None:
        """Which rule decided."""
        self._first_target = route.candidates[0].target
        self.record.alias = route.alias
        self.record.rule = route.rule
        if route.degraded_from is not None:
            self.record.degraded = f"{route.rule} (instead of {route.degraded_from})"

    def begin_attempt(self, candidate: Candidate, account: str, said: Said) -> None:
        """An attempt leaves."""
        record = self.record
        self.attempts += 1
        self._candidate = candidate
        self._attempt_started = self._clock.monotonic()
        self._was_sent, self._is_answered, self._has_all_usage, self._text_bytes = True, False, False, None
        self._attempt = AttemptRecord(
            n=self.attempts,
            provider=candidate.provider,
            account=account,
            model=candidate.model,
            wire=str(said.wire),
            started_at=self._clock.now(),
            bytes_out=len(said.body),
        )
        record.attempts.append(self._attempt)
        record.provider, record.account, record.served = candidate.provider, account, candidate.model
        record.stripped = said.stripped
        self.served_model = candidate.model
        if candidate.target != self._first_target:
            record.degraded = f"failover from {self._first_target}"

    # -- what came back

    def note_failure(self, failure: Failure) -> None:
        """The attempt failed and nothing was committed."""
        self._note_first_byte(failure.first_byte)
        self._was_sent, self._is_answered = failure.was_sent, failure.is_answered
        if failure.body:
            self.record.response_body = failure.body

    def note_whole(self, whole: Whole) -> Verdict:
        """A whole answer came."""
        self._note_first_byte(whole.first_byte)
        model, usage = _read(whole.events)
        self._note_served(model)
        self._note_usage(usage)
        self._has_all_usage = usage is not None
        self.record.bytes_in = len(whole.body)
        return _SUCCESS

    def note_opened(self, opened: Opened) -> None:
        """A stream has shown content."""
        self._note_first_byte(opened.first_byte)
        self._note_served(opened.stream.model)

    def note_stream(self, stream: ReplyStream) -> None:
        """A stream is over, however it ended."""
        self._note_usage(stream.usage)
        self._has_all_usage = stream.usage is not None and (stream.is_ended or stream.is_finished)
        self._text_bytes = stream.text_bytes
        self.record.bytes_in = stream.bytes_in
        if stream.is_ended:
            self.record.response_body = "".join(stream.texts).encode()
        else:
            self.record.partial_text = "".join(stream.texts)

    def note_stream_end(self, verdict: Verdict) -> None:
        """How a committed stream ended; its status was 200 already."""
        self.record.status = 200
        self.record.outcome = str(verdict.outcome)
        if verdict.outcome is Outcome.CANCELLED:  # Nightkeep itself has stopped it
            self.record.error_code = self.record.outcome = verdict.provider_code
            self.record.error_message = verdict.message
        elif verdict.outcome is not Outcome.SUCCESS:
            self.record.error_code = "stream_cut"

    def end_attempt(self, verdict: Verdict) -> int:
        """Close the attempt's record; returns the tokens that it used."""
        record = self._attempt
        assert record is not None
        record.outcome = str(verdict.outcome)
        record.status = verdict.status
        record.provider_code = verdict.provider_code
        record.message = verdict.message
        record.retry_after_s = verdict.retry_after_s
        record.duration_ms = (self._clock.monotonic() - self._attempt_started) * 1000
        return record.usage.total if record.usage is not None else 0

    def settle(self, spending: Spending, held: Held, weight: Weight) -> None:
        """Say what the attempt cost, settle what was held for it, and let the counter learn. Once per attempt."""
        record, candidate = self._attempt, self._candidate
        assert record is not None
        assert candidate is not None
        price = candidate.price
        record.basis = basis_of(
            price, has_usage=self._has_all_usage, was_sent=self._was_sent, is_answered=self._is_answered
        )
        if record.basis == "open" and self.record.operation == Operation.COUNT_TOKENS:
            record.basis = "free"  # counting costs nothing at any vendor, and reports no usage
        if held.reservation.parts:
            record.reserved = MicroUsd(held.reservation.micro_usd)
        if record.basis == "open":
            open_cost = spending.open_cost(held, candidate, self._text_bytes)
            record.cost = MicroUsd(open_cost) if price is not None else None
        elif record.basis in ("none", "free"):
            record.cost = MicroUsd(0) if price is not None or record.basis == "none" else None
        costs = [attempt.cost for attempt in self.record.attempts if attempt.cost is not None]
        self.record.cost = MicroUsd(sum(costs)) if costs else None
        spending.settle(held, record, weight, candidate)
        if self._has_all_usage:
            spending.learn(candidate, weight, record, self._text_bytes or 0)

    # -- the end

    def note_answer(self, status: int, body: bytes) -> None:
        """A whole answer goes to the client."""
        self.record.status = status
        self.record.outcome = str(Outcome.SUCCESS)
        self.record.response_body = body

    def note_estimate(self, body: bytes) -> None:
        """The gateway answered by itself."""
        self.note_answer(200, body)
        self.record.degraded, self.record.cost = "estimated", MicroUsd(0)

    def note_refusal(self, error: NightkeepError, status: int, body: bytes) -> None:
        """An error goes to the client."""
        self.record.status = status
        self.record.outcome = str(error.data.get("outcome") or error.code)
        self.record.error_code = error.code
        self.record.error_message = error.message
        if self.record.response_body is None:
            self.record.response_body = body

    def note_unpaid(self, idempotency: str | None, cache: str | None) -> None:
        """The client got an answer that another call has paid for."""
        record = self.record
        record.idempotency, record.cache = idempotency, cache
        record.outcome, record.status, record.cost = str(Outcome.SUCCESS), 200, MicroUsd(0)

    def note_cancelled(self) -> None:
        """The client hung up."""
        self.record.outcome = str(Outcome.CANCELLED)

    def close(self) -> None:
        """Hand the record over."""
        self.record.duration_ms = (self._clock.monotonic() - self._started) * 1000
        self._log.finish(self.record)

    def headers(
        self, progress: Progress, said: Said, upstream: dict[str, str], *, is_simulated: bool
    ) -> list[tuple[str, str]]:
        """The headers of a successful answer."""
        record = self.record
        return answer_headers(
            call_id=record.id,
            model=self.served_model,
            account=progress.account,
            attempts=self.attempts,
            stripped=said.stripped,
            degraded=record.degraded,
            cost=record.cost,
            cache=record.cache,
            is_simulated=is_simulated,
        ) + forwarded(upstream)

    # -- notes

    def _note_first_byte(self, at: float | None) -> None:
        if at is not None and self._attempt is not None:
            # The event loop's clock may lag behind the machine's by a moment.
            self._attempt.first_byte_ms = max(0.0, at - self._attempt_started) * 1000
            self.record.first_byte_ms = max(0.0, at - self._started) * 1000

    def _note_served(self, model: str) -> None:
        candidate = self._candidate
        if not model or candidate is None:
            return
        self.served_model = self.record.served = model
        mismatch = find_mismatch(candidate.model, model)
        if mismatch is not None:
            self.record.degraded = f"model mismatch: {candidate.provider} served {model}, {candidate.model} was sent"

    def _note_usage(self, usage: Usage | None) -> None:
        if usage is None or self._attempt is None or self._candidate is None:
            return
        self._attempt.usage = self.record.usage = usage
        price = self._candidate.price
        if price is not None:
            self._attempt.cost = micro_usd_from_pico(cost_pico(price, usage))
            self._attempt.uncached = micro_usd_from_pico(uncached_pico(price, usage))
            self._attempt.price = price.version
            self.record.cost = MicroUsd(sum([attempt.cost or 0 for attempt in self.record.attempts]))


def _begin(call: Call, clock: Clock) -> CallRecord:
    return CallRecord(
        id=call.id,
        scope=call.scope,
        tag=call.tag,
        task=call.task,
        key=call.caller.name,
        release=call.headers.get("x-nightkeep-release", "")[:80],
        wire=str(call.door.wire),
        door=call.door.path,
        operation=str(call.door.operation),
        asked=call.head.model,
        is_stream=call.head.stream,
        started_at=clock.now(),
        run=call.run,
        agent=agent_name(call.headers),
        peer=call.peer,
        bytes_out=len(call.body),
        request_body=call.body,
    )


def _read(events: list[Event]) -> tuple[str, Usage | None]:
    model = ""
    usage: Usage | None = None
    for event in events:
        if type(event) is Started:
            model = event.model
        elif type(event) is UsageReported:
            usage = event.usage
    return model, usage
