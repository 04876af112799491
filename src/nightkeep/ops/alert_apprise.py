"""Slack, Telegram, e-mail, PagerDuty and others through apprise, an optional dependency (``nightkeep[notify]``).

It is imported, and sends, in a thread of the channel's own: it blocks, and no call may wait for it. Only its public
face is used (ADR 0005 has the reasons).
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from nightkeep.ops.alert_channels import Message

__all__ = ["AppriseChannel", "addressed"]

_WAIT_S: Final = 30.0
_KINDS: Final = {"info": "info", "warning": "warning", "critical": "failure"}
_PAGERDUTY: Final = "pagerduty://"
_NOT_UNDERSTOOD: Final = "its address is not one that apprise knows, or something is missing in it"


class AppriseChannel:
    """A channel for an address in apprise's form."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nightkeep-notify")

    async def check(self) -> str:
        """Say whether apprise is there and understands the address. Loads it: that takes a second, in the thread."""
        return await self._in_thread(self._check)

    async def send(self, message: Message) -> str:
        """Send it from the channel's thread."""
        return await self._in_thread(lambda: self._send(message))

    async def _in_thread(self, work: Callable[[], str]) -> str:
        working = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.wait_for(working, _WAIT_S)
        except TimeoutError:
            return f"no answer within {_WAIT_S:.0f} s"

    def _check(self) -> str:
        try:
            return "" if _service(self._address) is not None else _NOT_UNDERSTOOD
        except ImportError:
            return "apprise is not installed; install 'nightkeep[notify]'"

    def _send(self, message: Message) -> str:
        with _Said() as said:
            try:
                fault = self._check()
                if fault:
                    return fault
                service = _service(addressed(self._address, message))
                title = f"Nightkeep: {message.level}" if message.state == "open" else f"Nightkeep: {message.state}"
                kind = "success" if message.state == "resolved" else _KINDS[message.level]
                is_sent = service is not None and service.notify(body=message.text, title=title, notify_type=kind)
            except Exception as error:  # noqa: BLE001  somebody else's plug-in; contained and told (law 7)
                return f"{type(error).__name__} in apprise"
        return "" if is_sent else said.text or "the service did not take it"


def _service(address: str) -> Any:
    """Apprise's own object for an address; None where it does not understand it. Raises ImportError."""
    return importlib.import_module("apprise").Apprise.instantiate(address)


def addressed(address: str, message: Message) -> str:
    """The address for one message: PagerDuty gets the episode's key, so that what is over closes its own incident."""
    if not address.startswith(_PAGERDUTY) or "dedup=" in address:
        return address
    dedup = hashlib.sha256(message.key.encode()).hexdigest()[:32]
    return f"{address}{'&' if '?' in address else '?'}action=map&dedup={dedup}"


class _Said(logging.Handler):
    """What apprise logs in this thread while it sends; it hides the secrets of its addresses itself."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the last line."""
        if record.thread == self._thread:
            self.text = record.getMessage()[:200]

    def __enter__(self) -> _Said:
        logging.getLogger("apprise").addHandler(self)
        return self

    def __exit__(self, *failure: object) -> None:
        logging.getLogger("apprise").removeHandler(self)
