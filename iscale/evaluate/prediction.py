"""A run's predicted maps as the evaluation reads them: a window and some genes at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from iscale.basis.lazy import GeneArray, imputed_genes
from iscale.geometry import Region, SlideGrid
from iscale.readable import check_readable
from iscale.results import Run
from iscale.store.layout import GENES_PER_CHUNK


@dataclass(frozen=True)
class Prediction:
    """What a run predicts.

    Attributes
    ----------
    array
        (gene, y, x) expected counts per superpixel, NaN off tissue.
    genes
        (gene,) names.
    grid
        Grids of the slide.
    """

    array: GeneArray
    genes: tuple[str, ...]
    grid: SlideGrid

    def read(self, genes: Sequence[int], region: Region) -> NDArray[np.float16]:
        """(gene, y, x) of a region, for genes in ascending order; those of a chunk are read together."""
        values = np.empty((len(genes), *region.shape), np.float16)
        for rows in in_chunks(genes):
            first, last = genes[rows[0]], genes[rows[-1]]
            read = np.asarray(self.array[(slice(first, last + 1), *region.slices)])
            values[rows] = read[[genes[row] - first for row in rows]]
        return values


def in_chunks(genes: Sequence[int]) -> Iterator[list[int]]:
    """Places in a list of ascending genes, those together that are stored together.

    >>> list(in_chunks([0, 3, 9]))
    [[0, 1], [2]]
    """
    for _, group in groupby(range(len(genes)), key=lambda row: genes[row] // GENES_PER_CHUNK):
        yield list(group)


def open_prediction(run: Run, parts: Sequence[str] = ()) -> Prediction:
    """Open a run's expression.

    Parameters
    ----------
    run
        The run.
    parts
        What else of it will be read.

    Raises
    ------
    InputError
        As `iscale.readable.check_readable` says.
    """
    check_readable(run.store, parts)
    genes = tuple(str(gene) for gene in run.expression["gene"].values)
    image = run.store.attributes("image")
    height, width = image["raw_shape_px"]
    grid = SlideGrid((height, width), image["raw_pixel_size_um"], image["pixel_size_um"])
    return Prediction(imputed_genes(run.store), genes, grid)
