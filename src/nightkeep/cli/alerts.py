"""``nightkeep alerts``: what people were told, what nobody has seen yet, and whether the channels work."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import click

from nightkeep.cli.api_client import NoGatewayError, call_api, url_option
from nightkeep.cli.tables import print_table, styled
from nightkeep.config_places import data_dir

__all__ = ["command"]

_EXIT_FAILED: Final = 1
_EXIT_NOTHING: Final = 4
_COLOURS: Final = {"critical": "red", "warning": "yellow", "info": "blue"}
_STATES: Final = ("unresolved", "open", "acked", "resolved", "all")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_DATA = click.option("--data", "data_option", metavar="DIR", help="The data directory, where no gateway runs.")
_WIDTH: Final = 100


@click.group("alerts")
def command() -> None:
    """List, show, acknowledge alerts, and test the channels they go to."""


@command.command("list")
@click.option("--state", type=click.Choice(_STATES), default="unresolved", show_default=True, help="Which alerts.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=50, show_default=True, help="At most so many.")
@url_option()
@_DATA
@_JSON
def list_alerts(state: str, limit: int, url: str, data_option: str | None, as_json: bool) -> None:
    """List alerts, newest first, and say how the channels do. Without a gateway the data directory is read."""
    answer = _from(
        lambda: call_api(url, "GET", f"/api/alerts?state={state}&limit={limit}", data=data_option),
        lambda: _read(data_option, state, limit),
    )
    if as_json:
        _print_json(answer)
        return
    _print_alerts(answer["alerts"])
    if not answer["alerts"]:
        click.echo("no alerts" if state == "all" else f"no alerts are {state}")
    _print_health(answer["health"])


@command.command("show")
@click.argument("alert", metavar="ID")
@url_option()
@_DATA
@_JSON
def show(alert: str, url: str, data_option: str | None, as_json: bool) -> None:
    """Show one alert whole: its text, who has seen it, and what each channel did with it."""
    path = f"/api/alerts/{quote(alert, safe='')}"
    found = _from(lambda: call_api(url, "GET", path, data=data_option), lambda: _read_one(data_option, alert))
    if as_json:
        _print_json(found)
        return
    level = styled(found["level"], _COLOURS.get(found["level"]), bold=True)
    click.echo(f"{level}\n{click.wrap_text(found['text'], _WIDTH, '  ', '  ')}\n")
    for name, text in _facts(found):
        if text:
            click.echo(f"  {name:<10} {text}")


def _facts(alert: dict[str, Any]) -> list[tuple[str, str]]:
    seen = ""
    if alert.get("acked_at"):
        why = f": {alert['acked_why']}" if alert.get("acked_why") else ""
        seen = f"{_moment(alert['acked_at'])} by {alert['acked_by']}{why}"
    told = ", ".join(f"{name} {what}" for name, what in alert.get("deliveries", {}).items())
    return [
        ("state", alert["state"]),
        ("kind", alert["kind"]),
        ("about", alert.get("about") or ""),
        ("scope", alert.get("scope") or ""),
        ("since", _moment(alert["first_at"])),
        ("last", f"{_moment(alert['last_at'])} ({_times(alert)})"),
        ("resets", _moment(alert.get("resets_at"))),
        ("seen", seen),
        ("ended", _moment(alert.get("resolved_at"))),
        ("told", told or "nobody but the log"),
        ("key", alert["key"]),
    ]


@command.command("ack")
@click.argument("alert", metavar="ID")
@click.option("--why", default="", help="Kept with the alert.")
@url_option()
@_DATA
@_JSON
def ack(alert: str, why: str, url: str, data_option: str | None, as_json: bool) -> None:
    """Say that an alert was seen: it is counted on, and told again only if it becomes worse."""
    found = call_api(url, "POST", f"/api/alerts/{quote(alert, safe='')}/ack", {"why": why}, data=data_option)
    if as_json:
        _print_json(found)
    else:
        click.echo(f"{alert} is acknowledged; it is told again only if it becomes worse")


@command.command("test")
@click.argument("channel", required=False)
@url_option()
@_DATA
@_JSON
def test(channel: str | None, url: str, data_option: str | None, as_json: bool) -> None:
    """Send a test message through one CHANNEL, or through all. Exit code 1: one of them failed."""
    answer = call_api(url, "POST", "/api/alerts/test", {"channel": channel}, data=data_option)
    results = answer["results"]
    if as_json:
        _print_json(answer)
    elif not results:
        click.echo("there are no channels: alerts go to the log only; see [notify] in the settings", err=True)
    else:
        rows = [
            (
                each["channel"],
                styled("ok", "green") if each["ok"] else styled("failed", "red"),
                f"{each['took_ms']:.0f} ms",
                each["error"],
            )
            for each in results
        ]
        print_table(("CHANNEL", "RESULT", "TOOK", "ERROR"), rows)
    if not results:
        raise SystemExit(_EXIT_NOTHING)
    if not all(each["ok"] for each in results):
        raise SystemExit(_EXIT_FAILED)


# -- where it comes from


def _from(online: Callable[[], Any], offline: Callable[[], Any]) -> Any:
    """From the gateway; where none runs, from the data directory, if there is a database."""
    try:
        return online()
    except NoGatewayError:
        answer = offline()
        if answer is None:
            raise
        return answer


def _read(data: str | None, state: str, limit: int) -> dict[str, Any] | None:
    from nightkeep.ops import alert_rows

    if state == "all":
        found = _select(data, alert_rows.SELECT, (limit,))
    elif state == "unresolved":
        found = _select(data, alert_rows.SELECT_OPEN, ())
        found = found[::-1][:limit] if found is not None else None
    else:
        found = _select(data, alert_rows.SELECT_STATE, (state, limit))
    return None if found is None else {"alerts": found, "health": None}


def _read_one(data: str | None, alert: str) -> dict[str, Any] | None:
    from nightkeep.ops import alert_rows

    found = _select(data, alert_rows.SELECT_ID, (alert,))
    return found[0] if found else None


def _select(data: str | None, sql: str, parameters: tuple[Any, ...]) -> list[dict[str, Any]] | None:
    """Alerts of a data directory; None where there is no database."""
    import msgspec

    from nightkeep.ops.alert_rows import episode_of
    from nightkeep.ops.alerts import alert_view
    from nightkeep.store.sqlite import open_snapshot

    snapshot = open_snapshot(data_dir(os.environ, data))
    if snapshot is None:
        return None
    try:
        return [msgspec.to_builtins(alert_view(episode_of(row))) for row in snapshot.read(sql, parameters)]
    finally:
        snapshot.close()


# -- words


def _print_alerts(alerts: list[dict[str, Any]]) -> None:
    """A line of facts for each, and its sentence below."""
    for alert in alerts:
        level = styled(f"{alert['level']:<8}", _COLOURS.get(alert["level"]), bold=True)
        state = "" if alert["state"] == "open" else f"  {alert['state']}"
        facts = styled(f"{_moment(alert['first_at'])}  {_times(alert)}{state}  {alert['id']}", "bright_black")
        click.echo(f"{level}  {facts}")
        click.echo(click.wrap_text(alert["text"], _WIDTH, "  ", "  "))


def _times(alert: dict[str, Any]) -> str:
    return "once" if alert["count"] == 1 else f"{alert['count']} times"


def _print_health(health: dict[str, Any] | None) -> None:
    if health is None:
        click.echo("\nno gateway answers: this is what the data directory holds", err=True)
        return
    channels = health["channels"]
    if not health["is_teller"]:
        click.echo("\nanother worker tells people; ask again for how its channels do", err=True)
    elif channels:
        click.echo()
        print_table(("CHANNEL", "STATE", "SENT", "FAILED", "HELD", "LAST ERROR"), [_channel(each) for each in channels])
    else:
        click.echo("\nno channels: alerts go to the log only; see [notify] in the settings", err=True)
    beat = health.get("heartbeat")
    if beat is not None:
        why = f" ({beat['why']})" if beat["why"] else ""
        click.echo(f"\ndead man's switch: {beat['state']}{why}, every {beat['every_s']:.0f} s")


def _channel(view: dict[str, Any]) -> tuple[str, ...]:
    state = styled(view["state"], {"ok": "green", "failing": "red"}.get(view["state"]))
    error = view["last_error"] if view["state"] == "failing" else ""
    return view["name"], state, str(view["sent"]), str(view["failed"]), str(view["held"]), error


def _moment(at: Any) -> str:
    return datetime.fromisoformat(str(at)).strftime("%Y-%m-%d %H:%M:%S") if at else ""


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))
