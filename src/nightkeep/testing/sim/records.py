"""What the simulated provider remembers: the last requests, counters, and a bill to the token.

The bill is the provider's own truth, against which a gateway's accounting can be reconciled: input is
billed once an answer begins, output as it is generated, also when the client hangs up in the middle.
"""

from __future__ import annotations

import csv
import io
from collections import Counter, deque
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from nightkeep.core.money import format_usd, micro_usd_from_pico
from nightkeep.testing.sim.scenario import Price
from nightkeep.testing.sim.script import Tokens

__all__ = ["Bill", "PriceList", "Record", "Records"]

_KEPT = 1000
_KEPT_BILLED = 1_000_000
_LONGEST_NAME = 200
_REQUEST_COLUMNS = (
    *("at_s", "number", "provider", "account", "model", "client_request_id"),
    *(*Tokens.__struct_fields__, "micro_usd", "usd"),
)
_COLUMNS = ("provider", "account", "model", *Tokens.__struct_fields__, "requests", "usd")
_KEPT_BODY_BYTES = 64 << 10
_PICO = 1_000_000  # pico-dollars per token at $1 per million tokens
_HIDDEN = frozenset(("authorization", "x-api-key", "api-key", "x-goog-api-key", "x-amz-security-token", "cookie"))


class Record(msgspec.Struct, kw_only=True):
    """One request and what became of it."""

    number: int
    at_s: float  # seconds since 1970
    provider: str
    method: str
    path: str
    wire: str = ""
    operation: str = ""
    account: str = ""
    model: str = ""
    stream: bool = False
    turn: int = 0
    tag: str = ""
    text: str = ""
    fault: str = ""
    status: int = 0
    outcome: str = "open"  # open | answered | refused | cut | hung | gone
    error: str = ""
    events: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: str = "0.000000"
    headers: dict[str, str] = {}
    body: bytes = b""

    def shown(self, *, with_body: bool) -> dict[str, Any]:
        """As JSON values; keys are never shown."""
        out: dict[str, Any] = msgspec.to_builtins(self)
        del out["body"], out["headers"]
        if with_body:
            out["headers"] = {name: "…" if name in _HIDDEN else value for name, value in self.headers.items()}
            try:
                out["body"] = msgspec.json.decode(self.body) if self.body else None
            except msgspec.DecodeError:
                out["body"] = self.body.decode("utf-8", "replace")
        return out


class Bill(msgspec.Struct, kw_only=True):
    """What one account was billed for one model."""

    requests: int = 0
    input: int = 0
    cached: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    pico_usd: int = 0

    @property
    def usd(self) -> str:
        """Dollars, rounded up to the micro-dollar."""
        return format_usd(micro_usd_from_pico(self.pico_usd))


class Billed(msgspec.Struct, frozen=True, gc=False):
    """One request on the bill, kept small: a million of them are about 300 MB."""

    number: int
    at_s: float
    key: tuple[str, str, str]  # provider, account, model: that of its bill
    client_request_id: str  # header x-client-request-id, as the client sent it
    tokens: Tokens
    pico_usd: int


class PriceList:
    """Prices by model glob; no price, no charge."""

    def __init__(self, prices: dict[str, Price]) -> None:
        self._prices = prices
        self._found: dict[str, Price | None] = {}

    def cost_pico_usd(self, model: str, tokens: Tokens) -> int:
        """The cost of ``tokens`` in pico-dollars."""
        if not self._prices:
            return 0
        if model not in self._found and len(self._found) < 4096:
            names = [name for name in self._prices if name == model or fnmatchcase(model, name)]
            self._found[model] = self._prices[names[0]] if names else None
        price = self._found.get(model)
        if price is None:
            return 0
        cached = price.input if price.cached is None else price.cached
        written = price.input if price.cache_write is None else price.cache_write
        plain = tokens.input - tokens.cached - tokens.cache_write
        total = plain * _pico(price.input) + tokens.cached * _pico(cached)
        return total + tokens.cache_write * _pico(written) + tokens.output * _pico(price.output)


def _pico(usd_per_million: float) -> int:
    return round(usd_per_million * _PICO)


class Records:
    """The book of one server."""

    def __init__(self) -> None:
        self.last: deque[Record] = deque(maxlen=_KEPT)
        self.bills: dict[tuple[str, str, str], Bill] = {}
        self.billed: deque[Billed] = deque(maxlen=_KEPT_BILLED)
        self._keys: dict[tuple[str, str, str], tuple[str, str, str]] = {}
        self.counts: Counter[tuple[str, str, str, str]] = Counter()
        self.open_streams = 0
        self.most_open_streams = 0
        self.total = 0

    def begin(self, record: Record, headers: dict[str, str], body: bytes) -> None:
        """Note a request that has come in."""
        record.headers = headers
        record.body = body if len(body) <= _KEPT_BODY_BYTES else b'"(not kept: too long)"'
        self.last.append(record)
        self.total += 1

    def end(self, record: Record) -> None:
        """Count a request that is over."""
        status = record.outcome if record.outcome != "refused" else f"refused {record.status}"
        self.counts[(record.provider, record.account, record.model, status)] += 1

    def charge(self, record: Record, tokens: Tokens, pico_usd: int) -> None:
        """Put ``tokens`` on the bill."""
        key = (record.provider, record.account, record.model)
        key = self._keys.setdefault(key, key)
        bill = self.bills.setdefault(key, Bill())
        name = record.headers.get("x-client-request-id", "")[:_LONGEST_NAME]
        self.billed.append(Billed(record.number, record.at_s, key, name, tokens, pico_usd))
        bill.requests += 1
        bill.input += tokens.input
        bill.cached += tokens.cached
        bill.cache_write += tokens.cache_write
        bill.output += tokens.output
        bill.reasoning += tokens.reasoning
        bill.pico_usd += pico_usd
        record.input_tokens = tokens.input
        record.output_tokens = tokens.output
        if pico_usd:
            record.usd = format_usd(micro_usd_from_pico(pico_usd))

    def stats(self) -> dict[str, Any]:
        """Counters by provider, account, model and outcome, and the sums."""
        outcomes: Counter[str] = Counter()
        rows = []
        for (provider, account, model, outcome), count in sorted(self.counts.items()):
            outcomes[outcome.partition(" ")[0]] += count
            row = {"provider": provider, "account": account, "model": model, "outcome": outcome, "requests": count}
            rows.append(row)
        return {
            "simulated": True,
            "requests": self.total,
            "open_streams": self.open_streams,
            "most_open_streams": self.most_open_streams,
            "gone_clients": outcomes["gone"],
            "outcomes": dict(outcomes),
            "usd": format_usd(micro_usd_from_pico(sum([bill.pico_usd for bill in self.bills.values()]))),
            "by": rows,
        }

    def usage(self) -> list[dict[str, Any]]:
        """The bill: a line for each provider, account and model."""
        lines = []
        for (provider, account, model), bill in sorted(self.bills.items()):
            line = {"provider": provider, "account": account, "model": model, **msgspec.to_builtins(bill)}
            del line["pico_usd"]
            lines.append({**line, "usd": bill.usd})
        return lines

    def usage_csv(self) -> str:
        """The bill as CSV."""
        out = io.StringIO()
        writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.usage())
        return out.getvalue()

    def billed_requests(self, since_s: float = 0.0, provider: str | None = None) -> Iterator[dict[str, Any]]:
        """The bill request by request, each rounded up to the micro-dollar; of the last million."""
        for billed in self.billed:
            name, account, model = billed.key
            if billed.at_s >= since_s and provider in (None, name):
                micro = micro_usd_from_pico(billed.pico_usd)
                yield {
                    "at_s": billed.at_s,
                    "number": billed.number,
                    "provider": name,
                    "account": account,
                    "model": model,
                    "client_request_id": billed.client_request_id,
                    **msgspec.to_builtins(billed.tokens),
                    "micro_usd": micro,
                    "usd": format_usd(micro),
                }

    def billed_csv(self, since_s: float = 0.0, provider: str | None = None) -> str:
        """The same as CSV."""
        out = io.StringIO()
        writer = csv.DictWriter(out, _REQUEST_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.billed_requests(since_s, provider))
        return out.getvalue()
