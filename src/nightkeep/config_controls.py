"""The settings of limits on scopes (``[[limits]]``)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from nightkeep.core.errors import NightkeepError
from nightkeep.core.scope import parse_scope

__all__ = ["Limit"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}\Z")


def _refused(what: str, fix: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{what}", {"what": what, "fix": fix})


def _scope_pattern(value: str) -> str:
    """A scope, or ``acme/*``: every child of it, each for itself."""
    if value.strip("/") == "*":
        return "*"
    is_each = value.endswith("/*")
    try:
        scope = parse_scope(value[:-2] if is_each else value)
    except NightkeepError as error:
        raise _refused(error.message, 'write a path such as "acme/triage", or "acme/*" for each agent') from error
    return f"{scope}/*" if is_each else scope


def _name(value: str) -> str:
    if not _NAME.match(value):
        raise _refused("is no allowed name", "use up to 80 letters, digits, '.', '_' and '-', no dot first")
    return value


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Name = Annotated[str, AfterValidator(_name)]
Count = Annotated[int, Field(ge=1, le=10**15)]


class Limit(BaseModel):
    """How much may be done at a time below a scope."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=(), defer_build=True)

    scope: Annotated[str, AfterValidator(_scope_pattern)]
    name: Name | None = None
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrent: Count | None = None
    tags: Annotated[tuple[Name, ...], BeforeValidator(_as_tuple)] = ()

    @property
    def title(self) -> str:
        """Its name in messages."""
        return self.name or " ".join([self.scope, *sorted(set(self.tags))])
