"""Alerts at the API: what people were told, what they have seen, and whether the channels work."""

from __future__ import annotations

from typing import Literal

import msgspec

from nightkeep.ops.alerts import AlertHealth, Alerts, AlertView, TestResult
from nightkeep.server.api import NotFoundError, Route

__all__ = ["AlertList", "alert_routes"]

_MOST = 1_000


class AlertQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which alerts are asked for."""

    state: Literal["unresolved", "open", "acked", "resolved", "all"] = "unresolved"
    limit: int = 100


class AlertList(msgspec.Struct, frozen=True, kw_only=True):
    """Alerts, newest first, and how telling people goes."""

    alerts: list[AlertView]
    health: AlertHealth


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """Why nobody needs to look at it now."""

    why: str = ""


class TestOf(msgspec.Struct, frozen=True, kw_only=True):
    """The channel to test; none: all."""

    channel: str | None = None


class Tests(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the test messages."""

    results: list[TestResult]


def alert_routes(alerts: Alerts) -> list[Route]:
    """The operations on alerts."""
    api = _Endpoints(alerts)
    return [
        Route(method="GET", path="/api/alerts", summary="What people were told, or should have been",
              handler=api.list_alerts, gives=AlertList, query=AlertQuery),
        Route(method="GET", path="/api/alerts/{alert}", summary="One alert", handler=api.show_alert, gives=AlertView),
        Route(method="POST", path="/api/alerts/{alert}/ack", summary="Say that an alert was seen",
              handler=api.acknowledge_alert, gives=AlertView, takes=Acknowledgement),
        Route(method="POST", path="/api/alerts/test", summary="Send a test message", handler=api.test_alerts,
              gives=Tests, takes=TestOf),
    ]  # fmt: skip


class _Endpoints:
    """The operations, one method each."""

    def __init__(self, alerts: Alerts) -> None:
        self._alerts = alerts

    async def list_alerts(self, query: AlertQuery) -> AlertList:
        found = await self._alerts.find(query.state, min(max(query.limit, 1), _MOST))
        return AlertList(alerts=found, health=self._alerts.health())

    async def show_alert(self, alert: str) -> AlertView:
        found = await self._alerts.show(alert)
        if found is None:
            raise _no_alert(alert)
        return found

    async def acknowledge_alert(self, alert: str, body: Acknowledgement) -> AlertView:
        found = await self._alerts.acknowledge(alert, "operator", body.why)
        if found is None:
            raise _no_alert(alert)
        return found

    async def test_alerts(self, body: TestOf) -> Tests:
        try:
            return Tests(results=await self._alerts.test(body.channel))
        except KeyError:
            names = ", ".join(self._alerts.channels) or "none; see [notify] in the settings"
            raise NotFoundError(f"there is no alert channel {str(body.channel)[:80]!r}; there are: {names}") from None


def _no_alert(alert: str) -> NotFoundError:
    return NotFoundError(f"there is no alert {alert[:80]!r}; GET /api/alerts?state=all lists them")
