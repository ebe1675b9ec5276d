"""CosMx folders: the real transcripts of two fields of view, and small folders of the flat files' layout."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from iscale.errors import InputError
from iscale.vendors import cosmx
from iscale.vendors.base import as_anndata

GENES = ["EPCAM", "CD3E", "MS4A1"]
CONTROLS = ["NegPrb1", "Negative2", "SystemControl7", "FalseCode3"]
CELLS = [(fov, cell) for fov in (1, 2) for cell in (1, 2, 3)]
COUNTS = np.arange(42).reshape(6, 7) % 13
LOCAL = np.array([[100.0, 50], [200, 80], [4000, 4200], [10, 20], [30, 40], [50, 60]])
CORNERS = {1: (-20000.0, 90000.0), 2: (-15744.0, 90000.0)}


@pytest.fixture
def real(data_dir: Path) -> Path:
    return data_dir / "cosmx"


def _global(up: bool) -> np.ndarray:
    corners = np.array([CORNERS[fov] for fov, _ in CELLS])
    return np.column_stack([corners[:, 0] + LOCAL[:, 0], corners[:, 1] + (-1 if up else 1) * LOCAL[:, 1]])


def write_cells(folder: Path, up: bool = False, local: bool = True) -> None:
    folder.mkdir(exist_ok=True)
    matrix = pd.DataFrame(COUNTS, columns=[*GENES, *CONTROLS])
    matrix.insert(0, "fov", [fov for fov, _ in CELLS])
    matrix.insert(1, "cell_ID", [cell for _, cell in CELLS])
    background = pd.DataFrame([[1, 0, *[99] * 7]], columns=matrix.columns)
    pd.concat([background, matrix]).to_csv(folder / "S_exprMat_file.csv", index=False)
    table = matrix[["fov", "cell_ID"]].copy()
    table["Area"] = [900, 1000, 1100, 1200, 1300, 1400]
    if local:
        table["CenterX_local_px"], table["CenterY_local_px"] = LOCAL.T
    table["CenterX_global_px"], table["CenterY_global_px"] = _global(up).T
    table["Mean.PanCK"] = 1
    table.to_csv(folder / "S_metadata_file.csv", index=False)


def write_transcripts(folder: Path, up: bool = False) -> None:
    folder.mkdir(exist_ok=True)
    table = pd.DataFrame({"fov": [fov for fov, _ in CELLS], "cell_ID": 0})
    table["x_local_px"], table["y_local_px"] = LOCAL.T
    table["x_global_px"], table["y_global_px"] = _global(up).T
    table["z"] = 0
    table["target"] = ["EPCAM", "NegPrb1", "CD3E", "CD3E", "SystemControl7", "MS4A1"]
    table["CellComp"] = "Nuclear"
    table.to_csv(folder / "S_tx_file.csv", index=False)
    write_fovs(folder)


def write_fovs(folder: Path, text: str | None = None) -> None:
    rows = "".join(f"{fov},{x},{y}\n" for fov, (x, y) in CORNERS.items())
    (folder / "S_fov_positions_file.csv").write_text(text or f"fov,x_global_px,y_global_px\n{rows}")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.real
def test_every_transcript_of_the_real_file_is_in_its_bin(real):
    measured = cosmx.read(real)
    table = pd.read_csv(real / "Lung12_tx_file.csv.gz")
    fovs = pd.read_csv(real / "Lung12_fov_positions_file.csv").set_index("fov")
    table = table[~table["target"].str.startswith("NegPrb")]
    assert measured.counts.sum() == len(table) == 25_550
    assert measured.um_per_px == 0.18  # fields of view lie 5,472 px apart, those of 0.12028 um 4,256

    x_px = table["x_local_px"] + table["fov"].map(fovs["x_global_px"]) - fovs["x_global_px"].min()
    y_px = table["y_local_px"]  # both fields of view lie at the same height
    row, column = (np.floor(px * 0.18 / 8).astype(int).rename(name) for px, name in ((y_px, "y"), (x_px, "x")))
    expected = table.groupby([row, column, "target"]).size().unstack(fill_value=0)
    assert measured.spot_ids == [f"{y}_{x}" for y, x in expected.index]
    assert measured.gene_symbols == list(expected.columns)
    np.testing.assert_array_equal(measured.counts.toarray(), expected.to_numpy())
    centres = [((x + 0.5) * 8 / 0.18, (y + 0.5) * 8 / 0.18) for y, x in expected.index]
    np.testing.assert_allclose(measured.xy_px, centres)
    assert (measured.xy_px >= 0).all()
    assert measured.spot_diameter_um == pytest.approx(2 * 8 / np.sqrt(np.pi))
    assert measured.pitch_um == 8


@pytest.mark.real
def test_in_the_real_file_global_y_runs_as_local_y_does(real):
    table = pd.read_csv(real / "Lung12_tx_file.csv.gz")
    fovs = pd.read_csv(real / "Lung12_fov_positions_file.csv").set_index("fov")
    shift = table["y_global_px"] - table["fov"].map(fovs["y_global_px"])
    np.testing.assert_allclose(shift, table["y_local_px"], atol=1e-6)
    (notice,) = (n for n in cosmx.read(real).notices if "y runs downwards" in n)
    assert "as global and local y do" in notice
    assert "x 494.4, y -160233.3" in notice


@pytest.mark.real
def test_the_real_files_make_an_anndata_and_take_any_bin(real):
    measured = cosmx.read(real, bin_um=20, um_per_px=0.2)
    assert measured.counts.sum() == 25_550
    assert measured.um_per_px == 0.2
    assert any("as given (the files say 0.18 um" in notice for notice in measured.notices)
    assert as_anndata("lung", measured).shape == measured.counts.shape


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_cells_lie_in_pixels_from_the_corner_with_y_down(tmp_path, up, zipped):
    write_cells(tmp_path, up)
    if zipped:
        for path in tmp_path.glob("*.csv"):
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    assert cosmx.looks_like(tmp_path)
    measured = cosmx.read(tmp_path)
    assert measured.spot_ids == ["1_1", "1_2", "1_3", "2_1", "2_2", "2_3"]
    assert measured.gene_symbols == measured.gene_ids == GENES
    np.testing.assert_array_equal(measured.counts.toarray(), COUNTS[:, :3])
    np.testing.assert_allclose(measured.xy_px, _in_frame())
    assert measured.um_per_px == 0.12028  # a field of view is 4,200 px high: more than the 3,648 of the first release
    assert measured.spot_diameter_um == pytest.approx(2 * np.sqrt(1150 / np.pi) * 0.12028)
    assert measured.pitch_um is None
    np.testing.assert_allclose(measured.obs["cell_area_um2"].iloc[0], 900 * 0.12028**2)
    assert sum("global y runs upwards" in n for n in measured.notices) == up
    assert any("4 of 7 columns are controls" in n for n in measured.notices)
    assert any("1 rows of counts outside of cells" in n for n in measured.notices)


def _in_frame() -> np.ndarray:
    return LOCAL + np.array([[0.0, 0]] * 3 + [[4256, 0]] * 3)


def test_fields_of_view_above_each_other_keep_their_order_where_global_y_runs_up(tmp_path):
    write_cells(tmp_path, up=True)
    table = pd.read_csv(tmp_path / "S_metadata_file.csv")
    table.loc[table["fov"] == 2, "CenterY_global_px"] += 4256  # the second lies above the first
    table.to_csv(tmp_path / "S_metadata_file.csv", index=False)
    y = cosmx.read(tmp_path).xy_px[:, 1]
    np.testing.assert_allclose(y, LOCAL[:, 1] + [4256, 4256, 4256, 0, 0, 0])


def test_without_local_positions_y_is_as_it_is_and_the_pixel_that_of_today(tmp_path):
    write_cells(tmp_path, local=False)
    measured = cosmx.read(tmp_path)
    np.testing.assert_allclose(measured.xy_px, _in_frame() - [100, 20])
    assert any("no local y" in n for n in measured.notices)
    assert any("the files do not tell" in n and "0.12028" in n for n in measured.notices)


def test_centres_that_are_rounded_one_at_a_time_still_fit(tmp_path):
    write_cells(tmp_path, up=True)
    edit(tmp_path / "S_metadata_file.csv", "200.0,80.0", "201.0,79.0")
    assert any("global y runs upwards" in n for n in cosmx.read(tmp_path).notices)


def test_global_and_local_positions_that_do_not_fit_are_refused(tmp_path):
    write_cells(tmp_path)
    edit(tmp_path / "S_metadata_file.csv", "200.0,80.0", "900.0,80.0")
    with pytest.raises(InputError, match=r"global and local x do not belong together.* 700 px"):
        cosmx.read(tmp_path)


@pytest.mark.parametrize("up", [False, True])
def test_bins_do_not_depend_on_where_y_runs(tmp_path, up):
    write_transcripts(tmp_path, up)
    measured = cosmx.read(tmp_path, bin_um=2)
    place = np.floor(_in_frame()[[0, 2, 3, 5]] * 0.12028 / 2).astype(int)
    expected = {f"{y}_{x}": gene for (x, y), gene in zip(place, ["EPCAM", "CD3E", "CD3E", "MS4A1"], strict=True)}
    found = dict(zip(measured.spot_ids, np.array(measured.gene_symbols)[measured.counts.indices], strict=True))
    assert found == expected
    assert measured.counts.data.tolist() == [1] * 4
    assert any("Of 6 transcripts 2 are controls" in n for n in measured.notices)


def test_bins_know_the_genes_of_the_matrix(tmp_path):
    write_cells(tmp_path)
    write_transcripts(tmp_path)
    edit(tmp_path / "S_tx_file.csv", "MS4A1", "ACTB")
    measured = cosmx.read(tmp_path, bin_um=8)
    assert measured.gene_symbols == [*GENES, "ACTB"]
    assert measured.counts.sum(axis=0).tolist() == [[1, 2, 0, 1]]


@pytest.mark.parametrize(
    ("fovs", "um"),
    [
        ("fov,x_global_px,y_global_px\n1,0,0\n2,5472.2,1\n", 0.18),
        ("fov,x_global_px,y_global_px\n1,0,0\n2,3,-3648\n", 0.18),
        ("FOV,x_global_px,y_global_px\n1,0,0\n2,0,4256\n3,0,8512\n", 0.12028),
        ("FOV,x_global_px,y_global_px,x_global_mm,y_global_mm\n1,0,0,0,0\n2,5472,0,0.6566,0\n", 0.12),
        ("fov,x_global_px,y_global_px,X_mm,Y_mm\n1,0,100,7,3\n2,1000,600,7.05,3.1\n", 0.1),
    ],
)
def test_the_side_of_a_pixel_is_derived_from_the_fields_of_view(tmp_path, fovs, um):
    write_cells(tmp_path, local=False)
    write_fovs(tmp_path, fovs)
    assert cosmx.read(tmp_path).um_per_px == pytest.approx(um, rel=1e-4)
    assert cosmx.read(tmp_path, um_per_px=0.3).um_per_px == 0.3


def test_a_wide_field_of_view_is_of_the_first_release(tmp_path):
    write_cells(tmp_path)
    edit(tmp_path / "S_metadata_file.csv", "4000.0,4200.0,-16000.0,94200.0", "5400.0,3600.0,-14600.0,93600.0")
    assert cosmx.read(tmp_path).um_per_px == 0.18


@pytest.mark.parametrize("um", [0, -1, 180, float("nan")])
def test_a_pixel_size_must_be_plausible(tmp_path, um):
    write_cells(tmp_path)
    with pytest.raises(InputError, match="side of a pixel"):
        cosmx.read(tmp_path, um_per_px=um)
    write_fovs(tmp_path, "fov,x_global_px,y_global_px,X_mm,Y_mm\n1,0,0,7,3\n2,1000,600,700,300\n")
    with pytest.raises(InputError, match=r"fov_positions_file\.csv gives 618"):
        cosmx.read(tmp_path)


def test_new_ids_of_cells_are_kept(tmp_path):
    write_cells(tmp_path)
    for name in ("S_exprMat_file.csv", "S_metadata_file.csv"):
        table = pd.read_csv(tmp_path / name)
        table["cell_ID"] = [f"c_9_{f}_{c}" for f, c in zip(table["fov"], table["cell_ID"], strict=True)]
        table.to_csv(tmp_path / name, index=False)
    measured = cosmx.read(tmp_path)
    assert measured.spot_ids[:2] == ["c_9_1_1", "c_9_1_2"]
    assert measured.counts.shape == (6, 3)


def test_cells_in_another_order_are_matched_and_background_is_none(tmp_path):
    write_cells(tmp_path)
    table = pd.read_csv(tmp_path / "S_metadata_file.csv").drop(index=1)[::-1]
    background = table.iloc[:1].assign(cell_ID=0)
    pd.concat([background, table]).to_csv(tmp_path / "S_metadata_file.csv", index=False)
    measured = cosmx.read(tmp_path)
    kept = [0, 2, 3, 4, 5]
    assert measured.spot_ids == ["1_1", "1_3", "2_1", "2_2", "2_3"]
    np.testing.assert_array_equal(measured.counts.toarray(), COUNTS[kept, :3])
    np.testing.assert_allclose(measured.xy_px, _in_frame()[kept])
    np.testing.assert_allclose(measured.obs["cell_area_um2"], np.array([900, 1100, 1200, 1300, 1400]) * 0.12028**2)
    assert any("1 of 6 cells of S_exprMat_file.csv are left out" in n for n in measured.notices)


def test_half_a_folder_is_refused(tmp_path):
    write_cells(tmp_path)
    write_transcripts(tmp_path)
    (tmp_path / "S_metadata_file.csv").rename(tmp_path / "kept")
    with pytest.raises(InputError, match=r"positions of the cells that S_exprMat_file\.csv counts"):
        cosmx.read(tmp_path)
    (tmp_path / "S_exprMat_file.csv").unlink()
    (tmp_path / "S_fov_positions_file.csv").unlink()
    with pytest.raises(InputError, match="positions of the fields of view"):
        cosmx.read(tmp_path)
    (tmp_path / "S_tx_file.csv").unlink()
    (tmp_path / "kept").rename(tmp_path / "S_metadata_file.csv")
    assert cosmx.looks_like(tmp_path)
    with pytest.raises(InputError, match="does not hold counts"):
        cosmx.read(tmp_path)


def test_bins_need_transcripts(tmp_path):
    write_cells(tmp_path)
    with pytest.raises(InputError, match="the transcripts, which bins are made of"):
        cosmx.read(tmp_path, bin_um=8)


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("exprMat", "\n1,1,0,", "\n1,1,x,", "line 3 .cell 1_1., column 'EPCAM' is 'x'"),
        ("exprMat", "\n1,1,0,", "\n1,1,-2,", "'-2'"),
        ("exprMat", "\n1,1,0,", "\n1,1,nan,", "'nan'"),
        ("exprMat", "\n1,1,0,", "\n1,1,,", "is ''"),
        ("exprMat", "\n1,1,0,", "\n1,1,", "line 3 has 8 cells, the header names 9 columns"),
        ("exprMat", "\n2,1,", "\n1,1,", "6 cells, 1 of them again, such as '1_1'"),
        ("exprMat", "fov,", "field,", "fov, cell_ID and genes"),
        ("exprMat", "EPCAM,CD3E,MS4A1", "NegPrb5,NegPrb6,NegPrb7", "has 0 genes"),
        ("metadata", "\n2,2,", "\n2,1,", "6 cells, 1 of them again, such as '2_1'"),
        ("metadata", "-19900.0", "here", "column 'CenterX_global_px'.*'here'"),
        ("metadata", "-19900.0", "", "1 cells of column 'CenterX_global_px' are empty"),
        ("metadata", "CenterY_global_px", "CenterY", "no column CenterY_global_px"),
        ("fov_positions", "\n2,", "\n1,", "2 fields of view, 1 of them again"),
        ("fov_positions", "x_global_px", "x", "no column x_global_px"),
    ],
)
def test_damaged_tables_of_cells_are_one_error(tmp_path, name, old, new, said):
    write_cells(tmp_path)
    write_fovs(tmp_path)
    edit(tmp_path / f"S_{name}_file.csv", old, new)
    with pytest.raises(InputError, match=said) as caught:
        cosmx.read(tmp_path)
    assert f"S_{name}_file.csv" in caught.value.problem
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("tx", "-19900.0", "abc", "column 'x_global_px'.*'abc'"),
        ("tx", "-19900.0", "1e99", "do not belong together"),
        ("tx", "EPCAM", "", "names '' as the gene"),
        ("tx", "target", "gene", "no column target"),
        ("tx", ",Nuclear\n", "\n", "Expected 9 columns, got 8"),
        ("fov_positions", "\n2,", "\n3,", "lacks 1 of them: 2"),
    ],
)
def test_damaged_transcripts_are_one_error(tmp_path, name, old, new, said):
    write_transcripts(tmp_path)
    edit(tmp_path / f"S_{name}_file.csv", old, new)
    with pytest.raises(InputError, match=said):
        cosmx.read(tmp_path)


def test_cells_of_another_section_are_refused(tmp_path):
    write_cells(tmp_path)
    table = pd.read_csv(tmp_path / "S_metadata_file.csv")
    table["fov"] += 100
    table.to_csv(tmp_path / "S_metadata_file.csv", index=False)
    with pytest.raises(InputError, match="only 0 are in both"):
        cosmx.read(tmp_path)


@pytest.mark.parametrize("name", ["exprMat", "metadata"])
def test_half_a_gzip_file_is_refused(tmp_path, name):
    write_cells(tmp_path)
    path = tmp_path / f"S_{name}_file.csv"
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes())[:-20])
    path.unlink()
    with pytest.raises(InputError, match="truncated"):
        cosmx.read(tmp_path)


def test_half_the_real_transcripts_are_refused(tmp_path, real):
    for path in real.iterdir():
        whole = path.read_bytes()
        (tmp_path / path.name).write_bytes(whole[: len(whole) // 2] if path.name.endswith(".gz") else whole)
    with pytest.raises(InputError, match="truncated"):
        cosmx.read(tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    write_cells(tmp_path / "sample")
    (tmp_path / "sample" / "S_metadata_file.csv").rename(tmp_path / "S_metadata_file.csv")
    (tmp_path / "sample" / "S_metadata_file.csv").symlink_to(tmp_path / "S_metadata_file.csv")
    with pytest.raises(InputError, match="leads out of the folder"):
        cosmx.read(tmp_path / "sample")


def test_only_controls_are_no_capture(tmp_path):
    write_transcripts(tmp_path)
    table = pd.read_csv(tmp_path / "S_tx_file.csv").assign(target="NegPrb1")
    table.to_csv(tmp_path / "S_tx_file.csv", index=False)
    with pytest.raises(InputError, match="all 6 transcripts are controls"):
        cosmx.read(tmp_path)


def test_other_folders_are_not_taken_for_cosmx(tmp_path):
    (tmp_path / "experiment.xenium").touch()
    (tmp_path / "transcripts.parquet").touch()
    assert not cosmx.looks_like(tmp_path)
