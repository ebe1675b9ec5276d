"""How numbers and names stand in sentences, and names that a user may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
