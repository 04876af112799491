"""Switches where no gateway answers: the file ``STOP`` in the data directory, and what the database says is stopped.

A gateway that hangs, or whose address is not known, obeys the file all the same; one that is started later begins
stopped. Nothing is touched for a gateway on another machine.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from nightkeep.cli.api_client import ApiError, NoGatewayError
from nightkeep.config_places import data_dir
from nightkeep.control.stop_file import STOP_NAME, StopFile, remove_stop_file
from nightkeep.control.stops import Stop, clipped, make_target
from nightkeep.control.stops_in_force import EVERYTHING
from nightkeep.control.switch_rows import SELECT_STOPS, read_stop
from nightkeep.core.errors import NightkeepError
from nightkeep.store.sqlite import open_snapshot

__all__ = ["listed", "resume", "stop"]

_LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})


def stop(url: str, data: str | None, wish: dict[str, Any], error: NoGatewayError) -> dict[str, Any]:
    """Leave the file; what the API would answer. Raises ApiError: it is not for everything, or there is no place."""
    directory = _place(url, data, error)
    if _target(wish) != EVERYTHING:
        raise ApiError(
            f"no gateway answers at {url}, and without one only everything can be stopped: 'nightkeep stop /' leaves "
            f"the file {directory / STOP_NAME}. Nothing was changed"
        )
    there = _by_file(directory)
    if there is None and not wish["dry_run"]:
        why = f"{clipped(wish['why'], 400)} (by {wish['by']})".strip()
        try:
            descriptor = os.open(directory / STOP_NAME, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(why + "\n")
        except OSError as fault:
            raise ApiError(f"{error.message}; and {directory / STOP_NAME} cannot be made: {fault.strerror}") from fault
    now = there if there is not None else _by_file(directory)
    return {
        "target": str(EVERYTHING),
        "stop": None if now is None else msgspec.to_builtins(now),
        "is_new": there is None,
        "ended": 0,
        "dry_run": wish["dry_run"],
        "file": str(directory / STOP_NAME),
    }


def resume(url: str, data: str | None, wish: dict[str, Any], error: NoGatewayError) -> dict[str, Any]:
    """Take the file away. Raises ApiError: something else is meant, which only a gateway can let go on."""
    directory = _place(url, data, error)
    is_all = wish.get("all", False)
    if not is_all and _target(wish) != EVERYTHING:
        raise ApiError(f"no gateway answers at {url}; start it (it begins as stopped as it ended), then resume")
    there = _by_file(directory)
    if there is not None and not wish["dry_run"]:
        try:
            remove_stop_file(directory)
        except NightkeepError as fault:
            raise ApiError(fault.message) from fault
    left = [stop for stop in _stored(directory) if is_all or stop.target == EVERYTHING]
    return {
        "target": "all" if is_all else str(EVERYTHING),
        "resumed": [] if there is None else [msgspec.to_builtins(there)],
        "still": msgspec.to_builtins(left[0]) if left else None,
        "dry_run": wish["dry_run"],
        "file": str(directory / STOP_NAME),
    }


def listed(url: str, data: str | None, error: NoGatewayError) -> list[dict[str, Any]]:
    """What a gateway on the data directory would find stopped."""
    directory = _place(url, data, error)
    there = _by_file(directory)
    stops = [*_stored(directory), *([there] if there is not None else [])]
    return [msgspec.to_builtins(stop) for stop in stops]


def _place(url: str, data: str | None, error: NoGatewayError) -> Path:
    """The data directory, where it can be the one of the gateway that was asked for."""
    if data is None and urlsplit(url).hostname not in _LOCAL:
        raise error  # a file on this machine would stop another gateway
    directory = data_dir(os.environ, data)
    if not directory.is_dir():
        raise ApiError(f"{error.message}; and there is no data directory {directory}: name the gateway's with --data")
    return directory


def _target(wish: dict[str, Any]) -> object:
    try:
        return make_target(wish["kind"], wish["name"])
    except NightkeepError as error:
        raise ApiError(error.message) from error


def _by_file(directory: Path) -> Stop | None:
    try:
        return StopFile(directory).look(datetime.now(UTC))
    except NightkeepError as error:
        raise ApiError(error.message) from error


def _stored(directory: Path) -> list[Stop]:
    snapshot = open_snapshot(directory)
    if snapshot is None:
        return []
    try:
        return [read_stop(row) for row in snapshot.read(SELECT_STOPS)]
    except NightkeepError as error:
        raise ApiError(f"the database in {directory} cannot be read: {error.message}") from error
    finally:
        snapshot.close()
