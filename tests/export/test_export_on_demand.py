"""Genes that predict did not write are exported as any others."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np

import iscale
from iscale.export.command import export_run
from iscale.trust.safe_pickle import read_pickle


def test_genes_that_were_not_written_are_computed(tiny_project: Path, tmp_path: Path) -> None:
    iscale.run(tiny_project, stage="predict", n_genes=3, n_plots=1, materialize="none")
    run = iscale.open_run(tiny_project)
    assert not run.store.has("expression/expression")
    genes = [str(gene) for gene in run.lazy_expression["gene"].values]
    assert len(genes) == 8
    export_run(tiny_project, "h5ad", out=tmp_path / "imputed.h5ad")
    assert ad.read_h5ad(tmp_path / "imputed.h5ad").var_names.tolist() == genes[:3]
    export_run(tiny_project, "h5ad", out=tmp_path / "all.h5ad", genes=genes)
    found = ad.read_h5ad(tmp_path / "all.h5ad")
    i, j = found.obs["array_row"].to_numpy(), found.obs["array_col"].to_numpy()
    expected = run.lazy_expression.values
    np.testing.assert_allclose(found.X, expected[:, i, j].T, rtol=1e-5)
    export_run(tiny_project, "pickle", out=tmp_path / "pickles", genes=genes[-1:])
    np.testing.assert_allclose(read_pickle(tmp_path / "pickles" / f"{genes[-1]}.pickle"), expected[-1], rtol=1e-5)
