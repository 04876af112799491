"""AWS's published Signature Version 4 test suite, and Google's token exchange."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qs

import msgspec
import pytest

from nightkeep.core.errors import ConfigError
from nightkeep.models.credentials import Secret
from nightkeep.models.signing import (
    AwsKeys,
    parse_aws_keys,
    parse_google_keys,
    read_access_token,
    sign_aws,
    token_form,
)

NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
KEYS = AwsKeys(access_key_id="AKIDEXAMPLE", secret=Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"))
HOST = ("host", "example.amazonaws.com")
FORM = ("content-type", "application/x-www-form-urlencoded")

# Of https://docs.aws.amazon.com/general/latest/gr/signature-v4-test-suite.html
# name, method, target, headers, body, signature
VECTORS = [
    ("get-vanilla", "GET", "/", [], b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    (
        "get-vanilla-query-order-key-case",
        "GET",
        "/?Param2=value2&Param1=value1",
        [],
        b"",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    (
        "get-header-key-duplicate",
        "GET",
        "/",
        [("My-Header1", "value2"), ("My-Header1", "value2"), ("My-Header1", "value1")],
        b"",
        "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
    ),
    (
        "get-header-value-multiline",
        "GET",
        "/",
        [("My-Header1", "value1,value2,value3")],
        b"",
        "ba17b383a53190154eb5fa66a1b836cc297cc0a3d70a5d00705980573d8ff790",
    ),
    ("get-utf8", "GET", "/ሴ", [], b"", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
    ("post-vanilla", "POST", "/", [], b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    (
        "post-x-www-form-urlencoded",
        "POST",
        "/",
        [FORM],
        b"Param1=value1",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
]


@pytest.mark.parametrize(
    ("name", "method", "target", "headers", "body", "signature"), VECTORS, ids=[v[0] for v in VECTORS]
)
def test_signs_as_the_published_vectors(
    name: str, method: str, target: str, headers: list[tuple[str, str]], body: bytes, signature: str
) -> None:
    added = sign_aws(
        KEYS,
        method=method,
        target=target,
        headers=[HOST, *headers],
        body=body,
        region="us-east-1",
        service="service",
        now=NOW,
    )
    assert dict(added)["authorization"].endswith(f"Signature={signature}")
    assert dict(added)["x-amz-date"] == "20150830T123600Z"


def test_signs_the_example_of_the_documentation() -> None:
    added = sign_aws(
        KEYS,
        method="GET",
        target="/?Action=ListUsers&Version=2010-05-08",
        headers=[("host", "iam.amazonaws.com"), ("content-type", "application/x-www-form-urlencoded; charset=utf-8")],
        body=b"",
        region="us-east-1",
        service="iam",
        now=NOW,
    )
    assert dict(added)["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, "
        "SignedHeaders=content-type;host;x-amz-date, "
        "Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    )


def test_signs_the_session_token_too() -> None:
    keys = parse_aws_keys(Secret("ASIAEXAMPLE:secret:a:token"))
    assert keys is not None
    added = dict(sign_aws(keys, method="POST", target="/", headers=[HOST], body=b"", region="r", service="s", now=NOW))
    assert added["x-amz-security-token"] == "a:token"
    assert "SignedHeaders=host;x-amz-date;x-amz-security-token" in added["authorization"]


def test_takes_a_bearer_token_for_no_key_pair() -> None:
    assert parse_aws_keys(Secret("ABSKexample:")) is None


def test_exchanges_a_users_refresh_token() -> None:
    file = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r&1"}
    keys = parse_google_keys(Secret(msgspec.json.encode(file).decode()))
    assert keys is not None
    assert parse_qs(token_form(keys, NOW).decode()) == {
        "grant_type": ["refresh_token"],
        "client_id": ["c"],
        "client_secret": ["s"],
        "refresh_token": ["r&1"],
    }


def test_refuses_a_key_file_that_sends_tokens_elsewhere() -> None:
    file = {"type": "authorized_user", "refresh_token": "r", "token_uri": "https://evil.example/googleapis.com"}
    with pytest.raises(ConfigError, match="not Google's"):
        parse_google_keys(Secret(msgspec.json.encode(file).decode()))


def test_signs_a_service_accounts_assertion() -> None:
    pytest.importorskip("cryptography", reason="the vertex extra is not installed")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    file = {"type": "service_account", "client_email": "a@b", "private_key_id": "k", "private_key": pem}
    keys = parse_google_keys(Secret(msgspec.json.encode(file).decode()))
    assert keys is not None
    assertion = parse_qs(token_form(keys, NOW).decode())["assertion"][0]
    unsigned, _, signature = assertion.rpartition(".")
    import base64

    raw = base64.urlsafe_b64decode(signature + "==")
    private.public_key().verify(raw, unsigned.encode(), padding.PKCS1v15(), hashes.SHA256())


def test_a_broken_private_key_or_a_missing_package_is_a_clear_error() -> None:
    file = {"type": "service_account", "client_email": "a@b", "private_key": "not a key"}
    keys = parse_google_keys(Secret(msgspec.json.encode(file).decode()))
    assert keys is not None
    with pytest.raises(ConfigError, match=r"cryptography|broken"):
        token_form(keys, NOW)


@pytest.mark.parametrize(("status", "body"), [(400, b'{"access_token":"x"}'), (200, b"{}"), (200, b"nonsense")])
def test_an_answer_without_a_token_is_none(status: int, body: bytes) -> None:
    assert read_access_token(status, body) is None
