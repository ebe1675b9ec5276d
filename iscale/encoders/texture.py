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

from iscale.encoders.base import COLOUR, FeatureGroup
from iscale.encoders.texture_parameters import (
    BAND_HALO_SUPERPIXELS,
    CONTEXT,
    CONTEXT_STRIDE,
    FAR_SIGMA,
    FINE,
    GLASS_CHROMA,
    HALO_SUPERPIXELS,
    NEAR_SIGMA,
    NUCLEAR_DENSITY,
    STAIN_VECTORS,
    STATISTICS,
    STRIP_ROWS_PX,
    context_names,
)
from iscale.engine.machine import here
from iscale.geometry import SUPERPIXEL_PX


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
            COLOUR,
            FeatureGroup("texture", (*STATISTICS[3:], *FINE)),
            FeatureGroup("near", context_names(NEAR_SIGMA)),
            FeatureGroup("far", context_names(FAR_SIGMA), stride=CONTEXT_STRIDE, smooth=CONTEXT_STRIDE),
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
        near = (len(CONTEXT) * 3 + 4) * cells * 4
        features = sum(len(g.features) for g in self.groups)
        return 3 * h * w + strip + near + 3 * features * core_cells * 4 + 4 * (h + w) ** 2 // 128 + 2**23

    def encode(self, image: NDArray[np.uint8], tissue: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        """Features of a core, off tissue too: see `iscale.encoders.base.RegionEncoder.encode`."""
        from iscale.encoders.filter_bank import filtered

        del tissue
        values = filtered(image, here(self.device))
        return {group.name: found for group, found in zip(self.groups, values, strict=True)}
