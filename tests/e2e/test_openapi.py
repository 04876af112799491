"""The published OpenAPI document is true: schemathesis asks a running gateway by it, and against it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize("who", ["operator", "stranger"])
def test_the_api_keeps_to_its_document(own_place: Any, tmp_path: Path, who: str) -> None:
    shown = ["--header", f"authorization: Bearer {own_place.token}"] if who == "operator" else []
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", own_place.gateway + "/api/openapi.json"),
        *("--max-examples", "15", "--seed", "7", "--phases", "examples,coverage,fuzzing", "--workers", "1"),
        *shown,
        *(
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        ),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout[-6000:]
