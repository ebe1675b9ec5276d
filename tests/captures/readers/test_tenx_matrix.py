"""10x matrices as HDF5: what scanpy reads, whatever the layout, and one error where they are damaged."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from tenx_tables import SAMPLE, assert_same, small_table, write_h5

from iscale.captures.measured import unique_names
from iscale.captures.readers import tenx_matrix
from iscale.captures.readers.tenx_matrix import TenxMatrix, only_genes, read_h5
from iscale.errors import InputError


@pytest.fixture
def table() -> TenxMatrix:
    return small_table()


@pytest.mark.real
def test_the_sample_is_what_scanpy_reads(data_dir: Path, scanpy: ModuleType) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = scanpy.read_10x_h5(data_dir / SAMPLE)
    found = read_h5(data_dir / SAMPLE)
    assert found.counts.nnz == expected.X.nnz == 50355
    assert (found.counts != expected.X).nnz == 0
    assert found.barcodes == list(expected.obs_names)
    assert found.gene_symbols == list(expected.var_names)
    assert found.gene_ids == list(expected.var["gene_ids"])
    assert found.genomes == list(expected.var["genome"])
    assert only_genes(found) is found


@pytest.mark.real
def test_nothing_depends_on_the_blocks(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read_h5(data_dir / SAMPLE)
    monkeypatch.setattr(tenx_matrix, "BLOCK", 1009)
    assert_same(read_h5(data_dir / SAMPLE), expected)


def test_layouts_agree(tmp_path: Path, table: TenxMatrix) -> None:
    write_h5(tmp_path / "new.h5", table)
    assert_same(read_h5(tmp_path / "new.h5"), table)
    with h5py.File(tmp_path / "new.h5") as new, h5py.File(tmp_path / "old.h5", "w") as old:
        group = old.create_group("mm10")
        for name in ("barcodes", "data", "indices", "indptr", "shape"):
            new.copy(new["matrix"][name], group)
        group["genes"], group["gene_names"] = new["matrix/features/id"][:], new["matrix/features/name"][:]
    found = read_h5(tmp_path / "old.h5")
    assert_same(found, table)
    assert (found.feature_types, found.genomes) == (None, ["mm10"] * 4)


def test_only_genes_keeps_gene_expression(table: TenxMatrix) -> None:
    found = only_genes(table)
    assert (found.gene_ids, found.gene_symbols, found.genomes) == (list("wyz"), ["A", "A", "C"], ["g"] * 3)
    assert found.feature_types == ["Gene Expression"] * 3
    np.testing.assert_array_equal(found.counts.toarray(), table.counts.toarray()[:, [0, 2, 3]])
    untyped = TenxMatrix(table.barcodes, table.gene_ids, table.gene_symbols, None, None, table.counts)
    assert only_genes(untyped) is untyped
    antibodies = TenxMatrix(["b"], ["x"], ["X"], ["Antibody Capture"], None, sparse.csr_matrix([[1.0]]))
    with pytest.raises(InputError, match=r"None of 1 features.*Antibody Capture"):
        only_genes(antibodies)


def _replaced(name: str, values: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["matrix"][name]
        file["matrix"][name] = values

    return change


def _linked(file: h5py.File) -> None:
    del file["matrix/data"]
    file["matrix/data"] = h5py.ExternalLink("other.h5", "data")


H5_DAMAGE: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "index": (_replaced("indices", [0, 2, 1, 0, 1, 2, 3, 4]), r"a feature that is not there: index 4 \(from 0\) of 4"),
    "twice": (_replaced("indices", [0, 0, 1, 0, 1, 2, 3, 3]), "more than one count for the same"),
    "negative": (_replaced("data", [1, 2, 3, 4, -5, 6, 7, 8]), "count 5 is -5, not finite or below 0"),
    "nan": (_replaced("data", [1, 2, 3, np.nan, 5, 6, 7, 8]), "count 4 is nan"),
    "fewer": (_replaced("data", [1, 2, 3]), "8 indices and 3 values do not agree"),
    "starts": (_replaced("indptr", [0, 2, 1, 3, 7, 8]), "starts of the barcodes do not go from 0 to 8"),
    "barcodes": (_replaced("barcodes", np.array(["a", "b"], "S")), "5 barcodes x 4 features, but 2 barcodes and 4"),
    "same": (_replaced("barcodes", np.array(["a"] * 5, "S")), "names 4 barcodes more than once"),
    "names": (_replaced("features/name", np.array(["a"] * 3, "S")), "5 barcodes x 4 features"),
    "texts": (_replaced("data", np.array(["a"] * 8, "S")), "data is not a list of numbers"),
    "missing": (lambda file: file["matrix"].pop("indices"), "indices"),
    "other": (lambda file: file.move("matrix", "X"), "no 10x matrix of one genome: it holds X"),
    "link": (_linked, "matrix/data is a link to another file"),
}


@pytest.mark.parametrize("damage", H5_DAMAGE)
def test_damaged_h5_is_one_error(tmp_path: Path, table: TenxMatrix, damage: str) -> None:
    path = tmp_path / "counts.h5"
    write_h5(path, table)
    change, problem = H5_DAMAGE[damage]
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(InputError, match=problem) as error:
        read_h5(path)
    assert str(path) in error.value.problem


def test_values_of_another_file_are_not_read(tmp_path: Path, table: TenxMatrix) -> None:
    write_h5(tmp_path / "counts.h5", table)
    (tmp_path / "raw").write_bytes(bytes(32))
    with h5py.File(tmp_path / "counts.h5", "r+") as file:
        del file["matrix/data"]
        file.create_dataset("matrix/data", (8,), "i4", external=[(tmp_path / "raw", 0, 32)])
    with pytest.raises(InputError, match="data lies in another file"):
        read_h5(tmp_path / "counts.h5")


def test_sizes_that_are_only_claimed_are_not_allocated(tmp_path: Path, table: TenxMatrix) -> None:
    write_h5(tmp_path / "counts.h5", table)
    with h5py.File(tmp_path / "counts.h5", "r+") as file:
        n = 1 << 45
        for name in ("data", "indices"):
            del file["matrix"][name]
            file["matrix"].create_dataset(name, (n,), "i4", chunks=(1024,))
        file["matrix/indptr"][:] = [0, 0, 0, 0, 0, n]
    with pytest.raises(InputError, match="it claims 35,184,372,088,832 values"):
        read_h5(tmp_path / "counts.h5")


@pytest.mark.real
@pytest.mark.parametrize("kept", [0.2, 0.9, 0.999])
def test_truncated_h5_is_one_error(data_dir: Path, tmp_path: Path, kept: float) -> None:
    path = tmp_path / "counts.h5"
    shutil.copyfile(data_dir / SAMPLE, path)
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * kept))
    with pytest.raises(InputError, match="may be truncated or damaged"):
        read_h5(path)


@given(st.lists(st.sampled_from(["A", "B", "A-1", "A-2", "A-1-1", "B-1", "A-10", "", "-1", "-2", "1"]), max_size=12))
def test_unique_names_are_those_of_anndata(names: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = ad.AnnData(var=pd.DataFrame(index=pd.Index(names, dtype=object)))
        table.var_names_make_unique()
    assert unique_names(names) == list(table.var_names)


def test_unique_names_of_many_equal_names_take_no_time() -> None:
    assert unique_names(["A"] * 100_000)[-1] == "A-99999"
