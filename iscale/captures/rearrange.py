"""Counts in another order: some spots or genes of them, turned round, or entries that come in any order.

What comes in any order (formats by gene, text of one entry a line) is sorted with bounded memory by way of buckets on
disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from iscale.captures.counts import AT_ONCE, Counts, CountsWriter, Rows, StoredCounts, blocks, in_memory, nothing
from iscale.store.scratch import Part, Spill

BUCKETS = 128
"""Spots are sorted in so many parts of equal numbers of them: of a billion counts each has about eight million."""

Numbers = NDArray[Any]


class Entries:
    """Takes counts of single spots and genes in any order; counts of the same spot and gene are summed."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._shape = shape
        self._width = max(1, -(-shape[0] // BUCKETS))
        self._held: list[tuple[Numbers, Numbers, Numbers]] = []
        self._n_held = 0
        self._spill: Spill | None = None
        self._buckets: list[list[tuple[Part, Part, Part]]] = [[] for _ in range(BUCKETS)]

    def add(self, spot: Numbers, gene: Numbers, count: Numbers) -> None:
        """Add counts, each (entry,): index of the spot, of the gene, and the count."""
        self._held.append((spot.astype(np.int32), gene.astype(np.int32), count.astype(np.float32)))
        self._n_held += len(spot)
        if self._n_held > AT_ONCE:
            self._put_aside()

    def counts(self) -> Counts:
        """All of them, (spot, gene)."""
        writer = CountsWriter(self._shape[1])
        if self._spill is None:
            writer.add(self._matrix(self._held, 0, self._shape[0]))
            return writer.done()
        self._put_aside()
        for number, bucket in enumerate(self._buckets):
            first = number * self._width
            n_spots = min(self._width, self._shape[0] - first)
            if n_spots <= 0:
                break
            parts = [tuple(self._spill.read(part) for part in entry) for entry in bucket]
            writer.add(self._matrix(parts, first, n_spots))
        return writer.done()

    def _matrix(self, parts: list[Any], first: int, n_spots: int) -> sparse.csr_matrix:
        if not parts:
            return nothing(n_spots, self._shape[1])
        spot, gene, count = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        matrix = sparse.coo_matrix((count, (spot - first, gene)), shape=(n_spots, self._shape[1]))
        return sparse.csr_matrix(matrix.tocsr())

    def _put_aside(self) -> None:
        if not self._n_held:
            return
        self._spill = self._spill or Spill()
        spot, gene, count = (np.concatenate(arrays) for arrays in zip(*self._held, strict=True))
        self._held, self._n_held = [], 0
        bucket = spot // self._width
        order = np.argsort(bucket, kind="stable")
        spot, gene, count, bucket = spot[order], gene[order], count[order], bucket[order]
        bounds = np.searchsorted(bucket, np.arange(BUCKETS + 1))
        for number in np.unique(bucket).tolist():
            own = slice(bounds[number], bounds[number + 1])
            entry = (self._spill.add(spot[own]), self._spill.add(gene[own]), self._spill.add(count[own]))
            self._buckets[number].append(entry)


def take(counts: Counts, rows: Rows) -> Counts:
    """Counts of some spots, in that order, as many or few as they are."""
    if not isinstance(counts, StoredCounts):
        return sparse.csr_matrix(counts[rows])
    if (np.diff(rows) > 0).all():
        return counts.part(rows)
    place = np.full(counts.shape[0], -1, np.int64)
    place[rows] = np.arange(len(rows))
    entries = Entries((len(rows), counts.shape[1]))
    for spots, block in blocks(counts):
        to = np.repeat(place[spots], np.diff(block.indptr))
        known = to >= 0
        entries.add(to[known], block.indices[known], block.data[known])
    return entries.counts()


def gather(counts: Counts, rows: Rows) -> sparse.csr_matrix:
    """Counts of a few spots in memory, in that order; a spot may come more than once."""
    if not isinstance(counts, StoredCounts):
        return sparse.csr_matrix(counts[rows])
    distinct, inverse = np.unique(rows, return_inverse=True)
    found = in_memory(counts.part(distinct)) if len(distinct) else nothing(0, counts.shape[1])
    return sparse.csr_matrix(found[inverse])


def select_genes(counts: Counts, genes: Rows) -> Counts:
    """Counts of some genes, in that order; those on disk are written once more."""
    if not isinstance(counts, StoredCounts):
        return sparse.csr_matrix(counts[:, genes]).sorted_indices()
    writer = CountsWriter(len(genes))
    for _, block in blocks(counts):
        writer.add(sparse.csr_matrix(block[:, genes]))
    return writer.done()


def transposed(counts: Counts) -> Counts:
    """(gene, spot) as (spot, gene)."""
    if not isinstance(counts, StoredCounts):
        return sparse.csr_matrix(counts.T)
    entries = Entries(counts.shape[::-1])
    for spots, block in blocks(counts):
        row = np.repeat(np.arange(spots.start, spots.stop), np.diff(block.indptr))
        entries.add(block.indices, row, block.data)
    return entries.counts()
