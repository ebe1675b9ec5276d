"""How numbers and names stand in sentences, and names that a user may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


def plural(n: int, one: str, many: str = "") -> str:
    """A number with its noun.

    >>> plural(1, "gene"), plural(2000, "gene"), plural(2, "factory", "factories")
    ('1 gene', '2,000 genes', '2 factories')
    """
    return f"{int(n):,} {one if n == 1 else many or one + 's'}"


def similar_names(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """Up to ``n`` of the known names that look like a name, whatever the case of letters, the nearest first.

    >>> similar_names("erbb", ["ERBB2", "CD3E"])
    ['ERBB2']
    """
    by_case = {other.casefold(): other for other in known}
    return [by_case[found] for found in difflib.get_close_matches(name.casefold(), by_case, n=n)]


def in_words(value: Any) -> str:
    """A setting as people write it: several values with commas between, tables as ``key value``; no brackets.

    >>> in_words([6, 10]), in_words({"D1": {"platform": "visium"}}), in_words(0.5), in_words(None)
    ('6, 10', 'D1: platform visium', '0.5', 'none')
    """
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        tables = any(isinstance(one, Mapping) for one in value.values())
        parts = [f"{key}{':' if tables else ''} {in_words(one)}" for key, one in value.items() if one is not None]
        return ("; " if tables else ", ").join(parts)
    if isinstance(value, list | tuple | set):
        return ", ".join(map(in_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def by(shape: Iterable[int]) -> str:
    """Sizes along axes, as ``3 x 4``.

    >>> by((3, 4)), by((5,)), by(())
    ('3 x 4', '5', 'no axes')
    """
    return " x ".join(map(str, shape)) or "no axes"
