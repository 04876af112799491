"""The load: a fixed number of requests at a fixed concurrency, in a process of its own; prints one JSON line."""

from __future__ import annotations

import argparse
import asyncio
import json
import time

import uvloop

from nightkeep.models.transport import HttpClient, Origin, TransportError

_HEAD = b"host: 127.0.0.1\r\ncontent-type: application/json\r\nauthorization: Bearer sk-bench-0123456789\r\n%b"


async def run(arguments: argparse.Namespace) -> dict[str, float]:
    """Send the requests; latencies in milliseconds."""
    client = HttpClient()
    origin = Origin("http", "127.0.0.1", arguments.port)
    head = _HEAD % arguments.header.encode().replace(b"\\r\\n", b"\r\n")
    stream = ',"stream":true' if arguments.stream else ""
    user = ',"user":"slow"' if arguments.slow else ""
    text = "Summarise the log of the night. " * 12
    body = (
        f'{{"model":"{arguments.model}"{stream}{user},"messages":[{{"role":"system","content":"You are terse."}},'
        f'{{"role":"user","content":"{text}"}}]}}'
    ).encode()
    left = arguments.requests
    latencies: list[float] = []
    failed = 0

    async def worker() -> None:
        nonlocal left, failed
        while left > 0:
            left -= 1
            began = time.perf_counter()
            try:
                answer = await client.send(origin, "POST", arguments.path, head, body, first_byte_s=120)
                data = await answer.read(120, 1 << 26)
                is_good = answer.status == 200 and (not arguments.stream or b"[DONE]" in data)
            except TransportError:
                is_good = False
            failed += not is_good
            latencies.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(arguments.concurrency)))
    seconds = time.perf_counter() - began
    latencies.sort()
    return {
        "seconds": seconds,
        "per_second": len(latencies) / seconds,
        "p50_ms": latencies[len(latencies) // 2],
        "p99_ms": latencies[min(len(latencies) - 1, len(latencies) * 99 // 100)],
        "failed": failed,
    }


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser()
    for name in ("port", "requests", "concurrency"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--path", default="/v1/chat/completions")
    parser.add_argument("--model", default="gpt-4.1-mini")
    parser.add_argument("--header", default="")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--slow", action="store_true")
    print(json.dumps(uvloop.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
