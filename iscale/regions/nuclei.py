"""How much haematoxylin there is, the stain of nuclei, and the density above which it is of nuclei."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb_from_hed

from iscale.slide.colour import density

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture


DENSE_SHARE = 0.15
"""The statistic of a superpixel is the density that this share of it reaches: at 0.5 um per pixel 10 um2, a quarter of
a small nucleus. Where nuclei were painted (the demo) it tells superpixels that they cover to 15 % from others with an
area under the curve of 0.998; the mean of the superpixel with 0.97, its standard deviation with 0.97."""

STAINED = 0.07
"""Pixels of less density of green than this, against glass, have neither stain: holes in the tissue."""

LOWEST, HIGHEST, BINS = -0.2, 2.4, 260
"""Histograms of density: from the lowest to the highest, which hold all beyond."""


def haematoxylin_weights() -> NDArray[np.float64]:
    """Weights (3,) of the densities of red, green and blue that add up to that of haematoxylin.

    Stains are told apart by the vectors of Ruifrok and Johnston (Anal. Quant. Cytol. Histol. 2001); what is neither
    haematoxylin nor eosin goes to a third, perpendicular to both.
    """
    haematoxylin, eosin = (vector / np.linalg.norm(vector) for vector in rgb_from_hed[:2])
    rest = np.cross(haematoxylin, eosin)
    return np.asarray(np.linalg.inv(np.stack([haematoxylin, eosin, rest / np.linalg.norm(rest)]))[:, 0])


def haematoxylin(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Density (y, x) of haematoxylin against pure white, of pixels (c, y, x).

    By tables: densities of the 256 values of a channel, times the channel's weight.
    """
    tables = (density(np.arange(256)) * haematoxylin_weights()[:, None]).astype(np.float32)
    total = tables[0][pixels[0]]
    for table, channel in zip(tables[1:], pixels[1:], strict=True):
        total += table[channel]
    return np.asarray(total)


def green(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Density (y, x) of green against pure white, which both stains take from the light, of pixels (c, y, x)."""
    table = density(np.arange(256))
    return np.asarray(table[pixels[1]])


def dense_part(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Density (y, x) that `DENSE_SHARE` of the pixels (y, x, n) of a superpixel reach, at least.

    >>> dense_part(np.arange(64, dtype=np.float32)[None, None]).tolist()
    [[54.0]]
    """
    n = values.shape[-1]
    at = n - max(1, round(DENSE_SHARE * n))
    return np.partition(values, at, axis=-1)[..., at]


def histogram(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many values are in each bin; what is beyond the ends counts in the first or the last."""
    at = np.clip(((values - LOWEST) * (BINS / (HIGHEST - LOWEST))).astype(np.int64), 0, BINS - 1)
    return np.bincount(at.ravel(), minlength=BINS)


def no_counts() -> NDArray[np.int64]:
    """A histogram of nothing."""
    return np.zeros(BINS, np.int64)


def edges() -> NDArray[np.float64]:
    """Borders (bin + 1,) of the bins."""
    return np.linspace(LOWEST, HIGHEST, BINS + 1)


LEAST, MOST = 0.15, 0.6
"""The threshold lies within these. On slides of five laboratories what lies between nuclei has 0.1 to 0.3 on average,
nuclei 0.3 to 0.9."""

CLEAR_OF_PALE = 2.0
"""The threshold is so many standard deviations above the mean of the paler group: on those slides it is so by itself;
where there are hardly any nuclei, the two groups are parts of one, and meet in its middle."""

PALEST_NUCLEI = 0.2
"""A denser group of a lower mean than this is no group of nuclei."""

FEWEST_APART = 0.8
"""Two groups whose means are nearer than this many standard deviations are one, and its tail."""

RARE, RARE_LEAST = 3.0, 0.25
"""Where no group of nuclei stands out, single ones are looked for so many standard deviations above the mean, and above
this density."""

_POINTS = 20_000
_STEP = 0.001


@dataclass(frozen=True)
class Threshold:
    """A density of haematoxylin, and how it was found: in words, with the numbers."""

    value: float
    how: str


def find_threshold(counts: NDArray[np.integer], edges: NDArray[np.float64]) -> Threshold:
    """Where a pixel is as likely of the denser of two groups as of the other, by counts (bin,) of stained pixels.

    Two normal distributions, each with a spread of its own (nuclei differ more among themselves than what lies between
    them, which is why Otsu's threshold is too high), are fitted to the histogram, with edges (bin + 1,).
    """
    if not counts.any():
        return Threshold(MOST, "no stained pixels on the tissue: as high as it may be")
    values = _even_sample(counts, edges)
    model = _two_groups(values)
    nuclei = int(np.argmax(model.means_))
    pale, dense = (float(model.means_[k, 0]) for k in (1 - nuclei, nuclei))
    spreads = [float(np.sqrt(model.covariances_[k, 0, 0])) for k in (1 - nuclei, nuclei)]
    distance = (dense - pale) / max(float(np.sqrt(np.mean(np.square(spreads)))), _STEP)
    groups = f"{pale:.2f} +- {spreads[0]:.2f} and {dense:.2f} +- {spreads[1]:.2f}"
    if distance < FEWEST_APART or dense < PALEST_NUCLEI:
        found = float(values.mean() + RARE * values.std())
        how = f"no group of nuclei stands out ({groups}): {RARE:g} standard deviations above the mean"
        return _bounded(found, how, RARE_LEAST)
    at = np.arange(pale, edges[-1], _STEP)
    likely = model.predict_proba(at[:, None])[:, nuclei] >= 0.5
    found = float(at[likely.argmax()]) if likely.any() else MOST
    return _bounded(found, f"between two groups of pixels ({groups})", max(LEAST, pale + CLEAR_OF_PALE * spreads[0]))


def _two_groups(values: NDArray[np.float64]) -> GaussianMixture:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    start = np.quantile(values, (0.25, 0.95))
    with warnings.catch_warnings():
        # Where there is but one value, or two groups cannot be told, what was reached is judged by its numbers.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = GaussianMixture(2, means_init=start[:, None], reg_covar=_STEP**2, random_state=0)
        return model.fit(values[:, None])


def _bounded(found: float, how: str, least: float) -> Threshold:
    least = min(least, MOST)
    value = round(min(max(found, least), MOST), 3)
    bound = "" if least <= found <= MOST else f", at {found:.2f}, kept within {least:.2f} and {MOST:g}"
    return Threshold(value, how + bound)


def _even_sample(counts: NDArray[np.integer], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values at even steps of the distribution, as the mixture takes no weights."""
    share = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
    return np.interp((np.arange(_POINTS) + 0.5) / _POINTS, share, edges)
