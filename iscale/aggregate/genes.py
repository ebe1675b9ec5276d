"""What of a run is summed over areas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.basis.source import WRITTEN, Source, open_source
from iscale.evaluate.prediction import open_prediction
from iscale.geometry import Region, SlideGrid
from iscale.results import Run


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
        As `iscale.readable.check_readable` says.
    """
    grid = open_prediction(run).grid
    source = open_source(run.store)
    spread = source.has_factors or run.store.has(WRITTEN[True])
    return Maps(source, grid, run.store.array("expression/depth"), spread)
