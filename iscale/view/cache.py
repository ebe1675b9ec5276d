"""What was computed last, kept within a budget of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")

OVERHEAD = 200
"""Bytes of an entry beside its value: key, order, objects."""


class ByteCache(Generic[Value]):
    """Values by key, of which the least recently used go when their bytes exceed the budget; for several threads.

    Parameters
    ----------
    budget
        Bytes.
    size
        Bytes of a value.

    Examples
    --------
    >>> cache = ByteCache(700, len)
    >>> for name in "abc":
    ...     cache.put(name, b"x" * 100)
    >>> cache.get("a") is None, cache.get("c") is None, cache.bytes
    (True, False, 600)
    """

    def __init__(self, budget: int, size: Callable[[Value], int]) -> None:
        self.budget = budget
        self.bytes = 0
        self._size = size
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._making: dict[Hashable, threading.Event] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Value | None:
        """The value, if it is held."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Hashable, value: Value) -> None:
        """Hold a value, unless it alone is more than the budget."""
        bytes_ = self._size(value) + OVERHEAD
        with self._lock:
            self._drop(key)
            if bytes_ > self.budget:
                return
            self._values[key] = value
            self.bytes += bytes_
            while self.bytes > self.budget:
                self._drop(next(iter(self._values)))

    def once(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value, made if it is not held: who asks for it meanwhile waits and gets the same."""
        while (value := self.get(key)) is None:
            with self._lock:
                own = key not in self._making
                made = self._making.setdefault(key, threading.Event())
            if not own:
                made.wait()
                continue
            try:
                value = make()
                self.put(key, value)
                return value
            finally:
                with self._lock:
                    del self._making[key]
                made.set()
        return value

    def _drop(self, key: Hashable) -> None:
        if key in self._values:
            self.bytes -= self._size(self._values.pop(key)) + OVERHEAD
