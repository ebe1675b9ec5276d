"""What the default recipe is linear in: scaled features, random features of them, and nearness to places.

A ridge regression on the three is a Gaussian process whose covariance is the sum of three parts: linear in the
features, Gaussian in the features (random Fourier features: Rahimi and Recht, NIPS 2007), and exponential in the
distance on the slide. The first two, the *appearance*, belong to one superpixel; a spot sees their mean over its disc.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

RANDOM_FEATURES = 128
MAX_ANCHORS = 512
LINEAR_VARIANCE, RANDOM_VARIANCE, PLACE_VARIANCE = 0.5, 0.5, 1.0
"""Prior variances of the three parts over the training spots, for an output of variance 1."""
LENGTH_SCALE = 1.0
"""Of the Gaussian covariance: root mean square difference of the scaled features."""
RANGE_UM = 1125.0
"""Of the exponential covariance: distance over which it falls to 1 / e."""
CLIP = 4.0
"""Scaled features end here, so that a superpixel unlike any in training is not extrapolated to."""

Pool = Callable[[Callable[[Tensor], Tensor]], Tensor]
"""Mean over the disc of every training spot, (..., spot, k), of a function (row, feature) -> (..., row, k)."""


@dataclass(frozen=True)
class Appearance:
    """Functions of the features of one superpixel.

    Attributes
    ----------
    centre, scale
        (feature,): features are shifted by the one and divided by the other.
    frequencies, phase
        (state, feature, random) and (state, 1, random).
    """

    centre: Tensor
    scale: Tensor
    frequencies: Tensor
    phase: Tensor

    def scaled(self, features: Tensor) -> Tensor:
        """(n, feature) features, scaled and clipped."""
        return ((features - self.centre) / self.scale).clamp_(-CLIP, CLIP)

    def waves(self, scaled: Tensor) -> Tensor:
        """(state, n, random) random features of scaled features."""
        return torch.matmul(scaled, self.frequencies).add_(self.phase).cos_()

    def both(self, features: Tensor) -> Tensor:
        """(state, n, feature + random): the scaled features, the same in every state, and their random features."""
        scaled = self.scaled(features)
        waves = self.waves(scaled)
        return torch.cat([scaled.expand(len(waves), -1, -1), waves], dim=2)


def random_appearance(features: Tensor, *, seed: int, n_states: int) -> Appearance:
    """Draw the random features of every state; scale by the mean and deviation of (row, feature) features."""
    n_features = features.shape[1]
    generator = torch.Generator().manual_seed(seed)
    frequencies = torch.randn(n_states, n_features, RANDOM_FEATURES, generator=generator)
    phase = 2 * torch.pi * torch.rand(n_states, 1, RANDOM_FEATURES, generator=generator)
    scale, centre = torch.std_mean(features, dim=0)
    return Appearance(
        centre,
        scale.clamp_min(1e-6),
        (frequencies / (LENGTH_SCALE * n_features**0.5)).to(features.device),
        phase.to(features.device),
    )


def appearance_design(appearance: Appearance, pool: Pool) -> tuple[Tensor, Tensor, Tensor]:
    """Appearance of the training spots, scaled to its prior variance.

    Returns
    -------
    design, offset, gain
        (state, spot, k) float32, and (state, 1, k) float64 each: ``design = (mean over the disc - offset) * gain``.
    """
    means = pool(appearance.both)
    variance, offset = (moment.double() for moment in torch.var_mean(means, dim=1, keepdim=True, correction=0))
    n_features = len(appearance.centre)
    gain = [
        (prior / part.sum(dim=2, keepdim=True).clamp_min(1e-12)).sqrt().expand_as(part)
        for prior, part in (
            (LINEAR_VARIANCE, variance[..., :n_features]),
            (RANDOM_VARIANCE, variance[..., n_features:]),
        )
    ]
    stacked = torch.cat(gain, dim=2)
    return means.sub_(offset.float()).mul_(stacked.float()), offset, stacked


def nearness(xy_um: Tensor, anchors: Tensor) -> Tensor:
    """(n, anchor) covariances of places (n, 2) with the places (anchor, 2); both in um."""
    distance = torch.cdist(xy_um, anchors, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.mul_(-1 / RANGE_UM).exp_().mul_(PLACE_VARIANCE)


def place_design(xy_um: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Places of the training spots, in coordinates that are independent under the prior.

    Returns
    -------
    design, whiten
        (spot, anchor) and (anchor, anchor) float64: ``design = nearness(xy_um, anchors) @ whiten``.
    """
    values, vectors = torch.linalg.eigh(nearness(anchors.double(), anchors.double()))
    whiten = vectors / values.clamp_min(1e-4).sqrt()
    return nearness(xy_um.double(), anchors.double()) @ whiten, whiten


def spread_out(places: Tensor, limit: int) -> Tensor:
    """At most ``limit`` of (n, 2) places: all, or each time the one farthest from those chosen, from the first on.

    >>> spread_out(torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0]]), 2).tolist()
    [[0.0, 0.0], [5.0, 0.0]]
    """
    if len(places) <= limit:
        return places
    chosen = [0]
    distance = (places - places[0]).norm(dim=1)
    while len(chosen) < limit:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (places - places[chosen[-1]]).norm(dim=1))
    return places[torch.from_numpy(np.sort(chosen)).to(places.device)]
