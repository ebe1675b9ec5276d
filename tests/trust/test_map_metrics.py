"""Every metric is the library's, on what both maps have, at every size of block."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr, wasserstein_distance
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import root_mean_squared_error
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import minmax_scale
from small_runs import true_and_guess

from iscale.trust import metrics as module
from iscale.trust.metrics import BLOCKS, METRICS, block_means, compare_maps, paired, scaled


def plain_blocks(values: NDArray[np.float64], block: int) -> NDArray[np.float64]:
    """Block means, cell by cell, as one would by hand."""
    result = np.full((values.shape[0] // block, values.shape[1] // block), np.nan)
    for i, j in np.ndindex(result.shape):
        cells = values[i * block : (i + 1) * block, j * block : (j + 1) * block]
        there = cells[np.isfinite(cells)]
        if 2 * len(there) >= block**2:
            result[i, j] = there.mean()
    return result


def by_libraries(true: NDArray[np.float64], guess: NDArray[np.float64]) -> dict[str, float]:
    """The metrics of two scaled maps without calling anything of ours."""
    both = np.isfinite(true)
    a, b = true[both], guess[both]
    _, similarity = structural_similarity(np.nan_to_num(true), np.nan_to_num(guess), data_range=1.0, full=True)
    whole = np.zeros(both.shape, bool)
    for i in range(3, both.shape[0] - 3):
        for j in range(3, both.shape[1] - 3):
            whole[i, j] = both[i - 3 : i + 4, j - 3 : j + 4].all()
    return {
        "rmse": root_mean_squared_error(a, b),
        "pearson": pearsonr(a, b).statistic,
        "spearman": spearmanr(a, b).statistic,
        "uncentred": cosine_similarity([a], [b])[0, 0],
        "ssim": similarity[whole].mean() if whole.any() else np.nan,
        "psnr": peak_signal_noise_ratio(a, b, data_range=1.0),
        "wasserstein": wasserstein_distance(a, b),
    }


@pytest.mark.parametrize("block", BLOCKS)
def test_metrics_are_those_of_the_libraries_with_missing_cells(block: int) -> None:
    true, guess = true_and_guess((1, 96, 128))
    found_pair = [scaled(block_means(v, block)) for v in paired(true[0], guess[0])]
    found = compare_maps(*found_pair)
    both = np.isfinite(true[0]) & np.isfinite(guess[0])
    pair = [plain_blocks(np.where(both, v, np.nan).astype(np.float64), block) for v in (true[0], guess[0])]
    pair = [minmax_scale(v.ravel()).reshape(v.shape) for v in pair]
    assert 0 < np.isnan(pair[0]).sum() < pair[0].size
    expected = by_libraries(*pair)
    assert list(found) == list(METRICS)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name
    assert not np.isnan(expected["ssim"]) or block == 8


@pytest.mark.parametrize("block", BLOCKS)
def test_ssim_of_a_whole_map_is_the_librarys(block: int) -> None:
    rng = np.random.default_rng(1)
    true, guess = (block_means(rng.random((96, 128)), block) for _ in range(2))
    a, b = scaled(true), scaled(guess)
    assert compare_maps(a, b)["ssim"] == pytest.approx(structural_similarity(a, b, data_range=1.0), abs=1e-12)


def test_ssim_does_not_depend_on_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    true, guess = (scaled(v) for v in paired(*(v[0] for v in true_and_guess((1, 96, 128)))))
    whole = compare_maps(true, guess)["ssim"]
    for tile in (9, 16, 50):
        monkeypatch.setattr(module, "TILE", tile)
        assert compare_maps(true, guess)["ssim"] == pytest.approx(whole, abs=1e-12)


def test_ssim_needs_windows_of_seven() -> None:
    rng = np.random.default_rng(2)
    assert np.isnan(compare_maps(*(rng.random((6, 40)) for _ in range(2)))["ssim"])
    holes = rng.random((40, 40))
    holes[::6, ::6] = np.nan
    found = compare_maps(*paired(holes, rng.random((40, 40))))
    assert np.isnan(found["ssim"])
    assert np.isfinite(found["pearson"])


def test_constant_maps_have_no_correlation_and_raise_no_warning() -> None:
    rng = np.random.default_rng(3)
    varied, constant = scaled(rng.random((16, 16))), scaled(np.full((16, 16), 7.0))
    for pair in ((varied, constant), (constant, varied), (constant, constant)):
        found = compare_maps(*pair)
        assert all(np.isnan(found[name]) for name in ("pearson", "spearman", "uncentred"))
        assert np.isfinite([found[name] for name in ("rmse", "wasserstein", "ssim")]).all()
    nearly = scaled(np.full((16, 16), 1e9))
    nearly[0, 0] = 1e-300
    compare_maps(varied, nearly)


def test_equal_maps_score_best_and_empty_ones_not_at_all() -> None:
    varied = scaled(np.random.default_rng(4).random((16, 16)))
    found = compare_maps(varied, varied)
    assert (found["rmse"], found["wasserstein"]) == (0, 0)
    assert np.isposinf(found["psnr"])
    assert [found[name] for name in ("pearson", "spearman", "uncentred", "ssim")] == pytest.approx([1] * 4)
    nothing = np.full((16, 16), np.nan)
    assert all(np.isnan(value) for value in compare_maps(nothing, varied).values())
    one = nothing.copy()
    one[3, 3] = 0.0
    assert np.isnan(compare_maps(one, one)["pearson"])


def test_scaling_makes_efficiency_irrelevant() -> None:
    true, guess = paired(*(v[0] for v in true_and_guess((1, 32, 48))))
    a = compare_maps(scaled(true), scaled(guess))
    b = compare_maps(scaled(0.01 * true + 3), scaled(guess))
    assert a == pytest.approx(b, abs=1e-9)


def test_ranks_of_large_maps_are_of_rows_and_columns_fixed_by_their_place() -> None:
    rng = np.random.default_rng(5)
    true, guess = rng.random((40, 50)), rng.random((40, 50))
    whole = compare_maps(true, guess, 2, (0, 0))
    assert whole["spearman"] == pytest.approx(spearmanr(true[::2, ::2].ravel(), guess[::2, ::2].ravel()).statistic)
    assert whole["pearson"] == pytest.approx(pearsonr(true.ravel(), guess.ravel()).statistic)
    part = compare_maps(true[3:, 5:], guess[3:, 5:], 2, (3, 5))
    assert part["spearman"] == pytest.approx(spearmanr(true[4::2, 6::2].ravel(), guess[4::2, 6::2].ravel()).statistic)


@given(st.integers(0, 10_000), st.sampled_from(BLOCKS))
def test_blocks_are_means_where_half_is_there(seed: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.random((16, 24))
    values[rng.random((16, 24)) < 0.5] = np.nan
    np.testing.assert_allclose(block_means(values, block), plain_blocks(values, block))
