"""AnnData that scanpy reads and draws: values are the run's, positions lie where they should on the image."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import matplotlib
import numpy as np
import pandas as pd
import pytest
from whole_runs import GENES, LABELS, binned, colours_of, write_whole_run

from iscale.export.command import export_run
from iscale.results import Run
from iscale.store import layout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_whole_run(tmp_path_factory.mktemp("h5ad") / "iSCALE_output")


def exported(run: Run, path: Path, **options: object) -> ad.AnnData:
    text = export_run(run.store.folder, "h5ad", out=path, **options)
    assert str(path) in text
    return ad.read_h5ad(path)


@pytest.mark.parametrize("bin_um", [8, 16, 32])
def test_every_value_is_the_runs(run: Run, tmp_path: Path, bin_um: int) -> None:
    found, side = exported(run, tmp_path / "bins.h5ad", bin_um=bin_um), bin_um // 8
    share = binned(run.tissue.values, side) / side**2
    i, j = found.obs["array_row"].to_numpy(), found.obs["array_col"].to_numpy()
    assert len(found) == (share > 0).sum()
    assert len(set(zip(i, j, strict=True))) == len(found)
    assert found.var_names.tolist() == list(GENES)
    np.testing.assert_allclose(found.X, binned(run.expression.values, side)[:, i, j].T, rtol=1e-6)
    assert found.X.dtype == np.float32
    np.testing.assert_allclose(found.obs["share_on_tissue"], share[i, j])
    np.testing.assert_allclose(found.obs["depth"], binned(run.depth.values, side)[i, j], rtol=1e-6)
    np.testing.assert_allclose(found.obs["share_with_cells"], binned(run.cells.values, side)[i, j] / side**2)
    assert (found.obs["cells"] == (binned(run.cells.values, side)[i, j] > 0)).all()
    np.testing.assert_allclose(found.obsm["spatial_um"], np.column_stack([j + 0.5, i + 0.5]) * bin_um)
    means = binned(run.embedding.values, side)[:, i, j] / binned(run.tissue.values, side)[i, j]
    np.testing.assert_allclose(found.obsm["X_iscale"], means.T, rtol=1e-4, atol=1e-6)


def test_classes_are_the_most_common_of_the_bin(run: Run, tmp_path: Path) -> None:
    found = exported(run, tmp_path / "bins.h5ad", bin_um=16)
    i, j = found.obs["array_row"].to_numpy(), found.obs["array_col"].to_numpy()
    assert found.obs["cluster_4"].cat.categories.tolist() == ["1", "2", "3", "4"]
    assert found.obs["label_0.1"].cat.categories.tolist() == [*LABELS, "Unclassified"]
    for name, maps in (("cluster_4", run.clusters), ("cluster_4_cells", run.clusters_refined)):
        labels = maps.values[0]
        counts = np.stack([binned(labels == k, 2)[i, j] for k in range(1, 5)])
        expected = np.where(counts.sum(axis=0) > 0, counts.argmax(axis=0) + 1.0, np.nan)
        np.testing.assert_array_equal(found.obs[name].astype(float), expected)
    assert found.obs["cluster_4_cells"].isna().any(), "this test saw no bin without cells"


def test_classes_of_superpixels_are_the_maps(run: Run, tmp_path: Path) -> None:
    found = exported(run, tmp_path / "bins.h5ad")
    i, j = found.obs["array_row"].to_numpy(), found.obs["array_col"].to_numpy()
    assert (found.obs["cluster_4"].astype(int) == run.clusters.values[0, i, j]).all()
    names = np.array([*LABELS, "Unclassified"])
    assert (found.obs["label_0.25"].astype(str) == names[run.annotation.values[1, i, j] - 1]).all()


@pytest.mark.parametrize("window", [None, (600.0, 410.0, 905.0, 830.0)])
@pytest.mark.parametrize("image", ["hires", "lowres"])
def test_positions_lie_on_the_pixels_of_their_superpixels(
    run: Run, tmp_path: Path, image: str, window: tuple[float, float, float, float] | None
) -> None:
    found = exported(run, tmp_path / "bins.h5ad", window=window)
    (library,) = found.uns["spatial"].values()
    scale = library["scalefactors"][f"tissue_{image}_scalef"]
    pixels = library["images"][image]
    assert max(pixels.shape) <= {"hires": 2048, "lowres": 600}[image]
    x, y = (found.obsm["spatial"] * scale).T
    i, j = found.obs["array_row"].to_numpy(), found.obs["array_col"].to_numpy()
    expected = colours_of((160, 192))[:, i, j].T
    # scanpy draws with imshow, for which a pixel reaches from -0.5 to 0.5 about its number: half a pixel is within one.
    np.testing.assert_array_equal(pixels[y.astype(int), x.astype(int)], expected)
    assert library["scalefactors"]["spot_diameter_fullres"] == 16


def test_a_window_is_of_the_bins_that_it_touches(run: Run, tmp_path: Path) -> None:
    found = exported(run, tmp_path / "bins.h5ad", window="601,417,760,703", bin_um=16, genes="HLA-A,ERBB2")
    assert found.var_names.tolist() == ["HLA-A", "ERBB2"]
    x, y = found.obsm["spatial_um"].T
    assert (x.min() - 8, x.max() + 8) == (592, 768)
    assert (y.min() - 8, y.max() + 8) == (416, 704)


def test_scanpy_draws_it_at_once(run: Run, tmp_path: Path) -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import scanpy as sc

    found = exported(run, tmp_path / "bins.h5ad", bin_um=32)
    with pytest.warns() as warned:  # scanpy's own: it means to leave drawing to squidpy
        axes = sc.pl.spatial(found, color=["ERBB2", "cluster_4"], show=False)
    axes[0].figure.savefig(tmp_path / "drawn.png")
    plt.close("all")
    assert {warning.category for warning in warned} <= {FutureWarning, PendingDeprecationWarning, DeprecationWarning}
    assert [axis.get_title() for axis in axes] == ["ERBB2", "cluster_4"]
    assert len(axes[0].images) == 1
    (drawn,) = (c for c in axes[0].collections if len(c.get_array()) == len(found))
    np.testing.assert_allclose(np.sort(drawn.get_array()), np.sort(found[:, "ERBB2"].X.ravel()), rtol=1e-6)


def test_trust_is_known_of_the_genes_that_were_tested(tmp_path: Path) -> None:
    run = write_whole_run(tmp_path / "iSCALE_output", (32, 48), parts=("image",))
    table = pd.DataFrame({"gene": ["KRT8", "ERBB2"], "score": [0.9, 0.4], "word": ["reliable", "guess"]})
    (run.store.folder / "evaluation").mkdir()
    table.to_csv(run.store.folder / "evaluation" / "trust-region.tsv", sep="\t", index=False)
    found = exported(run, tmp_path / "bins.h5ad", genes=["ERBB2", "KRT8", "ACTB"])
    assert found.var["trust"].astype(object).fillna("").tolist() == ["guess", "reliable", ""]
    assert found.var["trust_score"].fillna(-1).to_numpy() == pytest.approx([0.4, 0.9, -1])
    assert "X_iscale" not in found.obsm
    assert "cells" not in found.obs


def test_a_gene_more_than_are_read_together(tmp_path: Path) -> None:
    genes = tuple(f"G{i}" for i in range(300))
    run = write_whole_run(tmp_path / "iSCALE_output", (32, 144), genes, parts=("image",))
    found = exported(run, tmp_path / "bins.h5ad")
    i, j = found.obs["array_row"].to_numpy(), found.obs["array_col"].to_numpy()
    np.testing.assert_array_equal(found.X, run.expression.values[:, i, j].T)


def test_the_spread_is_a_layer_where_the_run_can_tell_it(tmp_path: Path) -> None:
    run = write_whole_run(tmp_path / "P1" / "iSCALE_output", (32, 48), parts=("image",))
    assert not exported(run, tmp_path / "without.h5ad").layers
    spread = run.expression.values / 8
    run.store.make(layout.genes("expression/uncertainty", len(GENES), (32, 48)))
    run.store.array("expression/uncertainty", "r+")[...] = spread.astype(np.float16)
    found = exported(run, tmp_path / "bins.h5ad", bin_um=16, genes=["KRT8", "ERBB2"])
    i, j = found.obs["array_row"].to_numpy(), found.obs["array_col"].to_numpy()
    stored = spread.astype(np.float16)[[1, 0]]
    np.testing.assert_allclose(found.layers["uncertainty"], binned(stored, 2)[:, i, j].T, rtol=1e-6)
    assert "the spread of a sum is at most that" in found.uns["iscale"]["uncertainty"]


def test_tables_of_two_projects_are_two_libraries(tmp_path: Path) -> None:
    libraries = []
    for project in ("P1", "P2"):
        run = write_whole_run(tmp_path / project / "iSCALE_output", (32, 48), parts=("image",))
        libraries += exported(run, tmp_path / f"{project}.h5ad").uns["spatial"]
    assert libraries == ["P1", "P2"]
    (run.store.folder / "report.json").write_text(json.dumps({"project": "/data/Breast 7"}))
    (library,) = exported(run, tmp_path / "named.h5ad").uns["spatial"]
    assert library.startswith("Breast")
