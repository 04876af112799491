"""Keeping account of what a translation could not carry, by the names that the client used.

Not the translation itself: each codec decides what its wire can say. Source: Q-PROXY-07, S3.5, S10.19.
"""

from __future__ import annotations

from nightkeep.core.messages import ChatRequest
from nightkeep.models.wire.base import Stripped, Wire

__all__ = ["NEVER_REPORTED", "PARAMETER_NAMES", "StripList"]

NEVER_REPORTED = frozenset({"stream_options"})
"""Parameters of the client's own wire that we honour ourselves whatever the target is: nothing is lost without them."""

PARAMETER_NAMES: dict[str, dict[Wire, str]] = {
    "max_output_tokens": {
        Wire.OPENAI_CHAT: "max_completion_tokens",
        Wire.OPENAI_RESPONSES: "max_output_tokens",
        Wire.ANTHROPIC_MESSAGES: "max_tokens",
        Wire.GEMINI: "generationConfig.maxOutputTokens",
    },
    "temperature": {Wire.GEMINI: "generationConfig.temperature"},
    "top_p": {Wire.GEMINI: "generationConfig.topP"},
    "top_k": {Wire.GEMINI: "generationConfig.topK"},
    "stop": {Wire.ANTHROPIC_MESSAGES: "stop_sequences", Wire.GEMINI: "generationConfig.stopSequences"},
    "seed": {Wire.GEMINI: "generationConfig.seed"},
    "presence_penalty": {Wire.GEMINI: "generationConfig.presencePenalty"},
    "frequency_penalty": {Wire.GEMINI: "generationConfig.frequencyPenalty"},
    "logprobs": {Wire.OPENAI_RESPONSES: "include", Wire.GEMINI: "generationConfig.responseLogprobs"},
    "top_logprobs": {Wire.GEMINI: "generationConfig.logprobs"},
    "choices": {Wire.OPENAI_CHAT: "n", Wire.GEMINI: "generationConfig.candidateCount"},
    "reasoning": {
        Wire.OPENAI_CHAT: "reasoning_effort",
        Wire.ANTHROPIC_MESSAGES: "thinking",
        Wire.GEMINI: "generationConfig.thinkingConfig",
    },
    "output_format": {
        Wire.OPENAI_CHAT: "response_format",
        Wire.OPENAI_RESPONSES: "text.format",
        Wire.ANTHROPIC_MESSAGES: "output_config.format",
        Wire.GEMINI: "generationConfig.responseSchema",
    },
    "verbosity": {Wire.OPENAI_RESPONSES: "text.verbosity"},
    "user": {Wire.ANTHROPIC_MESSAGES: "metadata.user_id"},
    "metadata": {Wire.GEMINI: "labels"},
    "parallel_tool_calls": {Wire.ANTHROPIC_MESSAGES: "tool_choice.disable_parallel_tool_use"},
    "cache": {Wire.ANTHROPIC_MESSAGES: "cache_control"},
}
"""What a neutral field is called on each wire, where that is not the neutral name itself."""


class StripList:
    """Collects what one translation strips, naming each parameter once."""

    def __init__(self, source: Wire, target: Wire) -> None:
        self._source = source
        self._target = target
        self._items: dict[str, Stripped] = {}

    def note(self, field: str, reason: str | None = None) -> None:
        """Report the neutral ``field`` as stripped, under its name on the client's wire."""
        self.note_named(PARAMETER_NAMES.get(field, {}).get(self._source, field), reason)

    def note_named(self, name: str, reason: str | None = None) -> None:
        """Report a parameter under the name given."""
        if name not in self._items:
            self._items[name] = Stripped(name, reason or f"{self._target} has no such parameter")

    def note_unsupported(self, request: ChatRequest, *fields: str) -> None:
        """Report those of the neutral ``fields`` that the request sets."""
        for field in fields:
            if getattr(request, field) not in (None, ()):
                self.note(field)

    def note_foreign(self, request: ChatRequest) -> None:
        """Report every parameter that only the client's wire knows."""
        for name in request.foreign:
            if name not in NEVER_REPORTED:
                self.note_named(name)

    def done(self) -> tuple[Stripped, ...]:
        """Everything that was noted, in order."""
        return tuple(self._items.values())
