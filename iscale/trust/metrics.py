"""How well two maps agree at blocks of superpixels: the published metrics, of scikit-image, scikit-learn or SciPy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from scipy.stats import pearsonr, spearmanr, wasserstein_distance
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import root_mean_squared_error
from sklearn.metrics.pairwise import cosine_similarity

from iscale.arrays import block_mean
from iscale.geometry import Region

BLOCKS = (1, 2, 4, 8)
"""Sides of the blocks, in superpixels."""

LEAST_SHARE = 0.5
"""A block of which both maps have a smaller share of the superpixels has no value."""

Maps = NDArray[np.float64]


def paired(true: NDArray[np.floating], guess: NDArray[np.floating]) -> tuple[Maps, Maps]:
    """Two arrays as float64, both NaN where either is not finite."""
    both = np.isfinite(true) & np.isfinite(guess)
    return np.where(both, true, np.nan).astype(np.float64), np.where(both, guess, np.nan).astype(np.float64)


def block_means(values: Maps, block: int) -> Maps:
    """Means (..., y, x) over blocks of what is not NaN; NaN where that is less than half of a block."""
    return block_mean(values, block, LEAST_SHARE)


def whole_blocks(region: Region) -> Region:
    """The region grown to whole blocks of every size; a slide's superpixels are whole blocks themselves.

    >>> whole_blocks(Region(3, 9, 8, 16))
    Region(y0=0, y1=16, x0=8, x1=16)
    """
    return region.coarsened(BLOCKS[-1]).scaled(BLOCKS[-1])


METRICS = ("rmse", "pearson", "spearman", "uncentred", "ssim", "psnr", "wasserstein")

WINDOW = 7
"""Side of the windows of SSIM, scikit-image's default."""

TILE = 1024
"""Cells per side that SSIM looks at together; windows reach over the border of tiles, so it changes no number."""

MOST_RANKED = 4_000_000
"""Of larger maps Spearman and Wasserstein see every second, third ... row and column only."""

Values = NDArray[np.float64]

_psnr: Callable[..., float] = peak_signal_noise_ratio  # scikit-image has no types
_similarity: Callable[..., tuple[float, Values]] = structural_similarity


def scaled(values: NDArray[np.floating]) -> Values:
    """Min-max scale to 0 to 1 over what is not NaN; what is constant becomes 0.

    >>> scaled(np.array([[2.0, np.nan], [4.0, 3.0]])).tolist()
    [[0.0, nan], [1.0, 0.5]]
    """
    low, high = limits(values)
    return scaled_by(values, low, high)


def limits(values: NDArray[np.floating]) -> tuple[float, float]:
    """Smallest and largest of what is not NaN; NaN where nothing is."""
    there = np.isfinite(values)
    if not there.any():
        return float("nan"), float("nan")
    return float(values.min(where=there, initial=np.inf)), float(values.max(where=there, initial=-np.inf))


def scaled_by(values: NDArray[np.floating], low: float | Values, high: float | Values) -> Values:
    """Scale so that ``low`` becomes 0 and ``high`` 1; where the two are one, all becomes 0."""
    span = np.subtract(high, low)
    return np.asarray((values.astype(np.float64) - low) / np.where(span > 0, span, 1.0))


def compare_maps(
    true: Values, guess: Values, rank_stride: int = 1, origin: tuple[int, int] = (0, 0)
) -> dict[str, float]:
    """All metrics of two (y, x) maps that are scaled to 0 to 1, NaN where there is no value, over the cells of both.

    Spearman and Wasserstein are of the rows and columns whose number divides by ``rank_stride``, counted such that the
    map begins at ``origin``.
    """
    both = np.isfinite(true) & np.isfinite(guess)
    lattice = tuple(slice(-start % rank_stride, None, rank_stride) for start in origin)
    ranked = (true[lattice][both[lattice]], guess[lattice][both[lattice]]) if rank_stride > 1 else None
    found = compare_values(true[both], guess[both], ranked)
    found["ssim"] = ssim(true, guess, both)
    return {name: found[name] for name in METRICS}


def compare_values(true: Values, guess: Values, ranked: tuple[Values, Values] | None = None) -> dict[str, float]:
    """The metrics that look at no neighbours, of finite values (n,) scaled to 0 to 1; ``ssim`` is NaN.

    Spearman and Wasserstein are of ``ranked``, where that is not all.
    """
    found = dict.fromkeys(METRICS, float("nan"))
    if not len(true):
        return found
    ranked_true, ranked_guess = ranked or (true, guess)
    found["rmse"] = float(root_mean_squared_error(true, guess))
    with np.errstate(divide="ignore"):
        found["psnr"] = float(_psnr(true, guess, data_range=1.0))
    if len(ranked_true):
        found["wasserstein"] = float(wasserstein_distance(ranked_true, ranked_guess))
    if true.any() and guess.any():
        found["uncentred"] = float(cosine_similarity(true[None], guess[None])[0, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of maps that are all but constant
        if _vary(true, guess):
            found["pearson"] = float(pearsonr(true, guess).statistic)
        if _vary(ranked_true, ranked_guess):
            found["spearman"] = float(spearmanr(ranked_true, ranked_guess).statistic)
    return found


def _vary(*maps: Values) -> bool:
    return all(len(values) > 1 and bool(np.ptp(values) > 0) for values in maps)


def ssim(true: Values, guess: Values, both: NDArray[np.bool_]) -> float:
    """Mean structural similarity of two (y, x) maps over the windows whose cells ``both`` have, tile by tile."""
    total, windows, halo = 0.0, 0, WINDOW // 2
    window = np.ones((WINDOW, WINDOW), bool)
    for core in Region(0, true.shape[0], 0, true.shape[1]).tiles(TILE):
        tile = core.grown(halo, true.shape)
        if min(tile.shape) < WINDOW:
            continue  # nearer to the map's border than half a window
        there = both[tile.slices]
        whole = binary_erosion(there, window)[core.within(tile)]
        if not whole.any():
            continue
        pair = (np.where(there, values[tile.slices], 0.0) for values in (true, guess))
        _, similarity = _similarity(*pair, win_size=WINDOW, data_range=1.0, full=True)
        total += float(similarity[core.within(tile)][whole].sum())
        windows += int(whole.sum())
    return total / windows if windows else float("nan")


def rank_stride(shape: tuple[int, int]) -> int:
    """Rows and columns from one to the next that rank statistics see of a map: 1 up to 4 million cells.

    >>> rank_stride((2000, 2000)), rank_stride((2000, 2001)), rank_stride((6250, 6250))
    (1, 2, 4)
    """
    return max(1, ceil(sqrt(shape[0] * shape[1] / MOST_RANKED)))
