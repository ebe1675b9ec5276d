"""Weighted ridge regression of many targets in many states at once.

The penalty of each target is chosen by leaving one spot out. The way from a strong penalty to a weak one is that of
training from its first epoch to its last (a gradient descent that is stopped early is a ridge regression, nearly), so
the choice is an early stopping, for each target on its own, that costs one decomposition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

PENALTIES = (1000.0, 100.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0, 0.3, 0.1)
"""In units of the variance of a target, whose prior variance is 1."""
SPOT_BLOCK = 1024
"""Spots that are held in float64 at a time."""


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
        return design.double() @ self.coefficients + self.intercept


def fit_ridge(design: Tensor, weight: Tensor, targets: Tensor, penalties: tuple[float, ...] = PENALTIES) -> RidgeFit:
    """Minimise ``sum_i w_i (t_i - a - z_i b)^2 + penalty |b|^2`` in every state, for every target.

    Parameters
    ----------
    design
        (state, spot, coordinate) float32 or float64.
    weight
        (state, spot) float64: precision of the spots, of mean 1; 0 for spots that a state does not see.
    targets
        (spot, target) float64, or (state, spot, target).
    penalties
        To choose from, strongest first.
    """
    total = weight.sum(dim=1)[:, None, None]
    targets = targets.expand(len(design), -1, -1)
    centre = sum(w.mT @ z for z, w, _ in _blocks(design, weight, targets)) / total
    level = sum(w.mT @ t for _, w, t in _blocks(design, weight, targets)) / total

    def scaled() -> Iterator[tuple[Tensor, Tensor]]:
        for z, w, t in _blocks(design, weight, targets):
            yield (z - centre) * w.sqrt(), (t - level) * w.sqrt()

    values, vectors = torch.linalg.eigh(sum(z.mT @ z for z, _ in scaled()))
    projected = vectors.mT @ sum(z.mT @ t for z, t in scaled())
    inverse = [1 / (values.clamp_min(0) + penalty)[..., None] for penalty in penalties]
    fitted, left_out = level.new_zeros(2, len(penalties), *level.shape).unbind()
    for z, t in scaled():
        scores = z @ vectors
        for k, shrunk in enumerate(inverse):
            residual = t - scores @ (shrunk * projected)
            fitted[k] += residual.square().sum(dim=1, keepdim=True)
            leverage = scores.square() @ shrunk
            left_out[k] += (residual / (1 - leverage).clamp_min(1e-6)).square().sum(dim=1, keepdim=True)

    best = left_out.argmin(dim=0)
    coefficients = vectors @ sum(torch.where(best == k, shrunk * projected, 0) for k, shrunk in enumerate(inverse))
    path = tuple((float(f), float(e)) for f, e in zip(*(_means(x / total) for x in (fitted, left_out)), strict=True))
    return RidgeFit(coefficients, level - centre @ coefficients, path)


def _means(errors: Tensor) -> Tensor:
    return errors.flatten(1).mean(dim=1)


def _blocks(design: Tensor, weight: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Design, weight (state, spot, 1) and targets of some spots at a time, as float64."""
    for start in range(0, design.shape[1], SPOT_BLOCK):
        at = slice(start, start + SPOT_BLOCK)
        yield design[:, at].double(), weight[:, at, None], targets[:, at]
