"""From an account and a call to the request that is sent: address, headers, and what a host wants changed in a body.

Pure: whoever sends it is ``nightkeep.models.transport``; the body comes from a codec of ``nightkeep.models.wire``.
All that is the same for each request of an account for a model is put together once, since this runs for every
attempt. Of the client's headers only those named here are passed on: never its key, its cookies, or what belongs
to its own connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec

from nightkeep.core.errors import ConfigError, RequestError
from nightkeep.models.credentials import Secret
from nightkeep.models.provider_spec import AuthStyle, Endpoint, ProviderSpec
from nightkeep.models.signing import (
    AwsKeys,
    GoogleKeys,
    parse_aws_keys,
    parse_google_keys,
    read_access_token,
    sign_aws,
    token_form,
)
from nightkeep.models.transport import Origin
from nightkeep.models.wire.base import Operation, Stripped, Wire

__all__ = ["AccountAccess", "UpstreamAccount", "UpstreamRequest", "upstream_request"]

_FORWARDED: Final[Mapping[Wire, tuple[str, ...]]] = {
    Wire.OPENAI_CHAT: ("openai-beta",),
    Wire.OPENAI_RESPONSES: ("openai-beta",),
    Wire.ANTHROPIC_MESSAGES: ("anthropic-beta",),
    Wire.GEMINI: (),
}
_KEY_HEADERS: Final = {
    AuthStyle.BEARER: ("authorization", "Bearer "),
    AuthStyle.X_API_KEY: ("x-api-key", ""),
    AuthStyle.X_GOOG_API_KEY: ("x-goog-api-key", ""),
    AuthStyle.API_KEY: ("api-key", ""),
}
_MOST_ROUTES: Final = 1024  # model names come from clients: what is remembered of them is bounded
_TOKEN_MARGIN: Final = timedelta(seconds=300)
_USER_AGENT: Final = "nightkeep"

BodyChange = Callable[[bytes, Mapping[str, str]], bytes]


class AccountAccess(msgspec.Struct, frozen=True, kw_only=True):
    """How an account reaches its provider."""

    name: str
    provider: ProviderSpec
    secret: Secret | None = None
    base_url: str | None = None  # in place of the provider's
    region: str | None = None  # Bedrock
    project: str | None = None  # Vertex
    location: str | None = None  # Vertex; "global" is one
    deployment: str | None = None  # Azure: the name that its models have there
    api_version: str | None = None  # Azure: a dated API instead of /openai/v1


class UpstreamRequest(NamedTuple):
    """A request as ``transport.HttpClient.send`` takes it."""

    origin: Origin
    method: str
    target: str  # path and query, percent-encoded
    headers: bytes  # ready lines, without framing headers
    body: bytes
    is_event_stream: bool = False  # the streamed answer is AWS frames: read it with ``EventStreamDecoder``


class _Route(NamedTuple):
    origin: Origin
    target: str
    head: bytes
    forwarded: tuple[str, ...]
    change: BodyChange | None
    is_event_stream: bool


class UpstreamAccount:
    """One account, ready to make requests. Holds an access token where the provider wants one, and no other state."""

    def __init__(self, access: AccountAccess) -> None:
        """Raises ConfigError where the key cannot be used in the way that the provider asks."""
        self.access = access
        self.spec = access.provider
        self._routes: dict[tuple[Wire, Operation, str, bool], _Route] = {}
        self._aws: AwsKeys | None = None
        self._google: GoogleKeys | None = None
        self._token: Secret | None = None
        self._token_until: datetime | None = None
        self._read_secret()

    def _read_secret(self) -> None:
        secret = self.access.secret
        if secret is None:
            return
        if self.spec.auth is AuthStyle.GOOGLE_OAUTH:
            self._google = parse_google_keys(secret)
            self._token = secret if self._google is None else None
        if self._google is None and not (secret.reveal().isascii() and secret.reveal().isprintable()):
            raise ConfigError(f"the key {secret.fingerprint} cannot stand in a header", fix="copy it again")
        if self.spec.auth is AuthStyle.SIGV4:
            self._aws = parse_aws_keys(secret)

    @property
    def wires(self) -> tuple[Wire, ...]:
        """The wires that can be spoken with this account: at another base URL only those that stand there."""
        if self.access.base_url is None or self.spec.id == "azure":
            return self.spec.wires
        return tuple(each.wire for each in self.spec.endpoints if each.base_url is None)

    # -- tokens

    def needs_token(self, now: datetime) -> bool:
        """An access token must be fetched before the next request."""
        return self._google is not None and (self._token_until is None or now >= self._token_until)

    def token_request(self, now: datetime) -> UpstreamRequest:
        """The request for an access token. Raises ConfigError where it cannot be signed."""
        assert self._google is not None
        origin, path = _split(self._google.token_url)
        head = _lines([("host", _host(origin)), ("content-type", "application/x-www-form-urlencoded")])
        return UpstreamRequest(origin, "POST", path, head, token_form(self._google, now))

    def accept_token(self, status: int, body: bytes, now: datetime) -> bool:
        """Take the answer; False where it gives no token (401 and 400: the key was revoked)."""
        token = read_access_token(status, body)
        if token is None:
            return False
        self._token = token.secret
        self._token_until = now + max(timedelta(seconds=token.expires_in_s) - _TOKEN_MARGIN, timedelta(seconds=30))
        return True

    # -- requests

    def request(
        self,
        wire: Wire,
        operation: Operation,
        model: str,
        body: bytes,
        *,
        stream: bool = False,
        client_headers: Mapping[str, str],
        now: datetime,
    ) -> UpstreamRequest:
        """The request for one attempt.

        Args:
            model: the provider's own name for it; it is also in the body already, where the wire has it there.
            client_headers: names in lower case.

        Raises:
            RequestError: the operation does not exist here, or the model's name cannot stand in a path.
        """
        key = (wire, operation, model, stream)
        route = self._routes.get(key)
        if route is None:
            route = self._remember(key)
        head = route.head
        for name in route.forwarded:
            value = client_headers.get(name)
            if value is not None and value.isascii() and value.isprintable():
                head += f"{name}: {value}\r\n".encode("ascii")
        if route.change is not None:
            body = route.change(body, client_headers)
        if self._aws is not None or self._token is not None or self._google is not None:
            head += self._signature(route, body, now)
        return UpstreamRequest(route.origin, "POST", route.target, head, body, route.is_event_stream)

    def list_request(self, now: datetime) -> UpstreamRequest | None:
        """The request that lists the models: it costs nothing. None where there is no such list."""
        if self.spec.auth is AuthStyle.SIGV4:
            origin = Origin("https", f"bedrock.{self.access.region}.amazonaws.com", 443)
            if self.access.base_url is not None:
                origin = _split(self.access.base_url)[0]
            target = "/foundation-models"
        else:
            endpoint = self.spec.endpoints[0]
            if not endpoint.models:
                return None
            origin, target = _split(_join(self._base(endpoint), endpoint.models))
        route = _Route(origin, target, self._head(origin, self.spec.endpoints[0]), (), None, False)
        head = route.head
        if self._aws is not None or self._token is not None:
            head += self._signature(route, b"", now, method="GET")
        return UpstreamRequest(origin, "GET", target, head, b"")

    def adapt(self, wire: Wire, body: bytes) -> tuple[bytes, tuple[Stripped, ...]]:
        """Drop and rename the fields that this vendor, unlike the wire's inventor, does not take; and say which."""
        spec = self.spec
        if wire is not spec.endpoints[0].wire or not (spec.unsupported or spec.renamed):
            return body, ()
        suspects = [name for name in spec.unsupported if b'"%b"' % name.encode() in body]
        renamed = [pair for pair in spec.renamed if b'"%b"' % pair[0].encode() in body]
        if not suspects and not renamed:
            return body, ()
        fields = _fields(body)
        stripped = [name for name in suspects if fields.pop(name, None) is not None]
        for old, new in renamed:
            value = fields.pop(old, None)
            if value is not None:
                fields.setdefault(new, value)
        reason = f"{spec.title} does not take it"
        return msgspec.json.encode(fields), tuple(Stripped(name=name, reason=reason) for name in stripped)

    def _remember(self, key: tuple[Wire, Operation, str, bool]) -> _Route:
        route = self._route(*key)
        if len(self._routes) >= _MOST_ROUTES:
            self._routes.clear()
        self._routes[key] = route
        return route

    def _route(self, wire: Wire, operation: Operation, model: str, stream: bool) -> _Route:
        endpoint = self.spec.endpoint(wire)
        path = endpoint.path(operation, stream=stream) if endpoint is not None else ""
        if endpoint is None or not path:
            raise RequestError(f"{self.spec.title} does not offer {operation} on the wire {wire}")
        origin, target = _split(self._address(endpoint, path, model))
        return _Route(
            origin,
            target,
            self._head(origin, endpoint),
            _FORWARDED[wire],
            self._body_change(endpoint, stream),
            endpoint.is_event_stream and stream,
        )

    def _address(self, endpoint: Endpoint, path: str, model: str) -> str:
        access = self.access
        if access.api_version is not None and self.spec.id == "azure":
            middle = "" if path.startswith("/responses") else f"/deployments/{_in_path(access.deployment or model)}"
            root = (access.base_url or "").removesuffix("/openai/v1")
            return f"{root}/openai{middle}{path}?api-version={quote(access.api_version)}"
        filled = path.format(model=_in_path(model), project=access.project, location=access.location)
        return _join(self._base(endpoint), filled)

    def _base(self, endpoint: Endpoint) -> str:
        access = self.access
        if self.spec.id == "azure":
            return (access.base_url or "").removesuffix("/").removesuffix("/openai/v1") + "/openai/v1"
        if access.base_url is not None:
            return access.base_url
        if self.spec.id == "vertex" and access.location == "global":
            return "https://aiplatform.googleapis.com"
        return (endpoint.base_url or self.spec.base_url).format(region=access.region, location=access.location)

    def _head(self, origin: Origin, endpoint: Endpoint) -> bytes:
        headers = [
            ("host", _host(origin)),
            ("content-type", "application/json"),
            ("accept", "*/*"),
            ("accept-encoding", "identity"),
            ("user-agent", _USER_AGENT),
            *self.spec.headers,
        ]
        auth = endpoint.auth or self.spec.auth
        secret = self.access.secret
        if secret is not None and auth in _KEY_HEADERS:
            name, prefix = _KEY_HEADERS[auth]
            headers.append((name, prefix + secret.reveal()))
        elif secret is not None and auth is AuthStyle.SIGV4 and self._aws is None:
            headers.append(("authorization", f"Bearer {secret.reveal()}"))
        return _lines(headers)

    def _body_change(self, endpoint: Endpoint, stream: bool) -> BodyChange | None:
        if endpoint.body_version:
            version, is_framed = endpoint.body_version, endpoint.is_event_stream
            return lambda body, headers: hosted_body(body, version, headers, is_framed=is_framed)
        deployment = self.access.deployment
        if deployment is not None:
            return lambda body, _: deployed_body(body, deployment)
        return None

    def _signature(self, route: _Route, body: bytes, now: datetime, method: str = "POST") -> bytes:
        if self._aws is None:
            if self._token is None:
                raise ConfigError(f"account {self.access.name} has no access token yet", fix="fetch one first")
            return f"authorization: Bearer {self._token.reveal()}\r\n".encode("ascii")
        return _lines(
            sign_aws(
                self._aws,
                method=method,
                target=route.target,
                headers=[("host", _host(route.origin)), ("content-type", "application/json")],
                body=body,
                region=self.access.region or "us-east-1",
                service="bedrock",
                now=now,
            )
        )


def upstream_request(
    account: UpstreamAccount,
    wire: Wire,
    operation: Operation,
    model: str,
    body: bytes,
    *,
    stream: bool,
    client_headers: Mapping[str, str],
    now: datetime,
) -> UpstreamRequest:
    """``account.request`` as a function."""
    return account.request(wire, operation, model, body, stream=stream, client_headers=client_headers, now=now)


def hosted_body(body: bytes, version: str, client_headers: Mapping[str, str], *, is_framed: bool) -> bytes:
    """Anthropic's request as Vertex and Bedrock want it: the version in the body, the model in the path alone.

    Bedrock (``is_framed``) has no ``stream`` field, and takes the beta names in the body too.
    """
    fields = _fields(body)
    fields.pop("model", None)
    fields["anthropic_version"] = msgspec.Raw(msgspec.json.encode(version))
    if is_framed:
        fields.pop("stream", None)
        betas = [name.strip() for name in client_headers.get("anthropic-beta", "").split(",") if name.strip()]
        if betas:
            fields["anthropic_beta"] = msgspec.Raw(msgspec.json.encode(betas))
    return msgspec.json.encode(fields)


def deployed_body(body: bytes, deployment: str) -> bytes:
    """The same request for a deployment by that name."""
    fields = _fields(body)
    fields["model"] = msgspec.Raw(msgspec.json.encode(deployment))
    return msgspec.json.encode(fields)


def _fields(body: bytes) -> dict[str, msgspec.Raw]:
    """A body's fields, each as the bytes that it was."""
    try:
        return _FIELDS.decode(body)
    except msgspec.MsgspecError as error:
        raise RequestError("the request's body is not a JSON object") from error


_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _in_path(model: str) -> str:
    name = model.removeprefix("models/")
    if name in {"", ".", ".."}:
        raise RequestError(f"the model name {model!r} cannot stand in a path")
    return quote(name, safe="@")


def _join(base: str, path: str) -> str:
    """Base and path, once only the version that both may have (``…/v1`` and ``/v1/messages``)."""
    base = base.rstrip("/")
    version = "/" + path.split("/", 2)[1]
    return base + (path.removeprefix(version) if version.startswith("/v1") and base.endswith(version) else path)


def _split(url: str) -> tuple[Origin, str]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Origin(parts.scheme, parts.hostname or "", port), target


def _host(origin: Origin) -> str:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    is_usual = origin.port == (443 if origin.scheme == "https" else 80)
    return host if is_usual else f"{host}:{origin.port}"


def _lines(headers: list[tuple[str, str]]) -> bytes:
    return "".join([f"{name}: {value}\r\n" for name, value in headers]).encode("ascii")
