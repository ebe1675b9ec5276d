"""The store refuses half shards, other versions and folders it cannot write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from iscale.errors import StoreError
from iscale.geometry import Region
from iscale.store import layout
from iscale.store.run_store import RunStore


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    store = RunStore(tmp_path / "out")
    store.create()
    return store


def test_half_a_shard_is_refused_and_whole_ones_are_written(store: RunStore) -> None:
    store.make_group("expression", {})
    store.make(layout.plane("expression/depth", (200, 300)))
    ones = np.ones((128, 128), np.float16)
    with pytest.raises(ValueError, match="not whole shards"):
        store.write("expression/depth", Region(64, 192, 0, 128), ones)
    with pytest.raises(ValueError, match="not whole shards"):
        store.write("expression/depth", Region(0, 64, 0, 128), ones[:64])
    store.write("expression/depth", Region(128, 200, 256, 300), ones[:72, :44])
    written = store.array("expression/depth")[...]
    assert np.nansum(written) == 72 * 44
    assert np.isnan(written).sum() == 200 * 300 - 72 * 44


def test_nothing_is_written_for_what_is_empty(store: RunStore) -> None:
    store.make_group("expression", {})
    store.make(layout.plane("expression/depth", (256, 256)))
    store.write("expression/depth", Region(0, 128, 0, 128), np.full((128, 128), np.nan, np.float16))
    assert not list((store.root / "expression" / "depth").glob("c/**/0"))


def test_strings_and_coordinates_come_back_without_a_warning(store: RunStore) -> None:
    store.make_group("expression", {})
    store.put("expression/gene", ("ERBB2", "é"), ("gene",))
    store.put_coordinates("expression", (2, 3), 8.0)
    assert list(store.array("expression/gene")[...]) == ["ERBB2", "é"]
    assert store.array("expression/x")[...].tolist() == [4.0, 12.0, 20.0]


def test_a_run_of_another_version_is_refused_with_the_remedy(store: RunStore) -> None:
    zarr.open_group(store.root, mode="r+").attrs["iscale"] = {"store_version": 99}
    with pytest.raises(StoreError, match=r"store version 99.*\n.*--restart"):
        store.create()


def test_a_foreign_group_is_refused(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    zarr.create_group(store.root, zarr_format=3)
    with pytest.raises(StoreError, match="store version None"):
        store.create()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written.*\n.*--out"):
        RunStore(tmp_path / "file" / "out").create()


def test_leftovers_of_killed_writers_are_swept(store: RunStore) -> None:
    partial = store.root / "c.0123.partial"
    partial.write_bytes(b"x")
    store.sweep()
    assert not partial.exists()
