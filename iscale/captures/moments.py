"""Variance of genes from sums over blocks of spots: exact, and the same however the spots are cut into blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from iscale.vendors.counts import Counts, blocks

ROUNDING = 1e-12
"""A variance below this share of the mean's square is none: so far sums of numbers that are not whole are exact."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Sums of the counts of one capture.

    Attributes
    ----------
    n_spots
        Spots that were summed over.
    sums, squares
        (gene,) sums of the counts and of their squares; exact where counts are whole numbers, up to 2^53.
    """

    n_spots: int
    sums: Values
    squares: Values

    @classmethod
    def of(cls, parts: Iterable[sparse.csr_matrix], n_genes: int) -> Moments:
        """Sum over blocks of spots."""
        n_spots, sums, squares = 0, np.zeros(n_genes), np.zeros(n_genes)
        for block in parts:
            values = block.data.astype(np.float64)
            n_spots += block.shape[0]
            sums += np.bincount(block.indices, values, n_genes)
            squares += np.bincount(block.indices, values**2, n_genes)
        return cls(n_spots, sums, squares)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.n_spots + other.n_spots, self.sums + other.sums, self.squares + other.squares)

    @property
    def variance(self) -> Values:
        """(gene,) variance over the spots."""
        return np.array([_variance(self.n_spots, *of) for of in zip(self.sums, self.squares, strict=True)])


def _variance(n: int, total: float, squares: float) -> float:
    if float(total).is_integer() and float(squares).is_integer():
        return (n * int(squares) - int(total) ** 2) / n**2
    mean = total / n
    variance = squares / n - mean**2
    return variance if variance > ROUNDING * mean**2 else 0.0


def gene_variance(counts: Counts) -> Values:
    """(gene,) variance of every gene's counts over all spots."""
    return Moments.of((block for _, block in blocks(counts)), counts.shape[1]).variance


def scaled_variance(of_captures: list[Moments], scale: Values) -> Values:
    """(gene,) variance over the spots of several captures, each capture's counts times its scale, (capture,)."""
    if (scale == scale[0]).all():
        return float(scale[0]) ** 2 * sum(of_captures[1:], of_captures[0]).variance
    n = np.array([moments.n_spots for moments in of_captures], np.float64)[:, None]
    factor = scale[:, None]
    means = factor * np.stack([moments.sums for moments in of_captures]) / n
    mean = (n * means).sum(axis=0) / n.sum()
    within = factor**2 * np.stack([moments.variance for moments in of_captures])
    return np.asarray((n * (within + (means - mean) ** 2)).sum(axis=0) / n.sum())


def excess_variance(of_captures: list[Moments], scale: Values) -> Values:
    """What multiplying added to the variance of genes, over the Poisson noise that such counts would have.

    A Poisson count of mean m, multiplied by s, has the variance ``s^2 m``, where one of the mean ``s m`` has ``s m``.
    Below 1 it is negative: such counts have less noise than they would have.

    Parameters
    ----------
    of_captures
        Sums of every capture's counts as measured.
    scale
        (capture,): what the counts are multiplied by.

    Returns
    -------
    excess
        (gene,) float64.
    """
    n = sum(moments.n_spots for moments in of_captures)
    sums = np.stack([moments.sums for moments in of_captures])
    return np.asarray(((scale - 1) * scale) @ sums / n)
