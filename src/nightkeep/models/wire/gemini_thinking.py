"""How a Gemini request says how much the model may think; words are matched in ``thinking``.

Gemini 2.5 takes a budget (Flash up to 24,576 tokens, Pro up to 32,768 and never none), Gemini 3 a level,
older models neither. Source: ai.google.dev/gemini-api/docs/thinking.
"""

from __future__ import annotations

import re
from typing import Any

from nightkeep.core.messages import ChatRequest, ReasoningSettings
from nightkeep.models.wire.base import Wire
from nightkeep.models.wire.stripping import StripList
from nightkeep.models.wire.thinking import budget_of, effort_of, is_level_model

__all__ = ["write_thinking"]

_UNTHINKING = re.compile(r"gemini-(?:1|2\.0)|gemma|imagen")
_FLASH_MOST, _PRO_MOST, _PRO_LEAST = 24_576, 32_768, 128
_LEVELS = {"none": "MINIMAL", "minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "HIGH"}


def write_thinking(config: dict[str, Any], request: ChatRequest, model: str, source: Wire, strips: StripList) -> None:
    """Write ``thinkingConfig`` into a generation config; what the model cannot do is reported."""
    settings = request.reasoning
    if settings is None:
        return
    if source is Wire.GEMINI:
        thinking = _own(settings)
    elif _UNTHINKING.search(model):
        strips.note("reasoning", f"{model} does not think")
        return
    elif is_level_model(model):
        thinking = _level(settings, strips)
    else:
        thinking = _budget(settings, model, strips)
    is_shown = None if settings.summary is None else settings.summary != "none"
    if is_shown is None and source is Wire.ANTHROPIC_MESSAGES and settings.enabled:
        is_shown = True  # there, thoughts are shown unless the client says otherwise
    if is_shown is not None:
        thinking["includeThoughts"] = is_shown
    if thinking:
        config["thinkingConfig"] = thinking


def _own(settings: ReasoningSettings) -> dict[str, Any]:
    thinking: dict[str, Any] = {}
    if settings.budget_tokens is not None:
        thinking["thinkingBudget"] = settings.budget_tokens
    elif settings.enabled and settings.effort is None:
        thinking["thinkingBudget"] = -1
    if settings.effort is not None:
        thinking["thinkingLevel"] = settings.effort.upper()
    return thinking


def _level(settings: ReasoningSettings, strips: StripList) -> dict[str, Any]:
    effort = effort_of(settings)
    if effort is None:
        return {}
    if effort in ("none", "xhigh"):
        strips.note("reasoning", f"effort {effort} sent as {_LEVELS[effort].lower()}: this model has no such level")
    return {"thinkingLevel": _LEVELS.get(effort, "HIGH")}


def _budget(settings: ReasoningSettings, model: str, strips: StripList) -> dict[str, Any]:
    budget = budget_of(settings)
    if budget is None:
        return {"thinkingBudget": -1} if settings.enabled else {}
    least, most = (_PRO_LEAST, _PRO_MOST) if "pro" in model else (0, _FLASH_MOST)
    fitting = budget if budget < 0 else min(max(budget, least), most)
    if fitting != budget:
        strips.note("reasoning", f"thinking budget {budget} set to {fitting}: the range of {model} ends there")
    return {"thinkingBudget": fitting}
