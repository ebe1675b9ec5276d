"""Train a recipe on the captures' spots and score it on spots that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from iscale.captures.spots import DiscFeatures, TrainingSpots
from iscale.engine.machine import all_cores
from iscale.engine.progress import progress_between
from iscale.errors import InputError
from iscale.model.data import Epoch, OnEpoch, SharedGenes, TrainingData, training_data
from iscale.model.discs import blocks_of
from iscale.model.ensemble import Ensemble, recipe_module
from iscale.model.loadings import Loadings
from iscale.model.sizes import SCORED_GENES

NORMALISED_DEPTH = 1e4


@dataclass(frozen=True)
class FitResult:
    """A trained ensemble, and how well it did.

    Attributes
    ----------
    ensemble
        Predicts expected counts per superpixel. A recipe that is quick has been trained again, once scored, on all
        spots.
    history
        Per epoch: ``epoch``, ``train_loss``, ``held_out_loss``.
    held_out
        (spot,): spots that were held out of the training that was scored.
    held_out_scores
        Of the ensemble that had not seen them. Per gene, Pearson correlation over the held-out spots between measured
        and predicted: ``counts`` (log1p of counts) and ``depth_normalised`` (log1p of counts per 10,000). NaN where
        either is constant.
    loadings
        What turns the ensemble's factors into every gene that captures measured; None where the recipe has no factors.
    """

    ensemble: Ensemble
    history: list[Epoch]
    held_out: NDArray[np.bool_]
    held_out_scores: dict[str, NDArray[np.float64]]
    loadings: Loadings | None = None


def fit(
    spots: TrainingSpots,
    discs: DiscFeatures,
    *,
    pixel_size_um: float,
    superpixel_um: float,
    shared: SharedGenes | None = None,
    recipe: str = "default",
    seed: int = 0,
    n_states: int = 5,
    device: torch.device | str = "cpu",
    max_epochs: int | None = None,
    on_epoch: OnEpoch | None = None,
) -> FitResult:
    """Train an ensemble.

    The same inputs and seed give the same bytes, on the same number of cores.

    Parameters
    ----------
    spots
        Measured spots of all captures.
    discs
        Features of the superpixels in their discs.
    pixel_size_um
        Side of an analysis pixel.
    superpixel_um
        Side of a superpixel.
    shared
        All genes that captures measured, for those that are asked for later.
    recipe
        ``"default"`` or ``"published"``.
    seed
        Fixes the held-out spots, initial weights and the order of spots.
    n_states
        Independent initialisations, trained together.
    device
        Where to train; the ensemble stays there.
    max_epochs
        Upper limit of epochs; None for the recipe's own.
    on_epoch
        Called after each epoch with its line of the history.

    Raises
    ------
    InputError
        If the recipe is unknown, too few spots lie on tissue, or a number is not finite.
    """
    for name, value in (("n_states", n_states), ("max_epochs", 1 if max_epochs is None else max_epochs)):
        if value < 1:
            raise InputError(f"{name} is {value}", "It must be at least 1.")
    module = recipe_module(recipe)
    data = training_data(
        spots,
        discs,
        pixel_size_um=pixel_size_um,
        superpixel_um=superpixel_um,
        seed=seed,
        device=torch.device(device),
    )
    held_out = data.held_out
    with all_cores():
        with progress_between(0.0, 0.5 if module.REFIT else 1.0):
            ensemble, history = module.train(
                data, seed=seed, n_states=n_states, max_epochs=max_epochs, on_epoch=on_epoch
            )
        scores = score(ensemble, data, data.held_out_spots)
        if module.REFIT:
            data = replace(data, held_out=np.zeros_like(data.held_out))
            with progress_between(0.5, 0.8 if shared else 1.0):
                ensemble, _ = module.train(data, seed=seed, n_states=n_states, max_epochs=max_epochs)
        with progress_between(0.8, 1.0):
            loadings = module.every_gene(ensemble, data, shared) if shared else None
        return FitResult(ensemble, history, held_out, scores, loadings)


def score(ensemble: Ensemble, data: TrainingData, spots: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Pearson correlation (gene,) between measured and predicted values of spots: see :class:`FitResult`."""
    predicted, depth = predict_spots(ensemble, data, spots)
    measured_depth = data.depth[spots].cpu().numpy().astype(np.float64)
    scores = {name: np.empty(len(data.genes)) for name in ("counts", "depth_normalised")}
    for start in range(0, len(data.genes), SCORED_GENES):
        genes = slice(start, start + SCORED_GENES)
        counts, guess = data.counts[spots, genes].cpu().numpy().astype(np.float64), predicted[:, genes]
        scores["counts"][genes] = _pearson(np.log1p(counts), np.log1p(guess))
        scores["depth_normalised"][genes] = _pearson(_per_depth(counts, measured_depth), _per_depth(guess, depth))
    return scores


def predict_spots(
    ensemble: Ensemble, data: TrainingData, spots: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Expected counts (spot, gene) and depth (spot,): sums over the superpixels of each disc that have features."""
    expression = np.zeros((len(spots), len(data.genes)))
    depth = np.zeros(len(spots))
    with torch.no_grad():
        done = 0
        for block in blocks_of(data.starts, spots):
            at = slice(done, done + len(block))
            done = at.stop
            features, xy_um, owner = data.disc_rows(block)
            hidden = ensemble.hidden(features, xy_um)
            first = np.searchsorted(owner, np.arange(len(block)))
            for a in range(0, len(data.genes), SCORED_GENES):
                genes = slice(a, min(a + SCORED_GENES, len(data.genes)))
                estimate = ensemble.expression(hidden, genes)[0].cpu().numpy()
                expression[at, genes] = np.add.reduceat(estimate, first, axis=1, dtype=np.float64).T
            depth[at] = np.add.reduceat(ensemble.depth(hidden).cpu().numpy(), first, dtype=np.float64)
    return expression, depth


def _per_depth(counts: NDArray[np.float64], depth: NDArray[np.float64]) -> NDArray[np.float64]:
    share = np.divide(counts, depth[:, None], out=np.zeros_like(counts), where=depth[:, None] > 0)
    return np.log1p(NORMALISED_DEPTH * share)


def _pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation of the columns of (spot, gene) arrays; NaN where one is constant."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norm = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    correlation: NDArray[np.float64] = np.divide(
        (a * b).sum(axis=0), norm, out=np.full(a.shape[1], np.nan), where=norm > 0
    )
    return correlation
