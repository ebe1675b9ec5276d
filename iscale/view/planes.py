"""Maps of superpixels in pages: the same few arrays serve tiles, histograms, and values under the cursor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.arrays import block_mean
from iscale.geometry import Region
from iscale.model.loadings import COARSE_PATH, FACTORS_PATH, stored_loadings
from iscale.plots.labels import label_map
from iscale.plots.overview import refined
from iscale.store.layout import COARSE_STEP, SHARD_SUPERPIXELS
from iscale.store.remedies import making
from iscale.store.run_store import RunStore
from iscale.view.query import RefusedError
from iscale.view.slide import Slide
from iscale.view.work import ByteCache

BLOCK = SHARD_SUPERPIXELS
"""Cells of a block, per side: a stored shard at superpixels, 4 x 4 of them at the averaged factors."""

BLOCKS_BYTES = 192 * 2**20
"""Of blocks together: 36 of nothing but tissue. At full resolution a window of a browser shows some 60, of which about
half is tissue."""


def fill_squares(
    found: NDArray[Any], window: Region, side: int, square: Callable[[tuple[int, int]], NDArray[Any]], within: Region
) -> None:
    """Fill a window's array from squares of a lattice, by their corners (y, x), as far as ``within`` reaches."""
    for part in within.tiles(side):
        y, x = part.y0 // side * side, part.x0 // side * side
        found[part.within(window)] = square((y, x))[part.within(Region(y, y + side, x, x + side))]


@dataclass(frozen=True)
class Block:
    """Factors of a square of cells (y, x): where it has tissue, (n,) row by row, and float16 (component, n) there.

    Components of one state come after those of the other.
    """

    shape: tuple[int, int]
    cells: NDArray[np.int32]
    components: NDArray[np.float16]


class Factors:
    """Computes genes of a run from its factors."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._blocks: ByteCache[Block] = ByteCache(BLOCKS_BYTES, lambda b: b.components.nbytes + b.cells.nbytes)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._loadings = stored_loadings(store)

    @property
    def bytes(self) -> int:
        """Of the blocks that are held."""
        return self._blocks.bytes

    def gene(self, row: int, path: str, region: Region, *, uncertainty: bool) -> NDArray[np.float32]:
        """Expected counts (y, x) of a gene in a window, NaN off tissue; or their standard deviation over the states.

        ``row`` is its place in ``basis/gene``; ``region`` is in cells of the factors at ``path``: superpixels, or
        averaged.
        """
        found = np.full(region.shape, np.nan, np.float32)

        def decoded(corner: tuple[int, int]) -> NDArray[np.float32]:
            block = self._blocks.once((path, corner), partial(self._read, path, corner))
            return self._decoded(block, row, uncertainty)

        fill_squares(found, region, BLOCK, decoded, region)
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
            own = self._loadings.of(np.array([row]))
            values = own.uncertainty(block.components) if uncertainty else own.expression(block.components)
            result.ravel()[block.cells] = values[0]
        return result


PAGE = SHARD_SUPERPIXELS
"""Cells of a page, per side: those of finest ones lie as the shards do, so that each is read once."""

PAGES_BYTES = 48 * 2**20
"""Of pages together: 750 shards at full resolution, all of one gene on a slide of 56,000 px."""

READ_SIDE = 4 * SHARD_SUPERPIXELS
"""Superpixels per side that are read at a time: many chunks in one read take half as long as one by one."""

QUANTITIES = ("gene", "uncertainty", "refined")
OVERVIEW_CELLS = 512
"""Longest side of the overview that histograms are made from."""

Plane = NDArray[Any]


class Planes:
    """Maps of a slide."""

    def __init__(self, slide: Slide) -> None:
        self._slide = slide
        self._pages: ByteCache[Plane] = ByteCache(PAGES_BYTES, lambda page: page.nbytes)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        has_factors = slide.source is not None and slide.source.has_factors
        self._factors = Factors(slide.store) if has_factors else None

    def values(self, quantity: str, gene: str, cells: Region, step: int) -> NDArray[np.float32]:
        """A quantity of a gene in a window (y, x), which may reach beyond the slide; NaN off tissue and off the slide.

        A cell holds the mean on tissue of ``step`` x ``step`` superpixels.
        """
        if quantity not in QUANTITIES:
            raise RefusedError(404, f"There is no layer {quantity!r}; there are: {', '.join(QUANTITIES)}.")
        if quantity == "refined" and not self._slide.has_cells:
            raise RefusedError(
                404, f"This run has no refined expression yet: {making(self._slide.store, 'tissue/cells')} makes it."
            )
        found = np.full(cells.shape, np.nan, np.float32)
        self._fill(found, (quantity, self._slide.gene(gene)), cells, step)
        return found

    def classes(self, key: str, cells: Region, step: int) -> NDArray[np.uint8]:
        """Classes in a window of a lattice, of each cell the most frequent: (y, x), 0 where there is none."""
        found = np.zeros(cells.shape, np.uint8)
        self._fill(found, ("classes", self._slide.classes_of(key).key), cells, step)
        return found

    def overview(self, quantity: str, gene: str) -> NDArray[np.float32]:
        """A quantity of the whole slide, averaged to at most `OVERVIEW_CELLS` cells a side: (y, x)."""
        step = 1
        while max(self._slide.shape) / step > OVERVIEW_CELLS:
            step *= 2
        height, width = (-(-n // step) for n in self._slide.shape)
        return self.values(quantity, gene, Region(0, height, 0, width), step)

    @property
    def bytes(self) -> int:
        """Of what is held."""
        return self._pages.bytes + (self._factors.bytes if self._factors else 0)

    def array(self, path: str) -> zarr.Array[Any]:
        """An array of the store, opened once."""
        if path not in self._arrays:
            self._arrays[path] = self._slide.store.array(path)
        return self._arrays[path]

    def _fill(self, found: Plane, what: tuple[str, str], cells: Region, step: int) -> None:
        """Fill a window from the pages that it touches."""
        height, width = (-(-n // step) for n in self._slide.shape)
        if cells.y0 >= height or cells.x0 >= width:
            return
        there = Region(cells.y0, min(cells.y1, height), cells.x0, min(cells.x1, width))
        fill_squares(found, cells, PAGE, lambda corner: self._page(what, corner, step), there)

    def _page(self, what: tuple[str, str], corner: tuple[int, int], step: int) -> Plane:
        """A page, read once: neighbouring tiles that are asked for together wait for who reads it."""

        def read() -> Plane:
            (height, width), (y, x) = self._slide.shape, corner
            side = PAGE * step
            region = Region(y * step, min(y * step + side, height), x * step, min(x * step + side, width))
            return self._read_page(what, region, step)

        return self._pages.once((*what, corner, step), read)

    def _read_page(self, what: tuple[str, str], region: Region, step: int) -> Plane:
        kind, name = what
        if kind == "classes":
            return self._classes(name, region, step)
        if self._slide.rows[name] < self._slide.genes().written:
            return self._written(kind, name, region, step)
        # Two lattices are computed, that of superpixels and that of the averaged factors; others are means over these.
        finer = COARSE_STEP if step >= COARSE_STEP else 1
        if step == finer:
            return self._computed(kind, name, region, step)
        cells = region.coarsened(finer)
        values = np.full(cells.shape, np.nan, np.float32)
        self._fill(values, what, cells, finer)
        return block_mean(values, step // finer)

    def _written(self, quantity: str, gene: str, region: Region, step: int) -> Plane:
        """Means over blocks of superpixels, of what is read at full resolution, from an array that stays open."""
        result = np.full(region.coarsened(step).shape, np.nan, np.float32)
        stored = self.array("expression/uncertainty" if quantity == "uncertainty" else "expression/expression")
        for part in region.tiles(max(READ_SIDE, step)):
            values = np.asarray(stored[(self._slide.rows[gene], *part.slices)], np.float32)
            if quantity == "refined":
                values = refined(values, np.asarray(self.array("tissue/cells")[part.slices]))
            result[part.coarsened(step).within(region.coarsened(step))] = block_mean(values, step)
        return result

    def _computed(self, quantity: str, gene: str, region: Region, step: int) -> Plane:
        """A gene from factors; where these are averaged, refined is the gene times the share of tissue with cells."""
        assert self._factors is not None, "genes that are not written are those of the factors"
        path, row = (FACTORS_PATH if step == 1 else COARSE_PATH), self._slide.rows[gene]
        values = self._factors.gene(row, path, region.coarsened(step), uncertainty=quantity == "uncertainty")
        if quantity == "refined":
            cells, tissue = (np.asarray(self.array(f"tissue/{name}")[region.slices]) for name in ("cells", "mask"))
            values *= block_mean(np.where(tissue, cells, np.float32(np.nan)), step)
        return values

    def _classes(self, key: str, region: Region, step: int) -> Plane:
        classes = self._slide.classes[key]
        result = np.zeros(region.coarsened(step).shape, np.uint8)
        for part in region.tiles(max(SHARD_SUPERPIXELS, step)):
            labels = np.asarray(self.array(classes.path)[(classes.row, *part.slices)])
            result[part.coarsened(step).within(region.coarsened(step))] = label_map(labels, None, step)
        return result
