"""Read a scenario from TOML and explain mistakes: which file, which line, which setting, what to write."""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from nightkeep.core.errors import ConfigError
from nightkeep.testing.sim.faults import FAULTS, parse_fault
from nightkeep.testing.sim.scenario import (
    Account,
    Delivery,
    FaultRule,
    Limits,
    Match,
    Model,
    Price,
    ProviderSection,
    Quota,
    Reply,
    Scenario,
    ScriptedCall,
    ScriptedUsage,
    Turn,
)

__all__ = ["load_scenario", "parse_scenario"]

_KINDS: tuple[type[msgspec.Struct], ...] = (
    Scenario, ProviderSection, Turn, FaultRule, Match, Reply, ScriptedCall, ScriptedUsage, Delivery, Account, Limits,
    Quota, Model, Price,
)  # fmt: skip
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>[^`]+)`")
_WHERE = re.compile(r" - at `(?P<where>[^`]+)`")
_WIRES = ("openai_chat", "openai_responses", "anthropic_messages", "gemini")


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file. Raises ConfigError with setting, file, line and fix."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the scenario cannot be read: {error}", file=str(path)) from error
    return parse_scenario(text, source=str(path))


def parse_scenario(text: str, *, source: str = "scenario") -> Scenario:
    """Read a scenario from TOML text. Raises ConfigError with setting, file, line and fix."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        line = int(found.group(1)) if found else None
        raise ConfigError(f"{source}: this is not TOML: {error}", file=source, line=line) from error
    try:
        scenario = msgspec.convert(values, Scenario)
    except msgspec.ValidationError as error:
        raise _explained(str(error), values, text, source) from error
    _check(scenario, text, source)
    return scenario


def _explained(message: str, values: dict[str, Any], text: str, source: str) -> ConfigError:
    found = _WHERE.search(message)
    where = found.group("where") if found else "$"
    said = _WHERE.sub("", message)
    setting = _setting(where)
    fix = "see docs/simulated-provider.md"
    unknown = _UNKNOWN.search(message)
    if unknown:
        name = unknown.group("name")
        setting = f"{setting}.{name}" if setting else name
        near = difflib.get_close_matches(name, _names(), n=1)
        said = f"there is no setting {name!r} here"
        fix = f"write {near[0]!r}, or remove it" if near else "remove it"
    return _error(setting, said, fix, text, source)


def _setting(where: str) -> str:
    return where.removeprefix("$").removeprefix(".").replace("[...]", ".*")


def _names() -> set[str]:
    names: set[str] = set()
    for kind in _KINDS:
        names.update(kind.__struct_fields__)
    return names


def _error(setting: str, said: str, fix: str, text: str, source: str) -> ConfigError:
    line = _line(setting, text)
    place = f"{source}:{line}" if line else source
    return ConfigError(
        f"{place}: {setting or 'scenario'}: {said}; {fix}", setting=setting, file=source, line=line, fix=fix
    )


def _line(setting: str, text: str) -> int | None:
    """The line where the last name of a setting is first written; a guess, as TOML values carry no lines."""
    names = [name for name in re.split(r"[.\[\]*\d]+", setting) if name]
    for name in reversed(names):
        found = re.search(rf"(?m)(?<![\w-]){re.escape(name)}(?=[\s\"'.\]=])", text)
        if found:
            return text.count("\n", 0, found.start()) + 1
    return None


def _check(scenario: Scenario, text: str, source: str) -> None:
    """What the types cannot say."""
    places: list[tuple[str, Scenario | ProviderSection]] = [("", scenario)]
    places += [(f"providers.{name}.", section) for name, section in scenario.providers.items()]
    for prefix, section in places:
        for index, turn in enumerate(section.turns or ()):
            _check_match(turn.match, f"{prefix}turns[{index}].match", text, source)
            if turn.fault is not None:
                _check_fault(turn.fault, f"{prefix}turns[{index}].fault", text, source)
        for index, rule in enumerate(section.faults or ()):
            where = f"{prefix}faults[{index}]"
            _check_match(rule.match, f"{where}.match", text, source)
            _check_fault(rule.fault, f"{where}.fault", text, source)
            if rule.probability is not None and not 0 <= rule.probability <= 1:
                raise _error(f"{where}.probability", f"{rule.probability} is no probability", "0 to 1", text, source)
            if rule.every is not None and rule.every < 1:
                raise _error(f"{where}.every", f"{rule.every} is too small", "write 1 or more", text, source)
        _check_keys(section, prefix, text, source)


def _check_match(match: Match, where: str, text: str, source: str) -> None:
    if match.regex is not None:
        try:
            re.compile(match.regex)
        except re.error as error:
            raise _error(f"{where}.regex", f"not a regular expression: {error}", "correct it", text, source) from error
    if match.wire is not None and match.wire not in _WIRES:
        raise _error(f"{where}.wire", f"there is no wire {match.wire!r}", f"one of {', '.join(_WIRES)}", text, source)


def _check_fault(fault: str, where: str, text: str, source: str) -> None:
    if parse_fault(fault) is not None:
        return
    near = difflib.get_close_matches(fault.partition(":")[0], FAULTS, n=1)
    fix = f"write {near[0]!r}" if near else f"one of {', '.join(FAULTS)}"
    raise _error(where, f"there is no fault {fault!r}", fix, text, source)


def _check_keys(section: Scenario | ProviderSection, prefix: str, text: str, source: str) -> None:
    seen: dict[str, str] = {}
    for name, account in (section.accounts or {}).items():
        if account.key in seen:
            where = f"{prefix}accounts.{name}.key"
            raise _error(where, f"{seen[account.key]} has the same key", "give each account its own", text, source)
        seen[account.key] = name
