"""The image that lies beside a capture: found by its name, and judged by whether the spots lie on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iscale.captures.readers.files import check_inside
from iscale.errors import InputError
from iscale.slide.reader import SUFFIXES, open_slide

IMAGE_SETTING = "image in [capture.NAME] of iscale.toml, or image= in Python"
PIXEL_SIZE_SETTING = "pixel_size_um in [capture.NAME] of iscale.toml, or pixel_size_um= in Python"

LEAST_ON_IMAGE = 0.95
"""An image on which a smaller share of the spots lies is not in the pixels that their positions count in."""


@dataclass(frozen=True)
class OwnImage:
    """An image file, of which only height and width at full resolution are known, and the pixel size that it states."""

    path: Path
    shape_px: tuple[int, int]
    um_per_px: float | None

    def share_on(self, xy_px: NDArray[np.float64]) -> float:
        """Share of the positions (spot, 2), x and y, that lie on the image."""
        high, wide = self.shape_px
        return float(np.all((xy_px >= 0) & (xy_px < (wide, high)), axis=1).mean())

    def is_of(self, xy_px: NDArray[np.float64]) -> bool:
        """Whether positions (spot, 2) may count in its pixels."""
        return self.share_on(xy_px) >= LEAST_ON_IMAGE

    def mismatch(self, xy_px: NDArray[np.float64]) -> str:
        """What is wrong where positions (spot, 2) do not lie on it."""
        x, y = xy_px.max(axis=0)
        low_x, low_y = xy_px.min(axis=0)
        return (
            f"{(1 - self.share_on(xy_px)) * 100:.3g} % of {len(xy_px)} positions lie outside of {self.path.name}, "
            f"which is {self.shape_px[1]} px wide and {self.shape_px[0]} px high: they span x {low_x:.0f} to {x:.0f}, "
            f"y {low_y:.0f} to {y:.0f}"
        )


def find_image(folder: Path, *stems: str, trusted: bool = False) -> Path | None:
    """The image file of a folder that is named ``stem`` with a slide's suffix, the preferred stem first.

    An InputError where there are several of one stem, or it is a link out of the folder that is not ``trusted``.
    """
    for stem in stems:
        wanted = {stem + suffix for suffix in SUFFIXES}
        found = sorted(
            path
            for path in folder.iterdir()
            if path.name.startswith(stem) and stem + path.name[len(stem) :].lower() in wanted and path.is_file()
        )
        if len(found) > 1:
            raise InputError(
                f"{folder} holds {len(found)} images that may be the capture's: "
                f"{', '.join(path.name for path in found)}.",
                f"Keep the one whose pixels the positions count in, or name it ({IMAGE_SETTING}).",
            )
        if found:
            if not trusted:
                check_inside(folder, found[0], what="the capture's image")
            return found[0]
    return None


def open_image(path: Path) -> OwnImage:
    """Look at an image's size; an InputError where it cannot be read as a slide."""
    reader = open_slide(path)
    try:
        return OwnImage(path, reader.levels[0], reader.pixel_size_um)
    finally:
        reader.close()
