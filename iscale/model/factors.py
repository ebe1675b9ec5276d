"""Genes as a few directions in which they vary together over the spots, found in blocks of spots."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from iscale.model.sizes import FACTORS, SPOT_BLOCK

LEAST_VARIANCE = 1e-5
"""Of a factor, over that of the first: less is rounding."""


@dataclass(frozen=True)
class LogCounts:
    """(spot, gene) float32 logarithms of scaled counts, computed for the spots that it is indexed with.

    Attributes
    ----------
    counts
        (any spot, gene) float32.
    spots
        (spot,) int64 which of them.
    scales
        (spot, 1) float32 each: counts are multiplied by one after the other.
    """

    counts: Tensor
    spots: Tensor
    scales: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.spots)

    def __getitem__(self, at: slice) -> Tensor:
        values = self.counts[self.spots[at]]
        for scale in self.scales:
            values.mul_(scale[at])
        return values.log1p_()


@dataclass(frozen=True)
class Factors:
    """Genes as directions in which they vary together over the spots.

    Attributes
    ----------
    values
        (spot, factor) of the spots, float64.
    loading, level
        (factor, gene) and (gene,) float64: genes are ``values @ loading + level``.
    """

    values: Tensor
    loading: Tensor
    level: Tensor

    @classmethod
    def of(cls, genes: LogCounts | Tensor, weight: Tensor) -> Factors:
        """Principal directions of (spot, gene) float32 values, each gene scaled to variance 1, spots weighted."""
        weight = (weight / weight.sum())[:, None].float()
        blocks = [slice(a, a + SPOT_BLOCK) for a in range(0, len(genes), SPOT_BLOCK)]
        level = sum(((weight[at] * genes[at]).sum(dim=0) for at in blocks), start=torch.zeros(()).to(weight))
        variance = sum(((weight[at] * (genes[at] - level).square_()).sum(dim=0) for at in blocks), start=level * 0)
        spread = variance.sqrt().clamp_min(1e-6)

        def scaled(at: slice) -> Tensor:
            return (genes[at] - level).div_(spread)

        if len(genes) <= len(level):
            rooted = torch.cat([scaled(at).mul_(weight[at].sqrt()) for at in blocks])
            vectors = _leading((rooted @ rooted.T).double())
            of_genes = torch.stack([rooted[at].T.double() @ vectors[at] for at in blocks]).sum(dim=0)
            vectors = torch.nn.functional.normalize(of_genes, dim=0)
        else:
            square = level.new_zeros(len(level), len(level), dtype=torch.float64)
            for at in blocks:
                rooted = scaled(at).mul_(weight[at].sqrt())
                square += rooted.T @ rooted
            vectors = _leading(square)
        of_spots = torch.cat([(scaled(at) @ vectors.float()).double() for at in blocks])
        return cls(of_spots, vectors.T * spread, level.double())

    def genes(self, values: Tensor) -> Tensor:
        """(..., gene) of (..., factor)."""
        return values @ self.loading + self.level


def _leading(square: Tensor) -> Tensor:
    """(row, factor) eigenvectors of a symmetric float64 matrix, those that count, the largest first."""
    values, vectors = torch.linalg.eigh(square)
    kept = max(1, min(FACTORS, int((values > LEAST_VARIANCE * values[-1]).sum())))
    leading: Tensor = vectors[:, -kept:].flip(1)
    return leading
