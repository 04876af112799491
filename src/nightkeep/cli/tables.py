"""How the command line prints: columns that line up, colour on a terminal only, plain words."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import click

__all__ = ["print_table", "styled"]


def styled(text: str, colour: str | None = None, *, bold: bool = False) -> str:
    """Colour a text; ``click.echo`` takes it off again where nobody would see it."""
    return click.style(text, fg=colour, bold=bold) if colour or bold else text


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under headings; the last column is never padded."""
    plain = [[click.unstyle(cell) for cell in row] for row in rows]
    widths = [max([_width(heading), *(_width(row[n]) for row in plain)]) for n, heading in enumerate(headings)]
    click.echo(_line([styled(heading, "bright_black") for heading in headings], list(headings), widths))
    for row, bare in zip(rows, plain, strict=True):
        click.echo(_line(row, bare, widths))


def _line(cells: Sequence[str], plain: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell + " " * (width - _width(bare)) for cell, bare, width in zip(cells, plain, widths, strict=True)]
    return "  ".join([*padded[:-1], cells[-1]]).rstrip()


def _width(text: str) -> int:
    """Columns on the screen: East Asian characters have two, combining ones none."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )
