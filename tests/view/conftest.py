"""A small run, and a server of it, once per file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from view_client import Client
from view_run import write_run

from iscale import open_run
from iscale.store.run_store import RunStore
from iscale.view import serve


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return write_run(tmp_path_factory.mktemp("view") / "project")


@pytest.fixture(scope="module")
def client(store: RunStore) -> Iterator[Client]:
    with serve(open_run(store.folder)) as server:
        yield Client(server)
