"""The demos: the synthetic truth is found, and on real sections ours beats ridge and nearest neighbours."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import section
from iscale import open_run
from iscale.cli.app import main
from iscale.demo.command import synthetic_demo
from iscale.demo.her2st import pearson
from iscale.demo.synthetic import PIXEL_SIZE_UM
from iscale.demo.tissue import REGION_TYPES, SyntheticTissue
from iscale.geometry import SUPERPIXEL_PX
from iscale.results import Run


def test_the_synthetic_demo_finds_what_is_there(demo_run: Path) -> None:
    finds_what_is_there(demo_run, (demo_run / "said.txt").read_text())


@pytest.mark.full
def test_the_demo_as_the_command_makes_it_finds_what_is_there(tmp_path: Path) -> None:
    finds_what_is_there(tmp_path, synthetic_demo(tmp_path))


def finds_what_is_there(folder: Path, text: str) -> None:
    """What was predicted is what the truth is, and what was said tells so."""
    written = (folder / "project" / "iSCALE_output" / "predicted-vs-true.tsv").read_text()
    table = [line.split("\t") for line in written.splitlines()][1:]
    per_superpixel = [float(row[1]) for row in table]
    assert len(table) == 60
    assert np.median(per_superpixel) > 0.8
    assert np.mean([0.7 < float(row[3]) < 1.3 for row in table]) > 0.9, "predicted sums are not those of the truth"
    assert "median of all" in text
    assert str(folder / "project" / "iSCALE_output" / "run.zarr") in text
    right = labelled_right(open_run(folder / "project"))
    assert right["all"] > 0.9
    assert right["lymphoid"] > 0.9


def labelled_right(run: Run) -> dict[str, float]:
    """Share of superpixels whose label, at the lowest threshold, is the region that prevails there: of all, by kind."""
    annotation = run.annotation
    (height, width), step = annotation.shape[1:], PIXEL_SIZE_UM * SUPERPIXEL_PX
    tissue = SyntheticTissue((height * SUPERPIXEL_PX, width * SUPERPIXEL_PX), PIXEL_SIZE_UM, 0)
    regions = tissue.fields((np.arange(height) + 0.5) * step, (np.arange(width) + 0.5) * step).regions.argmax(axis=0)
    labels = annotation[0].values
    there = labels > 0
    true, found = np.array(REGION_TYPES)[regions[there]], np.array(annotation.attrs["labels"])[labels[there] - 1]
    right = true == found
    return {"all": float(right.mean()), **{kind: float(right[true == kind].mean()) for kind in REGION_TYPES}}


@pytest.mark.full
def test_on_real_tissue_ours_is_above_both_baselines(data_dir: Path, tmp_path: Path) -> None:
    pairs = section(data_dir / "her2st", tmp_path, "C4", "covered", recipe="default")
    medians = {key: float(np.nanmedian(pearson(*pair))) for key, pair in pairs.items()}
    for score in ("counts", "depth-normalised"):
        baseline = max(medians[score, method] for method in ("ridge", "kNN"))
        assert medians[score, "ours"] > baseline, (score, medians)
    assert medians["counts", "ours"] > 0.74
    assert medians["depth-normalised", "ours"] > 0.44


def test_an_unknown_dataset_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["iscale", "demo", "--dataset", "her2st"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "--source" in capsys.readouterr().err
