"""The default recipe: ridge regression on appearance and place, in factors of the genes, solved in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iscale.engine.machine import all_cores
from iscale.engine.progress import progress_between, tell
from iscale.model.additive import (
    AdditiveEnsemble,
    AdditiveTensors,
    appearance_design,
    from_tensors,
    moments,
    place_design,
    random_appearance,
    spread_out,
)
from iscale.model.data import Epoch, OnEpoch, SharedGenes, TrainingData
from iscale.model.discs import SPOTS_AT_ONCE, blocks_of, share_exponents
from iscale.model.every_gene import Factors, LogCounts, expected_totals, extend
from iscale.model.loadings import Loadings
from iscale.model.sizes import MAX_ANCHORS, SPOT_BLOCK

__all__ = ["AdditiveEnsemble", "every_gene", "from_tensors", "train"]

REFIT = True
"""Once scored, it is trained again with the held-out spots."""
CAPTURE_VARIANCE = 0.3
"""Prior variance of a capture's constant."""
DEPTH_PENALTY = 0.05
"""Of the regression of depth, whose targets are smooth."""
COUNT_NOISE, SHARE_NOISE = 0.3, 1.0
"""Variance of a spot of median depth that falls with depth, over the variance that does not."""
PER_SPOT = 1e4
"""Normalised counts are per this many."""
LEAST_COUNT = 0.05
"""Depth is judged from ``log1p`` of expected counts from here up."""

PENALTIES = (1000.0, 100.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0, 0.3, 0.1)
"""In units of the variance of a target, whose prior variance is 1."""


@dataclass(frozen=True)
class Design:
    """What is regressed on, in every state.

    Its columns stand side by side, float32 or float64: (spot, k) of what all states share, (state, spot, k) of what
    they do not.
    """

    columns: tuple[Tensor, ...]
    n_states: int

    @property
    def n_spots(self) -> int:
        """Number of spots."""
        return self.columns[0].shape[-2]

    def block(self, state: int, spots: slice) -> Tensor:
        """(spot, coordinate) float64 of some spots in one state."""
        return torch.cat([(own if own.ndim == 2 else own[state])[spots] for own in self.columns], dim=1).double()


@dataclass(frozen=True)
class RidgeFit:
    """Fitted coefficients (state, coordinate, target) and intercepts (state, 1, target), float64.

    The path has, per penalty, strongest first, the mean squared error, over states and targets, of the spots that were
    fitted, and of spots left out one at a time.
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

    Of a design, or (state, spot, coordinate); weights (state, spot) float64, the precision of the spots, of mean 1, and
    0 for spots that a state does not see; and targets (spot, target) or (state, spot, target) float64. Each target gets
    the one of the penalties, strongest first, by which spots are predicted best when they are left out one at a time.
    """
    if isinstance(design, Tensor):
        design = Design((design,), len(design))
    targets = targets.expand(design.n_states, -1, -1)
    states = [_fit_state(design, k, weight[k, :, None], targets[k], penalties) for k in range(design.n_states)]
    coefficients, intercept, fitted, left_out = (torch.stack(each) for each in zip(*states, strict=True))
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


def train(
    data: TrainingData,
    *,
    seed: int,
    n_states: int,
    max_epochs: int | None = None,
    on_epoch: OnEpoch | None = None,
) -> tuple[AdditiveEnsemble, list[Epoch]]:
    """Fit the ensemble on the spots that are not held out: see :class:`iscale.model.ensemble.Recipe`.

    The seed fixes the random features and the fifth of the spots that each state leaves out (one state alone leaves
    out none). What stands for epochs are the penalties that are tried, from the strongest on; the losses are the mean
    squared error of the factors of the counts, of spots fitted, and of spots left out one at a time.
    """
    with all_cores(), torch.no_grad():
        return _train(data, seed, n_states, PENALTIES[:max_epochs], on_epoch)


def every_gene(ensemble: AdditiveEnsemble, data: TrainingData, shared: SharedGenes) -> Loadings:
    """What turns the ensemble's factors into every gene that captures measured: see :mod:`iscale.model.every_gene`."""
    discs = Discs.of(data, data.train_spots)
    with all_cores(), torch.no_grad():
        return extend(ensemble, data, shared, discs.scale, discs.precision(COUNT_NOISE), discs.own)


def _train(
    data: TrainingData, seed: int, n_states: int, penalties: tuple[float, ...], on_epoch: OnEpoch | None
) -> tuple[AdditiveEnsemble, list[Epoch]]:
    spots = data.train_spots
    with progress_between(0.0, 0.1):
        deviation, centre = moments(data.features[rows] for rows, _ in _discs(data, spots))
    appearance = random_appearance(centre, deviation, seed=seed, n_states=n_states)
    with progress_between(0.1, 0.4):
        rows_and_means = ((data.features[rows], mean) for rows, mean in _discs(data, spots))
        seen_design, offset, gain = appearance_design(appearance, rows_and_means, len(spots))
    anchors = spread_out(data.xy_um[spots], MAX_ANCHORS)
    place, whiten = place_design(data.xy_um[spots], anchors)
    design = Design((*seen_design, place, _capture_design(data, spots).float()), n_states)

    discs = Discs.of(data, spots)
    seen = _seen(len(spots), n_states, seed).to(discs.depth)
    with progress_between(0.4, 0.6):
        factors, by_count, log_depth = _regress(design, data.counts, spots, discs, seen, penalties)
    del design, seen_design, place
    coefficients = torch.cat([by_count.coefficients, log_depth.coefficients], dim=2)
    constant = torch.cat([by_count.intercept, log_depth.intercept], dim=2)

    n_features, n_appearance = len(appearance.centre), gain.shape[2]
    of_appearance = coefficients[:, :n_appearance] * gain.mT
    of_place = whiten @ coefficients[:, n_appearance : n_appearance + len(anchors)]
    numbers = AdditiveTensors(
        *(appearance.centre, appearance.scale, appearance.frequencies, appearance.phase, anchors),
        constant=(constant - offset @ of_appearance).float(),
        linear=of_appearance[:, :n_features].float().contiguous(),
        waves=of_appearance[:, n_features:].float().contiguous(),
        place=of_place.float(),
        loading=factors.loading.float().contiguous(),
        level=factors.level.float(),
        share=torch.ones_like(factors.level).float(),
    )
    with progress_between(0.6, 1.0):
        ensemble = _calibrated(AdditiveEnsemble(data.genes, numbers), data, spots, discs.own)
    history = []
    for epoch, (fitted, left_out) in enumerate(by_count.path, start=1):
        history.append({"epoch": epoch, "train_loss": fitted, "held_out_loss": left_out})
        if on_epoch:
            on_epoch(history[-1])
    return ensemble, history


def _discs(data: TrainingData, spots: NDArray[np.int64]) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of some spots at a time, and the matrix (spot, row) that averages over each disc."""
    done = 0
    for block in blocks_of(data.starts, spots, most_spots=SPOTS_AT_ONCE):
        yield data.disc_mean(block)
        done += len(block)
        tell(done, len(spots))


def _capture_design(data: TrainingData, spots: NDArray[np.int64]) -> Tensor:
    """(spot, capture) float64: which capture a spot is of, less the mean capture, which is what is predicted.

    Spots merged of several captures count as of the mean capture.
    """
    capture = data.capture[spots]
    n = max(int(capture.max()) + 1, 1)
    member = (capture[:, None] == np.arange(n)) - 1 / n
    member[capture < 0] = 0
    return torch.from_numpy(member * CAPTURE_VARIANCE**0.5).to(data.features.device)


@dataclass(frozen=True)
class Discs:
    """What is known of the discs of some spots, (spot,) float64 each.

    Attributes
    ----------
    share
        Of the disc's superpixels, those on tissue.
    scale
        What counts are multiplied by to be those of as many superpixels as the median disc holds.
    depth
        Counts of all genes, so multiplied.
    own
        What of the counts the superpixels on tissue are taken to have: all, where the share is believed.
    """

    share: Tensor
    scale: Tensor
    depth: Tensor
    own: Tensor

    @classmethod
    def of(cls, data: TrainingData, spots: NDArray[np.int64]) -> Discs:
        """Of some spots, which have superpixels on tissue."""
        size, depth = data.disc_size.double(), data.depth[spots].double()
        own_size = size[spots].cpu().numpy()
        share = np.diff(data.starts)[spots] / own_size
        believed = share ** share_exponents(share, depth.cpu().numpy() / own_size, data.capture[spots])
        on_tissue, cut = (torch.from_numpy(values).to(size) for values in (share, believed))
        scale = size.median() / (size[spots] * cut)
        return cls(on_tissue, scale, depth * scale, on_tissue / cut)

    def precision(self, noise: float) -> Tensor:
        """(spot,) weights of mean 1: the share on tissue over 1 + noise x median depth / depth."""
        weight = self.share * self.depth / (self.depth + noise * self.depth.median()).clamp_min(1e-6)
        return weight / weight.mean()


def _seen(n_spots: int, n_states: int, seed: int) -> Tensor:
    """(state, spot) of 0 and 1: every spot is left out by one state, every state sees nearly as many."""
    if n_states == 1:
        return torch.ones(1, n_spots, dtype=torch.float64)
    left_out_by = np.random.default_rng([seed, 1]).permutation(n_spots) % n_states
    return torch.from_numpy((left_out_by != np.arange(n_states)[:, None]).astype(np.float64))


def _regress(
    design: Design,
    counts: Tensor,
    spots: NDArray[np.int64],
    discs: Discs,
    seen: Tensor,
    penalties: tuple[float, ...],
) -> tuple[Factors, RidgeFit, RidgeFit]:
    """Fit the factors of counts, and the logarithm of depth that follows from them and from normalised counts."""
    scales = discs.scale[:, None].float(), (PER_SPOT / discs.depth.clamp_min(1.0))[:, None].float()
    at = torch.from_numpy(spots).to(counts.device)
    factors, fits = [], []
    for k, noise in enumerate((COUNT_NOISE, SHARE_NOISE)):
        weight = discs.precision(noise)
        factors.append(Factors.of(LogCounts(counts, at, scales[: k + 1]), weight))
        fits.append(fit_ridge(design, seen * weight, factors[k].values, penalties))
        tell(k + 1, 4)
    log_depth = torch.stack([_log_depth(factors, fits, design, state) for state in range(design.n_states)])
    tell(3, 4)
    return factors[0], fits[0], fit_ridge(design, seen * discs.share / discs.share.mean(), log_depth, (DEPTH_PENALTY,))


def _log_depth(factors: list[Factors], fits: list[RidgeFit], design: Design, state: int) -> Tensor:
    """(spot, 1) in one state: logarithm of expected counts over expected share, averaged over the genes."""
    result = []
    for start in range(0, design.n_spots, SPOTS_AT_ONCE):
        block = design.block(state, slice(start, start + SPOTS_AT_ONCE))
        of_counts, of_share = (
            f.genes(block @ fit.coefficients[state] + fit.intercept[state])
            .clamp_min_(LEAST_COUNT)
            .expm1_()
            .log_()
            .mean(dim=1, keepdim=True)
            for f, fit in zip(factors, fits, strict=True)
        )
        result.append(of_counts.sub_(of_share).add_(math.log(PER_SPOT)))
    return torch.cat(result)


def _calibrated(
    ensemble: AdditiveEnsemble, data: TrainingData, spots: NDArray[np.int64], own: Tensor
) -> AdditiveEnsemble:
    """The ensemble, scaled so that over the training spots together expected counts are the measured ones.

    Of these, ``own`` (spot,) says what part the superpixels on tissue have.
    """
    genes, total = expected_totals(ensemble, data, spots)
    measured = torch.zeros_like(genes)
    for a in range(0, len(spots), SPOT_BLOCK):
        at = slice(a, a + SPOT_BLOCK)
        measured += own[at] @ data.counts[spots[at]].double()
    share = measured / genes.clamp_min(1e-9)
    constant = ensemble.numbers.constant.clone()
    constant[..., -1] += ((data.depth[spots].double() * own).sum() / total).clamp_min(1e-9).log()
    return AdditiveEnsemble(ensemble.genes, replace(ensemble.numbers, share=share.float(), constant=constant))
