"""Do the structures inside of the tissue agree? The proof of an alignment that its outline cannot give."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from iscale.align.outline import Stain

FINEST, COARSEST = 0.04, 0.16
"""Structures compared are between these sizes (Gaussian sigmas), as shares of the common tissue's extent: finer ones do
not repeat in a neighbouring section, coarser ones follow from the outline."""

CELLS = 160
"""The common tissue is compared at about so many pixels to its extent."""

FEWEST = 400
"""Pixels of common tissue needed."""


@dataclass(frozen=True)
class Agreement:
    """How structures agree where both images show tissue.

    Attributes
    ----------
    value
        Correlation of band-passed density, -1 to 1; 0 where too little tissue is common.
    common
        Share of the capture's tissue that lies on the mother's tissue.
    """

    value: float
    common: float


def agreement(capture: Stain, mother: Stain, matrix: NDArray[np.float64]) -> Agreement:
    """Correlate what lies inside of both tissues.

    Parameters
    ----------
    capture, mother
        What is compared.
    matrix
        (3, 3): takes x, y, 1 in pixels of the capture to pixels of the mother.
    """
    extent = math.sqrt(capture.mask.sum())
    step = max(1.0, extent / CELLS)
    h, w = (max(1, int(n / step)) for n in capture.mask.shape)
    y, x = np.mgrid[:h, :w] + 0.5
    at = np.stack([x.ravel() * step, y.ravel() * step, np.ones(h * w)])
    scale = math.sqrt(abs(np.linalg.det(matrix[:2, :2])))
    own = _sampled(capture, at[:2], step, (h, w))
    theirs = _sampled(mother, (matrix @ at)[:2], step * scale, (h, w))
    tissue = own[0] > 0.9
    both = tissue & (theirs[0] > 0.9)
    common = float(both.sum() / max(1, tissue.sum()))
    if both.sum() < FEWEST:
        return Agreement(0.0, common)
    size = math.sqrt(both.sum())
    bands = [_band(layers[1], both, FINEST * size, COARSEST * size) for layers in (own, theirs)]
    return Agreement(_correlation(bands[0][both], bands[1][both]), common)


def _sampled(
    stain: Stain, xy: NDArray[np.float64], step: float, shape: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tissue share and mean density (y, x) at positions, each averaged over about a step."""
    times = max(1, round(step))
    layers = []
    for values in (stain.mask.astype(np.float32), stain.density.sum(-1)):
        h, w = (n // times * times for n in values.shape)
        reduced = values[:h, :w].reshape(h // times, times, w // times, times).mean((1, 3))
        place = [xy[1] / times - 0.5, xy[0] / times - 0.5]
        layers.append(ndimage.map_coordinates(reduced, place, order=1, cval=0.0).reshape(shape))
    return layers[0], layers[1]


def _band(values: NDArray[np.float64], mask: NDArray[np.bool_], fine: float, coarse: float) -> NDArray[np.float64]:
    """Structures between two sizes, of what is inside of the mask only."""
    fine_mean, coarse_mean = (_smooth(values, mask, sigma) for sigma in (fine, coarse))
    return fine_mean - coarse_mean


def _smooth(values: NDArray[np.float64], mask: NDArray[np.bool_], sigma: float) -> NDArray[np.float64]:
    weight = ndimage.gaussian_filter(mask.astype(np.float64), sigma)
    return np.asarray(ndimage.gaussian_filter(np.where(mask, values, 0.0), sigma) / np.maximum(weight, 1e-3))


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    if not (a.std() > 0 and b.std() > 0):
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
