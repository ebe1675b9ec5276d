"""Genes of a run, written or computed from its factors as they are read: windows, overviews, lazy arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.arrays import block_mean
from iscale.errors import InputError
from iscale.geometry import Region
from iscale.model.loadings import COARSE_PATH, FACTORS_PATH, Loadings, stored_loadings
from iscale.model.sizes import FACTORS, STATES
from iscale.project.files import read_gene_names
from iscale.store.layout import COARSE_STEP, GENES_PER_CHUNK, SHARD_SUPERPIXELS
from iscale.store.remedies import making
from iscale.store.run_store import RunStore
from iscale.words import similar_names

READ_SIDE = 2 * SHARD_SUPERPIXELS
"""Side of the tiles of a window whose factors are held at once."""

READ_BYTES = STATES * FACTORS * 2 * READ_SIDE**2
"""Of those factors, float16: what computing genes takes besides the genes."""

SHOWN = 5
"""Unknown names that are told."""

WRITTEN = {False: "expression/expression", True: "expression/uncertainty"}


class Source:
    """All genes of a run: those that were written are read, any other is computed from the factors.

    Attributes
    ----------
    genes
        Names, those of ``run.expression`` first.
    imputed
        How many ``run.expression`` has.
    """

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self._opened: dict[str, zarr.Array[Any]] = {}
        self.has_factors = store.has(FACTORS_PATH)
        self._imputed = store.names("expression/gene")
        self.imputed = len(self._imputed)
        self.genes = store.names("basis/gene") if self.has_factors else self._imputed

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {gene: row for row, gene in enumerate(self.genes)}

    @cached_property
    def written(self) -> int:
        """How many genes, the first ones, lie in the store."""
        path = WRITTEN[False]
        return int(self.store.array(path).shape[0]) if self.store.has(path) else 0

    @cached_property
    def _loadings(self) -> Loadings:
        return stored_loadings(self.store)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of superpixels of the slide."""
        height, width = self.store.array("expression/depth").shape
        return height, width

    def gene(self, name: str) -> str:
        """The gene of that name; where there is none, similar names are offered."""
        return self.named((name,))[0]

    def row(self, name: str) -> int:
        """The place in `genes` of the gene of that name; refused as by :meth:`gene`."""
        return self._rows[self.gene(name)]

    def has(self, name: str) -> bool:
        """Whether there is a gene of that name."""
        return name in self._rows

    def named(self, names: Sequence[str]) -> tuple[str, ...]:
        """The genes of these names, each once; unknown ones are refused with names like them."""
        unknown = [name for name in dict.fromkeys(names) if name not in self._rows]
        if not unknown:
            return tuple(dict.fromkeys(names))
        which = ", ".join(map(repr, unknown[:SHOWN])) + (f" and {len(unknown) - SHOWN} more" * (len(unknown) > SHOWN))
        near = {name: similar_names(name, self.genes) for name in unknown[:SHOWN]}
        if len(unknown) == 1:
            remedy = f"Similar names: {', '.join(near[unknown[0]])}." if near[unknown[0]] else "No name is similar."
        else:
            similar = [f"{name}: {', '.join(found)}" for name, found in near.items() if found]
            remedy = f"Similar names: {'; '.join(similar)}." if similar else "No names are similar."
        raise InputError(f"There is no gene {which} among the {len(self.genes)} of {self.store.place}.", remedy)

    def read(self, genes: Sequence[str], region: Region, *, uncertainty: bool = False) -> NDArray[np.float32]:
        """Expected counts of a window of superpixels, or their spread over the states.

        Parameters
        ----------
        genes
            Names; an unknown one is refused.
        region
            In superpixels.
        uncertainty
            Whether to give the standard deviation over the states.

        Returns
        -------
        values
            (gene, y, x) float32, NaN off tissue.
        """
        return self.rows(np.array([self.row(gene) for gene in genes], np.int64), region, uncertainty)

    def rows(self, rows: NDArray[np.int64], region: Region, uncertainty: bool = False) -> NDArray[np.float32]:
        """The same, genes given by their places in `genes`."""
        values = np.empty((len(rows), *region.shape), np.float32)
        there = rows < self.written
        if there.any():
            array = self._array(WRITTEN[uncertainty])
            # Orthogonal selection is slow where one slice says the same.
            own = rows[there]
            selected = slice(int(own[0]), int(own[-1]) + 1) if (np.diff(own) == 1).all() else own
            values[there] = array.oindex[(selected, *region.slices)]
        if not there.all():
            values[~there] = self._computed(rows[~there], region, uncertainty)
        return values

    def overview(
        self, genes: Sequence[str], region: Region, step: int, *, uncertainty: bool = False
    ) -> NDArray[np.float32]:
        """The same, averaged over the tissue of blocks of superpixels.

        From steps of 4 on genes are computed from averaged factors, where the run has them: for the speed of a glance,
        not for figures. Expected counts come out lower by a few percent where tissue is varied (docs/benchmarks.md).

        Parameters
        ----------
        genes, uncertainty
            As for :meth:`read`.
        region
            In superpixels, of whole blocks but for the slide's end.
        step
            Superpixels a side of a block: a power of 2.

        Returns
        -------
        values
            (gene, block y, block x) float32, NaN where there is no tissue.
        """
        rows = np.array([self.row(gene) for gene in genes], np.int64)
        if step == 1:
            return self.rows(rows, region, uncertainty)
        if step >= COARSE_STEP and self.has_factors:
            place = region.coarsened(COARSE_STEP).slices
            components = np.asarray(self._array(COARSE_PATH)[(slice(None), *place)])
            return block_mean(self._decoder(rows, uncertainty)(components), step // COARSE_STEP)
        result = np.empty((len(rows), *region.coarsened(step).shape), np.float32)
        for tile in region.tiles(max(step, SHARD_SUPERPIXELS)):
            within = tile.coarsened(step).within(region.coarsened(step))
            result[:, *within] = block_mean(self.rows(rows, tile, uncertainty), step)
        return result

    def _array(self, path: str) -> zarr.Array[Any]:
        """An array of the store, opened once: opening costs more than reading a tile."""
        if path not in self._opened:
            self._opened[path] = self.store.array(path)
        return self._opened[path]

    def _computed(self, rows: NDArray[np.int64], region: Region, uncertainty: bool) -> NDArray[np.float32]:
        """Genes of a window from its factors, which are read a tile at a time."""
        values = np.empty((len(rows), *region.shape), np.float32)
        decode, factors = self._decoder(rows, uncertainty), self._array(FACTORS_PATH)
        for tile in region.tiles(READ_SIDE):
            values[:, *tile.within(region)] = decode(np.asarray(factors[(slice(None), *tile.slices)]))
        return values

    def _decoder(
        self, rows: NDArray[np.int64], uncertainty: bool
    ) -> Callable[[NDArray[np.floating]], NDArray[np.float32]]:
        loadings = self._loadings.of(rows)
        return loadings.uncertainty if uncertainty else loadings.expression


def open_source(store: RunStore) -> Source:
    """The genes of a run; refused where nothing has been predicted yet."""
    if not store.has("expression/gene"):
        raise InputError(f"{store.place}: no gene has been predicted yet.", f"Make it: {making(store, 'basis')}.")
    return Source(store)


class LazyGenes:
    """(gene, y, x) float32 of a source's first genes, computed where it is indexed: what Dask makes an array of."""

    ndim = 3
    dtype = np.dtype(np.float32)

    def __init__(self, source: Source, n_genes: int, *, uncertainty: bool = False) -> None:
        self._source, self._uncertainty = source, uncertainty
        self.shape = (n_genes, *source.shape)
        self.chunks = (min(GENES_PER_CHUNK, n_genes), SHARD_SUPERPIXELS, SHARD_SUPERPIXELS)

    def __getitem__(self, place: Any) -> NDArray[np.float32]:
        """A slice, a number or a list of genes; slices or numbers of rows and columns."""
        place = place if isinstance(place, tuple) else (place,)
        place = (*place, *(slice(None),) * (3 - len(place)))
        genes = np.atleast_1d(np.arange(self.shape[0])[place[0]])
        bounds = [_bounds(index, n) for index, n in zip(place[1:], self.shape[1:], strict=True)]
        if not len(genes) or any(bound.start == bound.stop for bound in bounds):
            shape = [len(range(bound.start, bound.stop, bound.step)) for bound in bounds]
            return np.empty((len(genes), *shape), np.float32)
        region = Region(bounds[0].start, bounds[0].stop, bounds[1].start, bounds[1].stop)
        values = self._source.rows(genes, region, self._uncertainty)
        values = values[(slice(None), *(slice(None, None, bound.step) for bound in bounds))]
        dropped = tuple(0 if isinstance(index, int | np.integer) else slice(None) for index in place)
        return values[dropped]


GeneArray = zarr.Array[Any] | LazyGenes


def imputed_genes(store: RunStore, *, uncertainty: bool = False) -> GeneArray:
    """(gene, y, x) of the genes that a run imputes: the written array, or one that is computed where none was written.

    Refused where nothing has been predicted yet.
    """
    path = WRITTEN[uncertainty]
    if store.has(path):
        return store.array(path)
    source = open_source(store)
    return LazyGenes(source, source.imputed, uncertainty=uncertainty)


def _bounds(index: Any, n: int) -> slice:
    """An index of an axis as a slice: first and last (not included), and the step."""
    if isinstance(index, int | np.integer):
        at = int(index) % n
        return slice(at, at + 1, 1)
    start, stop, step = index.indices(n)
    if step < 0:
        raise IndexError("steps must be positive")
    return slice(start, max(start, stop), step)


HOW = "Write --genes A,B, or name a file of one gene a line."


def choose_genes(named: str | Sequence[str] | None, source: Source, default: int | None = None) -> tuple[str, ...]:
    """Genes that a user named, each once.

    Parameters
    ----------
    named
        Names, or text: names with commas between, or a file of one name a line; refused where there is no such gene or
        file, or none is named. None: the imputed ones, as in ``run.expression``.
    source
        The genes that there are.
    default
        How many of the imputed ones, where none are named; None is all.
    """
    if named is None:
        return source.genes[: source.imputed][:default]
    names = _names_in(named, source) if isinstance(named, str) else named
    if not names:
        raise InputError("No gene is named.", HOW)
    return source.named(names)


def _names_in(text: str, source: Source) -> Sequence[str]:
    if Path(text).is_file():
        return read_gene_names(Path(text))
    if "/" in text or (Path(text).suffix and "," not in text and not source.has(text)):
        raise InputError(f"--genes {text}: there is neither such a file nor such a gene.", HOW)
    return [name for piece in text.split(",") if (name := piece.strip())]
