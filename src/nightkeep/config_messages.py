"""What is said about a wrong setting: the file, the line, the setting, what is wrong, and the fix.

Turns pydantic's errors and TOML's into ``Problem`` values and prints them. The value of a setting that may be a
secret is never repeated, nor is any value that looks like a key.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from pydantic import BaseModel, ValidationError

from nightkeep.config_models import Settings
from nightkeep.config_positions import Positions
from nightkeep.core.errors import ConfigError

__all__ = ["InvalidConfigError", "Problem", "explain", "explain_syntax", "setting_name", "suggest"]

Path = tuple[str | int, ...]
_SECRET: Final = frozenset({"key", "hash", "webhook", "headers"})
_LOOKS_SECRET: Final = re.compile(r"[A-Za-z0-9_\-+/=.]{24,}|^(?:sk-|gsk_|xai-|AIza|AKIA|nk-)")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+\Z")
_OTHER_NAMES: Final[Mapping[str, str]] = types.MappingProxyType(
    {
        "api_key": "key",
        "apikey": "key",
        "token": "key",
        "secret": "key",
        "url": "base_url",
        "endpoint": "base_url",
        "api_base": "base_url",
        "rpm": "requests_per_minute",
        "tpm": "tokens_per_minute",
        "max_concurrent": "concurrent",
        "concurrency": "concurrent",
        "max_tokens": "max_output_tokens",
        "target": "targets",
        "fallback": "failover",
        "fallbacks": "failover",
        "model_override": "model",
        "backend": "pool",
        "rate_limit": "limits",
        "tag": "tags",
        "ttl": "ttl_s",
        "timeout": "total_s",
        "account": "accounts",
        "provider": "providers",
        "pool": "pools",
        "model": "models",
        "route": "routes",
        "price": "prices",
        "budget": "budgets",
        "server": "gateway",
        "reset": "resets_at",
        "expires_at": "expires",
    }
)
_WORDS: Final[Mapping[str, str]] = types.MappingProxyType(
    {
        "string": "a text in quotes",
        "int": "a whole number",
        "float": "a number",
        "decimal": "a number",
        "bool": "true or false",
        "tuple": "a list in square brackets",
        "list": "a list in square brackets",
        "dict": "a table",
        "model": "a table",
        "datetime": "a date and time with a time zone, without quotes",
    }
)


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, or doubtful."""

    file: str
    setting: str  # dotted, as it would be written; empty for the file as a whole
    what: str
    fix: str = ""
    line: int | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line is not None else self.file
        subject = f"{self.setting}: " if self.setting else ""
        way_out = f"\n    fix: {self.fix}" if self.fix else ""
        return f"{place}: {subject}{self.what}{way_out}"


class InvalidConfigError(ConfigError):
    """The configuration cannot be used; ``problems`` has everything that is wrong with it, in the file's order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line or 0, problem.setting)))
        first = self.problems[0]
        super().__init__(
            "\n".join(str(problem) for problem in self.problems),
            setting=first.setting,
            file=first.file,
            line=first.line,
            fix=first.fix,
        )


def setting_name(path: Sequence[str | int]) -> str:
    """Write a path as the file would: ``accounts.lab-1.key``, ``prices."lab/big".input``, ``routes[2].pool``."""
    name = ""
    for part in path:
        if isinstance(part, int):
            name += f"[{part + 1}]"
            continue
        shown = part if _BARE.match(part) else '"' + part[:80].replace("\\", "\\\\").replace('"', '\\"') + '"'
        name += f".{shown}" if name else shown
    return "".join(c if c.isprintable() else "?" for c in name)


def suggest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that was probably meant: a known other name for it, else the closest spelling."""
    known = list(choices)
    other = _OTHER_NAMES.get(name.lower().replace("-", "_"))
    if other in known:
        return other
    close = difflib.get_close_matches(name[:80], known, n=1, cutoff=0.6)
    return close[0] if close else None


def explain_syntax(file: str, error: ValueError) -> Problem:
    """A file that is not TOML (or not text)."""
    text = str(error)
    found = re.search(r"\s*\(at line (\d+), column (\d+)\)", text)
    line = int(found[1]) if found else None
    what = text[: found.start()] if found else text
    if "at end of document" in what:
        what = what.replace(" (at end of document)", "") + ", at the end of the file"
    return Problem(file=file, setting="", line=line, what=f"is not valid TOML: {what[:200]}", fix=_syntax_fix(what))


def _syntax_fix(what: str) -> str:
    if "Invalid value" in what:
        return "put texts in double quotes"
    if "overwrite" in what or "twice" in what or "already" in what.lower():
        return "remove one of the two"
    return "see https://toml.io for the syntax"


def explain(file: str, error: ValidationError, positions: Positions) -> list[Problem]:
    """All that pydantic found, in plain words."""
    seen: dict[Path, Problem] = {}
    for detail in error.errors(include_url=False):
        path = _file_path(detail["loc"])
        what, fix = _describe(path, detail)
        problem = Problem(file=file, setting=setting_name(path), line=positions.line(path), what=what, fix=fix)
        seen.setdefault(path, problem)
    return list(seen.values())


def _file_path(location: tuple[str | int, ...]) -> Path:
    """Drop what pydantic puts into a location beyond the keys of the file."""
    return tuple(part for part in location if part != "[key]")


def _describe(path: Path, detail: Any) -> tuple[str, str]:
    kind: str = detail["type"]
    context: dict[str, Any] = detail.get("ctx", {})
    if kind == "refused":
        return context["what"], context["fix"]
    if kind == "extra_forbidden":
        return _unknown(path)
    if kind == "missing":
        return "is missing", f"add {path[-1]} = …"
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", str(context["expected"]))
        return f"{_shown(path, detail['input'])}is not one of {', '.join(allowed)}", _closest(detail["input"], allowed)
    return _type_or_range(path, kind, context, detail)


def _type_or_range(path: Path, kind: str, context: Mapping[str, Any], detail: Any) -> tuple[str, str]:
    for name, symbol in (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than")):
        if name in context and kind in {"greater_than_equal", "greater_than", "less_than_equal", "less_than"}:
            return f"{_shown(path, detail['input'])}is out of range", f"it must be {symbol} {context[name]:,}"
    if kind in {"too_short", "string_too_short"}:
        return "is empty", "give at least one value, or remove the setting"
    word = _WORDS.get(kind.removesuffix("_type").removesuffix("_parsing"))
    if kind.endswith("_type") and word is None and kind == "is_instance_of":
        word = "a number"
    if word is not None:
        return f"is {_kind_of(detail['input'])}", f"it must be {word}"
    return str(detail["msg"])[:200], ""


def _unknown(path: Path) -> tuple[str, str]:
    name = str(path[-1])
    choices = _fields_at(path[:-1])
    meant = suggest(name, choices)
    if meant:
        return "there is no such setting", f"did you mean {meant}?"
    place = setting_name(path[:-1]) or "the file"
    return "there is no such setting", f"{place} may have {', '.join(choices)}" if choices else "remove it"


def _fields_at(path: Path) -> list[str]:
    """The settings that a table may have."""
    model: Any = Settings
    for part in path:
        if isinstance(model, type) and issubclass(model, BaseModel):
            field = model.model_fields.get(str(part))
            model = field.annotation if field else None
        else:
            model = _member(model)
        model = _stripped(model)
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _member(annotation: Any) -> Any:
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is dict:
        return arguments[1]
    return arguments[0] if arguments else None


def _stripped(annotation: Any) -> Any:
    """Without ``Annotated`` and ``| None``."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _stripped(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return _stripped(next(each for each in typing.get_args(annotation) if each is not type(None)))
    return annotation


def _shown(path: Path, value: object) -> str:
    """The value, where it can be repeated."""
    if any(part in _SECRET for part in path) or isinstance(value, dict | list):
        return ""
    text = repr(value)
    if len(text) > 60 or (isinstance(value, str) and _LOOKS_SECRET.search(value)):
        return ""
    return f"{text} "


def _closest(value: object, allowed: Sequence[str]) -> str:
    meant = difflib.get_close_matches(str(value)[:80], allowed, n=1, cutoff=0.5)
    return f"did you mean {meant[0]}?" if meant else "use one of these"


def _kind_of(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, Mapping):
        return "a table"
    return "a list" if isinstance(value, list | tuple) else "a date or time"
