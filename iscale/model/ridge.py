"""Weighted ridge regression of many targets in many states at once.

The penalty of each target is chosen by leaving one spot out. The way from a strong penalty to a weak one is that of
training from its first epoch to its last (a gradient descent that is stopped early is a ridge regression, nearly), so
the choice is an early stopping, for each target on its own, that costs one decomposition.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PENALTIES = (1000.0, 100.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0, 0.3, 0.1)
"""In units of the variance of a target, whose prior variance is 1."""


@dataclass(frozen=True)
class RidgeFit:
    """Fitted coefficients.

    Attributes
    ----------
    coefficients
        (state, coordinate, target) float64.
    intercept
        (state, 1, target) float64.
    path
        Per penalty, strongest first: mean squared error, over states and targets, of the spots that were fitted, and
        of spots left out one at a time.
    """

    coefficients: Tensor
    intercept: Tensor
    path: tuple[tuple[float, float], ...]

    def predict(self, design: Tensor) -> Tensor:
        """(state, n, target) for (state, n, coordinate)."""
        return design @ self.coefficients + self.intercept


def fit_ridge(design: Tensor, weight: Tensor, targets: Tensor, penalties: tuple[float, ...] = PENALTIES) -> RidgeFit:
    """Minimise ``sum_i w_i (t_i - a - z_i b)^2 + penalty |b|^2`` in every state, for every target.

    Parameters
    ----------
    design
        (state, spot, coordinate) float64.
    weight
        (state, spot) float64: precision of the spots, of mean 1; 0 for spots that a state does not see.
    targets
        (spot, target) float64, or (state, spot, target).
    penalties
        To choose from, strongest first.
    """
    total = weight.sum(dim=1)[:, None, None]
    centre = (design * weight[..., None]).sum(dim=1, keepdim=True) / total
    level = (targets * weight[..., None]).sum(dim=1, keepdim=True) / total
    root = weight.sqrt()[..., None]
    z, t = (design - centre) * root, (targets - level) * root
    values, vectors = torch.linalg.eigh(z.mT @ z)
    values = values.clamp_min(0)
    scores = z @ vectors
    projected = scores.mT @ t

    best = torch.zeros_like(projected)
    least = torch.full_like(level, torch.inf)
    path = []
    for penalty in penalties:
        shrunk = 1 / (values + penalty)[..., None]
        residual = t - scores @ (shrunk * projected)
        left_out = residual / (1 - scores.square() @ shrunk).clamp_min(1e-6)
        error = left_out.square().sum(dim=1, keepdim=True) / total
        path.append((float((residual.square().sum(dim=1, keepdim=True) / total).mean()), float(error.mean())))
        best = torch.where(error < least, shrunk * projected, best)
        least = torch.minimum(error, least)
    coefficients = vectors @ best
    return RidgeFit(coefficients, level - centre @ coefficients, tuple(path))
