"""Where a command reads the ledger: the data directory beside its gateway (or without one), or the gateway's API."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import click
import msgspec

from nightkeep.cli.api_client import call_api
from nightkeep.config_places import data_dir
from nightkeep.models.spending import Reads, SpendQuery
from nightkeep.store.port import Row, Value
from nightkeep.store.sqlite import Snapshot, open_snapshot

__all__ = ["ask_gateway", "read_ledger"]

T = TypeVar("T")
_EXIT_NOTHING: Final = 4
_TABLE: Final = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'ledger'"
_EMPTY: Final = """nothing was spent yet in {directory}; send a call:

  curl http://127.0.0.1:7777/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "gpt-4.1", "messages": [{{"role": "user", "content": "hello"}}]}}'
"""


class _SnapshotReads:
    """A snapshot as something that is awaited."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    async def read(self, sql: str, parameters: Sequence[Value] = ()) -> list[Row]:
        return self._snapshot.read(sql, parameters)


def read_ledger(data_option: str | None, ask: Callable[[Reads, datetime], Awaitable[T]]) -> T:
    """Ask a question of the ledger in a data directory. Ends the command with code 4 where there is none.

    Raises StoreError, and what the question raises.
    """
    directory = data_dir(os.environ, data_option)
    snapshot = open_snapshot(directory)
    try:
        if snapshot is None or not snapshot.read(_TABLE):
            click.echo(_EMPTY.format(directory=directory), err=True)
            raise SystemExit(_EXIT_NOTHING)
        return asyncio.run(_awaited(ask(_SnapshotReads(snapshot), datetime.now(UTC))))
    finally:
        if snapshot is not None:
            snapshot.close()


async def _awaited(answer: Awaitable[T]) -> T:
    return await answer


def ask_gateway(url: str, path: str, query: SpendQuery, kind: type[T]) -> T:
    """Ask a running gateway. Raises ApiError."""
    fields: dict[str, Any] = {name: value for name, value in msgspec.structs.asdict(query).items() if value is not None}
    return msgspec.convert(call_api(url, "GET", f"{path}?{urlencode(fields)}"), kind, strict=False)
