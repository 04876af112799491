"""Signatures: AWS Signature Version 4 and Google's service-account tokens. Pure: a request in, headers out.

The frames in which Bedrock streams are ``nightkeep.models.event_stream``'s, the use of all this
``nightkeep.models.upstream``'s. The algorithm is that of AWS's "Create a signed request" page, held to AWS's own
published test vectors; RS256 needs the ``cryptography`` package (``pip install nightkeep[vertex]``).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote, urlencode

import msgspec

from nightkeep.core.errors import ConfigError
from nightkeep.models.credentials import Secret

__all__ = [
    "TOKEN_URL",
    "AccessToken",
    "AwsKeys",
    "GoogleKeys",
    "parse_aws_keys",
    "parse_google_keys",
    "read_access_token",
    "sign_aws",
    "token_form",
]

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_UNRESERVED: Final = "-_.~"
TOKEN_URL: Final = "https://oauth2.googleapis.com/token"
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_TOKEN_LIFE_S: Final = 3600


class AwsKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Who signs."""

    access_key_id: str
    secret: Secret
    session_token: Secret | None = None


def parse_aws_keys(secret: Secret) -> AwsKeys | None:
    """Read ``ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN]``; None when it is something else (a bearer token)."""
    parts = secret.reveal().split(":", 2)
    if len(parts) < 2 or not parts[0].startswith(("AKIA", "ASIA")):
        return None
    return AwsKeys(
        access_key_id=parts[0], secret=Secret(parts[1]), session_token=Secret(parts[2]) if len(parts) == 3 else None
    )


def sign_aws(
    keys: AwsKeys,
    *,
    method: str,
    target: str,
    headers: Sequence[tuple[str, str]],
    body: bytes,
    region: str,
    service: str,
    now: datetime,
) -> list[tuple[str, str]]:
    """The headers to add to a request: ``x-amz-date``, the session token if there is one, ``authorization``.

    Args:
        target: path and query as they are sent.
        headers: all that are to be signed, ``host`` among them.
    """
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    added = [("x-amz-date", stamp)]
    if keys.session_token is not None:
        added.append(("x-amz-security-token", keys.session_token.reveal()))
    canonical, signed_names = _canonical_request(method, target, [*headers, *added], body)
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    to_sign = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = _signing_key(keys.secret, stamp[:8], region, service)
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    credential = f"{keys.access_key_id}/{scope}"
    value = f"{_ALGORITHM} Credential={credential}, SignedHeaders={signed_names}, Signature={signature}"
    return [*added, ("authorization", value)]


def _canonical_request(method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes) -> tuple[str, str]:
    path, _, query = target.partition("?")
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name.lower(), []).append(" ".join(value.split()))
    names = sorted(values)
    lines = "".join(f"{name}:{','.join(values[name])}\n" for name in names)
    signed = ";".join(names)
    uri = quote(path or "/", safe="/" + _UNRESERVED)  # what is sent is encoded once more, except by S3
    payload = hashlib.sha256(body).hexdigest()
    return f"{method}\n{uri}\n{_canonical_query(query)}\n{lines}\n{signed}\n{payload}", signed


def _canonical_query(query: str) -> str:
    pairs = []
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        pairs.append((quote(unquote(name), safe=_UNRESERVED), quote(unquote(value), safe=_UNRESERVED)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


@lru_cache(maxsize=64)
def _signing_key(secret: Secret, day: str, region: str, service: str) -> bytes:
    key = b"AWS4" + secret.reveal().encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


class GoogleKeys(msgspec.Struct, frozen=True, kw_only=True):
    """What an access token is exchanged for: a service account's key, or a user's refresh token."""

    kind: str  # service_account | authorized_user
    token_url: str = TOKEN_URL
    email: str = ""
    key_id: str = ""
    private_key: Secret | None = None
    client_id: str = ""
    client_secret: Secret | None = None
    refresh_token: Secret | None = None


class _GoogleFile(msgspec.Struct):
    type: str
    token_uri: str = TOKEN_URL
    client_email: str = ""
    private_key_id: str = ""
    private_key: str = ""
    client_id: str = ""
    client_secret: str = ""
    refresh_token: str = ""


def parse_google_keys(secret: Secret) -> GoogleKeys | None:
    """Read the JSON of a service account or of ``gcloud auth application-default login``; None if it is no JSON
    (then it is an access token, for example of ``cmd:gcloud auth print-access-token``).

    Raises:
        ConfigError: it is JSON of another kind, or not whole, or its token address is not Google's.
    """
    text = secret.reveal()
    if not text.lstrip().startswith("{"):
        return None
    try:
        file = msgspec.json.decode(text, type=_GoogleFile)
    except msgspec.MsgspecError:
        raise ConfigError(
            "the Google key file is not whole", fix="download the service account's JSON key again"
        ) from None
    if not file.token_uri.startswith("https://") or not file.token_uri.split("/")[2].endswith(".googleapis.com"):
        raise ConfigError("the Google key file names a token_uri that is not Google's", fix=f"use {TOKEN_URL}")
    if file.type == "service_account" and file.private_key and file.client_email:
        return GoogleKeys(
            kind=file.type,
            token_url=file.token_uri,
            email=file.client_email,
            key_id=file.private_key_id,
            private_key=Secret(file.private_key),
        )
    if file.type == "authorized_user" and file.refresh_token:
        return GoogleKeys(
            kind=file.type,
            token_url=file.token_uri,
            client_id=file.client_id,
            client_secret=Secret(file.client_secret),
            refresh_token=Secret(file.refresh_token),
        )
    raise ConfigError(
        f"the Google key file is of type {file.type[:40]!r} or lacks a field",
        fix="use a service account's key, or cmd:gcloud auth print-access-token",
    )


def token_form(keys: GoogleKeys, now: datetime) -> bytes:
    """The form to post to ``keys.token_url`` for an access token (RFC 7523, RFC 6749 §6).

    Raises:
        ConfigError: it must be signed and ``cryptography`` is not installed, or the private key is broken.
    """
    if keys.kind == "authorized_user":
        assert keys.refresh_token is not None and keys.client_secret is not None
        fields = {
            "grant_type": "refresh_token",
            "client_id": keys.client_id,
            "client_secret": keys.client_secret.reveal(),
            "refresh_token": keys.refresh_token.reveal(),
        }
    else:
        fields = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": _assertion(keys, now)}
    return urlencode(fields).encode()


def _assertion(keys: GoogleKeys, now: datetime) -> str:
    issued = int(now.timestamp())
    head = {"alg": "RS256", "typ": "JWT", "kid": keys.key_id}
    claims = {
        "iss": keys.email,
        "scope": _SCOPE,
        "aud": keys.token_url,
        "iat": issued,
        "exp": issued + _TOKEN_LIFE_S,
    }
    unsigned = b".".join(_base64url(msgspec.json.encode(part)) for part in (head, claims))
    assert keys.private_key is not None
    return (unsigned + b"." + _base64url(_sign_rs256(keys.private_key, unsigned))).decode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _sign_rs256(key: Secret, message: bytes) -> bytes:
    try:
        # Imported here: an optional package, needed by Vertex service accounts only.
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding, rsa
    except ImportError as error:
        raise ConfigError(
            "a Google service account needs the cryptography package",
            fix="pip install 'nightkeep[vertex]', or use key = \"cmd:gcloud auth print-access-token\"",
        ) from error
    try:
        private = serialization.load_pem_private_key(key.reveal().encode(), password=None)
    except ValueError:
        raise ConfigError("the private key in the Google key file is broken", fix="download the key again") from None
    if not isinstance(private, rsa.RSAPrivateKey):
        raise ConfigError("the private key in the Google key file is not RSA", fix="download the key again")
    return bytes(private.sign(message, padding.PKCS1v15(), hashes.SHA256()))


class AccessToken(msgspec.Struct, frozen=True, kw_only=True):
    """What Google gave."""

    secret: Secret
    expires_in_s: float


class _TokenAnswer(msgspec.Struct):
    access_token: str
    expires_in: float = float(_TOKEN_LIFE_S)


def read_access_token(status: int, body: bytes) -> AccessToken | None:
    """Read the answer of the token address; None where it is no token (the status then says why)."""
    if status != 200:
        return None
    try:
        answer = msgspec.json.decode(body, type=_TokenAnswer)
    except msgspec.MsgspecError:
        return None
    return AccessToken(secret=Secret(answer.access_token), expires_in_s=answer.expires_in)
