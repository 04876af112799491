"""The JSON API under ``/api``: one table of routes, from which requests are served and OpenAPI is printed.

Each handler takes typed values and returns one; the pages and the command line use the same. Who may ask is the
route's own word (``needs``), checked by ``server.operators``; pages of other sites are refused (``server.origin``).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from nightkeep import __version__
from nightkeep.core.errors import AuthenticationError, NightkeepError, RequestError
from nightkeep.server.http import Exchange, Request
from nightkeep.server.operators import Asker, Needs, Operators
from nightkeep.server.origin import LOCAL_HOSTS, check_host, check_origin

__all__ = ["Api", "ApiError", "NotFoundError", "Route"]


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
    needs: Needs | None = None  # who may ask (``server.operators``); None: to read "view", else "operator"
    takes_asker: bool = False  # the handler is told who asks: ``asker`` (``server.operators.Asker``)

    @property
    def authority(self) -> Needs:
        """Who may ask."""
        return self.needs or ("view" if self.method in ("GET", "HEAD") else "operator")

    def pattern(self) -> re.Pattern[str]:
        """The path as an expression that finds its parameters."""
        return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(self.path)) + r"\Z")


class Api:
    """Serves a table of routes."""

    def __init__(self, routes: list[Route], operators: Operators, *, hosts: frozenset[str] = frozenset()) -> None:
        """``hosts``: names of this host beside those of the machine itself."""
        self.routes = routes
        self._compiled = [(route, route.pattern()) for route in routes]
        self._operators = operators
        self._hosts = LOCAL_HOSTS | hosts

    async def answer(self, exchange: Exchange) -> None:
        """Serve one request; every error is an ``ApiError`` body."""
        try:
            value = await self._dispatch(exchange.request)
        except NightkeepError as error:
            facts = {"code": error.code, "message": error.message, **error.data}
            headers = _ASK_FOR_TOKEN if isinstance(error, AuthenticationError) else _JSON
            exchange.respond(error.http_status, headers, msgspec.json.encode(ApiError(facts), enc_hook=str))
            return
        exchange.respond(200, _JSON, msgspec.json.encode(value, enc_hook=str))

    async def _dispatch(self, request: Request) -> Any:
        check_origin(request)
        if self._operators.is_local and not self._operators.is_operator(request):
            check_host(request, self._hosts)  # where others can connect, nothing is told without a key or the token
        allowed = []
        for route, pattern in self._compiled:
            found = pattern.match(request.target)
            if found is None:
                continue
            if route.method == request.method or (route.method == "GET" and request.method == "HEAD"):
                asker = self._operators.admit(request, route.authority)
                return await route.handler(**self._arguments(route, found, request, asker))
            allowed.append(route.method)
        if allowed:
            raise RequestError(f"{request.target} takes {' or '.join(allowed)}, not {request.method}", status=405)
        raise NotFoundError(f"there is nothing at {request.target}; GET /api/openapi.json lists what there is")

    def _arguments(self, route: Route, found: re.Match[str], request: Request, asker: Asker) -> dict[str, Any]:
        arguments: dict[str, Any] = {name: unquote(value) for name, value in found.groupdict().items()}
        if route.takes_asker:
            arguments["asker"] = asker
        try:
            if route.query is not None:
                fields = dict(parse_qsl(request.query, keep_blank_values=True))
                arguments["query"] = msgspec.convert(fields, route.query, strict=False)
            if route.takes is not None:
                arguments["body"] = msgspec.json.decode(request.body or b"{}", type=route.takes)
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestError(f"{route.method} {route.path}: {error}") from error
        return arguments

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
            "components": {"schemas": components, "securitySchemes": _SCHEMES},
        }


_JSON = [
    ("content-type", "application/json"),
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
]
_ASK_FOR_TOKEN = [*_JSON, ("www-authenticate", 'Bearer realm="nightkeep"')]
_SCHEMES = {
    "operator": {"type": "http", "scheme": "bearer", "description": "operator.token of the data directory"},
    "key": {"type": "http", "scheme": "bearer", "description": "a virtual key"},
}
_SECURITY: dict[Needs, list[dict[str, list[str]]]] = {
    "none": [],
    "key": [{}, {"key": []}, {"operator": []}],
    "view": [{}, {"operator": []}],
    "operator": [{"operator": []}],
}
"""What each need is in OpenAPI's words; ``{}``: on an open gateway nothing."""


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
        "security": _SECURITY[route.authority],
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": _schema(route.gives)}}},
            "4XX": error,
            "5XX": error,
        },
    }
    if route.takes is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": _schema(route.takes)}}}
    return operation
