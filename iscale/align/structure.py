"""What two sections have in common: tissue and stain, whatever their glass and light, and structures inside of it.

Whether structures agree where a transform puts one image on the other is the proof of an alignment.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from iscale.arrays import block_mean
from iscale.geometry import Region
from iscale.slide.colour import density, strength
from iscale.slide.overview import Overview
from iscale.slide.tissue import EDGE, TISSUE, learn_tissue
from iscale.transform import Transform

ASSUMED_WIDTH_UM = 10_000.0
"""Width of an image whose pixel size is not known: thresholds on texture only need its order of magnitude."""


@dataclass(frozen=True)
class Stain:
    """An overview seen as tissue: (y, x) bool, and (y, x, 3) float32 optical density over glass, 0 off the tissue."""

    mask: NDArray[np.bool_]
    density: NDArray[np.float32]

    @property
    def share(self) -> float:
        """Share of the image that is tissue."""
        return float(self.mask.mean())

    @property
    def box(self) -> Region:
        """The rows and columns with tissue, of which there must be some."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        return Region(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def stain_of(overview: Overview) -> Stain:
    """Find the tissue of an overview, and its density relative to the glass beside it."""
    rgb = overview.rgb
    h, w = rgb.shape[:2]
    um = overview.um_per_px or ASSUMED_WIDTH_UM / max(h, w)
    model, classes = learn_tissue(rgb, um, 1)
    at = np.repeat(np.repeat(classes, model.coarse_px, 0), model.coarse_px, 1)[:h, :w]
    at = np.pad(at, ((0, h - at.shape[0]), (0, w - at.shape[1])), mode="edge")
    glass = model.glass.density((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w)
    relative = np.maximum(density(rgb) - glass, 0)
    mask = (at == TISSUE) | ((at == EDGE) & (strength(relative) > model.edge_density))
    return Stain(mask, np.where(mask[..., None], relative, np.float32(0)).astype(np.float32))


def tissue_mask(overview: Overview) -> NDArray[np.bool_]:
    """Where an overview shows tissue: (y, x) bool."""
    return stain_of(overview).mask


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

    Each is None where there is no tissue to judge by on the mother image.
    """
    h, w = own.mask.shape
    step = max(1.0, math.sqrt(h * w / MOST_PLACES))
    y, x = np.meshgrid(np.arange(0.5, h / step) * step, np.arange(0.5, w / step) * step, indexing="ij")
    full = Transform(capture.to_full).apply(np.stack([x.ravel(), y.ravel()], axis=-1))
    placed = transform.apply(full)
    inside = lies_inside(mother, placed)
    ours, theirs = lies_on_tissue(capture, own, full)[inside], lies_on_tissue(mother, seen, placed)[inside]
    return share_of(theirs[ours]), share_of(theirs[ours | theirs] & ours[ours | theirs])


def compare_structures(
    capture: Overview, own: Stain, mother: Overview, seen: Stain, transform: Transform, um: float
) -> tuple[float | None, float | None]:
    """Correlation of structures, 0 to 1, where the transform puts the capture, and the largest at wrong places.

    None where too little tissue of both lies upon each other; ``um`` is the side of a full-resolution mother pixel.
    """
    if not own.mask.any():
        return None, None
    compared = _Compared(capture, own, mother, seen, um, transform.scale)
    middle = compared.full[compared.tissue].mean(axis=0)
    return here_and_elsewhere(compared.correlation, transform, middle, um)


def here_and_elsewhere(
    correlation: Callable[[Transform], tuple[float | None, int]],
    transform: Transform,
    middle: NDArray[np.float64],
    um_per_px: float,
) -> tuple[float | None, float | None]:
    """A correlation and of how many points it is, asked at a transform and, its largest, at wrong places."""
    here, n = correlation(transform)
    elsewhere = [correlation(place) for place in wrong_places(transform, middle, um_per_px)]
    return here, max((value for value, there in elsewhere if there > n / 2 and value is not None), default=None)


class _Compared:
    """Both images at places on a grid over the capture's tissue, smoothed; the transform is free."""

    def __init__(self, capture: Overview, own: Stain, mother: Overview, seen: Stain, um: float, scale: float) -> None:
        low, extent = np.array([own.box.x0, own.box.y0]), np.array(own.box.shape[::-1])
        own_um = capture.full_per_px * scale * um
        step = max(STEP_UM / own_um, math.sqrt(extent.prod() / MOST_PLACES))
        w, h = np.maximum(1, extent // step).astype(int)
        x, y = np.meshgrid(low[0] + (np.arange(w) + 0.5) * step, low[1] + (np.arange(h) + 0.5) * step)
        at = np.stack([x, y], axis=-1)
        self.step_um = step * own_um
        self.tissue = value_at(own.mask.astype(np.float32), at) > 0.5
        self.own = [value_at(layer, at) for layer in _smoothed(own, SMOOTH_UM / own_um)]
        self.full = Transform(capture.to_full).apply(at)
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


def share_of(which: NDArray[np.bool_]) -> float | None:
    """Share of what is true, None of nothing."""
    return float(which.mean()) if which.size else None


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

    ``value`` is the correlation of band-passed structures, the mean over density and hue, -1 to 1, 0 where too little
    tissue is common; ``strength`` the mean of the absolute correlations, as another stain may be dark where this one is
    pale; ``common`` the share of the capture's tissue that lies on the mother's.
    """

    value: float
    strength: float
    common: float


class Structures:
    """What lies inside the tissue of an image, averaged to any resolution once."""

    def __init__(self, stain: Stain) -> None:
        self.mask = stain.mask
        self.box = stain.box
        self._layers = (stain.mask.astype(np.float32), *channels(stain))
        self._reduced: dict[int, list[Layer]] = {}

    def sampled(self, xy: NDArray[np.float64], step: float, shape: tuple[int, int]) -> list[Layer]:
        """Tissue share, density and hue, each of ``shape``, at positions (2, place), averaged over about a step."""
        times = max(1, round(step))
        if times not in self._reduced:
            h, w = (n // times * times for n in self.mask.shape)  # whole blocks only
            self._reduced[times] = [block_mean(layer[:h, :w], times).astype(np.float64) for layer in self._layers]
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
    """Correlate what lies inside of both tissues, where (3, 3) takes pixels of the capture to pixels of the mother."""
    extent = math.sqrt(capture.mask.sum())
    step = max(1.0, extent / CELLS)
    h, w = (max(1, int(n / step)) for n in capture.box.shape)
    y, x = np.mgrid[:h, :w] + 0.5
    at = np.stack([capture.box.x0 + x.ravel() * step, capture.box.y0 + y.ravel() * step, np.ones(h * w)])
    own = capture.sampled(at[:2], step, (h, w))
    theirs = mother.sampled((matrix @ at)[:2], step * Transform(matrix).scale, (h, w))
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
