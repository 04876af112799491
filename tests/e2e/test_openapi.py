"""The published OpenAPI document is true: schemathesis asks a running gateway by it, and against it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest


def _resume_all(place: Any) -> None:
    """What was asked of the switches must not stop the gateway for the tests that come after."""
    head = {"authorization": f"Bearer {place.token}", "content-type": "application/json"}
    with urlopen(Request(place.gateway + "/api/switches/resume", b'{"all": true}', head)) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("who", ["operator", "stranger"])
def test_the_api_keeps_to_its_document(place: Any, tmp_path: Path, who: str) -> None:
    shown = ["--header", f"authorization: Bearer {place.token}"] if who == "operator" else []
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", place.gateway + "/api/openapi.json"),
        *("--max-examples", "15", "--seed", "7", "--phases", "examples,coverage,fuzzing", "--workers", "1"),
        *shown,
        *(
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        ),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    _resume_all(place)
    assert done.returncode == 0, done.stdout[-6000:]
