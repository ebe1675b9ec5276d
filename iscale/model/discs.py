"""Discs of spots: which superpixels a spot measures, and how rows of features are grouped by spot. Pure numpy.

A spot of radius ``r`` superpixels (a real number) centred in superpixel (i, j) covers the superpixels (i + di, j + dj)
with ``di^2 + dj^2 <= r^2`` (method, section 4).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

MOST_ROWS, SPOTS_AT_ONCE = 4096, 64
"""Rows of a block of spots, unless one spot has more; and spots of a block."""

LEAST_DENSITY = 0.01
"""Of the median: fewer counts are taken for so many where logarithms are."""
BELIEF = 4.0
"""Precision of the prior belief that the image says what a disc measured: a standard deviation of 0.5 of its power."""


def disc_offsets(radius: float) -> NDArray[np.int64]:
    """All integer offsets (offset, 2), di and dj in row-major order, within a radius in superpixels, not negative.

    A relative 1e-9 is added to it, so that 0.3 / 0.1 reaches offset 3.

    >>> disc_offsets(1.0).tolist()
    [[-1, 0], [0, -1], [0, 0], [0, 1], [1, 0]]
    >>> len(disc_offsets(50 / 12))
    57
    """
    if not (np.isfinite(radius) and radius >= 0):
        raise ValueError(f"radius of a disc must be finite and not negative, not {radius}")
    reach = radius * (1 + 1e-9)
    span = np.arange(-int(reach), int(reach) + 1)
    di, dj = np.meshgrid(span, span, indexing="ij")
    inside = di**2 + dj**2 <= reach**2
    return np.stack([di[inside], dj[inside]], axis=1).astype(np.int64)


def disc_sizes(radius_um: ArrayLike, superpixel_um: float) -> NDArray[np.int64]:
    """Number of superpixels in the full disc of each spot, as if the tissue had no border.

    >>> disc_sizes([50.0, 0.0, 50.0], 12.0).tolist()
    [57, 1, 57]
    """
    radii, which = np.unique(np.asarray(radius_um, dtype=np.float64), return_inverse=True)
    sizes = np.array([len(disc_offsets(r / superpixel_um)) for r in radii], dtype=np.int64)
    return sizes[which]


def disc_rows(
    centre: NDArray[np.int64], radius_um: NDArray[np.float64], superpixel_um: float, shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Superpixels in the discs of spots, those outside the slide left out.

    Parameters
    ----------
    centre
        (spot, 2): row and column of the superpixel that each spot's centre lies in.
    radius_um
        (spot,) radii.
    superpixel_um
        Side of a superpixel.
    shape
        Rows and columns of superpixels of the slide.

    Returns
    -------
    spot, position
        (row,) index of the spot, ascending, and (row, 2) row and column of the superpixel.
    """
    radii, kind = np.unique(radius_um, return_inverse=True)
    offsets = [disc_offsets(r / superpixel_um) for r in radii]
    spot = np.repeat(np.arange(len(centre)), np.array([len(o) for o in offsets], dtype=np.int64)[kind])
    start = np.searchsorted(spot, np.arange(len(centre) + 1))
    position = centre[spot]
    for k, offset in enumerate(offsets):
        first = start[:-1][kind == k]
        position[first[:, None] + np.arange(len(offset))] += offset
    inside = ((position >= 0) & (position < shape)).all(axis=1)
    return spot[inside], position[inside]


def spot_starts(spot: NDArray[np.int64], n_spots: int) -> NDArray[np.int64]:
    """Where each spot's rows begin, of rows sorted by spot: rows of spot ``s`` are ``starts[s]:starts[s + 1]``.

    >>> spot_starts(np.array([0, 0, 2]), 4).tolist()
    [0, 2, 2, 3, 3]
    """
    if len(spot) and (np.any(np.diff(spot) < 0) or spot[0] < 0 or spot[-1] >= n_spots):
        raise ValueError(f"rows must be sorted by spot, with spots from 0 to {n_spots - 1}")
    return np.searchsorted(spot, np.arange(n_spots + 1)).astype(np.int64)


def rows_of(starts: NDArray[np.int64], spots: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of some spots, in their order, and for each row the position of its spot in ``spots``.

    >>> rows, owner = rows_of(np.array([0, 2, 2, 5]), np.array([2, 0]))
    >>> rows.tolist(), owner.tolist()
    ([2, 3, 4, 0, 1], [0, 0, 0, 1, 1])
    """
    count = starts[spots + 1] - starts[spots]
    owner = np.repeat(np.arange(len(spots)), count)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    return starts[spots][owner] + within, owner


def blocks_of(
    starts: NDArray[np.int64], spots: NDArray[np.int64], *, most_spots: int = SPOTS_AT_ONCE, most_rows: int = MOST_ROWS
) -> list[NDArray[np.int64]]:
    """Cut a list of spots into blocks that have few rows; a spot of more rows than a block may have is one itself.

    >>> blocks = blocks_of(np.array([0, 2, 4, 14, 15]), np.arange(4), most_rows=4)
    >>> [block.tolist() for block in blocks]
    [[0, 1], [2], [3]]
    """
    blocks, begin, rows = [], 0, 0
    for k, count in enumerate((starts[spots + 1] - starts[spots]).tolist()):
        if k > begin and (rows + count > most_rows or k - begin == most_spots):
            blocks.append(spots[begin:k])
            begin, rows = k, 0
        rows += count
    return [*blocks, spots[begin:]] if len(spots) else []


def share_exponents(
    share: NDArray[np.float64], density: NDArray[np.float64], capture: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How far the share of a spot's disc that lies on tissue can be believed, (spot,) from 0 to 1, per capture.

    A spot that measured half of a disc has half of the counts, if the tissue ends where the image says: its counts go
    with the first power of the share. Where spots lie some tens of um beside the tissue they measured, the share tells
    less, in the end nothing: power 0. The slope of the logarithm of counts on that of the share says which it is, as
    errors of a regressor flatten it by what it is to be believed less (regression calibration; Carroll et al.,
    Measurement Error in Nonlinear Models, 2006, chapter 4). Where few discs are cut, the image is believed.

    Parameters
    ----------
    share
        (spot,): superpixels of the disc on tissue, over all of the disc.
    density
        (spot,): counts over all superpixels of the disc.
    capture
        (spot,): which capture a spot is of.

    >>> share = np.repeat([1.0, 0.5, 0.1], 200)
    >>> captures = np.zeros(600, np.int64)
    >>> [round(float(share_exponents(share, 9 * share**power, captures)[0]), 2) for power in (1, 0.5, 0)]
    [1.0, 0.5, 0.0]
    """
    x, y = np.log(share), np.log(np.maximum(density, LEAST_DENSITY * max(float(np.median(density)), 1e-9)))
    exponents = np.ones(len(share))
    for one in np.unique(capture):
        of = capture == one
        dx, dy = x[of] - x[of].mean(), y[of] - y[of].mean()
        known = float(dx @ dx) / max(float(dy.var()), 1e-9)
        slope = float(dx @ dy) / max(float(dx @ dx), 1e-9)
        exponents[of] = np.clip((known * slope + BELIEF) / (known + BELIEF), 0.0, 1.0)
    return exponents
