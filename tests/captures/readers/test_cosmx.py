"""CosMx folders: the real transcripts of two fields of view, and small folders of the flat files' layout."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cosmx_folders import COUNTS, GENES, edit, in_frame, write_cells, write_fovs, write_transcripts

from iscale.captures.measured import as_anndata
from iscale.captures.readers import cosmx
from iscale.errors import InputError


@pytest.fixture
def real(data_dir: Path) -> Path:
    return data_dir / "cosmx"


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
    np.testing.assert_allclose(measured.xy_px, in_frame())
    assert measured.um_per_px == 0.12028  # a field of view is 4,200 px high: more than the 3,648 of the first release
    assert measured.spot_diameter_um == pytest.approx(2 * np.sqrt(1150 / np.pi) * 0.12028)
    assert measured.pitch_um is None
    np.testing.assert_allclose(measured.obs["cell_area_um2"].iloc[0], 900 * 0.12028**2)
    assert sum("global y runs upwards" in n for n in measured.notices) == up
    assert any("4 of 7 columns are controls" in n for n in measured.notices)
    assert any("1 rows of counts outside of cells" in n for n in measured.notices)


@pytest.mark.parametrize("up", [False, True])
def test_bins_do_not_depend_on_where_y_runs(tmp_path, up):
    write_transcripts(tmp_path, up)
    measured = cosmx.read(tmp_path, bin_um=2)
    place = np.floor(in_frame()[[0, 2, 3, 5]] * 0.12028 / 2).astype(int)
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


def test_cells_in_another_order_are_matched_and_background_is_none(tmp_path):
    write_cells(tmp_path)
    table = pd.read_csv(tmp_path / "S_metadata_file.csv").drop(index=1)[::-1]
    background = table.iloc[:1].assign(cell_ID=0)
    pd.concat([background, table]).to_csv(tmp_path / "S_metadata_file.csv", index=False)
    measured = cosmx.read(tmp_path)
    kept = [0, 2, 3, 4, 5]
    assert measured.spot_ids == ["1_1", "1_3", "2_1", "2_2", "2_3"]
    np.testing.assert_array_equal(measured.counts.toarray(), COUNTS[kept, :3])
    np.testing.assert_allclose(measured.xy_px, in_frame()[kept])
    np.testing.assert_allclose(measured.obs["cell_area_um2"], np.array([900, 1100, 1200, 1300, 1400]) * 0.12028**2)
    assert any("1 of 6 cells of S_exprMat_file.csv are left out" in n for n in measured.notices)


def test_half_a_folder_is_refused(tmp_path):
    write_cells(tmp_path)
    write_transcripts(tmp_path)
    (tmp_path / "S_metadata_file.csv").rename(tmp_path / "kept")
    with pytest.raises(InputError, match=r"positions of the cells that S_exprMat_file\.csv counts"):
        cosmx.read(tmp_path)
    (tmp_path / "S_exprMat_file.csv").unlink()
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
        ("exprMat", "\n2,1,", "\n1,1,", "6 cells, 1 of them again, such as '1_1'"),
        ("metadata", "\n2,2,", "\n2,1,", "6 cells, 1 of them again, such as '2_1'"),
        ("metadata", "-19900.0", "here", "column 'CenterX_global_px'.*'here'"),
        ("metadata", "-19900.0", "", "1 cells of column 'CenterX_global_px' are empty"),
        ("metadata", "CenterY_global_px", "CenterY", "no column CenterY_global_px"),
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
