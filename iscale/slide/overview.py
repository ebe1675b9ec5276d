"""An image small enough to hold, and how its pixels relate to the full-resolution image it was made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Overview:
    """A coarse picture of a capture's image, or of the mother image.

    Attributes
    ----------
    rgb
        (y, x, 3) uint8.
    to_full
        (3, 3) float64: takes (x, y, 1) in its pixels to full-resolution pixels. Positions count from the corner of a
        pixel: the centre of the first is 0.5, 0.5.
    full_um
        Side of a full-resolution pixel in um, None where it is not known.
    """

    rgb: NDArray[np.uint8]
    to_full: NDArray[np.float64]
    full_um: float | None

    @property
    def um_per_px(self) -> float | None:
        """Side of one of its pixels in um, None where that of the full resolution is not known."""
        if self.full_um is None:
            return None
        return float(np.sqrt(abs(np.linalg.det(self.to_full[:2, :2])))) * self.full_um
