"""What answers on the port: model doors first (they are nearly all the traffic), then the API, then a page.

One function per kind of address; nothing is decided here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nightkeep import __version__
from nightkeep.core.errors import DeniedError, NightkeepError
from nightkeep.models.wire.base import Wire
from nightkeep.server.api import Api, NotFoundError
from nightkeep.server.doors import DoorKeeper, refuse
from nightkeep.server.http import Exchange
from nightkeep.server.model_list import ModelList

__all__ = ["App"]

_WELCOME = f"""Nightkeep {__version__} is running.

Point a client here and it works:

  OPENAI_BASE_URL=http://{{host}}/v1
  ANTHROPIC_BASE_URL=http://{{host}}
  GOOGLE_GEMINI_BASE_URL=http://{{host}}

  curl http://{{host}}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{{{"model": "gpt-4.1", "messages": [{{{{"role": "user", "content": "hello"}}}}]}}}}'

Look:  http://{{host}}/api/status   http://{{host}}/api/accounts   http://{{host}}/api/openapi.json
Stop:  Ctrl-C where it was started
"""


class App:
    """The handler of the gateway's server."""

    def __init__(self, doors: DoorKeeper, api: Api, models: ModelList) -> None:
        self._doors = doors
        self._api = api
        self._models = models

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one exchange."""
        request = exchange.request
        target = request.target
        found = self._doors.find(target)
        if found is not None:
            if request.method == "POST":
                await self._doors.answer(exchange, *found)
            else:
                refuse(exchange, found[0].wire, _wrong_method(target, request.method))
        elif target.startswith("/api/"):
            await self._api.answer(exchange)
        elif target.startswith(("/v1/models", "/v1beta/models")) and request.method in ("GET", "HEAD"):
            self._list_models(exchange)
        else:
            _other(exchange)

    def _list_models(self, exchange: Exchange) -> None:
        wire = self._models.wire_of(exchange.request)
        try:
            caller = self._doors.authenticate(exchange.request)
            body: Any = self._models.answer(exchange.request, wire, caller.may_ask_for)
        except NightkeepError as error:
            refuse(exchange, wire, error)
            return
        exchange.respond(200, [("content-type", "application/json")], msgspec.json.encode(body))


def _wrong_method(target: str, method: str) -> NightkeepError:
    return DeniedError(f"{target} takes POST, not {method}", status=405, kind="invalid_request")


def _other(exchange: Exchange) -> None:
    request = exchange.request
    host = request.headers.get("host", "127.0.0.1:7777")
    if request.target == "/" and request.method in ("GET", "HEAD"):
        # Plain text, so that a forged Host header can become nothing but words.
        body = _WELCOME.format(host=host).encode("utf-8", "replace")
        exchange.respond(200, [("content-type", "text/plain; charset=utf-8"), *_PAGE_HEADERS], body)
        return
    wire = Wire.ANTHROPIC_MESSAGES if "anthropic-version" in request.headers else Wire.OPENAI_CHAT
    hint = ""
    if request.target in ("/chat/completions", "/responses", "/embeddings"):
        hint = f"; set the base URL to http://{host}/v1"
    elif request.target.startswith("/v1/v1"):
        hint = f"; the base URL has one /v1 too many: use http://{host}"
    refuse(exchange, wire, NotFoundError(f"there is nothing at {request.method} {request.target[:200]}{hint}"))


_PAGE_HEADERS = [("x-content-type-options", "nosniff"), ("content-security-policy", "default-src 'none'")]
