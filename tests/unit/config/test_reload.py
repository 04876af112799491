"""What a reload changes, and when there is one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from nightkeep.config import ReloadWatcher, diff, parse
from nightkeep.config_models import Settings


def settings(text: str) -> Settings:
    return parse(text.encode(), Path("f"), {}).settings


def test_each_difference_is_told_by_name() -> None:
    old = settings('[gateway]\nport=7777\n[accounts.a]\nprovider="ollama"\n[models.m]\ntargets=["ollama/x"]')
    new = settings('[gateway]\nport=8888\n[accounts.a]\nprovider="ollama"\nenabled=false\n[notify]\nwebhook="env:HOOK"')
    assert [str(change) for change in diff(old, new)] == [
        "gateway.port: 7777 -> 8888 (takes effect after a restart)",
        "accounts.a.enabled: true -> false",
        'notify.webhook = "env:HOOK" added',
        "models.m.targets removed",
        "models.m.failover removed",
    ]
    assert diff(old, old) == []


def test_neither_hashes_nor_webhooks_are_shown() -> None:
    old = settings('[notify]\nwebhook="https://hooks.example.com/secret"')
    new = settings(f'[keys.a]\nscope="acme"\nhash="sha256:{"ab" * 32}"')
    text = "\n".join(str(change) for change in diff(old, new))
    assert "secret" not in text
    assert "abab" not in text


def test_a_new_content_is_told_once_and_a_touch_not_at_all() -> None:
    reads: list[bytes] = []

    def reading(data: bytes) -> bytes:
        reads.append(data)
        return data

    watcher = ReloadWatcher(hashlib.sha256(b"one").hexdigest(), (1, 3, 9))
    assert watcher.observe((1, 3, 9), lambda: reading(b"one")) is None
    assert reads == []
    assert watcher.observe((2, 3, 9), lambda: reading(b"one")) is None
    assert watcher.observe((3, 3, 9), lambda: reading(b"two")) == b"two"
    assert watcher.observe((3, 3, 9), lambda: reading(b"two")) is None
    assert watcher.observe((4, 3, 9), lambda: reading(b"two")) is None
    assert watcher.observe(None, lambda: reading(b"gone")) is None
    assert watcher.observe((5, 3, 9), lambda: reading(b"one")) == b"one"
