"""How much a model may think, between the wires' words for it: one table.

OpenAI says an effort, Anthropic a budget in tokens (or, on newer models, adaptive thinking with an
effort), Gemini 2.x a budget, Gemini 3 a level. Efforts and budgets are matched as Google documents them
for its OpenAI-compatible door (low 1,024, medium 8,192, high 24,576 tokens;
ai.google.dev/gemini-api/docs/openai). Not here: whether a model may think at all (the catalogue's business).
"""

from __future__ import annotations

import re

from nightkeep.core.messages import ReasoningSettings

__all__ = ["BUDGETS", "budget_of", "effort_of", "is_adaptive_model", "is_level_model"]

BUDGETS: dict[str, int] = {
    "none": 0,
    "minimal": 1_024,
    "low": 1_024,
    "medium": 8_192,
    "high": 24_576,
    "xhigh": 32_768,
}
"""Effort to thinking tokens. 1,024 is also the least that Anthropic takes."""

_CEILINGS = ((0, "none"), (1_024, "low"), (8_192, "medium"), (24_576, "high"))
_ADAPTIVE = re.compile(
    r"claude-(?:opus|sonnet)-4-(?:[6-9]|1\d)(?!\d)|claude-(?:opus|sonnet|haiku)-[5-9](?!\d)|claude-mythos"
)
_LEVELS = re.compile(r"gemini-(?:[3-9]|\d\d)")


def budget_of(settings: ReasoningSettings) -> int | None:
    """Thinking tokens that were asked for, in whatever words; None where the client left it to the model."""
    if settings.enabled is False:
        return 0
    if settings.budget_tokens is not None:
        return settings.budget_tokens
    return BUDGETS.get(settings.effort) if settings.effort else None


def effort_of(settings: ReasoningSettings) -> str | None:
    """The effort that was asked for, in whatever words; None where the client left it to the model."""
    if settings.enabled is False:
        return "none"
    if settings.effort is not None:
        return settings.effort
    budget = settings.budget_tokens
    if budget is None or budget < 0:  # Gemini's -1: the model decides
        return None
    return next((effort for ceiling, effort in _CEILINGS if budget <= ceiling), "xhigh")


def is_adaptive_model(model: str) -> bool:
    """Whether an Anthropic model thinks adaptively, by effort, rather than by budget (Claude 4.6 and later)."""
    return _ADAPTIVE.search(model) is not None


def is_level_model(model: str) -> bool:
    """Whether a Gemini model takes ``thinkingLevel`` rather than ``thinkingBudget`` (Gemini 3 and later)."""
    return _LEVELS.search(model) is not None
