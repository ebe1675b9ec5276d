"""How numbers stand in sentences."""

from __future__ import annotations


def plural(n: int, one: str, many: str = "") -> str:
    """A number with its noun.

    >>> plural(1, "gene"), plural(2000, "gene"), plural(2, "factory", "factories")
    ('1 gene', '2,000 genes', '2 factories')
    """
    return f"{int(n):,} {one if n == 1 else many or one + 's'}"
