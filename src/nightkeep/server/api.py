"""The JSON API under ``/api``: one table of routes, from which requests are served and OpenAPI is printed.

Each handler takes typed values and returns one; the pages and the command line use the same. Changing
requests are refused when a browser sends them from another site, and every request must name this
host (DNS rebinding). Users and roles come with a later issue; until then the API trusts who can connect.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from nightkeep import __version__
from nightkeep.core.errors import DeniedError, NightkeepError, RequestError
from nightkeep.server.http import Exchange, Request

__all__ = ["Api", "ApiError", "NotFoundError", "Route"]

_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


class NotFoundError(RequestError):
    """Nothing stands at this address, or under this id."""

    code = "not_found"
    status = 404


class ApiError(msgspec.Struct, frozen=True):
    """The body of every refusal: ``{"error": {"code", "message", …}}``."""

    error: dict[str, Any]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One operation: where, what it takes and gives, and one sentence for the reader of the OpenAPI document."""

    method: str
    path: str  # with {names}
    summary: str
    handler: Callable[..., Awaitable[Any]]
    gives: Any
    takes: Any = None  # type of the JSON body
    query: Any = None  # Struct of the query's fields

    def pattern(self) -> re.Pattern[str]:
        """The path as an expression that finds its parameters."""
        return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(self.path)) + r"\Z")


class Api:
    """Serves a table of routes."""

    def __init__(self, routes: list[Route], *, hosts: frozenset[str] = frozenset()) -> None:
        self.routes = routes
        self._compiled = [(route, route.pattern()) for route in routes]
        self._hosts = _LOCAL_HOSTS | hosts

    async def answer(self, exchange: Exchange) -> None:
        """Serve one request; every error is an ``ApiError`` body."""
        try:
            value = await self._dispatch(exchange.request)
        except NightkeepError as error:
            facts = {"code": error.code, "message": error.message, **error.data}
            exchange.respond(error.http_status, _JSON, msgspec.json.encode(ApiError(facts), enc_hook=str))
            return
        exchange.respond(200, _JSON, msgspec.json.encode(value, enc_hook=str))

    async def _dispatch(self, request: Request) -> Any:
        self._check_origin(request)
        allowed = []
        for route, pattern in self._compiled:
            found = pattern.match(request.target)
            if found is None:
                continue
            if route.method == request.method or (route.method == "GET" and request.method == "HEAD"):
                return await route.handler(**self._arguments(route, found, request))
            allowed.append(route.method)
        if allowed:
            raise RequestError(f"{request.target} takes {' or '.join(allowed)}, not {request.method}", status=405)
        raise NotFoundError(f"there is nothing at {request.target}; GET /api/openapi.json lists what there is")

    def _arguments(self, route: Route, found: re.Match[str], request: Request) -> dict[str, Any]:
        arguments: dict[str, Any] = {name: unquote(value) for name, value in found.groupdict().items()}
        try:
            if route.query is not None:
                fields = dict(parse_qsl(request.query, keep_blank_values=True))
                arguments["query"] = msgspec.convert(fields, route.query, strict=False)
            if route.takes is not None:
                arguments["body"] = msgspec.json.decode(request.body or b"{}", type=route.takes)
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestError(f"{route.method} {route.path}: {error}") from error
        return arguments

    def _check_origin(self, request: Request) -> None:
        host = request.headers.get("host", "")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if host and name not in self._hosts:
            raise DeniedError(
                f"host {host!r} is not served here; use the address that 'nightkeep up' printed", rule="api.host"
            )
        origin = request.headers.get("origin")
        if origin is not None and request.method not in ("GET", "HEAD") and origin.split("//", 1)[-1] != host:
            raise DeniedError(f"a page of {origin!r} may not change anything here", rule="api.origin")

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI 3.1 document of the table."""
        kinds = [t for route in self.routes for t in (route.gives, route.takes) if t is not None]
        _, components = msgspec.json.schema_components([*kinds, ApiError], ref_template="#/components/schemas/{name}")
        paths: dict[str, dict[str, Any]] = {}
        for route in self.routes:
            paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
        return {
            "openapi": "3.1.0",
            "info": {"title": "Nightkeep", "version": __version__},
            "paths": paths,
            "components": {"schemas": components},
        }


_JSON = [("content-type", "application/json"), ("cache-control", "no-store")]


def _schema(kind: Any) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
    return schema


def _operation(route: Route) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    if route.query is not None:
        for field in msgspec.structs.fields(route.query):
            parameters.append(
                {"name": field.encode_name, "in": "query", "required": field.required, "schema": _schema(field.type)}
            )
    error = {"description": "A refusal", "content": {"application/json": {"schema": _schema(ApiError)}}}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": inspect.unwrap(route.handler).__name__,
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": _schema(route.gives)}}},
            "4XX": error,
            "5XX": error,
        },
    }
    if route.takes is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": _schema(route.takes)}}}
    return operation
