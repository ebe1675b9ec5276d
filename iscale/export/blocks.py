"""Bins of superpixels: sums, means and the most common label of square blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iscale.export.request import Request, tiles
from iscale.geometry import Region


def in_blocks(values: NDArray[Any], side: int) -> NDArray[Any]:
    """Put the cells of each block on a last axis: (..., y, x) to (..., y / side, x / side, side * side).

    >>> in_blocks(np.arange(8).reshape(2, 4), 2).tolist()
    [[[0, 1, 4, 5], [2, 3, 6, 7]]]
    """
    *rest, height, width = values.shape
    cut = values.reshape(*rest, height // side, side, width // side, side)
    return np.moveaxis(cut, -2, -3).reshape(*rest, height // side, width // side, side * side)


def block_sum(values: NDArray[Any], side: int) -> NDArray[np.float32]:
    """Sum over blocks of what is not NaN; 0 where nothing is.

    >>> block_sum(np.array([[1.0, np.nan], [2.0, 4.0]], np.float32), 2).tolist()
    [[7.0]]
    """
    there = np.nan_to_num(np.asarray(values, np.float32), nan=0.0)
    return np.asarray(there if side == 1 else in_blocks(there, side).sum(axis=-1), np.float32)


def block_share(mask: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    """Share of each block that is set.

    >>> block_share(np.array([[True, False], [True, True]]), 2).tolist()
    [[0.75]]
    """
    return np.asarray(in_blocks(mask, side).mean(axis=-1), np.float32)


def block_mode(labels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The most common label of each block other than 0, the lowest of several; 0 where there is none.

    >>> block_mode(np.array([[0, 0], [3, 2]], np.uint8), 2).tolist()
    [[2]]
    """
    if side == 1:
        return labels
    cut = in_blocks(labels, side)
    best = np.zeros(cut.shape[:-1], np.uint8)
    most = np.zeros(cut.shape[:-1], np.int32)
    for label in np.unique(cut[cut > 0]):  # ascending
        count = (cut == label).sum(axis=-1)
        best[count > most] = label
        most = np.maximum(most, count)
    return best


def read_sums(request: Request, genes: Sequence[str], tile: Region) -> NDArray[np.float32]:
    """Expected counts of bins, (gene, y, x) float32; a shard is read at a time."""
    side = request.side
    sums = np.empty((len(genes), tile.shape[0] // side, tile.shape[1] // side), np.float32)
    outer = tile.coarsened(side)
    for piece in tiles(tile):
        place = piece.coarsened(side).within(outer)
        sums[(slice(None), *place)] = block_sum(request.source.read(genes, piece), side)
    return sums
