"""Charts are drawn of what is known, and say what is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iscale.plots.charts import BAR, MARKED, draw_histogram, draw_intervals, draw_sorted_scores


def _pixels(path: Path, colour: str) -> np.ndarray:
    """Columns of the pixels of a colour."""
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return np.nonzero(np.abs(picture - wanted).max(axis=-1) <= 3)[1]


def test_the_threshold_stands_where_it_is(tmp_path: Path) -> None:
    edges = np.linspace(0, 1, 11)
    columns = []
    for threshold in (0.25, 0.75):
        path = tmp_path / f"{threshold}.png"
        draw_histogram(path, np.ones(10), edges, threshold, "Nuclei $", "density")
        found = _pixels(path, MARKED)
        columns.append(np.bincount(found).argmax())
    assert columns[1] - columns[0] == pytest.approx(0.5 * 0.85 * 6.4 * 120, rel=0.1)


@pytest.mark.parametrize("threshold", [None, float("nan")])
def test_without_a_threshold_there_is_no_line(tmp_path: Path, threshold: float | None) -> None:
    draw_histogram(tmp_path / "h.png", [0, 0], [0, 1, 2], threshold, "empty", "x")
    assert not len(_pixels(tmp_path / "h.png", MARKED))


def test_scores_without_an_interval_or_a_peer_are_drawn(tmp_path: Path) -> None:
    nan = np.full(3, np.nan)
    score = np.array([0.9, np.nan, -0.1])
    draw_intervals(tmp_path / "i.png", ["A", "$B", "_C"], score, nan, nan, {"kNN": nan}, "genes", "score")
    draw_sorted_scores(tmp_path / "s.png", {"this run": score, "ridge": nan}, "scores", "Pearson")
    assert len(_pixels(tmp_path / "i.png", BAR)) > 20
    assert len(_pixels(tmp_path / "s.png", BAR)) > 20
