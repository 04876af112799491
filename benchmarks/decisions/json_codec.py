"""CPU time to read and write one chat request of 4 KB: as plain dictionaries, and typed where that is offered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import msgspec
import orjson

TURNS = [
    {"role": "user" if n % 2 else "assistant", "content": f"turn {n}: " + "a few words of talk " * 12}
    for n in range(14)
]
TOOL = {
    "type": "function",
    "function": {"name": "disk", "parameters": {"type": "object", "properties": {"p": {"type": "string"}}}},
}
BODY = json.dumps({"model": "gpt-5", "stream": True, "temperature": 0.2, "tools": [TOOL], "messages": TURNS}).encode()


class Turn(msgspec.Struct):
    role: str
    content: str


class Request(msgspec.Struct):
    model: str
    messages: list[Turn]
    stream: bool = False
    temperature: float | None = None
    tools: list[msgspec.Raw] = []


class Peek(msgspec.Struct):
    model: str
    stream: bool = False


def cpu_us(work: Callable[[], Any], rounds: int = 20_000) -> float:
    """The best of five, in microseconds each."""
    best = 1e9
    for _ in range(5):
        before = time.process_time()
        for _ in range(rounds // 5):
            work()
        best = min(best, (time.process_time() - before) / (rounds // 5))
    return best * 1e6


def main() -> None:
    decode, encode = msgspec.json.Decoder(), msgspec.json.Encoder()
    typed, peek = msgspec.json.Decoder(Request), msgspec.json.Decoder(Peek)
    figures = {
        "stdlib": cpu_us(lambda: json.dumps(json.loads(BODY)), 5_000),
        "orjson": cpu_us(lambda: orjson.dumps(orjson.loads(BODY))),
        "msgspec": cpu_us(lambda: encode.encode(decode.decode(BODY))),
        "msgspec, typed": cpu_us(lambda: encode.encode(typed.decode(BODY))),
        "msgspec, model and stream": cpu_us(lambda: peek.decode(BODY)),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
