"""What is known of models: who makes them, how much fits in, what they can do, what they cost and who says so.

The rows are data (``data/models.json``: each price has its source and date); here is their shape and the finding of
a row by the many names that one model goes by. Names are normalised by data too: dates, ``-latest``, Claude Code's
``[1m]``, cloud prefixes. Prices as numbers are ``nightkeep.models.prices``; choosing is ``nightkeep.models.routing``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import msgspec

__all__ = ["Capability", "Catalog", "LongRates", "ModelRow", "Rates", "canonical", "load_catalog", "upstream_name"]

Capability = Literal[
    "tools", "parallel_tools", "vision", "documents", "audio", "structured_output", "reasoning", "caching"
]

_DATA: Final = Path(__file__).parent / "data" / "models.json"
_CLIENT_SUFFIX: Final = re.compile(r"(?:\s*\[\d{1,3}[mk]\])+\Z", re.I)
_CLOUD_PREFIX: Final = re.compile(
    r"\A(?:models/|publishers/[a-z0-9-]+/models/|(?:us|eu|apac|jp|au|global)\.(?=[a-z]+\.)|(?:anthropic|openai|amazon)\.)"
)
_SUFFIX: Final = re.compile(r"(?:[-@]20\d{6}|-20\d\d-\d\d-\d\d|-latest|-v\d+:\d+|@default|-00[1-9])\Z")


class LongRates(msgspec.Struct, frozen=True, kw_only=True):
    """Rates for requests over ``above`` input tokens.

    They hold for the whole request (the vendors' rule), or, where they are ``marginal``, for the input above only.
    """

    above: int
    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    write_5m: Decimal | None = None
    write_1h: Decimal | None = None
    marginal: bool = False


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """A price as vendors print it: USD per million tokens, with who said so and when."""

    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    write_5m: Decimal | None = None
    write_1h: Decimal | None = None
    long: LongRates | None = None
    reasoning: Decimal | None = None  # None: as output, which is every vendor's rule so far
    batch: Decimal | None = None  # what a batch costs, as a share of the price; None: no batch price is known
    credit: bool | None = None  # whether trial credits pay for it (W8.2); None: nobody said
    since: str | None = None  # ISO date from which it holds; None: from the beginning
    source: str
    as_of: str  # ISO date on which the source said so


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """One known model. What is None is not known."""

    id: str
    makers: tuple[str, ...]  # providers that make it, in the order they are asked
    kind: Literal["chat", "embedding"] = "chat"
    klass: str = ""  # what policies speak of: opus, sonnet, …
    context_window: int | None = None
    max_output: int | None = None
    can: frozenset[Capability] | None = None
    price: Rates | None = None
    past: tuple[Rates, ...] = ()  # earlier prices, oldest first: history never changes
    aliases: tuple[str, ...] = ()  # other exact names
    is_retired: bool = False  # the maker has ended it, or said when; never chosen for being cheap
    note: str = ""


class _Family(msgspec.Struct, frozen=True, array_like=True):
    prefix: str
    makers: tuple[str, ...]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    about: str
    sources: dict[str, str]
    families: tuple[_Family, ...]
    models: tuple[ModelRow, ...]


@lru_cache(maxsize=4096)
def canonical(model: str) -> str:
    """The one name of a model: lower case, without client suffixes, cloud prefixes, dates, ``-latest``, versions."""
    name = upstream_name(model).lower()
    while (shorter := _CLOUD_PREFIX.sub("", name)) != name:
        name = shorter
    while (shorter := _SUFFIX.sub("", name)) != name and shorter:
        name = shorter
    return name


def upstream_name(model: str) -> str:
    """The name to send on: without what only a client understands (Claude Code's ``[1m]``)."""
    return _CLIENT_SUFFIX.sub("", model.strip()).removeprefix("models/")


class Catalog:
    """The known models, by name."""

    def __init__(self, rows: Iterable[ModelRow], families: Iterable[tuple[str, tuple[str, ...]]] = ()) -> None:
        self._rows: dict[str, ModelRow] = {}
        for row in rows:
            for name in (row.id, *row.aliases):
                self._rows[name.lower()] = row
        self._families = tuple(families)

    @property
    def rows(self) -> tuple[ModelRow, ...]:
        """Every row once, in the order of the file."""
        return tuple(dict.fromkeys(self._rows.values()))

    def names_of(self, model: str) -> tuple[str, ...]:
        """The names under which a model may be listed, the most exact first."""
        return tuple(dict.fromkeys((model, upstream_name(model).lower(), canonical(model))))

    def find(self, model: str) -> ModelRow | None:
        """The row of a model by any of its names; an exact (dated) row wins over the undated one."""
        for name in self.names_of(model):
            row = self._rows.get(name.lower())
            if row is not None:
                return row
        return None

    def sold_by(self, provider: str, model: str) -> ModelRow | None:
        """The row, if this provider makes the model; what a reseller takes for it is not known here."""
        row = self.find(model)
        return row if row is not None and provider in row.makers else None

    def describe(self, provider: str, model: str) -> ModelRow | None:
        """What the model can do and how much fits, whoever hosts it (``openrouter`` names: ``maker/model``)."""
        del provider
        return self.find(model) or self.find(model.rpartition("/")[2])

    def makers(self, model: str) -> tuple[str, ...]:
        """Who makes a bare model name: by its row, else by the family that its name begins with; else nobody."""
        row = self.find(model)
        if row is not None:
            return row.makers
        name = canonical(model)
        return next((makers for prefix, makers in self._families if name.startswith(prefix)), ())

    def near(self, model: str, names: Iterable[str] = (), *, most: int = 3) -> tuple[str, ...]:
        """Known names that look like this one, the nearest first."""
        known = dict.fromkeys([*names, *self._rows])
        return tuple(difflib.get_close_matches(canonical(model), known, n=most, cutoff=0.6))


@lru_cache(maxsize=1)
def load_catalog() -> Catalog:
    """Read the built-in rows; under a millisecond, once per process."""
    file = msgspec.json.decode(_DATA.read_bytes(), type=_File)
    rows = (
        msgspec.structs.replace(
            row,
            price=_sourced(row.price, file.sources) if row.price is not None else None,
            past=tuple(_sourced(rates, file.sources) for rates in row.past),
        )
        for row in file.models
    )
    return Catalog(rows, ((family.prefix, family.makers) for family in file.families))


def _sourced(rates: Rates, sources: dict[str, str]) -> Rates:
    return msgspec.structs.replace(rates, source=sources[rates.source])
