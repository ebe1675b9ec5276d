"""Counts of the spots that are merged into one, averaged; and those of every gene that all captures measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from iscale.captures.counts import Counts, blocks
from iscale.captures.spots import Capture, TrainingSpots
from iscale.engine.progress import tell
from iscale.store.layout import FILE_GENES, ArrayLayout
from iscale.store.run_store import RunStore

SHARED_GENES, SHARED_COUNTS = "training/shared_gene", "training/shared_counts"
"""Where names and counts of the genes that all captures measured are stored."""

HELD_BYTES = 128 * 2**20
"""Of a block of genes, whose counts of all spots are added up at once: so often are all counts read."""


def mean_counts(
    tables: Sequence[Counts],
    places: Sequence[NDArray[np.int64]],
    scales: Sequence[float],
    slot: NDArray[np.int64],
    n_slots: int,
    n_genes: int,
) -> NDArray[np.float32]:
    """(slot, gene) float32 means of the scaled counts of the spots that go into each slot.

    Counts are added one by one in the order of the spots, so the sums do not depend on how these are cut into blocks.

    Parameters
    ----------
    tables, places, scales
        Per capture its (spot, own gene) counts; (own gene,) which of the genes it is, -1 is none; its factor.
    slot
        (spot,) of all captures, one after the other; -1 is none.
    """
    sums = np.zeros(n_slots * n_genes, np.float32)
    first = 0
    for counts, place, scale in zip(tables, places, scales, strict=True):
        own = slot[first : first + counts.shape[0]]
        first += counts.shape[0]
        for spots, block in blocks(counts):
            row, column = np.repeat(own[spots], np.diff(block.indptr)), place[block.indices]
            known = (row >= 0) & (column >= 0)
            values = (block.data[known].astype(np.float64) * scale).astype(np.float32)
            np.add.at(sums, row[known] * n_genes + column[known], values)
    means = sums.reshape(n_slots, n_genes)
    means /= np.bincount(slot[slot >= 0], minlength=n_slots)[:, None].astype(np.float32)
    return means


def shared_layout(spots: TrainingSpots) -> ArrayLayout:
    """Counts of all shared genes: (spot, shared_gene) float32."""
    shape = len(spots.depth), len(spots.shared_genes)
    chunk = shape[0], min(FILE_GENES, shape[1])
    return ArrayLayout(SHARED_COUNTS, ("spot", "shared_gene"), shape, "float32", chunk, chunk)


def write_shared_counts(store: RunStore, captures: Sequence[Capture], spots: TrainingSpots) -> None:
    """Write the training spots' counts of every gene that all captures measured, blocks of genes at a time."""
    store.put(SHARED_GENES, spots.shared_genes, ("shared_gene",))
    layout = shared_layout(spots)
    store.make(layout, {"long_name": "counts of every gene that all captures measured"})
    array = store.array(SHARED_COUNTS, "r+")
    column = {gene: i for i, gene in enumerate(spots.shared_genes)}
    of_capture = [np.array([column.get(gene, -1) for gene in capture.genes]) for capture in captures]
    for genes in _gene_blocks(*layout.shape):
        places = [_within(columns, genes) for columns in of_capture]
        array[:, genes] = mean_counts(
            [capture.counts for capture in captures],
            places,
            spots.capture_scale,
            spots.slot,
            len(spots.depth),
            genes.stop - genes.start,
        )
        tell(genes.stop, layout.shape[1])


def _gene_blocks(n_spots: int, n_genes: int) -> Iterator[slice]:
    """Blocks of genes that are whole files."""
    step = max(1, HELD_BYTES // (4 * max(n_spots, 1) * FILE_GENES)) * FILE_GENES
    for start in range(0, n_genes, step):
        yield slice(start, min(start + step, n_genes))


def _within(columns: NDArray[np.int64], genes: slice) -> NDArray[np.int64]:
    inside = (columns >= genes.start) & (columns < genes.stop)
    return np.where(inside, columns - genes.start, -1)
