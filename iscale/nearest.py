"""Names that a user may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def similar_names(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """Up to ``n`` of the known names that look like a name, whatever the case of letters, the nearest first.

    >>> similar_names("erbb", ["ERBB2", "CD3E"])
    ['ERBB2']
    """
    by_case = {other.casefold(): other for other in known}
    return [by_case[found] for found in difflib.get_close_matches(name.casefold(), by_case, n=n)]
