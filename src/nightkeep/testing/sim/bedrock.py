"""Amazon's part of Bedrock, from its side: event-stream framing and the check of a SigV4 signature.

The model's own events are those of ``anthropic.py``. Sources: AWS "Signature Version 4 signing process"
and the ``application/vnd.amazon.eventstream`` encoding of the Smithy specification.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
import zlib
from urllib.parse import quote, unquote

__all__ = ["aws_frame", "is_signed"]

_HEADERS = ((":event-type", "chunk"), (":content-type", "application/json"), (":message-type", "event"))


def aws_frame(event: bytes) -> bytes:
    """Put one server-sent event of the model into an AWS event-stream message."""
    data = b"\n".join([line[6:] for line in event.split(b"\n") if line.startswith(b"data: ")])
    payload = b'{"bytes":"%s","p":"abcd"}' % base64.b64encode(data)
    headers = b"".join([_header(name, value) for name, value in _HEADERS])
    prelude = struct.pack(">II", 12 + len(headers) + len(payload) + 4, len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return message + struct.pack(">I", zlib.crc32(message))


def _header(name: str, value: str) -> bytes:
    text = value.encode()
    return struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", 7, len(text)) + text


def is_signed(method: str, path: str, query: str, headers: dict[str, str], body: bytes, secret: str) -> bool:
    """Whether the request carries the right SigV4 signature for ``secret``."""
    given = headers.get("authorization", "")
    fields = dict([part.strip().partition("=")[::2] for part in given.removeprefix("AWS4-HMAC-SHA256 ").split(",")])
    scope = fields.get("Credential", "").split("/")[1:]
    names = fields.get("SignedHeaders", "").split(";")
    if len(scope) != 4 or "host" not in names or "x-amz-date" not in names:
        return False
    canonical = "\n".join(
        [
            method,
            "/".join([quote(quote(unquote(part), safe="-_.~"), safe="-_.~") for part in path.split("/")]),
            "&".join(sorted([part if "=" in part else part + "=" for part in query.split("&") if part])),
            "".join([f"{name}:{' '.join(headers.get(name, '').split())}\n" for name in names]),
            ";".join(names),
            hashlib.sha256(body).hexdigest(),
        ]
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{headers['x-amz-date']}\n{'/'.join(scope)}\n{digest}"
    key = b"AWS4" + secret.encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    wanted = hmac.new(key, to_sign.encode(), "sha256").hexdigest()
    return hmac.compare_digest(wanted, fields.get("Signature", ""))
