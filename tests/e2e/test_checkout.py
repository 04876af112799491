"""``./nk`` from a fresh checkout: it sets itself up once, anywhere, with nothing in the environment."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NO_PYTHON_NEEDED = (
    "sh",
    "dash",
    "bash",
    "cmp",
    "cat",
    "mkdir",
    "rm",
    "mv",
    "cp",
    "dirname",
    "readlink",
    "chmod",
    "sleep",
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is under version control that ./nk needs, in a directory with a space in its name."""
    copy = tmp_path_factory.mktemp("a checkout")
    for name in ("nk", "scripts", "requirements", "src"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, copy / name)
    return copy


def _start(program: Path, *arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(program), *arguments],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.alone
@pytest.mark.timeout(240)
def test_two_first_uses_at_once_set_up_once_and_both_answer(checkout: Path, tmp_path: Path) -> None:
    first, second = (_start(checkout / "nk", "--version", cwd=tmp_path) for _ in range(2))
    outputs = [first.communicate(timeout=200), second.communicate(timeout=200)]
    assert [out.split()[0] for out, _ in outputs] == ["nightkeep", "nightkeep"], outputs
    assert sum("setting up .venv with" in err for _, err in outputs) == 1, outputs
    assert not (checkout / ".venv.lock").exists()

    # From here on it says nothing of its own, through a link and from a directory with traps in it.
    (tmp_path / "click.py").write_text("raise SystemExit('the wrong click')")
    (tmp_path / "link").symlink_to(checkout / "nk")
    out, err = _start(tmp_path / "link", "--version", cwd=tmp_path, HOME=str(tmp_path)).communicate(timeout=50)
    assert (out.split()[0], err) == ("nightkeep", "")

    moved = checkout.with_name("moved")
    checkout.rename(moved)
    out, err = _start(moved / "nk", "--version", cwd=tmp_path).communicate(timeout=50)
    assert (out.split()[0], err) == ("nightkeep", "")
    moved.rename(checkout)


def test_without_a_fitting_python_it_says_what_to_do(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in NO_PYTHON_NEEDED:
        found = shutil.which(name)
        if found:
            (tools / name).symlink_to(found)
    old = tools / "python3"
    old.write_text("#!/bin/sh\ncase $2 in *print*) echo 3.9 ;; *) exit 1 ;; esac\n")
    old.chmod(0o755)
    for name in ("nk", "scripts", "requirements"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, tmp_path / name)
    process = _start(tmp_path / "nk", "--version", cwd=tmp_path, PATH=str(tools))
    _, err = process.communicate(timeout=50)
    assert process.returncode == 1
    assert "needs Python 3.11 or newer" in err
    assert "python3 is 3.9" in err
    assert not (tmp_path / ".venv.lock").exists()


def test_the_installed_command_is_there_for_other_tests() -> None:
    command = ROOT / ".venv-dev" / "bin" / "nightkeep"
    if not command.exists():
        pytest.skip("not run from ./dev")
    assert subprocess.run([command, "--version"], capture_output=True, check=True).stdout.startswith(b"nightkeep ")
