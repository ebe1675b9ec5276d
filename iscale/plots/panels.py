"""What a panel of a figure shows: a window of the mother image's plane, sampled from overviews.

Every panel samples the overviews at its own pixels, through the inverse of the transform; no slide is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from iscale.align.transform import Transform
from iscale.slide.overview import Overview, block_mean

MARGIN = 0.12
"""Around the capture, as a share of its extent."""
SLIMMEST = 0.6
"""Sides of a panel, the shorter over the longer, at least."""
SQUARES = 8
"""Of the checkerboard, along the longer side."""
BEYOND = 225
"""Grey of what is not on the mother image."""

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """A part of the plane of the mother image, in its full-resolution pixels, and the pixels it is drawn with."""

    x: float
    y: float
    width: float
    height: float
    px_wide: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in drawn pixels."""
        return max(1, round(self.px_wide * self.height / self.width)), self.px_wide

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top, for matplotlib."""
        return self.x, self.x + self.width, self.y + self.height, self.y

    @property
    def places(self) -> Points:
        """(y, x, 2) full-resolution positions of the drawn pixels' centres."""
        h, w = self.shape
        x = self.x + (np.arange(w) + 0.5) * self.width / w
        y = self.y + (np.arange(h) + 0.5) * self.height / h
        return np.stack(np.meshgrid(x, y), axis=-1)


def window_about(points: Points, px_wide: int, aspect: float | None = None) -> Window:
    """The window that shows all points (point, 2), with a margin; ``aspect`` is height over width."""
    low, high = points.min(axis=0), points.max(axis=0)
    width, height = np.maximum(high - low, 1.0) * (1 + 2 * MARGIN)
    wanted = aspect or float(np.clip(height / width, SLIMMEST, 1 / SLIMMEST))
    width, height = max(width, height / wanted), max(height, width * wanted)
    x, y = (low + high) / 2 - (width / 2, height / 2)
    return Window(float(x), float(y), float(width), float(height), px_wide)


def sampled(overview: Overview, window: Window, transform: Transform | None = None) -> tuple[Pixels, NDArray[np.bool_]]:
    """Pixels (y, x, 3) of an overview in a window, and where (y, x) it has any.

    Parameters
    ----------
    overview
        Of the mother image; of a capture with ``transform``.
    window
        What is drawn.
    transform
        From the overview's full-resolution pixels to the mother's; by default they are the same.
    """
    per_px = window.width / window.px_wide / overview.full_per_px / (transform.scale if transform else 1.0)
    factor = max(1, min(int(per_px), min(overview.rgb.shape[:2]) // 2))
    rgb = block_mean(overview.rgb, factor)
    at = in_overview(overview, window, transform) / factor
    h, w = rgb.shape[:2]
    inside = ((at >= 0) & (at < (w, h))).all(axis=-1)
    place = [at[..., 1] - 0.5, at[..., 0] - 0.5]
    channels = [ndimage.map_coordinates(rgb[..., c], place, order=1, mode="nearest") for c in range(3)]
    return np.where(inside[..., None], np.stack(channels, axis=-1), np.uint8(BEYOND)).astype(np.uint8), inside


def laid_over(capture: Pixels, mother: Pixels, there: NDArray[np.bool_]) -> Pixels:
    """The mean of both images (y, x, 3) where the capture is, else the mother image."""
    mean = ((capture.astype(np.uint16) + mother) // 2).astype(np.uint8)
    return np.where(there[..., None], mean, mother)


def checkerboard(capture: Pixels, mother: Pixels, there: NDArray[np.bool_]) -> Pixels:
    """Squares of both images (y, x, 3) in turn; where the capture is not, the mother image."""
    side = math.ceil(max(there.shape) / SQUARES)
    y, x = np.ogrid[: there.shape[0], : there.shape[1]]
    odd = (y // side + x // side) % 2 == 1
    return np.where((odd & there)[..., None], capture, mother)


def in_overview(overview: Overview, window: Window, transform: Transform | None) -> Points:
    """(y, x, 2) positions of a window's pixels in an overview."""
    full = window.places.reshape(-1, 2)
    if transform is not None:
        full = Transform(np.asarray(np.linalg.inv(transform.matrix), dtype=np.float64)).apply(full)
    return overview.from_full(full).reshape(*window.shape, 2)
