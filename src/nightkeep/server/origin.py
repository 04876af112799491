"""What browsers may do here: pages of other sites nothing, by whatever name they reach this host.

A web page can make a browser send requests to a gateway on the same machine (CSRF), and can give its own name this
machine's address (DNS rebinding). Browsers tell on both: ``Host`` is the name that the page used, ``Origin`` and
``Sec-Fetch-Site`` (fetch.spec.whatwg.org, w3c.github.io/webappsec-fetch-metadata) say where it is from. Programs send
neither of the last two, and nothing here gets in their way.
"""

from __future__ import annotations

import re
from typing import Final

from nightkeep.core.errors import DeniedError
from nightkeep.server.http import Request

__all__ = ["LOCAL_HOSTS", "check_host", "check_origin", "check_page"]

LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?\Z")
_ORIGIN: Final = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?\Z")
_OWN_SITES: Final = frozenset({"same-origin", "none"})


def check_host(request: Request, hosts: frozenset[str]) -> None:
    """Raise DeniedError where the request was sent to another name than this host's (DNS rebinding)."""
    host = request.headers.get("host", "")
    found = _HOST.match(host.lower())
    if host and (found is None or found[1] not in hosts):
        raise DeniedError(
            f"host {host[:100]!r} is not served here; use the address that 'nightkeep up' printed", rule="api.host"
        )


def check_origin(request: Request) -> None:
    """Raise DeniedError where a page of another site wants to change something, or to have it in its own page."""
    headers = request.headers
    is_read = request.method in ("GET", "HEAD")
    site = headers.get("sec-fetch-site")
    if site is not None and site.lower() not in _OWN_SITES:
        if is_read and headers.get("sec-fetch-mode", "").lower() == "navigate":
            return  # a link that somebody followed; the page it came from sees nothing of it
        raise DeniedError("a page of another site may not use this API", rule="api.origin")
    origin = headers.get("origin")
    if origin is None or is_read:
        return
    host = headers.get("host", "").lower()
    if not host or origin.lower() not in (f"http://{host}", f"https://{host}"):
        raise DeniedError(f"a page of {origin[:100]!r} may not change anything here", rule="api.origin")


def check_page(request: Request, hosts: frozenset[str]) -> None:
    """Raise DeniedError where a page that is not this machine's own calls a model on a gateway that asks for no key.

    Where keys are asked for this is not needed: a page does not have one.
    """
    origin = request.headers.get("origin")
    if origin is None:
        if request.headers.get("sec-fetch-site", "").lower() in ("cross-site", "same-site"):
            raise DeniedError("a page of another site may not call models here", rule="doors.origin")
        return
    found = _ORIGIN.match(origin.lower())
    if origin == "null" or (origin.lower().startswith("http") and (found is None or found[1] not in hosts)):
        raise DeniedError(
            f"a page of {origin[:100]!r} may not call models here; where a browser is to be served, make keys with "
            "'nightkeep keys create'",
            rule="doors.origin",
        )
