"""The noise ceiling: how well a perfect prediction would score, as spots are counts of few molecules."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from iscale.holdout.score import centred_products, weights_of

Values = NDArray[np.float64]

SPLITS_OF = 4000
"""Spots are split as often as makes so many splits: of few spots, one split would add noise of its own."""


def noise_ceiling(
    counts: NDArray[np.floating],
    group: NDArray[np.int64],
    *,
    per_molecule: NDArray[np.float64],
    seed: int = 0,
) -> Values:
    """Correlation of ``log1p`` of counts with what these would be without counting noise.

    The molecules that a spot counted are dealt to two halves by chance: two independent counts of the same place, at
    half the depth (of Poisson counts; thinning). How halves correlate over the spots tells which share of the variation
    is not noise; the whole, of twice the depth, has more of it (Spearman and Brown, 1910). A perfect prediction would
    correlate with the counts by the root of that share.

    Parameters
    ----------
    counts
        (spot, gene) counts, means over merged spots or scaled ones among them.
    group
        (spot,): correlations are within groups, as those of the score.
    per_molecule
        (spot,): what one molecule adds to the counts: the capture's scale over the number of merged spots.
    seed
        Of the split.

    Returns
    -------
    ceiling
        (gene,) from 0 to 1; NaN where counts never vary.
    """
    rng = np.random.default_rng([seed, 6])
    molecules = np.rint(np.asarray(counts, np.float64) / per_molecule[:, None]).astype(np.int64)
    twice = 2 * per_molecule[:, None]
    splits = max(1, SPLITS_OF // max(1, len(counts)))
    halves, spreads = [], []
    for _ in range(splits):
        one = rng.binomial(molecules, 0.5)
        a, b = np.log1p(twice * one), np.log1p(twice * (molecules - one))
        products = centred_products(a, b, group)
        halves.append(products.ab)
        spreads.append((products.aa + products.bb) / 2)
    shared, spread = np.sum(halves, axis=0), np.sum(spreads, axis=0)
    r = np.divide(shared, spread, out=np.full(spread.shape, np.nan), where=spread > 0)
    whole = 2 * r / (1 + r.clip(0))
    weight = weights_of(group)[:, None] * np.isfinite(whole)
    share = np.divide(
        (weight * np.nan_to_num(whole)).sum(axis=0),
        weight.sum(axis=0),
        out=np.full(whole.shape[1], np.nan),
        where=weight.sum(axis=0) > 0,
    )
    return np.asarray(np.sqrt(share.clip(0, 1)))
