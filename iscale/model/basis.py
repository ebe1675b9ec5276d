"""What the default recipe is linear in: scaled features, random features of them, and nearness to places.

A ridge regression on the three is a Gaussian process whose covariance is the sum of three parts: linear in the
features, Gaussian in the features (random Fourier features: Rahimi and Recht, NIPS 2007), and exponential in the
distance on the slide. The first two, the *appearance*, belong to one superpixel; a spot sees their mean over its disc.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from iscale.model.sizes import RANDOM_FEATURES, SPOT_BLOCK

LINEAR_VARIANCE, RANDOM_VARIANCE, PLACE_VARIANCE = 0.5, 0.5, 1.0
"""Prior variances of the three parts over the training spots, for an output of variance 1."""
LENGTH_SCALE = 1.0
"""Of the Gaussian covariance: root mean square difference of the scaled features."""
RANGE_UM = 1125.0
"""Of the exponential covariance: distance over which it falls to 1 / e."""
CLIP = 4.0
"""Scaled features end here, so that a superpixel unlike any in training is not extrapolated to."""

Discs = Iterable[tuple[Tensor, Tensor]]
"""Blocks of spots, in order: rows of their discs (row, feature), and the mean over each as a matrix (spot, row)."""


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


def moments(blocks: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Deviation and mean of the columns of (row, feature) blocks, (feature,) float32 each, added up in float64."""
    n, mean, squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for block in blocks:
        variance, centre = (moment.double() for moment in torch.var_mean(block, dim=0, correction=0))
        total, shift = n + len(block), centre - mean.to(centre)
        squares = squares.to(centre) + variance * len(block) + shift.square() * (n * len(block) / total)
        mean = mean.to(centre) + shift * (len(block) / total)
        n = total
    return (squares / (n - 1)).sqrt().float(), mean.float()


def random_appearance(centre: Tensor, deviation: Tensor, *, seed: int, n_states: int) -> Appearance:
    """Draw the random features of every state, of features of that mean and deviation."""
    n_features = len(centre)
    generator = torch.Generator().manual_seed(seed)
    frequencies = torch.randn(n_states, n_features, RANDOM_FEATURES, generator=generator)
    phase = 2 * torch.pi * torch.rand(n_states, 1, RANDOM_FEATURES, generator=generator)
    return Appearance(
        centre,
        deviation.clamp_min(1e-6),
        (frequencies / (LENGTH_SCALE * n_features**0.5)).to(centre.device),
        phase.to(centre.device),
    )


def appearance_design(
    appearance: Appearance, discs: Discs, n_spots: int
) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """Appearance of the training spots, scaled to its prior variance.

    Returns
    -------
    design, offset, gain
        In two parts, (spot, feature) and (state, spot, random) float32; and (state, 1, feature + random) float64 each:
        ``design = (mean over the disc - offset) * gain``.
    """
    n_states, n_features, n_random = appearance.frequencies.shape
    linear = appearance.centre.new_empty(n_spots, n_features)
    waves = appearance.centre.new_empty(n_states, n_spots, n_random)
    start = 0
    for features, mean in discs:
        spots = slice(start, start + len(mean))
        scaled = appearance.scaled(features)
        linear[spots] = torch.matmul(mean, scaled)
        waves[:, spots] = torch.matmul(mean, appearance.waves(scaled))
        start = spots.stop
    offsets, gains = [], []
    for means, prior in ((linear, LINEAR_VARIANCE), (waves, RANDOM_VARIANCE)):
        moment = (torch.var_mean(part, dim=0, keepdim=True, correction=0) for part in means.view(-1, *means.shape[-2:]))
        variance, offset = (torch.stack(parts).double() for parts in zip(*moment, strict=True))
        gain = (prior / variance.sum(dim=2, keepdim=True).clamp_min(1e-12)).sqrt().expand_as(variance)
        means.sub_(offset.float().view(*means.shape[:-2], 1, -1)).mul_(gain.float().view(*means.shape[:-2], 1, -1))
        offsets.append(offset.expand(n_states, -1, -1))
        gains.append(gain.expand(n_states, -1, -1))
    return (linear, waves), torch.cat(offsets, dim=2), torch.cat(gains, dim=2)


def nearness(xy_um: Tensor, anchors: Tensor) -> Tensor:
    """(n, anchor) covariances of places (n, 2) with the places (anchor, 2); both in um."""
    distance = torch.cdist(xy_um, anchors, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.mul_(-1 / RANGE_UM).exp_().mul_(PLACE_VARIANCE)


def place_design(xy_um: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Places of the training spots, in coordinates that are independent under the prior.

    Returns
    -------
    design, whiten
        (spot, anchor) float32 and (anchor, anchor) float64: ``design = nearness(xy_um, anchors) @ whiten``.
    """
    values, vectors = torch.linalg.eigh(nearness(anchors.double(), anchors.double()))
    whiten = vectors / values.clamp_min(1e-4).sqrt()
    design = xy_um.new_empty(len(xy_um), len(anchors))
    for start in range(0, len(xy_um), SPOT_BLOCK):
        at = slice(start, start + SPOT_BLOCK)
        design[at] = nearness(xy_um[at].double(), anchors.double()) @ whiten
    return design, whiten


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
