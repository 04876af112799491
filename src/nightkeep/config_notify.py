"""The settings of channels that people are told through, and of the dead man's switch (``[notify]``).

``nightkeep.config_models`` holds the section itself.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from nightkeep.core.errors import NightkeepError
from nightkeep.core.scope import parse_scope
from nightkeep.models.credentials import is_key_source, parse_key_source

__all__ = ["Heartbeat", "NotifyChannel"]


def _refused(what: str, fix: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{what}", {"what": what, "fix": fix})


def _kept_elsewhere(value: str) -> str:
    """Where an address is kept. With most services the address is itself the secret."""
    if not is_key_source(value):
        raise _refused(
            "an address that messages go to is a secret and may not stand in the file itself",
            "put it in an environment variable or a file and name that: env:NAME, file:PATH or cmd:COMMAND",
        )
    try:
        parse_key_source(value)
    except NightkeepError as error:
        raise _refused(error.message, str(error.data.get("fix", ""))) from error
    return value


def _scope(value: str) -> str:
    try:
        return parse_scope(value)
    except NightkeepError as error:
        raise _refused(error.message, 'write a path such as "acme/triage"') from error


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=(), defer_build=True)


class NotifyChannel(_Section):
    """Somewhere that people are told."""

    url: Annotated[str, AfterValidator(_kept_elsewhere)]
    levels: Annotated[
        tuple[Literal["info", "warning", "critical"], ...], BeforeValidator(_as_tuple), Field(min_length=1)
    ] = ("warning", "critical")
    scopes: Annotated[tuple[Annotated[str, AfterValidator(_scope)], ...], BeforeValidator(_as_tuple)] = ()


class Heartbeat(_Section):
    """A monitor elsewhere that is pinged while all is well."""

    url: Annotated[str, AfterValidator(_kept_elsewhere)]
    every_s: Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)] = 60.0
