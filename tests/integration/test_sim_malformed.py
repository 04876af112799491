"""Whatever is sent, the simulated provider refuses it as a vendor does; it never fails itself."""

from __future__ import annotations

import random
from typing import Any

import httpx
import pytest

from nightkeep.testing.sim import start_sim

VALUES: list[Any] = [
    None, 1, -1, 1.5, True, "x", "", [], {}, [1], [[]], [{}], {"a": 1}, [{"role": "user"}], [{"type": "text"}],
    [{"role": "user", "content": None}], [{"role": "user", "content": [None]}], [{"role": "user", "content": "x"}],
    [{"role": "assistant", "tool_calls": [1]}], [{"role": "model", "parts": [None]}], {"parts": [{"text": 3}]},
]  # fmt: skip
FIELDS = {
    "/v1/chat/completions": ["messages", "tools", "stream", "stream_options", "stop", "max_tokens", "response_format"],
    "/v1/responses": ["input", "tools", "stream", "text", "tool_choice", "previous_response_id", "max_output_tokens"],
    "/v1/messages": ["messages", "max_tokens", "system", "tools", "tool_choice", "thinking", "stop_sequences"],
    "/v1beta/models/g:generateContent": ["contents", "tools", "toolConfig", "generationConfig", "systemInstruction"],
    "/v1beta/models/g:embedContent": ["content", "requests", "outputDimensionality"],
    "/v1/embeddings": ["input", "dimensions", "encoding_format"],
}
SOUND: dict[str, Any] = {
    "messages": [{"role": "user", "content": "x"}], "input": "x", "contents": [{"parts": [{"text": "x"}]}],
    "max_tokens": 50, "content": {"parts": [{"text": "x"}]},
}  # fmt: skip


@pytest.mark.parametrize("path", FIELDS)
async def test_a_malformed_body_is_refused_or_answered(path: str) -> None:
    rng = random.Random(path)
    sim = await start_sim()
    async with httpx.AsyncClient(base_url=sim.base_url, headers={"anthropic-version": "2023-06-01"}) as client:
        for _ in range(150):
            body = {name: SOUND[name] for name in FIELDS[path] if name in SOUND and rng.random() < 0.7}
            body |= {name: rng.choice(VALUES) for name in FIELDS[path] if rng.random() < 0.3}
            reply = await client.post(path, json={"model": "m", **body} if path.count(":") == 0 else body)
            assert reply.status_code in (200, 400), body
        for raw in (b"", b"{", b"[]", b"\xff\xfe", b'{"model": '):
            assert (await client.post(path, content=raw)).status_code == 400
    await sim.close()
