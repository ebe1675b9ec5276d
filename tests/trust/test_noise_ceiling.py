"""The ceiling is the correlation that the true rates of Poisson counts have with the counts."""

from __future__ import annotations

import numpy as np
import pytest

from iscale.trust.correlation import noise_ceiling

N = 3000


def rates(rng: np.random.Generator, mean: float, variation: float, n: int = N) -> np.ndarray:
    spread = np.sqrt(np.log1p(variation**2))
    return mean * np.exp(spread * rng.normal(size=n) - spread**2 / 2)


@pytest.mark.parametrize("variation", [0.5, 1.2])
@pytest.mark.parametrize("mean", [0.3, 1.0, 5.0, 50.0])
def test_it_is_what_the_true_rates_score(mean: float, variation: float) -> None:
    rng = np.random.default_rng(0)
    rate = np.stack([rates(rng, mean, variation) for _ in range(20)], axis=1)
    counts = rng.poisson(rate)
    truth = [np.corrcoef(np.log1p(counts[:, k]), np.log1p(rate[:, k]))[0, 1] for k in range(20)]
    found = noise_ceiling(counts, np.zeros(N, np.int64), per_molecule=np.ones(N))
    assert np.mean(found) == pytest.approx(np.mean(truth), abs=0.03)


def test_noise_alone_has_hardly_any() -> None:
    counts = np.random.default_rng(0).poisson(3, (N, 50))
    assert np.mean(noise_ceiling(counts, np.zeros(N, np.int64), per_molecule=np.ones(N))) < 0.2


@pytest.mark.parametrize("few", [60, 200])
def test_few_spots_are_split_often_enough(few: int) -> None:
    rng = np.random.default_rng(1)
    rate = np.stack([rates(rng, 2.0, 1.0, few) for _ in range(100)], axis=1)
    counts = rng.poisson(rate)
    truth = [np.corrcoef(np.log1p(c), np.log1p(r))[0, 1] for c, r in zip(counts.T, rate.T, strict=True)]
    found = noise_ceiling(counts, np.zeros(few, np.int64), per_molecule=np.ones(few))
    assert np.mean(found) == pytest.approx(np.mean(truth), abs=0.05)


def test_merged_and_scaled_spots_have_the_noise_of_their_molecules() -> None:
    rng = np.random.default_rng(2)
    rate = np.stack([rates(rng, 1.0, 0.8) for _ in range(20)], axis=1)
    members, scale = 8, 3.0
    merged = scale * rng.poisson(members * rate) / members
    truth = [np.corrcoef(np.log1p(merged[:, k]), np.log1p(scale * rate[:, k]))[0, 1] for k in range(20)]
    found = noise_ceiling(merged, np.zeros(N, np.int64), per_molecule=np.full(N, scale / members))
    assert np.mean(found) == pytest.approx(np.mean(truth), abs=0.03)


def test_the_depth_of_captures_does_not_count() -> None:
    rng, capture = np.random.default_rng(3), np.repeat([0, 1], N // 2)
    counts = rng.poisson(np.where(capture, 1.0, 30.0)[:, None] * np.ones((1, 20)))
    assert np.mean(noise_ceiling(counts, capture, per_molecule=np.ones(N))) < 0.25
    assert np.mean(noise_ceiling(counts, np.zeros(N, np.int64), per_molecule=np.ones(N))) > 0.8


def test_a_gene_that_was_not_counted_has_none() -> None:
    assert np.isnan(noise_ceiling(np.zeros((50, 2)), np.zeros(50, np.int64), per_molecule=np.ones(50))).all()
