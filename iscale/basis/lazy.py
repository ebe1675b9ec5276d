"""Genes of a run as arrays that are read where they are indexed: what is not written is computed then."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.basis.source import WRITTEN, Source, open_source
from iscale.geometry import Region
from iscale.store.layout import GENES_PER_CHUNK, SHARD_SUPERPIXELS
from iscale.store.run_store import RunStore


class LazyGenes:
    """(gene, y, x) float32 of genes of a source, computed where it is indexed: what Dask makes an array of.

    Parameters
    ----------
    source
        The genes.
    n_genes
        How many, the first ones.
    uncertainty
        Whether it is the spread over the states.
    """

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
        bounds = [_bounds(part, n) for part, n in zip(place[1:], self.shape[1:], strict=True)]
        if not len(genes) or any(bound.start == bound.stop for bound in bounds):
            shape = [len(range(bound.start, bound.stop, bound.step)) for bound in bounds]
            return np.empty((len(genes), *shape), np.float32)
        region = Region(bounds[0].start, bounds[0].stop, bounds[1].start, bounds[1].stop)
        values = self._source.rows(genes, region, self._uncertainty)
        values = values[(slice(None), *(slice(None, None, bound.step) for bound in bounds))]
        dropped = tuple(0 if isinstance(part, int | np.integer) else slice(None) for part in place)
        return values[dropped]


GeneArray = zarr.Array[Any] | LazyGenes


def imputed_genes(store: RunStore, *, uncertainty: bool = False) -> GeneArray:
    """(gene, y, x) of the genes that a run imputes: the stored array, or one that is computed where none was written.

    Raises
    ------
    InputError
        If nothing has been predicted yet.
    """
    path = WRITTEN[uncertainty]
    if store.has(path):
        return store.array(path)
    source = open_source(store)
    return LazyGenes(source, source.imputed, uncertainty=uncertainty)


def _bounds(part: Any, n: int) -> slice:
    """First and last (not included) of what is asked for of an axis, and the step."""
    if isinstance(part, int | np.integer):
        at = int(part) % n
        return slice(at, at + 1, 1)
    start, stop, step = part.indices(n)
    if step < 0:
        raise IndexError("steps must be positive")
    return slice(start, max(start, stop), step)
