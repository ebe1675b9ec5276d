"""Correlation of measured and predicted spots per gene, its interval, and the ceiling that counting noise sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from iscale.trust.folds import cut_evenly

Values = NDArray[np.float64]

LEAST_SPOTS = 8
"""A capture with fewer scored spots says nothing about a correlation."""
BLOCKS, SPOTS_PER_BLOCK = 9, 10
"""Blocks of a capture, at most; and spots of a block, at least."""
CONFIDENCE = 0.95
LARGEST = 1 - 1e-9
"""Fisher's scale has no end: correlations stop here."""


@dataclass(frozen=True)
class Correlation:
    """Correlation over spots, (gene,): 0 where the prediction never varies, NaN where what was measured never does.

    ``low`` and ``high`` are the ends of the 95 % interval; NaN where there are too few spots for one.
    """

    value: Values
    low: Values
    high: Values


@dataclass(frozen=True)
class Products:
    """Sums of products of two variables, each less its group's mean, (group, gene)."""

    aa: Values
    bb: Values
    ab: Values


def blocks_of_tissue(xy: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.int64]:
    """(spot,): compact blocks of neighbouring spots of a group, numbered over all groups in their order."""
    block, used = np.zeros(len(group), np.int64), 0
    for own in np.unique(group):
        at = np.flatnonzero(group == own)
        n = max(1, min(BLOCKS, len(at) // SPOTS_PER_BLOCK))
        block[at] = used + cut_evenly(xy[at], n)
        used += n
    return block


def weights_of(group: NDArray[np.int64]) -> Values:
    """(group,) weights of the groups' correlations: inverse variance on Fisher's scale; 0 for very small groups."""
    size = np.unique(group, return_counts=True)[1]
    return np.where(size >= LEAST_SPOTS, size - 3.0, 0.0)


def centred_products(a: Values, b: Values, group: NDArray[np.int64]) -> Products:
    """Sums over the spots of each group."""
    return _group_sums(*_centred(a, b, group), _member(group))


def correlation(measured: Values, predicted: Values, group: NDArray[np.int64], block: NDArray[np.int64]) -> Correlation:
    """Pearson correlation of the columns within groups, averaged, with its interval.

    Values are (spot, gene), finite; a group is the spot's capture, and a block one of neighbours, none of two groups,
    as `blocks_of_tissue` cuts them.
    """
    a, b = _centred(measured, predicted, group)
    by_block, whose = _block_sums(a, b, group, block)
    n = np.bincount(np.unique(block, return_inverse=True)[1])[:, None].astype(np.float64)
    member = (whose == np.unique(whose)[:, None]).astype(np.float64)
    sums = [member @ part for part in (n, *by_block)]
    r = _pearson(*sums)
    z = np.arctanh(r.clip(-LARGEST, LARGEST))
    left = [member.T @ total - own for total, own in zip(sums, (n, *by_block), strict=True)]
    # What varies in one block only says nothing without it: no correlation, and so a wide interval.
    without = np.arctanh(np.nan_to_num(_pearson(*left)).clip(-LARGEST, LARGEST))

    weight = weights_of(group)[:, None] * np.isfinite(z)
    total = weight.sum(axis=0)
    share = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    found = np.where(total > 0, (share * np.nan_to_num(z)).sum(axis=0), np.nan)
    count = member.sum(axis=1)[:, None]
    error = np.sqrt((share**2 * _jackknife(without, member, count)).sum(axis=0))
    freedom = ((count - 1) * (share > 0)).sum(axis=0)
    reach = student.ppf((1 + CONFIDENCE) / 2, np.maximum(freedom, 1)) * error
    reach = np.where((freedom >= 1) & np.isfinite(error), reach, np.nan)
    return Correlation(np.tanh(found), np.tanh(found - reach), np.tanh(found + reach))


def _member(label: NDArray[np.int64]) -> Values:
    """(label, spot) of 0 and 1."""
    return np.asarray(np.unique(label)[:, None] == label, np.float64)


def _centred(a: Values, b: Values, group: NDArray[np.int64]) -> tuple[Values, Values]:
    which = np.unique(group, return_inverse=True)[1]
    member = _member(group)
    mean = member / member.sum(axis=1, keepdims=True)
    return a - (mean @ a)[which], b - (mean @ b)[which]


def _group_sums(a: Values, b: Values, member: Values) -> Products:
    return Products(member @ a**2, member @ b**2, member @ (a * b))


def _block_sums(
    a: Values, b: Values, group: NDArray[np.int64], block: NDArray[np.int64]
) -> tuple[tuple[Values, ...], NDArray[np.int64]]:
    """Sums of a, b, a², b² and ab per (block, gene), and the group of each block."""
    member = _member(block)
    products = _group_sums(a, b, member)
    whose = group[np.unique(block, return_index=True)[1]]
    return (member @ a, member @ b, products.aa, products.bb, products.ab), whose


def _pearson(n: Values, a: Values, b: Values, aa: Values, bb: Values, ab: Values) -> Values:
    """Correlation from sums; 0 where b never varies, NaN where a never does."""
    n = np.maximum(n, 1)
    of_a, of_b, shared = aa - a**2 / n, bb - b**2 / n, ab - a * b / n
    # Of values that are all the same, rounding leaves a variance of this order.
    tells = (of_a > 1e-12 * n) & (of_b > 1e-12 * n)
    norm = np.sqrt(np.where(tells, of_a * of_b, 1))
    r = np.where(tells, shared / norm, 0.0)
    return np.where(of_a > 1e-12 * n, r, np.nan)


def _jackknife(without: Values, member: Values, count: Values) -> Values:
    """(group, gene) variances from the (block, gene) estimates without each block."""
    mean = (member @ without) / count
    return np.asarray((count - 1) / count * (member @ (without - member.T @ mean) ** 2))


SPLITS_OF = 4000
"""Spots are split as often as makes so many splits: of few spots, one split would add noise of its own."""


def noise_ceiling(
    counts: NDArray[np.floating],
    group: NDArray[np.int64],
    *,
    per_molecule: NDArray[np.float64],
    seed: int = 0,
) -> Values:
    """(gene,) correlation, 0 to 1, of ``log1p`` of (spot, gene) counts with what these would be without counting noise.

    The molecules that a spot counted are dealt to two halves by chance: two independent counts of the same place, at
    half the depth (of Poisson counts; thinning). How halves correlate over the spots tells which share of the variation
    is not noise; the whole, of twice the depth, has more of it (Spearman and Brown, 1910). A perfect prediction would
    correlate with the counts by the root of that share. NaN where counts never vary.

    Correlations are within groups, as those of the score. ``per_molecule`` (spot,) is what one molecule adds to the
    counts: the capture's scale over the number of merged spots.
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
