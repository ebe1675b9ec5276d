"""The decision about tissue, taken once on a small overview of the whole slide.

What sets tissue apart on every stain is not its colour but that it is uneven at the scale of cells: over a few tens of
um the density of glass varies by less than 0.01, of the palest tissue by 0.03. A pink haze of stain, a shadow, a tinted
or vignetted slide are smooth. So texture decides; colour only draws the edge, and takes out ink and dirt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from iscale.arrays import pixel_mean
from iscale.slide.colour import FILL, Array, Glass, Mask, density, fit_glass, ink, strength

GLASS, TISSUE, EDGE = 0, 1, 2
"""Values of the coarse classes: at an edge each superpixel's own colour decides."""

WORKING_UM = 4.0
"""A finer overview is first averaged to about this pixel size: texture then means the same on all slides."""

WINDOW = 5
"""Texture is the standard deviation in windows of so many coarse pixels, to a side."""

LOWEST_TEXTURE, HIGHEST_TEXTURE = 0.013, 0.04
"""The threshold on texture lies within these: a slide without glass, or without tissue, has no two groups."""

SMALLEST_GLASS_SHARE = 0.02
"""Glass is a peak of the histogram of texture that holds this share of the slide."""

ROUGHEST_GLASS = 0.025
"""Glass has no more texture than this, with the noise of strong JPEG compression."""

FAINTEST_SHARE, FAINTEST_DENSITY = 0.2, 0.045
"""Tissue is denser than glass by this share of what is typical of the slide's tissue, or by this much."""

SMALLEST_INK_MM2 = 0.001
"""Ink of less than this (30 x 30 um) is not a pen's: dark nuclei, pigment."""

STAINED_HOLE = 0.4
"""A hole is even tissue, not glass, where its mean stain is at least this share of what is typical of the tissue."""

SMALLEST_MM2 = 0.0025
"""Fragments and holes smaller than this (50 x 50 um) are ignored ..."""

SMALLEST_SHARE = 0.005
"""... and fragments smaller than this share of the largest."""

ACHROMATIC = 0.25
"""Dirt, bubbles and edges of glass take all channels alike: spread of density over channels, over the largest."""


@dataclass(frozen=True)
class TissueModel:
    """What `superpixel_mask` needs to know of the whole slide; JSON-able by `dataclasses.asdict`.

    Attributes
    ----------
    glass
        Colour of glass over the slide.
    texture_threshold
        Standard deviation of density above which the overview is tissue.
    edge_density
        Density relative to glass above which a superpixel at an edge is tissue.
    coarse_px
        Side of a pixel of the coarse classes, in analysis pixels; a power of 2.
    shape_px
        Height and width of the analysis image that the overview shows.
    """

    glass: Glass
    texture_threshold: float
    edge_density: float
    coarse_px: int
    shape_px: tuple[int, int]

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TissueModel:
        """The inverse of `dataclasses.asdict`, also after a way through JSON."""
        h, w = values["shape_px"]
        return cls(**{**values, "glass": Glass.from_json(values["glass"]), "shape_px": (h, w)})


def learn_tissue(
    overview: npt.NDArray[np.uint8], um_per_px: float, factor: int
) -> tuple[TissueModel, npt.NDArray[np.uint8]]:
    """Decide where the tissue is, at the resolution of an overview.

    Parameters
    ----------
    overview
        (y, x, 3) pyramid level of the analysis image, padding included; at best 1 to 4 million pixels.
    um_per_px
        Side of one of its pixels, in um.
    factor
        Side of one of its pixels in analysis pixels; a power of 2.

    Returns
    -------
    TissueModel
    (y, x) uint8
        Coarse classes: `GLASS`, `TISSUE` or `EDGE`.
    """
    shape_px = overview.shape[0] * factor, overview.shape[1] * factor
    times = 1
    while um_per_px * times * 2 <= WORKING_UM and min(overview.shape[:2]) // (times * 2) >= 8 * WINDOW:
        times *= 2
    padding = [(0, -n % times) for n in overview.shape[:2]]
    rgb = pixel_mean(np.pad(overview, [*padding, (0, 0)], mode="edge"), times)
    um = um_per_px * times
    od = density(rgb)
    fill = np.asarray((rgb > FILL).all(-1) | (rgb < 255 - FILL).all(-1))
    seen: Mask = ~ndimage.binary_dilation(fill)  # pixels next to fill are a mixture with it
    texture = local_deviation(od, seen)
    threshold = _texture_threshold(texture[seen])
    glass = fit_glass(od, seen & (texture < threshold))
    h, w = od.shape[:2]
    relative = od - glass.density((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w)
    inked = _inked(relative, od, seen, um)
    uneven = seen & (texture > threshold)
    uneven &= _stained(relative, uneven)
    tissue = _fragments(_without_lines(uneven & ~inked), inked, relative, um)
    edge = _edge(tissue) & ~fill & ~inked
    inner = strength(relative)[tissue & ~edge]
    typical = float(np.median(inner)) if inner.size else 0.3
    classes = np.where(edge, EDGE, np.where(tissue, TISSUE, GLASS)).astype(np.uint8)
    model = TissueModel(glass, threshold, min(max(0.3 * typical, 0.03), 0.15), factor * times, shape_px)
    return model, classes


def local_deviation(od: Array, seen: Mask, window: int = WINDOW) -> Array:
    """Standard deviation (y, x) of density in a window, over the three channels; of the pixels that were scanned only.

    Without the restriction every border between what was scanned and fill looks like texture.
    """
    weight = ndimage.uniform_filter(seen.astype(np.float32), window)
    enough = weight > 2.5 / window**2
    safe = np.where(enough, weight, 1)
    variance = np.zeros(seen.shape, np.float32)
    for channel in range(3):
        # Centred first: float32 variances of values far from 0 lose the small ones.
        values = np.where(seen, od[..., channel] - float(od[..., channel].mean()), 0).astype(np.float32)
        mean = ndimage.uniform_filter(values, window) / safe
        variance += np.maximum(ndimage.uniform_filter(values * values, window) / safe - mean * mean, 0)
    return np.where(enough, np.sqrt(variance), np.float32(0))


def _texture_threshold(texture: Array) -> float:
    """The valley between the texture of glass and that of tissue, kept within the range that separates the two."""
    counts, edges = np.histogram(np.log10(np.maximum(texture, 10**-3.5)), bins=175, range=(-3.5, 0.0))
    frequency = ndimage.gaussian_filter1d(counts / max(1, texture.size), 4.0, mode="constant")
    at = 10 ** ((edges[:-1] + edges[1:]) / 2)
    glass = _glass_mode(frequency, at)
    low = LOWEST_TEXTURE if glass is None else max(LOWEST_TEXTURE, float(at[glass]))
    between = np.flatnonzero((at >= low) & (at <= HIGHEST_TEXTURE))
    rare = between[frequency[between] <= 1.2 * frequency[between].min() + 1e-5]
    return float(at[rare[len(rare) // 2]])


def _glass_mode(frequency: npt.NDArray[np.float64], at: npt.NDArray[np.float64]) -> int | None:
    """The first peak, from the smooth end, that holds a part of the slide and can be glass, if there is one."""
    padded = np.pad(frequency, 1)
    peaks = np.flatnonzero((frequency >= padded[:-2]) & (frequency > padded[2:]) & (at < ROUGHEST_GLASS))
    for peak in peaks:
        if frequency[max(0, peak - 8) : peak + 8].sum() > SMALLEST_GLASS_SHARE:
            return int(peak)
    return None


def _stained(relative: Array, uneven: Mask) -> Mask:
    """Where there is some stain at all: smears and scratches of the glass are uneven, but hardly denser than it."""
    stain = strength(relative)
    typical = float(np.median(stain[uneven])) if uneven.any() else 0.0
    return np.asarray(ndimage.uniform_filter(stain, WINDOW) > min(FAINTEST_SHARE * typical, FAINTEST_DENSITY))


def _inked(relative: Array, od: Array, seen: Mask, um: float) -> Mask:
    """Pen strokes with their blurred rims; specks of such colours inside tissue are not ink."""
    found = ink(relative, local_deviation(od, seen, 3)) & seen
    found = ndimage.binary_opening(found, iterations=1)
    strokes, n = ndimage.label(found, np.ones((3, 3)))
    area = np.bincount(strokes.ravel(), minlength=n + 1)
    area[0] = 0
    found = (area > SMALLEST_INK_MM2 * 1e6 / um**2)[strokes]
    return np.asarray(ndimage.binary_dilation(found, iterations=WINDOW // 2 + 1))


def _without_lines(uneven: Mask) -> Mask:
    """Drop what is no wider than the window: a single edge (of a shadow, of a cover slip) seen from both sides."""
    disc = np.hypot(*np.mgrid[-3:4, -3:4]) <= WINDOW / 2 + 0.7
    padded = np.pad(uneven, 4, mode="edge")  # tissue may be cut by the border of the image
    wide = ndimage.binary_dilation(ndimage.binary_opening(padded, disc), disc) & padded
    return np.asarray(wide[4:-4, 4:-4])


def _fragments(uneven: Mask, inked: Mask, relative: Array, um: float) -> Mask:
    """Connected pieces of tissue: small holes and stained ones closed, tiny and colourless pieces dropped."""
    smallest = max(SMALLEST_MM2 * 1e6 / um**2, 4.0)
    filled = uneven | _holes_to_close(uneven, inked, strength(relative), smallest)
    pieces, n = ndimage.label(filled, np.ones((3, 3)))
    if n == 0:
        return filled
    area = np.bincount(pieces.ravel(), minlength=n + 1).astype(float)
    area[0] = 0
    sums = np.stack([np.bincount(pieces.ravel(), relative[..., c].ravel(), n + 1) for c in range(3)], -1)
    mean = sums / np.maximum(area, 1)[:, None]
    chroma = (mean.max(1) - mean.min(1)) / np.maximum(mean.max(1), 0.02)
    # A whole section can be nearly grey (faint counterstain): dirt has clearly less colour than the main piece.
    coloured = chroma > min(ACHROMATIC, 0.6 * float(chroma[area.argmax()]))
    keep = coloured & (area >= smallest)
    keep &= area >= SMALLEST_SHARE * (area * keep).max()
    return np.asarray(keep[pieces])


def _holes_to_close(uneven: Mask, inked: Mask, stain: Array, smallest: float) -> Mask:
    """Holes in tissue that are tiny, or enclosed by it and as strongly stained: even tissue, such as collagen."""
    holes, n = ndimage.label(~uneven & ~inked)
    area = np.bincount(holes.ravel(), minlength=n + 1)
    mean = np.bincount(holes.ravel(), stain.ravel(), n + 1) / np.maximum(area, 1)
    typical = float(np.median(stain[uneven])) if uneven.any() else np.inf
    open_ones = np.unique(np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]]))
    close = mean > STAINED_HOLE * typical
    close[open_ones] = False
    close |= area < smallest
    close[0] = False
    return np.asarray(close[holes])


def _edge(tissue: Mask) -> Mask:
    """Where texture cannot tell: its window reaches over the border of the tissue by half its width."""
    grown = ndimage.binary_dilation(tissue, np.ones((3, 3), bool))
    inner = ndimage.binary_erosion(tissue, np.ones((3, 3), bool), iterations=WINDOW // 2 + 1, border_value=1)
    return np.asarray(grown & ~inner)
