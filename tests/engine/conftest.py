"""Workers that are threads of the testing process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from distributed import LocalCluster
from faulty import threads_cluster


@pytest.fixture
def threads() -> Iterator[LocalCluster]:
    """Two workers that are threads of this process: quick to start, for what kills none."""
    with threads_cluster(2) as cluster:
        yield cluster
