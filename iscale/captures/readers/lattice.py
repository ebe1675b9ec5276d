"""The size of a pixel from spots that were printed at known distances."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ST_PITCH_UM, ST_DIAMETER_UM = 200.0, 100.0
VISIUM_PITCH_UM, VISIUM_DIAMETER_UM = 100.0, 55.0
VISIUM_STEP_UM = VISIUM_PITCH_UM / 2, VISIUM_PITCH_UM * math.sqrt(3) / 2
"""One step of array_col and of array_row: spots of a row are two columns apart, rows lie in a hexagonal lattice."""
VISIUM_ROWS, VISIUM_COLUMNS = 128, 224
"""Of the larger, 11 mm array; the 6.5 mm array has 78 x 128."""

LEAST_SPOTS = 10
LARGEST_RESIDUAL = 0.15
"""Spots farther than this from their places, root mean square and in pitches, are not those of the lattice."""

ARRAY_NAME = re.compile(r"(\d{1,3})x(\d{1,3})")


@dataclass(frozen=True)
class Lattice:
    """A lattice that the spots lie on: pixel size, distance of neighbours and diameter of such arrays' spots, in um.

    ``residual_um`` is the distance of the spots from their places, root mean square.
    """

    um_per_px: float
    pitch_um: float
    diameter_um: float
    residual_um: float


def st_lattice(spot_ids: Sequence[str], xy_px: NDArray[np.float64]) -> Lattice | None:
    """The lattice of an array of the first Spatial Transcriptomics kind, whose spots are named ``22x5``.

    None where the names are others, or the spots do not lie as such names say. Later arrays, of 2,000 spots, number
    every second place of each row and have another pitch: they are not taken.
    """
    named = [ARRAY_NAME.fullmatch(name) for name in spot_ids]
    if not all(named):
        return None
    index = np.array([[int(part) for part in match.groups()] for match in named if match], dtype=np.float64)
    if not (index.sum(axis=1) % 2).any():
        return None
    return _fit(index * ST_PITCH_UM, xy_px, ST_PITCH_UM, ST_DIAMETER_UM)


def visium_lattice(
    array_row: NDArray[np.floating], array_col: NDArray[np.floating], xy_px: NDArray[np.float64]
) -> Lattice | None:
    """The lattice of a Visium array from the spots' places on it, (spot,) each.

    Rows are shifted by half a spot against each other, so that row + column is even. None where it is not, or the spots
    do not lie so.
    """
    index = np.column_stack([array_col, array_row]).astype(np.float64)
    if not (np.isfinite(index).all() and (index == np.round(index)).all() and not (index.sum(axis=1) % 2).any()):
        return None
    if len(index) == 0 or index.min() < 0 or (index.max(axis=0) >= (VISIUM_COLUMNS, VISIUM_ROWS)).any():
        return None
    return _fit(index * VISIUM_STEP_UM, xy_px, VISIUM_PITCH_UM, VISIUM_DIAMETER_UM)


def _fit(at_um: NDArray[np.float64], xy_px: NDArray[np.float64], pitch_um: float, diameter_um: float) -> Lattice | None:
    """The lattice of spots at these places, unless they lie off it."""
    if len(at_um) < LEAST_SPOTS:
        return None
    at_um, xy_px = at_um - at_um.mean(axis=0), xy_px - xy_px.mean(axis=0)
    fit = LatticeFit()
    fit.add(at_um, xy_px)
    found = fit.similarity()
    if found is None:
        return None
    apart_um = xy_px * found.um_per_px - at_um @ found.turn
    residual_um = float(np.sqrt((apart_um**2).sum(axis=1).mean()))
    if residual_um > LARGEST_RESIDUAL * pitch_um:
        return None
    return Lattice(found.um_per_px, pitch_um, diameter_um, residual_um)


class Similarity(NamedTuple):
    """How places on a lattice lie on the image, but for a shift: um (place, 2) @ turn (2, 2) / um_per_px are px."""

    um_per_px: float
    turn: NDArray[np.float64]


class LatticeFit:
    """Least-squares fit of a turned, scaled lattice to points, by sums over batches of them.

    The lattice may be mirrored: sections are photographed from either side.
    """

    def __init__(self) -> None:
        self.n = 0
        self.sums = np.zeros(4)
        self.products = np.zeros((4, 4))

    def add(self, lattice_um: NDArray[np.float64], xy_px: NDArray[np.float64]) -> None:
        """Add (point, 2) places in the lattice and (point, 2) positions; those that are not finite do not count."""
        points = np.hstack([lattice_um, xy_px])
        points = points[np.isfinite(points).all(axis=1)]
        self.n += len(points)
        self.sums += points.sum(axis=0)
        self.products += points.T @ points

    def similarity(self) -> Similarity | None:
        """The solution of orthogonal Procrustes analysis; None where the points span no area."""
        if self.n < 3:
            return None
        covariance = self.products / self.n - np.outer(self.sums, self.sums) / self.n**2
        spread_um2 = covariance[0, 0] + covariance[1, 1]
        left, singular, right = np.linalg.svd(covariance[:2, 2:])
        # An area, and one that the positions follow: else a line, or numbers that have nothing to do with each other.
        if not (spread_um2 > 0 and singular[1] > 1e-9 * singular[0]):
            return None
        return Similarity(float(spread_um2 / singular.sum()), left @ right)
