"""Each fault of the simulated provider, as a raw client sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from nightkeep.testing.sim import FAULTS, RunningSim, start_sim

USER = [{"role": "user", "content": "hello"}]
WIRES = {
    "openai_chat": ("/v1/chat/completions", {"model": "gpt-5", "messages": USER}),
    "openai_responses": ("/v1/responses", {"model": "gpt-5", "input": "hello"}),
    "anthropic_messages": ("/v1/messages", {"model": "claude", "max_tokens": 500, "messages": USER}),
    "gemini": ("/v1beta/models/g", {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}),
}
LAST = {
    "openai_chat": b"[DONE]",
    "openai_responses": b"response.completed",
    "anthropic_messages": b"message_stop",
    "gemini": b"finishReason",
}
STATUS = {
    "rate_limited": 429,
    "rate_limited_silent": 429,
    "quota": 429,
    "no_credit": 429,
    "suspended": 403,
    "unauthorized": 401,
    "server_error": 500,
    "overloaded": 503,
    "unavailable": 503,
    "gateway_timeout": 504,
    "not_found": 404,
    "bad_request": 400,
    "context_too_long": 400,
    "content_refused": 400,
    "html_502": 502,
}
EXCEPTIONS = {
    ("no_credit", "anthropic_messages"): 400,
    ("unauthorized", "gemini"): 400,
    ("overloaded", "anthropic_messages"): 529,
}
CUT = ("abort", "cut_after_bytes", "cut_after_chunks", "cut_after_preamble")
HANGING = ("hang", "hang_after_preamble", "hang_after_chunks")
HARMLESS = ("crlf", "pings", "byte_by_byte", "duplicate_done", "delay:0", "slow_drip:0", "huge_reply:8")


@pytest.fixture
async def sim() -> AsyncIterator[RunningSim]:
    running = await start_sim()
    yield running
    await running.close()


@pytest.fixture
async def client(sim: RunningSim) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"anthropic-version": "2023-06-01"}
    async with httpx.AsyncClient(base_url=sim.base_url, headers=headers, timeout=20) as made:
        yield made


def _request(wire: str, fault: str, *, is_streamed: bool) -> dict:
    path, body = WIRES[wire]
    if wire == "gemini":
        path += ":streamGenerateContent?alt=sse" if is_streamed else ":generateContent"
    elif is_streamed:
        body = body | {"stream": True}
    return {"url": path, "json": body, "headers": {"x-sim-fault": fault}}


def _datas(content: bytes) -> list[dict]:
    lines = content.replace(b"\r\n", b"\n").split(b"\n")
    return [json.loads(line[6:]) for line in lines if line.startswith(b"data: ") and b"[DONE]" not in line]


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("wire", WIRES)
class TestOnEachWire:
    @pytest.mark.parametrize("fault", STATUS)
    async def test_a_refusal_has_the_vendors_status(
        self, client: httpx.AsyncClient, wire: str, fault: str, is_streamed: bool
    ) -> None:
        reply = await client.post(**_request(wire, fault, is_streamed=is_streamed))
        assert reply.status_code == EXCEPTIONS.get((fault, wire), STATUS[fault])
        assert reply.headers["x-nightkeep-simulated"] == "1"
        if fault == "html_502":
            assert reply.headers["content-type"] == "text/html"
        else:
            assert reply.json()["error"]["message"]

    @pytest.mark.parametrize("fault", CUT)
    async def test_a_cut_is_seen_as_a_cut(
        self, client: httpx.AsyncClient, sim: RunningSim, wire: str, fault: str, is_streamed: bool
    ) -> None:
        with pytest.raises(httpx.RemoteProtocolError if fault != "abort" else httpx.TransportError):
            await client.post(**_request(wire, fault, is_streamed=is_streamed))
        assert sim.log[-1].outcome == "cut"

    @pytest.mark.parametrize("fault", HANGING)
    async def test_a_hang_lasts_until_the_client_hangs_up(
        self, client: httpx.AsyncClient, sim: RunningSim, wire: str, fault: str, is_streamed: bool
    ) -> None:
        waiting = asyncio.ensure_future(client.post(**_request(wire, fault, is_streamed=is_streamed)))
        async with asyncio.timeout(10):
            while not sim.log or sim.log[-1].outcome != "hung":  # noqa: ASYNC110 (another task of this loop)
                await asyncio.sleep(0)
            waiting.cancel()
            while sim.log[-1].outcome != "gone":  # noqa: ASYNC110 (the same)
                await asyncio.sleep(0.001)
        assert not sim.book.open_streams

    @pytest.mark.parametrize("fault", HARMLESS)
    async def test_a_harmless_fault_leaves_the_answer_whole(
        self, client: httpx.AsyncClient, wire: str, fault: str, is_streamed: bool
    ) -> None:
        reply = await client.post(**_request(wire, fault, is_streamed=is_streamed))
        assert reply.status_code == 200
        if is_streamed:
            assert _datas(reply.content)
            assert LAST[wire] in reply.content
        else:
            assert reply.json()
        if fault.startswith("huge"):
            assert len(reply.content) > 8000

    async def test_malformed_json_cannot_be_read(self, client: httpx.AsyncClient, wire: str, is_streamed: bool) -> None:
        reply = await client.post(**_request(wire, "malformed_json", is_streamed=is_streamed))
        with pytest.raises(json.JSONDecodeError):
            if is_streamed:
                _datas(reply.content)
            else:
                reply.json()

    async def test_another_model_and_wrong_usage_are_told(
        self, client: httpx.AsyncClient, sim: RunningSim, wire: str, is_streamed: bool
    ) -> None:
        other = await client.post(**_request(wire, "other_model:cheap-1", is_streamed=is_streamed))
        assert b"cheap-1" in other.content
        await client.post(**_request(wire, "wrong_usage:1000", is_streamed=is_streamed))
        assert sim.log[-1].input_tokens < 1000  # the bill knows better

    async def test_usage_can_be_missing(self, client: httpx.AsyncClient, wire: str, is_streamed: bool) -> None:
        reply = await client.post(**_request(wire, "no_usage", is_streamed=is_streamed))
        assert b"_tokens" not in reply.content.replace(b"max_output_tokens", b"")
        assert b"TokenCount" not in reply.content


@pytest.mark.parametrize("wire", WIRES)
class TestStreams:
    async def test_an_error_event_comes_after_the_first_content(self, client: httpx.AsyncClient, wire: str) -> None:
        reply = await client.post(**_request(wire, "stream_error", is_streamed=True))
        datas = _datas(reply.content)
        assert "error" in datas[-1] or datas[-1]["type"] == "error"
        assert b"Simulated" in reply.content
        assert LAST[wire] not in reply.content

    async def test_the_end_can_be_missing(self, client: httpx.AsyncClient, wire: str) -> None:
        reply = await client.post(**_request(wire, "no_done", is_streamed=True))
        assert reply.status_code == 200
        assert LAST[wire] not in reply.content

    async def test_a_stream_can_be_no_stream_of_events(self, client: httpx.AsyncClient, wire: str) -> None:
        reply = await client.post(**_request(wire, "malformed_sse", is_streamed=True))
        assert b"\xff\xfe\x00" in reply.content

    async def test_a_cut_before_the_first_content_shows_the_preamble_only(
        self, client: httpx.AsyncClient, wire: str
    ) -> None:
        got = b""
        with pytest.raises(httpx.RemoteProtocolError):
            async with client.stream("POST", **_request(wire, "cut_after_preamble", is_streamed=True)) as reply:
                async for part in reply.aiter_raw():
                    got += part
        assert b"Simulated" not in got
        assert bool(got) == (wire != "gemini")  # Gemini has no preamble


async def test_a_silent_rate_limit_says_nothing_about_when(client: httpx.AsyncClient) -> None:
    said = await client.post(**_request("openai_chat", "rate_limited:7", is_streamed=False))
    assert said.headers["retry-after"] == "7"
    silent = await client.post(**_request("openai_chat", "rate_limited_silent", is_streamed=False))
    assert "retry-after" not in silent.headers
    gemini = await client.post(**_request("gemini", "rate_limited:7", is_streamed=False))
    assert gemini.json()["error"]["details"][-1]["retryDelay"] == "7s"


async def test_a_fault_can_be_asked_for_by_the_key(client: httpx.AsyncClient) -> None:
    request = _request("openai_chat", "", is_streamed=False)
    for key, status in (("sim-fault-quota", 429), ("sim-fault-server-error", 500), ("sim-fault-bad_request:x", 400)):
        reply = await client.post(request["url"], json=request["json"], headers={"authorization": f"Bearer {key}"})
        assert reply.status_code == status


async def test_an_unknown_fault_is_refused_rather_than_ignored(client: httpx.AsyncClient) -> None:
    reply = await client.post(**_request("openai_chat", "no_such_fault", is_streamed=False))
    assert reply.status_code == 400
    assert "no_such_fault" in reply.text


def test_every_fault_is_tried_here() -> None:
    tried = {fault.partition(":")[0] for fault in (*STATUS, *CUT, *HANGING, *HARMLESS)}
    by_name = {"malformed_json", "malformed_sse", "stream_error", "no_done", "other_model", "wrong_usage", "no_usage"}
    assert set(FAULTS) - tried - by_name == {"html_200", "empty"}


@pytest.mark.parametrize("fault", ["html_200", "empty"])
async def test_a_success_can_be_no_answer_at_all(client: httpx.AsyncClient, fault: str) -> None:
    reply = await client.post(**_request("openai_chat", fault, is_streamed=False))
    assert reply.status_code == 200
    assert reply.content.startswith(b"<html>") or not reply.content
