"""The demo's truth: scores are those that the demo itself finds, superpixel by superpixel."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import iscale
from iscale.demo.her2st import pearson
from iscale.demo.synthetic import read_truth
from iscale.engine.watchers import Silence
from iscale.trust.evaluate import evaluate_run


def test_the_demos_truth_gives_what_the_demo_finds(demo_run: Path, tmp_path: Path) -> None:
    project = Path(shutil.copytree(demo_run, tmp_path / "demo")) / "project"
    run = iscale.open_run(project)
    shutil.rmtree(run.store.folder / "evaluation")
    text = evaluate_run(project, tmp_path / "demo" / "project-truth.npz", watcher=Silence())
    table = pd.read_csv(run.store.folder / "evaluation" / "truth-project-truth" / "genes.tsv", sep="\t")
    table = table.set_index(["block", "gene"])
    truth, expression = read_truth(project), run.expression.load()
    for gene in ("ERBB2", "COL1A1", "KRT5"):
        a, b = truth.expected[truth.genes.index(gene)], expression.sel(gene=gene).values
        both = np.isfinite(a) & np.isfinite(b)
        expected = pearson(*(v[both][:, None].astype(np.float64) for v in (a, b)))[0]
        assert table.loc[(1, gene), "pearson"] == pytest.approx(expected, abs=1e-6)
        assert table.loc[(1, gene), "cells"] == both.sum()
    medians = table.groupby("block").median()
    assert medians.loc[1, "pearson"] > 0.7
    assert (medians["pearson"].diff().dropna() > 0).all(), "larger blocks agree better"
    assert "60 genes" in text
