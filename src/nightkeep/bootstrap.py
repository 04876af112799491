"""The composition root: the only place where concrete parts are chosen and put together.

``start`` makes a running gateway from checked settings; ``Running.reload`` swaps in new ones without
dropping a request. Everything else in the package takes its parts as arguments. From settings to the
parts' own values: ``bootstrap_pools`` and ``bootstrap_routes``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import resource
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from nightkeep import __version__
from nightkeep.bootstrap_alerts import alert_policy
from nightkeep.bootstrap_controls import MoneyControls, budget_specs, open_money
from nightkeep.bootstrap_keys import Authority, check_exposure, open_authority
from nightkeep.bootstrap_limits import limit_specs
from nightkeep.bootstrap_pools import Share, account_specs, gateway_settings, pool_specs, record_policy, tag_limits
from nightkeep.bootstrap_routes import SIMULATED, route_table, simulated_provider
from nightkeep.bootstrap_spend import spend_operations
from nightkeep.bootstrap_watch import watch_spec
from nightkeep.config import Loaded, Settings, load, provider_specs, resolve_accounts
from nightkeep.config_accounts import KeyNote
from nightkeep.config_reload import Change as SettingChange
from nightkeep.config_reload import ReloadWatcher, Stamp, diff
from nightkeep.control.budget_specs import ThresholdReached
from nightkeep.control.limits import ScopeLimits
from nightkeep.control.stops_in_force import EVERYTHING
from nightkeep.control.switches import Switchboard
from nightkeep.control.watch import Watch
from nightkeep.core.clock import new_id
from nightkeep.core.errors import ConfigError, StoreError
from nightkeep.models.account_book import AccountBook, Change
from nightkeep.models.account_news import AccountNews
from nightkeep.models.account_states import AccountStates
from nightkeep.models.accounts import AccountStatus
from nightkeep.models.budget_settlement import MARK_LENGTH, Settlement
from nightkeep.models.calls import CallLog
from nightkeep.models.catalog import load_catalog
from nightkeep.models.gateway.cache import ResponseCache
from nightkeep.models.gateway.directory import Directory
from nightkeep.models.gateway.gateway import Gateway, GatewayParts
from nightkeep.models.gateway.idempotency import Idempotency
from nightkeep.models.gateway.permits import Permits
from nightkeep.models.gateway.quote import QuoteAsk
from nightkeep.models.leases import AccountView
from nightkeep.models.ledger_tail import LedgerTail
from nightkeep.models.owners import Owners, OwnerView
from nightkeep.models.provider_spec import ProviderSpec
from nightkeep.models.routing import Needs, Route
from nightkeep.models.sessions import Sessions
from nightkeep.models.transport import HttpClient
from nightkeep.models.upstream import AccountAccess, UpstreamAccount
from nightkeep.ops.alerts import Alerts
from nightkeep.ops.budget_alerts import describe_threshold
from nightkeep.ops.watching import Watching
from nightkeep.server.api import Route as Operation
from nightkeep.server.api_alerts import alert_routes
from nightkeep.server.api_budgets import budget_operations
from nightkeep.server.api_limits import limit_routes
from nightkeep.server.api_routes import Ask, Readiness, Status, make_api
from nightkeep.server.api_switches import switch_routes
from nightkeep.server.api_watch import watch_routes
from nightkeep.server.app import App
from nightkeep.server.doors import DoorKeeper, DoorSettings
from nightkeep.server.http import HttpServer, serve
from nightkeep.server.model_list import ModelList
from nightkeep.store.sqlite import SqliteStore
from nightkeep.testing.sim import RunningSim, load_scenario, start_sim

__all__ = ["Membership", "Running", "SystemClock", "start", "start_simulated"]

log = logging.getLogger("nightkeep")

_WATCH_S = 1.0


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never go back; the same that the event loop counts."""
        return time.monotonic()


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """A process's place among several on one data directory (``nightkeep.supervisor``)."""

    owner: str
    slot: int  # from 0
    workers: int
    listener: socket.socket
    sim_url: str | None


class Running:
    """A gateway that is listening."""

    def __init__(
        self,
        loaded: Loaded,
        environ: Mapping[str, str],
        clock: SystemClock,
        overrides: Mapping[str, Any],
        member: Membership | None = None,
    ) -> None:
        self._member = member
        self._share = Share(member.slot, member.workers) if member is not None else Share()
        self.loaded = _overridden(loaded, overrides)
        self._overrides = overrides
        self._reloaded_at: datetime | None = None
        self._reload_error: str | None = None
        self.clock = clock
        self.started_at = clock.now()
        self.notes: tuple[KeyNote, ...] = ()
        self.sim: RunningSim | None = None
        self._environ = environ
        self._randomness = random.Random()
        self._client = HttpClient(connect_s=loaded.settings.gateway.deadlines.connect_s)
        self._directory = Directory(self._client, clock)
        self._store: SqliteStore | None = None
        self._states: AccountStates | None = None
        self._log: CallLog | None = None
        self._watching: Watching | None = None
        self._authority: Authority | None = None
        self.switches: Switchboard | None = None
        self._alerts: Alerts | None = None
        self._money: MoneyControls | None = None
        self._server: HttpServer | None = None
        self._news: AccountNews | None = None
        self._owners: Owners | None = None
        self._is_alone = member is None  # no other process works on the same store
        self.owner = member.owner if member is not None else new_id("own", self.started_at, self._randomness)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.loaded.settings

    @property
    def address(self) -> str:
        """Where it listens."""
        assert self._server is not None
        host = self.settings.gateway.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self._server.port}"

    @property
    def asks_for_keys(self) -> bool:
        """Whether clients must present a virtual key."""
        return self._authority is not None and not self._authority.ring.is_open

    async def open(self, data: Path) -> None:
        """Put the parts together and listen. Raises ConfigError, OSError (the port is taken)."""
        settings = self.settings
        self._store = store = self._open_store(data)
        self._owners = Owners(store, self.clock)
        if self._is_alone:
            await self._owners.bury_all()
            await self._owners.begin(self.owner, 0, os.getpid())
        self.switches = switches = Switchboard(store, data, self.clock, self._randomness)
        await switches.restore()
        switches.start()
        self._authority = authority = await open_authority(store, data, settings, self.clock)
        self._alerts = Alerts(
            store,
            self._client,
            self.clock,
            self._randomness,
            alert_policy(self.loaded, self._environ),
            trouble=lambda: store.health.reason if not store.health.is_ok else "",
            is_teller=self._share.slot == 0,
            is_alone=self._share.workers == 1,
        )
        await self._alerts.open()
        if settings.is_simulated and self._is_alone:
            self.sim = await start_simulated(settings, self.loaded.base)
        accounts = self._resolve(self.loaded)
        self._book = AccountBook(
            pool_specs(settings),
            account_specs(settings, accounts, self._share),
            self.clock,
            on_change=self._account_changed,
            tag_limits=tag_limits(settings, self._share),
            jitter=self._randomness.random,
            most_waiting=settings.gateway.queue.max_waiting,
        )
        self._limits = ScopeLimits(
            limit_specs(settings, self._share), self.clock, most_waiting=settings.gateway.queue.max_waiting
        )
        self._states = AccountStates(store, self._book, self.clock, self._share.slot)
        await self._states.restore()
        self._alerts.settle(self._book.snapshot())
        self._states.start()
        if not self._is_alone:
            self._news = AccountNews(store, self._book, self.owner, self.clock, self._randomness)
            self._news.start()
        sessions = Sessions(settings.record.session_gap_s, self._randomness, is_shared=not self._is_alone)
        await sessions.restore(store, self.clock.now())
        self._log = CallLog(store, record_policy(settings), sessions, self.clock, self._randomness, self.owner)
        await self._log.open(is_alone=self._is_alone)
        watch = Watch(watch_spec(settings))
        ring = authority.ring
        is_first = self._share.slot == 0
        has_others = is_first and self._share.workers > 1
        self._watching = Watching(
            self._log,
            watch,
            self.clock,
            self._alerts,
            pause=self._pause,
            has_keys=lambda: ring.has_keys,
            elsewhere=LedgerTail(store, self.owner, self.clock) if has_others else None,
            is_first=is_first,
        )
        await self._watching.open(store)
        self._money = open_money(
            store, settings, self.owner, self.clock, self._threshold_reached, is_alone=self._is_alone
        )
        await self._money.open(marks_lost=self._is_alone)
        self._idempotency = Idempotency(
            store, self.clock, ttl_s=settings.idempotency.ttl_s, is_shared=not self._is_alone
        )
        self._cache = _cache(settings, self.clock)
        self._directory.replace(accounts.values())
        self._gateway = Gateway(
            GatewayParts(
                routes=route_table(settings, self._simulated_specs()),
                settings=gateway_settings(settings),
                book=self._book,
                directory=self._directory,
                client=self._client,
                states=self._states,
                spending=self._money.spending,
                switches=switches,
                permits=Permits(self._limits, self._key_limits(), self._share.of),
                log=self._watching,
                idempotency=self._idempotency,
                cache=self._cache,
                clock=self.clock,
                randomness=self._randomness,
            )
        )
        self._doors = DoorKeeper(
            self._gateway,
            authority.ring,
            sessions,
            _door_settings(settings),
            self.clock,
            self._randomness,
            mark=self.owner[-MARK_LENGTH:],
        )
        hosts = frozenset({settings.gateway.host})
        api = make_api(self, __version__, authority.operators, hosts, self._more_operations())
        app = App(self._doors, api, ModelList(self.model_names))
        gateway = settings.gateway
        self._server = await serve(
            app,
            host=gateway.host,
            port=gateway.port,
            max_body_bytes=gateway.max_body_mb << 20,
            inherited=self._member.listener if self._member is not None else None,
        )

    async def _pause(self, scope: str, why: str, rule: str) -> None:
        """A rule of watching stops a scope. Raises RequestError, StoreError."""
        assert self.switches is not None
        await self.switches.stop("scope", scope, by=f"rule {rule}", why=why, source=f"rule:{rule}")

    async def workers(self) -> list[OwnerView]:
        """The processes that serve. Raises StoreError."""
        return await self._owners.living() if self._owners is not None else []

    def _key_limits(self) -> ScopeLimits:
        return ScopeLimits((), self.clock, most_waiting=self.settings.gateway.queue.max_waiting)

    def _threshold_reached(self, reached: ThresholdReached) -> None:
        if self._alerts is not None:
            self._alerts.raise_(describe_threshold(reached))

    def _more_operations(self) -> list[Operation]:
        """The operations of the controls, a line each."""
        money = self._money
        budgets = budget_operations(money.budgets, money.calibrations, self._plan_quote) if money is not None else []
        alerts = alert_routes(self._alerts) if self._alerts is not None else []
        alerts += watch_routes(self._watching) if self._watching is not None else []
        store = self._store
        spend = (
            spend_operations(store, self.clock, self._randomness, settlement=self._settlement(store, money))
            if store is not None and money is not None
            else []
        )
        switches = switch_routes(self.switches, self._gateway.ended_by) if self.switches is not None else []
        keys = self._authority.operations() if self._authority is not None else []
        return [*budgets, *limit_routes(self._limits), *alerts, *spend, *switches, *keys]

    def _account_changed(self, change: Change) -> None:
        if self._alerts is not None:
            self._alerts.tell(change)
        if self._states is not None:
            self._states.note(change)
        if self._news is not None:
            self._news.note(change)

    def _resolve(self, loaded: Loaded) -> dict[str, UpstreamAccount]:
        specs = self._simulated_specs()
        resolution = resolve_accounts(loaded.settings, self._environ, loaded.base, specs)
        self.notes = resolution.notes
        accounts = dict(resolution.accounts)
        if SIMULATED in specs and loaded.settings.is_simulated:
            name = f"{SIMULATED}-1"
            accounts[name] = UpstreamAccount(AccountAccess(name=name, provider=specs[SIMULATED]))
        return accounts

    def _simulated_specs(self) -> dict[str, ProviderSpec]:
        url = self.sim.base_url if self.sim is not None else self._member.sim_url if self._member is not None else None
        return {SIMULATED: simulated_provider(url)} if url is not None else {}

    def _open_store(self, data: Path) -> SqliteStore:
        if self._is_alone:
            return SqliteStore.open(data, self.clock, pid=os.getpid())
        return SqliteStore.join(data, self.clock)

    # -- what the API asks

    def model_names(self) -> list[str]:
        """The names that clients may ask for: aliases, and what the catalog knows of the configured providers."""
        names = dict.fromkeys(self._gateway.parts.routes.aliases)
        providers = {account.provider for account in self.settings.accounts.values()}
        for row in load_catalog().rows:
            if self.settings.is_simulated or not providers.isdisjoint(row.makers):
                names.setdefault(row.id)
        return sorted(names)

    def accounts(self) -> list[AccountView]:
        """Every account as it stands."""
        return self._book.snapshot()

    def change_account(self, account: str, verb: Literal["enable", "disable", "reset"], why: str) -> None:
        """Take an account out, back, or let it begin afresh. Raises KeyError."""
        if verb == "reset":
            self._book.reset(account)
        else:
            self._book.set_state(account, "disabled" if verb == "disable" else "available", why)

    def explain(self, ask: Ask) -> Route:
        """What would serve a request."""
        needs = Needs(context_tokens=ask.tokens)
        return self._gateway.parts.routes.plan(ask.model, tag=ask.tag, task=ask.task, needs=needs)

    def _settlement(self, store: SqliteStore, money: MoneyControls) -> Settlement:
        return Settlement(store, money.budgets, money.leases, self._paid_providers)

    def _paid_providers(self) -> list[str]:
        specs = provider_specs(self.settings)
        used = {account.provider for account in self.settings.accounts.values()}
        return sorted(name for name in used if name not in specs or not specs[name].is_free)

    def _plan_quote(self, ask: QuoteAsk) -> Route:
        return self.explain(Ask(model=ask.model, tag=ask.tag, task=ask.task, tokens=ask.input_tokens))

    def readiness(self) -> Readiness:
        """Whether a call could be served now."""
        views = self.accounts()
        available = sum(1 for view in views if view.status is AccountStatus.AVAILABLE)
        problems = [f"{view.id}: {view.status} {view.why}".rstrip() for view in views if view.status != "available"]
        stopped = self.switches.over(EVERYTHING) if self.switches is not None else None
        if stopped is not None:
            problems.insert(0, f"everything is stopped by {stopped.by}: {stopped.why}")
        is_ready = available > 0 and stopped is None
        return Readiness(ready=is_ready, accounts_available=available, accounts=len(views), problems=tuple(problems))

    def status(self) -> Status:
        """The gateway at a glance."""
        server = self._server
        return Status(
            version=__version__,
            address=self.address,
            started_at=self.started_at,
            uptime_s=round((self.clock.now() - self.started_at).total_seconds(), 1),
            is_simulated=self.settings.is_simulated,
            config=str(self.loaded.path) if self.loaded.path else None,
            config_hash=self.loaded.source_hash,
            reloaded_at=self._reloaded_at,
            last_reload_error=self._reload_error,
            calls_in_flight=self._gateway.in_flight,
            calls_served=self._gateway.served,
            calls_waiting=self._book.waiting,
            connections=len(server.connections) if server is not None else 0,
            memory_mb=round(_resident_bytes() / 1e6, 1),
            record=self._record_health(),
            alerts=msgspec.to_builtins(self._alerts.health()) if self._alerts is not None else {},
            notes=tuple(f"{note.account}: {note.what}" for note in self.notes),
        )

    def _record_health(self) -> dict[str, Any]:
        if self._store is None or self._log is None:
            return {}
        counts = {"lost": self._log.lost, "bodies_lost": self._log.bodies_lost, "waiting": self._log.waiting}
        return {**msgspec.to_builtins(self._store.health), **counts}

    async def reload(self) -> list[str]:
        """Read the file again and take it; an invalid one changes nothing (Q-PROXY-12). Raises ConfigError."""
        try:
            changes = await self._take(_overridden(load(self.loaded.path, self._environ), self._overrides))
        except ConfigError as error:
            self._reload_error = error.message
            log.error("the new settings are refused and the running ones stay: %s", error.message)
            raise
        self._reload_error = None
        for change in changes:
            log.info("setting changed: %s", change)
        return [str(change) for change in changes]

    async def _take(self, loaded: Loaded) -> list[SettingChange]:
        changes = diff(self.settings, loaded.settings)
        settings = loaded.settings
        if self._authority is not None:
            check_exposure(settings, has_stored_keys=bool(self._authority.keys.keys))
        if settings.is_simulated and SIMULATED not in self._simulated_specs():
            self.sim = await start_simulated(settings, loaded.base)
        accounts = self._resolve(loaded)
        routes = route_table(settings, self._simulated_specs())
        alerts = alert_policy(loaded, self._environ)
        self._book.reconfigure(
            pool_specs(settings),
            account_specs(settings, accounts, self._share),
            tag_limits=tag_limits(settings, self._share),
        )
        # Nothing below can fail: from here on the new settings hold.
        self._limits.reconfigure(limit_specs(settings, self._share), most_waiting=settings.gateway.queue.max_waiting)
        self._directory.replace(accounts.values())
        self._gateway.parts.routes = routes
        self._gateway.parts.settings = gateway_settings(settings)
        if self._alerts is not None:
            self._alerts.configure(alerts)
            self._alerts.settle(self._book.snapshot())
        if self._watching is not None:
            self._watching.configure(watch_spec(settings))
        if self._money is not None:
            self._money.budgets.reconfigure(budget_specs(settings))
        if self._authority is not None:
            self._authority.configure(settings)
        self._doors.settings = _door_settings(settings)
        self.loaded = loaded
        self._reloaded_at = self.clock.now()
        return changes

    async def _end_owner(self, owners: Owners) -> None:
        try:
            await owners.end(self.owner, "in order")
        except StoreError as error:
            log.warning("that this process ends in order cannot be written down: %s", error)

    async def watch(self) -> None:
        """Take the settings file whenever it changes, until cancelled. A look is one ``stat`` a second."""
        watcher = ReloadWatcher(self.loaded.source_hash)
        while (path := self.loaded.path) is not None:
            await asyncio.sleep(_WATCH_S)
            try:
                if watcher.observe(_stamp(path), path.read_bytes) is not None:
                    await self.reload()
            except ConfigError:
                continue  # said by reload; the running settings stay
            except OSError as error:
                log.warning("the settings file cannot be read, the running settings stay: %s", error)

    def reload_soon(self, why: str) -> None:
        """Reload from a signal handler."""
        log.info("reloading: %s", why)
        task = asyncio.ensure_future(self.reload())
        task.add_done_callback(lambda done: done.exception())  # said by reload

    async def _stop_telling(self) -> None:
        if self._watching is not None:
            await self._watching.close()
        if self._alerts is not None:
            await self._alerts.close()

    async def close(self, grace_s: float = 10.0) -> None:
        """Stop accepting, let answers in flight end for ``grace_s`` seconds, and leave everything in order."""
        if self._server is not None:
            await self._server.close(grace_s)
        await self._stop_telling()
        self._client.close()
        for part in (self._log, self._states, self._news, self._authority, self.switches, self._money):
            ending = part.close() if part is not None else None
            if ending is not None:
                await ending
        if self._owners is not None and self._is_alone:
            await self._end_owner(self._owners)
        for last in (self._store, self.sim):
            if last is not None:
                await last.close()


async def start(
    loaded: Loaded,
    environ: Mapping[str, str],
    data: Path,
    overrides: Mapping[str, Any] | None = None,
    member: Membership | None = None,
) -> Running:
    """Start a gateway; ``overrides`` (of ``[gateway]``, from the command line) outlast reloads.

    With ``member`` it is one of several processes.

    Raises:
        ConfigError: the settings cannot be used.
        OSError: the port is taken.
    """
    running = Running(loaded, environ, SystemClock(), overrides or {}, member)
    try:
        await running.open(data)
    except BaseException:
        await running.close(0)
        raise
    return running


def _overridden(loaded: Loaded, overrides: Mapping[str, Any]) -> Loaded:
    if not overrides:
        return loaded
    gateway = loaded.settings.gateway.model_copy(update=dict(overrides))
    return msgspec.structs.replace(loaded, settings=loaded.settings.model_copy(update={"gateway": gateway}))


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _resident_bytes() -> int:
    """Resident memory of this process; its peak where the system does not tell (macOS)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def start_simulated(settings: Settings, base: Path) -> RunningSim:
    scenario = settings.sim.scenario
    return await start_sim(load_scenario(base / scenario) if scenario else None)


def _door_settings(settings: Settings) -> DoorSettings:
    gateway = settings.gateway
    return DoorSettings(total_s=gateway.deadlines.total_s, max_body_bytes=gateway.max_body_mb << 20)


def _cache(settings: Settings, clock: SystemClock) -> ResponseCache:
    cache = settings.cache
    return ResponseCache(clock, is_enabled=cache.enabled, ttl_s=cache.ttl_s, max_bytes=cache.max_mb << 20)
