"""``nightkeep spend`` and ``nightkeep ledger check`` over a ledger on disk: what people and programs see."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import random
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from nightkeep.cli import ledger, spend
from nightkeep.cli.spend_words import amount, count
from nightkeep.core.clock import new_id
from nightkeep.core.messages import Usage
from nightkeep.core.money import MicroUsd
from nightkeep.models.call_record import AttemptRecord, CallRecord
from nightkeep.models.calls import CallLog, RecordPolicy
from nightkeep.models.sessions import Sessions
from nightkeep.store import SqliteStore
from nightkeep.testing.clock import FakeClock

CHANCE = random.Random(8)
NOW = datetime.now(UTC)


def make(ago: timedelta, cost: int | None, *, basis: str = "usage", sent: bool = True, **more: Any) -> CallRecord:
    at = NOW - ago
    usage = None if basis == "open" else Usage(input=1_000, cache_read=3_000, output=200)
    attempt = AttemptRecord(
        n=1, provider="lab", account="lab-1", model="big", wire="openai_chat", started_at=at, outcome="success",
        usage=usage, cost=None if cost is None else MicroUsd(cost), basis=basis, reserved=MicroUsd(4_000),  # type: ignore[arg-type]
        uncached=None if cost is None else MicroUsd(cost * 2),
    )  # fmt: skip
    known: dict[str, Any] = {
        "id": new_id("call", at, CHANCE), "scope": "acme/triage/run_1", "tag": None, "task": None, "key": "team",
        "wire": "openai_chat", "door": "/v1/chat/completions", "operation": "chat", "asked": "smart", "alias": "smart",
        "is_stream": False, "started_at": at, "outcome": "success", "attempts": [attempt] if sent else [],
        "cost": attempt.cost or (attempt.reserved if basis == "open" else None), "run": "run_1",
        "request_body": b"question",
    }  # fmt: skip
    return CallRecord(**{**known, **more})


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    store = SqliteStore.open(tmp_path, FakeClock(), pid=os.getpid())
    log = CallLog(store, RecordPolicy(bodies="none"), Sessions(1, CHANCE), FakeClock(), CHANCE)
    hour = timedelta(hours=1)
    calls = (
        make(hour, 1_500_000),
        make(hour, 500_000, scope="globex/review", tag="batch", run="run_2"),
        make(2 * hour, None, basis="open", scope="acme/deploy", outcome="timed_out"),
        make(3 * hour, None, scope="=cmd|calc", run=None),
        make(72 * hour, 7, scope="acme/triage/run_0", run="run_0"),
        make(hour / 2, 0, sent=False, cache="hit", run="run_1"),
    )
    for call in calls:
        log.begin(call)
        log.finish(call)
    log.close()
    await store.close()
    return tmp_path


def run(directory: Path, *arguments: str, command: Any = spend.command) -> Result:
    return CliRunner().invoke(command, [*arguments, "--data", str(directory)])


def test_with_no_ledger_it_says_how_to_spend_something(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.exit_code == 4
    assert "curl http://127.0.0.1:7777" in result.stderr
    assert run(tmp_path, "ablation").exit_code == 4
    assert run(tmp_path, "check", command=ledger.command).exit_code == 4


def test_a_page_has_the_total_the_parts_and_what_there_is_to_know(directory: Path) -> None:
    result = run(directory, "--project")
    assert result.exit_code == 0, result.output
    page = result.stdout
    assert page.strip().startswith("$2.004007  spent since ")
    assert "acme/triage/run_1" in page
    assert "estimated $0.004000 of it: 1 request whose bill is not known" in page
    assert "unpriced  1 request of models without a price count as $0" in page
    assert "saved     $2.000007 by the providers' prompt caches" in page
    assert "100×" in page
    assert max(len(line) for line in page.splitlines()) <= 100
    costs = [line.split("$")[1].split()[0] for line in page.splitlines() if "%" in line and "$" in line]
    assert costs[-1] == "2.004007"
    assert sum(round(float(cost) * 1e6) for cost in costs[:-1]) == 2_004_007


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("--by", "scope", "--depth", "1"), {"acme": 1_504_007, "globex": 500_000, "=cmd|calc": 0}),
        (("--by", "tag"), {"": 1_504_007, "batch": 500_000}),
        (("--by", "model"), {"lab/big": 2_004_007}),
        (("--by", "scope", "--scope", "acme/triage", "--since", "24h"), {"acme/triage/run_1": 1_500_000}),
        (("--by", "run", "--since", "24h"), {"run_1": 1_504_000, "run_2": 500_000, "": 0}),
    ],
)
def test_it_is_cut_as_asked(directory: Path, arguments: tuple[str, ...], names: dict[str, int]) -> None:
    found = json.loads(run(directory, *arguments, "--json").stdout)
    assert {group["name"]: group["spend"]["cost_micro_usd"] for group in found["groups"]} == names
    assert found["total"]["cost_micro_usd"] == sum(names.values())


def test_the_lines_of_a_csv_add_up_and_none_is_a_formula(directory: Path, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run(directory, "--csv", "-").stdout)))
    assert sum(int(row["cost_micro_usd"]) for row in rows) == 2_004_007
    assert "'=cmd|calc" in {row["scope"] for row in rows}
    target = tmp_path / "out.csv"
    assert run(directory, "--csv", str(target)).exit_code == 0
    assert list(csv.DictReader(io.StringIO(target.read_text()))) == rows
    assert "cannot be written" in run(directory, "--csv", str(tmp_path / "no" / "out.csv")).stderr


def test_names_from_clients_do_not_steer_the_terminal(directory: Path) -> None:
    with sqlite3.connect(directory / "nightkeep.db") as database:
        database.execute("UPDATE ledger SET agent = 'evil\x1b[2J\x07' || substr(agent, 1, 0)")
    page = run(directory, "--by", "agent").stdout
    assert "evil�[2J�" in page
    assert "\x1b[2J" not in page


def test_days_have_no_gaps(directory: Path) -> None:
    found = json.loads(run(directory, "--by", "day", "--json").stdout)["groups"]
    days = [datetime.fromisoformat(group["name"]) for group in found]
    assert len(days) in (3, 4)
    assert all(after - before == timedelta(days=1) for before, after in itertools.pairwise(days))
    assert sum(group["spend"]["cost_micro_usd"] for group in found) == 2_004_007


def test_nothing_in_that_time_is_said_so(directory: Path) -> None:
    result = run(directory, "--until", "2001-01-01")
    assert result.exit_code == 4
    assert "nothing was spent in that time" in result.stderr


@pytest.mark.parametrize(
    "arguments", [("--since", "soon"), ("--zone", "Mars/Base"), ("--scope", "a//b"), ("--zone", "../x")]
)
def test_what_cannot_be_meant_is_refused(directory: Path, arguments: tuple[str, ...]) -> None:
    result = run(directory, *arguments)
    assert result.exit_code == 1
    assert type(result.exception).__name__ == "RequestError"


def test_the_ablation_says_what_each_way_to_save_has_saved(directory: Path) -> None:
    found = json.loads(run(directory, "ablation", "--json").stdout)
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert (layers["provider_cache"]["saved_micro_usd"], layers["provider_cache"]["requests"]) == (2_000_007, 3)
    assert layers["exact_cache"]["requests"] == 1
    assert layers["routing"]["unknown"] == 5
    assert found["without_micro_usd"] == found["cost_micro_usd"] + sum(
        layer["saved_micro_usd"] for layer in found["layers"]
    )
    page = run(directory, "ablation").stdout
    assert "the providers' own prompt caches" in page
    assert max(len(line) for line in page.splitlines()) <= 100


# -- ledger check

BREAKS = {
    "no_negative_classes": "UPDATE ledger SET output_tokens = -1 WHERE basis = 'open'",
    "known_words": "UPDATE ledger SET basis = 'guess' WHERE basis = 'open'",
    "estimates_are_marked": "UPDATE ledger SET is_estimate = 0 WHERE basis = 'open'",
    "unpriced_and_free_cost_nothing": "UPDATE ledger SET cost_micro_usd = 5 WHERE basis = 'unpriced'",
    "named_after_its_attempt": "UPDATE ledger SET n = 2 WHERE basis = 'open'",
    "no_duplicates": "INSERT INTO ledger SELECT 'again', {rest} FROM ledger WHERE basis = 'open'",
    "adjustments_refer": "UPDATE ledger SET kind = 'adjustment', basis = 'bill', adjusts = 'x' WHERE basis = 'open'",
    "booked_as_reconciled": "UPDATE ledger SET kind = 'adjustment', basis = 'bill' WHERE basis = 'open'",
    "calls_agree": "UPDATE ledger SET cost_micro_usd = cost_micro_usd + 1 WHERE basis = 'usage'",
    "calls_are_booked": "DELETE FROM ledger WHERE cost_micro_usd = 500000",
    "runs_agree": "UPDATE runs SET cost_micro_usd = 1, calls = (SELECT count(*) FROM calls WHERE run_id = runs.id)",
    "settled_once": "UPDATE ledger SET is_unpriced = 2 WHERE basis = 'unpriced'",
    "no_negative_requests": "UPDATE ledger SET cost_micro_usd = -5 WHERE basis = 'usage' AND cost_micro_usd = 7",
}


def test_a_sound_ledger_is_said_to_be_sound(directory: Path) -> None:
    result = run(directory, "check", command=ledger.command)
    assert result.exit_code == 0, result.output
    assert "✗" not in result.stdout
    assert "5 rows" in result.stdout


def test_a_call_that_a_crash_interrupted_is_not_missed_until_it_is_reconciled(directory: Path) -> None:
    with sqlite3.connect(directory / "nightkeep.db") as database:
        database.execute("UPDATE calls SET outcome = 'interrupted' WHERE cost_micro_usd = 500000")
        database.execute("DELETE FROM ledger WHERE cost_micro_usd = 500000")
    assert run(directory, "check", command=ledger.command).exit_code == 0


@pytest.mark.parametrize("rule", BREAKS)
def test_what_breaks_a_rule_is_named(directory: Path, rule: str) -> None:
    with sqlite3.connect(directory / "nightkeep.db") as database:
        rest = [row[1] for row in database.execute("PRAGMA table_info(ledger)")][1:]
        if rule == "runs_agree":
            database.execute("INSERT INTO runs VALUES ('run_1', 'acme', 'header', 's', 'a', 0, 0, 0, 0, 0, 0, 0)")
        database.execute(BREAKS[rule].format(rest=", ".join(rest)))
    result = run(directory, "check", "--json", command=ledger.command)
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["rules"][rule] > 0
    assert rule in {violation["rule"] for violation in found["violations"]}
    page = run(directory, "check", command=ledger.command)
    assert "✗" in page.stdout


# -- words


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1_000, "1.00k"),
        (41_234, "41.2k"),
        (999_499, "999k"),
        (999_500, "1.00M"),
        (10**10, "10.0G"),
    ],
)
def test_counts_have_three_figures(number: int, text: str) -> None:
    assert count(number) == text


def test_money_is_exact() -> None:
    assert click.unstyle(amount(-1_234_567_890)) == "-$1,234.567890"
