"""Rows in a file that is gone with the process: those of an array, read and added to by their numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iscale.store.scratch import FileRows, Spill


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_file_has_no_name_and_is_closed_with_the_rows(tmp_path) -> None:
    before = open_files()
    file = FileRows.nameless(tmp_path / "scratch", 3)
    assert list((tmp_path / "scratch").iterdir()) == []
    assert open_files() == before + 1
    del file
    assert open_files() == before


def test_a_file_that_ends_early_is_an_error(tmp_path) -> None:
    file = FileRows.nameless(tmp_path, 2)
    file.write(0, np.ones((3, 2), np.float32))
    with pytest.raises(OSError, match="8 bytes early"):
        file.read(1, np.empty((3, 2), np.float32))


@pytest.mark.parametrize("columns", [slice(0, 4), slice(1, 3)])
def test_rows_are_added_to_those_that_are_there(tmp_path: Path, columns: slice) -> None:
    rng = np.random.default_rng(0)
    held = rng.normal(size=(50, 4)).astype(np.float32)
    rows = FileRows.nameless(tmp_path, 4)
    rows.write(0, held)
    for _ in range(5):
        numbers = np.sort(rng.choice(50, 20, replace=False))
        values = rng.normal(size=(20, 4)).astype(np.float32)[:, columns]
        held[numbers, columns] += values
        rows.add(numbers, values, columns.start)
    np.testing.assert_array_equal(rows.take(np.arange(50)), held)
    anywhere = rng.integers(0, 50, 30)
    np.testing.assert_array_equal(rows.take(anywhere), held[anywhere])


def test_what_is_put_aside_comes_back_as_it_was() -> None:
    arrays = [np.arange(300.0, dtype=np.float32), np.array([0.5, 2.0]), np.zeros(0, np.int64), np.array([2**40, 1])]
    spill = Spill()
    parts = [spill.add(values) for values in arrays]
    for part, values in zip(parts, arrays, strict=True):
        found = spill.read(part)
        np.testing.assert_array_equal(found, values)
        assert found.dtype == values.dtype
