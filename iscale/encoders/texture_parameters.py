"""What the filter bank of encoder ``texture`` is made of, and what it gives is called: constants, without torch."""

from __future__ import annotations

from iscale.encoders.base import COLOUR

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

_CHANNELS = ("haematoxylin", "eosin")
_BANDS = tuple(f"{c}_band{level}" for level in (1, 2, 3) for c in _CHANNELS)
_SHAPES = tuple(f"haematoxylin_blob{level}" for level in (1, 2, 3))
STATISTICS = (
    *COLOUR.features,
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
CONTEXT = (*STATISTICS, "tissue")


def context_names(sigmas: tuple[float, ...]) -> tuple[str, ...]:
    """Names of the statistics' Gaussian means."""
    return tuple(f"{name}_context{sigma:g}" for sigma in sigmas for name in CONTEXT)
