"""How markers' expression becomes scores of labels, the best of them, and how sure that is: arrays only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from iscale.regions.marker_genes import PER

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


def quantiles(counts: NDArray[np.int64]) -> tuple[float, float]:
    """What becomes 0 and what 1 of relative expression, by how often each value is there."""
    return quantile(counts, LOW), quantile(counts, HIGH)


def scaled(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """Values with ``low`` at 0 and ``high`` at 1; all 0 for a gene that is the same everywhere: it tells nothing.

    >>> scaled(np.array([1, 2, 3], np.float32), 1, 3).tolist()
    [0.0, 0.5, 1.0]
    """
    if not high > low:
        return np.where(np.isnan(values), values, np.float32(0))
    return np.asarray(np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1))


def label_scores(
    markers: Iterable[tuple[int, NDArray[np.float32]]],
    labels_of: Sequence[Sequence[int]],
    n_labels: int,
    shape: tuple[int, int],
) -> NDArray[np.float16]:
    """Score (label, y, x) of every label: the mean of its markers (method, section 5).

    Parameters
    ----------
    markers
        Number of each marker and its scaled values (y, x), each marker once, always in the same order.
    labels_of
        Per marker, the labels that it speaks for.
    """
    total = np.zeros((n_labels, *shape), np.float32)
    for marker, values in markers:
        for label in labels_of[marker]:
            total[label] += values
    speak = np.bincount([label for labels in labels_of for label in labels], minlength=n_labels)
    return (total / speak[:, None, None].astype(np.float32)).astype(np.float16)


def classify(score: NDArray[np.float16], thresholds: Sequence[float]) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """The best label (threshold, y, x) of scores (label, y, x), NaN off tissue, and by how much (y, x) it is the best.

    What is stored decides: labels follow from the scores as they are rounded to float16. 0 where there is no score, 1
    to n the label with the highest (of equal ones the first), n + 1 where that is below the threshold. The confidence
    is the best score minus the second-best; with a single label, its score; NaN where there is none.
    """
    n = len(score)
    there = np.isfinite(score).all(axis=0)
    safe = np.where(there, score, np.float16(0)).astype(np.float32)
    best = safe.argmax(axis=0)
    top = np.partition(safe, n - 2, axis=0)[-2:] if n > 1 else np.stack([np.zeros_like(safe[0]), safe[0]])
    labels = np.empty((len(thresholds), *best.shape), np.uint8)
    for k, threshold in enumerate(thresholds):
        labels[k] = np.where(there, np.where(top[1] >= threshold, best + 1, n + 1), 0)
    return labels, np.where(there, top[1] - top[0], np.nan).astype(np.float16)
