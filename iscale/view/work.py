"""Work for requests: a few threads, the same thing computed once, nothing computed for who is gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from iscale.view.refused import RefusedError

THREADS = 3
MOST_WAITING = 400
"""Pieces of work that may wait: a page asks for some fifty tiles at a time."""


@dataclass
class _Flight:
    """A piece of work, and how many wait for it."""

    future: Future[Any]
    gone: threading.Event = field(default_factory=threading.Event)
    waiting: int = 0


class Workers:
    """A small pool of threads."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="iscale-view")
        self._flights: dict[Hashable, _Flight] = {}

    async def do(self, key: Hashable, work: Callable[[Callable[[], bool]], Any]) -> Any:
        """Compute something in a thread, or wait for who computes the same; call from the event loop.

        Parameters
        ----------
        key
            What it is: requests of equal keys share the work.
        work
            Gets a function that tells whether all who waited are gone; work that takes long asks it.

        Raises
        ------
        RefusedError
            Where too much is waiting already; and whatever ``work`` raises.
        """
        flight = self._flights.get(key)
        if flight is None:
            if len(self._flights) >= MOST_WAITING:
                raise RefusedError(503, f"{len(self._flights)} requests are waiting already: try again in a while.")
            gone = threading.Event()
            flight = _Flight(self._pool.submit(work, gone.is_set), gone)
            self._flights[key] = flight
        flight.waiting += 1
        try:
            answer = asyncio.wrap_future(flight.future)
            answer.add_done_callback(_heard)
            return await asyncio.shield(answer)
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                if self._flights.get(key) is flight:
                    del self._flights[key]
                flight.gone.set()
                flight.future.cancel()

    @property
    def busy(self) -> int:
        """Pieces of work that are under way or wait."""
        return len(self._flights)

    def close(self) -> None:
        """Let go of the threads; what waits is dropped."""
        for flight in self._flights.values():
            flight.gone.set()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _heard(answer: asyncio.Future[Any]) -> None:
    """Take note of a failure that nobody waits for any more: asyncio would complain of it in the terminal."""
    if not answer.cancelled():
        answer.exception()
