"""Accounts and their keys: found in the environment where no file names any, and fetched when they are needed.

Fetching is apart from ``nightkeep.config.load``: a file can be checked on a machine that has none of the keys. An
account whose key cannot be had is named and left out; the others serve. What is wrong with a key's looks is said as
a warning, since a vendor may change them any day; only the vendor itself knows (``nightkeep accounts test``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from nightkeep.config_models import Account, Provider, Settings
from nightkeep.core.errors import ConfigError
from nightkeep.models.credentials import Resolved, Secret, diagnose_key, parse_key_source, resolve_key
from nightkeep.models.providers import PROVIDERS, AuthStyle, ProviderSpec, custom_provider
from nightkeep.models.upstream import AccountAccess, UpstreamAccount
from nightkeep.models.wire.base import Wire

__all__ = ["KeyNote", "Resolution", "discover", "provider_specs", "resolve_accounts"]

_NONE: Final[Mapping[str, ProviderSpec]] = MappingProxyType({})


def discover(environ: Mapping[str, str]) -> dict[str, Any]:
    """Accounts (as the file would write them) for the keys that the environment has, one for each vendor.

    A vendor that needs more than its key (Azure's endpoint, Vertex's project, a region) is taken only if that is
    there too. Vendors on the operator's own machine are never assumed.
    """
    accounts: dict[str, Any] = {}
    for spec in PROVIDERS.values():
        name = next((each for each in spec.key_env if environ.get(each, "").strip()), None)
        if name is None or (name == "AWS_ACCESS_KEY_ID" and not environ.get("AWS_SECRET_ACCESS_KEY")):
            continue
        account: dict[str, Any] = {"provider": spec.id, "key": f"env:{name}"}
        account |= {key: value for key, value in _details(spec.id, environ).items() if value}
        if all(setting in account for setting in spec.settings):
            accounts[spec.id] = account
    return accounts


def _details(provider: str, environ: Mapping[str, str]) -> dict[str, str | None]:
    if provider == "azure":
        return {"base_url": environ.get("AZURE_OPENAI_ENDPOINT")}
    if provider == "bedrock":
        return {"region": environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")}
    if provider == "vertex":
        return {
            "key": f"file:{environ.get('GOOGLE_APPLICATION_CREDENTIALS', '')}",
            "project": environ.get("GOOGLE_CLOUD_PROJECT") or environ.get("VERTEX_PROJECT"),
            "location": environ.get("GOOGLE_CLOUD_LOCATION") or environ.get("VERTEX_LOCATION"),
        }
    return {}


def provider_specs(settings: Settings) -> dict[str, ProviderSpec]:
    """All vendors that the settings can name: the built-in rows and the file's own."""
    specs = dict(PROVIDERS)
    for name, provider in settings.providers.items():
        if name in PROVIDERS:
            specs[name] = _adjusted(PROVIDERS[name], provider)
        elif provider.wire is not None and provider.base_url is not None:
            specs[name] = custom_provider(
                name,
                Wire(provider.wire),
                provider.base_url,
                auth=AuthStyle(provider.auth) if provider.auth else None,
                headers=tuple(provider.headers.items()),
                more_wires=tuple(Wire(wire) for wire in provider.wires),
                is_free=provider.free,
            )
    return specs


def _adjusted(spec: ProviderSpec, provider: Provider) -> ProviderSpec:
    """A built-in vendor at another address keeps the wires that can stand there."""
    headers = (*spec.headers, *provider.headers.items())
    spec = msgspec.structs.replace(
        spec,
        headers=headers,
        auth=AuthStyle(provider.auth) if provider.auth else spec.auth,
        is_free=spec.is_free or provider.free,
    )
    if provider.base_url is None:
        return spec
    endpoints = tuple(each for each in spec.endpoints if each.base_url is None)
    return msgspec.structs.replace(spec, base_url=provider.base_url, endpoints=endpoints)


class KeyNote(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be said of an account's key."""

    account: str
    what: str
    fix: str = ""
    is_error: bool = False  # the account cannot serve


class Resolution(msgspec.Struct, frozen=True, kw_only=True):
    """The accounts that can be used, and what is to be said of the keys."""

    accounts: dict[str, UpstreamAccount]
    notes: tuple[KeyNote, ...] = ()


def resolve_accounts(
    settings: Settings,
    environ: Mapping[str, str],
    base: Path = Path(),
    more_providers: Mapping[str, ProviderSpec] = _NONE,
) -> Resolution:
    """Fetch the key of each account, disabled ones too; never raises for a single one.

    Args:
        base: the directory that relative key files count from (``Loaded.base``).
        more_providers: vendors that are neither built in nor in the file, such as the simulated one.
    """
    specs = {**provider_specs(settings), **more_providers}
    accounts: dict[str, UpstreamAccount] = {}
    notes: list[KeyNote] = []
    for name, account in settings.accounts.items():
        spec = specs.get(account.provider)
        if spec is None:
            notes.append(KeyNote(account=name, what=f"there is no provider {account.provider!r}", is_error=True))
            continue
        try:
            resolved = _resolved(account, environ, base)
            accounts[name] = UpstreamAccount(_access(name, account, spec, resolved))
        except ConfigError as error:
            notes.append(KeyNote(account=name, what=error.message, fix=str(error.data.get("fix", "")), is_error=True))
            continue
        notes.extend(KeyNote(account=name, what=warning) for warning in resolved.warnings)
        diagnosis = diagnose_key(spec, accounts[name].access.secret)
        if not diagnosis.is_ok:
            notes.append(KeyNote(account=name, what=diagnosis.message, fix="nightkeep accounts test asks the provider"))
    return Resolution(accounts=accounts, notes=tuple(notes))


def _resolved(account: Account, environ: Mapping[str, str], base: Path) -> Resolved:
    if account.key is None:
        return Resolved(secret=Secret(""))
    source = parse_key_source(account.key)
    resolved = resolve_key(source, environ, base)
    if source.kind == "env" and source.value.endswith("ACCESS_KEY_ID"):
        return msgspec.structs.replace(resolved, secret=_aws_secret(source.value, resolved.secret, environ))
    return resolved


def _aws_secret(name: str, key_id: Secret, environ: Mapping[str, str]) -> Secret:
    """The three variables that AWS's own tools read, as one text."""
    stem = name.removesuffix("ACCESS_KEY_ID")
    secret = environ.get(f"{stem}SECRET_ACCESS_KEY", "").strip()
    if not secret:
        raise ConfigError(f"{stem}SECRET_ACCESS_KEY is not set", fix=f"{name} needs it beside itself")
    token = environ.get(f"{stem}SESSION_TOKEN", "").strip()
    parts = [key_id.reveal().strip(), secret]
    return Secret(":".join([*parts, token] if token else parts))


def _access(name: str, account: Account, spec: ProviderSpec, resolved: Resolved) -> AccountAccess:
    return AccountAccess(
        name=name,
        provider=spec,
        secret=resolved.secret or None,
        base_url=account.base_url,
        region=account.region,
        project=account.project,
        location=account.location,
        deployment=account.deployment,
        api_version=account.api_version,
    )
