"""Regions that Dask workers are at: handed to them by name, watched until they are over, called back where need be."""

from __future__ import annotations

import contextlib
import queue
import time
import uuid
from dataclasses import dataclass
from typing import Any

from iscale.engine.attempt import Outcome
from iscale.engine.post import Post, attempt_and_tell
from iscale.engine.step import Step, There
from iscale.geometry import Region


@dataclass
class Flight:
    """A region that a worker is at.

    Attributes
    ----------
    region, worker
        The region, and the worker's address.
    future
        Of its task.
    heard
        When it was last heard of.
    missed
        Since when its worker has not been there.
    """

    region: Region
    worker: str
    future: Any
    heard: float
    missed: float | None = None


class Flights:
    """The regions of a step that are being computed.

    Parameters
    ----------
    client
        Connected to the scheduler.
    step
        The step.
    anchors
        Files that are there as long as the output folder is.
    """

    def __init__(self, client: Any, step: Step, anchors: tuple[There, ...]) -> None:
        self._client = client
        self._step = step
        self._anchors = anchors
        self._aloft: dict[str, Flight] = {}
        self._over: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._told: dict[str, Outcome] = {}
        self.post: Post | None = None

    def __len__(self) -> int:
        return len(self._aloft)

    @property
    def busy(self) -> set[str]:
        """Addresses of the workers that have a region."""
        return {flight.worker for flight in self._aloft.values()}

    def hear(self, region: Region) -> None:
        """A region has told how far it is."""
        for flight in list(self._aloft.values()):
            if flight.region == region:
                flight.heard = time.monotonic()

    def keep(self, key: str, outcome: Outcome) -> None:
        """The outcome of a task, come by post."""
        self._told[key] = outcome

    def start(self, region: Region, worker: str) -> None:
        """Hand a region to a worker."""
        key = f"{self._step.name}-{uuid.uuid4().hex}"
        future = self._client.submit(
            attempt_and_tell,
            self._step.kernel,
            self._step.context,
            region,
            self.post,
            self._anchors,
            key,
            key=key,
            pure=False,
            # On no other: Dask would not give it to one that comes when none is left.
            workers=[worker],
        )
        self._aloft[key] = Flight(region, worker, future, time.monotonic())
        future.add_done_callback(self._over.put)

    def landed(self, patience_s: float) -> list[Flight]:
        """Those whose tasks are over, one at least unless none is for a while; they are not in the air any more."""
        futures = []
        with contextlib.suppress(queue.Empty):
            futures.append(self._over.get(timeout=patience_s))
            while True:
                futures.append(self._over.get_nowait())
        return [self._aloft.pop(future.key) for future in futures if future.key in self._aloft]

    def outcome(self, flight: Flight) -> Outcome:
        """What a task returned that finished; it is forgotten."""
        outcome = self._told.pop(flight.future.key, None) or flight.future.result()
        flight.future.release()
        return outcome

    def left(self, there: dict[str, str], gone_s: float) -> list[Region]:
        """Call back regions whose workers have left in good order, at the end of their lifetime for instance."""
        now = time.monotonic()
        for flight in self._aloft.values():
            flight.missed = None if flight.worker in there else flight.missed or now
        return self._call_back(
            [k for k, flight in self._aloft.items() if flight.missed is not None and now - flight.missed > gone_s]
        )

    def silent(self, silence_s: float) -> list[Region]:
        """Call back regions of which nothing was heard for too long, and restart the workers that are at them."""
        now = time.monotonic()
        silent = [key for key, flight in self._aloft.items() if now - flight.heard > silence_s]
        if silent:
            at = self._client.processing()
            workers = [worker for worker, keys in at.items() if not set(silent).isdisjoint(keys)]
            # One that left meanwhile is an error to dask, one that nobody restarts too.
            with contextlib.suppress(KeyError, ValueError, OSError, TimeoutError):
                self._client.restart_workers(workers, raise_for_error=False)
        return self._call_back(silent)

    def cancel(self) -> None:
        """Call back all."""
        if self._client.status == "running":
            self._call_back(list(self._aloft))

    def _call_back(self, keys: list[str]) -> list[Region]:
        flights = [self._aloft.pop(key) for key in keys]
        if flights:
            self._client.cancel([flight.future for flight in flights], force=True)
        return [flight.region for flight in flights]
