"""Gateways side by side on this machine, in one run: ``./dev bench gateway [--quick] [--soak] [--only NAME]``.

For each: start to first answer, then plain and streamed requests at several concurrencies with CPU time
per request (of the gateway's whole process tree), throughput, latency and resident memory. Absolute
figures belong to a machine; the ratios to Nightkeep in the last column are what counts (design.md §9).
``--soak``: memory over 200,000 requests, and with 2,000 streams open at once. Stops by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from subjects import HERE, ROOT, Subject, subjects

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_START_LIMIT_S = 90.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for each in found:
        path = Path(f"/proc/{each}/task/{each}/children")
        found += [int(child) for child in path.read_text().split()] if path.exists() else []
    return found


def cpu_s(pid: int) -> float:
    """CPU seconds used by a process tree."""
    total = 0
    for each in tree(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def resident_mb(pid: int) -> float:
    """Resident memory of a process tree."""
    return sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in tree(pid)) * _PAGE / 1e6


def load(subject: Subject, port: int, requests: int, concurrency: int, *more: str) -> dict[str, float]:
    """Run the load against a subject."""
    command = [sys.executable, str(HERE / "load.py"), f"--port={port}", f"--requests={requests}"]
    command += [f"--concurrency={concurrency}", f"--model={subject.model}", f"--header={subject.header}", *more]
    run = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, check=True, stdout=subprocess.PIPE
    )
    result: dict[str, float] = json.loads(run.stdout)
    return result


def first_answer(subject: Subject, port: int, began: float) -> float | None:
    """Seconds from the start of the process to its first answer; None if there was none in time."""
    headers = {"content-type": "application/json", "authorization": "Bearer sk-bench-0123456789"}
    headers |= dict(line.split(": ", 1) for line in subject.header.split("\\r\\n") if line)
    body = json.dumps({"model": subject.model, "messages": [{"role": "user", "content": "hi"}]}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, headers)
    while time.perf_counter() - began < _START_LIMIT_S:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                answer.read()
                return time.perf_counter() - began
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    return None


def measure(subject: Subject, upstream: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All figures of one subject."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        began = time.perf_counter()
        process = subject.start(port, upstream, Path(directory))
        if process is None:
            print(f"LEFT OUT: {subject.name} could not be installed", file=sys.stderr)
            return rows
        try:
            started_s = first_answer(subject, port, began)
            if started_s is None:
                print((Path(directory) / "log.txt").read_text()[-2000:], file=sys.stderr)
                print(f"LEFT OUT: {subject.name} gave no answer in {_START_LIMIT_S:g} s", file=sys.stderr)
                return rows
            rows.append({"what": "start", "started_s": started_s, "memory_mb": resident_mb(process.pid)})
            rows += [run_one(subject, port, process.pid, *case) for case in cases(subject, arguments)]
            if arguments.soak and subject.name == "Nightkeep":
                rows += soak(subject, port, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
    return rows


def cases(subject: Subject, arguments: argparse.Namespace) -> list[tuple[str, int, int]]:
    """Kind, concurrency and number of requests of each case."""
    whole = 4_000 if arguments.quick else 20_000
    levels = (32,) if arguments.quick else (1, 32, 64, 256)
    found = []
    for kind, share in (("plain", 1.0), ("stream", 0.4)):
        for level in levels:
            requests = max(int(whole * share * subject.share * (0.3 if level == 1 else 1)), 4 * level, 40)
            found.append((kind, level, requests))
    return found


def run_one(subject: Subject, port: int, pid: int, kind: str, concurrency: int, requests: int) -> dict[str, Any]:
    """One case, after a tenth of it to warm up."""
    more = ["--stream"] if kind == "stream" else []
    load(subject, port, max(requests // 10, concurrency), concurrency, *more)
    before = cpu_s(pid)
    result = load(subject, port, requests, concurrency, *more)
    used = cpu_s(pid) - before
    return {
        "what": kind,
        "concurrency": concurrency,
        "requests": requests,
        "cpu_ms": used * 1000 / requests,
        "memory_mb": resident_mb(pid),
        **result,
    }


def soak(subject: Subject, port: int, pid: int) -> list[dict[str, Any]]:
    """Memory over 200,000 requests, then with 2,000 streams open for some twenty seconds."""
    load(subject, port, 10_000, 64)
    before = resident_mb(pid)
    load(subject, port, 200_000, 64)
    after = resident_mb(pid)
    rows = [{"what": "soak 200,000", "memory_before_mb": before, "memory_mb": after}]
    result = load(subject, port, 2_000, 2_000, "--stream", "--slow")
    rows.append({"what": "2,000 streams", "memory_before_mb": after, "memory_mb": resident_mb(pid), **result})
    return rows


def show(results: dict[str, list[dict[str, Any]]]) -> None:
    """Print the table; the last column is the CPU per request as a multiple of Nightkeep's."""
    ours = {(row["what"], row.get("concurrency")): row for row in results.get("Nightkeep", [])}
    print(f"\n{'':22}{'start s':>9}{'memory MB':>11}")
    for name, rows in results.items():
        for row in rows:
            if row["what"] == "start":
                print(f"{name:22}{row['started_s']:9.2f}{row['memory_mb']:11.0f}")
    kinds = dict.fromkeys(
        (row["what"], row["concurrency"]) for rows in results.values() for row in rows if "concurrency" in row
    )
    for kind, concurrency in kinds:
        print(f"\n{kind}, concurrency {concurrency}")
        head = f"{'':22}{'CPU ms':>9}{'per s':>9}{'p50 ms':>9}{'p99 ms':>9}{'MB':>6}{'failed':>8}"
        print(f"{head}{'CPU ×':>8}{'1/s ×':>8}")
        for name, rows in results.items():
            for row in rows:
                if (row["what"], row.get("concurrency")) == (kind, concurrency):
                    print_row(name, row, ours.get((kind, concurrency)))
    for row in results.get("Nightkeep", []):
        if "memory_before_mb" in row:
            print(f"\n{row['what']}: {row['memory_before_mb']:.0f} MB -> {row['memory_mb']:.0f} MB", end="")
            print(f", {row['failed']:.0f} failed" if "failed" in row else "")


def print_row(name: str, row: dict[str, Any], ours: dict[str, Any] | None) -> None:
    """One gateway in one case; its CPU as a multiple of ours, our throughput as a multiple of its."""
    ratios = ("", "")
    if ours is not None and name != "Nightkeep":
        cpu = row["cpu_ms"] / ours["cpu_ms"] if ours["cpu_ms"] else 0.0
        ratios = (f"{cpu:.2f}", f"{ours['per_second'] / row['per_second']:.1f}")
    print(
        f"{name:22}{row['cpu_ms']:9.3f}{row['per_second']:9.0f}{row['p50_ms']:9.1f}{row['p99_ms']:9.1f}"
        f"{row['memory_mb']:6.0f}{row['failed']:8.0f}{ratios[0]:>8}{ratios[1]:>8}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="concurrency 32 only, fewer requests")
    parser.add_argument("--soak", action="store_true", help="memory over 200,000 requests and 2,000 open streams")
    parser.add_argument("--only", action="append", help="the beginning of a name; may be given several times")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    arguments = parser.parse_args()
    upstream = free_port()
    provider = subprocess.Popen(
        [sys.executable, str(HERE / "upstream.py"), str(upstream)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    results: dict[str, list[dict[str, Any]]] = {}
    try:
        for subject in subjects(upstream):
            if not arguments.only or any(subject.name.lower().startswith(name.lower()) for name in arguments.only):
                print(f"measuring {subject.name}", file=sys.stderr)
                results[subject.name] = measure(subject, upstream, arguments)
    finally:
        provider.terminate()
        provider.wait(10)
    show(results)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
