"""What is sent to each vendor: the whole request, as a snapshot, and what is never sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.core.errors import RequestError
from nightkeep.models.credentials import Secret
from nightkeep.models.providers import PROVIDERS, AuthStyle, custom_provider
from nightkeep.models.upstream import AccountAccess, UpstreamAccount, UpstreamRequest
from nightkeep.models.wire.base import Operation, Wire

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SNAPSHOT = Path(__file__).parent / "snapshots" / "upstream_requests.txt"
BODY = b'{"model":"m-1","stream":true,"messages":[{"role":"user","content":"hi"}],"x_new": 1.50}'
CLIENT = {
    "authorization": "Bearer the-clients-own",
    "x-api-key": "the-clients-own",
    "cookie": "a=b",
    "host": "127.0.0.1:7777",
    "connection": "keep-alive",
    "anthropic-beta": "tools-2026, cache-2026",
    "openai-beta": "assistants=v2",
    "x-nightkeep-scope": "acme",
}


def account(provider: str, **more: str) -> UpstreamAccount:
    spec = PROVIDERS[provider]
    secret = None if spec.is_local else Secret("AKIAEXAMPLE:aws-secret" if spec.auth is AuthStyle.SIGV4 else "the-key")
    details = {
        "azure": {"base_url": "https://acme.openai.azure.com"},
        "bedrock": {"region": "eu-west-1"},
        "vertex": {"project": "acme-1", "location": "europe-west4"},
    }.get(provider, {})
    return UpstreamAccount(AccountAccess(name=f"{provider}-1", provider=spec, secret=secret, **{**details, **more}))


def send(
    each: UpstreamAccount, wire: Wire, operation: Operation, model: str = "m-1", *, stream: bool = False
) -> UpstreamRequest:
    return each.request(wire, operation, model, BODY, stream=stream, client_headers=CLIENT, now=NOW)


def shown(request: UpstreamRequest) -> str:
    origin = f"{request.origin.scheme}://{request.origin.host}:{request.origin.port}"
    head = request.headers.decode().replace("\r\n", "\n  ")
    frames = " (frames)" if request.is_event_stream else ""
    return f"{request.method} {origin}{request.target}{frames}\n  {head}{request.body.decode()}\n"


def everything() -> str:
    lines = []
    for name, spec in PROVIDERS.items():
        each = account(name)
        for endpoint in spec.endpoints:
            for operation in Operation:
                for stream in (False, True):
                    if not endpoint.path(operation, stream=stream) or (stream and operation is not Operation.CHAT):
                        continue
                    lines.append(f"# {name} {endpoint.wire} {operation}{' streamed' if stream else ''}")
                    lines.append(shown(send(each, endpoint.wire, operation, stream=stream)))
        listing = each.list_request(NOW)
        lines.append(f"# {name} list")
        lines.append(shown(listing) if listing else "none\n")
    return "\n".join(lines)


def test_the_requests_of_all_vendors_are_as_recorded() -> None:
    """After a change that is meant: delete the file, run this once, and read the difference."""
    if not SNAPSHOT.exists():
        SNAPSHOT.parent.mkdir(exist_ok=True)
        SNAPSHOT.write_text(everything())
    assert everything() == SNAPSHOT.read_text()


def test_there_are_the_sixteen_vendors() -> None:
    assert set(PROVIDERS) == {
        "openai", "anthropic", "gemini", "azure", "vertex", "bedrock", "openrouter", "deepseek", "mistral", "groq",
        "xai", "together", "fireworks", "ollama", "vllm", "lmstudio",
    }  # fmt: skip


@pytest.mark.parametrize("name", list(PROVIDERS))
def test_nothing_of_the_clients_own_is_passed_on(name: str) -> None:
    each = account(name)
    for wire in each.wires:
        text = shown(send(each, wire, Operation.CHAT))
        assert "the-clients-own" not in text
        assert "cookie" not in text
        assert "127.0.0.1:7777" not in text
        assert "x-nightkeep" not in text


def test_beta_headers_reach_the_wire_that_knows_them() -> None:
    assert (
        b"anthropic-beta: tools-2026, cache-2026\r\n"
        in send(account("anthropic"), Wire.ANTHROPIC_MESSAGES, Operation.CHAT).headers
    )
    assert b"beta" not in send(account("groq"), Wire.OPENAI_CHAT, Operation.CHAT).headers.replace(b"openai-beta", b"")


def test_a_clients_header_cannot_begin_another() -> None:
    request = account("anthropic").request(
        Wire.ANTHROPIC_MESSAGES,
        Operation.CHAT,
        "m",
        b"{}",
        client_headers={"anthropic-beta": "a\r\nx-api-key: b"},
        now=NOW,
    )
    assert b"anthropic-beta" not in request.headers


def test_bedrock_and_vertex_have_the_version_in_the_body_and_the_model_in_the_path() -> None:
    bedrock = send(account("bedrock"), Wire.ANTHROPIC_MESSAGES, Operation.CHAT, "us.anthropic.claude-4:0", stream=True)
    assert bedrock.target == "/model/us.anthropic.claude-4%3A0/invoke-with-response-stream"
    body = msgspec.json.decode(bedrock.body)
    assert body["anthropic_version"] == "bedrock-2023-05-31"
    assert body["anthropic_beta"] == ["tools-2026", "cache-2026"]
    assert not {"model", "stream"} & set(body)
    assert b'"x_new":1.50' in bedrock.body  # what is not ours to change stays as it was, to the byte
    vertex = send(account("vertex"), Wire.ANTHROPIC_MESSAGES, Operation.CHAT, "claude-opus-4@20250514", stream=True)
    assert vertex.target.endswith("/publishers/anthropic/models/claude-opus-4@20250514:streamRawPredict")
    body = msgspec.json.decode(vertex.body)
    assert body["anthropic_version"] == "vertex-2023-10-16"
    assert body["stream"] is True
    assert "model" not in body


def test_vertex_has_one_address_for_the_world() -> None:
    request = send(account("vertex", location="global"), Wire.GEMINI, Operation.CHAT)
    assert request.origin.host == "aiplatform.googleapis.com"
    assert "/locations/global/" in request.target


def test_azure_takes_its_endpoint_with_or_without_the_path_and_the_deployments_name() -> None:
    for base_url in ("https://acme.openai.azure.com", "https://acme.openai.azure.com/openai/v1"):
        request = send(account("azure", base_url=base_url, deployment="prod-gpt"), Wire.OPENAI_CHAT, Operation.CHAT)
        assert request.target == "/openai/v1/chat/completions"
        assert msgspec.json.decode(request.body)["model"] == "prod-gpt"
    dated = send(account("azure", deployment="d", api_version="2024-10-21"), Wire.OPENAI_CHAT, Operation.CHAT)
    assert dated.target == "/openai/deployments/d/chat/completions?api-version=2024-10-21"


@pytest.mark.parametrize(
    ("wire", "base_url", "address"),
    [
        (Wire.ANTHROPIC_MESSAGES, "http://h:1", "/v1/messages"),
        (Wire.ANTHROPIC_MESSAGES, "http://h:1/v1", "/v1/messages"),
        (Wire.ANTHROPIC_MESSAGES, "http://h:1/x/v1/", "/x/v1/messages"),
        (Wire.OPENAI_CHAT, "http://h:1/v1", "/v1/chat/completions"),
        (Wire.GEMINI, "http://h:1/v1beta", "/v1beta/models/m-1:generateContent"),
        (Wire.GEMINI, "http://h:1", "/v1beta/models/m-1:generateContent"),
    ],
)
def test_a_custom_base_url_may_have_the_version_or_not(wire: Wire, base_url: str, address: str) -> None:
    spec = custom_provider("lab", wire, base_url)
    request = send(UpstreamAccount(AccountAccess(name="lab-1", provider=spec)), wire, Operation.CHAT)
    assert request.target == address
    assert request.origin == ("http", "h", 1)
    assert b"host: h:1\r\n" in request.headers


def test_at_another_base_url_a_wire_with_an_address_of_its_own_is_not_offered() -> None:
    assert account("deepseek", base_url="http://h:1").wires == (Wire.OPENAI_CHAT,)
    assert account("deepseek").wires == (Wire.OPENAI_CHAT, Wire.ANTHROPIC_MESSAGES)


def test_what_a_vendor_does_not_take_is_dropped_and_reported_or_renamed() -> None:
    body = b'{"model":"m","max_completion_tokens":5,"seed":7,"user":"u","messages":[]}'
    adapted, stripped = account("mistral").adapt(Wire.OPENAI_CHAT, body)
    assert msgspec.json.decode(adapted) == {"model": "m", "messages": [], "max_tokens": 5, "random_seed": 7}
    assert [each.name for each in stripped] == ["user"]
    assert account("openai").adapt(Wire.OPENAI_CHAT, body) == (body, ())


@given(st.text(max_size=60))
def test_no_model_name_leaves_its_place_in_the_path(model: str) -> None:
    each = account("bedrock")
    try:
        request = each.request(Wire.ANTHROPIC_MESSAGES, Operation.CHAT, model, b"{}", client_headers={}, now=NOW)
    except RequestError:
        return
    assert request.target.isascii()
    assert request.target.count("/") == 3
    assert not set(request.target) & set("?# \r\n")


def test_an_operation_that_is_not_offered_is_refused_by_name() -> None:
    with pytest.raises(RequestError, match="Groq does not offer embed"):
        send(account("groq"), Wire.OPENAI_CHAT, Operation.EMBED)


def test_a_google_token_is_fetched_before_it_runs_out() -> None:
    file = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
    spec = PROVIDERS["vertex"]
    secret = Secret(msgspec.json.encode(file).decode())
    each = UpstreamAccount(AccountAccess(name="v", provider=spec, secret=secret, project="p", location="l"))
    assert each.needs_token(NOW)
    request = each.token_request(NOW)
    assert request.origin.host == "oauth2.googleapis.com"
    assert each.accept_token(200, b'{"access_token":"ya29.x","expires_in":3600}', NOW)
    assert not each.needs_token(NOW + timedelta(minutes=54))
    assert each.needs_token(NOW + timedelta(minutes=56))
    assert b"authorization: Bearer ya29.x\r\n" in send(each, Wire.GEMINI, Operation.CHAT).headers


def test_what_is_remembered_of_model_names_is_bounded() -> None:
    each = account("gemini")
    for number in range(3_000):
        send(each, Wire.GEMINI, Operation.CHAT, f"m-{number}")
    assert len(each._routes) <= 1024


@pytest.mark.parametrize(
    ("provider", "model", "client", "wire"),
    [
        ("openai", "gpt-5", Wire.ANTHROPIC_MESSAGES, Wire.OPENAI_CHAT),
        ("openai", "gpt-5", Wire.OPENAI_RESPONSES, Wire.OPENAI_RESPONSES),
        ("openrouter", "x/y", Wire.ANTHROPIC_MESSAGES, Wire.ANTHROPIC_MESSAGES),
        ("vertex", "claude-opus-4", Wire.GEMINI, Wire.ANTHROPIC_MESSAGES),
        ("vertex", "gemini-2.5-pro", Wire.ANTHROPIC_MESSAGES, Wire.GEMINI),
        ("bedrock", "openai.gpt-oss-120b-1:0", Wire.ANTHROPIC_MESSAGES, Wire.OPENAI_CHAT),
        ("gemini", "gemini-2.5-pro", Wire.OPENAI_CHAT, Wire.OPENAI_CHAT),
    ],
)
def test_the_clients_own_wire_is_taken_where_the_vendor_speaks_it(
    provider: str, model: str, client: Wire, wire: Wire
) -> None:
    assert PROVIDERS[provider].wire_for(model, Operation.CHAT, client) is wire
