"""The default recipe: ridge regression on appearance and place, in factors of the genes, solved in closed form.

Per gene, ``log1p`` of a spot's counts is the mean over its disc of a function of a superpixel's features, plus a
function of the place (:mod:`iscale.model.basis`), plus a constant of its capture, which predictions leave out. Genes
are rotated into factors, the directions in which they vary together, and every factor is shrunk as far as the spots
left out ask (:mod:`iscale.model.ridge`): what spots do not support stays at its mean.

Depth and composition come apart by a second regression, of counts per 10,000. Depth is what the first predicts over
what the second predicts, averaged over the genes: so expression over depth has the composition that was learnt from
normalised counts, and depth itself is less noisy than one learnt from the spots' totals.

States differ in their random features and each leaves out another fifth of the spots. All are solved at once, as one
batch of matrices. `docs/recipe.md` says what was tried and what each part is worth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iscale.model.additive import FACTORS, AdditiveEnsemble, AdditiveTensors, from_parts, hidden_bytes
from iscale.model.basis import (
    MAX_ANCHORS,
    appearance_design,
    place_design,
    random_appearance,
    spread_out,
)
from iscale.model.data import Epoch, OnEpoch, TrainingData
from iscale.model.discs import rows_of
from iscale.model.published import disc_mean
from iscale.model.ridge import PENALTIES, RidgeFit, fit_ridge
from iscale.model.threads import all_cores

__all__ = ["AdditiveEnsemble", "from_parts", "hidden_bytes", "train"]

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
LEAST_VARIANCE = 1e-5
"""Of a factor, over that of the first: less is rounding."""
SPOTS_AT_ONCE = 64


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
    def of(cls, genes: Tensor, weight: Tensor) -> Factors:
        """Principal directions of (spot, gene) float32 values, each gene scaled to variance 1, spots weighted."""
        weight = (weight / weight.sum())[:, None].float()
        level = (weight * genes).sum(dim=0)
        spread = (weight * (genes - level).square()).sum(dim=0).sqrt().clamp_min(1e-6)
        scaled = (genes - level) / spread
        rooted = scaled * weight.sqrt()
        by_spot = len(rooted) <= rooted.shape[1]
        values, vectors = torch.linalg.eigh((rooted @ rooted.T if by_spot else rooted.T @ rooted).double())
        kept = max(1, min(FACTORS, int((values > LEAST_VARIANCE * values[-1]).sum())))
        vectors = vectors.flip(1)[:, :kept]
        if by_spot:
            vectors = torch.nn.functional.normalize(rooted.T.double() @ vectors, dim=0)
        return cls((scaled @ vectors.float()).double(), vectors.T * spread, level.double())

    def genes(self, values: Tensor) -> Tensor:
        """(..., gene) of (..., factor)."""
        return values @ self.loading + self.level


def train(
    data: TrainingData,
    *,
    seed: int,
    n_states: int,
    max_epochs: int | None = None,
    on_epoch: OnEpoch | None = None,
) -> tuple[AdditiveEnsemble, list[Epoch]]:
    """Fit the ensemble on the spots that are not held out.

    Parameters
    ----------
    data
        Spots and discs.
    seed
        Fixes the random features and the fifth of the spots that each state leaves out.
    n_states
        Number of states; one alone leaves out no spot.
    max_epochs
        Penalties that are tried, from the strongest on: all, if None.
    on_epoch
        Called for each penalty with its line of the history.

    Returns
    -------
    ensemble, history
        The states, and per penalty the mean squared error of the factors of the counts: of spots fitted, and of
        spots left out one at a time.
    """
    with all_cores(), torch.no_grad():
        return _train(data, seed, n_states, PENALTIES[:max_epochs], on_epoch)


def _train(
    data: TrainingData, seed: int, n_states: int, penalties: tuple[float, ...], on_epoch: OnEpoch | None
) -> tuple[AdditiveEnsemble, list[Epoch]]:
    spots = data.train_spots
    appearance = random_appearance(data.features[rows_of(data.starts, spots)[0]], seed=seed, n_states=n_states)
    seen_design, offset, gain = appearance_design(appearance, lambda function: disc_means(data, spots, function))
    anchors = spread_out(data.xy_um[spots], MAX_ANCHORS)
    place, whiten = place_design(data.xy_um[spots], anchors)
    shared = torch.cat([place, _capture_design(data, spots)], dim=1).float()
    design = torch.cat([seen_design, shared.expand(n_states, -1, -1)], dim=2)

    counts, depth = _per_full_disc(data, spots)
    seen = _seen(len(spots), n_states, seed).to(depth)
    factors, by_count, log_depth = _regress(design, counts, depth, seen, penalties)
    coefficients = torch.cat([by_count.coefficients, log_depth.coefficients], dim=2)
    constant = torch.cat([by_count.intercept, log_depth.intercept], dim=2)

    n_features, n_appearance = len(appearance.centre), gain.shape[2]
    of_appearance = coefficients[:, :n_appearance] * gain.mT
    of_place = whiten @ coefficients[:, n_appearance : n_appearance + len(anchors)]
    parts = AdditiveTensors(
        *(appearance.centre, appearance.scale, appearance.frequencies, appearance.phase, anchors),
        constant=(constant - offset @ of_appearance).float(),
        linear=of_appearance[:, :n_features].float().contiguous(),
        waves=of_appearance[:, n_features:].float().contiguous(),
        place=of_place.float(),
        loading=factors.loading.float().contiguous(),
        level=factors.level.float(),
        share=torch.ones_like(factors.level).float(),
    )
    ensemble = _calibrated(AdditiveEnsemble(data.genes, parts), data, spots)
    history = []
    for epoch, (fitted, left_out) in enumerate(by_count.path, start=1):
        history.append({"epoch": epoch, "train_loss": fitted, "held_out_loss": left_out})
        if on_epoch:
            on_epoch(history[-1])
    return ensemble, history


def disc_means(data: TrainingData, spots: NDArray[np.int64], function: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean over the discs of spots, (..., spot, k), of a function of features, (row, feature) -> (..., row, k)."""
    blocks = []
    for start in range(0, len(spots), SPOTS_AT_ONCE):
        rows, matrix = disc_mean(data.starts, spots[start : start + SPOTS_AT_ONCE], data.features)
        blocks.append(torch.matmul(matrix, function(data.features[rows])))
    return torch.cat(blocks, dim=-2)


def _capture_design(data: TrainingData, spots: NDArray[np.int64]) -> Tensor:
    """(spot, capture) float64: which capture a spot is of, less the mean capture, which is what is predicted.

    Spots merged of several captures count as of the mean capture.
    """
    capture = data.capture[spots]
    n = max(int(capture.max()) + 1, 1)
    member = (capture[:, None] == np.arange(n)) - 1 / n
    member[capture < 0] = 0
    return torch.from_numpy(member * CAPTURE_VARIANCE**0.5).to(data.features.device)


def _per_full_disc(data: TrainingData, spots: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Counts (spot, gene) float32 and depth (spot,) float64, per as many superpixels as the median disc holds."""
    rows = torch.from_numpy(np.diff(data.starts)[spots]).to(data.counts.device)
    factor = data.disc_size.double().median() / rows
    return data.counts[spots] * factor[:, None].float(), data.depth[spots].double() * factor


def _seen(n_spots: int, n_states: int, seed: int) -> Tensor:
    """(state, spot) of 0 and 1: every spot is left out by one state, every state sees nearly as many."""
    if n_states == 1:
        return torch.ones(1, n_spots, dtype=torch.float64)
    left_out_by = np.random.default_rng([seed, 1]).permutation(n_spots) % n_states
    return torch.from_numpy((left_out_by != np.arange(n_states)[:, None]).astype(np.float64))


def _precision(depth: Tensor, noise: float) -> Tensor:
    """(spot,) weights of mean 1: inverse of 1 + noise x median depth / depth."""
    weight = depth / (depth + noise * depth.median()).clamp_min(1e-6)
    return weight / weight.mean()


def _regress(
    design: Tensor, counts: Tensor, depth: Tensor, seen: Tensor, penalties: tuple[float, ...]
) -> tuple[Factors, RidgeFit, RidgeFit]:
    """Fit the factors of counts, and the logarithm of depth that follows from them and from normalised counts."""
    share = counts * (PER_SPOT / depth.clamp_min(1.0))[:, None].float()
    weights = [_precision(depth, noise) for noise in (COUNT_NOISE, SHARE_NOISE)]
    factors = [Factors.of(torch.log1p(y), w) for y, w in zip((counts, share), weights, strict=True)]
    fits = [fit_ridge(design, seen * w, f.values, penalties) for f, w in zip(factors, weights, strict=True)]
    blocks = torch.split(design, SPOTS_AT_ONCE, dim=1)
    log_depth = torch.cat([_log_depth(factors, fits, block) for block in blocks], dim=1)
    return factors[0], fits[0], fit_ridge(design, seen, log_depth, (DEPTH_PENALTY,))


def _log_depth(factors: list[Factors], fits: list[RidgeFit], design: Tensor) -> Tensor:
    """(state, spot, 1): logarithm of expected counts over expected share, averaged over the genes."""
    of_counts, of_share = (
        f.genes(fit.predict(design)).clamp_min_(LEAST_COUNT).expm1_().log_().mean(dim=2, keepdim=True)
        for f, fit in zip(factors, fits, strict=True)
    )
    return of_counts.sub_(of_share).add_(math.log(PER_SPOT))


def _calibrated(ensemble: AdditiveEnsemble, data: TrainingData, spots: NDArray[np.int64]) -> AdditiveEnsemble:
    """The ensemble, scaled so that over the training spots together expected counts are the measured ones."""
    genes = torch.zeros(len(data.genes), dtype=torch.float64, device=data.counts.device)
    total = torch.zeros((), dtype=torch.float64, device=data.counts.device)
    for start in range(0, len(spots), SPOTS_AT_ONCE):
        at = spots[start : start + SPOTS_AT_ONCE]
        rows, owner = rows_of(data.starts, at)
        hidden = ensemble.hidden(data.features[rows], data.xy_um[at[owner]])
        genes += ensemble.expression(hidden, slice(None))[0].sum(dim=1, dtype=torch.float64)
        total += ensemble.depth(hidden).sum(dtype=torch.float64)
    share = data.counts[spots].sum(dim=0, dtype=torch.float64) / genes.clamp_min(1e-9)
    constant = ensemble.parts.constant.clone()
    constant[..., -1] += (data.depth[spots].sum(dtype=torch.float64) / total).clamp_min(1e-9).log()
    return AdditiveEnsemble(ensemble.genes, replace(ensemble.parts, share=share.float(), constant=constant))
