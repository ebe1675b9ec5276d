"""Transcripts of imaging platforms, counted in square bins: memory is bounded, however many pairs of bin and gene."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from iscale.captures.counts import Counts, CountsWriter
from iscale.captures.readers.blocks import AGAIN
from iscale.errors import InputError
from iscale.store.scratch import Part, Spill

BIN_UM = 8.0
PIXEL_UM = (0.05, 2.0)
PAIRS_AT_ONCE = 1 << 22

MOST_PAIRS = 1 << 23
"""Pairs of bin and gene that are held in memory, of 16 bytes each; more go to disk, by strips of rows of bins."""

STRIP_BITS = 4

# One int64 holds the bin's row, its column and the gene: sorting it sorts by bin, then gene.
GENE_BITS = 16
INDEX_BITS = 24
INDEX_HALF = 1 << (INDEX_BITS - 1)


@dataclass(frozen=True)
class Binned:
    """Square bins with at least one transcript, sorted by row, then column; (bin, gene) float32 counts.

    Ids are ``y_x``: row and column of the bin, counted from the origin of the positions, negative where those are;
    ``xy_um`` (bin, 2) float64 are the centres.
    """

    ids: list[str]
    xy_um: NDArray[np.float64]
    counts: Counts


class BinCounts:
    """Counts of transcripts per square bin and gene, gathered block by block.

    The bins' borders are whole multiples of ``bin_um``, so neither the blocks nor the extent of the data move them. Of
    pairs of bin and gene at most ``pairs_at_once`` are gathered before they are merged, or half as many as are merged
    already if that is more (or merging would take time quadratic in them). ``source`` names the file in messages.
    """

    def __init__(self, bin_um: float, source: Path, pairs_at_once: int = PAIRS_AT_ONCE) -> None:
        if not (np.isfinite(bin_um) and bin_um > 0):
            raise InputError(f"The side of a bin is {bin_um:g} um.", "Give a finite number above 0, such as 8.")
        self.bin_um = float(bin_um)
        self.source = source
        self.pairs_at_once = pairs_at_once
        self._keys: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        self._counts: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        self._waiting = 0
        self._spill: Spill | None = None
        self._aside: dict[int, list[tuple[Part, Part]]] = {}

    def add(self, gene: NDArray[np.integer], x_um: NDArray[np.floating], y_um: NDArray[np.floating]) -> None:
        """Count a block of transcripts, each (transcript,): index of the gene (0 or more), x and y in um."""
        if len(gene) == 0:
            return
        if int(gene.max()) >= 1 << GENE_BITS:
            raise InputError(
                f"{self.source} names more than {1 << GENE_BITS:,} genes.", "Is the column of genes that of genes?"
            )
        row, column = self._index(y_um), self._index(x_um)
        keys = (row << (INDEX_BITS + GENE_BITS)) | ((column + INDEX_HALF) << GENE_BITS) | gene.astype(np.int64)
        distinct, counts = np.unique(keys, return_counts=True)
        self._keys.append(distinct)
        self._counts.append(counts.astype(np.int64))
        self._waiting += len(distinct)
        if self._waiting > max(self.pairs_at_once, len(self._keys[0]) // 2):
            self._merge()

    def result(self, n_genes: int) -> Binned:
        """The bins that have any count, over genes 0 to ``n_genes`` - 1."""
        self._merge()
        writer = CountsWriter(n_genes)
        ids: list[str] = []
        places: list[NDArray[np.float64]] = [np.empty((0, 2))]
        for keys, values in self._sorted():
            bins = keys >> GENE_BITS
            starts = np.flatnonzero(np.diff(bins, prepend=bins[:1] - 1))
            genes = (keys & ((1 << GENE_BITS) - 1)).astype(np.int32)
            shape = (len(starts), n_genes)
            writer.add(sparse.csr_matrix((values.astype(np.float32), genes, np.append(starts, len(keys))), shape=shape))
            row = bins[starts] >> INDEX_BITS
            column = (bins[starts] & ((1 << INDEX_BITS) - 1)) - INDEX_HALF
            ids += [f"{y}_{x}" for y, x in zip(row.tolist(), column.tolist(), strict=True)]
            places.append((np.column_stack([column, row]) + 0.5) * self.bin_um)
        return Binned(ids, np.concatenate(places), writer.done())

    def _sorted(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Pairs of bin and gene in ascending order, and their counts; strip by strip where they lie on disk."""
        if self._spill is None:
            yield self._keys[0], self._counts[0]
            return
        self._put_aside()
        for strip in sorted(self._aside):
            parts = self._aside[strip]
            yield _summed(*(self._spill.read_all([pair[which] for pair in parts]) for which in (0, 1)))

    def _put_aside(self) -> None:
        """Write what is merged to disk, by strips of rows of bins."""
        self._spill = self._spill or Spill()
        keys, counts = self._keys[0], self._counts[0]
        strips = keys >> (STRIP_BITS + INDEX_BITS + GENE_BITS)
        found, starts = np.unique(strips, return_index=True)
        for strip, start, stop in zip(found.tolist(), starts, np.append(starts, len(keys))[1:], strict=True):
            own = slice(start, stop)
            parts = self._aside.setdefault(strip, [])
            parts.append((self._spill.add(keys[own]), self._spill.add(counts[own])))
        self._keys, self._counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]

    def _index(self, um: NDArray[np.floating]) -> NDArray[np.int64]:
        index = np.floor(np.asarray(um, np.float64) / self.bin_um)
        if not (np.abs(index) < INDEX_HALF).all():  # also where it is not a number
            worst = float(um[np.argmax(~(np.abs(index) < INDEX_HALF))])
            raise InputError(
                f"{self.source} has a transcript at {worst:g} um, beyond {INDEX_HALF:,} bins of {self.bin_um:g} um.",
                "Check the unit of the positions, or give a larger bin.",
            )
        return index.astype(np.int64)

    def _merge(self) -> None:
        keys, counts = np.concatenate(self._keys), np.concatenate(self._counts)
        self._keys, self._counts, self._waiting = [], [], 0  # their memory goes before the sort needs its own
        keys, counts = _summed(keys, counts)
        self._keys, self._counts = [keys], [counts]
        if len(keys) > MOST_PAIRS:
            self._put_aside()


def _summed(keys: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys in ascending order, each once, and the sums of their counts."""
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1))
    return keys[starts], np.add.reduceat(counts, starts) if len(starts) else counts


class GeneIndex:
    """Indices of gene names: those given from the start (of one that comes twice the first), then as names are met.

    Names that are not ``is_gene`` have the index -1.
    """

    def __init__(self, names: Sequence[str] = (), is_gene: Callable[[str], bool] | None = None) -> None:
        self.names = list(names)
        self._given = len(self.names)
        self._is_gene = is_gene
        self._index: dict[str, int] = {}
        for at, name in enumerate(self.names):
            self._index.setdefault(name, at)

    def order(self) -> list[int]:
        """Indices of all names: those given from the start, then the others in the order of the alphabet."""
        return [*range(self._given), *sorted(range(self._given, len(self.names)), key=self.names.__getitem__)]

    def codes(self, column: pa.ChunkedArray, source: Path) -> NDArray[np.int64]:
        """Indices (transcript,) of a column of names, text or bytes; an InputError where a transcript has none."""
        encoded = column.combine_chunks()
        encoded = encoded if pa.types.is_dictionary(encoded.type) else encoded.dictionary_encode()
        if encoded.null_count:
            raise InputError(f"{source}: {encoded.null_count:,} transcripts of a block have no gene.", AGAIN)
        indices = encoded.indices.to_numpy(zero_copy_only=False)
        table = np.full(len(encoded.dictionary), -1, dtype=np.int64)
        for at in np.unique(indices).tolist():  # a dictionary also names what was filtered out
            table[at] = self._code(encoded.dictionary[at].as_py(), source)
        return table[indices] if len(indices) else np.empty(0, np.int64)

    def _code(self, name: object, source: Path) -> int:
        if isinstance(name, bytes):
            name = name.decode(errors="replace")
        if not isinstance(name, str) or not name:
            raise InputError(f"{source} names {name!r} as the gene of a transcript.", "Names of genes are needed.")
        if name not in self._index:
            gene = self._is_gene is None or self._is_gene(name)
            self._index[name] = len(self.names) if gene else -1
            self.names += [name] * gene
        return self._index[name]


def check_pixel(um: float, source: str, remedy: str) -> None:
    """Refuse a side of a pixel, in um, that no instrument has."""
    if not PIXEL_UM[0] <= um <= PIXEL_UM[1]:
        raise InputError(
            f"{source} gives {um:g} um as the side of a pixel; {PIXEL_UM[0]:g} to {PIXEL_UM[1]:g} are plausible.",
            remedy,
        )


def median_diameter(areas: NDArray[np.float64] | None) -> float | None:
    """Diameter of the disc of the median of the areas (cell,) that are known; None without any."""
    known = np.empty(0) if areas is None else areas[np.isfinite(areas) & (areas > 0)]
    return disc_diameter(float(np.median(known))) if len(known) else None


def disc_diameter(area: float) -> float:
    """Diameter of the disc of an area.

    >>> disc_diameter(math.pi)
    2.0
    """
    return 2 * math.sqrt(area / math.pi)
