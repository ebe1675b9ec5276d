"""A small problem whose answer is known: expression that the features of a superpixel determine linearly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import nn

from iscale.captures.spots import DiscFeatures, TrainingSpots
from iscale.model.discs import disc_rows
from iscale.model.published import StackedNetworks


@dataclass(frozen=True)
class Problem:
    """Spots of two radii on a slide with a hole in the tissue, their discs, and the truth per superpixel.

    ``truth`` is (superpixel, gene) and ``features`` (superpixel, feature), both row by row over the slide.
    """

    spots: TrainingSpots
    discs: DiscFeatures
    truth: NDArray[np.float64]
    features: NDArray[np.float32]
    pixel_size_um: float = 0.75
    superpixel_um: float = 12.0

    @property
    def frame(self) -> dict[str, Any]:
        return {"pixel_size_um": self.pixel_size_um, "superpixel_um": self.superpixel_um}


@pytest.fixture(scope="module", autouse=True)
def one_core() -> Iterator[None]:
    """Small problems train on one core: threads that wait for each other on a busy machine cost more than they do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iscale.engine.machine.available_cores", lambda: 1)
        yield


@pytest.fixture(scope="session")
def problem() -> Problem:
    return make_problem()


def make_problem(n_spots: int = 160, n_features: int = 12, n_genes: int = 4, seed: int = 0) -> Problem:
    rng, side = np.random.default_rng(seed), 40
    smooth = gaussian_filter(rng.normal(size=(side, side, n_features)), (1.5, 1.5, 0))
    features = (smooth / smooth.std()).reshape(side * side, n_features).astype(np.float32)
    truth = np.clip(2 + features[:, :n_genes] * np.linspace(0.3, 0.6, n_genes), 0, None).astype(np.float64)
    centre = rng.integers(0, side, size=(n_spots, 2))
    radius_um = np.where(np.arange(n_spots) < n_spots // 2, 20.0, 32.0)
    spot, position = disc_rows(centre, radius_um, 12.0, (side, side))
    on_tissue = ((position - side // 2) ** 2).sum(axis=1) > 9
    spot, position = spot[on_tissue], position[on_tissue]
    at = position[:, 0] * side + position[:, 1]
    counts = np.zeros((n_spots, n_genes))
    np.add.at(counts, spot, truth[at])
    spots = TrainingSpots(
        genes=tuple(f"G{k}" for k in range(n_genes)),
        counts=counts.astype(np.float32),
        depth=counts.sum(axis=1).astype(np.float32),
        xy_px=(centre[:, ::-1] * 16 + 8).astype(np.float64),
        radius_um=radius_um,
        capture=(radius_um > 25).astype(np.int64),
        captures=("A", "B"),
    )
    return Problem(spots, DiscFeatures(features[at], spot), truth, features)


@pytest.fixture
def as_modules() -> Callable[[StackedNetworks], list[nn.Sequential]]:
    return _as_modules


def _as_modules(networks: StackedNetworks) -> list[nn.Sequential]:
    """The same states as plain torch modules."""
    states = []
    for state in range(networks.n_states):
        layers: list[nn.Module] = []
        for weight, bias in zip(networks.weights, networks.biases, strict=True):
            linear = nn.Linear(weight.shape[1], weight.shape[2])
            with torch.no_grad():
                linear.weight.copy_(weight[state].T)
                linear.bias.copy_(bias[state, 0])
            layers += [linear, nn.LeakyReLU(0.1)]
        states.append(nn.Sequential(*layers[:-1], nn.ELU(0.01)))
    return states
