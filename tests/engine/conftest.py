"""Workers that are threads of the testing process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from distributed import LocalCluster
from faulty import threads_cluster

from iscale.engine import dask_workers


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler of a busy machine is slow to answer."""
    monkeypatch.setattr(dask_workers, "CONNECT_WITHIN", "300s")


@pytest.fixture
def threads() -> Iterator[LocalCluster]:
    """Two workers that are threads of this process: quick to start, for what kills none."""
    with threads_cluster(2) as cluster:
        yield cluster
