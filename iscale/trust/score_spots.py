"""Spot by spot: measured counts against predictions summed over each spot's disc.

Spots are no map: there are no blocks and no structural similarity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from iscale.captures.counts import Counts, StoredCounts, gather, select_genes, transposed
from iscale.geometry import SUPERPIXEL_PX, Region
from iscale.model.discs import disc_rows, disc_sizes
from iscale.store.layout import GENES_PER_CHUNK, SHARD_SUPERPIXELS, genes_by_chunk
from iscale.trust.metrics import compare_values, limits, scaled_by
from iscale.trust.prediction import Common, Prediction
from iscale.trust.score_maps import BUFFERS, GeneScore, over_genes
from iscale.trust.truth import SpotTruth

BYTES_PER_CELL = 8 * GENES_PER_CHUNK + 24
"""Of the box around the spots' discs: the genes of a chunk, and one gene's values for the sum."""

BYTES_PER_MEMBER = 60
"""Of a superpixel of a disc: found, and held as an entry of a sparse matrix."""

BYTES_PER_SPOT = 300

BYTES_PER_GENE_CELL = 24
"""Of a shard and what discs reach of its neighbours, for the genes of a chunk: as read, and as summed."""

BYTES_PER_GENE_SPOT = 100
"""Of a shard's spots with all genes: measured and predicted, scaled, and compared."""


@dataclass(frozen=True)
class Discs:
    """Which superpixels of a region belong to which spots: 1 of (spot, superpixel) where it lies in the spot's disc."""

    region: Region
    members: sparse.csr_matrix

    def sums(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """(spot, row) sums of (row, y, x) over discs, of what is not NaN; NaN where a disc has nothing else."""
        flat = values.reshape(len(values), self.region.area).T.astype(np.float64)
        there = np.isfinite(flat)
        return np.where(self.members @ there > 0, self.members @ np.where(there, flat, 0.0), np.nan)


def discs_of(xy_px: NDArray[np.float64], radius_um: float, superpixel_um: float, shape: tuple[int, int]) -> Discs:
    """The discs of some spots, cut at the border of a slide of (y, x) superpixels, and the box around them.

    Places (spot, 2) are in pixels of the analysis image.
    """
    centre = np.floor(xy_px[:, ::-1] / SUPERPIXEL_PX).astype(np.int64)
    spot, place = disc_rows(centre, np.full(len(xy_px), radius_um), superpixel_um, shape)
    y0, x0 = (int(n) for n in place.min(axis=0))
    y1, x1 = (int(n) + 1 for n in place.max(axis=0))
    region = Region(y0, y1, x0, x1)
    flat = (place[:, 0] - y0) * region.shape[1] + place[:, 1] - x0
    entries = (np.ones(len(spot), np.float64), (spot, flat))
    return Discs(region, sparse.csr_matrix(entries, shape=(len(xy_px), region.area)))


def task_bytes(truth: SpotTruth, superpixel_um: float, n_genes: int) -> int:
    """Projected peak of the comparison of spots."""
    span = np.ptp(truth.xy_px, axis=0) / SUPERPIXEL_PX + 2 * truth.radius_um / superpixel_um + 2
    per_disc = int(disc_sizes([truth.radius_um], superpixel_um)[0])
    per_spot = BYTES_PER_MEMBER * per_disc + BYTES_PER_SPOT
    by_gene = BYTES_PER_CELL * int(span.prod()) + per_spot * len(truth.xy_px)
    around = (SHARD_SUPERPIXELS + 2 * truth.radius_um / superpixel_um + 2) ** 2
    most = max(len(spots) for spots in shards_of(truth.xy_px))
    by_place = BYTES_PER_GENE_CELL * GENES_PER_CHUNK * int(around) + (per_spot + BYTES_PER_GENE_SPOT * n_genes) * most
    counts = 0 if isinstance(truth.counts, StoredCounts) else 3 * 8 * truth.counts.nnz
    return counts + max(by_gene, by_place) + BUFFERS


def score_spots(
    prediction: Prediction, truth: SpotTruth, common: Common, done: Callable[[], Any]
) -> tuple[list[GeneScore], NDArray[np.float64]]:
    """Score every gene over the spots; its block is 0.

    Besides, (gene, 4): what measured and predicted values were scaled by.
    """
    grid = prediction.grid
    discs = discs_of(truth.xy_px, truth.radius_um, grid.superpixel_um, grid.superpixel_shape)
    by_gene: Counts = transposed(select_genes(truth.counts, np.asarray(common.truth, np.int64)))
    scores, ranges = [], np.full((len(common.names), 4), np.nan)
    for rows in genes_by_chunk(common.run):
        values = prediction.read([common.run[row] for row in rows], discs.region)
        for row, value in zip(rows, values, strict=True):
            true = gather(by_gene, np.array([row])).toarray()[0].astype(np.float64)
            guess = discs.sums(value[None])[:, 0]
            there = np.isfinite(guess)
            true, guess = true[there], guess[there]
            ranges[row] = *limits(true), *limits(guess)
            metrics = compare_values(scaled_by(true, *ranges[row, :2]), scaled_by(guess, *ranges[row, 2:]))
            scores.append(GeneScore(common.names[row], 0, metrics, len(true), bool(ranges[row, 0] == ranges[row, 1])))
            done()
    return scores, ranges


def score_each_spot(
    prediction: Prediction, truth: SpotTruth, common: Common, ranges: NDArray[np.float64], done: Callable[[], Any]
) -> dict[str, NDArray[np.float64]]:
    """Pearson correlation and RMSE of every spot over the genes, shard by shard.

    Genes are scaled as for their own scores; those that are constant are left out.
    """
    grid = prediction.grid
    found = {name: np.full(len(truth.xy_px), np.nan) for name in ("pearson", "rmse")}
    varies = (ranges[:, 1] > ranges[:, 0]) & (ranges[:, 3] > ranges[:, 2])
    genes = np.asarray(common.truth, np.int64)
    for spots in shards_of(truth.xy_px):
        discs = discs_of(truth.xy_px[spots], truth.radius_um, grid.superpixel_um, grid.superpixel_shape)
        guess = np.concatenate(
            [
                discs.sums(prediction.read([common.run[row] for row in rows], discs.region))
                for rows in genes_by_chunk(common.run)
            ],
            axis=1,
        ).T
        true = gather(truth.counts, spots)[:, genes].toarray().T
        scaled = (
            scaled_by(values[varies], ranges[varies, k : k + 1], ranges[varies, k + 1 : k + 2])
            for k, values in ((0, true), (2, guess))
        )
        found["pearson"][spots], found["rmse"][spots] = over_genes(*scaled)
        done()
    return found


def shards_of(xy_px: NDArray[np.float64]) -> Iterator[NDArray[np.int64]]:
    """Spots together whose centres lie in one shard."""
    shard = np.floor(xy_px / (SUPERPIXEL_PX * SHARD_SUPERPIXELS)).astype(np.int64)
    _, kind = np.unique(shard, axis=0, return_inverse=True)
    order = np.argsort(kind.ravel(), kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(kind.ravel()[order])) + 1)
