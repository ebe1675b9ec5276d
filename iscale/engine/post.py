"""What kernels tell on Dask workers, brought to the driving process: events of a topic of its own."""

from __future__ import annotations

import contextlib
import pickle
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from iscale.engine.attempt import Outcome, attempt
from iscale.engine.progress import Hear
from iscale.engine.step import Kernel, There
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
