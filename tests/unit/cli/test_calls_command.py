"""``nightkeep calls`` over a record on disk: what people and programs see."""

from __future__ import annotations

import json
import os
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nightkeep.cli.call_words import money, span
from nightkeep.cli.calls import command
from nightkeep.core.clock import new_id
from nightkeep.core.messages import Usage
from nightkeep.core.money import MicroUsd
from nightkeep.models.call_record import AttemptRecord, CallRecord
from nightkeep.models.calls import CallLog, RecordPolicy
from nightkeep.models.sessions import Sessions
from nightkeep.models.wire.base import Stripped
from nightkeep.store import SqliteStore
from nightkeep.testing.clock import FakeClock

CHANCE = random.Random(3)
NOW = datetime.now(UTC)


def attempt(n: int, account: str, outcome: str, **more: Any) -> AttemptRecord:
    return AttemptRecord(
        n=n, provider="lab", account=account, model="big", wire="openai_chat",
        started_at=NOW + timedelta(seconds=n - 1), outcome=outcome, **more,
    )  # fmt: skip


def make(at: datetime, outcome: str, **more: Any) -> CallRecord:
    known: dict[str, Any] = {
        "id": new_id("call", at, CHANCE), "scope": "acme/triage", "tag": None, "task": None, "key": "team",
        "wire": "openai_chat", "door": "/v1/chat/completions", "operation": "chat", "asked": "smart",
        "is_stream": False, "started_at": at, "outcome": outcome, "request_body": b'{"a":1}', "bytes_out": 7,
    }  # fmt: skip
    return CallRecord(**{**known, **more})


GOOD = make(
    NOW, "success", provider="lab", account="lab-2", served="big", status=200, duration_ms=1_840.0,
    usage=Usage(input=1_000, cache_read=200, output=80), cost=MicroUsd(12_300), run="run_1", tag="batch",
    agent="claude-cli/2.1", alias="smart", rule="alias", degraded="failover from lab/small",
    stripped=(Stripped("seed", "no such parameter"),), response_body=b"fine",
    attempts=[
        attempt(1, "lab-1", "rate_limited", status=429, message="slow down", retry_after_s=20.0, duration_ms=120.0),
        attempt(2, "lab-2", "success", status=200, first_byte_ms=300.0, duration_ms=840.0, usage=Usage(input=1_200)),
    ],
)  # fmt: skip
BAD = make(
    NOW - timedelta(minutes=5), "pool_exhausted", error_code="pool_exhausted", error_message="all gone", status=429
)
OLD = make(NOW - timedelta(days=3), "success", cost=None, scope="other", provider="lab", account="lab-1", served="big")


@pytest.fixture
async def record(tmp_path: Path) -> Path:
    store = SqliteStore.open(tmp_path, FakeClock(), pid=os.getpid())
    log = CallLog(store, RecordPolicy(bodies="all"), Sessions(1, CHANCE), FakeClock(), CHANCE)
    for call in (OLD, BAD, GOOD):
        log.begin(call)
        log.finish(call)
    log.close()
    await store.close()
    return tmp_path


def run(directory: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, [*arguments, "--data", str(directory)])


def test_with_no_record_it_says_how_to_make_the_first_call(tmp_path: Path) -> None:
    result = run(tmp_path, "list")
    assert result.exit_code == 4
    assert "curl http://127.0.0.1:7777" in result.stderr
    assert run(tmp_path, "list", "--json").stdout.strip() == "[]"


def test_the_list_is_newest_first_and_ends_with_what_it_comes_to(record: Path) -> None:
    result = run(record, "list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == ["acme/triage", "acme/triage", "other"]
    assert lines[-1] == "3 calls: 1 failed, 1,280 tokens, $0.0123, 1 unpriced"
    assert "1,200 → 80" in lines[1]
    assert "\x1b" not in result.stdout


def test_the_total_is_over_all_that_match_whatever_the_limit(record: Path) -> None:
    assert run(record, "list", "--limit", "1").stdout.splitlines()[-1].startswith("1 of 3 calls: 1 failed")


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--since", "1h"], 2),
        (["--since", "10d"], 3),
        (["--outcome", "failed"], 1),
        (["--scope", "acme"], 2),
        (["--tag", "batch"], 1),
        (["--run", "run_1"], 1),
        (["--account", "lab-1"], 1),
        (["--model", "big"], 2),
    ],
)
def test_the_list_is_narrowed_by_what_is_asked(record: Path, options: list[str], count: int) -> None:
    assert len(json.loads(run(record, "list", "--json", *options).stdout)) == count


def test_when_nothing_matches_it_says_so_and_not_that_there_is_nothing(record: Path) -> None:
    result = run(record, "list", "--tag", "nobody")
    assert result.exit_code == 4
    assert "no call matches" in result.stderr


@pytest.mark.parametrize("since", ["yesterday", "1y", "99999999w", "999999w"])
def test_a_time_that_is_none_is_a_usage_error(record: Path, since: str) -> None:
    result = run(record, "list", "--since", since)
    assert result.exit_code == 2
    assert "30m, 1h or 2d" in result.stderr


@pytest.mark.parametrize("name", [GOOD.id, GOOD.id[-10:], GOOD.id[:29]], ids=["whole", "end", "beginning"])
def test_one_call_is_told_as_a_story_by_its_id_or_a_part_of_it(record: Path, name: str) -> None:
    result = run(record, "show", name)
    assert result.exit_code == 0, result.stderr
    text = result.stdout
    for part in (
        "ok, after 1.84 s, $0.0123",
        "claude-cli/2.1",
        "failover from lab/small",
        "seed: no such parameter",
        "attempt 1  lab/big on lab-1",
        "was told to slow down · status 429",
        "may be asked again in 20.0 s",
        "“slow down”",
        "first byte after 300 ms",
        "the client was answered with status 200",
        "1,200 in (200 from cache), 80 out",
    ):
        assert part in text, part
    assert text.index("attempt 1") < text.index("attempt 2")


def test_a_call_that_was_refused_before_any_attempt_says_so(record: Path) -> None:
    text = run(record, "show", BAD.id).stdout
    assert "pool_exhausted: all gone" in text
    assert "no provider was asked" in text


def test_bodies_are_shown_when_asked_for(record: Path) -> None:
    assert "fine" not in run(record, "show", GOOD.id).stdout
    assert "fine" in run(record, "show", GOOD.id, "--bodies").stdout
    shown = json.loads(run(record, "show", GOOD.id, "--bodies", "--json").stdout)
    assert (shown["request_body"], shown["answer_body"]) == ('{"a":1}', "fine")
    assert [each["outcome"] for each in shown["attempts"]] == ["rate_limited", "success"]


@pytest.mark.parametrize(("name", "words"), [("nobody", "there is no call"), ("call_", "more than one")])
def test_a_name_that_fits_none_or_many_is_a_clear_refusal(record: Path, name: str, words: str) -> None:
    result = run(record, "show", name)
    assert result.exit_code == 4
    assert words in result.stderr


@pytest.mark.parametrize(
    ("ms", "text"),
    [(None, ""), (0.0, "0.0 ms"), (9.96, "10 ms"), (999.0, "999 ms"), (999.9, "1.00 s"), (9_994.0, "9.99 s"),
     (59_000.0, "59.0 s"), (125_000.0, "2 min 5 s"), (7_260_000.0, "2 h 1 min")],
)  # fmt: skip
def test_durations_are_written_in_the_unit_that_suits_them(ms: float | None, text: str) -> None:
    assert span(ms) == text


@pytest.mark.parametrize(
    ("micro", "text"),
    [(None, "unpriced"), (0, "$0.0000"), (1, "$0.000001"), (12_300, "$0.0123"), (5_000_000, "$5.0000")],
)
def test_money_is_written_with_the_places_that_matter(micro: int | None, text: str) -> None:
    assert money(micro) == text
