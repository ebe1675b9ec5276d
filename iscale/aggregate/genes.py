"""Which genes are asked for, and where they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.basis.source import WRITTEN, Source, open_source
from iscale.errors import InputError
from iscale.evaluate.prediction import open_prediction
from iscale.geometry import Region, SlideGrid
from iscale.project import read_gene_names
from iscale.results import Run
from iscale.store.lock import holder


@dataclass(frozen=True)
class Maps:
    """What a run predicts.

    Attributes
    ----------
    source
        All genes.
    grid
        Grids of the slide.
    depth
        (y, x) expected counts of all genes, NaN off tissue.
    has_uncertainty
        Whether the run can tell the spread over its ensemble.
    """

    source: Source
    grid: SlideGrid
    depth: zarr.Array[Any]
    has_uncertainty: bool

    def on_tissue(self, region: Region) -> NDArray[np.bool_]:
        """Which superpixels (y, x) of a window have a value."""
        return np.asarray(np.isfinite(np.asarray(self.depth[region.slices])), bool)


def open_maps(run: Run) -> Maps:
    """Open a run's maps.

    Raises
    ------
    InputError
        There is no expression yet, or the run ended before all of it was predicted; where another process is at it,
        that is said.
    """
    try:
        grid = open_prediction(run).grid
    except InputError as error:
        by = holder(run.store.folder)
        if not by:
            raise
        raise InputError(f"{error.problem} It is being written by {by}.", "Wait until it is through.") from None
    source = open_source(run.store)
    spread = source.has_factors or run.store.has(WRITTEN[True])
    return Maps(source, grid, run.store.array("expression/depth"), spread)


def asked_for(genes: Sequence[str] | None, source: Source) -> tuple[str, ...]:
    """Names that are checked, each once; those of ``run.expression`` where none is given.

    Raises
    ------
    InputError
        The run has not got one of them.
    """
    if genes is None:
        return source.genes[: source.imputed]
    found = tuple(dict.fromkeys(source.gene(name) for name in genes))
    if not found:
        raise InputError("No gene is asked for.", "Name some, as --genes ERBB2,COL1A1, or leave --genes out.")
    return found


def names_from(text: str) -> tuple[str, ...]:
    """Names of ``--genes``: with commas between, or a file with one a line."""
    if Path(text).is_file():
        return read_gene_names(Path(text))
    return tuple(name for part in text.split(",") if (name := part.strip()))
