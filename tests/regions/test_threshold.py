"""The threshold is found where nuclei are many, few, everywhere or not at all."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from iscale.regions.nuclei import (
    LEAST,
    MOST,
    Threshold,
    dense_part,
    edges,
    find_threshold,
    haematoxylin,
    haematoxylin_weights,
    histogram,
)

Values = npt.NDArray[np.float32]


def mixed(share: float, pale: tuple[float, float] = (0.2, 0.08), dense: tuple[float, float] = (0.7, 0.2)) -> Values:
    """Densities of 400,000 pixels, a share of them of nuclei."""
    rng = np.random.default_rng(0)
    n = round(400_000 * share)
    return np.concatenate([rng.normal(*pale, 400_000 - n), rng.normal(*dense, n)]).astype(np.float32)


def found(values: Values) -> Threshold:
    return find_threshold(histogram(values), edges())


@pytest.mark.parametrize("share", [0.01, 0.03, 0.1, 0.3, 0.5, 0.7])
def test_two_groups_are_split_between_them_whatever_their_shares(share: float) -> None:
    threshold = found(mixed(share)).value
    assert 0.34 < threshold < 0.5


def test_a_slide_that_is_all_nuclei_keeps_them() -> None:
    """The two groups that are found are pale and dense nuclei then: the upper bound is below both."""
    values = mixed(1.0)
    threshold = found(values)
    assert threshold.value <= MOST
    assert (values > threshold.value).mean() > 0.5
    superpixels = np.random.default_rng(1).choice(values, (2000, 64))
    assert (dense_part(superpixels) > threshold.value).mean() > 0.99


@pytest.mark.parametrize("pale", [0.05, 0.1, 0.15])
def test_a_slide_without_nuclei_keeps_next_to_nothing(pale: float) -> None:
    values = mixed(0.0, (pale, 0.05))
    threshold = found(values)
    assert "no group of nuclei stands out" in threshold.how
    superpixels = np.random.default_rng(1).choice(values, (2000, 64))
    assert (dense_part(superpixels) > threshold.value).mean() < 0.01


def test_pale_stains_are_split_too() -> None:
    threshold = found(mixed(0.2, (0.06, 0.03), (0.28, 0.08)))
    assert LEAST <= threshold.value < 0.2


def test_pixels_that_are_all_alike_have_no_nuclei() -> None:
    assert "no group of nuclei stands out" in found(np.full(5000, 0.1, np.float32)).how


def test_no_pixels_at_all_give_the_highest_threshold() -> None:
    assert found(np.empty(0, np.float32)).value == MOST


def test_the_threshold_says_how_it_was_found() -> None:
    assert found(mixed(0.3)).how == "between two groups of pixels (0.20 +- 0.08 and 0.71 +- 0.19)"


def test_haematoxylin_is_told_from_eosin() -> None:
    """Light through known amounts of each stain: eosin is not seen, haematoxylin is, to the rounding of a byte."""
    haematoxylin_od, eosin_od = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])
    haematoxylin_od, eosin_od = (v / np.linalg.norm(v) for v in (haematoxylin_od, eosin_od))
    assert haematoxylin_weights() @ haematoxylin_od == pytest.approx(1)
    assert haematoxylin_weights() @ eosin_od == pytest.approx(0, abs=1e-12)
    amounts = np.array([[0.0, 0.5], [0.4, 0.4], [0.6, 0.0]])
    od = amounts[:, :1] * haematoxylin_od + amounts[:, 1:] * eosin_od
    pixels = np.round(256 * 10**-od - 1).clip(0, 255).astype(np.uint8).T[:, None]
    np.testing.assert_allclose(haematoxylin(pixels)[0], amounts[:, 0], atol=0.02)


def test_what_is_beyond_the_histogram_counts_at_its_ends() -> None:
    counts = histogram(np.array([-5, 0.001, 9], np.float32))
    assert (counts[0], counts[20], counts[-1], counts.sum()) == (1, 1, 1, 3)
