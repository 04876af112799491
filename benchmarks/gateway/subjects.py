"""What is measured: the floor, Nightkeep with all it does, LiteLLM's proxy and Portkey, each as its own process.

Peers are installed into ``.cache/bench`` at the versions named here; one that cannot be installed is left
out, aloud.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

__all__ = ["Subject", "subjects"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".cache" / "bench"
LITELLM = "litellm[proxy]==1.106.2"
PORTKEY = "@portkey-ai/gateway@1.15.2"

Start = Callable[[int, int, Path], subprocess.Popen[bytes] | None]


class Subject(NamedTuple):
    """A gateway under test. ``start(port, upstream_port, directory)`` gives its process, or None."""

    name: str
    start: Start
    model: str = "gpt-4.1-mini"
    header: str = ""
    share: float = 1.0  # of the requests that the others get: slow ones would take all day


def _popen(command: list[str], directory: Path, **environment: str) -> subprocess.Popen[bytes]:
    log = (directory / "log.txt").open("wb")
    known = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment}
    return subprocess.Popen(command, cwd=directory, env=known, stdout=log, stderr=log)


def _floor(port: int, upstream: int, directory: Path) -> subprocess.Popen[bytes]:
    return _popen([sys.executable, str(HERE / "floor.py"), str(port), str(upstream)], directory)


BUDGETS = """
        [[budgets]]
        scope = "/"
        usd = 1_000_000
        per = "month"
        [[budgets]]
        scope = "bench"
        usd = 1_000_000
        tokens = 1_000_000_000_000
        per = "day"
        [[budgets]]
        scope = "bench/*"
        usd = 1_000_000
        per = "hour"
"""
"""Three levels deep, four counters."""
NO_WATCH = "".join(
    f"""
        [watch.{rule}]
        enabled = false
"""
    for rule in ("spend_rate", "run_cost", "token_growth", "same_request", "unattributed", "idle_heartbeat")
)


def _nightkeep(port: int, upstream: int, directory: Path, more: str = BUDGETS) -> subprocess.Popen[bytes]:
    """All controls on: a virtual key, a pool of four accounts with limits and quota, prices, budgets three levels deep,
    limits of scopes, switches, watching, the ledger and the durable record."""
    accounts = "\n".join(
        f"""
        [accounts.lab-{number}]
        provider = "lab"
        key = "env:LAB_KEY"
        limits = {{ requests_per_minute = 100_000_000, tokens_per_minute = 1_000_000_000_000, concurrent = 10_000 }}
        quota = {{ tokens = 1_000_000_000_000, per = "day" }}
        """
        for number in range(4)
    )
    digest = "sha256:" + hashlib.sha256(b"sk-bench-0123456789").hexdigest()
    config = f"""
        [providers.lab]
        wire = "openai_chat"
        base_url = "http://127.0.0.1:{upstream}/v1"
        {accounts}
        [models."gpt-4.1-mini"]
        targets = ["lab/gpt-4.1-mini", "lab/gpt-4.1"]
        [prices."lab/gpt-4.1-mini"]
        input = 0.40
        output = 1.60
        [prices."lab/gpt-4.1"]
        input = 2.00
        output = 8.00
        [keys.bench]
        scope = "bench/load"
        hash = "{digest}"
        {more}
    """
    (directory / "nightkeep.toml").write_text(textwrap.dedent(config.replace("\n        ", "\n")))
    command = [sys.executable, "-m", "nightkeep", "up", "--config", "nightkeep.toml", "--data", "data", "--json"]
    return _popen([*command, "--port", str(port)], directory, LAB_KEY="sk-lab-0123456789")


def _litellm(port: int, upstream: int, directory: Path) -> subprocess.Popen[bytes] | None:
    venv = CACHE / "litellm"
    program = venv / "bin" / "litellm"
    if not program.exists():
        print(f"installing {LITELLM} (once)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        if subprocess.run([venv / "bin" / "pip", "install", "-q", LITELLM], check=False).returncode:
            return None
    config = f"""
        model_list:
          - model_name: gpt-4.1-mini
            litellm_params:
              model: openai/gpt-4.1-mini
              api_base: http://127.0.0.1:{upstream}/v1
              api_key: sk-lab-0123456789
        general_settings:
          master_key: sk-bench-0123456789
        litellm_settings:
          telemetry: false
    """
    (directory / "config.yaml").write_text(textwrap.dedent(config))
    command = [str(program), "--config", "config.yaml", "--port", str(port), "--host", "127.0.0.1"]
    return _popen(command, directory, LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_MODE="PRODUCTION", PYTHONPATH="")


def _portkey(port: int, upstream: int, directory: Path) -> subprocess.Popen[bytes] | None:
    home = CACHE / "portkey"
    program = home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    if not program.exists():
        if shutil.which("npm") is None:
            return None
        home.mkdir(parents=True, exist_ok=True)
        print(f"installing {PORTKEY} (once)", file=sys.stderr)
        if subprocess.run(["npm", "install", "--no-audit", "--no-fund", PORTKEY], cwd=home, check=False).returncode:
            return None
    return _popen(["node", str(program), f"--port={port}", "--headless"], directory)


def _portkey_header(upstream: int) -> str:
    return f"x-portkey-provider: openai\\r\\nx-portkey-custom-host: http://127.0.0.1:{upstream}/v1\\r\\n"


def subjects(upstream: int) -> list[Subject]:
    """All subjects, for an upstream on a port."""
    return [
        Subject("floor (pass-through)", _floor),
        Subject("Nightkeep", _nightkeep),
        Subject("Nightkeep, no watching", partial(_nightkeep, more=BUDGETS + NO_WATCH)),
        Subject("Nightkeep, no budgets", partial(_nightkeep, more="")),
        Subject("Nightkeep, neither", partial(_nightkeep, more=NO_WATCH)),
        Subject("Portkey 1.15.2", _portkey, header=_portkey_header(upstream), share=0.25),
        Subject("LiteLLM 1.106.2", _litellm, share=0.04),
    ]
