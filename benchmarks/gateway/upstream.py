"""The provider of the benchmark: fixed OpenAI replies over our own server, so that it is never the bottleneck."""

from __future__ import annotations

import asyncio
import sys

import uvloop

from nightkeep.server.http import Exchange, serve

CHUNKS = 20
_TEXT = "The quick brown fox jumps over the lazy dog. " * 18
WHOLE = (
    '{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"gpt-4.1-mini","choices":[{"index":0,'
    '"message":{"role":"assistant","content":"' + _TEXT + '"},"logprobs":null,"finish_reason":"stop"}],"usage":'
    '{"prompt_tokens":120,"completion_tokens":180,"total_tokens":300}}'
).encode()


def _chunk(delta: str, finish: str, usage: str = "") -> bytes:
    return (
        'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4.1-mini",'
        f'"choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]{usage}}}\n\n'
    ).encode()


_LAST = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4.1-mini","choices":'
    b'[],"usage":{"prompt_tokens":120,"completion_tokens":180,"total_tokens":300}}\n\ndata: [DONE]\n\n'
)
STREAM = [
    _chunk('{"role":"assistant","content":""}', "null"),
    *[_chunk(f'{{"content":"word {number} and some more of it "}}', "null") for number in range(CHUNKS)],
    _chunk("{}", '"stop"'),
    _LAST,
]
_JSON = [("content-type", "application/json")]
_SSE = [("content-type", "text/event-stream")]


async def answer(exchange: Exchange) -> None:
    """One reply; a body that asks for a slow stream gets one chunk a second for twenty seconds."""
    body = exchange.request.body
    if b'"stream":true' not in body and b'"stream": true' not in body:
        exchange.respond(200, _JSON, WHOLE)
        return
    pause_s = 1.0 if b'"slow"' in body else 0.0
    exchange.start(200, _SSE)
    for chunk in STREAM:
        exchange.send(chunk)
        await asyncio.sleep(pause_s)  # each chunk leaves on its own, as a model's do
    exchange.finish()


async def main(port: int) -> None:
    """Serve until ended."""
    await serve(answer, port=port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
