"""How an Anthropic request says that the model may think, and when it must not be said.

The words are matched in ``thinking``. Rules of this wire: a budget is at least 1,024 and below ``max_tokens``;
thinking excludes a forced tool; within a tool loop the last turn must begin with a signed thought
(docs.anthropic.com/en/docs/build-with-claude/extended-thinking).
"""

from __future__ import annotations

from typing import Any

from nightkeep.core.messages import ChatRequest, ReasoningSettings
from nightkeep.models.wire.base import Wire
from nightkeep.models.wire.stripping import StripList
from nightkeep.models.wire.thinking import budget_of, effort_of, is_adaptive_model

__all__ = ["write_thinking"]

_LEAST_BUDGET = 1_024
_DISPLAYS = {"auto": "summarized", "concise": "summarized", "detailed": "summarized", "none": "omitted"}
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh"}


def write_thinking(
    body: dict[str, Any], output_config: dict[str, Any], request: ChatRequest, source: Wire, strips: StripList
) -> None:
    """Write ``thinking`` into ``body`` and the effort into ``output_config``; may raise a ``max_tokens`` of ours."""
    settings = request.reasoning
    if settings is None:
        return
    if source is Wire.ANTHROPIC_MESSAGES:
        _write_own(body, output_config, settings)
        return
    effort, budget = effort_of(settings), budget_of(settings)
    if effort == "none" or budget == 0:
        body["thinking"] = {"type": "disabled"}
        return
    reason = _hindrance(body)
    if reason is not None:
        strips.note("reasoning", reason)
        return
    if is_adaptive_model(body["model"]):
        body["thinking"] = {"type": "adaptive"}
        if effort is not None:
            output_config["effort"] = _EFFORTS.get(effort, "high")
    else:
        _write_budget(body, request, _LEAST_BUDGET if budget is None or budget < 0 else budget, strips)
    if "thinking" in body and settings.summary in _DISPLAYS:
        body["thinking"]["display"] = _DISPLAYS[settings.summary]


def _write_own(body: dict[str, Any], output_config: dict[str, Any], settings: ReasoningSettings) -> None:
    if settings.effort is not None:
        output_config["effort"] = settings.effort
    if settings.enabled is None:
        return
    thinking: dict[str, Any] = {"type": "disabled"}
    if settings.enabled:
        thinking["type"] = "adaptive" if settings.budget_tokens is None else "enabled"
        if settings.budget_tokens is not None:
            thinking["budget_tokens"] = settings.budget_tokens
        if settings.summary is not None:
            thinking["display"] = _DISPLAYS.get(settings.summary, "summarized")
    body["thinking"] = thinking


def _hindrance(body: dict[str, Any]) -> str | None:
    """Why this request may not ask for thinking, if so."""
    if body.get("tool_choice", {}).get("type") in ("any", "tool"):
        return "Anthropic does not think while a tool is forced"
    last_turns = [turn["content"] for turn in body["messages"][-2:]]
    if len(last_turns) == 2 and _has(last_turns[1], "tool_result"):
        before = last_turns[0]
        if isinstance(before, str) or before[0]["type"] not in ("thinking", "redacted_thinking"):
            return "Anthropic wants a thought that it signed itself before the tool calls being answered"
    return None


def _has(content: Any, kind: str) -> bool:
    return isinstance(content, list) and any(block["type"] == kind for block in content)


def _write_budget(body: dict[str, Any], request: ChatRequest, budget: int, strips: StripList) -> None:
    budget = max(budget, _LEAST_BUDGET)
    if request.max_output_tokens is None:
        body["max_tokens"] += budget
    elif budget >= body["max_tokens"]:
        fitting = body["max_tokens"] // 2
        if fitting < _LEAST_BUDGET:
            strips.note("reasoning", f"Anthropic needs max_tokens over {2 * _LEAST_BUDGET} to think and answer")
            return
        strips.note("reasoning", f"thinking budget {budget} set to {fitting}: it must fit into max_tokens")
        budget = fitting
    body["thinking"] = {"type": "enabled", "budget_tokens": budget}
