"""Encoder ``texture``: colour, stain and multi-scale texture of every superpixel, from a fixed filter bank.

No weights and no training: every number is a mean over the pixels of a superpixel, or a Gaussian mean of such numbers
over the tissue around it. `docs/reference/encoders.md` lists them.

The image is read as optical density ``-ln((v + 1) / 256)`` and unmixed into haematoxylin and eosin with the fixed
stain vectors of Ruifrok and Johnston (Anal. Quant. Cytol. Histol. 2001). Texture is the energy of the bands of a
pyramid of 5-tap binomial filters: each level is the one before, blurred and halved. Level 0, the full resolution, is
computed for the core alone; levels 1 to 3 also for the halo, because the context needs them there. What is computed is
in `iscale.encoders.filter_bank`; plans are made of what is here, without torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iscale.device import here
from iscale.encoders.base import FeatureGroup
from iscale.geometry import SUPERPIXEL_PX

HALO_SUPERPIXELS = 32
BAND_HALO_SUPERPIXELS = 2
"""The bands of levels 0 to 3 reach 2 + 4 + 8 + 16 = 30 px, so statistics are exact this far from a cut."""

NEAR_SIGMA = (1.5, 3.0)
FAR_SIGMA = (6.0, 10.0)
"""Widths of the context, in superpixels: kernels end at 3 sigma, 30 superpixels for the widest."""
CONTEXT_STRIDE = 4

STAIN_VECTORS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11))
"""Optical density of haematoxylin and eosin in red, green and blue (Ruifrok and Johnston)."""
NUCLEAR_DENSITY = (0.5, 0.8, 1.2)
"""Haematoxylin above which a pixel counts as nuclear, weakly to strongly stained."""
GLASS_CHROMA = (0.03, 0.12)
"""Spread of optical density over the channels: at or under the first a superpixel is glass, from the second tissue."""

STRIP_ROWS_PX = 256
"""Rows of pixels that are filtered at a time."""

_COLOUR = ("red", "green", "blue")
_CHANNELS = ("haematoxylin", "eosin")
_BANDS = tuple(f"{c}_band{level}" for level in (1, 2, 3) for c in _CHANNELS)
_SHAPES = tuple(f"haematoxylin_blob{level}" for level in (1, 2, 3))
STATISTICS = (
    *_COLOUR,
    *_CHANNELS,
    "residual_stain",
    *(f"{c}_std" for c in _CHANNELS),
    *(f"nuclear{i + 1}" for i in range(len(NUCLEAR_DENSITY))),
    "white",
    "chroma",
    *_BANDS,
    *_SHAPES,
)
FINE = tuple(f"{c}_{what}" for c in _CHANNELS for what in ("band0", "band0_rms", "blob0", "gradient_y", "gradient_x"))
_CONTEXT = (*STATISTICS, "tissue")


def _context_names(sigmas: tuple[float, ...]) -> tuple[str, ...]:
    return tuple(f"{name}_context{sigma:g}" for sigma in sigmas for name in _CONTEXT)


@dataclass
class TextureEncoder:
    """Colour, stain and texture statistics, without weights (see the module).

    Parameters
    ----------
    device
        Torch device that computes; ``auto`` is the one of the process that encodes.

    Examples
    --------
    >>> [(g.name, len(g.features), g.stride) for g in TextureEncoder().groups]
    [('colour', 3, 1), ('texture', 29, 1), ('near', 46, 1), ('far', 46, 4)]
    """

    device: str = "cpu"
    name: str = field(default="texture", init=False)
    halo_px: int = field(default=HALO_SUPERPIXELS * SUPERPIXEL_PX, init=False)
    groups: tuple[FeatureGroup, ...] = field(
        default=(
            FeatureGroup("colour", _COLOUR),
            FeatureGroup("texture", (*STATISTICS[3:], *FINE)),
            FeatureGroup("near", _context_names(NEAR_SIGMA)),
            FeatureGroup("far", _context_names(FAR_SIGMA), stride=CONTEXT_STRIDE, smooth=CONTEXT_STRIDE),
        ),
        init=False,
    )

    def identity(self) -> dict[str, Any]:
        """Name, version of the filter bank and the constants it is made of."""
        return {
            "encoder": self.name,
            "version": 1,
            "stain_vectors": STAIN_VECTORS,
            "nuclear_density": NUCLEAR_DENSITY,
            "glass_chroma": GLASS_CHROMA,
            "context_sigma": NEAR_SIGMA + FAR_SIGMA,
        }

    def task_bytes(self, core_shape_px: tuple[int, int]) -> int:
        """Peak bytes of `encode`: the image, one strip of pixels, the statistics and the contexts."""
        h, w = (n + 2 * self.halo_px for n in core_shape_px)
        cells = h * w // SUPERPIXEL_PX**2
        core_cells = core_shape_px[0] * core_shape_px[1] // SUPERPIXEL_PX**2
        strip = (STRIP_ROWS_PX + 4 * BAND_HALO_SUPERPIXELS * SUPERPIXEL_PX) * w * 4 * 14
        near = (len(_CONTEXT) * 3 + 4) * cells * 4
        features = sum(len(g.features) for g in self.groups)
        return 3 * h * w + strip + near + 3 * features * core_cells * 4 + 4 * (h + w) ** 2 // 128 + 2**23

    def encode(self, image: NDArray[np.uint8], tissue: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        """Features of a core; see `iscale.encoders.base.Encoder`.

        Parameters
        ----------
        image
            (c=3, y, x) RGB of the core grown by `halo_px`.
        tissue
            (y, x) superpixels of the core that are tissue; features are computed for all.

        Returns
        -------
        dict
            Group's name to (feature, y, x) float32.
        """
        from iscale.encoders.filter_bank import filtered

        del tissue
        values = filtered(image, here(self.device))
        return {group.name: part for group, part in zip(self.groups, values, strict=True)}
