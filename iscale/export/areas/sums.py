"""The sums themselves: a shard of maps at a time, over all areas that lie on it, added to their rows on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.export.areas.areas import AREAS_AT_ONCE, Areas, Overlaps
from iscale.geometry import Region, SlideGrid
from iscale.model.genes import WRITTEN, Source, open_source
from iscale.results import Run
from iscale.store.scratch import FileRows
from iscale.trust.prediction import open_prediction


@dataclass(frozen=True)
class Maps:
    """What a run predicts: its genes, its grids, and the (y, x) expected counts of all genes, NaN off tissue.

    ``has_uncertainty`` says whether the run can tell the spread over its ensemble.
    """

    source: Source
    grid: SlideGrid
    depth: zarr.Array[Any]
    has_uncertainty: bool

    def on_tissue(self, region: Region) -> NDArray[np.bool_]:
        """Which superpixels (y, x) of a window have a value."""
        return np.asarray(np.isfinite(np.asarray(self.depth[region.slices])), bool)


def open_maps(run: Run) -> Maps:
    """Open a run's maps, where they can be read."""
    grid = open_prediction(run).grid
    source = open_source(run.store)
    spread = source.has_factors or run.store.has(WRITTEN[True])
    return Maps(source, grid, run.store.array("expression/depth"), spread)


GENES_AT_ONCE = 64
"""Maps of a shard that are read together."""

BUFFER_BYTES = 64 << 20
"""Sums of areas and genes that are held before they are written."""

FEWEST_ROWS = 1 << 10
MORE_THAN_ONCE = 1 + 1e-6

FACTS = ("on_tissue", "n_superpixels", "depth")

LAYERS = {"X": False, "layers/uncertainty": True}
"""Matrices, and whether they are of the uncertainty."""


class FoundFacts:
    """What is found of each area while its superpixels are looked at: a row of `FACTS`, in a nameless file."""

    def __init__(self, folder: Path, rows: int) -> None:
        self._n = rows
        self._rows = FileRows.nameless(folder, len(FACTS), np.float64)
        if rows:  # the file has its length from the start, and is 0
            self._rows.write(rows - 1, np.zeros((1, len(FACTS))))

    def add(self, rows: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        """Add (row, fact) values to ascending rows."""
        self._rows.add(rows, values)

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """All rows, some at a time."""
        for first in range(0, self._n, AREAS_AT_ONCE):
            numbers = np.arange(first, min(first + AREAS_AT_ONCE, self._n))
            yield slice(first, first + len(numbers)), self._rows.take(numbers)


@dataclass
class ExcessCover:
    """Superpixels of which more than all is taken, as areas overlap: how many, and how many superpixels too much in
    all.
    """

    superpixels: int = 0
    excess: float = 0.0

    def add(self, covered: NDArray[np.float64]) -> None:
        """Take note of how much of each superpixel of a shard is taken."""
        more = covered[covered > MORE_THAN_ONCE]
        self.superpixels += len(more)
        self.excess += float((more - 1).sum())


def sum_over(
    areas: Areas,
    maps: Maps,
    genes: Sequence[str],
    matrices: Mapping[str, FileRows],
    facts: FoundFacts,
    done: Callable[[], None],
) -> ExcessCover:
    """Add the maps, weighted by the share of each superpixel that lies in an area, to the areas' rows.

    The matrices are of `LAYERS`, each (area, gene) float32; ``done`` is called after each shard.
    """
    most = int(np.clip(BUFFER_BYTES // (8 * len(genes)), FEWEST_ROWS, AREAS_AT_ONCE))
    excess = ExcessCover()
    for shard in areas.shards():
        tissue = maps.on_tissue(shard)
        known = np.column_stack([tissue.ravel(), np.zeros(shard.area), _depth(maps, shard)])
        covered = np.zeros(shard.area)
        for overlaps in areas.overlaps(shard, most):
            shares = overlaps.shares
            values = shares @ known
            values[:, 1] = np.diff(shares.indptr)
            facts.add(overlaps.rows, values)
            covered += np.bincount(shares.indices, shares.data, shard.area)
            if (on := values[:, 0] > 0).any():
                _add_sums(Overlaps(overlaps.rows[on], shares[on]), shard, maps, genes, matrices)
        excess.add(covered)
        done()
    return excess


def _depth(maps: Maps, shard: Region) -> NDArray[np.float64]:
    return np.nan_to_num(np.asarray(maps.depth[shard.slices], np.float64)).ravel()


def _add_sums(
    overlaps: Overlaps, shard: Region, maps: Maps, genes: Sequence[str], matrices: Mapping[str, FileRows]
) -> None:
    """Add the sums of some areas over one shard."""
    room = max(GENES_AT_ONCE, BUFFER_BYTES // (8 * len(overlaps.rows)))
    for name, matrix in matrices.items():
        for first in range(0, len(genes), room):
            group = genes[first : first + room]
            sums = np.empty((len(overlaps.rows), len(group)), np.float32)
            for at in range(0, len(group), GENES_AT_ONCE):
                some = group[at : at + GENES_AT_ONCE]
                values = maps.source.read(some, shard, uncertainty=LAYERS[name]).reshape(len(some), -1)
                np.nan_to_num(values, copy=False)
                sums[:, at : at + len(some)] = overlaps.shares @ values.T
            matrix.add(overlaps.rows, sums, first)


def found_columns(facts: FoundFacts, area: Callable[[slice], NDArray[np.float64]]) -> Iterator[dict[str, NDArray[Any]]]:
    """Columns of ``obs`` of what was found; ``area`` gives the areas of some rows, in superpixels."""
    for rows, values in facts.blocks():
        whole = area(rows)
        share = np.divide(values[:, 0], whole, out=np.zeros(len(whole)), where=whole > 0)
        yield {
            "share_on_tissue": np.minimum(share, 1.0),
            "n_superpixels": values[:, 1].astype(np.int32),
            "depth": values[:, 2].astype(np.float32),
        }
