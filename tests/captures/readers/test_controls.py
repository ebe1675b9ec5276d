"""One rule of names and types for controls, whatever the platform: they are no genes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import zarr
from anndata.io import write_elem

from iscale.captures.platforms import read_measured
from iscale.captures.readers.controls import is_control
from iscale.errors import InputError

NAMES = ["ERBB2", "NegControlProbe_00042", "CD3E", "BLANK_0006", "Intergenic_Region_3", "NegPrb01", "NEGR1"]
GENES = ["ERBB2", "CD3E", "NEGR1"]
COUNTS = np.arange(35, dtype=np.float32).reshape(5, 7) + 1


def table(**var: Any) -> ad.AnnData:
    index = [f"s{i}" for i in range(5)]
    adata = ad.AnnData(COUNTS.copy(), obs=pd.DataFrame(index=index), var=pd.DataFrame(var, index=NAMES))
    adata.obsm["spatial"] = np.arange(10.0).reshape(5, 2)
    return adata


def test_names_of_controls_are_left_out_of_an_h5ad(tmp_path: Path) -> None:
    table().write_h5ad(tmp_path / "a.h5ad")
    found = read_measured(tmp_path / "a.h5ad")
    assert (found.gene_symbols, found.gene_ids) == (GENES, GENES)
    np.testing.assert_array_equal(found.counts.toarray(), COUNTS[:, [0, 2, 6]])
    assert found.notices[-1].startswith("4 features of 7 left out as controls by name: NegControlProbe_00042")


@pytest.mark.parametrize("gene", ["Gene Expression", "gene_expression", "predesigned_gene"])
def test_types_count_beside_names(tmp_path: Path, gene: str) -> None:
    kinds = [gene, "Negative Control Probe", gene, gene, gene, gene, "Protein Expression"]
    table(feature_types=kinds).write_h5ad(tmp_path / "a.h5ad")
    found = read_measured(tmp_path / "a.h5ad")
    assert found.gene_symbols == ["ERBB2", "CD3E"]
    np.testing.assert_array_equal(found.counts.toarray(), COUNTS[:, [0, 2]])


def test_biotypes_are_no_types_of_features(tmp_path: Path) -> None:
    table(feature_type=["protein_coding"] * 7).write_h5ad(tmp_path / "a.h5ad")
    assert read_measured(tmp_path / "a.h5ad").gene_symbols == GENES


def test_names_of_controls_are_left_out_of_spatialdata(tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "s.zarr", mode="w")
    with ad.settings.override(auto_shard_zarr_v3=False):
        write_elem(root.require_group("tables"), "table", table())
    found = read_measured(tmp_path / "s.zarr", unit="px")
    assert found.gene_symbols == GENES
    np.testing.assert_array_equal(found.counts.toarray(), COUNTS[:, [0, 2, 6]])


def test_names_of_controls_are_left_out_of_tables(tmp_path: Path) -> None:
    frame = pd.DataFrame(COUNTS.astype(int), columns=NAMES, index=[f"s{i}" for i in range(5)])
    frame.to_csv(tmp_path / "cnts.tsv", sep="\t")
    pd.DataFrame({"spot": frame.index, "x": range(5), "y": range(5)}).to_csv(
        tmp_path / "locs.tsv", sep="\t", index=False
    )
    found = read_measured(tmp_path)
    assert found.gene_symbols == GENES
    np.testing.assert_array_equal(found.counts.toarray(), COUNTS[:, [0, 2, 6]])


def test_controls_alone_are_no_capture(tmp_path: Path) -> None:
    table()[:, [1, 3]].copy().write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match="All 2 features are controls by their names"):
        read_measured(tmp_path / "a.h5ad")


def test_genes_with_like_names_are_genes() -> None:
    genes = ["NEGR1", "BLNK", "ERCC1", "ERCC6L2", "ASIP", "SYST", "FALSA", "NEG", "GENOMIC", "Neurod1", "ASS1"]
    assert not any(map(is_control, genes))
    assert all(map(is_control, ["NegControlCodeword_0500", "SystemControl12", "FalseCode3", "Negative3", "Blank-12"]))
