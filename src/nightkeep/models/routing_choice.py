"""Which of the proposed targets can serve: accounts, wire, price, capabilities, class. And which is the cheapest.

Pure. The rules that propose targets are ``nightkeep.models.routing``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, Protocol

from nightkeep.models.catalog import Catalog, canonical, upstream_name
from nightkeep.models.prices import FREE, Price, PriceBook
from nightkeep.models.provider_spec import ProviderSpec
from nightkeep.models.routing_specs import Candidate, Rejected, Why
from nightkeep.models.wire.base import Operation, Wire

__all__ = ["Chooser", "Picked", "Proposal", "Target"]

_INPUT_WEIGHT: Final = 4
"""A health check reads about four tokens for each that it writes; the cheapest is so by that mix."""


class Target(NamedTuple):
    """A model at a provider, as a name became it."""

    provider: str
    model: str
    how: str  # the rule in words

    @property
    def name(self) -> str:
        """ "provider/model", or the bare model where nobody is known to make it."""
        return f"{self.provider}/{self.model}" if self.provider else self.model


class Proposal(Protocol):
    """What the choice needs to know of a plan."""

    @property
    def targets(self) -> tuple[Target, ...]: ...
    @property
    def pool(self) -> str | None: ...
    @property
    def classes(self) -> frozenset[str] | None: ...


class Picked(NamedTuple):
    """What is left, and what fell out."""

    candidates: tuple[Candidate, ...]
    rejected: tuple[Rejected, ...]


class Chooser:
    """Knows what is configured and what is known of models."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        prices: PriceBook,
        providers: Mapping[str, ProviderSpec],
        pools: Mapping[str, tuple[str, ...]],
        simulated: str | None,
        refuses_unpriced: bool,
    ) -> None:
        self._catalog = catalog
        self._prices = prices
        self._providers = providers
        self._pools = pools
        self.simulated = simulated
        self._refuses_unpriced = refuses_unpriced

    def targets_of(self, name: str) -> tuple[Target, ...]:
        """What a name means: "provider/model" where there is such a provider, else who makes the model."""
        provider, slash, model = name.partition("/")
        sent = upstream_name(name)
        if self.simulated is not None:
            known = provider in self._providers and slash
            return (Target(self.simulated, upstream_name(model) if known else sent, "simulated: no key is configured"),)
        if slash and provider in self._providers:
            return (Target(provider, upstream_name(model), f"provider {provider}, named in the model"),)
        makers = self._catalog.makers(sent)
        if not makers:
            return (Target("", sent, "no alias, provider or known model has this name"),)
        chosen = next((maker for maker in makers if self._pools.get(maker)), makers[0])
        row = self._catalog.find(sent)
        how = f"the catalog: {chosen} makes {row.id}" if row else f"the catalog: {chosen} makes models of this name"
        return (Target(chosen, sent, how),)

    def choose(self, wire: Wire, operation: Operation, wants: frozenset[str], proposal: Proposal) -> Picked:
        """Split the targets of a plan into those that can serve, in order, and those that cannot, with the reason."""
        candidates: dict[str, Candidate] = {}
        rejected: list[Rejected] = []
        for target in proposal.targets:
            if target.name in candidates:
                continue
            found = self._candidate(target, wire, operation, wants, proposal)
            if isinstance(found, Candidate):
                candidates[target.name] = found
            else:
                rejected.append(found)
        return Picked(tuple(candidates.values()), tuple(rejected))

    def _candidate(
        self, target: Target, wire: Wire, operation: Operation, wants: frozenset[str], proposal: Proposal
    ) -> Candidate | Rejected:
        spec = self._providers.get(target.provider)
        if spec is None:
            return Rejected(target.name, target.how, Why.NO_PROVIDER)
        pools = self._pools.get(target.provider, ())
        if not pools:
            return Rejected(target.name, f"{target.provider} has no account", Why.NO_ACCOUNT)
        if proposal.pool is not None and proposal.pool not in pools:
            return Rejected(target.name, f"{target.provider} has no account in pool {proposal.pool}", Why.NO_ACCOUNT)
        spoken = spec.wire_for(target.model, operation, wire)
        if spoken is None:
            return Rejected(target.name, f"{target.provider} does not offer {operation}", Why.NO_WIRE)
        row = self._catalog.describe(target.provider, target.model)
        if proposal.classes is not None and (row is None or row.klass not in proposal.classes):
            allowed = " or ".join(sorted(proposal.classes))
            return Rejected(target.name, f"this task is only for models of class {allowed}", Why.NOT_ALLOWED)
        if row is not None and row.can is not None and (missing := wants - row.can):
            return Rejected(target.name, f"it cannot do {', '.join(sorted(missing))}", Why.CAPABILITY)
        price = self._price(target)
        if price is None and self._refuses_unpriced:
            fix = f'no price is known; add [prices."{target.name}"]'
            return Rejected(target.name, fix, Why.UNPRICED)
        return Candidate(
            provider=target.provider,
            model=target.model,
            pool=proposal.pool or pools[0],
            wire=spoken,
            price=price,
            context_window=row.context_window if row else None,
            max_output=row.max_output if row else None,
            thinks=bool(row and row.can and "reasoning" in row.can),
        )

    def _price(self, target: Target) -> Price | None:
        price = self._prices.price(target.provider, target.model)
        if price is None and (target.provider == self.simulated or self._providers[target.provider].is_free):
            return FREE
        return price

    def cheapest(self, extra: Iterable[Target] = ()) -> tuple[Target, ...]:
        """Every priced chat model of every provider that has accounts, the cheapest first; ties by name."""
        found: dict[str, tuple[int, Target]] = {}
        for row in self._catalog.rows:
            if row.kind == "chat" and row.price is not None and not row.is_retired:
                for maker in row.makers:
                    self._note(found, Target(maker, row.id, "the cheapest"))
        for name in self._prices.configured:
            provider, _, model = name.partition("/")
            self._note(found, Target(provider, model, "the cheapest"))
        for target in extra:
            self._note(found, target)
        return tuple(target for _, target in sorted(found.values(), key=lambda each: (each[0], each[1].name)))

    def _note(self, found: dict[str, tuple[int, Target]], target: Target) -> None:
        if target.provider not in self._providers or not self._pools.get(target.provider):
            return
        price = self._price(target)
        if price is not None:
            found.setdefault(target.name.lower(), (_INPUT_WEIGHT * price.input + price.output, target))

    def near(self, model: str, aliases: Iterable[str]) -> tuple[str, ...]:
        """Names that look like a model: aliases, known models that are served, and the way through a reseller."""
        served = self._catalog.near(model, aliases)
        bare = canonical(model.rpartition("/")[2])
        return tuple(name for name in dict.fromkeys(served) if name not in (model, bare))

    def configured(self, aliases: Iterable[str]) -> str:
        """What there is, in words."""
        providers = [name for name in self._providers if self._pools.get(name)]
        parts = [f"providers {', '.join(providers)}" if providers else "no provider"]
        named = list(aliases)
        if named:
            more = f" and {len(named) - 10} more" if len(named) > 10 else ""
            parts.append(f"aliases {', '.join(named[:10])}{more}")
        return "; ".join(parts) + (f' (say "{providers[0]}/MODEL" to ask one of them)' if providers else "")
