"""``nightkeep estimate`` and ``nightkeep prices`` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from nightkeep.cli.estimate import command as estimate
from nightkeep.cli.prices import command as prices

CONFIG = """
[providers.lab]
wire = "openai_chat"
base_url = "http://127.0.0.1:9/v1"
[accounts.lab-1]
provider = "lab"
key = "env:K"
[models.smart]
targets = ["lab/big"]
[prices."lab/big"]
input = 3.0
output = 15.0
"""
NOWHERE = ("--url", "http://127.0.0.1:9")


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "nightkeep.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def items(path: Path, count: int) -> str:
    lines = [
        json.dumps({"custom_id": str(n), "body": {"messages": [{"role": "user", "content": f"post {n}"}]}})
        for n in range(count)
    ]
    (path / "batch.jsonl").write_text("\n".join(lines) + "\n\n")
    return "batch.jsonl"


def batch(there: Path, *more: str) -> tuple[int, str]:
    arguments = ("batch", items(there, 300), "--model", "smart", "--data", str(there / "data"), *NOWHERE, *more)
    result = CliRunner().invoke(estimate, arguments)
    return result.exit_code, result.output


def test_a_cheap_batch_is_estimated_without_a_question(there: Path) -> None:
    code, output = batch(there, "--output-tokens", "50")
    assert code == 0
    assert "300 items, 200 weighed" in output
    assert "never calibrated" in output


def test_a_dear_one_does_not_start_by_itself(there: Path) -> None:
    code, output = batch(there, "--output-tokens", "4000")
    assert code == 1
    assert "Say so with --yes" in output
    assert batch(there, "--output-tokens", "4000", "--yes")[0] == 0
    assert batch(there, "--output-tokens", "4000", "--ask-above", "1000")[0] == 0


def test_json_says_all_of_it(there: Path) -> None:
    code, output = batch(there, "--output-tokens", "50", "--json")
    facts = json.loads(output)
    assert code == 0
    assert (facts["target"], facts["items"], facts["needs_confirmation"]) == ("lab/big", 300, False)
    assert facts["upper_usd"] > facts["likely_usd"] > 0


def test_a_line_that_is_no_json_is_named(there: Path) -> None:
    (there / "broken.jsonl").write_text('{"messages": []}\n{"messages": \n')
    result = CliRunner().invoke(estimate, ("batch", "broken.jsonl", "--model", "smart", "--data", "d", *NOWHERE))
    assert result.exit_code == 1
    assert "line 2 is no JSON" in result.output


def test_a_file_without_items_is_refused(there: Path) -> None:
    (there / "empty.txt").write_text("\n\n")
    result = CliRunner().invoke(estimate, ("batch", "empty.txt", "--model", "smart", *NOWHERE))
    assert "has no items" in result.output


def test_a_schedule_tells_what_it_costs_while_nothing_happens(there: Path) -> None:
    arguments = ("schedule", "--every", "3m", "--tokens", "9030", "--model", "anthropic/claude-opus-4-1", "--data", "d")
    result = CliRunner().invoke(estimate, arguments)
    assert result.exit_code == 0
    assert "480 runs a day" in result.output
    assert "$65.02" in result.output
    assert (
        CliRunner().invoke(estimate, ("schedule", "--every", "soon", "--tokens", "1", "--model", "smart")).exit_code
        == 2
    )


def test_prices_are_listed_shown_and_compared(there: Path) -> None:
    run = CliRunner().invoke
    assert "lab/big" in run(prices, ("list",)).output
    listed = json.loads(run(prices, ("list", "--provider", "anthropic", "--json")).output)
    assert {row["target"] for row in listed} >= {"anthropic/claude-opus-4-6"}
    assert run(prices, ("list", "--model", "gpt-99*")).exit_code == 4
    assert "gpt-4.1@2026-03-01" in run(prices, ("show", "gpt-4.1")).output
    assert "did you mean" in run(prices, ("show", "openai/gpt-4.11")).output
    assert "1.00 → 0.50" in run(prices, ("diff", "2026-03-01", "2026-11-20")).output
    assert "no price differs" in run(prices, ("diff", "2026-11-20", "2026-11-20")).output
    assert run(prices, ("check",)).exit_code == 0
