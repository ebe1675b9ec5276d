"""Maps of superpixels in pages: the same few arrays serve tiles, histograms, and values under the cursor."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.geometry import Region
from iscale.plots.labels import label_map
from iscale.plots.overview import block_mean, refined
from iscale.store.layout import SHARD_SUPERPIXELS
from iscale.view.cache import ByteCache
from iscale.view.refused import RefusedError
from iscale.view.slide import Slide

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
    """Maps of a slide.

    Parameters
    ----------
    slide
        The slide.
    """

    def __init__(self, slide: Slide) -> None:
        self._slide = slide
        self._pages: ByteCache[Plane] = ByteCache(PAGES_BYTES, lambda page: page.nbytes)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._reading: dict[Hashable, threading.Event] = {}
        self._lock = threading.Lock()

    def values(self, quantity: str, gene: str, cells: Region, step: int) -> NDArray[np.float32]:
        """A quantity of a gene in a window of a lattice.

        Parameters
        ----------
        quantity
            One of `QUANTITIES`.
        gene
            Its name.
        cells
            The window; it may reach beyond the slide.
        step
            Superpixels per side of a cell of the lattice, which holds their mean on tissue.

        Returns
        -------
        ndarray
            (y, x); NaN off tissue and off the slide.
        """
        if quantity not in QUANTITIES:
            raise RefusedError(404, f"There is no layer {quantity!r}; there are: {', '.join(QUANTITIES)}.")
        if quantity == "refined" and not self._slide.has_cells:
            raise RefusedError(404, "This run has no refined expression yet: iscale refine PROJECT makes it.")
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
        """Of the pages that are held."""
        return self._pages.bytes

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
        for part in there.tiles(PAGE):
            corner = part.y0 // PAGE * PAGE, part.x0 // PAGE * PAGE
            page = self._page(what, corner, step)
            own = Region(corner[0], corner[0] + page.shape[0], corner[1], corner[1] + page.shape[1])
            found[part.within(cells)] = page[part.within(own)]

    def _page(self, what: tuple[str, str], corner: tuple[int, int], step: int) -> Plane:
        """A page, read once: neighbouring tiles that are asked for together wait for who reads it."""
        key = (*what, corner, step)
        while (page := self._pages.get(key)) is None:
            with self._lock:
                own = key not in self._reading
                read = self._reading.setdefault(key, threading.Event())
            if not own:
                read.wait()
                continue
            try:
                (height, width), (y, x) = self._slide.shape, corner
                side = PAGE * step
                region = Region(y * step, min(y * step + side, height), x * step, min(x * step + side, width))
                page = self._read_page(what, region, step)
                self._pages.put(key, page)
                return page
            finally:
                with self._lock:
                    del self._reading[key]
                read.set()
        return page

    def _read_page(self, what: tuple[str, str], region: Region, step: int) -> Plane:
        kind, name = what
        if kind == "classes":
            return self._classes(name, region, step)
        if kind != "refined" and self._slide.rows[name] >= self._slide.genes().written:
            return np.asarray(self._slide.genes().overview([name], region, step, uncertainty=kind == "uncertainty")[0])
        return self._means(kind, name, region, step)

    def _means(self, quantity: str, gene: str, region: Region, step: int) -> Plane:
        """Means over blocks of superpixels, of what is read at full resolution."""
        result = np.full(region.coarsened(step).shape, np.nan, np.float32)
        for part in region.tiles(max(READ_SIDE, step)):
            values = self._read(gene, part, uncertainty=quantity == "uncertainty")
            if quantity == "refined":
                values = refined(values, np.asarray(self.array("tissue/cells")[part.slices]))
            result[part.coarsened(step).within(region.coarsened(step))] = block_mean(values, step)
        return result

    def _read(self, gene: str, region: Region, *, uncertainty: bool) -> NDArray[np.float32]:
        """A gene of a window: what is written in one read of an array that stays open, else computed."""
        source, row = self._slide.genes(), self._slide.rows[gene]
        if row < source.written:
            stored = self.array("expression/uncertainty" if uncertainty else "expression/expression")
            return np.asarray(stored[(row, *region.slices)], np.float32)
        return np.asarray(source.read([gene], region, uncertainty=uncertainty)[0])

    def _classes(self, key: str, region: Region, step: int) -> Plane:
        classes = self._slide.classes[key]
        result = np.zeros(region.coarsened(step).shape, np.uint8)
        for part in region.tiles(max(SHARD_SUPERPIXELS, step)):
            labels = np.asarray(self.array(classes.path)[(classes.row, *part.slices)])
            result[part.coarsened(step).within(region.coarsened(step))] = label_map(labels, None, step)
        return result
