"""Spots as a truth: predictions summed over discs, scored as SciPy scores them; no blocks, no SSIM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr, wasserstein_distance
from sklearn.metrics import root_mean_squared_error
from sklearn.preprocessing import minmax_scale
from small_runs import true_and_guess, write_run
from test_truth_captures import write_spots

from iscale.demo.her2st import disc_sums
from iscale.engine.watchers import Silence
from iscale.trust.evaluate import evaluate_run

GENES = tuple(f"G{i}" for i in range(12))
RADIUS_PX = 3.4 * 16


@pytest.fixture
def case(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A run, and a folder of spots measured on its slide: counts, and what the run predicts for the spots."""
    rng = np.random.default_rng(0)
    _, guess = true_and_guess((12, 144, 160))
    write_run(tmp_path / "run", guess, GENES)
    xy = rng.uniform((0, 0), (160 * 16, 144 * 16), (90, 2))
    predicted = disc_sums(guess.astype(np.float32), xy, 3.4)
    counts = rng.poisson(np.nan_to_num(predicted, nan=20.0) * rng.lognormal(0, 0.3, predicted.shape))
    counts[:, 4] = 3
    write_spots(tmp_path / "S", counts[:, ::-1], xy, GENES[::-1])
    (tmp_path / "S" / "radius.txt").write_text(f"{RADIUS_PX}\n")
    return tmp_path, counts.astype(float), predicted


def test_spots_are_scored_over_their_discs(case: tuple[Path, np.ndarray, np.ndarray]) -> None:
    folder, counts, predicted = case
    text = evaluate_run(folder / "run", folder / "S", watcher=Silence())
    assert "no blocks, and no SSIM" in text
    out = folder / "run" / "evaluation" / "truth-S"
    table = pd.read_csv(out / "genes.tsv", sep="\t").set_index("gene")
    assert (table["block"] == "spot").all()
    assert table["ssim"].isna().all()
    there = np.isfinite(predicted[:, 0])
    assert 0 < (~there).sum() < 45
    for i, gene in enumerate(GENES):
        a, b = minmax_scale(counts[there, i]), minmax_scale(predicted[there, i])
        row = table.loc[gene]
        assert row["cells"] == there.sum()
        assert row["rmse"] == pytest.approx(root_mean_squared_error(a, b), abs=1e-6)
        assert row["wasserstein"] == pytest.approx(wasserstein_distance(a, b), abs=1e-6)
        if gene == "G4":
            assert row[["pearson", "spearman", "uncentred"]].isna().all()
            continue
        assert row["pearson"] == pytest.approx(pearsonr(a, b).statistic, abs=1e-6)
        assert row["spearman"] == pytest.approx(spearmanr(a, b).statistic, abs=1e-6)

    varying = [i for i in range(12) if i != 4]
    a, b = (minmax_scale(v[there])[:, varying] for v in (counts, predicted))
    expected = [pearsonr(x, y).statistic for x, y in zip(a, b, strict=True)]
    over = pd.read_csv(out / "superpixels.tsv", sep="\t").set_index("measure").loc["pearson"]
    assert (over["block"], over["cells"], over["genes"]) == ("spot", there.sum(), 11)
    assert over["median"] == pytest.approx(np.median(expected), abs=1e-6)
    assert not list(out.glob("*.png"))


def test_a_capture_of_a_project_is_a_truth_by_its_folder(tiny_project: Path, tmp_path: Path) -> None:
    genes = tuple(f"G{i}" for i in range(8))
    rng = np.random.default_rng(1)
    write_run(tmp_path / "run", rng.random((8, 64, 64)), genes)
    given = tiny_project / "DaughterCaptures" / "AllignedToMother" / "D2"
    text = evaluate_run(tmp_path / "run", given, watcher=Silence())
    assert "D2: 36 spots of radius 20 um" in text
    assert "learned from" not in text
    store = tmp_path / "run" / "run.zarr"
    (store / "captures" / "D2").mkdir(parents=True)
    (store / "captures" / "D2" / "zarr.json").write_text("{}")
    assert "D2 is the name of a capture that the model learned from" in evaluate_run(
        tmp_path / "run", given, watcher=Silence()
    )
