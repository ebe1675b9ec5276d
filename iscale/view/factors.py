"""Genes that are not written, from the factors of superpixels: blocks of these are kept, whatever gene is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.basis.decode import Decoder
from iscale.geometry import Region
from iscale.store.layout import SHARD_SUPERPIXELS
from iscale.store.run_store import RunStore
from iscale.view.cache import ByteCache

BLOCK = SHARD_SUPERPIXELS
"""Cells of a block, per side: a stored shard at superpixels, 4 x 4 of them at the averaged factors."""

BLOCKS_BYTES = 192 * 2**20
"""Of blocks together: 36 of nothing but tissue. At full resolution a window of a browser shows some 60, of which about
half is tissue."""


@dataclass(frozen=True)
class Block:
    """Factors of a square.

    Attributes
    ----------
    shape
        Its cells (y, x).
    cells
        (n,) where on it there is tissue, counted row by row.
    components
        (component, n) float16: the factors there, of one state after the other.
    """

    shape: tuple[int, int]
    cells: NDArray[np.int32]
    components: NDArray[np.float16]


class Factors:
    """Computes genes of a run from its factors.

    Parameters
    ----------
    store
        A run's, with factors.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._blocks: ByteCache[Block] = ByteCache(BLOCKS_BYTES, lambda b: b.components.nbytes + b.cells.nbytes)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        names = ("loading", "level", "share")
        self._loading, self._level, self._share = (np.asarray(store.array(f"basis/{n}")[...]) for n in names)

    @property
    def bytes(self) -> int:
        """Of the blocks that are held."""
        return self._blocks.bytes

    def gene(self, row: int, path: str, region: Region, *, uncertainty: bool) -> NDArray[np.float32]:
        """A gene in a window.

        Parameters
        ----------
        row
            Its place among the genes of ``basis/gene``.
        path
            Where the factors lie: at superpixels, or averaged.
        region
            In cells of these, on the slide.
        uncertainty
            Whether to give the standard deviation over the states.

        Returns
        -------
        ndarray
            (y, x): expected counts, NaN off tissue.
        """
        found = np.full(region.shape, np.nan, np.float32)
        for part in region.tiles(BLOCK):
            corner = part.y0 // BLOCK * BLOCK, part.x0 // BLOCK * BLOCK
            block = self._blocks.once((path, corner), partial(self._read, path, corner))
            own = Region(corner[0], corner[0] + block.shape[0], corner[1], corner[1] + block.shape[1])
            found[part.within(region)] = self._decoded(block, row, uncertainty)[part.within(own)]
        return found

    def _read(self, path: str, corner: tuple[int, int]) -> Block:
        if path not in self._arrays:
            self._arrays[path] = self._store.array(path)
        values = np.asarray(self._arrays[path][:, corner[0] : corner[0] + BLOCK, corner[1] : corner[1] + BLOCK])
        flat = values.reshape(len(values), -1)
        cells = np.flatnonzero(~np.isnan(flat[0])).astype(np.int32)
        return Block(values.shape[1:], cells, np.take(flat, cells, axis=1))

    def _decoded(self, block: Block, row: int, uncertainty: bool) -> NDArray[np.float32]:
        result = np.full(block.shape, np.nan, np.float32)
        if block.cells.size:
            decoder = Decoder(self._loading[:, row, None], self._level[row, None], self._share[row, None])
            values = decoder.uncertainty(block.components) if uncertainty else decoder.expression(block.components)
            result.ravel()[block.cells] = values[0]
        return result
