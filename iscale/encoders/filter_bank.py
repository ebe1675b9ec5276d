"""The filter bank of encoder ``texture``, in torch: `iscale.encoders.texture_parameters` names what comes out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from iscale.encoders.texture_parameters import (
    BAND_HALO_SUPERPIXELS,
    CONTEXT_STRIDE,
    FAR_SIGMA,
    GLASS_CHROMA,
    HALO_SUPERPIXELS,
    NEAR_SIGMA,
    NUCLEAR_DENSITY,
    STAIN_VECTORS,
    STATISTICS,
    STRIP_ROWS_PX,
)
from iscale.geometry import SUPERPIXEL_PX


@torch.inference_mode()
def filtered(image: NDArray[np.uint8], device: str) -> tuple[NDArray[np.float32], ...]:
    """Features of a core, a (feature, y, x) array for each group: of (c=3, y, x) RGB grown by `HALO_SUPERPIXELS`."""
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
    """What `iscale.encoders.texture_parameters.FINE` names, of a strip of (c, y, x) uint8 pixels at full resolution."""
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

    Of (statistic + 1, y, x) statistics times their weight, then the weight; ``margin`` superpixels on every side are
    not of the core, and the kernel ends at 3 sigma. All lengths are in superpixels.
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
