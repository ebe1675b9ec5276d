"""Gene by gene: a truth's maps against the predicted ones over the truth's area, at blocks of superpixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iscale.geometry import Region
from iscale.store.layout import GENES_PER_CHUNK
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
from iscale.trust.prediction import Common, Prediction, in_chunks
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
    """One gene at one size of block.

    Attributes
    ----------
    gene, block
        Its name, and the side of a block in superpixels.
    metrics
        By name, as `iscale.trust.metrics.METRICS`.
    cells
        Blocks that were compared.
    constant
        Whether the truth is one value everywhere.
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
    """Score every gene over a region; the genes of a chunk are read together, and compared one by one.

    Parameters
    ----------
    done
        Called after every gene.

    Returns
    -------
    scores
        Gene by gene, block by block.
    ranges
        What the maps were scaled by.
    """
    scores: list[GeneScore] = []
    shape = (len(common.names), len(BLOCKS), 2)
    ranges = Ranges(np.full(shape, np.nan), np.full(shape, np.nan))
    for rows in in_chunks(common.run):
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
