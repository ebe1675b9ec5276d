"""Held-out spots, predicted by a model that has not seen them, and by two baselines that have not either."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from iscale.captures.integrate import LEAST_SPOTS
from iscale.captures.spots import DiscFeatures
from iscale.engine.memory import give_back
from iscale.holdout.folds import Folds
from iscale.model.baselines import NearestBaseline, RidgeBaseline, disc_mean_features
from iscale.model.ensemble import recipe_module

if TYPE_CHECKING:
    from iscale.model.data import TrainingData

LEAST_COVERED = 0.5
"""Share of a spot's disc that lies on the mother's tissue, of spots that are tested. Sections differ at their edges:
what a capture measured where the mother has glass tells of the alignment, not of the gene."""
GENES_AT_ONCE = 128
"""Genes of which all spots are held in float64 at a time."""


@dataclass(frozen=True)
class Held:
    """One fold: what is learnt from, and what is tested.

    Attributes
    ----------
    train, test
        Indices of the spots that the model learns from, and of those that it is tested on.
    """

    train: NDArray[np.int64]
    test: NDArray[np.int64]

    @classmethod
    def of(cls, folds: Folds, fold: int, data: TrainingData) -> Held:
        """The spots of a fold; not tested are those that lie off tissue for the most part, or are empty."""
        covered = np.diff(data.starts) >= LEAST_COVERED * data.disc_size.cpu().numpy()
        known = covered & data.usable & (data.depth.cpu().numpy() > 0)
        test = folds.tested(fold)
        return cls(np.flatnonzero(folds.trained(fold) & data.usable), test[known[test]])

    @property
    def possible(self) -> bool:
        """Whether there is enough to learn from, and anything to test."""
        return len(self.train) >= LEAST_SPOTS and len(self.test) > 0


def predict_held(
    held: Held, data: TrainingData, *, recipe: str, seed: int, n_states: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Train on what is not held out, as a run does, and predict the tested spots.

    Nothing of other spots than those trained on reaches the model but their number.

    Parameters
    ----------
    held
        The fold.
    data
        All spots; which of them it holds out itself does not matter.
    recipe, seed, n_states
        As of the run.

    Returns
    -------
    expression, depth
        (tested spot, gene) and (tested spot,) expected counts.
    """
    from iscale.model.fit import predict_spots

    held_out = np.ones_like(data.held_out)
    held_out[held.train] = False
    ensemble, _ = recipe_module(recipe).train(replace(data, held_out=held_out), seed=seed, n_states=n_states)
    give_back()
    return predict_spots(ensemble, data, held.test)


def predict_baselines(
    held: Held, data: TrainingData, discs: DiscFeatures, *, seed: int
) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.float64]]]:
    """Predict ``log1p`` of the tested spots' counts from the same spots as the model has.

    Yields
    ------
    genes, nearest, ridge
        Some genes, and (tested spot, gene) of each baseline: means of the nearest spots, and ridge regression on the
        mean features of discs.
    """
    train = held.train[data.depth.cpu().numpy()[held.train] > 0]
    xy = data.xy_um.cpu().numpy().astype(np.float64)
    nearest = NearestBaseline(xy[train], xy[held.test], seed=seed)
    means = disc_mean_features(discs, len(data.starts) - 1)
    ridge = RidgeBaseline(means[train], means[held.test], seed=seed)
    del means
    for start in range(0, len(data.genes), GENES_AT_ONCE):
        genes = slice(start, min(start + GENES_AT_ONCE, len(data.genes)))
        targets = np.log1p(data.counts[train, genes].cpu().numpy().astype(np.float64))
        yield genes, nearest(targets), ridge(targets)
