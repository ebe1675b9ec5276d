"""The default recipe: ridge regression on appearance and place, in factors of the genes, solved in closed form.

Per gene, ``log1p`` of a spot's counts is the mean over its disc of a function of a superpixel's features, plus a
function of the place (:mod:`iscale.model.basis`), plus a constant of its capture, which predictions leave out. Genes
are rotated into factors, the directions in which they vary together, and every factor is shrunk as far as the spots
left out ask (:mod:`iscale.model.ridge`): what spots do not support stays at its mean.

Depth and composition come apart by a second regression, of counts per 10,000. Depth is what the first predicts over
what the second predicts, averaged over the genes: so expression over depth has the composition that was learnt from
normalised counts, and depth itself is less noisy than one learnt from the spots' totals.

States differ in their random features and each leaves out another fifth of the spots. Spots pass in blocks, counts
and the features of discs alike: what is held of a spot are its counts and its row of the design, in float32.
`docs/concepts/recipe.md` says what was tried and what each part is worth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iscale.basis.loadings import Loadings
from iscale.engine.progress import tell
from iscale.model.additive import (
    AdditiveEnsemble,
    AdditiveTensors,
    from_parts,
)
from iscale.model.basis import (
    appearance_design,
    moments,
    place_design,
    random_appearance,
    spread_out,
)
from iscale.model.data import Epoch, OnEpoch, TrainingData
from iscale.model.discs import blocks_of, rows_of
from iscale.model.every_gene import SharedGenes, extend
from iscale.model.factors import Factors, LogCounts
from iscale.model.part import part
from iscale.model.published import disc_mean
from iscale.model.ridge import PENALTIES, Design, RidgeFit, fit_ridge
from iscale.model.sizes import MAX_ANCHORS, SPOT_BLOCK
from iscale.model.threads import all_cores

__all__ = ["AdditiveEnsemble", "every_gene", "from_parts", "train"]

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
SPOTS_AT_ONCE = 64


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


def every_gene(ensemble: AdditiveEnsemble, data: TrainingData, shared: SharedGenes) -> Loadings:
    """What turns the ensemble's factors into every gene that captures measured: see :mod:`iscale.model.every_gene`."""
    depth, scale = _per_full_disc(data, data.train_spots)
    with all_cores(), torch.no_grad():
        return extend(ensemble, data, shared, scale, _precision(depth, COUNT_NOISE))


def _train(
    data: TrainingData, seed: int, n_states: int, penalties: tuple[float, ...], on_epoch: OnEpoch | None
) -> tuple[AdditiveEnsemble, list[Epoch]]:
    spots = data.train_spots
    with part(0.0, 0.1):
        deviation, centre = moments(data.features[rows] for rows, _ in _discs(data, spots))
    appearance = random_appearance(centre, deviation, seed=seed, n_states=n_states)
    with part(0.1, 0.4):
        discs = ((data.features[rows], mean) for rows, mean in _discs(data, spots))
        seen_design, offset, gain = appearance_design(appearance, discs, len(spots))
    anchors = spread_out(data.xy_um[spots], MAX_ANCHORS)
    place, whiten = place_design(data.xy_um[spots], anchors)
    design = Design((*seen_design, place, _capture_design(data, spots).float()), n_states)

    depth, scale = _per_full_disc(data, spots)
    seen = _seen(len(spots), n_states, seed).to(depth)
    with part(0.4, 0.6):
        factors, by_count, log_depth = _regress(design, data.counts, spots, depth, scale, seen, penalties)
    del design, seen_design, place
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
    with part(0.6, 1.0):
        ensemble = _calibrated(AdditiveEnsemble(data.genes, parts), data, spots)
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
        yield disc_mean(data.starts, block, data.counts)
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


def _per_full_disc(data: TrainingData, spots: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Depth (spot,) float64 per as many superpixels as the median disc holds, and what it was multiplied by."""
    rows = torch.from_numpy(np.diff(data.starts)[spots]).to(data.counts.device)
    factor = data.disc_size.double().median() / rows
    return data.depth[spots].double() * factor, factor


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
    design: Design,
    counts: Tensor,
    spots: NDArray[np.int64],
    depth: Tensor,
    scale: Tensor,
    seen: Tensor,
    penalties: tuple[float, ...],
) -> tuple[Factors, RidgeFit, RidgeFit]:
    """Fit the factors of counts, and the logarithm of depth that follows from them and from normalised counts."""
    scales = scale[:, None].float(), (PER_SPOT / depth.clamp_min(1.0))[:, None].float()
    at = torch.from_numpy(spots).to(counts.device)
    factors, fits = [], []
    for k, noise in enumerate((COUNT_NOISE, SHARE_NOISE)):
        weight = _precision(depth, noise)
        factors.append(Factors.of(LogCounts(counts, at, scales[: k + 1]), weight))
        fits.append(fit_ridge(design, seen * weight, factors[k].values, penalties))
        tell(k + 1, 4)
    log_depth = torch.stack([_log_depth(factors, fits, design, state) for state in range(design.n_states)])
    tell(3, 4)
    return factors[0], fits[0], fit_ridge(design, seen, log_depth, (DEPTH_PENALTY,))


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


def _calibrated(ensemble: AdditiveEnsemble, data: TrainingData, spots: NDArray[np.int64]) -> AdditiveEnsemble:
    """The ensemble, scaled so that over the training spots together expected counts are the measured ones."""
    genes = torch.zeros(len(data.genes), dtype=torch.float64, device=data.counts.device)
    total = torch.zeros((), dtype=torch.float64, device=data.counts.device)
    done = 0
    for at in blocks_of(data.starts, spots, most_spots=SPOTS_AT_ONCE):
        rows, owner = rows_of(data.starts, at)
        hidden = ensemble.hidden(data.features[rows], data.xy_um[at[owner]])
        genes += ensemble.totals(hidden)
        total += ensemble.depth(hidden).sum(dtype=torch.float64)
        done += len(at)
        tell(done, len(spots))
    measured = torch.zeros_like(genes)
    for at in np.split(spots, range(SPOT_BLOCK, len(spots), SPOT_BLOCK)):
        measured += data.counts[at].sum(dim=0, dtype=torch.float64)
    share = measured / genes.clamp_min(1e-9)
    constant = ensemble.parts.constant.clone()
    constant[..., -1] += (data.depth[spots].sum(dtype=torch.float64) / total).clamp_min(1e-9).log()
    return AdditiveEnsemble(ensemble.genes, replace(ensemble.parts, share=share.float(), constant=constant))
