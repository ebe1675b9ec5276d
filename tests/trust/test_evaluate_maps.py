"""A run against maps: what is written is what SciPy gives on whole arrays, however the work is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr
from skimage.metrics import structural_similarity
from small_runs import true_and_guess, write_run

from iscale.engine.watchers import Silence
from iscale.errors import InputError, MemoryBudgetError, StoreError
from iscale.plots.draw import draw_map
from iscale.trust import evaluate as command
from iscale.trust import metrics as metrics_module
from iscale.trust import score_maps
from iscale.trust.evaluate import evaluate_run
from iscale.trust.metrics import BLOCKS, METRICS, block_means, paired, scaled
from iscale.trust.prediction import genes_in_common

GENES = tuple(f"G{i}" for i in range(6))


class Heard(Silence):
    """Keeps what a watcher is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []

    def start(self, step: str, total: int, done: int) -> None:
        self.told.append(("start", step, str(total - done)))

    def advance(self, step: str) -> None:
        self.told.append(("advance", step))

    def stop(self, step: str) -> None:
        self.told.append(("stop", step))


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all else here; one test draws."""
    monkeypatch.setattr(command, "draw_map", lambda *_: None)


def evaluated(folder: Path, true: np.ndarray, guess: np.ndarray, **options: str) -> tuple[str, Path]:
    """Evaluate a run of these maps; the text, and the folder of the tables."""
    write_run(folder / "run", guess, GENES)
    np.savez(folder / "measured.npz", genes=np.array(GENES[::-1]), expected=true[::-1])
    text = evaluate_run(folder / "run", folder / "measured.npz", watcher=Silence(), **options)
    return text, folder / "run" / "evaluation" / "truth-measured"


def test_tables_hold_what_whole_arrays_give(tmp_path: Path) -> None:
    true, guess = true_and_guess()
    text, out = evaluated(tmp_path, true, guess)
    table = pd.read_csv(out / "genes.tsv", sep="\t")
    assert list(table) == ["gene", "block", *METRICS, "cells"]
    assert [tuple(row) for row in table[["gene", "block"]].to_numpy()] == [(g, b) for g in GENES for b in BLOCKS]
    means = {
        b: [tuple(scaled(block_means(v, b)) for v in paired(t, g)) for t, g in zip(true, guess, strict=True)]
        for b in BLOCKS
    }
    for row in table.itertuples():
        a, b = means[row.block][GENES.index(row.gene)]
        there = np.isfinite(a)
        assert row.cells == there.sum()
        assert row.pearson == pytest.approx(pearsonr(a[there], b[there]).statistic, abs=1e-6)
        assert row.spearman == pytest.approx(spearmanr(a[there], b[there]).statistic, abs=1e-6)
    assert f"Median over {len(GENES)} genes" in text
    assert str(out) in text

    over = pd.read_csv(out / "superpixels.tsv", sep="\t").set_index(["block", "measure"])
    for block in BLOCKS:
        a, b = (np.stack([pair[k] for pair in means[block]])[:, np.isfinite(means[block][0][0])] for k in (0, 1))
        expected = np.quantile([pearsonr(a[:, i], b[:, i]).statistic for i in range(a.shape[1])], [0.05, 0.5, 0.95])
        row = over.loc[(block, "pearson")]
        assert (row["cells"], row["genes"]) == (a.shape[1], len(GENES))
        np.testing.assert_allclose(row[["q05", "median", "q95"]].astype(float), expected, atol=1e-6)


def test_a_map_is_drawn_per_measure_and_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(command, "draw_map", lambda *given: drawn.append(given) or draw_map(*given))
    _, out = evaluated(tmp_path, *true_and_guess())
    assert sorted(path.name for path in out.glob("*.png")) == sorted(
        f"superpixels-{name}-{block}.png" for name in ("pearson", "rmse") for block in BLOCKS
    )
    assert [(given[1].shape, given[2]) for given in drawn[::2]] == [((48 // b, 64 // b), 8.0 * b) for b in BLOCKS]


def test_results_do_not_depend_on_the_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true, guess = true_and_guess((6, 144, 160))
    _, out = evaluated(tmp_path, true, guess)
    whole = [pd.read_csv(out / name, sep="\t") for name in ("genes.tsv", "superpixels.tsv")]
    monkeypatch.setattr(score_maps, "SIDES", (32,))
    monkeypatch.setattr(metrics_module, "TILE", 32)
    monkeypatch.setattr(score_maps, "STRIP", 7)
    evaluate_run(tmp_path / "run", tmp_path / "measured.npz", watcher=Silence())
    for before, name in zip(whole, ("genes.tsv", "superpixels.tsv"), strict=True):
        pd.testing.assert_frame_equal(before, pd.read_csv(out / name, sep="\t"), rtol=1e-8)


def test_only_the_truths_extent_is_looked_at_and_changes_nothing(tmp_path: Path) -> None:
    true, guess = true_and_guess((6, 64, 64))
    true[:, :21], true[:, :, 43:] = np.nan, np.nan
    text, out = evaluated(tmp_path, true, guess)
    table = pd.read_csv(out / "genes.tsv", sep="\t")
    a, b = (scaled(v) for v in paired(true[2], guess[2]))
    there = np.isfinite(a)
    row = table[(table["gene"] == "G2") & (table["block"] == 1)].iloc[0]
    assert row["cells"] == there.sum()
    assert row["pearson"] == pytest.approx(pearsonr(a[there], b[there]).statistic, abs=1e-6)
    inside = a[21:, :43], b[21:, :43]
    if np.isfinite(inside[0]).all():
        assert row["ssim"] == pytest.approx(structural_similarity(*inside, data_range=1.0), abs=1e-6)
    assert "64 x 64 superpixels" in text


def test_constant_genes_are_told_and_left_out_over_genes(tmp_path: Path) -> None:
    true, guess = true_and_guess()
    true[1] = np.where(np.isfinite(true[1]), 0, np.nan)
    text, out = evaluated(tmp_path, true, guess)
    table = pd.read_csv(out / "genes.tsv", sep="\t").set_index(["gene", "block"])
    assert table.loc["G1", ["pearson", "spearman", "uncentred"]].isna().all(axis=None)
    assert table.loc["G1", ["rmse", "wasserstein"]].notna().all(axis=None)
    assert text.splitlines()[1] == "Warning: 1 of 6 genes has one value everywhere in the truth, so no correlation: G1."
    assert (pd.read_csv(out / "superpixels.tsv", sep="\t")["genes"] == 5).all()


def test_a_truth_that_is_constant_is_told_in_the_first_lines(tmp_path: Path) -> None:
    true, guess = true_and_guess()
    text, _ = evaluated(tmp_path, np.where(np.isfinite(true), 0, np.nan), guess)
    told = text.splitlines()[1]
    assert told.startswith("Warning: 6 of 6 genes have one value everywhere in the truth")
    assert "is it the right file?" in told


def test_two_truths_of_one_name_have_folders_of_their_own(tmp_path: Path) -> None:
    true, guess = true_and_guess()
    text, first = evaluated(tmp_path, true, guess)
    scores = (first / "genes.tsv").read_text()
    other = tmp_path / "other" / "measured.npz"
    other.parent.mkdir()
    np.savez(other, genes=np.array(GENES), expected=guess)
    for _ in range(2):  # the second time its own folder is found again
        text = evaluate_run(tmp_path / "run", other, watcher=Silence())
        assert f"{first}-2" in text
    assert (first / "genes.tsv").read_text() == scores
    assert (first / "source.txt").read_text().strip() == str(tmp_path / "measured.npz")
    assert sorted(path.name for path in first.parent.iterdir()) == ["truth-measured", "truth-measured-2"]


def test_genes_that_are_missing_are_named_with_their_case(tmp_path: Path) -> None:
    true, guess = true_and_guess()
    write_run(tmp_path / "run", guess, GENES)
    np.savez(tmp_path / "t.npz", genes=np.array(["G0", "G1", "G2", "g3", "X", "Y"]), expected=true)
    text = evaluate_run(tmp_path / "run", tmp_path / "t.npz", watcher=Silence())
    assert "3 of the run's 6 genes are not in" in text
    assert "G3, G4, G5. 1 are there in another case: G3 as g3." in text
    np.savez(tmp_path / "t.npz", genes=np.array([f"X{i}" for i in range(6)]), expected=true)
    with pytest.raises(InputError, match=r"no gene in common: it has X0, X1.*the run G0, G1"):
        evaluate_run(tmp_path / "run", tmp_path / "t.npz", watcher=Silence())


def test_a_truth_where_nothing_is_predicted_is_one_clear_error(tmp_path: Path) -> None:
    true, guess = true_and_guess()
    guess[:, :, :40], true[:, :, 24:] = np.nan, np.nan
    with pytest.raises(InputError, match="no prediction where it has values"):
        evaluated(tmp_path, true, guess)
    with pytest.raises(InputError, match="it has no value"):
        evaluated(tmp_path, np.full_like(true, np.nan), guess)


def test_an_unfinished_run_is_one_clear_error(tmp_path: Path) -> None:
    true, guess = true_and_guess()
    run = write_run(tmp_path / "run", guess, GENES)
    np.savez(tmp_path / "t.npz", genes=np.array(GENES), expected=true)
    ledger = run.store.ledgers / "predict.jsonl"
    header = '{"fingerprint": "f", "shape": [300, 300], "shard": [128, 128]}\n'
    ledger.write_text(header + '{"region": [0, 256, 0, 256], "value": 1}\n')
    with pytest.raises(InputError, match="not finished: 5 of 9 regions have no prediction yet"):
        evaluate_run(tmp_path / "run", tmp_path / "t.npz", watcher=Silence())
    ledger.write_text(header + '{"region": [0, 300, 0, 300], "value": 1}\n')
    evaluate_run(tmp_path / "run", tmp_path / "t.npz", watcher=Silence())
    with pytest.raises(InputError, match=r"no run\.zarr here"):
        evaluate_run(tmp_path / "elsewhere", tmp_path / "t.npz", watcher=Silence())


def test_too_large_an_area_fails_before_any_work_with_numbers(tmp_path: Path) -> None:
    true, guess = true_and_guess()
    with pytest.raises(MemoryBudgetError, match=r"evaluate needs .* for the truth's area \(48 x 64 superpixels\)"):
        evaluated(tmp_path, true, guess, memory="602MB")
    assert not (tmp_path / "run" / "evaluation").exists()


def test_the_watcher_hears_of_every_gene_and_tile(tmp_path: Path) -> None:
    true, guess = true_and_guess()
    write_run(tmp_path / "run", guess, GENES)
    np.savez(tmp_path / "t.npz", genes=np.array(GENES), expected=true)
    heard = Heard()
    evaluate_run(tmp_path / "run", tmp_path / "t.npz", watcher=heard)
    genes = [("start", "evaluate/genes", "6"), *[("advance", "evaluate/genes")] * 6, ("stop", "evaluate/genes")]
    assert heard.told[:8] == genes
    assert [told[0] for told in heard.told[8:]] == ["start", "advance", "stop"]


def test_large_areas_say_what_ranks_are_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true, guess = true_and_guess()
    monkeypatch.setattr(metrics_module, "MOST_RANKED", 1000)
    text, out = evaluated(tmp_path, true, guess)
    assert "Spearman and Wasserstein are of every n-th row and column of the slide, n = 2 at blocks of 1" in text
    a, b = (scaled(v)[::2, ::2] for v in paired(true[0], guess[0]))
    there = np.isfinite(a)
    table = pd.read_csv(out / "genes.tsv", sep="\t")
    assert table["spearman"][0] == pytest.approx(spearmanr(a[there], b[there]).statistic, abs=1e-6)


def test_a_folder_that_cannot_be_written_and_genes_named_twice_are_one_clear_error(tmp_path: Path) -> None:
    true, guess = true_and_guess()
    write_run(tmp_path / "run", guess, GENES)
    np.savez(tmp_path / "t.npz", genes=np.array(GENES), expected=true)
    (tmp_path / "run" / "evaluation").write_text("a file in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        evaluate_run(tmp_path / "run", tmp_path / "t.npz", watcher=Silence())
    with pytest.raises(InputError, match="names 1 of 3 genes twice"):
        genes_in_common(GENES, ["G0", "G1", "G0"], "t.npz")


def test_a_pickle_is_not_read_where_it_does_not_fit(tmp_path: Path) -> None:
    write_run(tmp_path / "run", true_and_guess()[1], GENES)
    (tmp_path / "t.pickle").write_bytes(bytes(4_000_000))
    with pytest.raises(MemoryBudgetError, match=r"t\.pickle, which is read whole"):
        evaluate_run(tmp_path / "run", tmp_path / "t.pickle", watcher=Silence(), memory="635MB")
