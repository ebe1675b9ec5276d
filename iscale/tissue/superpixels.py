"""The tissue mask at superpixels, one region at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from iscale.geometry import SUPERPIXEL_PX, Region
from iscale.tissue.colour import Mask, density, strength
from iscale.tissue.overview import EDGE, TISSUE, TissueModel, block_mean


def superpixel_mask(
    pixels: npt.NDArray[np.uint8], region: Region, model: TissueModel, classes: npt.NDArray[np.uint8]
) -> Mask:
    """Which superpixels of a region are tissue.

    Each superpixel is decided by itself, from the coarse class of its place and, at an edge, from its own mean colour.
    No halo is needed.

    Parameters
    ----------
    pixels
        (y, x, 3) pixels of the region, of the pyramid level of 16 x 16 analysis pixels or a finer one: its sides are
        whole multiples of the region's.
    region
        Region of superpixels.
    model, classes
        What `learn_tissue` returned.

    Returns
    -------
    (y, x) bool
    """
    per_superpixel = pixels.shape[0] // region.shape[0]
    if pixels.shape != (region.shape[0] * per_superpixel, region.shape[1] * per_superpixel, 3):
        raise ValueError(f"pixels {pixels.shape} are not those of {region.shape} superpixels")
    tissue, edge = _shares(region, model, classes)
    undecided = (edge > 0) & (tissue + edge >= 0.5)
    mask: Mask = tissue > 0.5
    if not undecided.any():
        return mask
    h, w = (n / SUPERPIXEL_PX for n in model.shape_px)
    rows = (np.arange(region.y0, region.y1) + 0.5) / h
    columns = (np.arange(region.x0, region.x1) + 0.5) / w
    relative = density(block_mean(pixels, per_superpixel)) - model.glass.density(rows, columns)
    stained = strength(relative) > model.edge_density
    return np.where(undecided, stained, mask)


def _shares(
    region: Region, model: TissueModel, classes: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Shares (y, x) of each superpixel that are tissue and edge in the coarse classes."""
    if model.coarse_px >= SUPERPIXEL_PX:
        times = model.coarse_px // SUPERPIXEL_PX
        rows = np.arange(region.y0, region.y1) // times
        columns = np.arange(region.x0, region.x1) // times
        at = classes[np.ix_(rows, columns)]
        return (at == TISSUE).astype(float), (at == EDGE).astype(float)
    side = SUPERPIXEL_PX // model.coarse_px
    at = classes[region.scaled(side).slices].reshape(region.shape[0], side, region.shape[1], side)
    return (at == TISSUE).mean((1, 3)), (at == EDGE).mean((1, 3))
