"""Tissue and stain of an overview: what two sections have in common, whatever their glass, light and orientation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iscale.slide.colour import density, strength
from iscale.slide.overview import Overview
from iscale.slide.tissue import EDGE, TISSUE, learn_tissue

ASSUMED_WIDTH_UM = 10_000.0
"""Width of an image whose pixel size is not known: thresholds on texture only need its order of magnitude."""


@dataclass(frozen=True)
class Stain:
    """An overview seen as tissue.

    Attributes
    ----------
    mask
        (y, x) bool: tissue.
    density
        (y, x, 3) float32: optical density relative to glass, 0 or more, 0 off the tissue.
    """

    mask: NDArray[np.bool_]
    density: NDArray[np.float32]

    @property
    def share(self) -> float:
        """Share of the image that is tissue."""
        return float(self.mask.mean())


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
