"""The history of the schema: ``migrations/NNNN_name.sql``, each applied once, in order, in one transaction.

An applied migration is never edited: its hash is kept and compared. A database from a newer version is refused
rather than guessed at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib import resources
from typing import Final

import msgspec

from nightkeep.core.errors import StoreError
from nightkeep.store.port import Transaction

__all__ = ["Migration", "apply_migrations", "load_migrations", "statements"]

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS schema_migrations "
    "(number INTEGER PRIMARY KEY, name TEXT NOT NULL, hash TEXT NOT NULL, applied_at BIGINT NOT NULL)"
)


class Migration(msgspec.Struct, frozen=True):
    """One step of the schema."""

    number: int
    name: str
    sql: str

    @property
    def hash(self) -> str:
        """SHA-256 of the text, in hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load_migrations() -> tuple[Migration, ...]:
    """The migrations of this version, in order."""
    folder = resources.files("nightkeep.store").joinpath("migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return tuple(
        Migration(int(name[:4]), name.removesuffix(".sql"), folder.joinpath(name).read_text(encoding="utf-8"))
        for name in names
    )


def statements(sql: str) -> Iterator[str]:
    """The statements of a migration: comment lines left out, cut after each line that ends with a semicolon."""
    lines: list[str] = []
    for line in sql.splitlines():
        if line.strip() and not line.lstrip().startswith("--"):
            lines.append(line)
            if line.rstrip().endswith(";"):
                yield "\n".join(lines)
                lines = []
    if lines:
        raise ValueError(f"a migration ends inside a statement: {lines[0]!r}")


def apply_migrations(transaction: Transaction, migrations: tuple[Migration, ...], now_ms: int) -> list[str]:
    """Bring the schema up to date; returns the names of what was applied.

    Raises:
        StoreError: the database is newer than this program, or an applied migration is not the one known here.
    """
    transaction.execute(_TABLE)
    rows = transaction.execute("SELECT number, name, hash FROM schema_migrations ORDER BY number")
    known = {migration.number: migration for migration in migrations}
    for number, name, digest in rows:
        migration = known.get(number) if isinstance(number, int) else None
        if migration is None:
            raise StoreError(
                f"the database was last used by a newer version of nightkeep (it has {name!r}); "
                "update this one, or name another directory with --data"
            )
        if migration.hash != digest:
            raise StoreError(
                f"migration {migration.name} of the database is not the one of this version; "
                "a released migration must never change: install the version that made the database"
            )
    applied = {row[0] for row in rows}
    missing = [migration for migration in migrations if migration.number not in applied]
    for migration in missing:
        for statement in statements(migration.sql):
            transaction.execute(statement)
        transaction.execute(
            "INSERT INTO schema_migrations (number, name, hash, applied_at) VALUES (?, ?, ?, ?)",
            (migration.number, migration.name, migration.hash, now_ms),
        )
    return [migration.name for migration in missing]
