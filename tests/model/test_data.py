"""Rows in a file are the rows that memory would hold: what is learnt from them is the same to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from iscale.captures.spots import DiscFeatures
from iscale.model.baselines import disc_mean_features
from iscale.model.data import RowFile
from iscale.model.discs import spot_starts
from iscale.model.fit import fit
from iscale.store.scratch import FileRows


def on_disk(discs: DiscFeatures, n_spots: int, folder: Path) -> DiscFeatures:
    """The same rows in a file, the spots' in reverse and with gaps between them."""
    starts = spot_starts(discs.spot, n_spots)
    file = FileRows.nameless(folder, discs.features.shape[1])
    first = len(discs.spot) + 3 * n_spots - starts[1:] - 3 * np.arange(n_spots)
    for spot in range(n_spots):
        file.write(int(first[spot]), discs.features[starts[spot] : starts[spot + 1]])
    return DiscFeatures(RowFile(file, starts, first), discs.spot)


@pytest.fixture
def filed(problem, tmp_path) -> DiscFeatures:
    return on_disk(problem.discs, len(problem.spots.depth), tmp_path / "scratch")


def test_any_rows_are_those_of_memory(problem, filed) -> None:
    features = filed.features
    assert (len(features), *features.shape) == (len(problem.discs.features), *problem.discs.features.shape)
    rng = np.random.default_rng(0)
    for rows in (np.arange(50), rng.integers(0, len(features), 300), np.arange(0), np.array([len(features) - 1])):
        np.testing.assert_array_equal(features[rows].numpy(), problem.discs.features[rows])
        np.testing.assert_array_equal(features[torch.from_numpy(rows)].numpy(), problem.discs.features[rows])


@pytest.mark.parametrize(("recipe", "epochs"), [("default", None), ("published", 3)])
def test_a_fit_is_the_same_to_the_bit(problem, filed, tmp_path, recipe, epochs) -> None:
    results = [
        fit(problem.spots, discs, **problem.frame, recipe=recipe, max_epochs=epochs) for discs in (problem.discs, filed)
    ]
    for k, result in enumerate(results):
        result.ensemble.save(tmp_path / str(k))
    a, b = ((tmp_path / str(k) / "ensemble.safetensors").read_bytes() for k in range(2))
    assert a == b
    assert results[0].history == results[1].history
    for name, scores in results[0].held_out_scores.items():
        np.testing.assert_array_equal(scores, results[1].held_out_scores[name])


def test_disc_means_are_those_of_memory(problem, filed) -> None:
    n = len(problem.spots.depth)
    np.testing.assert_array_equal(disc_mean_features(filed, n), disc_mean_features(problem.discs, n))
