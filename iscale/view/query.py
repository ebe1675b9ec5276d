"""What a request is told that cannot be answered, and parameters of requests read with their bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping


class RefusedError(Exception):
    """A request that is not answered: a status of HTTP, and one sentence that says why, with the numbers."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status, sentence)
        self.status = status
        self.sentence = sentence


class Query:
    """Parameters of a request, each read with its bounds.

    >>> Query({"lo": "1.5"}).number("lo")
    1.5
    >>> Query({"k": "7"}).whole("k", 0, 3)
    Traceback (most recent call last):
    ...
    iscale.view.query.RefusedError: (400, 'k is 7, not a whole number from 0 to 3.')
    """

    LONGEST = 200

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def text(self, name: str, default: str = "") -> str:
        """A short text."""
        value = self._values.get(name, default)
        if len(value) > self.LONGEST:
            raise RefusedError(400, f"{name} has {len(value)} letters, more than {self.LONGEST}.")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number, required without a default."""
        value = self.text(name)
        if not value and default is not None:
            return default
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise RefusedError(400, f"{name} is {value[:40]!r}, not a number.")
        return number

    def whole(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number from ``low`` to ``high``."""
        value = self.text(name)
        if not value and default is not None:
            return default
        if not (value.isascii() and value.isdigit() and len(value) < 10 and low <= int(value) <= high):
            raise RefusedError(400, f"{name} is {value[:40] or 'missing'}, not a whole number from {low} to {high}.")
        return int(value)
