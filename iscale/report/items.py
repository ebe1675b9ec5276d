"""What a report is made of: sections, and in them figures, tables, facts and words; and values as it shows them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: Literal["text"] = "text"


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str
    kind: Literal["heading"] = "heading"


@dataclass(frozen=True)
class Facts:
    """Names with their values, in order."""

    rows: tuple[tuple[str, str], ...]
    kind: Literal["facts"] = "facts"


@dataclass(frozen=True)
class Figure:
    """A picture: PNG file in the report's folder, what is to be seen for those who cannot see it, and a caption.

    It takes the ``full`` width, that of the ``text``, or ``half``: these stand beside each other where there is room.
    """

    path: Path
    alt: str
    caption: str
    size: Literal["full", "text", "half"] = "text"
    kind: Literal["figure"] = "figure"


@dataclass(frozen=True)
class Table:
    """A table of texts, with the indices of columns that hold numbers; a folded one is only shown when asked for."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    folded: bool = False
    kind: Literal["table"] = "table"


@dataclass(frozen=True)
class Missing:
    """What this run does not offer, and the command that makes it, after what else is to be done."""

    text: str
    command: str
    then: str = "To make it:"
    kind: Literal["missing"] = "missing"


Item = Text | Heading | Facts | Figure | Table | Missing


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading, and its name in links."""

    anchor: str
    title: str
    items: tuple[Item, ...]


def not_made(anchor: str, title: str, text: str, command: str, then: str = Missing.then) -> Section:
    """A section that only says what this run does not offer, and the command that makes it."""
    return Section(anchor, title, (Missing(text, command, then),))


Weight = Literal["good", "doubtful", "bad", "note"]


@dataclass(frozen=True)
class Finding:
    """One sentence of the verdict, and how much it matters."""

    weight: Weight
    text: str


def table_of(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, folded: bool = False) -> Table:
    """A table whose columns of numbers are found.

    >>> sorted(table_of("t", ["gene", "score"], [["A", "0.5"], ["B", "–"]]).numeric)
    [1]
    """
    cells = tuple(tuple(row) for row in rows)
    numeric = frozenset(
        i for i in range(len(columns)) if cells and all(_is_number(row[i]) or row[i] == NOT_KNOWN for row in cells)
    )
    return Table(caption, tuple(columns), cells, numeric, folded)


NOT_KNOWN = "–"
"""A cell of which nothing is known."""


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").removeprefix("<").removesuffix(" %"))
    except ValueError:
        return False
    return True


Row = dict[str, str]


def read_tsv(path: Path) -> list[Row]:
    """Rows of a table separated by tabs, by the names in its header; none where it is not there or not readable."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = (line for line in file if not line.startswith("#"))
            rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            return [{str(k): v or "" for k, v in row.items() if k is not None} for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def read_json(path: Path) -> dict[str, Any]:
    """An object of a JSON file; empty where it is not there or not readable."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def number(text: str | None) -> float:
    """A number as a table writes it; NaN where there is none.

    >>> number("0.25"), number(""), number("<b>")
    (0.25, nan, nan)
    """
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def shown(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals.

    >>> shown(0.256), shown(None), shown(-0.001)
    ('0.26', '–', '0.00')
    """
    if value is None or not math.isfinite(value):
        return NOT_KNOWN
    rounded = round(value, digits)
    return f"{rounded + 0.0:.{digits}f}"


def percent(value: float | None) -> str:
    """A share in percent.

    >>> percent(0.256), percent(0.004), percent(1e-5), percent(None)
    ('26 %', '0.4 %', '<0.1 %', '–')
    """
    if value is None or not math.isfinite(value):
        return NOT_KNOWN
    if 0 < value < 0.0005:
        return "<0.1 %"
    return f"{value:.1%}".replace("%", " %") if 0 < abs(value) < 0.0095 else f"{value:.0%}".replace("%", " %")


def count(n: float) -> str:
    """A number of things.

    >>> count(1234567)
    '1,234,567'
    """
    return f"{int(n):,}"


def duration(seconds: float) -> str:
    """A time for people.

    >>> duration(0.42), duration(75), duration(3725)
    ('0.4 s', '1 min 15 s', '1:02:05 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{timedelta(seconds=round(seconds))} h"


def tidy(text: str, digits: int = 3) -> str:
    """A cell of a run's table: numbers rounded, all else as it is.

    >>> tidy("0.123456"), tidy("KRT5"), tidy("17"), tidy("1.2e-30"), tidy("")
    ('0.123', 'KRT5', '17', '1.2e-30', '–')
    """
    if not text:
        return NOT_KNOWN
    try:
        value = float(text)
    except ValueError:
        return text
    if text.strip().lstrip("+-").isdigit():
        return text.strip()
    if not math.isfinite(value):
        return NOT_KNOWN if math.isnan(value) else text
    small = value != 0 and abs(value) < 10**-digits
    return f"{value:.2g}" if small else f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:,.0f}"
