"""What a report's page is made of: sections, and in them figures, tables, facts and words; and the page as HTML.

It is one file that needs nothing else. Texts of users are escaped by the template engine.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from iscale import __version__
from iscale.engine.whole_file import whole_file
from iscale.report.values import NOT_KNOWN


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


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").removeprefix("<").removesuffix(" %"))
    except ValueError:
        return False
    return True


BUDGET_BYTES = 7_000_000
"""Of all pictures together, as they stand in the page: that stays under 10 MB with all its tables."""

WIDTHS = (1200, 900, 640, 440, 300)
"""Widest copy in pixels: the first with which all pictures fit the budget."""

QUALITY = 82


@dataclass(frozen=True)
class Embedded:
    """A picture as it stands in the page: its address, and the width and height of the copy in pixels."""

    uri: str
    width: int
    height: int


def embed(paths: Sequence[Path], budget: int = BUDGET_BYTES) -> dict[Path, Embedded]:
    """Copies of pictures that fit a budget together, by file."""
    found: dict[Path, Embedded] = {}
    for width in WIDTHS:
        found = {path: _embedded(path, width) for path in dict.fromkeys(paths)}
        if sum(len(picture.uri) for picture in found.values()) <= budget:
            break
    return found


def _embedded(path: Path, widest: int) -> Embedded:
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    if picture.width > widest:
        height = max(1, round(picture.height * widest / picture.width))
        picture = picture.resize((widest, height), Image.Resampling.LANCZOS)
    packed = io.BytesIO()
    picture.save(packed, "WEBP", quality=QUALITY, method=4)
    data = base64.b64encode(packed.getvalue()).decode("ascii")
    return Embedded(f"data:image/webp;base64,{data}", picture.width, picture.height)


HERE = Path(__file__).parent


def render(
    title: str, lead: str, findings: Sequence[Finding], notices: Sequence[str], sections: Sequence[Section]
) -> str:
    """The page as HTML, with the verdict, what the run had to say of its input, and the sections in order."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    figures = [item.path for section in sections for item in section.items if isinstance(item, Figure)]
    return environment.get_template("page.html").render(
        title=title,
        lead=lead,
        findings=findings,
        notices=notices,
        sections=sections,
        pictures=embed(figures),
        version=__version__,
        # Ours, not a user's: these two files go into the page as they are.
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "page.js").read_text(encoding="utf-8")),
    )


def write_page(path: Path, html: str) -> None:
    """Write the page, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(html, encoding="utf-8")
