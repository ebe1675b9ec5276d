from __future__ import annotations

import numpy as np
import pytest
import torch

from iscale.model.default import PENALTIES, fit_ridge


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    design = rng.normal(size=(2, 60, 5))
    targets = design[0] @ rng.normal(size=(5, 3)) + 7 + rng.normal(size=(60, 3)) * [0.1, 1.0, 30.0]
    return tuple(torch.from_numpy(x) for x in (design, rng.uniform(0.5, 2, size=(2, 60)), targets))


def direct(z, w, t, penalty):
    """Ridge regression with a free intercept, from its normal equations."""
    z, w, t = (x.numpy() for x in (z, w, t))
    zc = z - np.average(z, axis=0, weights=w)
    tc = t - np.average(t, axis=0, weights=w)
    b = np.linalg.solve((zc * w[:, None]).T @ zc + penalty * np.eye(z.shape[1]), (zc * w[:, None]).T @ tc)
    return z @ b + np.average(t, axis=0, weights=w) - np.average(z, axis=0, weights=w) @ b


def test_one_penalty_solves_the_normal_equations(data) -> None:
    design, weight, targets = data
    predicted = fit_ridge(design, weight, targets, (4.0,)).predict(design)
    for state in range(2):
        np.testing.assert_allclose(predicted[state], direct(design[state], weight[state], targets, 4.0), rtol=1e-9)


def test_each_target_takes_the_penalty_that_its_noise_asks_for(data) -> None:
    design, weight, targets = data
    predicted = fit_ridge(design, weight, targets).predict(design)[0]
    strongest = direct(design[0], weight[0], targets, PENALTIES[0])
    weakest = direct(design[0], weight[0], targets, PENALTIES[-1])
    np.testing.assert_allclose(predicted[:, 0], weakest[:, 0], rtol=1e-6)
    assert predicted[:, 2].std() < 0.5 * weakest[:, 2].std()
    assert strongest[:, 2].std() <= predicted[:, 2].std() * 1.001


def test_spots_of_no_weight_do_not_count(data) -> None:
    design, weight, targets = data
    weight[:, :20] = 0
    changed = targets.clone()
    changed[:20] += 1000
    a, b = (fit_ridge(design, weight, t) for t in (targets, changed))
    torch.testing.assert_close(a.coefficients, b.coefficients)
    torch.testing.assert_close(a.intercept, b.intercept)


def test_the_path_goes_from_strong_to_weak(data) -> None:
    design, weight, targets = data
    fitted = [error for error, _ in fit_ridge(design, weight, targets).path]
    assert len(fitted) == len(PENALTIES)
    assert fitted == sorted(fitted, reverse=True)
