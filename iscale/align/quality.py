"""How good an alignment is, in numbers that need no truth: tissue on tissue, structures that agree, counts on nuclei.

All is computed on overviews. ``verdict.py`` has the word for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from iscale.align.outline import ASSUMED_WIDTH_UM, Stain, stain_of
from iscale.align.structure import (
    compare_structures,
    disc_mean,
    haematoxylin,
    largest,
    lies_inside,
    lies_on_tissue,
    overlaps,
    share_of,
    value_at,
    wrong_places,
)
from iscale.align.transform import Transform
from iscale.slide.overview import Overview

FEWEST_SPOTS = 20
"""Fewer spots on tissue have no correlation worth the name."""
SMALL_RADIUS_UM, POOL_UM = 20.0, 100.0
"""Smaller spots (cells, bins) hold few counts each, so their counts are summed over squares of so many um."""


@dataclass(frozen=True)
class Quality:
    """What was measured of an alignment; None is what cannot be computed. JSON-able by ``dataclasses.asdict``.

    Attributes
    ----------
    overlap
        Share of the capture's tissue that lands on the mother's tissue, of what lands on the mother image.
    iou
        Intersection over union of both tissues, over the part of the capture's image that lands on the mother image.
    stain_correlation
        Correlation of structures, 0 to 1: multiple correlation of the mother's density (sum of channels) with the three
        channels of the capture, over pixels where both show tissue. Densities are smoothed (Gaussian, 40 um), and the
        trend (Gaussian, 400 um) is taken off, so it says nothing of outlines and of uneven light. Of three channels, as
        another stain has another colour; adjusted for what three channels explain by chance.
    stain_elsewhere
        The largest of the same at 17 places that are wrong: shifted by 600 um, turned, mirrored. Structures that are
        rightly placed correlate clearly more.
    spots
        Spots with counts.
    spots_on_own
        Share of the spots that lie on the tissue of the capture's own image, None where it has none.
    spots_on_tissue
        Share of them whose centre lies on the mother's tissue; with an image of the capture, of those that lie on its
        own tissue.
    spots_outside
        Share of them whose centre lies outside of the mother image.
    counts_correlation
        Spearman's correlation, over spots on the mother's tissue, of counts per spot with the mean haematoxylin density
        in the spot's disc on the mother image. Cells and bins of less than 40 um are summed over squares of 100 um.
    counts_elsewhere
        The largest of the same at the wrong places.
    residual_um
        Of landmarks, as given.
    """

    overlap: float | None
    iou: float | None
    stain_correlation: float | None
    stain_elsewhere: float | None
    spots: int
    spots_on_own: float | None
    spots_on_tissue: float | None
    spots_outside: float | None
    counts_correlation: float | None
    counts_elsewhere: float | None
    residual_um: float | None


def measure(
    capture: Overview | None,
    mother: Overview,
    transform: Transform,
    xy_px: NDArray[np.floating],
    radius_px: float,
    depth: NDArray[np.floating],
    residual_um: float | None = None,
    mother_stain: Stain | None = None,
) -> Quality:
    """Measure how well a capture fits the mother image where a transform puts it.

    Parameters
    ----------
    capture
        Overview of the capture's own image, None where it has none.
    mother
        Overview of the mother image.
    transform
        From the capture's full-resolution pixels to the mother's.
    xy_px
        (spot, 2) x, y in the capture's full-resolution pixels.
    radius_px
        Radius of a spot in the same.
    depth
        (spot,) counts of all genes.
    residual_um
        Root mean square residual of landmarks, where there are any.
    mother_stain
        ``stain_of(mother)``, where it is known already: it takes seconds.
    """
    seen = mother_stain or stain_of(mother)
    um = mother.full_um or ASSUMED_WIDTH_UM / max(seen.mask.shape) / mother.full_per_px
    counted = depth > 0
    xy_px, depth = np.asarray(xy_px, dtype=np.float64)[counted], np.asarray(depth, dtype=np.float64)[counted]
    own = None if capture is None else stain_of(capture)
    overlap = iou = stain = stain_elsewhere = None
    if capture is not None and own is not None:
        overlap, iou = overlaps(capture, own, mother, seen, transform)
        stain, stain_elsewhere = compare_structures(capture, own, mother, seen, transform, um)
    on_own = None if capture is None or own is None else lies_on_tissue(capture, own, xy_px)
    placed = transform.apply(xy_px)
    on_tissue = lies_on_tissue(mother, seen, placed)
    counts, counts_elsewhere = _counts(mother, seen, transform, xy_px, radius_px, depth, um)
    return Quality(
        overlap=overlap,
        iou=iou,
        stain_correlation=stain,
        stain_elsewhere=stain_elsewhere,
        spots=len(xy_px),
        spots_on_own=None if on_own is None else share_of(on_own),
        spots_on_tissue=share_of(on_tissue if on_own is None else on_tissue[on_own]),
        spots_outside=share_of(~lies_inside(mother, placed)),
        counts_correlation=counts,
        counts_elsewhere=counts_elsewhere,
        residual_um=None if residual_um is None or not math.isfinite(residual_um) else float(residual_um),
    )


def _counts(
    mother: Overview,
    seen: Stain,
    transform: Transform,
    xy_px: NDArray[np.float64],
    radius_px: float,
    depth: NDArray[np.float64],
    um: float,
) -> tuple[float | None, float | None]:
    """Correlation of counts with nuclei where the transform puts the spots, and the largest at wrong places."""
    if len(xy_px) < FEWEST_SPOTS:
        return None, None
    if radius_px * transform.scale * um < SMALL_RADIUS_UM:
        side = POOL_UM / um / transform.scale
        xy_px, depth = pooled(xy_px, depth, side)
        radius_px = side / math.sqrt(math.pi)
    nuclei = disc_mean(haematoxylin(seen.density), radius_px * transform.scale / mother.full_per_px)

    def correlation(place: Transform) -> tuple[float | None, int]:
        xy = place.apply(xy_px)
        on = lies_on_tissue(mother, seen, xy)
        values = value_at(nuclei, mother.from_full(xy[on]))
        if on.sum() < FEWEST_SPOTS or np.ptp(values) == 0 or np.ptp(depth[on]) == 0:
            return None, int(on.sum())
        return float(stats.spearmanr(depth[on], values).statistic), int(on.sum())

    found, n = correlation(transform)
    elsewhere = (correlation(place) for place in wrong_places(transform, np.median(xy_px, axis=0), um))
    return found, largest([value for value, there in elsewhere if there > n / 2])


def pooled(
    xy_px: NDArray[np.float64], depth: NDArray[np.float64], side_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (square, 2) of the squares that hold spots, and the counts (square,) in each.

    >>> xy, total = pooled(np.array([[1.0, 1.0], [2.0, 3.0], [11.0, 1.0]]), np.array([5.0, 1.0, 2.0]), 10.0)
    >>> xy.tolist(), total.tolist()
    ([[5.0, 5.0], [15.0, 5.0]], [6.0, 2.0])
    """
    cells, which = np.unique(np.floor(xy_px / side_px), axis=0, return_inverse=True)
    total = np.asarray(np.bincount(which.ravel(), depth, len(cells)), dtype=np.float64)
    return (cells + 0.5) * side_px, total
