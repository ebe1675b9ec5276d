"""Values as a report shows them, and tables and JSON files as it reads them: what is not there is empty."""

from __future__ import annotations

import csv
import json
import math
from datetime import timedelta
from pathlib import Path
from typing import Any

NOT_KNOWN = "–"
"""A cell of which nothing is known."""

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
