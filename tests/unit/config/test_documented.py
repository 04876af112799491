"""Every setting and every vendor is in the documents."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from nightkeep.config_models import Settings
from nightkeep.models.providers import PROVIDERS

DOCS = Path(__file__).parents[3] / "docs"
NAMED = re.compile(r"NAME|ALIAS|TYPE|TARGET")


def settings(model: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        here = f"{path}.{name}" if path else name
        inner = section(field.annotation)
        is_table_of_them = inner is not None and "dict" in str(field.annotation)
        if inner is None:
            yield here
        else:
            yield from settings(inner, f"{here}.*" if is_table_of_them else here)


def section(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in typing.get_args(annotation) if (found := section(each)) is not None), None)


@pytest.mark.parametrize("name", list(settings(Settings)))
def test_every_setting_is_in_the_configuration_page(name: str) -> None:
    documented = {
        NAMED.sub("*", each)
        for each in re.findall(r"`([a-z0-9_]+\.[A-Za-z0-9_.]+)`", (DOCS / "configuration.md").read_text())
    }
    assert name in documented


@pytest.mark.parametrize("name", list(PROVIDERS))
def test_every_vendor_is_in_the_providers_page(name: str) -> None:
    spec = PROVIDERS[name]
    row = next(line for line in (DOCS / "providers.md").read_text().splitlines() if line.startswith(f"| `{name}` |"))
    assert spec.title in row
    assert all(variable in row for variable in spec.key_env)
    assert all(f"`{setting}`" in row for setting in spec.settings)
    assert [each.strip().split(" ")[0] for each in row.split("|")[3].split(",")] == [
        str(wire).removeprefix("openai_").removeprefix("anthropic_") for wire in spec.wires
    ]


def test_the_page_names_no_setting_that_does_not_exist() -> None:
    known = set(settings(Settings)) | {"accounts.*.quota"}
    rows = re.findall(r"^\| `([a-z0-9_]+\.[A-Za-z0-9_.]+)` \|", (DOCS / "configuration.md").read_text(), re.MULTILINE)
    assert {NAMED.sub("*", each) for each in rows} <= known
