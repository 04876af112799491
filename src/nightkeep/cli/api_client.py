"""How the command line talks to a running gateway: one JSON request to its API, and plain words when it fails."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import click

__all__ = ["ApiError", "NothingThereError", "call_api", "url_option"]

DEFAULT_URL: Final = "http://127.0.0.1:7777"
_TIMEOUT_S: Final = 10.0


class ApiError(click.ClickException):
    """The gateway is not there, or refused."""

    exit_code = 1


class NothingThereError(ApiError):
    """There is no such thing."""

    exit_code = 4


def url_option() -> Callable[[Any], Any]:
    """The option ``--url``."""
    text = "Address of the running gateway."
    return click.option("--url", envvar="NIGHTKEEP_URL", default=DEFAULT_URL, show_default=True, help=text)


def call_api(url: str, method: str, path: str, body: Any = None) -> Any:
    """Send one request and read its JSON answer.

    The key of ``$NIGHTKEEP_KEY``, if there is one, shows who asks.

    Raises:
        ApiError: nobody listens, or the answer is an error; with the gateway's own message.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ApiError(f"{url} is no http address")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, port, timeout=_TIMEOUT_S)
    key = os.environ.get("NIGHTKEEP_KEY")
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    try:
        content = None if body is None else json.dumps(body).encode()
        connection.request(method, parts.path.rstrip("/") + path, body=content, headers=headers)
        answer = connection.getresponse()
        data = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise ApiError(f"no gateway answers at {url} ({error}); start it with: nightkeep up") from error
    finally:
        connection.close()
    return _read(answer.status, data)


def _read(status: int, data: bytes) -> Any:
    try:
        value = json.loads(data) if data else None
    except ValueError:
        raise ApiError(f"the answer (status {status}) is no JSON: is this a Nightkeep gateway?") from None
    if status >= 400:
        kind = NothingThereError if status == 404 else ApiError
        raise kind(_message(value) or f"the gateway answered with status {status}")
    return value


def _message(value: Any) -> str:
    error = value.get("error", value) if isinstance(value, dict) else value
    found = error.get("message") if isinstance(error, dict) else error
    return str(found) if found else ""
