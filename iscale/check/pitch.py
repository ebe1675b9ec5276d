"""The distance of neighbouring spots: as they are placed, and as the platform makes it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from iscale.captures.readers.lattice import ST_PITCH_UM

ST_LARGEST_INDEX = 36
"""Spatial Transcriptomics arrays have 33 x 35 spots, ids such as 22x5; other platforms with such ids have more."""

FEWEST = 4
"""A lattice is not fitted to fewer spots."""

LARGEST_RESIDUAL = 0.3
"""Spots farther from the places that their ids name, root mean square and in pitches, are not those of the ids."""

MOST = 20_000
"""Of more spots some are taken: the median distance of neighbours does not need all."""


@dataclass(frozen=True)
class Pitch:
    """The lattice of a capture's spots.

    Attributes
    ----------
    px
        Distance of neighbouring spots, in the pixels of their positions.
    um
        The same as the platform makes it, None where it is not fixed or not known.
    flipped
        Whether the array is seen from its back at these positions; None where the ids do not tell.
    regular
        Whether the spots lie on a lattice at all; cells do not.
    """

    px: float
    um: float | None
    flipped: bool | None
    regular: bool


def find_pitch(xy: NDArray[np.float64], ids: Sequence[str], platform_um: float | None) -> Pitch | None:
    """The pitch of spots.

    Parameters
    ----------
    xy
        (spot, 2) positions.
    ids
        Their ids: ``22x5`` are positions in an array.
    platform_um
        What the platform fixes it to, if that is known.

    Returns
    -------
    Pitch or None
        None where the spots are too few or all at one place.
    """
    if len(xy) < FEWEST:
        return None
    nearest = np.asarray(cKDTree(xy).query(xy[:: max(1, len(xy) // MOST)], 2)[0])[:, 1]
    px = float(np.median(nearest))
    if px <= 0:
        return None
    low, high = np.percentile(nearest, [10, 90])
    array = array_positions(ids)
    if array is None:
        return Pitch(px, platform_um, None, bool(high < 1.5 * max(low, 1e-9)))
    design = np.column_stack([array, np.ones(len(array))])
    if np.linalg.matrix_rank(design) < 3:
        return Pitch(px, platform_um, None, True)
    fitted = np.linalg.lstsq(design, xy, rcond=None)[0]
    area = float(np.linalg.det(fitted[:2]))
    off = float(np.sqrt(((design @ fitted - xy) ** 2).sum(axis=1).mean()))
    if off > LARGEST_RESIDUAL * abs(area) ** 0.5:  # these ids are not those of these positions
        return Pitch(px, platform_um, None, True)
    if _is_full_st_array(array):
        # Spots are printed with a jitter of some 20 um, which makes nearest neighbours nearer than the pitch.
        return Pitch(abs(area) ** 0.5, platform_um or ST_PITCH_UM, area < 0, True)
    return Pitch(px, platform_um, area < 0, True)


def array_positions(ids: Sequence[str]) -> NDArray[np.float64] | None:
    """(spot, 2) positions in an array that ids such as ``22x5`` name, or None where they are none.

    >>> array_positions(["22x5", "3x4"]).tolist(), array_positions(["ACGT-1"])
    ([[22.0, 5.0], [3.0, 4.0]], None)
    """
    found = [re.fullmatch(r"(\d+)x(\d+)", name) for name in ids]
    if not found or not all(found):
        return None
    return np.array([[float(match[1]), float(match[2])] for match in found if match])


def _is_full_st_array(array: NDArray[np.float64]) -> bool:
    """Whether it is the array of 33 x 35 spots; in denser ones every second position of a checkerboard is used."""
    parity = array.sum(axis=1) % 2
    return bool(array.max() <= ST_LARGEST_INDEX and parity.min() != parity.max())
