"""The example scenarios are valid and do what their comments say; so do limits, bills and the control doors."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from nightkeep.cli.sim import command
from nightkeep.core.errors import ConfigError
from nightkeep.models.credentials import Secret
from nightkeep.models.event_stream import EventStreamDecoder
from nightkeep.models.signing import AwsKeys, sign_aws
from nightkeep.testing.sim import (
    FAULTS,
    Account,
    Delivery,
    FaultRule,
    Limits,
    Match,
    Model,
    Price,
    Quota,
    Reply,
    RunningSim,
    Scenario,
    ScriptedCall,
    ScriptedUsage,
    Turn,
    load_scenario,
    parse_scenario,
    start_sim,
)

EXAMPLES = Path(__file__).parents[2] / "examples" / "scenarios"


class _Clock:
    def __init__(self) -> None:
        self.passed_s = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.passed_s)

    def monotonic(self) -> float:
        return self.passed_s


class _Played:
    """A running scenario and a client for it; time passes only when told."""

    def __init__(self, sim: RunningSim, client: httpx.AsyncClient, clock: _Clock, slept_s: list[float]) -> None:
        self.sim = sim
        self.client = client
        self.clock = clock
        self.slept_s = slept_s

    async def chat(self, text: str = "hi", *, key: str = "k", prefix: str = "", **more: object) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}", "x-nightkeep-tag": str(more.pop("tag", ""))}
        body = {"model": "gpt-5", "messages": [{"role": "user", "content": text}], **more}
        return await self.client.post(f"{prefix}/v1/chat/completions", json=body, headers=headers)


@asynccontextmanager
async def _playing(scenario: Scenario) -> AsyncIterator[_Played]:
    clock = _Clock()
    slept_s: list[float] = []

    async def sleep(seconds: float) -> None:
        slept_s.append(seconds)

    sim = await start_sim(scenario, clock=clock, sleep=sleep)
    try:
        async with httpx.AsyncClient(base_url=sim.base_url, timeout=20) as client:
            yield _Played(sim, client, clock, slept_s)
    finally:
        await sim.close()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_is_valid_and_named_as_its_file(path: Path) -> None:
    assert load_scenario(path).name == path.stem


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_is_in_the_documentation(path: Path) -> None:
    assert f"examples/scenarios/{path.name}" in (EXAMPLES.parents[1] / "docs/simulated-provider.md").read_text()


async def test_hello_answers_at_the_pace_of_a_real_model() -> None:
    async with _playing(load_scenario(EXAMPLES / "hello.toml")) as played:
        reply = await played.chat("Hello!", stream=True)
        assert "Hello fr" in reply.text
        assert played.slept_s[0] == 0.05
        assert set(played.slept_s[1:]) == {0.005}


async def test_tool_use_goes_through_its_turns() -> None:
    tools = [{"type": "function", "function": {"name": name, "parameters": {"properties": {"path": {}}}}}
             for name in ("disk_usage", "delete_file")]  # fmt: skip
    messages: list[dict] = [{"role": "user", "content": "Free 10 GB"}]
    seen = []
    async with _playing(load_scenario(EXAMPLES / "tool_use.toml")) as played:
        for _ in range(3):
            reply = (await played.chat(messages=messages, tools=tools)).json()
            message = reply["choices"][0]["message"]
            calls = message.get("tool_calls", [])
            seen.append([call["function"]["name"] for call in calls])
            messages.append(message)
            messages += [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in calls]
    assert seen == [["disk_usage", "disk_usage"], ["delete_file"], []]
    assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] == 2000


async def test_fifteen_accounts_are_suspended_for_retrying_when_exhausted() -> None:
    async with _playing(load_scenario(EXAMPLES / "fifteen_accounts.toml")) as played:
        replies = [await played.chat(key="sk-sim-1") for _ in range(8)]
        assert [reply.status_code for reply in replies] == [200, 200, 429, 429, 429, 429, 403, 403]
        assert replies[2].json()["error"]["code"] == "insufficient_quota"
        assert (await played.chat(key="sk-sim-2")).status_code == 429
        played.clock.passed_s += 86_401
        assert (await played.chat(key="sk-sim-1")).status_code == 403  # time does not heal a suspension
        assert (await played.chat(key="sk-unknown")).json()["error"]["code"] == "invalid_api_key"


async def test_a_minute_later_a_rate_limit_is_over() -> None:
    async with _playing(load_scenario(EXAMPLES / "fifteen_accounts.toml")) as played:
        first = await played.chat(key="sk-sim-3")
        assert first.headers["x-ratelimit-remaining-requests"] == "0"
        played.clock.passed_s += 20
        second = await played.chat(key="sk-sim-3")
        assert (second.status_code, second.headers["retry-after"]) == (429, "40")
        assert second.json()["error"]["code"] == "rate_limit_exceeded"
        played.clock.passed_s += 40
        assert (await played.chat(key="sk-sim-3")).status_code == 200


async def test_anthropic_tells_what_is_left_of_its_limits() -> None:
    scenario = parse_scenario('[accounts.a]\nkey = "k"\nlimits = { requests_per_minute = 5 }')
    body = {"model": "c", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    async with _playing(scenario) as played:
        headers = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
        reply = await played.client.post("/v1/messages", json=body, headers=headers)
        assert reply.headers["anthropic-ratelimit-requests-remaining"] == "4"
        assert reply.headers["anthropic-ratelimit-requests-reset"] == "2026-01-01T00:01:00Z"


async def test_two_providers_live_on_one_server() -> None:
    async with _playing(load_scenario(EXAMPLES / "two_providers.toml")) as played:
        assert (await played.chat(prefix="/a/first", model="big-1")).status_code == 500
        assert (await played.chat(prefix="/a/first", model="small-1")).status_code == 404
        reply = await played.chat(prefix="/a/second")
        assert reply.json()["choices"][0]["message"]["content"] == "The second provider is here."


async def test_a_storm_follows_its_rules() -> None:
    async with _playing(load_scenario(EXAMPLES / "storm.toml")) as played:
        batch = [(await played.chat(tag="batch")).status_code for _ in range(4)]
        assert batch == [200, 429, 200, 429]
        claude = [(await played.chat(model="claude-x")).status_code for _ in range(5)]
        assert claude == [503, 503, 503, 200, 200]
        flaky = [(await played.chat(model="flaky")).status_code for _ in range(12)]
        played.sim.use(load_scenario(EXAMPLES / "storm.toml"))
        assert flaky == [(await played.chat(model="flaky")).status_code for _ in range(12)]
        assert {200, 500} == set(flaky)


async def test_the_bill_is_right_to_the_token() -> None:
    async with _playing(load_scenario(EXAMPLES / "billing.toml")) as played:
        for is_streamed in (False, True):
            await played.chat(key="sk-sim-a", stream=is_streamed)
        (line,) = (await played.client.get("/sim/usage")).json()["usage"]
        assert line == {
            "provider": "", "account": "team-a", "model": "gpt-5", "requests": 2, "input": 2000, "cached": 1600,
            "cache_write": 0, "output": 200, "reasoning": 80,
            "usd": "0.002700",  # 2 * (200 * 1.25 + 800 * 0.125 + 100 * 10) millionths
        }  # fmt: skip
        table = (await played.client.get("/sim/usage?format=csv")).text.splitlines()
        assert table[0].split(",")[-1] == "usd"
        assert table[1].endswith("0.002700")


async def test_a_cut_stream_is_billed_for_what_was_generated() -> None:
    scenario = parse_scenario(
        '[prices."*"]\ninput = 1\noutput = 1\n[[turns]]\nreply = { text = "%s", chunk_chars = 40 }' % ("word " * 80)
    )
    async with _playing(scenario) as played:
        with pytest.raises(httpx.RemoteProtocolError):
            await played.client.post(
                "/v1/chat/completions",
                json={"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True},
                headers={"x-sim-fault": "cut_after_chunks:3"},
            )
        assert played.sim.log[-1].output_tokens == 30  # three chunks of forty characters; the whole has a hundred


async def test_the_requests_are_kept_without_the_keys() -> None:
    async with _playing(Scenario()) as played:
        await played.chat("one", key="sk-secret-key-1234")
        await played.chat("two", key="sk-secret-key-1234")
        kept = await played.client.get("/sim/requests?since=1&bodies=1")
        (second,) = kept.json()["requests"]
        assert second["body"]["messages"][0]["content"] == "two"
        assert second["outcome"] == "answered"
        assert "sk-secret" not in kept.text
        stats = (await played.client.get("/sim/stats")).json()
        assert (stats["requests"], stats["outcomes"]) == (2, {"answered": 2})
        assert (await played.client.post("/sim/reset")).json()["reset"]
        assert (await played.client.get("/sim/requests")).json()["requests"] == []


async def test_a_scenario_can_be_changed_while_it_runs_and_a_wrong_one_is_refused() -> None:
    async with _playing(Scenario()) as played:
        wrong = await played.client.put("/sim/scenario", content='[[turns]]\nreplay = { text = "x" }')
        assert wrong.status_code == 400
        assert "turns[0].replay" in wrong.json()["error"]
        right = await played.client.put("/sim/scenario", content='name = "n"\n[[turns]]\nreply = { text = "new" }')
        assert right.json()["scenario"] == "n"
        assert (await played.chat()).json()["choices"][0]["message"]["content"] == "new"


Refusing = tuple[str, dict[str, str], dict, int, str]
REFUSED: dict[str, Refusing] = {
    "reasoning_effort at Gemini (W3.3)": (
        "/v1beta/models/gemini-2.5-pro:generateContent", {},
        {"contents": [{"parts": [{"text": "x"}]}], "reasoning_effort": "high"},
        400, 'Unknown name "reasoning_effort"',
    ),
    "reasoning_effort in Gemini's generation config": (
        "/v1beta/models/g:generateContent", {},
        {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"reasoningEffort": "high"}},
        400, "Unknown name",
    ),
    "an unknown parameter at Anthropic": (
        "/v1/messages", {"anthropic-version": "2023-06-01"},
        {"model": "c", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}], "reasoning_effort": "high"},
        400, "Extra inputs are not permitted",
    ),
    "an unknown parameter at OpenAI": (
        "/v1/chat/completions", {}, {"model": "g", "messages": [{"role": "user", "content": "x"}], "top_k": 3},
        400, "Unrecognized request argument supplied: top_k",
    ),
    "an unknown parameter at Responses": (
        "/v1/responses", {}, {"model": "g", "input": "x", "messages": []}, 400, "Unknown parameter: 'messages'",
    ),
    "no anthropic-version": (
        "/v1/messages", {}, {"model": "c", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]},
        400, "anthropic-version: header is required",
    ),
    "no max_tokens at Anthropic": (
        "/v1/messages", {"anthropic-version": "2023-06-01"},
        {"model": "c", "messages": [{"role": "user", "content": "x"}]}, 400, "max_tokens: Field required",
    ),
    "a system message at Anthropic": (
        "/v1/messages", {"anthropic-version": "2023-06-01"},
        {"model": "c", "max_tokens": 5, "messages": [{"role": "system", "content": "x"}]}, 400, "Unexpected role",
    ),
    "a tool call without its result at OpenAI": (
        "/v1/chat/completions", {},
        {"model": "g", "messages": [
            {"role": "assistant", "tool_calls": [{"id": "c1"}]}, {"role": "user", "content": ""}]},
        400, "did not have response messages: c1",
    ),
    "a tool call without its result at Anthropic": (
        "/v1/messages", {"anthropic-version": "2023-06-01"},
        {"model": "c", "max_tokens": 5, "messages": [
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "n", "input": {}}]},
            {"role": "user", "content": "x"}]},
        400, "`tool_use` ids were found without",
    ),
    "a wrong role at Gemini": (
        "/v1beta/models/g:generateContent", {}, {"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]},
        400, "valid role",
    ),
    "max_tokens for a reasoning model at OpenAI": (
        "/v1/chat/completions", {}, {"model": "gpt-5", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]},
        400, "max_completion_tokens",
    ),
    "fields of the wrong type": (
        "/v1/chat/completions", {}, {"model": "g", "messages": [{"role": "user", "content": "x"}],
        "tools": [3]}, 400, "wrong type"),
    "no model": ("/v1/responses", {}, {"input": "x"}, 400, "model"),
    "a path that no vendor has": ("/v1/nonsense", {}, {}, 404, "Invalid URL"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_the_vendors_refusals_are_ours(name: str) -> None:
    path, headers, body, status, sentence = REFUSED[name]
    async with _playing(Scenario()) as played:
        reply = await played.client.post(path, headers=headers, json=body)
        assert (reply.status_code, sentence in reply.json()["error"]["message"]) == (status, True), reply.text


PATHS: dict[str, Callable[[str], str]] = {
    "/openai/deployments/my-gpt/chat/completions?api-version=2026-01-01": lambda _: "my-gpt",
    "/openai/v1/chat/completions": lambda model: model,
    "/api/v1/chat/completions": lambda model: model,
    "/v1beta/openai/chat/completions": lambda model: model,
    "/a/lab/v1/chat/completions": lambda model: model,
    "/chat/completions": lambda model: model,
}


@pytest.mark.parametrize("path", PATHS)
async def test_openai_chat_is_spoken_under_every_vendors_path(path: str) -> None:
    async with _playing(Scenario()) as played:
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        reply = await played.client.post(path, json=body)
        assert reply.json()["model"] == PATHS[path]("m")


@pytest.mark.parametrize("vendor", ["google", "anthropic"])
async def test_vertex_paths_are_spoken(vendor: str) -> None:
    path = f"/v1/projects/p/locations/global/publishers/{vendor}/models/m-1:"
    async with _playing(Scenario()) as played:
        if vendor == "google":
            reply = await played.client.post(path + "generateContent", json={"contents": [{"parts": [{"text": "x"}]}]})
            assert reply.json()["modelVersion"] == "m-1"
            return
        body = {
            "anthropic_version": "vertex-2023-10-16",
            "max_tokens": 50,
            "messages": [{"role": "user", "content": "x"}],
        }
        reply = await played.client.post(path + "rawPredict", json=body)
        assert reply.json()["model"] == "m-1"
        streamed = await played.client.post(path + "streamRawPredict", json=body | {"stream": True})
        assert "message_stop" in streamed.text


async def test_bedrock_checks_the_signature_and_frames_its_stream() -> None:
    scenario = parse_scenario('[accounts.aws]\nkey = "AKIASIM"\nsecret = "s3cret"\n')
    body = json.dumps(
        {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 99, "messages": [{"role": "user", "content": "x"}]}
    ).encode()
    path = "/model/anthropic.claude-x-v1%3A0/invoke"
    async with _playing(scenario) as played:
        host = played.sim.base_url.removeprefix("http://")
        for secret, suffix, status in (
            ("s3cret", "", 200),
            ("wrong", "", 403),
            ("s3cret", "-with-response-stream", 200),
        ):
            headers = [("host", host), ("content-type", "application/json")]
            headers += sign_aws(
                AwsKeys(access_key_id="AKIASIM", secret=Secret(secret)), method="POST", target=path + suffix,
                headers=headers, body=body, region="us-east-1", service="bedrock", now=datetime(2026, 1, 1, tzinfo=UTC),
            )  # fmt: skip
            url = httpx.URL(played.sim.base_url, raw_path=(path + suffix).encode())
            reply = await played.client.post(url, headers=headers, content=body)
            assert reply.status_code == status, reply.text
        events = [event for event in EventStreamDecoder().feed(reply.content) if isinstance(event, bytes)]
        assert b"message_start" in events[0]
        assert b"message_stop" in events[-1]


def test_every_fault_and_every_setting_is_documented() -> None:
    text = (EXAMPLES.parents[1] / "docs/simulated-provider.md").read_text()
    kinds = (Account, Delivery, FaultRule, Limits, Match, Model, Price, Quota, Reply, Scenario, ScriptedCall, Turn)
    names = {name for kind in (*kinds, ScriptedUsage) for name in kind.__struct_fields__}
    missing = [name for name in names if not re.search(rf"\b{name}\b", text)]
    missing += [name for name in FAULTS if f"| `{name}` |" not in text]
    assert missing == []


def test_the_scenario_in_the_documentation_is_valid() -> None:
    text = (EXAMPLES.parents[1] / "docs/simulated-provider.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.S)
    assert parse_scenario(example).name == "triage"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[[turns]]\nmatch = { modle = "x" }', "s.toml:2: turns[0].match.modle: there is no setting 'modle' here"),
        ('[[faults]]\nfault = "rate_limitd"', "s.toml:2: faults[0].fault: there is no fault 'rate_limitd'; write"),
        ('[accounts.a]\nkey = "x"\n[accounts.b]\nkey = "x"', "accounts.b.key: a has the same key"),
        ("[[turns]]\nmatch = { regex = '(' }", "turns[0].match.regex: not a regular expression"),
        ("[[turns]\n", "this is not TOML"),
        ("[accounts.a]\nkey = 3", "Expected `str`, got `int`"),
    ],
)  # fmt: skip
def test_a_mistake_is_explained(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        parse_scenario(text, source="s.toml")


def test_the_command_checks_a_file_and_names_the_mistake(tmp_path: Path) -> None:
    good = CliRunner().invoke(command, ["check", str(EXAMPLES / "storm.toml"), "--json"])
    assert (good.exit_code, json.loads(good.output)["faults"]) == (0, 5)
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("sed = 3\n")
    bad = CliRunner().invoke(command, ["check", str(wrong), "--json"])
    assert (bad.exit_code, json.loads(bad.output)["setting"]) == (3, "sed")
    assert CliRunner().invoke(command, ["--scenario", str(tmp_path / "none.toml")]).exit_code == 3
