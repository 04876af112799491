"""Where things are in a checkout, for the tests that read the source."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PACKAGE", "ROOT", "sources"]

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "nightkeep"


def sources() -> list[Path]:
    """Every Python file of the package, by its path below ``nightkeep/``."""
    return sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
