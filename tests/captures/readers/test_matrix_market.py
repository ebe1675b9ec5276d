"""Folders with matrix.mtx: what the HDF5 file holds, whatever the layout, and one error where they are damaged."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType

import pytest
from tenx_tables import SAMPLE, assert_same, small_table, write_mtx

from iscale.captures.readers import files
from iscale.captures.readers.tenx_matrix import TenxMatrix, read_h5, read_mtx
from iscale.errors import InputError


@pytest.fixture
def table() -> TenxMatrix:
    return small_table()


@pytest.mark.real
@pytest.mark.parametrize("old", [False, True])
def test_the_sample_as_a_folder_is_the_same(data_dir: Path, tmp_path: Path, scanpy: ModuleType, old: bool) -> None:
    expected = read_h5(data_dir / SAMPLE)
    write_mtx(tmp_path / "m", expected, old=old)
    found = read_mtx(tmp_path / "m")
    assert_same(found, expected)
    assert found.feature_types == (None if old else expected.feature_types)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = scanpy.read_10x_mtx(tmp_path / "m", var_names="gene_ids")
    assert (found.counts != theirs.X).nnz == 0


@pytest.mark.real
def test_nothing_depends_on_the_blocks(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read_h5(data_dir / SAMPLE)
    write_mtx(tmp_path / "m", expected)
    monkeypatch.setattr(files, "BLOCK", 4099)
    assert_same(read_mtx(tmp_path / "m"), expected)


def test_entries_in_the_order_of_genes_are_sorted(tmp_path: Path, table: TenxMatrix) -> None:
    write_mtx(tmp_path / "by_gene", table, by_gene=True)
    assert_same(read_mtx(tmp_path / "by_gene"), table)


HEAD = "%%MatrixMarket matrix coordinate integer general\n"
MTX_DAMAGE = {
    HEAD + "4 5 2\n1 1 1\n": "says it has 2 entries, but holds 1",
    HEAD + "4 5 1\n1 1 1\n2 1 1\n": "says it has 1 entries, but holds more, 2",
    HEAD + "4 5 0\n1 1 1\n": "says it has 0 entries, but holds more",
    HEAD + "4 5 1\n5 1 1\n": r"a feature that is not there: index 4 \(from 0\) of 4",
    HEAD + "4 5 1\n1 0 1\n": r"a barcode that is not there: index -1 \(from 0\) of 5",
    HEAD + "4 5 1\n1 1 -3\n": "count 1 is -3, not finite or below 0",
    HEAD + "4 5 2\n1 1 1\n2 1 inf\n": "count 2 is inf",
    HEAD + "4 5 2\n1 1 1\n2 1\n": "count 2 is nan",
    HEAD + "4 5 2\n1 1 1\n2 1 x\n": "after entry 0 a line is no entry",
    HEAD + "4 5 2\n1 1 1\n2 1 1 1\n": "after entry 0 a line is no entry",
    HEAD + "4 5 1\n1 1\n": "a line has 2 fields, not 3",
    HEAD + "4 5 2\n1 1 1\n1 1 1\n": "more than one count for the same",
    HEAD + "4 5 1\n1.5 1 1\n": "a line is no entry",
    HEAD + "4 5 1\n99999999999999999999 1 1\n": "a line is no entry",
    HEAD + "4 6 1\n1 1 1\n": "4 features x 6 barcodes, the files beside it name 4 and 5",
    HEAD + "4 5 21\n1 1 1\n": "says it has 21 entries, more than it can hold",
    HEAD + "4 5 20\n1 1 1\n": "says it has 20 entries, more than it can hold",
    HEAD + "4 5\n": "the line of sizes is '4 5'",
    HEAD: "the line of sizes is ''",
    "%%MatrixMarket matrix array real general\n4 5\n": "no Matrix Market file of counts",
    "%%MatrixMarket matrix coordinate pattern general\n4 5 1\n1 1\n": "no Matrix Market file of counts",
    "id,count\n": "it begins with 'id,count'",
}


@pytest.mark.parametrize("text", MTX_DAMAGE)
def test_damaged_mtx_is_one_error(tmp_path: Path, table: TenxMatrix, text: str) -> None:
    write_mtx(tmp_path / "m", table, old=True)
    (tmp_path / "m/matrix.mtx").write_text(text)
    with pytest.raises(InputError, match=MTX_DAMAGE[text]):
        read_mtx(tmp_path / "m")


def test_an_incomplete_mtx_folder_is_one_error(tmp_path: Path, table: TenxMatrix) -> None:
    write_mtx(tmp_path / "m", table)
    path = tmp_path / "m/matrix.mtx.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InputError, match=r"matrix\.mtx\.gz is truncated or no gzip file"):
        read_mtx(tmp_path / "m")
    (tmp_path / "m/features.tsv.gz").unlink()
    with pytest.raises(InputError, match=r"does not hold the genes: looked for features\.tsv\.gz"):
        read_mtx(tmp_path / "m")
