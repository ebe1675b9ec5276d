"""The matrix of cells of CosMx: its genes and ids, and one error where a line is damaged."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from cosmx_folders import COUNTS, GENES, edit, write_cells

from iscale.captures.readers import cosmx
from iscale.captures.readers.cosmx import read_matrix
from iscale.errors import InputError


def test_counts_of_genes_come_line_by_line_without_controls_and_background(tmp_path):
    write_cells(tmp_path)
    edit(tmp_path / "S_exprMat_file.csv", "\n1,1,0,", "\n1,1,1234,")
    ids, genes, counts, notices = read_matrix(tmp_path / "S_exprMat_file.csv")
    assert ids == ["1_1", "1_2", "1_3", "2_1", "2_2", "2_3"]
    assert genes == GENES
    expected = COUNTS[:, :3].copy()
    expected[0, 0] = 1234  # not the one digit that most counts are
    np.testing.assert_array_equal(counts.toarray(), expected)
    assert len(notices) == 2


def test_new_ids_of_cells_are_kept(tmp_path):
    write_cells(tmp_path)
    for name in ("S_exprMat_file.csv", "S_metadata_file.csv"):
        table = pd.read_csv(tmp_path / name)
        table["cell_ID"] = [f"c_9_{f}_{c}" for f, c in zip(table["fov"], table["cell_ID"], strict=True)]
        table.to_csv(tmp_path / name, index=False)
    measured = cosmx.read(tmp_path)
    assert measured.spot_ids[:2] == ["c_9_1_1", "c_9_1_2"]
    assert measured.counts.shape == (6, 3)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("\n1,1,0,", "\n1,1,x,", "line 3 .cell 1_1., column 'EPCAM' is 'x'"),
        ("\n1,1,0,", "\n1,1,-2,", "'-2'"),
        ("\n1,1,0,", "\n1,1,nan,", "'nan'"),
        ("\n1,1,0,", "\n1,1,,", "is ''"),
        ("\n1,1,0,", "\n1,1,", "line 3 has 8 cells, the header names 9 columns"),
        ("fov,", "field,", "fov, cell_ID and genes"),
        ("EPCAM,CD3E,MS4A1", "NegPrb5,NegPrb6,NegPrb7", "has 0 genes"),
    ],
)
def test_damaged_counts_are_one_error(tmp_path, old, new, said):
    write_cells(tmp_path)
    edit(tmp_path / "S_exprMat_file.csv", old, new)
    with pytest.raises(InputError, match=said) as caught:
        read_matrix(tmp_path / "S_exprMat_file.csv")
    assert "S_exprMat_file.csv" in caught.value.problem
    assert caught.value.remedy
