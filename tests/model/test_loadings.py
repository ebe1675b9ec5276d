"""Genes from factors in NumPy are what the ensemble gives in torch, and what is stored is enough for them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from iscale.model import additive
from iscale.model.loadings import Loadings, as_components, coarse_means, positive_counts
from iscale.model.sizes import FACTORS
from iscale.store.layout import COARSE_STEP

STATES, USED, GENES, CELLS = 3, 7, 40, 50


def loadings(seed: int = 0) -> Loadings:
    rng = np.random.default_rng(seed)
    return Loadings(
        tuple(map(str, range(GENES))),
        rng.normal(0, 0.4, (USED, GENES)).astype(np.float32),
        rng.normal(1, 1, GENES).astype(np.float32),
        rng.uniform(0.01, 0.1, GENES).astype(np.float32),
    )


def hidden(n: int = CELLS, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 2, (STATES, n, USED + 1)).astype(np.float32)


def of_the_ensemble(decoder: Loadings, states: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    none = torch.zeros(0)
    tensors = additive.AdditiveTensors(
        *(none,) * 5,
        constant=torch.zeros(STATES, 1, USED + 1),
        linear=none,
        waves=none,
        place=none,
        loading=torch.from_numpy(decoder.loading),
        level=torch.from_numpy(decoder.level),
        share=torch.from_numpy(decoder.share),
    )
    ensemble = additive.AdditiveEnsemble(tuple(map(str, range(GENES))), tensors)
    mean, spread = ensemble.expression(torch.from_numpy(states), slice(0, GENES))
    return mean.numpy(), spread.numpy()


def test_numpy_gives_what_torch_gives() -> None:
    decoder, states = loadings(), hidden()
    mean, spread = of_the_ensemble(decoder, states)
    components = as_components(states)
    assert components.shape == (STATES * FACTORS, CELLS)
    np.testing.assert_allclose(decoder.expression(components), mean, rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(decoder.uncertainty(components), spread, rtol=2e-4, atol=1e-6)


def test_the_bend_is_the_ensembles_from_deep_below_zero_to_far_above() -> None:
    values = np.linspace(-30, 12, 2001, dtype=np.float32)
    np.testing.assert_allclose(
        positive_counts(values.copy()), additive.positive_counts(torch.from_numpy(values)).numpy(), rtol=2e-6, atol=1e-9
    )


def test_float16_factors_cost_less_than_a_hundredth_of_a_maps_spread() -> None:
    decoder, components = loadings(), as_components(hidden(2000))
    exact, stored = decoder.expression(components), decoder.expression(components.astype(np.float16))
    error = np.sqrt(((exact - stored) ** 2).mean(axis=1)) / exact.std(axis=1)
    assert error.max() < 3e-3


def test_off_tissue_stays_nan_and_shapes_are_kept() -> None:
    decoder = loadings()
    components = as_components(hidden(12)).reshape(-1, 3, 4)
    components[:, 1, 2] = np.nan
    values = decoder.expression(components)
    assert values.shape == (GENES, 3, 4)
    assert np.isnan(values[:, 1, 2]).all()
    assert np.isfinite(np.delete(values.reshape(GENES, -1), 6, axis=1)).all()
    np.testing.assert_allclose(values[:, 0, 0], decoder.expression(components[:, 0, 0]).reshape(-1), rtol=1e-6)


def test_coarse_means_are_over_the_tissue_alone() -> None:
    side = 2 * COARSE_STEP
    components = np.arange(2 * side * side, dtype=np.float32).reshape(2, side, side)
    tissue = np.ones((side, side), bool)
    tissue[:COARSE_STEP, :COARSE_STEP] = False
    tissue[0, 0] = True
    tissue[COARSE_STEP:, COARSE_STEP:] = False
    components[:, ~tissue] = 0
    means = coarse_means(components, tissue)
    assert means.shape == (2, 2, 2)
    assert means[:, 0, 0].tolist() == components[:, 0, 0].tolist()
    np.testing.assert_allclose(means[:, 0, 1], components[:, :COARSE_STEP, COARSE_STEP:].mean(axis=(1, 2)), rtol=1e-3)
    assert np.isnan(means[:, 1, 1]).all()
