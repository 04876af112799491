"""One simulated provider made ready from its part of the scenario: its wires, keys, turns, faults, prices."""

from __future__ import annotations

import random
from fnmatch import fnmatchcase

from nightkeep.testing.sim.accounts import Accounts
from nightkeep.testing.sim.anthropic import AnthropicMessages
from nightkeep.testing.sim.asked import Asked, Refusal, Refused
from nightkeep.testing.sim.faults import Fault, parse_fault
from nightkeep.testing.sim.gemini import Gemini
from nightkeep.testing.sim.openai_chat import OpenAIChat
from nightkeep.testing.sim.openai_responses import OpenAIResponses
from nightkeep.testing.sim.records import PriceList
from nightkeep.testing.sim.scenario import FaultRule, Model, ProviderSection, Scenario, Turn
from nightkeep.testing.sim.script import Context, matches
from nightkeep.testing.sim.wire import SimWire

__all__ = ["Section"]

_ANY_MODEL = Model()


class Section:
    """What answers under one ``/a/NAME`` (or under none)."""

    def __init__(self, name: str, scenario: Scenario) -> None:
        own = scenario.providers.get(name, ProviderSection())
        self.name = name
        self.responses = OpenAIResponses()
        wires: list[SimWire] = [OpenAIChat(), self.responses, AnthropicMessages(), Gemini()]
        self.wires: dict[str, SimWire] = {wire.name: wire for wire in wires}
        strict = scenario.strict if own.strict is None else own.strict
        allowed = scenario.allow_parameters if own.allow_parameters is None else own.allow_parameters
        self.known = frozenset(allowed) if strict else frozenset(("*",))
        self.delivery = own.delivery or scenario.delivery
        self.models = scenario.models if own.models is None else own.models
        self.prices = PriceList(scenario.prices if own.prices is None else own.prices)
        after = own.suspend_after_refusals_per_minute or scenario.suspend_after_refusals_per_minute
        listed = scenario.accounts if own.accounts is None else own.accounts
        self.accounts = Accounts(listed, scenario.any_key if own.any_key is None else own.any_key, after)
        self._turns = [_Scripted(turn) for turn in (scenario.turns if own.turns is None else own.turns)]
        self._rules = [_Rule(rule) for rule in (scenario.faults if own.faults is None else own.faults)]
        self._random = random.Random(f"{scenario.seed}/{name}")

    def check_model(self, asked: Asked) -> None:
        """Refuse a model that does not exist or a prompt that does not fit. Raises Refused."""
        if not self.models:
            return
        model = self._model(asked.model)
        if model is None:
            raise Refused(Refusal(kind="not_found", model=asked.model))
        if model.context_window is not None and asked.input_tokens > model.context_window:
            raise Refused(Refusal(kind="too_long", model=asked.model, limit=model.context_window))
        if model.max_output_tokens is not None:
            asked.max_output = min(asked.max_output or model.max_output_tokens, model.max_output_tokens)

    def _model(self, name: str) -> Model | None:
        if name in self.models:
            return self.models[name]
        return next((model for glob, model in self.models.items() if fnmatchcase(name, glob)), None)

    def choose_turn(self, asked: Asked, context: Context) -> Turn | None:
        """The first turn that matches and is not used up; None for the default answer."""
        for entry in self._turns:
            turn = entry.turn
            if (turn.times is None or entry.played < turn.times) and matches(turn.match, asked, context):
                entry.played += 1
                return turn
        return None

    def choose_fault(self, asked: Asked, context: Context) -> Fault | None:
        """The first fault rule that applies; each rule counts all requests it matches."""
        chosen: Fault | None = None
        for rule in self._rules:
            if matches(rule.spec.match, asked, context) and rule.applies(self._random) and chosen is None:
                chosen = rule.fault
        return chosen


class _Scripted:
    """A turn and how often it was played."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.played = 0


class _Rule:
    """A fault rule and how often it matched."""

    def __init__(self, spec: FaultRule) -> None:
        self.spec = spec
        self.fault = parse_fault(spec.fault)
        self.seen = 0

    def applies(self, rng: random.Random) -> bool:
        self.seen += 1
        spec = self.spec
        return (
            (spec.every is None or self.seen % spec.every == 0)
            and (spec.first is None or self.seen <= spec.first)
            and (spec.after is None or self.seen > spec.after)
            and (spec.probability is None or rng.random() < spec.probability)
        )
