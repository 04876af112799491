"""The measurements behind the decisions 0002, 0003 and 0004; run by ``./dev bench decisions``.

Makes an environment of its own for the candidates under ``.cache/decisions``, runs one measurement
after the other, and prints CPU time (not wall time: others may use the machine) and the ratio to
what was chosen. Absolute figures belong to a machine; the ratios are what the decisions rest on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEERS = ROOT / ".cache" / "decisions"
PYTHON = PEERS / "bin" / "python"
MEASUREMENTS = {
    "http_server": ("CPU per request, 4 KB in, 1 KB out, 32 connections", "ours", "us"),
    "http_client": ("CPU per request, 4 KB out, 1 KB in, 32 at once", "ours", "us"),
    "json_codec": ("CPU to read and write a chat request of 4 KB", "msgspec", "us"),
    "command_line": ("CPU of a process that prints --help, less an empty one", "click", "ms"),
}


def provide_peers() -> None:
    """Install the candidates, once for each version of the list."""
    wanted = (HERE / "peers.txt").read_text()
    mark = PEERS / "provided.txt"
    if mark.exists() and mark.read_text() == wanted:
        return
    venv.create(PEERS, with_pip=True, clear=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "-qq", "-r", HERE / "peers.txt"], check=True)
    mark.write_text(wanted)


def measure(name: str, *arguments: str) -> dict[str, float]:
    """Run one measurement in the candidates' environment."""
    run = subprocess.run(
        [PYTHON, HERE / f"{name}.py", *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src")},
        check=True,
        stdout=subprocess.PIPE,
    )
    figures: dict[str, float] = json.loads(run.stdout)
    return figures


def main(chosen: list[str]) -> None:
    """Print one table for each measurement named, or for all."""
    provide_peers()
    for name in chosen or MEASUREMENTS:
        title, base, unit = MEASUREMENTS[name]
        figures = measure(name)
        print(f"\n{name}: {title}")
        for candidate, value in sorted(figures.items(), key=lambda item: item[1]):
            print(f"  {candidate:28} {value:10.1f} {unit}   {value / figures[base]:6.2f}x")


if __name__ == "__main__":
    main(sys.argv[1:])
