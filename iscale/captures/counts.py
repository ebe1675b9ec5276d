"""Counts of spots and genes, of any size: in memory where they are few, else by blocks of spots on disk.

A table of 2 million bins has hundreds of millions of counts. Readers give it block by block to a :class:`CountsWriter`;
what uses it asks for :func:`blocks` and never holds more than one. Up to ``MOST_IN_MEMORY`` counts stay a CSR matrix in
memory; the functions here take both, so nothing above them is written twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from iscale.store.scratch import Part, Spill

MOST_IN_MEMORY = 8 << 20
"""Counts (entries that are not 0) of a table that is held in memory, of 8 bytes each; more go to disk."""

AT_ONCE = 2 << 20
"""Counts of a block, or one spot's if these are more."""

Rows = NDArray[np.integer[Any]]


class StoredCounts:
    """(spot, gene) float32 counts on disk, or a part of its spots in their order. Made by :class:`CountsWriter`.

    ``indptr`` (spot + 1,) int64 is where the counts of each spot begin, of these spots alone; ``depth`` (spot,) float64
    their counts of all genes; ``whole`` (spot,) whether all of its counts are whole numbers.
    """

    def __init__(
        self,
        spill: Spill,
        parts: list[tuple[Part, Part]],
        starts: NDArray[np.int64],
        n_genes: int,
        depth: NDArray[np.float64],
        whole: NDArray[np.bool_],
        rows: Rows | None = None,
    ) -> None:
        self._spill, self._parts, self._starts, self._rows = spill, parts, starts, rows
        self._part_ends = np.cumsum([values.n for _, values in parts])
        lengths = np.diff(starts) if rows is None else np.diff(starts)[rows]
        self.indptr = np.append(0, np.cumsum(lengths))
        self.shape = (len(lengths), n_genes)
        self.depth, self.whole = (depth, whole) if rows is None else (depth[rows], whole[rows])
        self._every = (depth, whole)

    @property
    def nnz(self) -> int:
        """Number of stored counts."""
        return int(self.indptr[-1])

    def part(self, rows: Rows) -> StoredCounts:
        """The counts of some spots, in ascending order; nothing is copied."""
        kept = rows if self._rows is None else self._rows[rows]
        return StoredCounts(self._spill, self._parts, self._starts, self.shape[1], *self._every, rows=kept)

    def bounds(self, at_once: int) -> Iterator[tuple[int, int]]:
        """First and last (not included) spots of blocks of about so many counts, those passed over counted in."""
        begins, ends = self._starts[:-1], self._starts[1:]
        if self._rows is not None:
            begins, ends = begins[self._rows], ends[self._rows]
        start = 0
        while start < self.shape[0]:
            stop = max(start + 1, int(np.searchsorted(ends, begins[start] + at_once, side="right")))
            yield start, stop
            start = stop

    def read(self, start: int, stop: int) -> sparse.csr_matrix:
        """Counts of the spots from ``start`` to ``stop``."""
        if self._rows is None:
            return self._read(start, stop)
        rows = self._rows[start:stop]
        first, last = int(rows[0]), int(rows[-1]) + 1
        read = self._read(first, last)
        return read if last - first == len(rows) else sparse.csr_matrix(read[rows - first])

    def _read(self, start: int, stop: int) -> sparse.csr_matrix:
        begin, end = int(self._starts[start]), int(self._starts[stop])
        indptr = self._starts[start : stop + 1] - begin
        shape = (stop - start, self.shape[1])
        if begin == end:
            return nothing(*shape)
        first = int(np.searchsorted(self._part_ends, begin, side="right"))
        last = int(np.searchsorted(self._part_ends, end, side="left"))
        touched = self._parts[first : last + 1]
        offset = int(self._part_ends[first]) - touched[0][1].n
        own = slice(begin - offset, end - offset)
        genes, values = (self._spill.read_all([pair[which] for pair in touched])[own] for which in (0, 1))
        counts = sparse.csr_matrix((values, genes, indptr.astype(np.int32)), shape=shape, copy=False)
        counts.has_canonical_format = True
        return counts


Counts = sparse.csr_matrix | StoredCounts


class CountsWriter:
    """Takes counts by blocks of spots, and is :meth:`done` with a matrix in memory or on disk."""

    def __init__(self, n_genes: int) -> None:
        self._n_genes = n_genes
        self._held: list[sparse.csr_matrix] = []
        self._n_held = 0
        self._spill: Spill | None = None
        self._parts: list[tuple[Part, Part]] = []
        self._lengths: list[NDArray[np.int64]] = []
        self._depth: list[NDArray[np.float64]] = []
        self._whole: list[NDArray[np.bool_]] = []

    def add(self, block: sparse.csr_matrix) -> None:
        """Put (spot, gene) counts below those that are there; its columns are sorted, and counts of a cell summed."""
        block = sparse.csr_matrix(block, dtype=np.float32)
        block.sum_duplicates()
        self._held.append(block)
        self._n_held += block.nnz
        if self._spill is not None or self._n_held > MOST_IN_MEMORY:
            self._put_aside()

    def done(self) -> Counts:
        """All of the counts."""
        if self._spill is None:
            held, self._held = self._held, []
            if not held:
                return nothing(0, self._n_genes)
            return held[0] if len(held) == 1 else sparse.csr_matrix(sparse.vstack(held, format="csr"))
        starts = np.append(0, np.cumsum(np.concatenate(self._lengths)))
        return StoredCounts(
            self._spill,
            self._parts,
            starts,
            self._n_genes,
            np.concatenate(self._depth),
            np.concatenate(self._whole),
        )

    def _put_aside(self) -> None:
        self._spill = self._spill or Spill()
        for block in self._held:
            self._lengths.append(np.diff(block.indptr).astype(np.int64))
            self._depth.append(depth_of(block))
            self._whole.append(_whole(block))
            for at in range(0, block.nnz, AT_ONCE):
                part = slice(at, at + AT_ONCE)
                genes = block.indices[part].astype(np.int32, copy=False)
                self._parts.append((self._spill.add(genes), self._spill.add(block.data[part])))
        self._held, self._n_held = [], 0


def blocks(counts: Counts, at_once: int | None = None) -> Iterator[tuple[slice, sparse.csr_matrix]]:
    """Counts by blocks of about ``at_once``: which spots, and their (spot, gene) CSR matrix; no spot is left out."""
    at_once = at_once or AT_ONCE
    if isinstance(counts, StoredCounts):
        for start, stop in counts.bounds(at_once):
            yield slice(start, stop), counts.read(start, stop)
        return
    start, n_spots = 0, counts.shape[0]
    while start < n_spots:
        stop = max(start + 1, int(np.searchsorted(counts.indptr, counts.indptr[start] + at_once, side="right")) - 1)
        whole = start == 0 and stop >= n_spots
        yield slice(start, min(stop, n_spots)), counts if whole else sparse.csr_matrix(counts[start:stop])
        start = stop


def depth_of(counts: Counts) -> NDArray[np.float64]:
    """(spot,) counts of all genes."""
    if isinstance(counts, StoredCounts):
        return counts.depth
    return np.asarray(counts.sum(axis=1, dtype=np.float64), np.float64).reshape(-1)


def whole_numbers(counts: Counts) -> bool:
    """Whether all counts are whole numbers."""
    if isinstance(counts, StoredCounts):
        return bool(counts.whole.all())
    return bool(np.all(counts.data == np.round(counts.data)))


def in_memory(counts: Counts) -> sparse.csr_matrix:
    """All of the counts as one matrix, however large."""
    if not isinstance(counts, StoredCounts):
        return counts
    parts = [block for _, block in blocks(counts)]
    return sparse.csr_matrix(sparse.vstack(parts, format="csr")) if parts else nothing(*counts.shape)


def nothing(n_spots: int, n_genes: int) -> sparse.csr_matrix:
    """A table in which every count is 0."""
    indptr = np.zeros(n_spots + 1, np.int32)
    return sparse.csr_matrix((np.empty(0, np.float32), np.empty(0, np.int32), indptr), shape=(n_spots, n_genes))


def _whole(block: sparse.csr_matrix) -> NDArray[np.bool_]:
    """(spot,) whether all counts of a spot are whole numbers."""
    fractions = np.flatnonzero(block.data != np.round(block.data))
    whole = np.ones(block.shape[0], bool)
    whole[np.searchsorted(block.indptr, fractions, side="right") - 1] = False
    return whole
