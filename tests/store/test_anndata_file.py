"""Arrays that are filled as rows come are written chunk by chunk, and hold all of them."""

from __future__ import annotations

import numpy as np
import pytest

from iscale.store.anndata_file import InChunks


class Written:
    """An array that remembers which rows were written together."""

    def __init__(self, n: int) -> None:
        self.values, self.places = np.full((n, 3), -1), list[tuple[int, int]]()

    def __setitem__(self, place: tuple[slice, slice], values: np.ndarray) -> None:
        self.values[place] = values
        self.places.append((place[0].start, place[0].stop))


@pytest.mark.parametrize("sizes", [[10], [3, 4, 3], [1] * 10, [0, 9, 0, 1], [8, 2]])
def test_rows_are_written_in_whole_chunks(sizes: list[int]) -> None:
    rows, array = np.arange(20).reshape(10, 2), Written(10)
    writer, at = InChunks(array, 4, slice(1, 3)), 0
    for n in sizes:
        writer.add(rows[at : at + n])
        at += n
    writer.close()
    writer.close()
    np.testing.assert_array_equal(array.values[:, 1:], rows)
    assert (array.values[:, 0] == -1).all()
    assert array.places == [(0, 4), (4, 8), (8, 10)]
