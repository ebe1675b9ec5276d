"""Parquet and the published pickles: values are the run's, whoever reads them."""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from whole_runs import GENES, binned, write_whole_run

from iscale.errors import InputError
from iscale.export import pickles
from iscale.export.command import export_run
from iscale.results import Run
from iscale.trust.safe_pickle import read_pickle


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_whole_run(tmp_path_factory.mktemp("tables") / "iSCALE_output", parts=("cells", "embedding"))


@pytest.mark.parametrize("bin_um", [8, 16])
def test_a_long_table_of_a_window(run: Run, tmp_path: Path, bin_um: int) -> None:
    path, side = tmp_path / "bins.parquet", bin_um // 8
    export_run(run.store.folder, "parquet", out=path, genes="KRT8,ERBB2", window="640,320,1280,800", bin_um=bin_um)
    found = pd.read_parquet(path)
    assert found.dtypes.astype(str).to_dict() == {
        "x": "float32",
        "y": "float32",
        "gene": "category",
        "value": "float32",
    }
    i, j = ((found[axis] / bin_um - 0.5).astype(int).to_numpy() for axis in "yx")
    assert (found["x"].min(), found["x"].max()) == (640 + bin_um / 2, 1280 - bin_um / 2)
    share = binned(run.tissue.values, side)[320 // bin_um : 800 // bin_um, 640 // bin_um : 1280 // bin_um]
    assert len(found) == 2 * (share > 0).sum()
    for gene in ("KRT8", "ERBB2"):
        of = (found["gene"] == gene).to_numpy()
        expected = binned(run.expression.sel(gene=gene).values, side)[i[of], j[of]]
        np.testing.assert_allclose(found["value"][of], expected, rtol=1e-6)


def test_one_gene_is_found_without_reading_the_others(run: Run, tmp_path: Path) -> None:
    export_run(run.store.folder, "parquet", out=tmp_path / "bins.parquet")
    file = pq.ParquetFile(tmp_path / "bins.parquet")
    statistics = [file.metadata.row_group(i).column(2).statistics for i in range(file.num_row_groups)]
    assert [(s.min, s.max) for s in statistics] == [(gene, gene) for gene in GENES]
    (one,) = (i for i, s in enumerate(statistics) if s.min == "FASN")
    table = file.read_row_group(one)
    expected = np.nansum(run.expression.sel(gene="FASN").values, dtype=np.float64)
    assert pc.sum(table["value"]).as_py() == pytest.approx(expected, rel=1e-6)


def test_pickles_are_the_maps_for_every_reader(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "pickles"
    export_run(run.store.folder, "pickle", out=out)
    assert {path.name for path in out.glob("*.pickle")} == {f"{gene}.pickle" for gene in GENES} | {pickles.EMBEDDING}
    assert len(list((out / "refined").iterdir())) == len(GENES)
    for path, array in ((out, run.expression), (out / "refined", run.refined)):
        for gene in GENES:
            expected = array.sel(gene=gene).values
            for read in (read_pickle, lambda file: pickle.loads(file.read_bytes())):
                found = read(path / f"{gene}.pickle")
                assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
                np.testing.assert_array_equal(found, expected)
    for read in (read_pickle, lambda file: pickle.loads(file.read_bytes())):
        found = read(out / pickles.EMBEDDING)
        assert list(found) == ["gene"]
        np.testing.assert_array_equal(found["gene"], run.embedding.values)


def test_pickles_name_what_old_and_new_numpy_have(run: Run, tmp_path: Path) -> None:
    export_run(run.store.folder, "pickle", out=tmp_path / "pickles", genes="KRT8")
    called = {
        text
        for opcode, text, _ in pickletools.genops((tmp_path / "pickles" / "KRT8.pickle").read_bytes())
        if opcode.name in ("GLOBAL", "STACK_GLOBAL")
    }
    assert called == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}


def test_a_run_without_cells_and_embedding_says_what_is_left_out(tmp_path: Path) -> None:
    run = write_whole_run(tmp_path / "iSCALE_output", (32, 48), parts=())
    text = export_run(run.store.folder, "pickle")
    out = run.store.folder / "super_res_gene_expression"
    assert {path.name for path in out.iterdir()} == {f"{gene}.pickle" for gene in GENES}
    assert "No refined/" in text
    assert f"No {pickles.EMBEDDING}" in text


def test_genes_whose_files_would_be_one_are_refused(tmp_path: Path) -> None:
    run = write_whole_run(tmp_path / "iSCALE_output", (32, 48), ("A/B", "A B", "C"), parts=())
    with pytest.raises(InputError, match=r"same file, A_B.pickle"):
        export_run(run.store.folder, "pickle")
    assert [path.name for path in run.store.folder.iterdir() if "gene_expression" in path.name] == []
    export_run(run.store.folder, "pickle", genes=["A/B", "C"])


def test_more_than_the_disk_has_room_for_is_refused_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    full = shutil.disk_usage("/")._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(InputError, match=r"needs 3.07 MB; 1 MB are free"):
        export_run(run.store.folder, "pickle")
