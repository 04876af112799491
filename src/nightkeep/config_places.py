"""Where settings and data are looked for. Light, because every command needs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["FILE_NAME", "data_dir", "find_config"]

FILE_NAME: Final = "nightkeep.toml"


def find_config(environ: Mapping[str, str], option: str | None = None, cwd: Path = Path()) -> Path | None:
    """The file to load: the one asked for, else ``./nightkeep.toml``, else the user's own; None if there is none."""
    if option:
        return Path(option)
    for candidate in (cwd / FILE_NAME, _user_dir(environ, "XDG_CONFIG_HOME", ".config") / FILE_NAME):
        if candidate.is_file():
            return candidate
    return None


def data_dir(environ: Mapping[str, str], option: str | None = None) -> Path:
    """Where records and state are kept: ``--data``, else ``$NIGHTKEEP_DATA``, else the user's data directory."""
    chosen = option or environ.get("NIGHTKEEP_DATA")
    return Path(chosen) if chosen else _user_dir(environ, "XDG_DATA_HOME", ".local/share")


def _user_dir(environ: Mapping[str, str], variable: str, below_home: str) -> Path:
    base = environ.get(variable)
    root = Path(base) if base and Path(base).is_absolute() else Path(environ.get("HOME", ".")) / below_home
    return root / "nightkeep"
