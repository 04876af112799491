"""How the command line talks to a running gateway: one JSON request to its API, and plain words when it fails."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click

from nightkeep.config_places import data_dir

__all__ = ["ApiError", "NoGatewayError", "NothingThereError", "call_api", "data_option", "url_option"]

DEFAULT_URL: Final = "http://127.0.0.1:7777"
_TIMEOUT_S: Final = 10.0
_TOKEN_FILE: Final = "operator.token"  # control.operator.TOKEN_NAME; here for the time that an import takes
_DATA_KEY: Final = "nightkeep.data"
_LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class ApiError(click.ClickException):
    """The gateway is not there, or refused."""

    exit_code = 1


class NoGatewayError(ApiError):
    """Nobody listens there."""


class NothingThereError(ApiError):
    """There is no such thing."""

    exit_code = 4


def url_option() -> Callable[[Any], Any]:
    """The option ``--url``."""
    text = "Address of the running gateway."
    return click.option("--url", envvar="NIGHTKEEP_URL", default=DEFAULT_URL, show_default=True, help=text)


def data_option() -> Callable[[Any], Any]:
    """The option ``--data``, where it only says where the operator's token stands; the command does not see it."""

    def keep(context: click.Context, _: click.Parameter, value: str | None) -> None:
        context.meta[_DATA_KEY] = value

    text = "The gateway's data directory, where the operator's token stands."
    return click.option("--data", metavar="DIR", expose_value=False, callback=keep, help=text)


def call_api(url: str, method: str, path: str, body: Any = None, *, data: str | None = None) -> Any:
    """Send one request and read its JSON answer.

    Shows who asks: ``$NIGHTKEEP_TOKEN``, else the operator's token of the data directory (``data``, else the command's
    own ``--data``, ``$NIGHTKEEP_DATA``, or the user's), else ``$NIGHTKEEP_KEY``.

    Raises:
        NoGatewayError: nobody listens.
        NothingThereError: there is no such thing.
        ApiError: the answer is another error; with the gateway's own message.
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
    secret = _secret(parts.hostname, data)
    if secret and not (secret.isascii() and secret.isprintable()):
        raise ApiError("the token or key that would be sent is not one line of plain text; look at NIGHTKEEP_TOKEN")
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {secret}"} if secret else {})}
    try:
        content = None if body is None else json.dumps(body).encode()
        connection.request(method, parts.path.rstrip("/") + path, body=content, headers=headers)
        answer = connection.getresponse()
        answered = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise NoGatewayError(f"no gateway answers at {url} ({error}); start it with: nightkeep up") from error
    finally:
        connection.close()
    return _read(answer.status, answered)


def _secret(host: str, data: str | None) -> str | None:
    """What shows who asks. A token that was found by itself is sent to this machine only."""
    token = os.environ.get("NIGHTKEEP_TOKEN", "").strip()
    if token:
        return token
    option = data or _option_of_command()
    if option or host in _LOCAL:
        token = _file_token(data_dir(os.environ, option))
    return token or os.environ.get("NIGHTKEEP_KEY")


def _option_of_command() -> str | None:
    context = click.get_current_context(silent=True)
    if context is None:
        return None
    found = context.meta.get(_DATA_KEY) or context.params.get("data_option") or context.params.get("data")
    return str(found) if found else None


def _file_token(directory: Path) -> str:
    try:
        return (directory / _TOKEN_FILE).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


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
