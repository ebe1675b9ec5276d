"""Genes of a run by name: written, computed, as windows and as overviews, as lazy arrays."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import iscale
from iscale.arrays import block_mean
from iscale.errors import InputError
from iscale.geometry import Region
from iscale.model.genes import choose_genes, open_source

WINDOW = Region(10, 42, 20, 50)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_original: Path) -> dict[str, iscale.Run]:
    """The tiny project with five of its eight genes imputed; nothing, those, or all written."""
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    shutil.copytree(tiny_original, folder / "fitted")
    iscale.run(folder / "fitted", stage="fit", n_genes=5)
    for what in ("top", "none", "all"):
        shutil.copytree(folder / "fitted", folder / what)
        iscale.run(folder / what, stage="predict", n_genes=5, materialize=what)
        found[what] = iscale.open_run(folder / what)
    return found


def test_every_gene_that_captures_measured_can_be_asked_for(runs) -> None:
    source = open_source(runs["top"].store)
    assert (len(source.genes), source.imputed, source.written) == (8, 5, 5)
    assert set(source.genes) == {f"G{k}" for k in range(8)}
    assert runs["top"].expression["gene"].values.tolist() == list(source.genes[:5])
    assert runs["top"].lazy_expression["gene"].values.tolist() == list(source.genes)


def test_what_is_computed_is_what_would_have_been_written(runs) -> None:
    written, computed = runs["all"].expression, runs["none"].lazy_expression
    assert written["gene"].values.tolist() == computed["gene"].values.tolist()
    for name in ("expression", "uncertainty"):
        a = getattr(runs["all"], name).values
        b = getattr(runs["none"], f"lazy_{name}").values
        assert (np.isnan(a) == np.isnan(b)).all()
        error = np.sqrt(np.nanmean((a - b) ** 2, axis=(1, 2)))
        assert (error < 0.01 * np.nanstd(a, axis=(1, 2))).all()


def test_without_written_maps_a_run_reads_as_ever(runs) -> None:
    none, top = runs["none"], runs["top"]
    assert not none.store.has("expression/expression")
    assert none.expression["gene"].values.tolist() == top.expression["gene"].values.tolist()
    gene = none.expression["gene"].values[3]
    np.testing.assert_allclose(
        none.expression.sel(gene=gene).values, top.expression.sel(gene=gene).values, rtol=0.02, atol=1e-4
    )


def test_a_window_of_genes_written_and_not_in_any_order(runs) -> None:
    source, every = open_source(runs["top"].store), runs["all"].expression
    names = [source.genes[k] for k in (6, 1, 7, 0)]
    values = source.read(names, WINDOW)
    expected = every.sel(gene=names).values[:, *WINDOW.slices]
    assert values.shape == (4, *WINDOW.shape)
    np.testing.assert_allclose(values, expected, rtol=0.02, atol=1e-3)


def same(values: np.ndarray, expected: np.ndarray) -> None:
    """As far as sums in another order are: how many genes are computed together decides that."""
    np.testing.assert_allclose(values, expected, rtol=2e-6)


def test_lazy_arrays_take_every_index(runs) -> None:
    lazy, every = runs["none"].lazy_expression, runs["none"].lazy_expression.values
    same(lazy[2].values, every[2])
    same(lazy[1:7:3, 5, 10:30].values, every[1:7:3, 5, 10:30])
    same(lazy[[5, 2], 4:9, ::3].values, every[[5, 2], 4:9, ::3])
    same(lazy[-1, -1, -1].values, every[-1, -1, -1])
    assert lazy[:, :0].values.shape == (8, 0, every.shape[2])


def test_overviews_are_means_over_the_tissue(runs) -> None:
    source = open_source(runs["top"].store)
    whole = Region(0, *source.shape[:1], 0, source.shape[1])
    names = [source.genes[0], source.genes[7]]
    exact = source.read(names, whole)
    np.testing.assert_allclose(source.overview(names, whole, 1), exact)
    np.testing.assert_allclose(source.overview(names, whole, 2), block_mean(exact, 2), rtol=1e-5)
    for step in (4, 8, 16):
        coarse, fine = source.overview(names, whole, step), block_mean(exact, step)
        assert coarse.shape == fine.shape
        assert (np.isnan(coarse) == np.isnan(fine)).all()
        np.testing.assert_allclose(coarse, fine, rtol=0.25)
        assert abs(np.nanmean(coarse) / np.nanmean(fine) - 1) < 0.05


def test_an_overview_of_a_part_is_a_part_of_the_overview(runs) -> None:
    source = open_source(runs["top"].store)
    whole = Region(0, source.shape[0], 0, source.shape[1])
    for step in (2, 4, 8):
        part = Region(8, 40, 16, 48)
        whole_view = source.overview([source.genes[6]], whole, step)
        same(source.overview([source.genes[6]], part, step), whole_view[:, *part.coarsened(step).slices])


def test_an_unknown_gene_is_told_with_its_neighbours(runs) -> None:
    with pytest.raises(InputError, match=r"no gene 'g3x' among the 8") as error:
        open_source(runs["top"].store).read(["g3x"], WINDOW)
    assert "G3" in error.value.remedy


def test_the_published_recipe_keeps_no_factors(tiny_original: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_original, tmp_path / "P")
    for wanted in ("none", "all"):
        with pytest.raises(InputError, match=f"--materialize {wanted}: the recipe 'published'"):
            iscale.run(tmp_path / "P", stage="predict", recipe="published", materialize=wanted)


@pytest.mark.full
def test_plots_clusters_and_the_report_do_without_written_maps(tiny_original: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_original, tmp_path / "P")
    out = iscale.run(tmp_path / "P", n_genes=5, n_plots=2, n_clusters=(3,), materialize="none", hold_out="none")
    assert (out / "report.html").stat().st_size > 10_000
    assert len(list((out / "super_res_ST_plots").glob("G*.png"))) == 2
    assert (out / "clusters-gene_3" / "markers.tsv").read_text().count("\n") > 3


def test_a_gene_is_had_by_its_name_whether_written_or_not(runs) -> None:
    run = runs["top"]
    for name in ("G0", "G7"):
        found = run.gene(name)
        assert (str(found["gene"].values), found.dims) == (name, ("y", "x"))
        np.testing.assert_array_equal(found.values, run.lazy_expression.sel(gene=name).values)
    with pytest.raises(InputError, match=r"no gene 'g7' among the 8") as caught:
        run.gene("g7")
    assert caught.value.remedy.startswith("Similar names: G7")


def test_all_names_that_are_unknown_are_told(runs, tmp_path: Path) -> None:
    source = open_source(runs["top"].store)
    with pytest.raises(InputError, match="no gene 'g1', 'KRT8' among") as caught:
        choose_genes("G0,g1,KRT8", source)
    assert caught.value.remedy.startswith("Similar names: g1: G1")
    assert "KRT8" not in caught.value.remedy


def test_genes_are_asked_for_by_names_text_or_a_file(runs, tmp_path: Path) -> None:
    source = open_source(runs["top"].store)
    (tmp_path / "genes.txt").write_text("G3\nG1\nG3\n")
    assert choose_genes("G3, G1,", source) == choose_genes(str(tmp_path / "genes.txt"), source) == ("G3", "G1")
    assert choose_genes(None, source) == source.genes[:5]
    assert choose_genes(None, source, 2) == source.genes[:2]
    for missing in ("nofile.txt", "some/genes"):
        with pytest.raises(InputError, match=f"--genes {missing}: there is neither such a file nor such a gene"):
            choose_genes(missing, source)
