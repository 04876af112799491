"""The API's table: what can be asked of a running gateway, and what can be changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Literal, Protocol

import msgspec

from nightkeep.core.errors import UnknownModelError
from nightkeep.models.leases import AccountView
from nightkeep.models.owners import OwnerView
from nightkeep.models.routing import Route as ModelRoute
from nightkeep.server.api import Api, NotFoundError, Route
from nightkeep.server.operators import Asker, Needs, Operators

__all__ = ["Accounts", "Ask", "Health", "Keep", "Readiness", "Reloaded", "Status", "make_api"]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: Literal["ok"]
    version: str


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a call could be served now, and what stands in the way."""

    ready: bool
    accounts_available: int
    accounts: int
    problems: tuple[str, ...] = ()


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway at a glance."""

    version: str
    address: str
    started_at: datetime
    uptime_s: float
    is_simulated: bool
    config: str | None
    config_hash: str
    reloaded_at: datetime | None
    last_reload_error: str | None
    calls_in_flight: int
    calls_served: int
    calls_waiting: int
    connections: int
    memory_mb: float
    record: dict[str, Any]
    alerts: dict[str, Any]
    notes: tuple[str, ...]


class Accounts(msgspec.Struct, frozen=True, kw_only=True):
    """Every account as it stands."""

    accounts: list[AccountView]


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """The reason for a change, kept with it."""

    why: str = ""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A request that might be made."""

    model: str
    tag: str | None = None
    task: str | None = None
    tokens: int = 0


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload changed."""

    changes: list[str]


class Models(msgspec.Struct, frozen=True, kw_only=True):
    """The names that clients may ask for."""

    models: list[str]


class Workers(msgspec.Struct, frozen=True, kw_only=True):
    """The processes that serve, by their slots."""

    workers: list[OwnerView]


class Keep(Protocol):
    """What the API needs of a running gateway."""

    def status(self) -> Status:
        """The gateway at a glance."""
        ...

    def readiness(self) -> Readiness:
        """Whether a call could be served now."""
        ...

    def accounts(self) -> list[AccountView]:
        """Every account as it stands."""
        ...

    def change_account(self, account: str, verb: Literal["enable", "disable", "reset"], why: str) -> None:
        """Take an account out, back, or let it begin afresh. Raises KeyError: there is none of this name."""
        ...

    def explain(self, ask: Ask) -> ModelRoute:
        """What would serve a request. Raises UnknownModelError, RequestError."""
        ...

    def model_names(self) -> list[str]:
        """The names that clients may ask for."""
        ...

    async def workers(self) -> list[OwnerView]:
        """The processes that serve. Raises StoreError."""
        ...

    async def reload(self) -> list[str]:
        """Take the settings file anew. Raises ConfigError, and then nothing has changed."""
        ...


def make_api(
    keep: Keep,
    version: str,
    operators: Operators,
    hosts: frozenset[str] = frozenset(),
    more: Iterable[Route] = (),
) -> Api:
    """The API over a running gateway; ``more`` are the operations of its controls (``server.api_*``)."""
    api = _Endpoints(keep, version)
    table = [
        _get("/api/health", "The process answers", api.health, Health, "none"),
        msgspec.structs.replace(
            _get("/api/ready", "Whether a call could be served now", api.ready, Readiness, "none"), takes_asker=True
        ),
        _get("/api/status", "The gateway at a glance", api.status, Status),
        _get("/api/accounts", "Every account as it stands", api.list_accounts, Accounts),
        _get("/api/accounts/{account}", "One account", api.show_account, AccountView),
        _post("/api/accounts/{account}/enable", "Put an account back to work", api.enable_account, AccountView, Why),
        _post("/api/accounts/{account}/disable", "Take an account out", api.disable_account, AccountView, Why),
        _post("/api/accounts/{account}/reset", "Let an account begin afresh", api.reset_account, AccountView, Why),
        _get("/api/models", "The names that clients may ask for", api.list_models, Models),
        _post("/api/route/explain", "What would serve a request, and why", api.explain_route, ModelRoute, Ask, "view"),
        _post("/api/reload", "Take the settings file anew", api.reload_settings, Reloaded, None),
        _get("/api/workers", "The processes that serve", api.list_workers, Workers),
        *more,
        _get("/api/openapi.json", "This document", api.openapi, dict[str, Any], "none"),
    ]
    made = Api(table, operators, hosts=hosts)
    api.document = made.openapi
    return made


class _Endpoints:
    """The operations, one method each; their names are the ``operationId`` of the OpenAPI document."""

    def __init__(self, keep: Keep, version: str) -> None:
        self._keep = keep
        self._version = version
        self.document: Callable[[], dict[str, Any]] = dict

    async def health(self) -> Health:
        return Health(status="ok", version=self._version)

    async def ready(self, asker: Asker) -> Readiness:
        found = self._keep.readiness()
        return found if asker.may_view else msgspec.structs.replace(found, problems=())  # they name accounts

    async def status(self) -> Status:
        return self._keep.status()

    async def list_accounts(self) -> Accounts:
        return Accounts(accounts=self._keep.accounts())

    async def show_account(self, account: str) -> AccountView:
        return _find(self._keep, account)

    async def enable_account(self, account: str, body: Why) -> AccountView:
        return self._change(account, "enable", body.why)

    async def disable_account(self, account: str, body: Why) -> AccountView:
        return self._change(account, "disable", body.why)

    async def reset_account(self, account: str, body: Why) -> AccountView:
        return self._change(account, "reset", body.why)

    def _change(self, account: str, verb: Literal["enable", "disable", "reset"], why: str) -> AccountView:
        try:
            self._keep.change_account(account, verb, why)
        except KeyError:
            raise _no_account(self._keep, account) from None
        return _find(self._keep, account)

    async def explain_route(self, body: Ask) -> ModelRoute:
        try:
            return self._keep.explain(body)
        except UnknownModelError as error:
            error.data.pop("rejected", None)
            raise

    async def list_models(self) -> Models:
        return Models(models=self._keep.model_names())

    async def list_workers(self) -> Workers:
        return Workers(workers=await self._keep.workers())

    async def reload_settings(self) -> Reloaded:
        return Reloaded(changes=await self._keep.reload())

    async def openapi(self) -> dict[str, Any]:
        return self.document()


def _get(path: str, summary: str, handler: Any, gives: Any, needs: Needs | None = None) -> Route:
    return Route(method="GET", path=path, summary=summary, handler=handler, gives=gives, needs=needs)


def _post(path: str, summary: str, handler: Any, gives: Any, takes: Any, needs: Needs | None = None) -> Route:
    return Route(method="POST", path=path, summary=summary, handler=handler, gives=gives, takes=takes, needs=needs)


def _find(keep: Keep, account: str) -> AccountView:
    for view in keep.accounts():
        if view.id == account:
            return view
    raise _no_account(keep, account)


def _no_account(keep: Keep, account: str) -> NotFoundError:
    names = ", ".join(view.id for view in keep.accounts()[:20])
    return NotFoundError(f"there is no account {account[:80]!r}; there are: {names or 'none'}")
