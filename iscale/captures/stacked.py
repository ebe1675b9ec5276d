"""The spots of all captures over the genes that they share, read block by block; and variances from such blocks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from iscale.captures.counts import Counts, blocks, take
from iscale.captures.spots import Capture
from iscale.errors import InputError

ROUNDING = 1e-12
"""A variance below this share of the mean's square is none: so far sums of numbers that are not whole are exact."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """(gene,) sums of the counts of one capture and of their squares; exact for whole numbers, up to 2^53."""

    n_spots: int
    sums: Values
    squares: Values

    @classmethod
    def of(cls, parts: Iterable[sparse.csr_matrix], n_genes: int) -> Moments:
        """Sum over blocks of spots."""
        n_spots, sums, squares = 0, np.zeros(n_genes), np.zeros(n_genes)
        for block in parts:
            values = block.data.astype(np.float64)
            n_spots += block.shape[0]
            sums += np.bincount(block.indices, values, n_genes)
            squares += np.bincount(block.indices, values**2, n_genes)
        return cls(n_spots, sums, squares)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.n_spots + other.n_spots, self.sums + other.sums, self.squares + other.squares)

    @property
    def variance(self) -> Values:
        """(gene,) variance over the spots."""
        return np.array([_variance(self.n_spots, *of) for of in zip(self.sums, self.squares, strict=True)])


def _variance(n: int, total: float, squares: float) -> float:
    if float(total).is_integer() and float(squares).is_integer():
        return (n * int(squares) - int(total) ** 2) / n**2
    mean = total / n
    variance = squares / n - mean**2
    return variance if variance > ROUNDING * mean**2 else 0.0


def gene_variance(counts: Counts) -> Values:
    """(gene,) variance of every gene's counts over all spots."""
    return Moments.of((block for _, block in blocks(counts)), counts.shape[1]).variance


def scaled_variance(of_captures: list[Moments], scale: Values) -> Values:
    """(gene,) variance over the spots of several captures, each capture's counts times its scale, (capture,)."""
    if (scale == scale[0]).all():
        return float(scale[0]) ** 2 * sum(of_captures[1:], of_captures[0]).variance
    n = np.array([moments.n_spots for moments in of_captures], np.float64)[:, None]
    factor = scale[:, None]
    means = factor * np.stack([moments.sums for moments in of_captures]) / n
    mean = (n * means).sum(axis=0) / n.sum()
    within = factor**2 * np.stack([moments.variance for moments in of_captures])
    return np.asarray((n * (within + (means - mean) ** 2)).sum(axis=0) / n.sum())


def excess_variance(of_captures: list[Moments], scale: Values) -> Values:
    """(gene,) what multiplying by ``scale`` (capture,) added to the variance, over the Poisson noise of such counts.

    A Poisson count of mean m, multiplied by s, has the variance ``s^2 m``, where one of the mean ``s m`` has ``s m``.
    Below 1 it is negative: such counts have less noise than they would have.
    """
    n = sum(moments.n_spots for moments in of_captures)
    sums = np.stack([moments.sums for moments in of_captures])
    return np.asarray(((scale - 1) * scale) @ sums / n)


@dataclass(frozen=True)
class StackedSpots:
    """Spots of all captures over the genes that they share; their counts stay where the captures have them.

    Per capture there are ``tables``, its (spot, gene) counts of all of its genes; ``columns``, those of the shared
    genes, None where these are all, in this order; ``moments``, the sums of its counts; and the ``scale`` that its
    counts are to be multiplied by. Genes are in the order of the first capture. ``xy_px`` (spot, 2) are in pixels of
    the analysis image, ``depth`` (spot,) counts all shared genes, as measured; ``capture`` (spot,) is the index in
    ``captures``.
    """

    genes: tuple[str, ...]
    tables: tuple[Counts, ...]
    columns: tuple[NDArray[np.int64] | None, ...]
    moments: list[Moments]
    xy_px: NDArray[np.float64]
    radius_um: NDArray[np.float64]
    depth: NDArray[np.float64]
    capture: NDArray[np.int64]
    captures: tuple[str, ...]
    scale: NDArray[np.float64]

    def rows_of(self, capture: int) -> slice:
        """Which spots are a capture's."""
        first, last = np.searchsorted(self.capture, [capture, capture + 1]).tolist()
        return slice(first, last)

    def blocks(self, capture: int, rows: NDArray[np.int64] | None = None) -> Iterator[tuple[slice, sparse.csr_matrix]]:
        """Blocks of the spots of a capture, or of some of them in ascending order, and their counts as measured.

        Spots are counted among those that are asked for; counts are (spot, shared gene).
        """
        counts = self.tables[capture] if rows is None else take(self.tables[capture], rows)
        return _over(counts, self.columns[capture])


def _over(counts: Counts, columns: NDArray[np.int64] | None) -> Iterator[tuple[slice, sparse.csr_matrix]]:
    for spots, block in blocks(counts):
        yield spots, block if columns is None else sparse.csr_matrix(block[:, columns])


def stack(captures: Sequence[Capture]) -> StackedSpots:
    """Stack captures over the genes that all measured, an InputError where there is none; every count is read once."""
    shared = set(captures[0].genes).intersection(*(capture.genes for capture in captures[1:]))
    if not shared:
        raise _no_shared_gene(captures)
    genes = tuple(gene for gene in captures[0].genes if gene in shared)
    all_columns = [_columns(capture, genes) for capture in captures]
    depths = [np.empty(len(capture.spot_ids)) for capture in captures]
    moments = [
        Moments.of(_summed(capture.counts, columns, depth), len(genes))
        for capture, columns, depth in zip(captures, all_columns, depths, strict=True)
    ]
    sizes = [len(capture.spot_ids) for capture in captures]
    return StackedSpots(
        genes=genes,
        tables=tuple(capture.counts for capture in captures),
        columns=tuple(all_columns),
        moments=moments,
        xy_px=np.concatenate([capture.xy_px for capture in captures]),
        radius_um=np.repeat([capture.radius_um for capture in captures], sizes),
        depth=np.concatenate(depths),
        capture=np.repeat(np.arange(len(captures)), sizes),
        captures=tuple(capture.name for capture in captures),
        scale=np.ones(len(captures)),
    )


def _columns(capture: Capture, genes: tuple[str, ...]) -> NDArray[np.int64] | None:
    if capture.genes == genes:
        return None
    column = {gene: i for i, gene in enumerate(capture.genes)}
    return np.array([column[gene] for gene in genes])


def _summed(
    counts: Counts, columns: NDArray[np.int64] | None, depth: NDArray[np.float64]
) -> Iterator[sparse.csr_matrix]:
    """Blocks of counts; the depths of their spots are put into ``depth`` on the way."""
    for spots, block in _over(counts, columns):
        depth[spots] = np.asarray(block.sum(axis=1, dtype=np.float64)).reshape(-1)
        yield block


def _no_shared_gene(captures: Sequence[Capture]) -> InputError:
    shown = "; ".join(f"{c.name} has {len(c.genes)}: {', '.join(c.genes[:3])} ..." for c in captures)
    ensembl = {bool(re.match(r"ENS[A-Z]*G\d+", capture.genes[0])) for capture in captures}
    upper = {capture.genes[0].isupper() for capture in captures}
    hint = "Name genes the same way in all captures"
    if len(ensembl) == 2:
        hint = "Some captures name genes by Ensembl id, others by symbol: use one of the two in all"
    elif len(upper) == 2:
        hint = "Some captures write gene symbols in capitals (human), others not (mouse): use one way in all"
    return InputError(f"The {len(captures)} captures share no gene ({shown}).", f"{hint}.")
