"""Weighted ridge regression of many targets in many states at once.

The penalty of each target is chosen by leaving one spot out. The way from a strong penalty to a weak one is that of
training from its first epoch to its last (a gradient descent that is stopped early is a ridge regression, nearly), so
the choice is an early stopping, for each target on its own, that costs one decomposition.

States are solved one after the other, and spots pass in blocks: beside the design itself, what is held is of the size
of its square, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from iscale.model.sizes import SPOT_BLOCK

PENALTIES = (1000.0, 100.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0, 0.3, 0.1)
"""In units of the variance of a target, whose prior variance is 1."""


@dataclass(frozen=True)
class Design:
    """What is regressed on, in every state.

    Attributes
    ----------
    parts
        Side by side: (spot, k) what all states share, (state, spot, k) what they do not; float32 or float64.
    n_states
        Number of states.
    """

    parts: tuple[Tensor, ...]
    n_states: int

    @property
    def n_spots(self) -> int:
        """Number of spots."""
        return self.parts[0].shape[-2]

    def block(self, state: int, spots: slice) -> Tensor:
        """(spot, coordinate) float64 of some spots in one state."""
        return torch.cat([(part if part.ndim == 2 else part[state])[spots] for part in self.parts], dim=1).double()


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


def fit_ridge(
    design: Design | Tensor, weight: Tensor, targets: Tensor, penalties: tuple[float, ...] = PENALTIES
) -> RidgeFit:
    """Minimise ``sum_i w_i (t_i - a - z_i b)^2 + penalty |b|^2`` in every state, for every target.

    Parameters
    ----------
    design
        What is regressed on; or (state, spot, coordinate) float32 or float64.
    weight
        (state, spot) float64: precision of the spots, of mean 1; 0 for spots that a state does not see.
    targets
        (spot, target) float64, or (state, spot, target).
    penalties
        To choose from, strongest first.
    """
    if isinstance(design, Tensor):
        design = Design((design,), len(design))
    targets = targets.expand(design.n_states, -1, -1)
    states = [_fit_state(design, k, weight[k, :, None], targets[k], penalties) for k in range(design.n_states)]
    coefficients, intercept, fitted, left_out = (torch.stack(part) for part in zip(*states, strict=True))
    path = tuple(zip(*(errors.mean(dim=(0, 2)).tolist() for errors in (fitted, left_out)), strict=True))
    return RidgeFit(coefficients, intercept, path)


def _fit_state(
    design: Design, state: int, weight: Tensor, targets: Tensor, penalties: tuple[float, ...]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coefficients, intercept, and per penalty and target the two mean squared errors, of one state.

    Of weights (spot, 1) and targets (spot, target).
    """
    blocks = [slice(a, a + SPOT_BLOCK) for a in range(0, design.n_spots, SPOT_BLOCK)]
    total = weight.sum()
    centre = sum(weight[at].mT @ design.block(state, at) for at in blocks) / total
    level = sum(weight[at].mT @ targets[at] for at in blocks) / total

    def scaled() -> Iterator[tuple[Tensor, Tensor]]:
        for at in blocks:
            root = weight[at].sqrt()
            yield design.block(state, at).sub_(centre).mul_(root), (targets[at] - level) * root

    square, product = (targets.new_zeros(centre.shape[1], n) for n in (centre.shape[1], targets.shape[1]))
    for z, t in scaled():
        square.addmm_(z.mT, z)
        product.addmm_(z.mT, t)
    values, vectors = torch.linalg.eigh(square)
    del square
    projected = vectors.mT @ product
    inverse = torch.stack([1 / (values.clamp_min(0) + penalty) for penalty in penalties], dim=1)
    # Of all penalties side by side: (coordinate, penalty x target).
    path = (inverse[:, :, None] * projected[:, None]).flatten(1)
    fitted, left_out = targets.new_zeros(2, len(penalties), targets.shape[1]).unbind()
    for z, t in scaled():
        scores = z @ vectors
        residual = t[:, None] - (scores @ path).view(len(t), len(penalties), -1)
        fitted += residual.square().sum(dim=0)
        leverage = scores.square_() @ inverse
        left_out += residual.div_((1 - leverage).clamp_min_(1e-6)[..., None]).square_().sum(dim=0)

    shrunk = inverse[:, left_out.argmin(dim=0)]
    coefficients = vectors @ (shrunk * projected)
    return coefficients, level - centre @ coefficients, fitted / total, left_out / total
