"""Marker genes among all that a run can tell: where they are, and reading a few of many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from iscale.basis.source import Source
from iscale.geometry import Region
from iscale.store.layout import GENES_PER_CHUNK


def marker_rows(source: Source, markers: Iterable[str]) -> dict[int, str]:
    """Markers by their row among the genes of a run, in the order of the rows."""
    return dict(sorted((source.row(gene), gene) for gene in dict.fromkeys(markers)))


def read_rows(source: Source, rows: Sequence[int], place: Region) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Values (y, x) of some rows at a place, one row after the other; genes that are stored together are read once.

    Parameters
    ----------
    source
        Genes of a run.
    rows
        Ascending.
    place
        In superpixels.
    """
    for _, group in groupby(rows, lambda row: row // GENES_PER_CHUNK):
        near = list(group)
        yield from zip(near, source.rows(np.array(near, np.int64), place), strict=True)
