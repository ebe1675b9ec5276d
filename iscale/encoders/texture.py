"""Encoder ``texture``: colour, stain and multi-scale texture of every superpixel, from a fixed filter bank in torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from iscale.encoders.base import FeatureGroup
from iscale.engine.machine import here
from iscale.geometry import SUPERPIXEL_PX


@torch.inference_mode()
def filtered(image: NDArray[np.uint8], device: str) -> tuple[NDArray[np.float32], ...]:
    """Features of a core, a (feature, y, x) array for each group of the encoder.

    Parameters
    ----------
    image
        (c=3, y, x) RGB of the core grown by `HALO_SUPERPIXELS`.
    device
        Torch device that computes.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device)
    statistics = _by_strips(pixels, BAND_HALO_SUPERPIXELS, _coarse_statistics)
    margin = HALO_SUPERPIXELS - BAND_HALO_SUPERPIXELS
    cut = (HALO_SUPERPIXELS - 1) * SUPERPIXEL_PX
    fine = _by_strips(_crop(pixels, cut), 1, _fine_statistics)
    core = _crop(statistics, margin)
    weight = _tissue_weight(statistics)
    weighted = torch.cat([statistics * weight, weight])
    near = [_gaussian_mean(weighted, sigma, margin, 1) for sigma in NEAR_SIGMA]
    far = [_gaussian_mean(weighted, sigma, margin, CONTEXT_STRIDE) for sigma in FAR_SIGMA]
    groups = (core[:3], torch.cat([core[3:], fine]), torch.cat(near), torch.cat(far))
    return tuple(values.cpu().numpy() for values in groups)


def _by_strips(pixels: Tensor, halo: int, statistics: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Statistics (statistic, y, x) of all superpixels of (c, y, x) pixels but ``halo`` on every side, strip by strip.

    Strips bound the working memory and keep it in the processor's caches; no value depends on where they begin.
    """
    edge = halo * SUPERPIXEL_PX
    height = pixels.shape[1] - 2 * edge
    strips = [
        statistics(pixels[:, y : min(y + STRIP_ROWS_PX, height) + 2 * edge], halo)
        for y in range(0, height, STRIP_ROWS_PX)
    ]
    return torch.cat(strips, dim=1)


def _coarse_statistics(pixels: Tensor, halo: int) -> Tensor:
    """`STATISTICS` of a strip of (c, y, x) uint8 pixels, from half its resolution down."""
    rgb = F.avg_pool2d(pixels.float(), 2)
    side = SUPERPIXEL_PX // 2
    stains, residual = _unmix(rgb)
    colour = _block_mean(rgb, side) / 255.0
    density = _block_mean(stains, side)
    spread = (_block_mean(stains.square(), side) - density.square()).clamp_min(0).sqrt()
    haematoxylin = stains[:1]
    nuclear = torch.cat([torch.sigmoid((haematoxylin - t) * 8.0) for t in NUCLEAR_DENSITY])
    white = torch.sigmoid((rgb.amin(0, keepdim=True) - 205.0) / 8.0)
    od = -torch.log((255.0 * colour + 1.0) / 256.0)
    per_cell = [
        colour,
        density,
        _block_mean(residual, side),
        spread,
        _block_mean(torch.cat([nuclear, white]), side),
        od.amax(0, keepdim=True) - od.amin(0, keepdim=True),
    ]
    cropped = [_crop(c, halo) for c in per_cell]
    bands, blobs = _band_energies(stains, halo)
    return torch.cat([*cropped, *bands, *blobs])


def _fine_statistics(pixels: Tensor, halo: int) -> Tensor:
    """What `iscale.encoders.texture.FINE` names, of a strip of (c, y, x) uint8 pixels at full resolution."""
    stains, _ = _unmix(pixels.float())
    edge = halo * SUPERPIXEL_PX
    inner = _crop(stains, edge)
    band = inner - _blur(_crop(stains, edge - 2))
    below = stains[:, edge + 1 : 1 - edge, edge:-edge]
    right = stains[:, edge:-edge, edge + 1 : 1 - edge]
    found = torch.stack(
        [
            _block_mean(band.abs(), SUPERPIXEL_PX),
            _block_mean(band.square(), SUPERPIXEL_PX).sqrt(),
            _block_mean(band.clamp_min(0).square(), SUPERPIXEL_PX).sqrt(),
            _block_mean((below - inner).abs(), SUPERPIXEL_PX),
            _block_mean((right - inner).abs(), SUPERPIXEL_PX),
        ],
        dim=1,
    )
    return found.flatten(0, 1)


def _band_energies(stains: Tensor, halo: int) -> tuple[list[Tensor], list[Tensor]]:
    """Mean absolute value of each band of (2, y, x) stains at half resolution; rms of its dark blobs."""
    bands, blobs = [], []
    level, side, edge = stains, SUPERPIXEL_PX // 2, halo * SUPERPIXEL_PX // 2
    for _ in (1, 2, 3):
        smooth = _blur(level)
        edge -= 2
        band = _crop(_crop(level, 2) - smooth, edge)
        bands.append(_block_mean(band.abs(), side))
        blobs.append(_block_mean(band[:1].clamp_min(0).square(), side).sqrt())
        level, side, edge = F.avg_pool2d(_crop(smooth, edge % 2), 2), side // 2, edge // 2
    return bands, blobs


def _crop(x: Tensor, edge: int) -> Tensor:
    """(c, y, x) without ``edge`` cells on every side."""
    return x[:, edge : x.shape[1] - edge, edge : x.shape[2] - edge]


def _unmix(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """(2, y, x) haematoxylin and eosin, (1, y, x) what they leave, of (c=3, y, x) values in 0 to 255."""
    od = -torch.log((rgb + 1.0) / 256.0)
    vectors = np.array(STAIN_VECTORS)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    third = np.cross(vectors[0], vectors[1])
    inverse = np.linalg.inv(np.vstack([vectors, third / np.linalg.norm(third)]))
    mix = [[float(inverse[c, s]) for c in range(3)] for s in range(3)]
    stains = [od[0] * m[0] + od[1] * m[1] + od[2] * m[2] for m in mix]
    return torch.stack(stains[:2]), stains[2][None]


def _blur(x: Tensor) -> Tensor:
    """5-tap binomial mean of (c, y, x) along both axes; two cells shorter on every side."""
    rows = ((x[:, :-4] + x[:, 4:]) + 4.0 * (x[:, 1:-3] + x[:, 3:-1]) + 6.0 * x[:, 2:-2]) / 16.0
    return ((rows[..., :-4] + rows[..., 4:]) + 4.0 * (rows[..., 1:-3] + rows[..., 3:-1]) + 6.0 * rows[..., 2:-2]) / 16.0


def _block_mean(x: Tensor, side: int) -> Tensor:
    """Mean of (c, y, x) over blocks of ``side`` cells."""
    return F.avg_pool2d(x, side)


def _tissue_weight(statistics: Tensor) -> Tensor:
    """(1, y, x) weight of superpixels in the context: near 0 on glass, 1 on tissue."""
    chroma = statistics[STATISTICS.index("chroma")][None]
    low, high = GLASS_CHROMA
    return ((chroma - low) / (high - low)).clamp(1e-3, 1.0)


def _gaussian_mean(weighted: Tensor, sigma: float, margin: int, stride: int) -> Tensor:
    """Weighted Gaussian mean of (statistic, y, x), and of the weight, at the centres of blocks of ``stride``.

    Parameters
    ----------
    weighted
        (statistic + 1, y, x): statistics times their weight, then the weight.
    sigma
        Width of the kernel in superpixels, cut at 3 sigma.
    margin
        Superpixels on every side that are not part of the core.
    stride
        Superpixels per cell of the result.
    """
    rows = _gaussian_matrix(weighted.shape[1], sigma, margin, stride).to(weighted)
    columns = _gaussian_matrix(weighted.shape[2], sigma, margin, stride).to(weighted)
    summed = rows @ weighted @ columns.T
    return torch.cat([summed[:-1] / summed[-1:], summed[-1:]])


def _gaussian_matrix(length: int, sigma: float, margin: int, stride: int) -> Tensor:
    """(cell, superpixel) weights of a Gaussian at the centre of every cell of the core; rows sum to 1."""
    centres = margin + stride * np.arange((length - 2 * margin) // stride) + (stride - 1) / 2
    offset = np.arange(length)[None] - centres[:, None]
    weights = np.exp(-0.5 * (offset / sigma) ** 2) * (np.abs(offset) <= 3 * sigma)
    return torch.from_numpy(weights / weights.sum(axis=1, keepdims=True)).float()


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
        del tissue
        values = filtered(image, here(self.device))
        return {group.name: part for group, part in zip(self.groups, values, strict=True)}
