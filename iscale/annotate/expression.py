"""Marker genes in the stored expression: where they are, and reading a few of many genes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from iscale.basis.lazy import GeneArray
from iscale.geometry import Region
from iscale.store.run_store import RunStore


def marker_rows(store: RunStore, markers: Iterable[str]) -> dict[int, str]:
    """Markers by their row in the stored expression, in the order of the rows."""
    row_of = {str(gene): row for row, gene in enumerate(np.asarray(store.array("expression/gene")[...]))}
    return dict(sorted((row_of[gene], gene) for gene in dict.fromkeys(markers)))


def read_rows(array: GeneArray, rows: Sequence[int], place: Region) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Values (y, x) of some rows at a place, one row after the other; genes that are stored together are read once.

    Parameters
    ----------
    array
        (gene, y, x).
    rows
        Ascending.
    place
        In superpixels.
    """
    together = array.chunks[0]
    for _, group in groupby(rows, lambda row: row // together):
        near = list(group)
        values = np.asarray(array[(slice(near[0], near[-1] + 1), *place.slices)])
        for row in near:
            yield row, values[row - near[0]].astype(np.float32)
