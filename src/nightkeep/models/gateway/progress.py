"""How far a call has come: its route, what was tried, and what its request says on each wire it was said on."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from nightkeep.core.events import Event
from nightkeep.core.messages import ChatRequest
from nightkeep.core.outcome import Outcome
from nightkeep.models.calibration import Weight
from nightkeep.models.gateway.call import Call
from nightkeep.models.gateway.limits import limit_body
from nightkeep.models.gateway.side_operations import answer_side, say_side
from nightkeep.models.leases import Lease
from nightkeep.models.retry import Tried
from nightkeep.models.routing import Candidate, Route
from nightkeep.models.wire import CODECS
from nightkeep.models.wire.base import Encoder, Operation, Stripped, Wire, Written

__all__ = ["Progress", "Said"]


_WIRE_HEADERS = ("anthropic-beta", "openai-beta")
"""Headers that ask for something, and that only their own wire knows."""


class Said(msgspec.Struct, frozen=True):
    """A request as one target will read it."""

    wire: Wire
    body: bytes
    stripped: tuple[Stripped, ...]


class Progress:
    """What the gateway knows of a call between its attempts."""

    __slots__ = (
        "_body",
        "_limited",
        "_request",
        "_said",
        "account",
        "attempts",
        "call",
        "excluded",
        "history",
        "index",
        "kept_lease",
        "route",
        "tokens",
        "weight",
    )

    def __init__(self, call: Call, route: Route, tokens: int, weight: Weight) -> None:
        self.call = call
        self.route = route
        self.index = 0  # into the route's candidates
        self.attempts = 0
        self.account = ""  # of the attempt in hand
        self.history: list[Tried] = []
        self.kept_lease: Lease | None = None  # of another account, taken when the last attempt failed
        self.tokens = tokens  # estimated, of the whole call
        self.weight = weight
        self.excluded: frozenset[str] = frozenset()  # accounts that failed for this call on this target
        self._body, self._limited = limit_body(call.door.wire, call.door.operation, call.body, route)
        self._request: ChatRequest | None = None
        self._said: dict[tuple[Wire, str], Said] = {}

    @property
    def candidate(self) -> Candidate:
        """The target in turn."""
        return self.route.candidates[self.index]

    @property
    def rest(self) -> Sequence[Candidate]:
        """The targets after it."""
        return self.route.candidates[self.index + 1 :]

    def note_failed(self, outcome: Outcome) -> None:
        """Remember how the attempt in hand ended."""
        self.history.append(Tried(self.candidate.target, self.account, outcome))

    def next_target(self) -> bool:
        """Go to the next target; False where there is none."""
        if self.index + 1 >= len(self.route.candidates):
            return False
        self.index += 1
        self.excluded = frozenset()
        return True

    def say(self, wire: Wire, model: str) -> Said:
        """The request on a wire for a model; translated once and kept.

        Raises:
            UntranslatableError: it cannot be said there without changing its meaning.
        """
        key = (wire, model)
        said = self._said.get(key)
        if said is None:
            said = self._said[key] = self._say(wire, model)
        return said

    def _say(self, wire: Wire, model: str) -> Said:
        call = self.call
        if call.door.operation is not Operation.CHAT:
            return Said(wire, *say_side(call, wire, model))
        codec = CODECS[call.door.wire]
        if wire is call.door.wire:
            return Said(wire, codec.retarget(self._body, call.head, model), self._limited)
        written: Written = CODECS[wire].write_request(self.request(), model, call.door.wire)
        headers = tuple(Stripped(name, f"{wire} has no such header") for name in _WIRE_HEADERS if name in call.headers)
        return Said(wire, written.body, self._limited + headers + written.stripped)

    def request(self) -> ChatRequest:
        """The request in neutral words; read once. Raises RequestError where it is malformed."""
        if self._request is None:
            self._request = CODECS[self.call.door.wire].read_request(self._body, self.call.head)
        return self._request

    def encoder(self, wire: Wire, model: str) -> Encoder:
        """A writer of replies in the client's wire."""
        is_same = wire is self.call.door.wire
        return CODECS[self.call.door.wire].encoder(model, None if is_same else self.request())

    def answer_body(self, wire: Wire, model: str, body: bytes, events: list[Event]) -> bytes:
        """A whole reply for the client: as it came on the same wire, said again on another."""
        if self.call.door.operation is not Operation.CHAT:
            return answer_side(self.call, wire, model, body)
        return body if wire is self.call.door.wire else self.encoder(wire, model).whole(events)
