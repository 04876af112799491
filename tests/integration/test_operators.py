"""Who may do what at the API of a running gateway: an agent cannot reach its own controls, a foreign page nothing."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import stat
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nightkeep.bootstrap import Running, start
from nightkeep.config import load
from nightkeep.control.keys import hash_key
from nightkeep.control.operator import renew_token
from nightkeep.core.errors import StoreError

AGENT = "nk-an-agents-own-key"
KEYS = f'[keys.team-a]\nscope = "acme"\nmodels = ["gpt-*"]\nhash = "{hash_key(AGENT)}"\n'
CHANGES = [
    ("POST", "/api/accounts/sim-1/disable"),
    ("POST", "/api/accounts/sim-1/enable"),
    ("POST", "/api/accounts/sim-1/reset"),
    ("POST", "/api/reload"),
    ("POST", "/api/keys"),
    ("POST", "/api/keys/team-a/revoke"),
    ("POST", "/api/keys/team-a/rotate"),
]
VIEWS = ["/api/status", "/api/accounts", "/api/accounts/sim-1", "/api/models", "/api/keys", "/api/keys/x"]
FREE = ["/api/health", "/api/ready", "/api/openapi.json"]


class Answer(NamedTuple):
    status: int
    headers: str
    body: Any


async def ask(gateway: Running, method: str, target: str, *lines: str, body: bytes = b"{}") -> Answer:
    """One request, written by hand, so that any header can be forged."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.address.rsplit(":", 1)[1]))
    given = [line.partition(":")[0].lower() for line in lines]
    host = [] if "host" in given else ["host: 127.0.0.1"]
    head = "\r\n".join([f"{method} {target} HTTP/1.1", *host, *lines, f"content-length: {len(body)}"])
    writer.write(f"{head}\r\nconnection: close\r\n\r\n".encode("latin-1") + body)
    data = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    top, _, rest = data.partition(b"\r\n\r\n")
    return Answer(int(top.split()[1]), top.decode("latin-1").lower(), json.loads(rest) if rest else None)


def bearer(text: str) -> str:
    return f"authorization: Bearer {text}"


Start = Callable[..., Coroutine[Any, Any, Running]]


@pytest.fixture
async def begin(tmp_path: Path) -> AsyncIterator[Start]:
    running: list[Running] = []

    async def begin(settings: str = "", **overrides: Any) -> Running:
        config = tmp_path / "nightkeep.toml"
        config.write_text(settings)
        gateway = await start(load(config, {}), {}, tmp_path / "data", {"port": 0, **overrides})
        running.append(gateway)
        return gateway

    yield begin
    for gateway in running:
        await gateway.close(0)


@pytest.fixture
def token(tmp_path: Path) -> Callable[[], str]:
    return lambda: (tmp_path / "data" / "operator.token").read_text().strip()


async def test_the_token_is_made_once_for_the_gateways_user_only(begin: Start, tmp_path: Path) -> None:
    first = await begin()
    path = tmp_path / "data" / "operator.token"
    text = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await first.close(0)
    await begin()
    assert path.read_text() == text
    assert sorted(each.name for each in path.parent.glob("operator*")) == ["operator.token"]


async def test_a_token_that_others_can_read_is_made_private_again(begin: Start, tmp_path: Path) -> None:
    await (await begin()).close(0)
    path = tmp_path / "data" / "operator.token"
    path.chmod(0o644)
    await begin()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_another_token_holds_at_once_and_the_old_one_no_more(
    begin: Start, token: Callable[[], str], tmp_path: Path
) -> None:
    gateway = await begin()
    old = token()
    renew_token(tmp_path / "data", secrets.token_bytes)
    assert token() != old
    assert stat.S_IMODE((tmp_path / "data" / "operator.token").stat().st_mode) == 0o600
    assert (await ask(gateway, "POST", "/api/reload", bearer(old))).status == 401
    assert (await ask(gateway, "POST", "/api/reload", bearer(token()))).status == 200


@pytest.mark.parametrize("content", [None, "", "x", "nko-" + "0" * 49, "nk-" + "0" * 49])
async def test_without_a_good_token_file_nobody_is_the_operator(
    begin: Start, token: Callable[[], str], tmp_path: Path, content: str | None
) -> None:
    gateway = await begin()
    path = tmp_path / "data" / "operator.token"
    good = token()
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    for shown in (good, content or "", ""):
        assert (await ask(gateway, "POST", "/api/reload", bearer(shown))).status == 401
    path.write_text(good)
    assert (await ask(gateway, "POST", "/api/reload", bearer(good))).status == 200


@pytest.mark.parametrize("content", ["", "x", "nko-" + "0" * 49, "nk-" + "0" * 49, "\x00" * 300])
async def test_an_empty_or_damaged_token_stops_the_start_and_is_no_token(
    begin: Start, tmp_path: Path, content: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "operator.token").write_text(content)
    with pytest.raises(StoreError, match="delete it and start again"):
        await begin()


async def test_on_an_open_gateway_everybody_may_look_and_only_the_operator_may_change(
    begin: Start, token: Callable[[], str]
) -> None:
    gateway = await begin()
    for target in [*FREE, *VIEWS[:5], "/api/me"]:
        assert (await ask(gateway, "GET", target)).status == 200, target
    for method, target in CHANGES:
        refused = await ask(gateway, method, target)
        assert refused.status == 401, target
        assert refused.body["error"]["code"] == "authentication_failed"
        assert "operator.token" in refused.body["error"]["message"]
        assert "www-authenticate: bearer" in refused.headers
    assert (await ask(gateway, "POST", CHANGES[0][1], bearer(token()))).body["status"] == "disabled"


async def test_with_keys_only_the_operator_may_look(begin: Start, token: Callable[[], str]) -> None:
    gateway = await begin(KEYS)
    for target in FREE:
        assert (await ask(gateway, "GET", target)).status == 200, target
    for target in VIEWS:
        assert (await ask(gateway, "GET", target)).status == 401, target
        assert (await ask(gateway, "HEAD", target)).status == 401, target
        assert (await ask(gateway, "GET", target, bearer(AGENT))).status == 403, target
        assert (await ask(gateway, "GET", target, bearer(token()))).status in (200, 404), target
    for method, target in CHANGES:
        assert (await ask(gateway, method, target)).status == 401, target
        refused = await ask(gateway, method, target, bearer(AGENT))
        assert (refused.status, refused.body["error"]["rule"]) == (403, "api.operator"), target
    assert (await ask(gateway, "POST", "/api/route/explain", bearer(AGENT), body=b'{"model": "m"}')).status == 403


PUBLIC = {("get", "/api/health"), ("get", "/api/ready"), ("get", "/api/openapi.json")}
"""What anybody may ask. Whoever adds to it says in docs/keys.md why."""

OF_ONES_OWN = {
    ("get", "/api/me"),
    ("get", "/api/me/budgets"),
    ("post", "/api/quote"),
    ("get", "/api/spend"),
    ("get", "/api/spend/ablation"),
}
"""What a virtual key may ask, about itself. All else is the operator's, also what is added tomorrow."""


async def test_every_operation_that_there_is_asks_who_it_is(begin: Start, token: Callable[[], str]) -> None:
    gateway = await begin(KEYS)
    paths = (await ask(gateway, "GET", "/api/openapi.json")).body["paths"]
    table = {(method, path) for path, methods in paths.items() for method in methods}
    assert PUBLIC | {("get", "/api/me"), ("post", "/api/keys"), ("get", "/api/accounts")} <= table
    for method, path in sorted(table - PUBLIC):
        target = re.sub(r"\{\w+\}", "x", path)
        assert (await ask(gateway, method.upper(), target)).status == 401, (method, path)
        answer = await ask(gateway, method.upper(), target, bearer(AGENT))
        assert (answer.status == 403) == ((method, path) not in OF_ONES_OWN), (method, path)
    for method, path in sorted(table - PUBLIC - OF_ONES_OWN):
        assert paths[path][method]["security"][-1] == {"operator": []}


async def test_a_key_may_read_what_is_its_own(begin: Start, token: Callable[[], str]) -> None:
    gateway = await begin(KEYS)
    mine = await ask(gateway, "GET", "/api/me", bearer(AGENT))
    assert (mine.body["name"], mine.body["scope"], mine.body["models"]) == ("team-a", "acme", ["gpt-*"])
    assert (await ask(gateway, "GET", "/api/me", f"x-api-key: {AGENT}")).body["name"] == "team-a"
    assert (await ask(gateway, "GET", "/api/me")).status == 401
    assert (await ask(gateway, "GET", "/api/me", bearer("nk-other"))).status == 401
    assert (await ask(gateway, "GET", "/api/me", bearer(token()))).body["is_operator"]


async def test_what_is_open_names_no_account_where_keys_are_asked_for(begin: Start, token: Callable[[], str]) -> None:
    gateway = await begin(KEYS)
    await ask(gateway, "POST", "/api/accounts/sim-1/disable", bearer(token()))
    assert (await ask(gateway, "GET", "/api/ready")).body == {
        "ready": False, "accounts_available": 0, "accounts": 1, "problems": []
    }  # fmt: skip
    assert (await ask(gateway, "GET", "/api/ready", bearer(token()))).body["problems"]


@pytest.mark.parametrize(
    "forged",
    [
        "authorization: Bearer", "authorization: Bearer ", "authorization: {token}", "authorization: Basic {token}",
        "authorization: Bearer {token}x", "authorization: Bearer {half}", "authorization: Bearer {swapped}",
        "authorization: Bearer nko-", "authorization: Bearer null", "authorization: Bearer {token}, Bearer {token}",
        "authorization: Bearer {token}\x00", "x-nightkeep-operator: 1", "x-forwarded-for: 127.0.0.1",
        "x-original-url: /api/health", "x-http-method-override: GET", "cookie: token={token}",
    ],
)  # fmt: skip
async def test_nothing_but_the_token_is_the_token(begin: Start, token: Callable[[], str], forged: str) -> None:
    gateway = await begin()
    text = token()
    line = forged.format(token=text, half=text[:-6], swapped=text.swapcase())
    assert (await ask(gateway, "POST", "/api/accounts/sim-1/disable", line)).status in (400, 401)
    assert gateway.accounts()[0].status == "available"


@pytest.mark.parametrize(
    "target",
    [
        "/api//reload", "//api/reload", "/API/reload", "/api/./reload", "/api/health/../reload", "/api/%72eload",
        "/api/health%2f..%2freload", "/api/reload/", "/api/reload?token=x", "http://127.0.0.1/api/reload",
        "/api/reload;x", "/v1/../api/reload", "/api/keys/a%2frotate", "/api/me/../keys",
    ],
)  # fmt: skip
async def test_no_spelling_of_a_path_gets_around_the_token(begin: Start, target: str) -> None:
    gateway = await begin(KEYS)
    for method in ("POST", "PUT", "DELETE", "PATCH", "get", "GET"):
        assert (await ask(gateway, method, target, bearer(AGENT))).status in (400, 401, 403, 404, 405), method


async def test_beyond_loopback_looking_needs_the_token_too_even_where_no_key_is_asked_for(
    begin: Start, token: Callable[[], str]
) -> None:
    gateway = await begin('[gateway]\nrequire_key = "never"', host="0.0.0.0")
    assert (await ask(gateway, "GET", "/api/health", "host: gateway.internal:7777")).status == 200
    assert (await ask(gateway, "GET", "/api/accounts", "host: gateway.internal:7777")).status == 401
    assert (await ask(gateway, "GET", "/api/accounts", "host: gateway.internal:7777", bearer(token()))).status == 200
    assert (await ask(gateway, "POST", "/api/reload")).status == 401


HOSTS = [
    "evil.example", "evil.example:7777", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example#127.0.0.1",
    "127.0.0.1@evil.example", "localhost:7777@evil.example", "evil.example:127.0.0.1", "localhost:", "localhost:x",
    "127.0.0.1, evil.example", "[::1].evil.example", "[::2]", "localhost ", "0x7f000001", "2130706433", "127.1",
    "0.0.0.0", "localhost\x00", "l\xf6calhost", "[::1", "localhost.", "127.0.0.1:777777",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
async def test_a_name_that_is_not_this_hosts_is_told_nothing(begin: Start, host: str) -> None:
    gateway = await begin()
    answer = await ask(gateway, "GET", "/api/accounts", f"host: {host}")
    assert answer.status in (400, 403)


@pytest.mark.parametrize("host", ["127.0.0.1", "LOCALHOST:7777", "localhost", "[::1]:7777", "127.0.0.1:80"])
async def test_this_hosts_own_names_are_served(begin: Start, host: str) -> None:
    gateway = await begin()
    assert (await ask(gateway, "GET", "/api/accounts", f"host: {host}")).status == 200


async def test_two_host_headers_are_refused(begin: Start) -> None:
    gateway = await begin()
    answer = await ask(gateway, "GET", "/api/accounts", "host: 127.0.0.1", "host: evil.example")
    assert answer.status in (400, 403)


ORIGINS = [
    "null", "NULL", "http://evil.example", "HTTP://EVIL.EXAMPLE", "https://127.0.0.1.evil.example", "http://127.0.0.1:1",
    "http://localhost:7777", "http://127.0.0.1:{port}@evil.example", "http://evil.example/127.0.0.1:{port}",
    "file://127.0.0.1:{port}", "ftp://127.0.0.1:{port}", "//127.0.0.1:{port}", "127.0.0.1:{port}", "",
    "http://127.0.0.1:{port}, http://evil.example", "http://127.0.0.1:{port}/", "http://127.0.0.1", "http://[::1]:{port}",
    "chrome-extension://127.0.0.1:{port}",
]  # fmt: skip


@pytest.mark.parametrize("origin", ORIGINS)
async def test_a_page_of_another_origin_changes_nothing_even_with_the_token(
    begin: Start, token: Callable[[], str], origin: str
) -> None:
    gateway = await begin()
    port = gateway.address.rsplit(":", 1)[1]
    lines = [f"host: 127.0.0.1:{port}", f"origin: {origin.format(port=port)}", bearer(token())]
    for more in ([], ["content-type: text/plain"], ["sec-fetch-site: same-origin"]):
        refused = await ask(gateway, "POST", "/api/accounts/sim-1/disable", *lines, *more)
        assert (refused.status, refused.body["error"]["rule"]) == (403, "api.origin")
    assert gateway.accounts()[0].status == "available"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "CROSS-SITE", "", "nonsense", "same-origin, cross-site"])
async def test_what_a_browser_says_comes_from_another_site_is_refused(
    begin: Start, token: Callable[[], str], site: str
) -> None:
    gateway = await begin()
    for method, target in (("GET", "/api/accounts"), ("POST", "/api/reload")):
        answer = await ask(gateway, method, target, f"sec-fetch-site: {site}", bearer(token()))
        assert (answer.status, answer.body["error"]["rule"]) == (403, "api.origin")
    followed = ["sec-fetch-site: cross-site", "sec-fetch-mode: navigate"]
    assert (await ask(gateway, "GET", "/api/accounts", *followed)).status == 200
    assert (await ask(gateway, "POST", "/api/reload", *followed, bearer(token()))).status == 403


async def test_the_gateways_own_pages_may_change_things(begin: Start, token: Callable[[], str]) -> None:
    gateway = await begin()
    port = gateway.address.rsplit(":", 1)[1]
    own = [f"host: localhost:{port}", f"origin: http://localhost:{port}", "sec-fetch-site: same-origin"]
    assert (await ask(gateway, "POST", "/api/reload", *own, bearer(token()))).status == 200
    assert (await ask(gateway, "POST", "/api/reload", *own)).status == 401


CHAT = json.dumps({"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}]}).encode()
PAGES = [
    ["origin: http://evil.example"], ["origin: null"], ["origin: http://evil.example:7777", "host: evil.example:7777"],
    ["origin: https://localhost.evil.example"], ["sec-fetch-site: cross-site"], ["origin: HTTPS://EVIL.EXAMPLE"],
    ["origin: http://127.0.0.1, http://evil.example"], ["origin: http://localhost@evil.example"],
]  # fmt: skip


@pytest.mark.parametrize("lines", PAGES, ids=str)
async def test_a_page_of_another_site_cannot_spend_an_open_gateways_money(begin: Start, lines: list[str]) -> None:
    gateway = await begin()
    assert gateway.sim is not None
    for more in ([], ["content-type: text/plain"]):
        assert (await ask(gateway, "POST", "/v1/chat/completions", *lines, *more, body=CHAT)).status == 403
    assert not len(gateway.sim.log)


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1", "vscode-webview://abc", "app://ui"])
async def test_pages_of_this_machine_and_desktop_programs_are_served(begin: Start, origin: str) -> None:
    gateway = await begin()
    assert (await ask(gateway, "POST", "/v1/chat/completions", f"origin: {origin}", body=CHAT)).status == 200


async def test_where_keys_are_asked_for_a_page_that_has_one_is_served(begin: Start) -> None:
    gateway = await begin(KEYS)
    lines = ["origin: https://app.example", bearer(AGENT)]
    assert (await ask(gateway, "POST", "/v1/chat/completions", *lines, body=CHAT)).status == 200


async def test_the_operators_token_is_no_key_to_the_models(begin: Start, token: Callable[[], str]) -> None:
    gateway = await begin(KEYS)
    answer = await ask(gateway, "POST", "/v1/chat/completions", bearer(token()), body=CHAT)
    assert answer.status == 401
    assert token() not in str(answer)
