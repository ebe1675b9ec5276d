"""How a marker's expression becomes a number from 0 to 1: the two rules, and quantiles that any cut leaves as they are.

``published``: expected counts, from their lowest to their highest value over the tissue (method, section 5). Depth is
left in, and a single bright superpixel sets the range. ``relative``: counts per 10,000, from their 1 % to their 99.9 %
quantile over the tissue. A cell type of a thousandth of the tissue still sets its markers' range; with lower quantiles
its label would spread over what is only noise.
"""

from __future__ import annotations

from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from iscale.cluster.markers import PER

Rule = Literal["relative", "published"]

LOW, HIGH = 0.01, 0.999
"""Quantiles of relative expression that become 0 and 1."""

SAID: dict[Rule, str] = {
    "relative": f"each marker's relative expression (counts per {PER:,}) from its {LOW:.0%} quantile over the tissue, "
    f"which is 0, to its {HIGH:.1%} quantile, which is 1; clipped",
    "published": "each marker's expected counts from their lowest value over the tissue, which is 0, to their highest, "
    "which is 1",
}
"""The rules in words."""

MOST = float(np.finfo(np.float16).max)
N_VALUES = 0x7C00
"""Values of float16 that are finite and not below 0; their bits are numbers in the order of the values."""


def rule_of(recipe: str) -> Rule:
    """The rule that goes with a recipe."""
    return "published" if recipe == "published" else "relative"


def relative_counts(values: NDArray[np.float32], depth: NDArray[np.float32]) -> NDArray[np.float16]:
    """Counts per 10,000 of expected counts; 0 where nothing is expected at all, NaN where ``values`` are.

    Rounded to float16, so that there are few enough different values for all to be counted.

    >>> relative_counts(np.array([1, 1, np.nan], np.float32), np.array([100, 0, 5], np.float32)).tolist()
    [100.0, 0.0, nan]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(depth > 0, np.clip(values * np.float32(PER) / depth, 0, np.float32(MOST)), np.float32(0))
    return np.where(np.isnan(values), values, np.abs(found)).astype(np.float16)


def count_values(values: NDArray[np.float16]) -> NDArray[np.int64]:
    """(`N_VALUES`,) how often each value is there, of values that are finite and not below 0."""
    return np.bincount(values.view(np.uint16).ravel(), minlength=N_VALUES)


def quantile(counts: NDArray[np.int64], share: float) -> float:
    """The least value that a share of all reach or stay below, by how often each is there; 0 of none.

    >>> quantile(count_values(np.arange(1, 101, dtype=np.float16)), 0.99)
    99.0
    """
    total = int(counts.sum())
    if not total:
        return 0.0
    bits = np.searchsorted(np.cumsum(counts), max(1, ceil(share * total)))
    return float(np.array(bits, np.uint16).view(np.float16))
