"""What kernels tell on Dask workers, brought to the driving process: events of a topic of its own."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

from iscale.engine.progress import Hear
from iscale.geometry import Region


class Post:
    """Sends what a kernel tells from a Dask worker to those who subscribe to a topic."""

    def __init__(self, topic: str) -> None:
        self.topic = topic

    def __call__(self, region: Region, fraction: float) -> None:
        """Hand it to the worker's own connection, which drops it where the scheduler is not there."""
        from distributed import get_worker

        get_worker().log_event(self.topic, [region.y0, region.y1, region.x0, region.x1, fraction])


@contextlib.contextmanager
def open_post(client: Any, hear: Hear) -> Iterator[Post]:
    """What tasks send by, and while it is open what it brings is heard, in the client's thread."""
    post = Post(f"iscale-{uuid.uuid4().hex}")

    def deliver(event: tuple[float, list[Any]]) -> None:
        *place, fraction = event[1]
        hear(Region(*place), fraction)

    client.subscribe_topic(post.topic, deliver)
    try:
        yield post
    finally:
        if client.status == "running":
            client.unsubscribe_topic(post.topic)
