from __future__ import annotations

import numpy as np
import pytest

from iscale.regions.marker_genes import COLUMNS, STATISTICS, Sums, relative_expression, statistics, write_markers


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 5000).astype(np.uint8)
    relative = rng.gamma(2, 3, (6, 5000)) + 4 * (labels == 2) * np.arange(6)[:, None]
    return relative, labels


def test_statistics_are_those_of_all_superpixels_at_once(case) -> None:
    relative, labels = case
    sums = Sums.of_nothing(6, 3)
    for at in np.array_split(np.arange(5000), 7):
        sums.add(relative[:, at], np.log1p(relative[:, at]), labels[at])
    found = dict(zip(STATISTICS, np.moveaxis(statistics(sums), 1, 0), strict=True))
    for cluster in (1, 2, 3):
        inside, outside = labels == cluster, (labels != cluster) & (labels > 0)
        for gene in range(6):
            a, b = (np.log1p(relative[gene, at]) for at in (inside, outside))
            pooled = np.sqrt((len(a) * a.var() + len(b) * b.var()) / (len(a) + len(b)))
            expected = {
                "effect_size": (a.mean() - b.mean()) / pooled,
                "mean_in": relative[gene, inside].mean(),
                "mean_out": relative[gene, outside].mean(),
                "mean_log": a.mean(),
                "variance_log": a.var(),
            }
            expected["log2_fold_change"] = np.log2((expected["mean_in"] + 1) / (expected["mean_out"] + 1))
            for name, value in expected.items():
                assert found[name][gene, cluster - 1] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_what_is_not_known_is_nan_and_constant_genes_have_no_effect() -> None:
    sums = Sums.of_nothing(1, 3)
    relative = np.full((1, 10), 7.0)
    sums.add(relative, np.log1p(relative), np.array([1] * 5 + [2] * 5, np.uint8))
    effect = statistics(sums)[0, STATISTICS.index("effect_size")]
    assert effect[:2].tolist() == [0, 0]
    assert np.isnan(effect[2])
    alone = Sums.of_nothing(1, 2)
    alone.add(relative, np.log1p(relative), np.ones(10, np.uint8))
    assert np.isnan(statistics(alone)[0, STATISTICS.index("effect_size")]).all()


def test_relative_expression_is_per_ten_thousand_counts_where_depth_is_known() -> None:
    expression = np.array([[[1.0, 2.0, np.nan, 1.0]]], np.float16)
    relative, there = relative_expression(expression, np.array([[100.0, 400.0, np.nan, 0.0]], np.float16))
    assert there.tolist() == [[True, True, False, False]]
    assert relative.tolist() == [[100.0, 50.0]]


def test_the_table_has_the_genes_that_are_higher_the_clearest_first(tmp_path) -> None:
    effect = np.array([[0.5, -1.0, np.nan], [2.0, 1.0, np.nan], [-3.0, 0.0, np.nan]])
    found = dict.fromkeys(STATISTICS, effect)
    write_markers(tmp_path / "a" / "markers.tsv", found, ("A", "B", "C"))
    lines = [line.split("\t") for line in (tmp_path / "a" / "markers.tsv").read_text().splitlines()]
    assert tuple(lines[0]) == COLUMNS
    assert [line[:4] for line in lines[1:]] == [["1", "1", "B", "2"], ["1", "2", "A", "0.5"], ["2", "1", "B", "1"]]
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["markers.tsv"]
