"""An image small enough to hold, made of a slide of any size without holding that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iscale.arrays import downsampled
from iscale.slide.base import Pixels, SlideReader, bands_of
from iscale.slide.flat_reader import FlatImage
from iscale.slide.reader import open_slide

BAND_BYTES = 64 << 20
"""Rows of a level are averaged in bands of about so many bytes."""


@dataclass(frozen=True)
class Overview:
    """A coarse picture of a capture's image, or of the mother image."""

    rgb: NDArray[np.uint8]
    """(y, x, 3)."""
    to_full: NDArray[np.float64]
    """(3, 3): takes (x, y, 1) in its pixels to full-resolution pixels. Positions count from the corner of a pixel: the
    centre of the first is 0.5, 0.5."""
    full_um: float | None
    """Side of a full-resolution pixel in um, None where it is not known."""

    @property
    def full_per_px(self) -> float:
        """Full-resolution pixels per one of its pixels."""
        return float(np.sqrt(abs(np.linalg.det(self.to_full[:2, :2]))))

    @property
    def um_per_px(self) -> float | None:
        """Side of one of its pixels in um, None where that of the full resolution is not known."""
        return None if self.full_um is None else self.full_per_px * self.full_um

    def from_full(self, xy: NDArray[np.floating]) -> NDArray[np.float64]:
        """Positions (point, 2) of full-resolution pixels, in its pixels."""
        inverse = np.linalg.inv(self.to_full)
        return np.asarray(xy @ inverse[:2, :2].T + inverse[:2, 2], dtype=np.float64)

    def cropped(self, low: NDArray[np.floating], high: NDArray[np.floating]) -> Overview:
        """The part between two positions (x, y) of full-resolution pixels; all of it where that is no part of it."""
        corners = np.array([[low[0], low[1]], [high[0], low[1]], [low[0], high[1]], [high[0], high[1]]])
        at = self.from_full(corners)
        h, w = self.rgb.shape[:2]
        x0, y0 = np.clip(np.floor(at.min(axis=0)), 0, (w, h)).astype(int).tolist()
        x1, y1 = np.clip(np.ceil(at.max(axis=0)), 0, (w, h)).astype(int).tolist()
        if x1 <= x0 or y1 <= y0:
            return self
        shift = np.array([[1.0, 0.0, x0], [0.0, 1.0, y0], [0.0, 0.0, 1.0]])
        return Overview(self.rgb[y0:y1, x0:x1], self.to_full @ shift, self.full_um)


def read_overview(path: Path, longest_px: int = 2048, full_um: float | None = None) -> Overview:
    """Average a slide of any format down until its longer side is at most ``longest_px``.

    Reads the coarsest pyramid level that is fine enough, band by band; JPEG is decoded at an eighth, a quarter or half
    of its size where that is enough, PNG in one piece. The side of a full-resolution pixel, ``full_um``, is by default
    what the file states.
    """
    reader = open_slide(path)
    try:
        full = reader.levels[0]
        if isinstance(reader, FlatImage):
            rgb, scale = reader.overview(longest_px)
        else:
            rgb, scale = _from_level(reader, longest_px)
        um = full_um if full_um is not None else reader.pixel_size_um
    finally:
        reader.close()
    height, width = (min(n, round(m / s)) for n, m, s in zip(rgb.shape[:2], full, scale, strict=True))
    return Overview(rgb[: max(1, height), : max(1, width)], np.diag([scale[1], scale[0], 1.0]), um)


def _from_level(reader: SlideReader, longest_px: int) -> tuple[Pixels, tuple[float, float]]:
    level = max((i for i, shape in enumerate(reader.levels) if max(shape) >= longest_px), default=0)
    h, w = reader.levels[level]
    factor = max(1, -(-max(h, w) // longest_px))
    whole_h, whole_w = (n // factor * factor for n in (h, w))  # what does not fill a block is left out
    bands = [
        downsampled(reader.read(level, band), factor)
        for band in bands_of((whole_h, whole_w), max(factor, BAND_BYTES // (3 * w) // factor * factor))
    ]
    full_h, full_w = reader.levels[0]
    return np.concatenate(bands), (full_h / h * factor, full_w / w * factor)
