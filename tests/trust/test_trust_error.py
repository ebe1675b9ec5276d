"""The standard error that the benchmark of trust prints beside its differences."""

from __future__ import annotations

import numpy as np

from benchmarks.trust import Compared, difference, standard_error

GENES, SIDE = 40, 14
SHARE = np.linspace(0.5, 0.75, GENES)
"""How much of each gene's variation is predicted."""


def _compared(rng: np.random.Generator, *, same: bool = False) -> Compared:
    """Spots of a square of tissue, predicted by one method better than by the other, or by both the same."""
    places = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2).astype(np.float64)
    signal = rng.normal(size=(len(places), GENES))
    measured = SHARE * signal + np.sqrt(1 - SHARE**2) * rng.normal(size=signal.shape)
    ridge = signal if same else signal + rng.normal(size=signal.shape)
    return Compared(measured, {"ours": signal, "ridge": ridge}, np.zeros(len(places), np.int64), places)


def test_no_error_where_both_methods_predict_the_same() -> None:
    rng = np.random.default_rng(0)
    held, own = _compared(rng, same=True), _compared(rng, same=True)
    assert difference(held, own)[1] == 0
    assert standard_error(held, own) == 0


def test_error_is_how_differences_vary_from_tissue_to_tissue() -> None:
    rng = np.random.default_rng(1)
    tissues = [(_compared(rng), _compared(rng)) for _ in range(40)]
    varies = np.std([difference(*pair)[1] for pair in tissues], ddof=1)
    told = np.mean([standard_error(*pair) for pair in tissues[:3]])
    assert 0.7 * varies < told < 1.5 * varies


def test_scores_do_not_follow_what_moves_a_whole_capture() -> None:
    one = _compared(np.random.default_rng(2))
    capture = (np.arange(len(one.measured)) % 2).astype(np.int64)
    apart = Compared(one.measured, one.predicted, capture, one.xy_um)
    moved = Compared(one.measured + 9 * capture[:, None], one.predicted, capture, one.xy_um)
    assert np.allclose(apart.scores("ours"), moved.scores("ours"))
