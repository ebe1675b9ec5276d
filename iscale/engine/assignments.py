"""Regions that Dask workers are at: handed to them by name, heard of while they last, called back where need be."""

from __future__ import annotations

import contextlib
import pickle
import queue
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from iscale.engine.attempt import Outcome, attempt
from iscale.engine.progress import Hear
from iscale.engine.step import Kernel, Step, There
from iscale.geometry import Region


class Post:
    """Sends what a kernel tells, and what became of its region, from a Dask worker to those who subscribe to a topic.

    An outcome is sent besides being returned: it is here when the task is known to be over, while what a task returned
    stays with its worker until it is fetched, and is lost with it.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic

    def __call__(self, region: Region, fraction: float) -> None:
        """Tell how far a region is."""
        self._send([region.y0, region.y1, region.x0, region.x1, fraction])

    def bring(self, key: str, outcome: Outcome) -> None:
        """Tell what became of a task."""
        self._send([key, pickle.dumps(outcome)])

    def _send(self, message: list[Any]) -> None:
        """Hand it to the worker's own connection, which drops it where the scheduler is not there."""
        from distributed import get_worker

        get_worker().log_event(self.topic, message)


def attempt_and_tell(
    kernel: Kernel, context: Any, region: Region, post: Post, anchors: tuple[There, ...], key: str
) -> Outcome:
    """The task that Dask workers run: one attempt at a region, whose outcome goes by post as well."""
    outcome = attempt(kernel, context, region, post, anchors)
    post.bring(key, outcome)
    return outcome


@contextlib.contextmanager
def open_post(client: Any, hear: Hear, keep: Callable[[str, Outcome], None]) -> Iterator[Post]:
    """What tasks send by; what it brings is heard, or kept by its task's key, in the client's thread."""
    post = Post(f"iscale-{uuid.uuid4().hex}")

    def deliver(event: tuple[float, list[Any]]) -> None:
        if len(event[1]) == 2:
            key, outcome = event[1]
            keep(key, pickle.loads(outcome))
        else:
            *place, fraction = event[1]
            hear(Region(*place), fraction)

    client.subscribe_topic(post.topic, deliver)
    try:
        yield post
    finally:
        if client.status == "running":
            client.unsubscribe_topic(post.topic)


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
