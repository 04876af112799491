"""Keys: where they come from, how they are shown, and what is wrong with one.

A key is held as a ``Secret``, whose text is reached by one method only, so that no log line, error,
record or pickle can show it by accident. What is shown instead is its ``fingerprint``. This module reads
files and runs commands when it is told to; it never reads the environment (``nightkeep.config`` hands a
mapping in), and it knows nothing of signatures (``nightkeep.models.signing``) or of how a vendor's key
looks (the data rows of ``nightkeep.models.providers``).
"""

from __future__ import annotations

import hashlib
import hmac
import shlex
import stat
import subprocess
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

import msgspec

from nightkeep.core.errors import ConfigError
from nightkeep.models.provider_spec import KeyShape, ProviderSpec
from nightkeep.models.providers import PROVIDERS

__all__ = [
    "Diagnosis",
    "KeyFault",
    "KeySource",
    "Resolved",
    "Secret",
    "diagnose_key",
    "fingerprint",
    "is_key_source",
    "parse_key_source",
    "resolve_key",
]

_SHOWN_LENGTH = 20  # shorter keys show no characters at all: six of them would be too many
_COMMAND_TIMEOUT_S = 10.0
_MOST_BYTES = 64 * 1024  # a service account's file has 2.4 KB; anything near this is the wrong file
_WAYS = "env:NAME, file:PATH or cmd:COMMAND"


def fingerprint(key: str) -> str:
    """Name a key without giving it away: ``sk-a…9Q #3f2a9c1e`` (four first, two last, 32 bits of SHA-256)."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    if len(key) < _SHOWN_LENGTH:
        return f"… #{digest}"
    return f"{_printable(key[:4])}…{_printable(key[-2:])} #{digest}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() and not c.isspace() else "?" for c in text)


class Secret:
    """A text that shows itself only to who asks for it by ``reveal()``; equal when the texts are equal."""

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        """The text itself. For the one place that sends it; never for a message."""
        return self.__text

    @property
    def fingerprint(self) -> str:
        """What may be shown."""
        return fingerprint(self.__text)

    def __repr__(self) -> str:
        return f"Secret({self.fingerprint})"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(
            self.__text.encode("utf-8", "surrogateescape"), other.reveal().encode("utf-8", "surrogateescape")
        )

    def __hash__(self) -> int:
        return hash(("Secret", self.__text))

    def __bool__(self) -> bool:
        return bool(self.__text)

    def __len__(self) -> int:
        return len(self.__text)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not pickled or copied into anything that is stored")

    def __deepcopy__(self, memo: object) -> Secret:
        return self


class KeySource(msgspec.Struct, frozen=True, kw_only=True):
    """Where a key comes from; holds no key."""

    kind: str  # env | file | cmd | vault
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was found, and what should be said about the place where it lay."""

    secret: Secret
    warnings: tuple[str, ...] = ()


_KINDS = ("env", "file", "cmd", "vault")


def is_key_source(text: str) -> bool:
    """Tell whether a text names a source rather than being a key itself."""
    return text.partition(":")[0] in _KINDS and ":" in text


def parse_key_source(text: str) -> KeySource:
    """Read ``env:NAME``, ``file:PATH``, ``cmd:COMMAND`` or ``vault:…``.

    Raises:
        ConfigError: it is none of them (so it may be a key: the message does not repeat it).
    """
    kind, colon, value = text.partition(":")
    value = value.strip()
    if not colon or kind not in _KINDS:
        raise ConfigError(
            "a key may not stand in the file itself",
            fix=f"put it in an environment variable or a file and name that: {_WAYS}",
        )
    if not value:
        raise ConfigError(f"{kind}: names nothing", fix=f"write {_WAYS}")
    return KeySource(kind=kind, value=value)


def resolve_key(source: KeySource, environ: Mapping[str, str], base: Path = Path()) -> Resolved:
    """Fetch the key that a source names; relative paths count from ``base`` (the config file's directory).

    Raises:
        ConfigError: there is nothing there, it is empty, or the command failed; with the way out.
    """
    if source.kind == "env":
        return _from_environment(source.value, environ)
    if source.kind == "file":
        return _from_file(source.value, environ, base)
    if source.kind == "cmd":
        return _from_command(source.value, environ, base)
    raise ConfigError(
        "vault: is not supported by this version",
        fix='use a command meanwhile, for example key = "cmd:vault kv get -field=key secret/openai"',
    )


def _from_environment(name: str, environ: Mapping[str, str]) -> Resolved:
    value = environ.get(name)
    if value is None:
        raise ConfigError(f"the environment variable {name} is not set", fix=f"export {name}=… before starting")
    return Resolved(secret=_filled(value, f"the environment variable {name}"))


def _from_file(value: str, environ: Mapping[str, str], base: Path) -> Resolved:
    path = Path(environ["HOME"] + value[1:]) if value.startswith("~/") and "HOME" in environ else Path(value)
    path = path if path.is_absolute() else base / path
    try:
        mode = path.stat().st_mode
        with path.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a usable path"
        raise ConfigError(
            f"the key file {path} cannot be read: {reason}", fix="check the path and who may read it"
        ) from (error)
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"the key file {path} is over {_MOST_BYTES // 1024} KB", fix="name the file of the key alone")
    return Resolved(
        secret=_filled(_text(data, f"the key file {path}"), f"the key file {path}"), warnings=_open_to_all(path, mode)
    )


def _open_to_all(path: Path, mode: int) -> tuple[str, ...]:
    if mode & stat.S_IROTH:
        return (
            f"the key file {path} can be read by everybody on this machine; run: chmod 600 {shlex.quote(str(path))}",
        )
    return ()


def _from_command(value: str, environ: Mapping[str, str], base: Path) -> Resolved:
    try:
        arguments = shlex.split(value)
    except ValueError as error:
        raise ConfigError(f"the key command is not well quoted: {error}", fix="write it as in a shell") from error
    if not arguments:
        raise ConfigError("the key command is empty", fix="write cmd:PROGRAM ARGUMENTS")
    label = f"the key command {arguments[0]!r}"
    try:
        done = subprocess.run(  # the operator's own command, without a shell
            arguments, capture_output=True, timeout=_COMMAND_TIMEOUT_S, env=dict(environ), cwd=base, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{label} gave no answer in {_COMMAND_TIMEOUT_S:.0f} s", fix="run it by hand") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{label} cannot be run: {error}", fix="check its name and PATH") from error
    if done.returncode != 0:
        # Neither output is quoted: a failing helper may well print the secret.
        raise ConfigError(f"{label} ended with code {done.returncode}", fix="run it by hand to see why")
    return Resolved(secret=_filled(_text(done.stdout[:_MOST_BYTES], label), label))


def _text(data: bytes, label: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{label} is not text", fix="store the key as UTF-8 text") from None


def _filled(value: str, label: str) -> Secret:
    trimmed = value.rstrip("\r\n") if value.strip() else ""
    if not trimmed:
        raise ConfigError(f"{label} is empty", fix="put the key there, or remove the account")
    return Secret(trimmed)


class KeyFault(StrEnum):
    """What can be seen to be wrong with a key without sending it anywhere (W6.2)."""

    OK = "ok"
    WRONG_SHAPE = "wrong_shape"
    OTHER_PROVIDER = "other_provider"
    STRAY_CHARACTERS = "stray_characters"
    TRUNCATED = "truncated"
    MISSING = "missing"


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What the shape of a key says; ``message`` never has more of the key than its fingerprint."""

    fault: KeyFault
    message: str = ""
    looks_like: str | None = None  # the provider whose key it seems to be

    @property
    def is_ok(self) -> bool:
        """Nothing is visibly wrong."""
        return self.fault is KeyFault.OK


def diagnose_key(provider: ProviderSpec, key: Secret | None) -> Diagnosis:
    """Say what is visibly wrong with a key, without sending it: W6.2's missing character costs no two hours."""
    if key is None or not key:
        if not provider.needs_key:
            return Diagnosis(fault=KeyFault.OK)
        return Diagnosis(fault=KeyFault.MISSING, message=f"{provider.title} needs a key and there is none")
    text = key.reveal()
    stray = _stray(text)
    if stray:
        return Diagnosis(
            fault=KeyFault.STRAY_CHARACTERS,
            message=f"the key {key.fingerprint} has {stray}; remove that where it is stored",
        )
    shape = provider.key_shape
    other = _owner(text) if provider.needs_key else None
    if other is not None and other.id != provider.id and not (shape and shape.matches(text)):
        return _others(provider, key, other)
    return Diagnosis(fault=KeyFault.OK) if shape is None else _shaped(provider, shape, key)


def _shaped(provider: ProviderSpec, shape: KeyShape, key: Secret) -> Diagnosis:
    text = key.reveal()
    missing = shape.missing(text)
    if missing and (shape.matches(text) or text.startswith(shape.prefixes)):
        return Diagnosis(
            fault=KeyFault.TRUNCATED,
            message=f"the key {key.fingerprint} has {len(text)} characters where {provider.title}'s have "
            f"{len(text) + missing}: copy it again, whole",
        )
    if shape.matches(text):
        return Diagnosis(fault=KeyFault.OK)
    return Diagnosis(
        fault=KeyFault.WRONG_SHAPE,
        message=f"the key {key.fingerprint} ({len(text)} characters) does not look like {provider.title}'s: "
        f"{shape.description}",
    )


def _others(provider: ProviderSpec, key: Secret, other: ProviderSpec) -> Diagnosis:
    return Diagnosis(
        fault=KeyFault.OTHER_PROVIDER,
        looks_like=other.id,
        message=f"the key {key.fingerprint} looks like one of {other.title}, not of {provider.title}",
    )


def _owner(text: str) -> ProviderSpec | None:
    """The provider whose own prefix the key has; the longest prefix wins (``sk-ant-`` over ``sk-``)."""
    best: tuple[int, ProviderSpec] | None = None
    for spec in PROVIDERS.values():
        for prefix in spec.key_shape.prefixes if spec.key_shape else ():
            if prefix and text.startswith(prefix) and (best is None or len(prefix) > best[0]):
                best = (len(prefix), spec)
    return best[1] if best else None


def _stray(text: str) -> str:
    if text.lstrip().startswith("{"):
        return ""  # a service account's JSON, which may hold anything
    if text[:1] in "\"'`" or text[-1:] in "\"'`":
        return "quotes around it"
    if "\n" in text or "\r" in text:
        return "a line break in it"
    if text != text.strip():
        return "spaces around it"
    if any(c.isspace() for c in text):
        return "a space in it"
    if not text.isascii() or not text.isprintable():
        return "a character in it that is no plain ASCII"
    return ""
