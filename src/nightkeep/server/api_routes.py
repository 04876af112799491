"""The API's table: what can be asked of a running gateway, and what can be changed."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Protocol

import msgspec

from nightkeep.core.errors import UnknownModelError
from nightkeep.models.leases import AccountView
from nightkeep.models.routing import Route as ModelRoute
from nightkeep.server.api import Api, NotFoundError, Route

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

    async def reload(self) -> list[str]:
        """Take the settings file anew. Raises ConfigError, and then nothing has changed."""
        ...


def make_api(keep: Keep, version: str, hosts: frozenset[str] = frozenset()) -> Api:
    """The API over a running gateway."""

    async def health() -> Health:
        return Health(status="ok", version=version)

    async def ready() -> Readiness:
        return keep.readiness()

    async def status() -> Status:
        return keep.status()

    async def list_accounts() -> Accounts:
        return Accounts(accounts=keep.accounts())

    async def show_account(account: str) -> AccountView:
        return _find(keep, account)

    def change(verb: Literal["enable", "disable", "reset"]) -> Any:
        async def change_account(account: str, body: Why) -> AccountView:
            try:
                keep.change_account(account, verb, body.why)
            except KeyError:
                raise _no_account(keep, account) from None
            return _find(keep, account)

        change_account.__name__ = f"{verb}_account"
        return change_account

    async def explain_route(body: Ask) -> ModelRoute:
        try:
            return keep.explain(body)
        except UnknownModelError as error:
            error.data.pop("rejected", None)
            raise

    async def list_models() -> Models:
        return Models(models=keep.model_names())

    async def reload_settings() -> Reloaded:
        return Reloaded(changes=await keep.reload())

    async def openapi() -> dict[str, Any]:
        return api.openapi()

    api = Api(
        [
            _get("/api/health", "The process answers", health, Health),
            _get("/api/ready", "Whether a call could be served now", ready, Readiness),
            _get("/api/status", "The gateway at a glance", status, Status),
            _get("/api/accounts", "Every account as it stands", list_accounts, Accounts),
            _get("/api/accounts/{account}", "One account", show_account, AccountView),
            _post("/api/accounts/{account}/enable", "Put an account back to work", change("enable"), AccountView, Why),
            _post("/api/accounts/{account}/disable", "Take an account out", change("disable"), AccountView, Why),
            _post("/api/accounts/{account}/reset", "Let an account begin afresh", change("reset"), AccountView, Why),
            _get("/api/models", "The names that clients may ask for", list_models, Models),
            _post("/api/route/explain", "What would serve a request, and why", explain_route, ModelRoute, Ask),
            _post("/api/reload", "Take the settings file anew", reload_settings, Reloaded, None),
            _get("/api/openapi.json", "This document", openapi, dict[str, Any]),
        ],
        hosts=hosts,
    )
    return api


def _get(path: str, summary: str, handler: Any, gives: Any) -> Route:
    return Route(method="GET", path=path, summary=summary, handler=handler, gives=gives)


def _post(path: str, summary: str, handler: Any, gives: Any, takes: Any) -> Route:
    return Route(method="POST", path=path, summary=summary, handler=handler, gives=gives, takes=takes)


def _find(keep: Keep, account: str) -> AccountView:
    for view in keep.accounts():
        if view.id == account:
            return view
    raise _no_account(keep, account)


def _no_account(keep: Keep, account: str) -> NotFoundError:
    names = ", ".join(view.id for view in keep.accounts()[:20])
    return NotFoundError(f"there is no account {account[:80]!r}; there are: {names or 'none'}")
