"""A truth's maps against the predicted ones at blocks of superpixels: gene by gene, and over the genes of a place."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr
from sklearn.metrics import root_mean_squared_error

from iscale.geometry import Region
from iscale.store.layout import GENES_PER_CHUNK, SHARD_SUPERPIXELS, genes_by_chunk
from iscale.trust.metrics import (
    BLOCKS,
    MOST_RANKED,
    TILE,
    block_means,
    compare_maps,
    limits,
    paired,
    rank_stride,
    scaled_by,
    whole_blocks,
)
from iscale.trust.prediction import Common, Prediction
from iscale.trust.truth import MapTruth

BYTES_PER_CELL = 8 * GENES_PER_CHUNK + 90
"""Of the truth's area: the genes of a chunk, of both maps, and one gene's maps scaled, its pairs and their copies."""

BYTES_PER_RANKED = 150
"""Rank statistics sort both maps, and both together."""

BYTES_PER_TILE_CELL = 200
"""Structural similarity holds a score of maps of a tile."""

BUFFERS = 4 << 20
"""Of whatever reads and decodes."""

STRIP = 256
"""Rows that are looked at together when the truth's extent is found."""


@dataclass(frozen=True)
class GeneScore:
    """One gene at one size of block, in superpixels a side: `METRICS` by name, how many blocks were compared, and
    whether the truth is one value everywhere.
    """

    gene: str
    block: int
    metrics: dict[str, float]
    cells: int
    constant: bool


@dataclass(frozen=True)
class Ranges:
    """What maps were scaled by: (gene, block, low and high), in the order of the genes and of ``BLOCKS``."""

    true: NDArray[np.float64]
    guess: NDArray[np.float64]


def task_bytes(area: int) -> int:
    """Projected peak of the comparison of genes over an area of superpixels."""
    compared = max(BYTES_PER_RANKED * min(area, MOST_RANKED), BYTES_PER_TILE_CELL * min(area, TILE**2))
    return BYTES_PER_CELL * area + compared + BUFFERS


def extent(truth: MapTruth, common: Common) -> Region | None:
    """Superpixels, whole blocks of every size, around all that was measured of these genes; None where nothing was."""
    region, found = truth.region, []
    if truth.tight:
        return whole_blocks(region)
    for start in range(0, len(common.truth), GENES_PER_CHUNK):
        genes = common.truth[start : start + GENES_PER_CHUNK]
        for y in range(region.y0, region.y1, STRIP):
            strip = Region(y, min(y + STRIP, region.y1), region.x0, region.x1)
            i, j = np.nonzero(np.isfinite(truth.maps.read(genes, strip)).any(axis=0))
            if len(i):
                found.append((y + i.min(), y + i.max() + 1, region.x0 + j.min(), region.x0 + j.max() + 1))
    if not found:
        return None
    y0, y1, x0, x1 = zip(*found, strict=True)
    return whole_blocks(Region(int(min(y0)), int(max(y1)), int(min(x0)), int(max(x1))))


def score_genes(
    prediction: Prediction, truth: MapTruth, common: Common, region: Region, done: Callable[[], Any]
) -> tuple[list[GeneScore], Ranges]:
    """Score every gene over a region, gene by gene and block by block, and say what maps were scaled by.

    The genes of a chunk are read together, and compared one by one; ``done`` is called after each.
    """
    scores: list[GeneScore] = []
    shape = (len(common.names), len(BLOCKS), 2)
    ranges = Ranges(np.full(shape, np.nan), np.full(shape, np.nan))
    for rows in genes_by_chunk(common.run):
        guesses = prediction.read([common.run[row] for row in rows], region)
        truths = truth.maps.read([common.truth[row] for row in rows], region)
        for row, true, guess in zip(rows, truths, guesses, strict=True):
            scores += _score(common.names[row], true, guess, region, ranges.true[row], ranges.guess[row])
            done()
    return scores, ranges


def _score(
    gene: str,
    true: NDArray[np.float32],
    guess: NDArray[np.float16],
    region: Region,
    true_ranges: NDArray[np.float64],
    guess_ranges: NDArray[np.float64],
) -> list[GeneScore]:
    """Scores of one gene at all blocks; its ranges (block, 2) are filled in."""
    pair, found = paired(true, guess), []
    for k, block in enumerate(BLOCKS):
        true_means, guess_means = (block_means(values, block) for values in pair)
        true_ranges[k], guess_ranges[k] = limits(true_means), limits(guess_means)
        metrics = compare_maps(
            scaled_by(true_means, *true_ranges[k]),
            scaled_by(guess_means, *guess_ranges[k]),
            rank_stride(true_means.shape),
            (region.y0 // block, region.x0 // block),
        )
        cells = int(np.isfinite(true_means).sum())
        found.append(GeneScore(gene, block, metrics, cells, bool(true_ranges[k, 0] == true_ranges[k, 1])))
    return found


MEASURES = ("pearson", "rmse")

LEAST_GENES = 3
"""Of fewer genes a correlation tells nothing."""

SIDES = (SHARD_SUPERPIXELS, 64, 32, 16, 8)
"""Sides of a tile, in superpixels; the largest that the memory allows."""

ROWS = BLOCKS[-1]
"""Rows of a tile that are compared together."""

READ_BYTES, COMPARED_BYTES = 24, 110
"""Per gene and superpixel: of a tile as it is read, and of the rows that are compared."""

Table = NDArray[np.float64]


@dataclass(frozen=True)
class PlaceScores:
    """Agreement over genes: a map (y, x) per measure for every block, NaN where there is none."""

    region: Region
    maps: dict[int, dict[str, NDArray[np.float32]]]
    genes: int


def tile_bytes(side: int, n_genes: int, all_genes: int) -> int:
    """Projected peak of the comparison of a tile; all genes of the run that share a file are read with those wanted."""
    read = READ_BYTES * max(n_genes, min(all_genes, GENES_PER_CHUNK)) * side**2
    return read + COMPARED_BYTES * n_genes * ROWS * side + BUFFERS


def map_bytes(area: int) -> int:
    """Bytes of the maps that result."""
    return sum(4 * len(MEASURES) * area // block**2 for block in BLOCKS)


def score_places(
    prediction: Prediction,
    truth: MapTruth,
    common: Common,
    region: Region,
    ranges: Ranges,
    side: int,
    done: Callable[[], Any],
) -> PlaceScores:
    """Score every superpixel, and every block of them, of a region of whole blocks over the genes.

    Each gene is scaled as it was for its own score (``ranges``), so that all weigh the same; genes of which either map
    is constant are left out. ``done`` is called after every tile, whose ``side`` changes no number.
    """
    height, width = region.shape
    maps = {
        block: {name: np.full((height // block, width // block), np.nan, np.float32) for name in MEASURES}
        for block in BLOCKS
    }
    for tile in region.tiles(side):
        truths = truth.maps.read(common.truth, tile)
        if np.isfinite(truths).any():
            guesses = prediction.read(common.run, tile)
            for strip in _strips(tile):
                within = (slice(None), *strip.within(tile))
                _score_strip(truths[within], guesses[within], ranges, maps, strip, region)
        done()
    return PlaceScores(region, maps, len(common.names))


def _strips(tile: Region) -> Iterator[Region]:
    for y in range(tile.y0, tile.y1, ROWS):
        yield Region(y, min(y + ROWS, tile.y1), tile.x0, tile.x1)


def _score_strip(
    true: NDArray[np.float32],
    guess: NDArray[np.float16],
    ranges: Ranges,
    maps: dict[int, dict[str, NDArray[np.float32]]],
    strip: Region,
    region: Region,
) -> None:
    """Score (gene, y, x) of a few rows at all blocks, into the maps of the region."""
    pair = paired(true, guess)
    for k, block in enumerate(BLOCKS):
        varies = (np.diff(ranges.true[:, k]) > 0).ravel() & (np.diff(ranges.guess[:, k]) > 0).ravel()
        columns = [
            _scaled(block_means(values[varies], block), limits[varies, k])
            for values, limits in zip(pair, (ranges.true, ranges.guess), strict=True)
        ]
        scores = over_genes(*columns)
        y, x = (strip.y0 - region.y0) // block, (strip.x0 - region.x0) // block
        shape = (strip.shape[0] // block, strip.shape[1] // block)
        place = (slice(y, y + shape[0]), slice(x, x + shape[1]))
        for name, values in zip(MEASURES, scores, strict=True):
            maps[block][name][place] = values.reshape(shape)


def _scaled(values: NDArray[np.float64], limits: Table) -> Table:
    """(gene, cell) of (gene, y, x), each gene by its limits (gene, 2)."""
    cells = values.shape[1] * values.shape[2]
    return scaled_by(values.reshape(len(values), cells), limits[:, :1], limits[:, 1:])


def over_genes(true: Table, guess: Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pearson correlation and RMSE (cell,) over the genes of scaled (gene, cell) values, NaN where there is none.

    Of each cell the genes count that both have: NaN where they are fewer than three, the correlation also where either
    has one value for all.
    """
    pearson, rmse = np.full((2, true.shape[1]), np.nan)
    there = np.isfinite(true) & np.isfinite(guess)
    for genes, cells in _alike(there):
        if genes.sum() < LEAST_GENES:
            continue
        a, b = true[np.ix_(genes, cells)], guess[np.ix_(genes, cells)]
        rmse[cells] = root_mean_squared_error(a, b, multioutput="raw_values")
        vary = (np.ptp(a, axis=0) > 0) & (np.ptp(b, axis=0) > 0)
        if vary.any():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of cells that are all but constant
                pearson[cells[vary]] = pearsonr(a[:, vary], b[:, vary], axis=0).statistic
    return pearson, rmse


def _alike(there: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.int64]]]:
    """Cells together that have the same genes: which genes, and which cells. Mostly that is all genes, or none."""
    complete = there.all(axis=0)
    if complete.any():
        yield np.ones(len(there), bool), np.flatnonzero(complete)
    partly = np.flatnonzero(there.any(axis=0) & ~complete)
    if len(partly):
        _, kind = np.unique(np.packbits(there[:, partly], axis=0), axis=1, return_inverse=True)
        for k in range(int(kind.max()) + 1):
            cells = partly[kind.ravel() == k]
            yield there[:, cells[0]], cells
