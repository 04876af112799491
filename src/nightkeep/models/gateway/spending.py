"""The money of an attempt: what is reserved before it leaves, how a stream tops up, what is settled after it.

Between the gateway, which has a call and a target, and ``control.budgets``, which knows amounts. Input is reserved at
what the model's own reports have taught (``models.calibration``), output at the limit that the request carries. A whole
reply's limit is clamped to what can be reserved; a stream reserves a slice and goes on as it flows.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from nightkeep.control.budget_nodes import KeyBudget
from nightkeep.control.budget_specs import Claim, Spent
from nightkeep.control.budgets import Budgets, Reservation
from nightkeep.core.clock import Clock
from nightkeep.models.calibration import Calibration, Calibrations, Weight
from nightkeep.models.call_record import AttemptRecord, Basis
from nightkeep.models.gateway.call import Call
from nightkeep.models.prices import Price
from nightkeep.models.routing import Candidate, Route
from nightkeep.models.wire.base import Operation, Wire

__all__ = ["Held", "Spending", "StreamMeter", "basis_of", "holder_of"]

_UNKNOWN_OUTPUT: Final = 32_768
"""Output tokens of a model whose limit nobody knows and whose caller gave none; written into the request."""
_LIKELY_OUTPUT: Final = 4_096
_LEAST_OUTPUT: Final = 256
_SLICE: Final = 256  # output tokens that a stream reserves at a time, at the least
_LEARN_EVERY: Final = 8  # reports that say nothing new
_TOP_UP_WAIT_S: Final = 5.0
_AHEAD: Final = 0.75  # a stream tops up before its reservation is used
_BLIND_WIRES: Final = (Wire.OPENAI_CHAT, Wire.OPENAI_RESPONSES)
"""Wires on which a model may think for thousands of tokens and show none of them."""
_CHOICES: Final = re.compile(rb'"(?:n|candidateCount|candidate_count)"\s*:\s*(\d{1,4})\b')


class Held(msgspec.Struct):
    """What is held for one attempt."""

    reservation: Reservation
    clamp: int | None  # the output limit to write into the request; None: what it says is fine
    worst: int  # output tokens that the request itself allows

    @property
    def covered(self) -> int:
        """Output tokens that can be billed and are covered."""
        return min(self.reservation.output, self.worst)


class Spending:
    """Reserves and settles for the gateway."""

    def __init__(self, budgets: Budgets, calibrations: Calibrations, clock: Clock) -> None:
        self.budgets = budgets
        self.calibrations = calibrations
        self._clock = clock
        self._unlearnt = 0  # reports since the last one that was learnt

    async def reserve(self, call: Call, route: Route, candidate: Candidate, weight: Weight, deadline: float) -> Held:
        """Hold what an attempt on a target may cost, in every budget above it.

        Raises:
            BudgetError: there is no room, or none in time.
            StoreError: budgets cannot be read.
        """
        claim, worst, is_flexible = self._claim(call, route, candidate, weight)
        holder = holder_of(call)
        reservation = self.budgets.try_reserve(claim, scope=call.scope, run=call.run, tag=call.tag, holder=holder)
        if reservation is None:
            reservation = await self.budgets.reserve(
                lambda: self._claim(call, route, candidate, weight)[0],
                scope=call.scope,
                run=call.run,
                tag=call.tag,
                deadline=min(call.deadline, deadline),
                holder=holder,
            )
        elif not reservation.parts:
            return Held(reservation, None, worst)
        is_open = candidate.max_output is None and _asked(call, route) is None
        must_clamp = is_flexible and (reservation.output < worst or is_open) and _is_bounded(reservation)
        clamp = max(1, min(worst, reservation.output) // _choices(call)) if must_clamp else None
        return Held(reservation, clamp, worst)

    def _claim(self, call: Call, route: Route, candidate: Candidate, weight: Weight) -> tuple[Claim, int, bool]:
        """The claim; the most output tokens that can be billed; whether the request's limit may be clamped."""
        calibration = self.calibrations.of(candidate.target)
        upper = calibration.upper(weight)
        price = candidate.price
        input_rate, output_rate = _rates(price, call, upper) if price is not None else (0, 0)
        if call.door.operation is not Operation.CHAT:
            is_count = call.door.operation is Operation.COUNT_TOKENS  # costs nothing at any vendor
            claim = _make_claim(0 if is_count else input_rate, 0, upper, weight.bound, (0, 0, 0), price is not None)
            return claim, 0, False
        asked = [limit for limit in (_asked(call, route), candidate.max_output) if limit is not None]
        worst = (min(asked) if asked else _UNKNOWN_OUTPUT) * _choices(call)
        is_flexible = not call.head.stream or _is_blind(candidate)
        least, likely, most = _whole(worst, calibration) if is_flexible else _slice(worst, calibration)
        if calibration.unknown():
            most += -(-calibration.unknown() * input_rate // output_rate) if output_rate else calibration.unknown()
        claim = _make_claim(
            input_rate,
            output_rate,
            upper,
            weight.bound,
            (least, likely, most),
            price is not None,
            is_unknown=not calibration.is_known,
        )
        return claim, worst, is_flexible

    def meter(self, held: Held, candidate: Candidate) -> StreamMeter | None:
        """What keeps a stream covered; None where nothing is above it, or all that it may say is covered."""
        if not held.reservation.parts or held.reservation.output >= held.worst:
            return None
        return StreamMeter(self.budgets, held, self.calibrations.of(candidate.target), self._clock)

    def settle(self, held: Held, record: AttemptRecord, weight: Weight, candidate: Candidate) -> None:
        """Settle an attempt by its record, and learn from what was reported."""
        usage = record.usage
        if record.basis == "usage" and usage is not None:
            spent = Spent(micro_usd=record.cost or 0, tokens=usage.total, requests=1)
        elif record.basis == "free":
            spent = Spent(tokens=usage.total if usage is not None else 0, requests=1)
        elif record.basis == "open":
            spent = Spent(micro_usd=record.cost or 0, tokens=self._open_tokens(held), requests=1)
        else:
            spent = Spent()
        self.budgets.settle(held.reservation, spent)

    def open_cost(self, held: Held, candidate: Candidate, text_bytes: int | None) -> int:
        """What an attempt counts for whose bill nobody knows, in micro-dollars.

        Everything that was held; of a stream that showed ``text_bytes``, no more than that many can have been.
        """
        claim = held.reservation.claim
        output = held.covered if held.reservation.parts else min(claim.likely, held.worst)
        if text_bytes is not None:
            seen = self.calibrations.of(candidate.target).output_of(text_bytes) + _SLICE // 2
            output = min(output, seen)
        return claim.amount("usd", output)

    def _open_tokens(self, held: Held) -> int:
        return held.reservation.claim.amount("tokens", held.covered)

    def learn(self, candidate: Candidate, weight: Weight, record: AttemptRecord, text_bytes: int) -> None:
        """Take what a provider reported of a whole reply."""
        usage = record.usage
        if usage is None:
            return
        known = self.calibrations.of(candidate.target)
        self._unlearnt += 1
        if known.is_known and self._unlearnt < _LEARN_EVERY and usage.total_input <= known.upper(weight):
            return  # as expected; every report that is not is learnt at once
        self._unlearnt = 0
        self.calibrations.note(candidate.target, weight, usage.total_input, usage.total_output, text_bytes)


class StreamMeter:
    """Keeps one flowing stream covered."""

    __slots__ = ("_budgets", "_calibration", "_clock", "_held", "_slice", "covered_bytes", "early_bytes")

    def __init__(self, budgets: Budgets, held: Held, calibration: Calibration, clock: Clock) -> None:
        self._budgets = budgets
        self._held = held
        self._calibration = calibration
        self._clock = clock
        self._slice = max(_SLICE, held.reservation.output)
        self._cover()

    def _cover(self) -> None:
        output = self._held.reservation.output
        if output >= self._held.worst:
            self.covered_bytes = self.early_bytes = 1 << 62
            return
        per_kilobyte = self._calibration.output_of(1_000)
        self.covered_bytes = output * 1_000 // per_kilobyte
        self.early_bytes = int(self.covered_bytes * _AHEAD)

    async def cover(self, text_bytes: int) -> None:
        """Cover what has been said and a slice beyond. Call it when ``early_bytes`` are passed.

        Raises:
            BudgetError: there is no room for more: the stream has to be stopped.
        """
        reservation = self._held.reservation
        output = min(self._held.worst, reservation.output + self._slice)
        if not self._budgets.try_top_up(reservation, output) and text_bytes >= self.covered_bytes:
            await self._budgets.top_up(reservation, output, deadline=self._clock.monotonic() + _TOP_UP_WAIT_S)
        elif reservation.output < output:
            self.early_bytes = self.covered_bytes  # once more, when it is really needed
            return
        self._cover()


def holder_of(call: Call) -> KeyBudget | None:
    """The virtual key of a call, where it has a budget of its own."""
    most = call.caller.limits.micro_usd_per_day
    return KeyBudget(call.caller.name, most) if most is not None else None


def basis_of(price: Price | None, *, has_usage: bool, was_sent: bool, is_answered: bool) -> Basis:
    """Where the cost of an attempt comes from."""
    if not was_sent or (is_answered and not has_usage):
        return "none"
    if price is not None and not (price.input or price.output):
        return "free"
    return "usage" if has_usage else "open"


def _asked(call: Call, route: Route) -> int | None:
    limits = [limit for limit in (call.head.max_output_tokens, route.max_output_tokens) if limit is not None]
    return min(limits) if limits else None


def _choices(call: Call) -> int:
    """How many replies the request asks for (OpenAI's ``n``, Gemini's ``candidateCount``): each is billed."""
    body = call.body
    if b'"n"' not in body and b"andidate" not in body:
        return 1
    return max([1, *(int(match[1]) for match in _CHOICES.finditer(body))])


def _is_blind(candidate: Candidate) -> bool:
    return candidate.thinks and candidate.wire in _BLIND_WIRES


def _is_bounded(reservation: Reservation) -> bool:
    return any(part.node.spec.is_hard and part.node.metric != "requests" for part, _ in reservation.parts)


def _whole(worst: int, calibration: Calibration) -> tuple[int, int, int]:
    typical = calibration.typical_output()
    if calibration.is_output_known():
        return min(worst, typical), min(worst, max(64, 4 * typical)), worst
    return min(worst, _LEAST_OUTPUT), min(worst, _LIKELY_OUTPUT), worst


def _slice(worst: int, calibration: Calibration) -> tuple[int, int, int]:
    first = min(worst, max(_SLICE, 2 * calibration.typical_output()))
    return first, first, first if calibration.is_output_known() else min(worst, _LIKELY_OUTPUT)


def _rates(price: Price, call: Call, tokens: int) -> tuple[int, int]:
    """Pico-dollars for a token of input, at its dearest (a cache write), and of output."""
    if price.long is not None and price.long_above is not None and tokens > price.long_above:
        price = price.long
    if call.door.wire is Wire.ANTHROPIC_MESSAGES and b"cache_control" in call.body:
        return max(price.input, price.cache_write_5m, price.cache_write_1h), price.output
    return price.input, price.output


def _make_claim(
    input_rate: int,
    output_rate: int,
    upper: int,
    bound: int,
    output: tuple[int, int, int],
    is_priced: bool,
    *,
    is_unknown: bool = False,
) -> Claim:
    least, likely, most = output
    return Claim(
        base_pico_usd=upper * input_rate,
        base_bound_pico_usd=max(upper, bound) * input_rate,
        output_pico_usd=output_rate,
        base_tokens=upper,
        most=most,
        likely=likely,
        least=least,
        is_priced=is_priced,
        is_unknown=is_unknown,
    )
