"""How far structures and outlines of two images agree where a transform puts one on the other, and at wrong places.

How strongly structures of neighbouring sections correlate depends on stain, blur and distance of the sections, so the
correlation is also taken at places that are wrong for sure: shifted, turned and mirrored ones. All is computed on
overviews.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from iscale.align.outline import Stain
from iscale.align.transform import Transform
from iscale.slide.overview import Overview

SHIFT_UM = 600.0
"""Wrong places are off by this, farther than structures of tissue reach as a rule ..."""
TURNS_DEG = (-20.0, 20.0, 90.0, 180.0, 270.0)
"""... or turned by these, about the middle of the capture ..."""
MIRRORED_DEG = (0.0, 90.0, 180.0, 270.0)
"""... or mirrored and turned by these."""

SMOOTH_UM, TREND_UM = 40.0, 400.0
"""Structures compared are between these sizes (Gaussian sigmas): finer ones do not repeat in a neighbouring section."""
STEP_UM, MOST_PLACES = 20.0, 100_000
"""Images are compared at places this far apart, or farther where that would be too many."""
FEWEST_STRUCTURES = 20
"""Pieces of tissue that are independent after smoothing; fewer have no correlation worth the name."""

H_AND_E = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11))
"""Density of haematoxylin and of eosin in red, green and blue (Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 2001,
23:291, table 1)."""


def wrong_places(transform: Transform, middle: NDArray[np.float64], um_per_px: float) -> list[Transform]:
    """A transform spoilt in 17 ways, about a point (x, y) of the capture; ``um_per_px`` of the mother image."""
    centre = transform.apply(middle[None])[0]
    moves = []
    for angle in np.arange(8) * (math.pi / 4):
        move = np.eye(3)
        move[:2, 2] = SHIFT_UM / um_per_px * np.array([math.cos(angle), math.sin(angle)])
        moves.append(move)
    for turns, flip in ((TURNS_DEG, 1.0), (MIRRORED_DEG, -1.0)):
        for c, s in ((math.cos(a), math.sin(a)) for a in np.radians(turns)):
            move = np.eye(3)
            move[:2, :2] = np.array([[c, -s], [s, c]]) @ np.diag([flip, 1.0])
            move[:2, 2] = centre - move[:2, :2] @ centre
            moves.append(move)
    return [Transform(move @ transform.matrix) for move in moves]


def overlaps(
    capture: Overview, own: Stain, mother: Overview, seen: Stain, transform: Transform
) -> tuple[float | None, float | None]:
    """Share of the capture's tissue on the mother's, and intersection over union, of what lands on the mother image.

    Parameters
    ----------
    capture, own
        Overview of the capture's own image, and its stain.
    mother, seen
        Overview of the mother image, and its stain.
    transform
        From the capture's full-resolution pixels to the mother's.

    Returns
    -------
    overlap, iou
        Each None where there is no tissue to judge by on the mother image.
    """
    h, w = own.mask.shape
    step = max(1.0, math.sqrt(h * w / MOST_PLACES))
    y, x = np.meshgrid(np.arange(0.5, h / step) * step, np.arange(0.5, w / step) * step, indexing="ij")
    full = _to_full(capture, np.stack([x.ravel(), y.ravel()], axis=-1))
    placed = transform.apply(full)
    inside = lies_inside(mother, placed)
    ours, theirs = lies_on_tissue(capture, own, full)[inside], lies_on_tissue(mother, seen, placed)[inside]
    return share_of(theirs[ours]), share_of(theirs[ours | theirs] & ours[ours | theirs])


def compare_structures(
    capture: Overview, own: Stain, mother: Overview, seen: Stain, transform: Transform, um: float
) -> tuple[float | None, float | None]:
    """Correlation of structures where the transform puts the capture, and the largest at wrong places.

    Parameters
    ----------
    capture, own
        Overview of the capture's own image, and its stain.
    mother, seen
        Overview of the mother image, and its stain.
    transform
        From the capture's full-resolution pixels to the mother's.
    um
        Side of a full-resolution pixel of the mother image.

    Returns
    -------
    here, elsewhere
        0 to 1; None where too little tissue of both lies upon each other.
    """
    if not own.mask.any():
        return None, None
    compared = _Compared(capture, own, mother, seen, um, transform.scale)
    here, n = compared.correlation(transform)
    middle = compared.full[compared.tissue].mean(axis=0)
    elsewhere = (compared.correlation(place) for place in wrong_places(transform, middle, um))
    return here, largest([value for value, there in elsewhere if there > n / 2])


class _Compared:
    """Both images at places on a grid over the capture's tissue, smoothed; the transform is free."""

    def __init__(self, capture: Overview, own: Stain, mother: Overview, seen: Stain, um: float, scale: float) -> None:
        rows, columns = np.nonzero(own.mask)
        low = np.array([columns.min(), rows.min()])
        extent = np.array([columns.max(), rows.max()]) + 1 - low
        own_um = capture.full_per_px * scale * um
        step = max(STEP_UM / own_um, math.sqrt(extent.prod() / MOST_PLACES))
        w, h = np.maximum(1, extent // step).astype(int)
        x, y = np.meshgrid(low[0] + (np.arange(w) + 0.5) * step, low[1] + (np.arange(h) + 0.5) * step)
        at = np.stack([x, y], axis=-1)
        self.step_um = step * own_um
        self.tissue = value_at(own.mask.astype(np.float32), at) > 0.5
        self.own = [value_at(layer, at) for layer in _smoothed(own, SMOOTH_UM / own_um)]
        self.full = _to_full(capture, at)
        self.mother = mother
        self.total = np.sum(_smoothed(seen, SMOOTH_UM / (mother.full_per_px * um)), axis=0)
        self.mask = seen.mask.astype(np.float32)

    def correlation(self, transform: Transform) -> tuple[float | None, int]:
        """Multiple correlation where a transform puts the capture, and of how many places."""
        at = self.mother.from_full(transform.apply(self.full.reshape(-1, 2))).reshape(self.full.shape)
        both = self.tissue & (value_at(self.mask, at) > 0.5)
        n = int(both.sum())
        pieces = n * self.step_um**2 / (4 * math.pi * SMOOTH_UM**2)
        if pieces < FEWEST_STRUCTURES:
            return None, n
        sigma = TREND_UM / self.step_um
        weight = np.maximum(ndimage.gaussian_filter(both.astype(np.float64), sigma), 1e-6)
        ours = np.stack([_without_trend(layer, both, weight, sigma) for layer in self.own], axis=-1)
        theirs = _without_trend(value_at(self.total, at), both, weight, sigma)
        spread = float(theirs @ theirs)
        if spread < 1e-9 * n:
            return None, n
        fit = ours @ np.linalg.lstsq(ours, theirs, rcond=1e-6)[0]
        unexplained = (1 - float(fit @ fit) / spread) * (pieces - 1) / (pieces - 1 - ours.shape[1])
        return math.sqrt(min(max(1 - unexplained, 0.0), 1.0)), n


def _smoothed(stain: Stain, sigma_px: float) -> list[NDArray[np.float64]]:
    """Density per channel, smoothed within the tissue only."""
    weight = np.maximum(ndimage.gaussian_filter(stain.mask.astype(np.float64), sigma_px), 1e-3)
    return [np.asarray(ndimage.gaussian_filter(stain.density[..., c], sigma_px) / weight) for c in range(3)]


def _without_trend(
    values: NDArray[np.floating], both: NDArray[np.bool_], weight: NDArray[np.float64], sigma: float
) -> NDArray[np.float64]:
    trend = ndimage.gaussian_filter(np.where(both, values, 0.0), sigma) / weight
    left = (values - trend)[both]
    return np.asarray(left - left.mean())


def haematoxylin(density: NDArray[np.floating]) -> NDArray[np.float64]:
    """Density (y, x) of haematoxylin alone, 0 or more, of a density (y, x, 3) relative to glass.

    Colour deconvolution after Ruifrok and Johnston (2001); the third stain is what is unlike both.

    >>> float(haematoxylin(2 * np.array([[[0.65, 0.70, 0.29]]])).round(2)[0, 0])
    2.0
    """
    vectors = np.array([*H_AND_E, np.cross(*H_AND_E)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.maximum(density @ np.linalg.inv(vectors)[:, 0], 0.0))


def disc_mean(image: NDArray[np.floating], radius_px: float) -> NDArray[np.float64]:
    """Mean (y, x) of an image over a disc about every pixel; beyond the image there is nothing (0)."""
    radius = min(radius_px, min(image.shape) / 2)
    reach = math.ceil(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.clip(radius + 0.5 - np.hypot(y, x), 0.0, 1.0)
    return np.asarray(signal.fftconvolve(image, disc / disc.sum(), mode="same"))


def value_at(image: NDArray[np.floating], xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate an image (y, x) at positions (..., 2) of x, y that count from the corner; 0 beyond it."""
    return np.asarray(ndimage.map_coordinates(image, [xy[..., 1] - 0.5, xy[..., 0] - 0.5], order=1), dtype=np.float64)


def lies_inside(overview: Overview, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which positions (place, 2), in full-resolution pixels, lie on the image."""
    h, w = overview.rgb.shape[:2]
    at = overview.from_full(xy)
    return np.asarray(((at >= 0) & (at < (w, h))).all(axis=1))


def lies_on_tissue(overview: Overview, stain: Stain, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which positions (place, 2), in full-resolution pixels, lie on tissue."""
    inside = lies_inside(overview, xy)
    x, y = np.floor(overview.from_full(xy[inside])).astype(int).T
    inside[inside] = stain.mask[y, x]
    return inside


def _to_full(overview: Overview, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Full-resolution positions (..., 2) of positions in an overview."""
    return np.asarray(xy @ overview.to_full[:2, :2].T + overview.to_full[:2, 2])


def share_of(which: NDArray[np.bool_]) -> float | None:
    """Share of what is true, None of nothing."""
    return float(which.mean()) if which.size else None


def largest(values: list[float | None]) -> float | None:
    """The largest of those that are known, None where none is."""
    return max((v for v in values if v is not None), default=None)
