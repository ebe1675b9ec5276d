"""The gene embedding of both recipes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from iscale.model.additive import relative_axes
from iscale.model.ensemble import RECIPES
from iscale.model.fit import fit
from iscale.model.published import median_over_states
from iscale.model.sizes import SIZES


@pytest.fixture(scope="module")
def ensembles(problem):
    frame = problem.frame
    return {r: fit(problem.spots, problem.discs, **frame, recipe=r, seed=0, max_epochs=2).ensemble for r in RECIPES}


@pytest.fixture(scope="module")
def slide(problem):
    return torch.from_numpy(problem.features[:500]), torch.zeros(500, 2)


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_is_as_wide_as_was_said_beforehand(ensembles, slide, recipe) -> None:
    ensemble = ensembles[recipe]
    embedding = ensemble.embedding(ensemble.hidden(*slide))
    assert embedding.shape == (500, SIZES[recipe].embedding_width)
    assert embedding.dtype == torch.float32
    assert torch.isfinite(embedding).all()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_superpixel_has_the_same_in_any_company(ensembles, slide, recipe) -> None:
    ensemble, (features, xy) = ensembles[recipe], slide
    whole = ensemble.embedding(ensemble.hidden(features, xy))
    part = ensemble.embedding(ensemble.hidden(features[7:20], xy[7:20]))
    torch.testing.assert_close(part, whole[7:20], rtol=1e-4, atol=1e-5)


def test_distances_are_those_of_relative_expression_over_all_genes(ensembles, slide) -> None:
    ensemble = ensembles["default"]
    hidden = ensemble.hidden(*slide)
    log = hidden[..., :-1].mean(dim=0).double() @ ensemble.numbers.loading.double() + ensemble.numbers.level.double()
    relative = log - log.mean(dim=1, keepdim=True)
    expected = torch.cdist(relative, relative) / relative.shape[1] ** 0.5
    # The level, which all superpixels share, takes no part.
    embedding = ensemble.embedding(hidden).double()
    torch.testing.assert_close(torch.cdist(embedding, embedding), expected, rtol=1e-3, atol=1e-4)


def test_depth_alone_moves_nothing() -> None:
    loading = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0]])
    axes = relative_axes(loading)
    assert (torch.tensor([[5.0, 0.0]]) @ axes).abs().max() < 1e-6
    assert (torch.tensor([[0.0, 1.0]]) @ axes).norm() == pytest.approx((2 / 3) ** 0.5)


def test_axes_are_in_order_and_have_one_sign() -> None:
    axes = relative_axes(torch.from_numpy(np.random.default_rng(0).normal(size=(5, 40))).float())
    assert (axes.norm(dim=0).diff() <= 0).all()
    assert (axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)) > 0).all()
    torch.testing.assert_close(relative_axes(-torch.eye(3)).abs(), relative_axes(torch.eye(3)).abs())


def test_the_published_one_is_the_median_over_states_of_the_last_hidden_layer(ensembles, slide) -> None:
    ensemble = ensembles["published"]
    hidden = ensemble.hidden(*slide)
    torch.testing.assert_close(ensemble.embedding(hidden), median_over_states(hidden))
    np.testing.assert_allclose(ensemble.embedding(hidden), np.median(hidden, axis=0), rtol=1e-6)
