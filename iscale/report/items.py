"""What a report is made of: sections, and in them figures, tables, facts, words, and what is not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


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
    """A picture.

    Attributes
    ----------
    path
        PNG file in the report's folder.
    alt
        What is to be seen, for those who cannot see it.
    caption
        Below it.
    size
        ``full`` width, that of the ``text``, or ``half``: these stand beside each other where there is room.
    """

    path: Path
    alt: str
    caption: str
    size: Literal["full", "text", "half"] = "text"
    kind: Literal["figure"] = "figure"


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes
    ----------
    caption
        What it holds.
    columns
        Heads of the columns.
    rows
        Cells, as they are shown.
    numeric
        Indices of the columns that hold numbers.
    folded
        Whether it is only shown when asked for.
    """

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
    """A part of the page with a heading.

    Attributes
    ----------
    anchor
        Its name in links.
    title
        Its heading.
    items
        What it shows.
    """

    anchor: str
    title: str
    items: tuple[Item, ...]


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
