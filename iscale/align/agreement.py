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

CELLS = 80
"""The common tissue is compared at about so many pixels to its extent."""

FEWEST = 200
"""Pixels of common tissue needed."""

Layer = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """How structures agree where both images show tissue.

    Attributes
    ----------
    value
        Correlation of band-passed structures, the mean over density and hue, -1 to 1; 0 where too little tissue is
        common.
    strength
        The mean of the absolute correlations: another stain may be dark where this one is pale.
    common
        Share of the capture's tissue that lies on the mother's tissue.
    """

    value: float
    strength: float
    common: float


class Structures:
    """What lies inside the tissue of an image, averaged to any resolution once.

    Parameters
    ----------
    stain
        The image.
    """

    def __init__(self, stain: Stain) -> None:
        self.mask = stain.mask
        self.box = _bounds(stain.mask)
        self._layers = (stain.mask.astype(np.float32), *channels(stain))
        self._reduced: dict[int, list[Layer]] = {}

    def sampled(self, xy: NDArray[np.float64], step: float, shape: tuple[int, int]) -> list[Layer]:
        """Tissue share, density and hue, each of ``shape``, at positions (2, place), averaged over about a step."""
        times = max(1, round(step))
        if times not in self._reduced:
            self._reduced[times] = [_reduced(layer, times) for layer in self._layers]
        place = [xy[1] / times - 0.5, xy[0] / times - 0.5]
        return [
            ndimage.map_coordinates(layer, place, order=1, cval=0.0).reshape(shape) for layer in self._reduced[times]
        ]


def channels(stain: Stain) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Density and hue (y, x) of a stain: how much there is, and how much more red than green it takes from the light.

    Haematoxylin takes both, eosin green: so hue tells nuclei from matrix where both are dense.
    """
    density = stain.density
    return density.sum(-1), density[..., 0] - density[..., 1]


def agreement(capture: Structures, mother: Structures, matrix: NDArray[np.float64]) -> Agreement:
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
    (y0, y1), (x0, x1) = capture.box
    h, w = max(1, int((y1 - y0) / step)), max(1, int((x1 - x0) / step))
    y, x = np.mgrid[:h, :w] + 0.5
    at = np.stack([x0 + x.ravel() * step, y0 + y.ravel() * step, np.ones(h * w)])
    scale = math.sqrt(abs(np.linalg.det(matrix[:2, :2])))
    own = capture.sampled(at[:2], step, (h, w))
    theirs = mother.sampled((matrix @ at)[:2], step * scale, (h, w))
    tissue = own[0] > 0.9
    both = tissue & (theirs[0] > 0.9)
    common = float(both.sum() / max(1, tissue.sum()))
    if both.sum() < FEWEST:
        return Agreement(0.0, 0.0, common)
    size = math.sqrt(both.sum())
    found = []
    for a, b in zip(own[1:], theirs[1:], strict=True):
        bands = [_band(layer, both, FINEST * size, COARSEST * size)[both] for layer in (a, b)]
        found.append(_correlation(*bands))
    return Agreement(float(np.mean(found)), float(np.mean(np.abs(found))), common)


def _bounds(mask: NDArray[np.bool_]) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last + 1 row, and column, with tissue."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1)


def _reduced(values: NDArray[np.float32], times: int) -> Layer:
    h, w = (n // times * times for n in values.shape)
    return np.asarray(values[:h, :w].reshape(h // times, times, w // times, times).mean((1, 3)), dtype=np.float64)


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
