"""What a CosMx capture does not need: files and columns that lack, or are odd, do not refuse it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cosmx_folders import CELLS, COUNTS, LOCAL, in_frame, write_cells, write_fovs, write_transcripts

from iscale.captures.readers import cosmx

UM = 0.12028


def change(folder: Path, **columns: object) -> None:
    path = folder / "S_metadata_file.csv"
    table = pd.read_csv(path)
    for name, values in columns.items():
        table = table.drop(columns=name) if values is None else table.assign(**{name: values})
    table.to_csv(path, index=False)


def to_mm(folder: Path, um: float) -> None:
    table = pd.read_csv(folder / "S_metadata_file.csv")
    at = {f"Center{a}_global_mm": table[f"Center{a}_global_px"] * um / 1000 for a in "XY"}
    change(folder, CenterX_global_px=None, CenterY_global_px=None, **at)


@pytest.mark.parametrize("um", [0.12028, 0.18])
def test_global_positions_in_mm_only_are_placed(tmp_path: Path, um: float) -> None:
    """Local positions tell the pixel; with fields of view in mm too, and without them."""
    write_cells(tmp_path)
    to_mm(tmp_path, um)
    found = cosmx.read(tmp_path, um_per_px=um)
    np.testing.assert_allclose(found.xy_px, in_frame(), atol=1e-6)
    write_fovs(tmp_path, f"FOV,X_mm,Y_mm\n1,0.1,0.2\n2,{0.1 + 4256 * um / 1000},0.2\n")
    found = cosmx.read(tmp_path)
    np.testing.assert_allclose(found.xy_px, in_frame(), atol=1e-6)
    assert found.um_per_px == pytest.approx(um)
    np.testing.assert_array_equal(found.counts.toarray(), COUNTS[:, :3])


def test_mm_without_local_positions_are_in_pixels_of_today(tmp_path: Path) -> None:
    write_cells(tmp_path, local=False)
    to_mm(tmp_path, UM)
    np.testing.assert_allclose(cosmx.read(tmp_path).xy_px, in_frame() - in_frame().min(axis=0), atol=1e-6)


@pytest.mark.parametrize("up", [False, True])
def test_fields_of_view_in_mm_only_tell_the_pixel(tmp_path: Path, up: bool) -> None:
    write_cells(tmp_path, up)
    write_transcripts(tmp_path, up)
    write_fovs(tmp_path, "Slide,X_mm,Y_mm,Z_mm,FOV\n1,-2.4,10.8,0,1\n1,-1.88808832,10.8,0,2\n")
    for bin_um in (None, 8):
        found = cosmx.read(tmp_path, bin_um=bin_um)
        assert found.um_per_px == pytest.approx(0.12028)
        assert any("S_fov_positions_file.csv has the positions in mm" in notice for notice in found.notices)


@pytest.mark.parametrize(
    "text", ["", "fov,x,y\n1,2,3\n", "fov,x_global_px,y_global_px\n1,0,0\n1,5,5\n", "fov,x_mm,y_mm\na,b,c\n"]
)
@pytest.mark.parametrize("bin_um", [None, 8])
def test_a_file_of_fields_of_view_that_is_odd_is_told(tmp_path: Path, text: str, bin_um: float | None) -> None:
    write_cells(tmp_path)
    write_transcripts(tmp_path)
    good = cosmx.read(tmp_path, bin_um=bin_um)
    (tmp_path / "S_fov_positions_file.csv").write_text(text)
    found = cosmx.read(tmp_path, bin_um=bin_um)
    np.testing.assert_array_equal(found.xy_px, good.xy_px)
    np.testing.assert_array_equal(found.counts.toarray(), good.counts.toarray())
    assert any("fields of view are not used: " in notice for notice in found.notices)
    (tmp_path / "S_fov_positions_file.csv").unlink()
    np.testing.assert_array_equal(cosmx.read(tmp_path, bin_um=bin_um).xy_px, good.xy_px)


def test_columns_that_are_not_needed_may_be_odd(tmp_path: Path) -> None:
    write_cells(tmp_path)
    change(tmp_path, Area=["900", "n/a", "", "1200", "1300", "inf"])
    found = cosmx.read(tmp_path)
    assert found.spot_diameter_um == pytest.approx(2 * np.sqrt(1200 / np.pi) * UM)
    assert found.obs is not None
    np.testing.assert_allclose(found.obs["cell_area_um2"], np.array([900, np.nan, np.nan, 1200, 1300, np.nan]) * UM**2)
    change(tmp_path, Area="none", CenterX_local_px="none")
    found = cosmx.read(tmp_path)
    assert found.spot_diameter_um is None
    assert any("no local y" in notice for notice in found.notices)
    np.testing.assert_allclose(found.xy_px, in_frame() - in_frame().min(axis=0))
    assert len(CELLS) == len(LOCAL) == found.counts.shape[0]


@pytest.fixture
def real(data_dir: Path) -> Path:
    return data_dir / "real" / "cosmx"


def files(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    return tuple(pd.read_csv(folder / f"Run5642_S3_Quarter_{name}_file.csv") for name in ("exprMat", "metadata", "tx"))


@pytest.mark.real
def test_real_cells_of_current_flat_files(real: Path) -> None:
    matrix, cells, _ = files(real)
    matrix = matrix[matrix["cell_ID"] != 0]
    found = cosmx.read(real)
    genes = [name for name in matrix.columns[2:] if not name.startswith(("NegPrb", "Negative", "SystemControl"))]
    assert found.gene_symbols == genes
    assert found.spot_ids == [f"{fov}_{cell}" for fov, cell in matrix[["fov", "cell_ID"]].to_numpy()]
    np.testing.assert_array_equal(found.counts.toarray(), matrix[genes].to_numpy())
    cells = cells.set_index(cells["fov"].astype(str) + "_" + cells["cell_ID"].astype(str)).loc[found.spot_ids]
    np.testing.assert_allclose(found.xy_px, cells[["CenterX_local_px", "CenterY_local_px"]], atol=1)
    assert found.um_per_px == UM
    assert found.spot_diameter_um == pytest.approx(2 * np.sqrt(cells["Area"].median() / np.pi) * UM)


@pytest.mark.real
def test_real_transcripts_without_fields_of_view(real: Path) -> None:
    matrix, _, transcripts = files(real)
    found = cosmx.read(real, bin_um=16)
    genes = transcripts[transcripts["target"].isin(found.gene_symbols)]
    assert found.counts.sum() == len(genes) == len(transcripts) - 1
    at = genes[["x_local_px", "y_local_px"]].to_numpy() * UM
    expected = pd.Series([f"{int(y // 16)}_{int(x // 16)}" for x, y in at]).value_counts()
    sums = dict(zip(found.spot_ids, np.asarray(found.counts.sum(axis=1)).ravel(), strict=True))
    assert sums == expected.to_dict()
    assert set(matrix.columns[2:]) >= set(found.gene_symbols)
