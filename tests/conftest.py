"""What holds for every test: no network but loopback, and hypothesis that does not depend on the machine's speed."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")


class NetworkForbiddenError(AssertionError):
    """A test reached for a host other than this one."""


def _is_here(address: Any) -> bool:
    if not isinstance(address, tuple):  # a path: Unix sockets
        return True
    host = address[0]
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


def _guard(name: str) -> Any:
    original = getattr(socket.socket, name)

    def guarded(self: socket.socket, *arguments: Any) -> Any:
        if not _is_here(arguments[-1]):
            raise NetworkForbiddenError(f"tests reach only loopback; this one called {name} for {arguments[-1]!r}")
        return original(self, *arguments)

    return guarded


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections and look-ups that leave the machine (uvloop looks names up through this too)."""
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, _guard(name))
    look_up = socket.getaddrinfo

    def guarded_look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        text = host.decode() if isinstance(host, bytes) else host
        if text is not None and not _is_here((text,)):
            raise NetworkForbiddenError(f"tests reach only loopback; this one looked up {text!r}")
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)
