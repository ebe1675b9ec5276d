"""Scores of the labels, the best of them, and how sure that is: arrays only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


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
    """Score of every label: the mean of its markers (method, section 5).

    Parameters
    ----------
    markers
        Number of each marker and its scaled values (y, x), each marker once, always in the same order.
    labels_of
        Per marker, the labels that it speaks for.
    n_labels, shape
        Number of labels; rows and columns.

    Returns
    -------
    ndarray
        (label, y, x) float16.
    """
    total = np.zeros((n_labels, *shape), np.float32)
    for marker, values in markers:
        for label in labels_of[marker]:
            total[label] += values
    speak = np.bincount([label for labels in labels_of for label in labels], minlength=n_labels)
    return (total / speak[:, None, None].astype(np.float32)).astype(np.float16)


def classify(score: NDArray[np.float16], thresholds: Sequence[float]) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """The best label, and by how much it is the best.

    What is stored decides: labels follow from the scores as they are rounded to float16.

    Parameters
    ----------
    score
        (label, y, x); NaN off tissue.
    thresholds
        Below each of these the best score makes no label.

    Returns
    -------
    labels
        (threshold, y, x): 0 where there is no score, 1 to n the label with the highest score (of equal ones the
        first), n + 1 where that is below the threshold.
    confidence
        (y, x): best score minus second-best; with a single label, its score. NaN where there is none.
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
