"""What is computed once: threads that share work, and a cache of what came last within a budget of bytes."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from iscale.view.query import RefusedError

THREADS = 3
MOST_WAITING = 400
"""Pieces of work that may wait: a page asks for some fifty tiles at a time."""


@dataclass
class _Task:
    """A piece of work, and how many wait for it."""

    future: Future[Any]
    gone: threading.Event = field(default_factory=threading.Event)
    waiting: int = 0


class Workers:
    """A small pool of threads."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="iscale-view")
        self._under_way: dict[Hashable, _Task] = {}

    async def do(self, key: Hashable, work: Callable[[Callable[[], bool]], Any]) -> Any:
        """Compute something in a thread, or wait for who computes the same, of equal ``key``; call from the event loop.

        ``work`` gets a function that tells whether all who waited are gone: work that takes long asks it. Refused where
        too much is waiting already.
        """
        task = self._under_way.get(key)
        if task is None:
            if len(self._under_way) >= MOST_WAITING:
                raise RefusedError(503, f"{len(self._under_way)} requests are waiting already: try again in a while.")
            gone = threading.Event()
            task = _Task(self._pool.submit(work, gone.is_set), gone)
            self._under_way[key] = task
        task.waiting += 1
        try:
            answer = asyncio.wrap_future(task.future)
            answer.add_done_callback(_heard)
            return await asyncio.shield(answer)
        finally:
            task.waiting -= 1
            if not task.waiting:
                if self._under_way.get(key) is task:
                    del self._under_way[key]
                task.gone.set()
                task.future.cancel()

    @property
    def busy(self) -> int:
        """Pieces of work that are under way or wait."""
        return len(self._under_way)

    def close(self) -> None:
        """Let go of the threads; what waits is dropped."""
        for task in self._under_way.values():
            task.gone.set()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _heard(answer: asyncio.Future[Any]) -> None:
    """Take note of a failure that nobody waits for any more: asyncio would complain of it in the terminal."""
    if not answer.cancelled():
        answer.exception()


Value = TypeVar("Value")

OVERHEAD = 200
"""Bytes of an entry beside its value: key, order, objects."""


class ByteCache(Generic[Value]):
    """Values by key, of which the least recently used go when their bytes exceed the budget; for several threads.

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
