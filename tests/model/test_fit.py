from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from iscale.captures.spots import DiscFeatures
from iscale.errors import InputError
from iscale.model.data import hold_out, training_data
from iscale.model.fit import fit, score


class Oracle:
    """Predicts a spot's measured counts, spread evenly over the rows of its disc."""

    recipe, n_states = "oracle", 1

    def __init__(self, data, noise: float = 0.0) -> None:
        self.genes = data.genes
        rows = torch.from_numpy(np.diff(data.starts)).repeat_interleave(torch.from_numpy(np.diff(data.starts)))
        spot = torch.from_numpy(np.repeat(np.arange(len(data.counts)), np.diff(data.starts)))
        self.by_row = dict(zip(map(tuple, data.features.tolist()), range(len(spot)), strict=True))
        self.counts, self.total = data.counts[spot] / rows[:, None], data.depth[spot] / rows

    def hidden(self, features, xy_um):
        return torch.tensor([self.by_row[tuple(row)] for row in features.tolist()])

    def expression(self, hidden, genes):
        values = self.counts[hidden][:, genes].T
        return values, torch.zeros_like(values)

    def depth(self, hidden):
        return self.total[hidden]


def distinct(problem):
    """The problem with rows that name themselves."""
    features = problem.discs.features.copy()
    features[:, 0] = np.arange(len(features))
    return DiscFeatures(features, problem.discs.spot)


def test_scores_of_the_truth_are_one(problem) -> None:
    rng = np.random.default_rng(0)
    spots = dataclasses.replace(problem.spots, depth=rng.uniform(100, 900, len(problem.spots.depth)).astype("f4"))
    data = training_data(spots, distinct(problem), **problem.frame, seed=0, device=torch.device("cpu"))
    scores = score(Oracle(data), data, np.arange(0, 160, 2))
    np.testing.assert_allclose(scores["counts"], 1, atol=1e-9)
    np.testing.assert_allclose(scores["depth_normalised"], 1, atol=1e-9)


def test_score_of_a_gene_without_variance_is_missing(problem) -> None:
    counts = problem.spots.counts.copy()
    counts[:, 1] = 0
    spots = dataclasses.replace(problem.spots, counts=counts)
    data = training_data(spots, distinct(problem), **problem.frame, seed=0, device=torch.device("cpu"))
    assert np.isnan(score(Oracle(data), data, np.arange(50))["counts"]).tolist() == [False, True, False, False]


def test_held_out_spots_are_a_tenth_of_those_on_tissue_and_fixed_by_the_seed() -> None:
    usable = np.arange(400) % 4 != 0
    held_out = hold_out(usable, 7)
    assert held_out.sum() == 30
    assert not held_out[~usable].any()
    assert (hold_out(usable, 7) == held_out).all()
    assert (hold_out(usable, 8) != held_out).any()
    assert hold_out(np.ones(3, dtype=bool), 0).sum() == 1


def test_held_out_spots_do_not_shape_the_model(problem) -> None:
    def bits(spots):
        result = fit(spots, problem.discs, **problem.frame, recipe="published", seed=1, n_states=1, max_epochs=2)
        return result.held_out, result.ensemble.tensors()

    held_out, tensors = bits(problem.spots)
    counts, depth = problem.spots.counts.copy(), problem.spots.depth.copy()
    counts[held_out] *= 100
    depth[held_out] *= 100
    _, other = bits(dataclasses.replace(problem.spots, counts=counts, depth=depth))
    assert all(torch.equal(tensors[name], other[name]) for name in tensors)


def test_spots_off_tissue_are_neither_trained_on_nor_held_out(problem) -> None:
    keep = problem.discs.spot % 3 != 0
    discs = DiscFeatures(problem.discs.features[keep], problem.discs.spot[keep])
    result = fit(problem.spots, discs, **problem.frame, recipe="published", n_states=1, max_epochs=1)
    assert not result.held_out[::3].any()
    assert result.held_out.sum() > 0
    assert np.isfinite(result.history[0]["train_loss"])


def test_each_epoch_is_reported(problem) -> None:
    seen: list[dict[str, float]] = []
    result = fit(
        problem.spots,
        problem.discs,
        **problem.frame,
        recipe="published",
        n_states=1,
        max_epochs=2,
        on_epoch=seen.append,
    )
    assert seen == result.history
    assert set(seen[0]) == {"epoch", "train_loss", "held_out_loss"}


def test_too_few_spots_is_an_error_with_the_numbers(problem) -> None:
    keep = problem.discs.spot < 10
    discs = DiscFeatures(problem.discs.features[keep], problem.discs.spot[keep])
    with pytest.raises(InputError, match=r"9 of 160 spots can be trained on"):
        fit(problem.spots, discs, **problem.frame, recipe="published")


@pytest.mark.parametrize("name", ["counts", "depth"])
def test_counts_that_are_not_finite_are_refused(problem, name) -> None:
    values = getattr(problem.spots, name).copy()
    values[3] = np.nan
    with pytest.raises(InputError, match="NaN"):
        fit(dataclasses.replace(problem.spots, **{name: values}), problem.discs, **problem.frame, recipe="published")


@pytest.mark.parametrize("options", [{"n_states": 0}, {"max_epochs": 0}, {"recipe": "best"}])
def test_options_out_of_range_are_refused(problem, options) -> None:
    with pytest.raises(InputError):
        fit(problem.spots, problem.discs, **problem.frame, **({"recipe": "published"} | options))
