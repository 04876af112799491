"""Task policies: which model serves which kind of task, and what it may never be (S3.6, Q-MODEL-01).

The built-in table is data (``data/tasks.json``, each row with its reason); ``[tasks.NAME]`` in the configuration
replaces a row. How a name becomes an account is ``nightkeep.models.routing``.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

from nightkeep.core.errors import RequestError
from nightkeep.core.money import MicroUsd, micro_usd

__all__ = ["TaskPolicies", "TaskPolicy", "TaskType", "load_policies", "parse_task"]

_DATA: Final = Path(__file__).parent / "data" / "tasks.json"


class TaskType(StrEnum):
    """The sixteen kinds of task."""

    INFRASTRUCTURE_DEBUG = "infrastructure_debug"
    SECURITY_ANALYSIS = "security_analysis"
    ARCHITECTURE_PLANNING = "architecture_planning"
    COMPLEX_CODE_REVIEW = "complex_code_review"
    CODE_GENERATION = "code_generation"
    CONTENT_WRITING = "content_writing"
    DATA_ANALYSIS = "data_analysis"
    AGENT_ORCHESTRATION = "agent_orchestration"
    TASK_ROUTING = "task_routing"
    SENTIMENT_CLASSIFICATION = "sentiment_classification"
    FORMAT_CONVERSION = "format_conversion"
    HEALTH_CHECK_ANALYSIS = "health_check_analysis"
    METADATA_EXTRACTION = "metadata_extraction"
    TEMPLATE_GENERATION = "template_generation"
    TRANSLATION = "translation"
    SUMMARIZATION_SIMPLE = "summarization_simple"


class TaskPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What serves a task. Models are aliases, "provider/model", or names that the catalog knows."""

    primary: str
    fallback: str | None = None
    fast: str | None = None  # where the caller prefers speed, and this task allows it
    max_output_tokens: int | None = None
    temperature: float | None = None
    allowed: str = ""  # a class of models that the task never leaves; empty: any
    is_configured: bool = False  # from the configuration: then exactly its own models are allowed
    why: str = ""

    @property
    def is_critical(self) -> bool:
        """The task never leaves its class, so a route that would is refused."""
        return bool(self.allowed)


class TaskPolicies(msgspec.Struct, frozen=True, kw_only=True):
    """The whole table; total over ``TaskType``."""

    tasks: Mapping[TaskType, TaskPolicy]
    classes: Mapping[str, frozenset[str]]
    low_budget: MicroUsd
    cheapest_tags: frozenset[str]

    def with_rows(self, rows: Mapping[TaskType, TaskPolicy]) -> TaskPolicies:
        """The table with rows of the configuration in place of the built-in ones.

        A critical task stays critical: its row then allows exactly the model that it names, and no fallback,
        since a fallback is what the class was there to prevent.
        """
        merged = dict(self.tasks)
        for task, row in rows.items():
            built_in = self.tasks[task]
            merged[task] = msgspec.structs.replace(
                row,
                is_configured=True,
                allowed=built_in.allowed,
                fast=row.fast or (None if built_in.is_critical else built_in.fast),
                fallback=None if built_in.allowed and built_in.fallback is None else row.fallback,
                max_output_tokens=row.max_output_tokens or built_in.max_output_tokens,
                temperature=built_in.temperature if row.temperature is None else row.temperature,
            )
        return msgspec.structs.replace(self, tasks=merged)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    about: str
    classes: dict[str, frozenset[str]]
    tasks: dict[TaskType, TaskPolicy]
    low_budget_usd: Decimal
    cheapest_tags: frozenset[str]


@lru_cache(maxsize=1)
def load_policies() -> TaskPolicies:
    """The built-in table."""
    file = msgspec.json.decode(_DATA.read_bytes(), type=_File)
    missing = set(TaskType) - set(file.tasks)
    if missing:
        raise ValueError(f"{_DATA.name} has no policy for {sorted(missing)}")
    return TaskPolicies(
        tasks=file.tasks,
        classes=file.classes,
        low_budget=micro_usd(file.low_budget_usd),
        cheapest_tags=file.cheapest_tags,
    )


def parse_task(text: str) -> TaskType:
    """The task type that a header or option names, in any case, with ``-`` or ``_``.

    Raises:
        RequestError: there is no such task type; the message lists them.
    """
    try:
        return TaskType(text.strip().lower().replace("-", "_"))
    except ValueError:
        raise RequestError(
            f"there is no task type {text[:60]!r}; use one of {', '.join(TaskType)}", parameter="x-nightkeep-task"
        ) from None
