"""Bins, cells or transcripts of a placed capture as counts per superpixel: sparse, on disk where they are many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.ndimage import binary_closing

from iscale.captures.spots import Capture
from iscale.errors import InputError
from iscale.evaluate.truth import MapTruth
from iscale.geometry import SUPERPIXEL_PX, Region, SlideGrid
from iscale.store.layout import GENES_PER_CHUNK, SHARD_SUPERPIXELS
from iscale.vendors.counts import Counts, StoredCounts, blocks
from iscale.vendors.rearrange import Entries, gather, select_genes, transposed

LEAST_COVERED = 0.5
"""A superpixel of which bins cover a smaller share has no value; of others the sum is divided by the share."""

GAP = 5
"""Superpixels without any transcript count as measured, with 0, where a window of so many per side closes them in."""

SPOTS_AT_ONCE = 1 << 17


@dataclass(frozen=True)
class BinnedMaps:
    """Counts per superpixel, by place and by gene.

    Superpixels are numbered shard by shard, row by row within each, so that those of a shard lie together.

    Attributes
    ----------
    genes
        Names of those that are kept.
    by_place, by_gene
        (superpixel, gene) and (gene, superpixel).
    share
        (y, x) of ``frame``: what counts are divided by, NaN where nothing was measured.
    frame
        Whole shards of superpixels; it may reach beyond the slide.
    """

    genes: tuple[str, ...]
    by_place: Counts
    by_gene: Counts
    share: NDArray[np.float32]
    frame: Region

    @property
    def held_bytes(self) -> int:
        """Memory that they take."""
        held = sum(0 if isinstance(c, StoredCounts) else 8 * c.nnz for c in (self.by_place, self.by_gene))
        return held + (4 + 8 + 8 + 8 + 1) * self.frame.area

    @property
    def truth(self) -> MapTruth:
        """The maps over the superpixels that were measured; what they are of is for others to say."""
        there = np.isfinite(self.share)
        rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
        region = Region(
            self.frame.y0 + int(rows[0]),
            self.frame.y0 + int(rows[-1]) + 1,
            self.frame.x0 + int(columns[0]),
            self.frame.x0 + int(columns[-1]) + 1,
        )
        what = f"{int(there.sum()):,} superpixels in {region.shape[0]} x {region.shape[1]}"
        return MapTruth("", self.genes, self, region, what, held_bytes=self.held_bytes, tight=True)

    def read(self, genes: Sequence[int], region: Region) -> NDArray[np.float32]:
        """(gene, y, x) of a region within the frame: few genes of a large part by gene, else by place."""
        place = region.within(self.frame)
        if len(genes) <= GENES_PER_CHUNK and 4 * region.area >= self.frame.area:
            flat = gather(self.by_gene, np.asarray(genes, np.int64))
            values = np.stack([_unfold(row.toarray()[0], self.frame)[place] for row in flat])
        else:
            row, column = np.mgrid[region.slices]
            numbers = _fold(row, column, self.frame).ravel()
            order = np.argsort(numbers)
            found = np.empty((len(genes), len(numbers)))
            found[:, order] = gather(self.by_place, numbers[order])[:, list(genes)].toarray().T
            values = found.reshape(len(genes), *region.shape)
        return np.asarray(values / self.share[place], np.float32)


def bin_squares(
    capture: Capture, genes: frozenset[str], grid: SlideGrid, side_um: float, turn: NDArray[np.float64]
) -> BinnedMaps:
    """Square bins, each spread evenly over its square.

    Counts become those of a whole superpixel: they are divided by the share of it that bins cover.

    Parameters
    ----------
    capture
        Its spots are the bins, at their middles.
    genes
        Those that are kept.
    grid
        Grids of the slide.
    side_um
        Side of a bin.
    turn
        (2, 2): how the sides of a bin, which are those of the capture's image, lie on the mother image.
    """
    per_side = max(4, ceil(4 * side_um / grid.superpixel_um))
    at = ((np.arange(per_side) + 0.5) / per_side - 0.5) * side_um / grid.pixel_size_um
    offsets = np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2) @ turn.T
    kept, by_place, points, frame = _counted(capture, genes, offsets, grid)
    share = points * (side_um / grid.superpixel_um) ** 2 / len(offsets)
    return _maps(capture, kept, by_place, np.where(share >= LEAST_COVERED, share, np.nan), frame)


def bin_points(capture: Capture, genes: frozenset[str], grid: SlideGrid) -> BinnedMaps:
    """Transcripts (in bins much smaller than a superpixel), or cells, counted in the superpixel that each lies in."""
    kept, by_place, points, frame = _counted(capture, genes, np.zeros((1, 2)), grid)
    padded = np.pad(points > 0, GAP)
    closed = binary_closing(padded, np.ones((GAP, GAP), bool))[GAP:-GAP, GAP:-GAP]
    closed[grid.superpixel_shape[0] - frame.y0 :] = False
    closed[:, grid.superpixel_shape[1] - frame.x0 :] = False
    return _maps(capture, kept, by_place, np.where(closed, 1.0, np.nan), frame)


def _maps(
    capture: Capture, kept: NDArray[np.int64], by_place: Counts, share: NDArray[np.float64], frame: Region
) -> BinnedMaps:
    if not np.isfinite(share).any():
        raise InputError(
            f"Capture {capture.name}: its {len(capture.spot_ids)} bins cover no superpixel by half.",
            "Give larger bins, or a truth of spots.",
        )
    return BinnedMaps(
        tuple(capture.genes[i] for i in kept), by_place, transposed(by_place), share.astype(np.float32), frame
    )


def _counted(
    capture: Capture, genes: frozenset[str], offsets: NDArray[np.float64], grid: SlideGrid
) -> tuple[NDArray[np.int64], Counts, NDArray[np.float64], Region]:
    """Which genes are kept, and (superpixel, gene) counts: a spot's in equal parts at its place plus every offset (px).

    Also the number of such points per superpixel (y, x), and the frame; points beyond the slide are left out.
    """
    kept = np.array([i for i, gene in enumerate(capture.genes) if gene in genes], np.int64)
    counts = select_genes(capture.counts, kept)
    frame = _frame(capture.xy_px, offsets, grid)
    entries, points = Entries((frame.area, len(kept))), np.zeros(frame.area)
    for spots, block in blocks(counts):
        for start in range(spots.start, spots.stop, SPOTS_AT_ONCE):
            stop = min(start + SPOTS_AT_ONCE, spots.stop)
            place, weight = _spread(capture.xy_px[start:stop], offsets, grid, frame)
            points += np.bincount(place, minlength=frame.area)
            numbers, row = np.unique(place, return_inverse=True)
            shares = sparse.csr_matrix(
                (np.full(len(row), 1 / len(offsets), np.float32), (row, weight)), shape=(len(numbers), stop - start)
            )
            found = (shares @ block[start - spots.start : stop - spots.start]).tocoo()
            entries.add(numbers[found.row], found.col, found.data)
    return kept, entries.counts(), _unfold(points, frame), frame


def _spread(
    xy_px: NDArray[np.float64], offsets: NDArray[np.float64], grid: SlideGrid, frame: Region
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the superpixels that points lie in, and of which spot each is."""
    height, width = grid.superpixel_shape
    column, row = np.floor((xy_px[:, None] + offsets) / SUPERPIXEL_PX).astype(np.int64).reshape(-1, 2).T
    spot = np.repeat(np.arange(len(xy_px)), len(offsets))
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return _fold(row[inside], column[inside], frame), spot[inside]


def _frame(xy_px: NDArray[np.float64], offsets: NDArray[np.float64], grid: SlideGrid) -> Region:
    """Whole shards around all points on the slide."""
    reach = np.abs(offsets).max()
    top = np.array(grid.superpixel_shape[::-1])
    low = np.clip(np.floor((xy_px.min(axis=0) - reach) / SUPERPIXEL_PX), 0, top - 1).astype(int)
    high = np.clip(np.floor((xy_px.max(axis=0) + reach) / SUPERPIXEL_PX), 0, top - 1).astype(int) + 1
    around = Region(int(low[1]), int(high[1]), int(low[0]), int(high[0]))
    return around.coarsened(SHARD_SUPERPIXELS).scaled(SHARD_SUPERPIXELS)


def _fold(row: NDArray[np.int64], column: NDArray[np.int64], frame: Region) -> NDArray[np.int64]:
    """Numbers of superpixels, shard by shard."""
    side = SHARD_SUPERPIXELS
    (i, y), (j, x) = np.divmod(row - frame.y0, side), np.divmod(column - frame.x0, side)
    return np.asarray(((i * (frame.shape[1] // side) + j) * side + y) * side + x, np.int64)


def _unfold(values: NDArray[np.float64], frame: Region) -> NDArray[np.float64]:
    """(y, x) of the frame, of values in the order of the numbers."""
    side, (height, width) = SHARD_SUPERPIXELS, frame.shape
    tiles = values.reshape(height // side, width // side, side, side)
    return np.ascontiguousarray(tiles.transpose(0, 2, 1, 3)).reshape(height, width)
