"""Bins of superpixels as rows: which there are, and their values block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iscale.arrays import block_cells, block_mode, block_share
from iscale.export.request import Request, tiles
from iscale.geometry import SUPERPIXEL_PX, Region
from iscale.results import Run


def block_sum(values: NDArray[Any], side: int) -> NDArray[np.float32]:
    """Sum over blocks of what is not NaN; 0 where nothing is.

    >>> block_sum(np.array([[1.0, np.nan], [2.0, 4.0]], np.float32), 2).tolist()
    [[7.0]]
    """
    there = np.nan_to_num(np.asarray(values, np.float32), nan=0.0)
    return np.asarray(there if side == 1 else block_cells(there, side).sum(axis=-1), np.float32)


def read_sums(
    request: Request, genes: Sequence[str], tile: Region, *, uncertainty: bool = False
) -> NDArray[np.float32]:
    """Expected counts of bins, or the sums of their spreads, (gene, y, x) float32; a shard is read at a time."""
    side = request.side
    sums = np.empty((len(genes), tile.shape[0] // side, tile.shape[1] // side), np.float32)
    outer = tile.coarsened(side)
    for piece in tiles(tile):
        place = piece.coarsened(side).within(outer)
        sums[(slice(None), *place)] = block_sum(request.source.read(genes, piece, uncertainty=uncertainty), side)
    return sums


@dataclass(frozen=True)
class Piece:
    """Bins with tissue of one shard: its superpixels that are exported, and (y, x) the share of each bin that is
    tissue.

    ``start`` is how many rows of the table come before; ``side`` that of a bin, in superpixels.
    """

    tile: Region
    share: NDArray[np.float32]
    start: int
    side: int

    @cached_property
    def there(self) -> NDArray[np.bool_]:
        """(y, x): bins that are rows."""
        return np.asarray(self.share > 0)

    @cached_property
    def rows(self) -> int:
        """How many they are."""
        return int(self.there.sum())

    @cached_property
    def cells(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of each on the slide's lattice of bins."""
        i, j = np.nonzero(self.there)
        return i + self.tile.y0 // self.side, j + self.tile.x0 // self.side


@dataclass(frozen=True)
class Column:
    """Something that is known of every row.

    Attributes
    ----------
    name, dtype
        Its name, and the type of its numbers.
    of
        Gives the numbers of a piece: (row,), or (row, n) of ``width`` n. Of categories their places, -1 for none.
    categories
        Names of the categories; None where numbers are numbers.
    width
        Numbers of a row; 0 where there is but one, and no axis.
    """

    name: str
    dtype: str
    of: Callable[[Piece], NDArray[Any]]
    categories: tuple[str, ...] | None = None
    width: int = 0


class Table:
    """The rows of a table: pieces, read anew each time, and how many ``rows`` they have in all."""

    def __init__(self, request: Request) -> None:
        self._mask = request.run.store.array("tissue/mask")
        self._side = request.side
        self._starts: list[tuple[Region, int]] = []
        self.rows = 0
        for tile in tiles(request.region):
            if n := self._piece(tile, self.rows).rows:
                self._starts.append((tile, self.rows))
                self.rows += n

    def __len__(self) -> int:
        """Number of shards that have rows."""
        return len(self._starts)

    def __iter__(self) -> Iterator[Piece]:
        """Their rows, read anew each time: shares of all bins of a large slide are no small array."""
        return (self._piece(tile, start) for tile, start in self._starts)

    def _piece(self, tile: Region, start: int) -> Piece:
        return Piece(tile, block_share(np.asarray(self._mask[tile.slices]), self._side), start, self._side)


def index_of(piece: Piece) -> NDArray[Any]:
    """Names of rows, by row and column of the lattice of bins: objects of type str."""
    i, j = piece.cells
    return np.array([f"r{row}c{column}" for row, column in zip(i.tolist(), j.tolist(), strict=True)], dtype=object)


def spatial_px(piece: Piece, corner_px: tuple[int, int] = (0, 0)) -> NDArray[np.float64]:
    """Centres of bins, (row, 2) x, y, in analysis pixels from a corner (y, x) of the slide."""
    i, j = piece.cells
    step = piece.side * SUPERPIXEL_PX
    return np.column_stack([(j + 0.5) * step - corner_px[1], (i + 0.5) * step - corner_px[0]])


def obs_columns(request: Request) -> list[Column]:
    """What is known of every bin: lattice, tissue, depth, cells, clusters and labels, as far as the run has come."""
    store, side = request.run.store, request.side
    columns = [
        Column("array_row", "int32", lambda piece: piece.cells[0]),
        Column("array_col", "int32", lambda piece: piece.cells[1]),
        Column("share_on_tissue", "float32", lambda piece: piece.share[piece.there]),
    ]
    if store.has("expression/depth"):
        depth = store.array("expression/depth")
        columns.append(Column("depth", "float32", lambda p: block_sum(_read(depth, p), side)[p.there]))
    if store.has("tissue/cells"):
        cells = store.array("tissue/cells")

        def share(piece: Piece) -> NDArray[np.float32]:
            return block_share(_read(cells, piece), side)[piece.there]

        columns.append(Column("share_with_cells", "float32", share))
        columns.append(Column("cells", "bool", lambda p: share(p) > 0))
    return [*columns, *_cluster_columns(request.run, side), *_label_columns(request.run, side)]


def obsm_columns(request: Request, corner_px: tuple[int, int] = (0, 0)) -> list[Column]:
    """Positions in pixels from a corner, and in um from the slide's; the embedding, a mean over the bin's tissue."""
    store, pixel_um = request.run.store, request.grid.pixel_size_um
    columns = [
        Column("spatial", "float64", lambda piece: spatial_px(piece, corner_px), width=2),
        Column("spatial_um", "float64", lambda piece: spatial_px(piece) * pixel_um, width=2),
    ]
    if store.has("embedding/embedding"):
        array = store.array("embedding/embedding")
        columns.append(Column("X_iscale", "float32", lambda piece: _means(array, piece), width=array.shape[0]))
    return columns


def _cluster_columns(run: Run, side: int) -> list[Column]:
    found = []
    for path, ending in (("clusters/labels", ""), ("clusters/refined", "_cells")):
        if not run.store.has(path):
            continue
        array = run.store.array(path)
        for row, n in enumerate(np.asarray(run.store.array("clusters/n_clusters")[...]).tolist()):
            names = tuple(str(k + 1) for k in range(n))
            found.append(Column(f"cluster_{n}{ending}", _codes(names), _classes(array, row, side), names))
    return found


def _label_columns(run: Run, side: int) -> list[Column]:
    if not run.store.has("annotation/labels"):
        return []
    array = run.store.array("annotation/labels")
    names = (*(str(name) for name in run.annotation_scores["label"].values), "Unclassified")
    thresholds = np.asarray(run.store.array("annotation/threshold")[...]).tolist()
    return [
        Column(f"label_{threshold:g}", _codes(names), _classes(array, row, side), names)
        for row, threshold in enumerate(thresholds)
    ]


def _classes(array: Any, row: int, side: int) -> Callable[[Piece], NDArray[Any]]:
    """Places of categories, of a map whose label k is category k - 1."""

    def of(piece: Piece) -> NDArray[Any]:
        labels = block_mode(np.asarray(array[(row, *piece.tile.slices)]), side)
        return labels[piece.there].astype(np.int16) - 1

    return of


def _codes(names: Sequence[str]) -> str:
    """Type of the places of categories, as pandas would have it."""
    return "int8" if len(names) < 128 else "int16"


def _read(array: Any, piece: Piece) -> NDArray[Any]:
    return np.asarray(array[piece.tile.slices])


def _means(array: Any, piece: Piece) -> NDArray[np.float32]:
    """(row, component) means over what is not NaN."""
    values = np.asarray(array[(slice(None), *piece.tile.slices)], np.float32)
    count = block_cells(np.isfinite(values[0]), piece.side).sum(axis=-1)[piece.there]
    sums = block_sum(values, piece.side)[:, piece.there]
    return np.asarray((sums / np.maximum(count, 1)).T, np.float32)
