"""How spending reads on a terminal: exact money in columns, bars for shares, and what there is to know about the total.

Text only, from values; ``nightkeep.cli.spend`` fetches and prints. Made for a hundred columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

import click

from nightkeep.cli.call_words import plural
from nightkeep.cli.tables import print_table, styled
from nightkeep.core.money import MicroUsd, format_usd
from nightkeep.models.ledger_queries import Spend
from nightkeep.models.ledger_savings import Ablation, Layer, Projection
from nightkeep.models.spending import Spending

__all__ = ["amount", "plain", "print_ablation", "print_spending", "right", "signed"]

_BAR: Final = 12
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_LONGEST_NAME: Final = 28
_NONE: Final = {
    "tag": "(no tag)", "key": "(no key)", "release": "(no release)", "run": "(no run)", "agent": "(unknown)",
    "scope": "/", "account": "(unknown)",
}  # fmt: skip


def amount(micro_usd: int) -> str:
    """Dollars to the micro-dollar; what is below a cent is dim."""
    whole, _, micro = format_usd(MicroUsd(abs(micro_usd))).partition(".")
    sign = "-" if micro_usd < 0 else ""
    return f"{sign}${int(whole):,}.{micro[:2]}{styled(micro[2:], 'bright_black')}"


def signed(micro_usd: int) -> str:
    """A difference: ``+$0.01``."""
    return amount(micro_usd) if micro_usd < 0 else f"+{amount(micro_usd)}"


def right(cells: Sequence[str]) -> list[str]:
    """A column of figures, aligned at its right end."""
    widths = [len(click.unstyle(cell)) for cell in cells]
    most = max(widths, default=0)
    return [" " * (most - width) + cell for cell, width in zip(cells, widths, strict=True)]


def print_spending(spending: Spending, *, with_projection: bool) -> None:
    """A page: the total, a table of who spent it, and what there is to say about it."""
    total = spending.total
    click.echo(f"\n  {styled(click.unstyle(amount(total.cost_micro_usd)), bold=True)}  {_headline(spending)}")
    click.echo(f"  {styled(_tokens(total), 'bright_black')}\n")
    if spending.groups:
        _print_groups(spending)
    for name, text in _remarks(spending):
        colour = "yellow" if name in ("estimated", "unpriced") else "bright_black"
        click.echo(f"  {styled(f'{name:<10}', colour)}{text}")
    if with_projection and spending.projection:
        _print_projection(spending.projection)
    elif with_projection:
        click.echo("\n  from less than ten minutes nothing can be said of a day")
    click.echo("")


def _headline(spending: Spending) -> str:
    where = "" if spending.scope == "/" else f" by {spending.scope}"
    since = spending.since or spending.begins_at
    began = f" since {_moment(since)}" if since else ""
    until = f" until {_moment(spending.until)}" if spending.until else ""
    return f"spent{where}{began}{until}"


def _moment(at: datetime) -> str:
    local = at.astimezone()
    return f"{local:%b} {local.day}, {local:%H:%M}"


def _tokens(spend: Spend) -> str:
    plain = spend.input_tokens + spend.cache_read_tokens + spend.cache_write_tokens
    out = spend.output_tokens + spend.reasoning_tokens
    thought = f" ({count(spend.reasoning_tokens)} of them reasoning)" if spend.reasoning_tokens else ""
    cached = (
        f" ({_percent(spend.cache_read_tokens, plain)} from the provider's cache)" if spend.cache_read_tokens else ""
    )
    return f"{plural(spend.requests, 'request')} · {count(plain)} tokens in{cached} · {count(out)} out{thought}"


def count(number: int) -> str:
    """A count in three figures: ``980``, ``41.2k``, ``5.20M``."""
    for limit, unit in ((999_500_000, "G"), (999_500, "M"), (1_000, "k")):
        if abs(number) >= limit:
            value = number / {"G": 1e9, "M": 1e6, "k": 1e3}[unit]
            places = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{places}f}{unit}"
    return str(number)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f}%" if whole else ""


def _bar(part: int, most: int) -> str:
    """A bar as long as a part is of the longest."""
    if part <= 0 or most <= 0:
        return ""
    eighths = max(1, round(part * _BAR * 8 / most))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _print_groups(spending: Spending) -> None:
    by = spending.by or ""
    lines = [(_name(group.name, by), group.spend) for group in spending.groups]
    if spending.others is not None:
        lines.append((f"({spending.others_count:,} others)", spending.others))
    whole = spending.total.cost_micro_usd
    most = max(group.spend.cost_micro_usd for group in spending.groups)
    everything = [*lines, ("total", spending.total)]
    costs = right([amount(spend.cost_micro_usd) for _, spend in everything])
    shares = right([f"{100 * spend.cost_micro_usd / whole:.1f}%" if whole else "" for _, spend in everything])
    requests = right(["REQUESTS", *(f"{spend.requests:,}" for _, spend in everything)])
    tokens_in = right(["IN", *(count(_all_in(spend)) for _, spend in everything)])
    tokens_out = right(["OUT", *(count(spend.output_tokens + spend.reasoning_tokens) for _, spend in everything)])
    cached = right(["CACHED", *(_percent(spend.cache_read_tokens, _all_in(spend)) or "-" for _, spend in everything)])
    width = len(click.unstyle(costs[0]))
    headings = (by.upper(), f"{'COST':>{width}}", "SHARE", requests[0], tokens_in[0], tokens_out[0], cached[0])
    rows = []
    for n, (name, spend) in enumerate(everything):
        is_total = n == len(lines)
        bar = "" if n >= len(spending.groups) else _bar(spend.cost_micro_usd, most)
        share = f"{shares[n]} {styled(bar, 'cyan')}{' ' * (_BAR - len(bar))}"
        cost = styled(click.unstyle(costs[n]), bold=True) if is_total else costs[n]
        label = styled(name, bold=True) if is_total else name
        rows.append((label, cost, share, requests[n + 1], tokens_in[n + 1], tokens_out[n + 1], cached[n + 1]))
    print_table([f"  {headings[0]}", *headings[1:]], [(f"  {row[0]}", *row[1:]) for row in rows])
    click.echo("")


def _all_in(spend: Spend) -> int:
    return spend.input_tokens + spend.cache_read_tokens + spend.cache_write_tokens


def plain(name: str) -> str:
    """A name as it may be printed: names come from clients, and could steer a terminal."""
    return name if name.isprintable() else "".join(each if each.isprintable() else "�" for each in name)


def _name(name: str, by: str) -> str:
    name = plain(name) or _NONE.get(by, "(none)")
    return name if len(name) <= _LONGEST_NAME else f"{name[:12]}…{name[-(_LONGEST_NAME - 13) :]}"


def _remarks(spending: Spending) -> Iterator[tuple[str, str]]:
    """What there is to know about the total."""
    total, runs = spending.total, spending.runs
    if total.estimates:
        open_ones = f"{plural(total.estimates, 'request')} whose bill is not known"
        yield "estimated", f"{amount(total.estimated_micro_usd)} of it: {open_ones}; nightkeep spend reconcile"
    if total.unpriced:
        yield (
            styled("unpriced  ", "yellow"),
            f"{plural(total.unpriced, 'request')} of models without a price count as $0",
        )
    if total.failed_requests:
        yield (
            "failed",
            f"{amount(total.failed_micro_usd)} for {plural(total.failed_requests, 'request')} that failed or were cut",
        )
    if total.adjusted_micro_usd:
        yield "corrected", f"{signed(total.adjusted_micro_usd)} by reconciling with providers' reports"
    if total.cache_saved_micro_usd:
        saved = total.cache_saved_micro_usd
        what = "saved" if saved > 0 else "lost"
        yield what, f"{amount(abs(saved))} by the providers' prompt caches; see nightkeep spend ablation"
    if runs.per_successful_micro_usd is not None:
        cost = amount(runs.per_successful_micro_usd)
        yield "per run", f"{cost} for each successful one ({runs.successful:,} of {plural(runs.runs, 'run')})"
    elif runs.runs:
        yield "per run", f"none of {plural(runs.runs, 'run')} has succeeded"


def _print_projection(lines: Sequence[Projection]) -> None:
    requests = right(["REQUESTS A DAY", *(f"{line.requests_a_day:,.0f}" for line in lines)])
    days = right(["A DAY", *(amount(line.a_day_micro_usd) for line in lines)])
    months = right(["30 DAYS", *(amount(line.a_month_micro_usd) for line in lines)])
    factors = right([f"{line.factor}×" for line in lines])
    click.echo("")
    rows = [(f"  {factor}", requests[n], days[n], months[n]) for n, factor in enumerate(factors, 1)]
    print_table(["  LOAD", requests[0], days[0], months[0]], rows)
    click.echo(
        styled(
            "\n  This period's average, if it went on; limits, tiers and other prices are not in it.", "bright_black"
        )
    )


# -- what was saved


def print_ablation(found: Ablation) -> None:
    """What was saved, by what."""
    cost, without = found.cost_micro_usd, found.without_micro_usd
    click.echo(
        f"\n  {styled(click.unstyle(amount(cost)), bold=True)}  spent; without what follows it would have been",
        nl=False,
    )
    click.echo(f" {amount(without)}\n")
    layers = found.layers
    most = max((layer.saved_micro_usd for layer in layers), default=0)
    saved = right(["SAVED", *(amount(layer.saved_micro_usd) if _is_known(layer) else "-" for layer in layers)])
    requests = right(["REQUESTS", *(f"{layer.requests:,}" for layer in layers)])
    rows = []
    for n, layer in enumerate(layers, 1):
        bar = _bar(layer.saved_micro_usd, most)
        share = f"{_percent(max(0, layer.saved_micro_usd), without):>4} {styled(bar, 'green')}{' ' * (_BAR - len(bar))}"
        unknown = f"{layer.unknown:,} more not known" if layer.unknown else ""
        rows.append((f"  {layer.what}", saved[n], share, requests[n], styled(unknown, "yellow")))
    print_table(["  WHAT SAVED", saved[0], "SHARE", requests[0], ""], rows)
    runs = found.runs
    if runs.successful:
        bare = -(-(runs.cost_micro_usd + without - cost) // runs.successful)
        each = amount(runs.per_successful_micro_usd or 0)
        click.echo(
            f"\n  {styled('per run   ', 'bright_black')}{each} for each successful one; without it {amount(bare)}"
        )
    click.echo("")


def _is_known(layer: Layer) -> bool:
    return bool(layer.requests or layer.saved_micro_usd) or not layer.unknown
