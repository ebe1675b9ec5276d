"""The spots of all captures over the genes that they share, one below the other, read block by block."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from iscale.captures.moments import Moments
from iscale.captures.spots import Capture
from iscale.errors import InputError
from iscale.vendors.counts import Counts, blocks
from iscale.vendors.rearrange import take


@dataclass(frozen=True)
class StackedSpots:
    """Spots of all captures over the genes that they share; their counts stay where the captures have them.

    Attributes
    ----------
    genes
        (gene,) names, in the order of the first capture.
    tables
        Per capture its (spot, gene) counts, of all of its genes.
    columns
        Per capture (gene,) the columns of the shared genes; None where these are all, in this order.
    moments
        Per capture the sums of its counts.
    xy_px
        (spot, 2) float64: x, y in pixels of the analysis image.
    radius_um
        (spot,) float64.
    depth
        (spot,) float64: counts of all shared genes, as measured.
    capture
        (spot,) int64: index in ``captures``.
    captures
        Names of the captures.
    scale
        (capture,) float64: what the counts of each capture are to be multiplied by.
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
    """Stack captures over the genes that all of them measured; every count is read once.

    Raises
    ------
    InputError
        Where they share no gene.
    """
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
