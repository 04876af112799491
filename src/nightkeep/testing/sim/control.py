"""``/sim/…``: look at what the simulated provider got and billed, and change its scenario while it runs."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import parse_qs

import msgspec

from nightkeep.core.errors import ConfigError
from nightkeep.server.http import Exchange
from nightkeep.testing.sim.faults import FAULTS
from nightkeep.testing.sim.loading import parse_scenario
from nightkeep.testing.sim.records import Records
from nightkeep.testing.sim.scenario import Scenario
from nightkeep.testing.sim.section import Section

__all__ = ["Controlled", "answer_control"]

_MARK = ("x-nightkeep-simulated", "1")


class Controlled(Protocol):
    """What the control doors need of the server."""

    scenario: Scenario
    sections: dict[str, Section]
    book: Records

    def use(self, scenario: Scenario) -> None:
        """Begin anew with this scenario."""
        ...


def answer_control(sim: Controlled, exchange: Exchange) -> None:
    """Answer one request to ``/``, ``/health`` or ``/sim/…``."""
    request = exchange.request
    query = parse_qs(request.query)
    match request.method, request.target:
        case "GET" | "HEAD", "/" | "/health":
            said = {"simulated": True, "service": "nightkeep sim", "scenario": sim.scenario.name}
            _json(exchange, said)
        case "GET", "/sim/requests":
            since = int(query.get("since", ["0"])[0])
            with_body = query.get("bodies", ["0"])[0] not in ("0", "false")
            rows = [record.shown(with_body=with_body) for record in sim.book.last if record.number > since]
            _json(exchange, {"simulated": True, "requests": rows})
        case "GET", "/sim/stats":
            _json(exchange, {**sim.book.stats(), "accounts": _accounts(sim)})
        case "GET", "/sim/usage":
            _usage(sim, exchange, query)
        case "GET", "/sim/usage/requests":
            _billed(sim, exchange, query)
        case "GET", "/sim/faults":
            _json(exchange, FAULTS)
        case "GET", "/sim/scenario":
            _json(exchange, msgspec.to_builtins(sim.scenario))
        case "PUT", "/sim/scenario":
            _change(sim, exchange)
        case "POST", "/sim/reset":
            sim.use(sim.scenario)
            _json(exchange, {"simulated": True, "reset": True})
        case _:
            _json(exchange, {"error": f"there is no {request.method} {request.target}"}, 404)


def _accounts(sim: Controlled) -> list[dict[str, str | int]]:
    return [{"provider": name, **row} for name, section in sim.sections.items() for row in section.accounts.states()]


def _wants_csv(exchange: Exchange, query: dict[str, list[str]]) -> bool:
    return query.get("format", [""])[0] == "csv" or "text/csv" in exchange.request.headers.get("accept", "")


def _billed(sim: Controlled, exchange: Exchange, query: dict[str, list[str]]) -> None:
    """The bill request by request; ``since`` is a time, in seconds since 1970."""
    try:
        since = float(query.get("since", ["0"])[0])
    except ValueError:
        _json(exchange, {"error": "since: seconds since 1970"}, 400)
        return
    provider = query["provider"][0] if "provider" in query else None
    if _wants_csv(exchange, query):
        body = sim.book.billed_csv(since, provider).encode()
        exchange.respond(200, [("content-type", "text/csv; charset=utf-8"), _MARK], body)
        return
    _json(exchange, {"simulated": True, "requests": list(sim.book.billed_requests(since, provider))})


def _usage(sim: Controlled, exchange: Exchange, query: dict[str, list[str]]) -> None:
    if _wants_csv(exchange, query):
        exchange.respond(200, [("content-type", "text/csv; charset=utf-8"), _MARK], sim.book.usage_csv().encode())
        return
    _json(exchange, {"simulated": True, "usage": sim.book.usage()})


def _change(sim: Controlled, exchange: Exchange) -> None:
    """Take a scenario as TOML, or as JSON where the content type says so."""
    body = exchange.request.body
    try:
        if "json" in exchange.request.headers.get("content-type", ""):
            scenario = msgspec.json.decode(body, type=Scenario)
        else:
            scenario = parse_scenario(body.decode("utf-8", "replace"), source="PUT /sim/scenario")
    except (ConfigError, msgspec.ValidationError, msgspec.DecodeError) as error:
        _json(exchange, {"error": str(error)}, 400)
        return
    sim.use(scenario)
    _json(exchange, {"simulated": True, "scenario": scenario.name})


def _json(exchange: Exchange, value: object, status: int = 200) -> None:
    exchange.respond(status, [("content-type", "application/json"), _MARK], msgspec.json.encode(value))
