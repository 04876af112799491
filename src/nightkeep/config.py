"""The configuration: found, read, checked as a whole, and told apart from the one before.

With ``nightkeep.config_accounts`` (which fetches the keys) the only reader of the environment and of the file;
the environment comes in as a mapping. ``load`` either gives settings that hold together or raises with everything
that is wrong. The settings' names are in ``nightkeep.config_models``, their rules in ``nightkeep.config_checks``.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from pydantic import ValidationError

from nightkeep.config_accounts import Resolution, discover, provider_specs, resolve_accounts
from nightkeep.config_checks import Finding, Names, check
from nightkeep.config_messages import InvalidConfigError, Problem, explain, explain_syntax, setting_name
from nightkeep.config_models import Settings
from nightkeep.config_places import data_dir, find_config
from nightkeep.config_positions import Positions, find_positions
from nightkeep.config_reload import Change, ReloadWatcher, diff

__all__ = [
    "Change",
    "InvalidConfigError",
    "Loaded",
    "Problem",
    "ReloadWatcher",
    "Resolution",
    "Settings",
    "data_dir",
    "diff",
    "discover",
    "find_config",
    "load",
    "parse",
    "prepare_data_dir",
    "provider_specs",
    "resolve_accounts",
]

_MOST_BYTES: Final = 4 << 20


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that hold together, and where they came from."""

    settings: Settings
    path: Path | None = None  # None: there is no file
    warnings: tuple[Problem, ...] = ()
    source_hash: str = ""  # SHA-256 of the file's bytes; of nothing where there is none
    from_environment: frozenset[str] = frozenset()  # accounts that were discovered there
    in_file: frozenset[str] = frozenset()  # dotted names of the settings that the file sets

    @property
    def base(self) -> Path:
        """What relative paths in the settings count from."""
        return self.path.parent if self.path is not None else Path()


def prepare_data_dir(path: Path) -> Path:
    """Make the data directory, for its owner only (0700).

    Raises:
        InvalidConfigError: it cannot be made, or is no directory.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        problem = Problem(
            file=str(path),
            setting="--data",
            what=f"the data directory cannot be made: {error.strerror}",
            fix="name another with --data or NIGHTKEEP_DATA",
        )
        raise InvalidConfigError([problem]) from error
    return path


def load(path: Path | None, environ: Mapping[str, str]) -> Loaded:
    """Read and check a file whole; without one, make accounts of the keys in the environment.

    Raises:
        InvalidConfigError: with all problems, each with its line and the fix.
    """
    if path is None:
        return parse(b"", None, environ)
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise InvalidConfigError(
            [
                Problem(
                    file=str(path), setting="", what=what, fix="check the path, or make one with nightkeep config init"
                )
            ]
        ) from error
    return parse(data, path, environ)


def parse(data: bytes, path: Path | None, environ: Mapping[str, str]) -> Loaded:
    """The same from bytes that were read before. Raises as ``load`` does, and nothing else, whatever the bytes."""
    file = str(path) if path is not None else "(no file)"
    text, raw = _toml(data, file)
    from_environment: frozenset[str] = frozenset()
    if "accounts" not in raw:
        found = discover(environ)
        raw = {**raw, "accounts": found} if found else raw
        from_environment = frozenset(found)
    settings, problems, is_whole = _validate(raw, text, file)
    findings = check(settings, Names.of(raw, settings)) if is_whole or problems else []
    errors = [finding for finding in findings if finding.is_error]
    if problems or errors:
        positions = find_positions(text)
        raise InvalidConfigError([*problems, *(_problem(file, positions, each) for each in errors)])
    positions = find_positions(text) if findings else Positions({})
    return Loaded(
        settings=settings,
        path=path,
        warnings=tuple(_problem(file, positions, each) for each in findings),
        source_hash=hashlib.sha256(data).hexdigest(),
        from_environment=from_environment,
        in_file=frozenset(_names(raw))
        - {name for name in _names({"accounts": raw.get("accounts")}) if from_environment},
    )


def _toml(data: bytes, file: str) -> tuple[str, dict[str, Any]]:
    if len(data) > _MOST_BYTES:
        raise InvalidConfigError(
            [Problem(file=file, setting="", what=f"is over {_MOST_BYTES >> 20} MB", fix="is it the right file?")]
        )
    try:
        text = data.decode("utf-8-sig")
        return text, tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidConfigError(
            [Problem(file=file, setting="", line=line, what="is not UTF-8 text", fix="save it as UTF-8")]
        ) from None
    except RecursionError:
        raise InvalidConfigError(
            [Problem(file=file, setting="", what="is nested too deeply", fix="no setting needs more than four levels")]
        ) from None
    except ValueError as error:
        raise InvalidConfigError([explain_syntax(file, error)]) from None


def _validate(raw: dict[str, Any], text: str, file: str) -> tuple[Settings, list[Problem], bool]:
    """The settings, and what is wrong in them; what is wrong is left out, so that the rest can be checked too."""
    problems: list[Problem] = []
    pruned = raw
    for _ in range(4):
        try:
            return Settings.model_validate(pruned), problems, not problems
        except ValidationError as error:
            if not problems:
                problems = explain(file, error, find_positions(text))
            pruned = _without(
                pruned, [detail["loc"] for detail in error.errors(include_url=False, include_input=False)]
            )
    return Settings(), problems, False


def _without(raw: dict[str, Any], locations: list[tuple[str | int, ...]]) -> dict[str, Any]:
    """A copy without the entries (``accounts.NAME``, ``routes`` as a whole, …) in which something is wrong."""
    copy = dict(raw)
    for location in locations:
        section = str(location[0]) if location else ""
        table = copy.get(section)
        if len(location) > 1 and isinstance(table, dict):
            copy[section] = {key: value for key, value in table.items() if key != location[1]}
        elif section == "routes" and len(location) > 1 and isinstance(table, list):
            copy[section] = [{"match": {}} if n == location[1] else each for n, each in enumerate(table)]
        else:
            copy.pop(section, None)
    return copy


def _problem(file: str, positions: Positions, finding: Finding) -> Problem:
    return Problem(
        file=file,
        setting=setting_name(finding.path),
        line=positions.line(finding.path),
        what=finding.what,
        fix=finding.fix,
    )


def _names(value: Any, path: tuple[str | int, ...] = ()) -> list[str]:
    if isinstance(value, dict) and value:
        return [name for key, each in value.items() for name in _names(each, (*path, key))]
    return [setting_name(path)]
