"""The ensemble of the default recipe: what it is linear in, appearance and place, added; factors shared by genes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from iscale.model.ensemble import (
    GENE_BLOCK,
    ROW_BLOCK,
    Ensemble,
    deviation_over_states,
    expect_tensors,
    expression_blocks,
)
from iscale.model.sizes import FACTORS, RANDOM_FEATURES, SPOT_BLOCK

LINEAR_VARIANCE, RANDOM_VARIANCE, PLACE_VARIANCE = 0.5, 0.5, 1.0
"""Prior variances of the three parts over the training spots, for an output of variance 1."""
LENGTH_SCALE = 1.0
"""Of the Gaussian covariance: root mean square difference of the scaled features."""
RANGE_UM = 1125.0
"""Of the exponential covariance: distance over which it falls to 1 / e."""
SHARPNESS = 8.0

CLIP = 4.0
"""Scaled features end here, so that a superpixel unlike any in training is not extrapolated to."""

Discs = Iterable[tuple[Tensor, Tensor]]
"""Blocks of spots, in order: rows of their discs (row, feature), and the mean over each as a matrix (spot, row)."""


@dataclass(frozen=True)
class Appearance:
    """Functions of the features of one superpixel.

    Features are shifted by ``centre`` and divided by ``scale``, (feature,) each; frequencies are (state, feature,
    random), phases (state, 1, random).
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

    A design in two pieces, (spot, feature) and (state, spot, random) float32; and an offset and a gain, each
    (state, 1, feature + random) float64: ``design = (mean over the disc - offset) * gain``.
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
        moment = (torch.var_mean(own, dim=0, keepdim=True, correction=0) for own in means.view(-1, *means.shape[-2:]))
        variance, offset = (torch.stack(each).double() for each in zip(*moment, strict=True))
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

    A design (spot, anchor) float32, and (anchor, anchor) float64 ``whiten``: ``nearness(xy_um, anchors) @ whiten``.
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


@dataclass(frozen=True)
class AdditiveTensors:
    """All numbers of the ensemble, float32; an output is a factor, or (the last) the logarithm of depth.

    Attributes
    ----------
    centre, scale, frequencies, phase
        See :class:`iscale.model.additive.Appearance`.
    anchors
        (anchor, 2): places, in um.
    constant, linear, waves, place
        (state, 1, output), (state, feature, output), (state, random, output) and (state, anchor, output).
    loading, level
        (factor, gene) and (gene,): ``log1p`` of a spot's counts is ``factors @ loading + level``.
    share
        (gene,): what turns a spot's counts into the expected counts of one superpixel.
    """

    centre: Tensor
    scale: Tensor
    frequencies: Tensor
    phase: Tensor
    anchors: Tensor
    constant: Tensor
    linear: Tensor
    waves: Tensor
    place: Tensor
    loading: Tensor
    level: Tensor
    share: Tensor


class AdditiveEnsemble(Ensemble):
    """States that differ in their random features and in the fifth of the spots that they have not seen."""

    recipe = "default"

    def __init__(self, genes: tuple[str, ...], numbers: AdditiveTensors) -> None:
        self.genes = genes
        self.numbers = numbers
        self.n_states = len(numbers.constant)
        self._appearance = Appearance(numbers.centre, numbers.scale, numbers.frequencies, numbers.phase)
        self._axes = relative_axes(numbers.loading)

    def hidden(self, features: Tensor, xy_um: Tensor) -> Tensor:
        """(state, n, factor + 1): factors, which mean the same in every state, and the logarithm of depth."""
        numbers, n = self.numbers, len(features)
        result = features.new_empty(self.n_states, n, numbers.constant.shape[2])
        for start in range(0, n, ROW_BLOCK):
            rows = slice(start, start + ROW_BLOCK)
            scaled = self._appearance.scaled(features[rows])
            block = torch.matmul(scaled, numbers.linear) + numbers.constant
            block += torch.matmul(self._appearance.waves(scaled), numbers.waves)
            block += torch.matmul(nearness(xy_um[rows], numbers.anchors), numbers.place)
            result[:, rows] = block
        return result

    def expression(self, hidden: Tensor, genes: slice) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over states: see :meth:`Ensemble.expression`."""
        start, stop, _ = genes.indices(len(self.genes))
        n = hidden.shape[1]
        mean, spread = hidden.new_empty(2, stop - start, n).unbind()
        for gene, rows in expression_blocks(start, stop, n):
            at = slice(gene.start - start, gene.stop - start), rows
            counts, share = self._counts(hidden, gene, rows), self.numbers.share[gene, None]
            middle = counts.mean(dim=0)
            torch.mul(middle, share, out=mean[at])
            torch.mul(deviation_over_states(counts, middle), share, out=spread[at])
        return mean, spread

    def _counts(self, hidden: Tensor, gene: slice, rows: slice) -> Tensor:
        """(state, gene, row): expected counts of a spot that is like the superpixel."""
        loading, level = self.numbers.loading[:, gene].T, self.numbers.level[gene, None]
        return positive_counts(torch.matmul(loading, hidden[:, rows, :-1].mT) + level)

    def totals(self, hidden: Tensor) -> Tensor:
        """(gene,) float64: expected counts of all superpixels together, without the time that their spread takes."""
        result = torch.zeros(len(self.genes), dtype=torch.float64, device=hidden.device)
        for gene, rows in expression_blocks(0, len(self.genes), hidden.shape[1]):
            result[gene] += self._counts(hidden, gene, rows).mean(dim=0).sum(dim=1, dtype=torch.float64)
        return result * self.numbers.share

    def depth(self, hidden: Tensor) -> Tensor:
        """Mean over states: see :meth:`Ensemble.depth`."""
        return hidden[..., -1].exp().mean(dim=0)

    def embedding(self, hidden: Tensor) -> Tensor:
        """(n, 32): relative expression of all genes, by its principal axes: see :func:`relative_axes`.

        Factors are averaged over the states, in each of which they mean the same. Clusters agree with known regions
        about as well as by principal components of predicted composition, for which all genes would have to be read.
        By the factors as they are, or with depth left in, as many clusters as regions agree as well, but more clusters
        fall apart on one demo of two (docs/benchmarks.md, Clusters).
        """
        factors = hidden[..., :-1].mean(dim=0)
        result = factors.new_zeros(len(factors), FACTORS)
        torch.matmul(factors, self._axes, out=result[:, : self._axes.shape[1]])
        return result

    def task_bytes(self, n_superpixels: int, n_genes: int) -> int:
        """Features, places, hidden layer and results of the tile; the values of one block; the ensemble itself."""
        n_features, n_outputs = self.numbers.linear.shape[1:]
        tile = n_superpixels * 4 * (n_features + 2 + 2 * n_genes + self.n_states * n_outputs + 2)
        rows = self.n_states * (2 * RANDOM_FEATURES + 3 * n_outputs) + 2 * n_features + 2 * len(self.numbers.anchors)
        block = 4 * ROW_BLOCK * max(rows, 4 * GENE_BLOCK * self.n_states)
        return tile + block + 4 * sum(tensor.numel() for tensor in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """All numbers, by the names of :class:`AdditiveTensors`."""
        return {field.name: getattr(self.numbers, field.name) for field in fields(AdditiveTensors)}


def positive_counts(log_counts: Tensor) -> Tensor:
    """``expm1``, bent over ``2 ln(2) / SHARPNESS`` so that it ends at 0 and never below; overwrites its argument."""
    return F.softplus(log_counts, beta=SHARPNESS).expm1_()


def relative_axes(loading: Tensor) -> Tensor:
    """What takes factors to an embedding whose distances are those of relative expression.

    ``log1p`` of counts is ``factors @ loading + level``. Less its mean over the genes, which holds the depth, it is the
    centred log-ratio of composition (Aitchison 1982; but for the 1 that is added to counts). The distance of two
    superpixels in it, the root mean square over the genes, is that of ``factors @ axes``: no map of a gene is needed.

    Of a loading (factor, gene), axes are (factor, component) float32, as many components as factors, those that can
    vary most first. Each has the sign that makes its largest entry positive.
    """
    centred = loading.double().cpu()
    centred = centred - centred.mean(dim=1, keepdim=True)
    values, vectors = torch.linalg.eigh(centred @ centred.T / centred.shape[1])
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    axes: Tensor = vectors * largest.sign() * values.clamp_min(0).sqrt()
    return axes.flip(1).to(loading).contiguous()


def from_tensors(
    genes: tuple[str, ...], n_states: int, tensors: dict[str, Tensor], settings: dict[str, Any]
) -> AdditiveEnsemble:
    """Build an ensemble from what :meth:`AdditiveEnsemble.tensors` gave, if that belongs together."""
    if settings:
        raise ValueError(f"the default recipe has no settings, found {', '.join(sorted(settings))}")
    features, outputs = tensors["linear"].shape[1:]
    anchors = len(tensors["anchors"])
    expect_tensors(
        tensors,
        {
            "centre": (features,),
            "scale": (features,),
            "frequencies": (n_states, features, RANDOM_FEATURES),
            "phase": (n_states, 1, RANDOM_FEATURES),
            "anchors": (anchors, 2),
            "constant": (n_states, 1, outputs),
            "linear": (n_states, features, outputs),
            "waves": (n_states, RANDOM_FEATURES, outputs),
            "place": (n_states, anchors, outputs),
            "loading": (outputs - 1, len(genes)),
            "level": (len(genes),),
            "share": (len(genes),),
        },
    )
    return AdditiveEnsemble(genes, AdditiveTensors(**tensors))
