"""Regions of a step on their way over Dask workers: those that wait, how often they failed, and who is at which.

Whether a region is tried again is decided here; who is alive is known to `iscale.engine.dask_driver`.
"""

from __future__ import annotations

import contextlib
import heapq
import pickle
import queue
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from iscale.engine.drivers import Outcome, attempt
from iscale.engine.plan import format_bytes
from iscale.engine.progress import Hear
from iscale.engine.step import Kernel, Step, There
from iscale.geometry import Region

SECONDS_BEFORE = (2.0, 8.0, 20.0, 40.0)
"""Waits before a region is tried again whose node may be to blame: a file system gone for a minute is outlived."""

MOST_LEAVES = 5
"""A region is given up that so many workers left undone, whose time was over or which were sent away."""

MOST_DEATHS = 3
"""A region is given up that was being computed when so many workers died."""


class RegionQueue:
    """Regions of a step that no worker has, in order, and what happened to them so far.

    What notes a failure says whether the region is put back; False where that has happened too often.
    """

    def __init__(self, regions: Iterable[Region]) -> None:
        self._new = list(regions)[::-1]
        self._again: list[tuple[float, Region]] = []
        self._faults: Counter[Region] = Counter()
        self._leaves: Counter[Region] = Counter()
        self._killed: defaultdict[Region, list[str]] = defaultdict(list)
        self._silenced: Counter[Region] = Counter()
        self._limit = 0

    def __len__(self) -> int:
        return len(self._new) + len(self._again)

    def take(self, now: float) -> Region | None:
        """The next region whose time has come, if there is one."""
        if self._again and self._again[0][0] <= now:
            return heapq.heappop(self._again)[1]
        return self._new.pop() if self._new else None

    def after_fault(self, region: Region, now: float) -> bool:
        """Note a failure for which the node may be to blame; the region waits a while."""
        self._faults[region] += 1
        faults = self._faults[region]
        return faults <= len(SECONDS_BEFORE) and self._put_back(region, now + SECONDS_BEFORE[faults - 1])

    def after_leave(self, region: Region, now: float) -> bool:
        """Note that its worker left in good order."""
        self._leaves[region] += 1
        return self._leaves[region] < MOST_LEAVES and self._put_back(region, now)

    def after_kill(self, region: Region, now: float, error: Any) -> bool:
        """Note what a ``KilledWorker`` says."""
        # A scheduler that somebody else started tries on other workers by itself before it says so.
        self._killed[region] += [error.last_worker.address] * (int(error.allowed_failures) + 1)
        self._limit = error.last_worker.memory_limit or 0
        return self._after_death(region, now)

    def after_silence(self, region: Region, now: float) -> bool:
        """Note that its worker was restarted, as nothing was heard of it."""
        self._silenced[region] += 1
        return self._after_death(region, now)

    def why_workers_died(self, region: Region, ended_for_memory: set[str], silence_s: float) -> str:
        """Why a region is given up, given the addresses of workers that Dask ended for their memory."""
        killed, silenced = self._killed[region], self._silenced[region]
        large = sum(worker in ended_for_memory for worker in killed)
        causes = {
            f"took more than the {format_bytes(self._limit)} of memory that a worker may use (--memory)": large,
            f"were restarted, as nothing was heard of them for {silence_s:.0f} s": silenced,
            "were killed from outside, or for the memory of their node (its logs tell)": len(killed) - large,
        }
        counted = "; ".join(f"{count} {cause}" for cause, count in causes.items() if count)
        return f"{len(killed) + silenced} workers died while they computed it: {counted}"

    def _after_death(self, region: Region, now: float) -> bool:
        deaths = len(self._killed[region]) + self._silenced[region]
        return deaths < MOST_DEATHS and self._put_back(region, now)

    def _put_back(self, region: Region, when: float) -> bool:
        heapq.heappush(self._again, (when, region))
        return True


class Messages:
    """Sends what a kernel tells, and what became of its region, from a Dask worker to those who subscribe to a topic.

    An outcome is sent besides being returned: it is here when the task is known to be over, while what a task returned
    stays with its worker until it is fetched, and is lost with it.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic

    def send_progress(self, region: Region, fraction: float) -> None:
        """Tell how far a region is."""
        self._send([region.y0, region.y1, region.x0, region.x1, fraction])

    def send_outcome(self, key: str, outcome: Outcome) -> None:
        """Tell what became of a task."""
        self._send([key, pickle.dumps(outcome)])

    def _send(self, message: list[Any]) -> None:
        """Hand it to the worker's own connection, which drops it where the scheduler is not there."""
        from distributed import get_worker

        get_worker().log_event(self.topic, message)


def run_task(
    kernel: Kernel, context: Any, region: Region, messages: Messages, anchors: tuple[There, ...], key: str
) -> Outcome:
    """The task that Dask workers run: one attempt at a region, whose outcome goes as a message as well."""
    outcome = attempt(kernel, context, region, messages.send_progress, anchors)
    messages.send_outcome(key, outcome)
    return outcome


@contextlib.contextmanager
def messages_to(client: Any, hear: Hear, keep: Callable[[str, Outcome], None]) -> Iterator[Messages]:
    """What tasks send by; what comes is heard, or kept by its task's key, in the client's thread."""
    messages = Messages(f"iscale-{uuid.uuid4().hex}")

    def deliver(event: tuple[float, list[Any]]) -> None:
        if len(event[1]) == 2:
            key, outcome = event[1]
            keep(key, pickle.loads(outcome))
        else:
            *place, fraction = event[1]
            hear(Region(*place), fraction)

    client.subscribe_topic(messages.topic, deliver)
    try:
        yield messages
    finally:
        if client.status == "running":
            client.unsubscribe_topic(messages.topic)


@dataclass
class Assignment:
    """A region that a worker, given by its address, is at: its task, when it was last heard of, since when its worker
    has not been there.
    """

    region: Region
    worker: str
    future: Any
    heard: float
    missed: float | None = None


class Assignments:
    """The regions of a step that are being computed; ``anchors`` are there as long as the output folder is."""

    def __init__(self, client: Any, step: Step, anchors: tuple[There, ...]) -> None:
        self._client = client
        self._step = step
        self._anchors = anchors
        self._by_key: dict[str, Assignment] = {}
        self._over: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._outcomes: dict[str, Outcome] = {}
        self.messages: Messages | None = None

    def __len__(self) -> int:
        return len(self._by_key)

    @property
    def busy(self) -> set[str]:
        """Addresses of the workers that have a region."""
        return {assignment.worker for assignment in self._by_key.values()}

    def note_heard(self, region: Region) -> None:
        """A region has told how far it is."""
        for assignment in list(self._by_key.values()):
            if assignment.region == region:
                assignment.heard = time.monotonic()

    def keep_outcome(self, key: str, outcome: Outcome) -> None:
        """The outcome of a task, come as a message."""
        self._outcomes[key] = outcome

    def start(self, region: Region, worker: str) -> None:
        """Hand a region to a worker."""
        key = f"{self._step.name}-{uuid.uuid4().hex}"
        future = self._client.submit(
            run_task,
            self._step.kernel,
            self._step.context,
            region,
            self.messages,
            self._anchors,
            key,
            key=key,
            pure=False,
            # On no other: Dask would not give it to one that comes when none is left.
            workers=[worker],
        )
        self._by_key[key] = Assignment(region, worker, future, time.monotonic())
        future.add_done_callback(self._over.put)

    def take_over(self, patience_s: float) -> list[Assignment]:
        """Those whose tasks are over, one at least unless none is for a while; they are assignments no more."""
        futures = []
        with contextlib.suppress(queue.Empty):
            futures.append(self._over.get(timeout=patience_s))
            while True:
                futures.append(self._over.get_nowait())
        return [self._by_key.pop(future.key) for future in futures if future.key in self._by_key]

    def outcome_of(self, assignment: Assignment) -> Outcome:
        """What a task returned that finished; it is forgotten."""
        outcome = self._outcomes.pop(assignment.future.key, None) or assignment.future.result()
        assignment.future.release()
        return outcome

    def recall_left(self, there: dict[str, str], gone_s: float) -> list[Region]:
        """Call back regions whose workers have left in good order, at the end of their lifetime for instance."""
        now = time.monotonic()
        for assignment in self._by_key.values():
            assignment.missed = None if assignment.worker in there else assignment.missed or now
        return self._recall([k for k, a in self._by_key.items() if a.missed is not None and now - a.missed > gone_s])

    def recall_silent(self, silence_s: float) -> list[Region]:
        """Call back regions of which nothing was heard for too long, and restart the workers that are at them."""
        now = time.monotonic()
        silent = [key for key, assignment in self._by_key.items() if now - assignment.heard > silence_s]
        if silent:
            at = self._client.processing()
            workers = [worker for worker, keys in at.items() if not set(silent).isdisjoint(keys)]
            # One that left meanwhile is an error to dask, one that nobody restarts too.
            with contextlib.suppress(KeyError, ValueError, OSError, TimeoutError):
                self._client.restart_workers(workers, raise_for_error=False)
        return self._recall(silent)

    def recall_all(self) -> None:
        """Call back all, where the scheduler is still there."""
        if self._client.status == "running":
            self._recall(list(self._by_key))

    def _recall(self, keys: list[str]) -> list[Region]:
        assignments = [self._by_key.pop(key) for key in keys]
        if assignments:
            self._client.cancel([assignment.future for assignment in assignments], force=True)
        return [assignment.region for assignment in assignments]
