"""Accounts and their keys: found in the environment where no file names any, and fetched when they are needed.

Fetching is apart from ``nightkeep.config.load``: a file can be checked on a machine that has none of the keys. An
account whose key cannot be had is named and left out; the others serve.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nightkeep.models.providers import PROVIDERS

__all__ = ["discover"]


def discover(environ: Mapping[str, str]) -> dict[str, Any]:
    """Accounts (as the file would write them) for the keys that the environment has, one for each vendor.

    A vendor that needs more than its key (Azure's endpoint, Vertex's project, a region) is taken only if that is
    there too. Vendors on the operator's own machine are never assumed.
    """
    accounts: dict[str, Any] = {}
    for spec in PROVIDERS.values():
        name = next((each for each in spec.key_env if environ.get(each, "").strip()), None)
        if name is None:
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
