"""Counts of spots and genes, of any size: in memory where they are few, else by blocks of spots on disk.

A table of 2 million bins has hundreds of millions of counts. Readers give it block by block to a :class:`CountsWriter`,
or entry by entry to :class:`Entries`; what uses it asks for :func:`blocks` and never holds more than one. Up to
``MOST_IN_MEMORY`` counts stay a CSR matrix in memory; the functions here take both, so nothing above them is written
twice. What comes in any order (formats by gene, text of one entry a line) is sorted by way of buckets on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
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
        return _bounds(begins, ends, at_once)

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
            return no_counts(*shape)
        first = int(np.searchsorted(self._part_ends, begin, side="right"))
        last = int(np.searchsorted(self._part_ends, end, side="left"))
        touched = self._parts[first : last + 1]
        offset = int(self._part_ends[first]) - touched[0][1].n
        own = slice(begin - offset, end - offset)
        genes, values = (self._spill.read_all([pair[which] for pair in touched])[own] for which in (0, 1))
        counts = sparse.csr_matrix((values, genes, indptr.astype(np.int32)), shape=shape, copy=False)
        counts.has_canonical_format = True
        return counts


def row_bounds(indptr: NDArray[np.integer[Any]], at_once: int) -> Iterator[tuple[int, int]]:
    """First and last (not included) rows of blocks of about so many entries, by (row + 1,) where these begin."""
    return _bounds(indptr[:-1], indptr[1:], at_once)


def _bounds(
    begins: NDArray[np.integer[Any]], ends: NDArray[np.integer[Any]], at_once: int
) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(begins):
        stop = max(start + 1, int(np.searchsorted(ends, begins[start] + at_once, side="right")))
        yield start, stop
        start = stop


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

    def add_rows(self, rows: Iterable[NDArray[np.float32]], at_once: int) -> None:
        """Put the (gene,) counts of single spots below those that are there, so many at once."""
        rows = iter(rows)
        while held := list(islice(rows, at_once)):
            self.add(sparse.csr_matrix(np.stack(held)))

    def done(self) -> Counts:
        """All of the counts."""
        if self._spill is None:
            held, self._held = self._held, []
            if not held:
                return no_counts(0, self._n_genes)
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
    for start, stop in row_bounds(counts.indptr, at_once):
        whole = stop - start == counts.shape[0]
        yield slice(start, stop), counts if whole else sparse.csr_matrix(counts[start:stop])


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
    return sparse.csr_matrix(sparse.vstack(parts, format="csr")) if parts else no_counts(*counts.shape)


def no_counts(n_spots: int, n_genes: int) -> sparse.csr_matrix:
    """A table in which every count is 0."""
    indptr = np.zeros(n_spots + 1, np.int32)
    return sparse.csr_matrix((np.empty(0, np.float32), np.empty(0, np.int32), indptr), shape=(n_spots, n_genes))


def _whole(block: sparse.csr_matrix) -> NDArray[np.bool_]:
    """(spot,) whether all counts of a spot are whole numbers."""
    fractions = np.flatnonzero(block.data != np.round(block.data))
    whole = np.ones(block.shape[0], bool)
    whole[np.searchsorted(block.indptr, fractions, side="right") - 1] = False
    return whole


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
            return no_counts(n_spots, self._shape[1])
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
    """Counts of some spots, in that order, as many or few as they are; the same where they are all, in order."""
    is_ascending = bool((np.diff(rows) > 0).all())
    if is_ascending and len(rows) == counts.shape[0]:
        return counts
    if not isinstance(counts, StoredCounts):
        return sparse.csr_matrix(counts[rows])
    if is_ascending:
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
    found = in_memory(counts.part(distinct)) if len(distinct) else no_counts(0, counts.shape[1])
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
