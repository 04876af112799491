"""``kill -9`` at any moment: what was acknowledged is there, what was running is found as interrupted."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nightkeep.core.errors import ConflictError
from nightkeep.store import SqliteStore, load_blob, open_snapshot
from nightkeep.store.blobs import LOAD_BLOB
from nightkeep.testing.clock import FakeClock

RECORDER = Path(__file__).with_name("recorder.py")
SOURCE = Path(__file__).resolve().parents[2] / "src"
ROUNDS = 12


def start(directory: Path, seed: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(RECORDER), str(directory), str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )


def killed_after(child: subprocess.Popen[str], seconds: float) -> list[list[str]]:
    """What the process said until it was killed, so long after it said that calls are running."""
    assert child.stdout is not None
    said = [child.stdout.readline().split()]
    while said[-1][:1] != ["running"] or sum(line[0] == "running" for line in said) < 3:
        line = child.stdout.readline().split()
        assert line, "the recorder ended by itself"
        said.append(line)
    select.select([], [], [], seconds)  # the random moment
    child.send_signal(signal.SIGKILL)
    rest, _ = child.communicate(timeout=20)
    return said + [line.split() for line in rest.splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.alone
def test_after_kill_nine_at_random_moments_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    chance = random.Random(4711)
    durable: set[str] = set()
    running: set[str] = set()
    for round_number in range(ROUNDS):
        said = killed_after(start(tmp_path, round_number), chance.uniform(0, 0.15))
        interrupted = int(said[0][1])
        assert interrupted >= len(running) - len(durable & running)
        assert (interrupted == 0) == (round_number == 0)
        durable |= {name for line in said if line[0] == "durable" for name in line[1:]}
        running = {line[1] for line in said if line[0] == "running"}
        snapshot = open_snapshot(tmp_path)
        assert snapshot is not None
        found = {str(row[0]) for row in snapshot.read("SELECT id FROM calls")}
        assert durable <= found
        assert running <= found
        assert snapshot.read("PRAGMA integrity_check") == [("ok",)]
        snapshot.close()
    assert len(durable) > ROUNDS
    check_whole(tmp_path, durable)


def check_whole(directory: Path, durable: set[str]) -> None:
    """Each acknowledged call with its attempt, its bodies and its place in the run."""
    snapshot = open_snapshot(directory)
    assert snapshot is not None
    rows = snapshot.read(
        "SELECT c.id, c.outcome, a.outcome, b.hash FROM calls c JOIN attempts a ON a.call_id = c.id "
        "JOIN blobs b ON b.hash = c.request_blob"
    )
    whole = {str(name) for name, outcome, attempt, _ in rows if outcome == attempt == "success"}
    assert durable <= whole
    for name in {str(row[3]) for row in rows}:
        assert load_blob(snapshot.read(LOAD_BLOB, (name,))[0])
    (counted,) = snapshot.read("SELECT count(*), sum(calls) FROM runs")
    assert counted[0] == 1
    assert int(counted[1] or 0) >= len(durable)
    snapshot.close()


@pytest.mark.alone
async def test_the_data_directory_is_free_when_its_owner_is_killed_and_not_before(tmp_path: Path) -> None:
    child = start(tmp_path, 0)
    assert child.stdout is not None
    child.stdout.readline()
    with pytest.raises(ConflictError, match=f"process {child.pid}"):
        SqliteStore.open(tmp_path, FakeClock(), pid=1)
    child.kill()
    child.communicate(timeout=20)
    await SqliteStore.open(tmp_path, FakeClock(), pid=1).close()
