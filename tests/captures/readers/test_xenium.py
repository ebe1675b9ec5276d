"""Xenium folders, written here from the published description of the output: no real one is small enough to keep.

What is stated is therefore that the reader does as the description says, not that it reads what instruments write.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from iscale.captures.measured import as_anndata
from iscale.captures.platforms import told
from iscale.captures.readers import xenium
from iscale.errors import InputError

PIXEL_UM = 0.2125
GENES = ["EPCAM", "CD3E", "MS4A1"]
OTHERS = {"NegControlProbe_00042": "Negative Control Probe", "BLANK_0006": "Unassigned Codeword"}
CELLS = [f"aaaa{letter}-1" for letter in "bcdefg"]
COUNTS = np.arange(30).reshape(6, 5) % 4
CENTRES = np.column_stack([np.arange(6) * 20.0 + 3, 100 - np.arange(6) * 10.0])
AREAS = np.array([30.0, 40, 50, 60, 70, 80])


def write_matrix(path: Path, barcodes: list[str], counts: np.ndarray = COUNTS) -> None:
    columns = sparse.csr_matrix(counts)
    kinds = ["Gene Expression"] * 3 + list(OTHERS.values())
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(barcodes, dtype="S")
        group["data"], group["indices"] = columns.data.astype(np.int32), columns.indices.astype(np.int64)
        group["indptr"], group["shape"] = columns.indptr.astype(np.int64), np.array(counts.shape[::-1], np.int32)
        features = group.create_group("features")
        features["id"] = np.array([f"ENSG{i}" for i in range(3)] + list(OTHERS), dtype="S")
        features["name"] = np.array(GENES + list(OTHERS), dtype="S")
        features["feature_type"] = np.array(kinds, dtype="S")
        features["genome"] = np.array(["GRCh38"] * 5, dtype="S")


def write_cells(path: Path, ids=CELLS) -> None:
    table = pa.table(
        {
            "cell_id": ids,
            "x_centroid": CENTRES[:, 0],
            "y_centroid": CENTRES[:, 1],
            "transcript_counts": COUNTS[:, :3].sum(1),
            "cell_area": AREAS,
        }
    )
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        table.to_pandas().to_csv(path, index=False)


def transcripts(rows: int = 5000) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    names = np.array([*GENES, "NegControlProbe_00042", "NegControlCodeword_0500", "BLANK_0006", "UnassignedCodeword_1"])
    category = np.array(["predesigned_gene"] * 2 + ["custom_gene", "negative_control_probe"])
    category = np.append(category, ["negative_control_codeword", "unassigned_codeword", "unassigned_codeword"])
    which = rng.integers(0, len(names), rows)
    return pd.DataFrame(
        {
            "transcript_id": np.arange(rows, dtype=np.uint64),
            "cell_id": "UNASSIGNED",
            "feature_name": names[which],
            "x_location": rng.uniform(0, 130, rows).astype(np.float32),
            "y_location": rng.uniform(0, 110, rows).astype(np.float32),
            "z_location": 15.0,
            "qv": rng.uniform(5, 40, rows).astype(np.float32),
            "codeword_category": category[which],
            "is_gene": which < 3,
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "output-XETG00000__0000001__Region_1"
    folder.mkdir()
    run = {"major_version": 5, "minor_version": 2, "region_name": "Region_1", "pixel_size": PIXEL_UM, "images": {}}
    (folder / "experiment.xenium").write_text(json.dumps(run))
    write_matrix(folder / "cell_feature_matrix.h5", CELLS)
    write_cells(folder / "cells.parquet")
    pq.write_table(pa.Table.from_pandas(transcripts()), folder / "transcripts.parquet", row_group_size=700)
    return folder


def test_cells_are_genes_only_in_pixels_of_the_morphology_image(folder):
    assert xenium.looks_like(folder)
    measured = xenium.read(folder)
    assert measured.platform == "xenium"
    assert measured.spot_ids == CELLS
    assert (measured.gene_symbols, measured.gene_ids) == (GENES, ["ENSG0", "ENSG1", "ENSG2"])
    np.testing.assert_array_equal(measured.counts.toarray(), COUNTS[:, :3])
    np.testing.assert_allclose(measured.xy_px * 0.2125, CENTRES)
    assert measured.um_per_px == 0.2125
    assert measured.spot_diameter_um == pytest.approx(2 * np.sqrt(55 / np.pi))
    assert measured.pitch_um is None
    assert measured.image is None
    assert measured.obs["cell_area_um2"].tolist() == AREAS.tolist()
    assert any("2 of 5 features" in n and "1 Negative Control Probe" in n for n in measured.notices)
    data = as_anndata("r1", measured)
    assert data.uns["spatial"]["r1"]["scalefactors"]["spot_diameter_fullres"] == pytest.approx(8.368 / 0.2125, rel=1e-3)


@pytest.mark.parametrize("kind", ["bytes", "int", "csv", "csv.gz"])
def test_older_outputs_write_ids_as_bytes_or_numbers_and_cells_as_csv(folder, kind):
    (folder / "cells.parquet").unlink()
    if kind == "bytes":
        write_cells(folder / "cells.parquet", [cell.encode() for cell in CELLS])
    elif kind == "int":
        write_cells(folder / "cells.parquet", pa.array(range(1, 7), pa.int32()))
        write_matrix(folder / "cell_feature_matrix.h5", [str(i) for i in range(1, 7)])
    else:
        write_cells(folder / f"cells.{kind}")
    measured = xenium.read(folder)
    assert measured.spot_ids == ([str(i) for i in range(1, 7)] if kind == "int" else CELLS)
    np.testing.assert_allclose(measured.xy_px * PIXEL_UM, CENTRES)


def test_cells_in_another_order_or_missing_are_matched_by_id(folder):
    write_matrix(folder / "cell_feature_matrix.h5", [*CELLS[4::-1], "unknown-1"])
    measured = xenium.read(folder)
    assert measured.spot_ids == CELLS[4::-1]
    np.testing.assert_allclose(measured.xy_px * PIXEL_UM, CENTRES[4::-1])
    np.testing.assert_array_equal(measured.counts.toarray(), COUNTS[:5, :3])
    assert sum("1 of 6 cells" in notice for notice in measured.notices) == 2


@pytest.mark.parametrize("told_by", ["is_gene", "codeword_category", "names", "csv.gz", "bytes"])
def test_bins_count_every_good_transcript_of_a_gene_once(folder, told_by):
    table = transcripts()
    good = table[(table["qv"] >= 20) & table["is_gene"]]
    written = table
    if told_by == "codeword_category":
        written = table.drop(columns="is_gene")
    elif told_by == "names":
        written = table.drop(columns=["is_gene", "codeword_category"])
    elif told_by == "bytes":
        written = table.assign(feature_name=[name.encode() for name in table["feature_name"]])
    (folder / "transcripts.parquet").unlink()
    if told_by == "csv.gz":
        written.to_csv(folder / "transcripts.csv.gz", index=False)
    else:
        pq.write_table(pa.Table.from_pandas(written), folder / "transcripts.parquet", row_group_size=700)
    measured = xenium.read(folder, bin_um=16)
    assert (measured.gene_symbols, measured.gene_ids) == (GENES, ["ENSG0", "ENSG1", "ENSG2"])
    assert measured.counts.sum() == len(good)
    at = pd.Series(measured.spot_ids).str.split("_", expand=True).astype(int).to_numpy()
    np.testing.assert_allclose(measured.xy_px * PIXEL_UM, (at[:, ::-1] + 0.5) * 16)
    row, column = (good["y_location"] // 16).astype(int), (good["x_location"] // 16).astype(int)
    expected = good.groupby([row, column, "feature_name"]).size().unstack(fill_value=0)[GENES]
    assert [tuple(pair) for pair in at.tolist()] == list(expected.index)
    np.testing.assert_array_equal(measured.counts.toarray(), expected.to_numpy())
    assert measured.pitch_um == 16
    assert measured.spot_diameter_um == pytest.approx(2 * 16 / np.sqrt(np.pi))
    n_controls, n_poor = int((~table["is_gene"]).sum()), int((table["is_gene"] & (table["qv"] < 20)).sum())
    (notice,) = (n for n in measured.notices if "5,000 transcripts" in n)
    assert f"{n_controls:,} are controls" in notice
    assert f"{n_poor:,} have a qv under 20" in notice
    assert ("controls (by their names)" in notice) == (told_by == "names")


def test_without_a_matrix_there_are_bins_of_8_um_and_genes_by_alphabet(folder):
    (folder / "cell_feature_matrix.h5").unlink()
    measured = xenium.read(folder)
    assert measured.pitch_um == 8
    assert measured.gene_symbols == measured.gene_ids == sorted(GENES)
    assert any("no cell_feature_matrix.h5" in notice for notice in measured.notices)
    table = transcripts()
    per_gene = table[(table["qv"] >= 20) & table["is_gene"]]["feature_name"].value_counts()
    assert measured.counts.sum(axis=0).tolist() == [[per_gene[gene] for gene in sorted(GENES)]]


def test_the_he_that_xenium_explorer_aligned_is_the_image(folder):
    (folder / "P1_he_image.ome.tif").write_bytes(b"II*\0")
    # H&E of 0.5 um/px, turned by 90 degrees: its pixel (x, y) lies at morphology pixel (5000 - s y, 40 + s x).
    s = 0.5 / PIXEL_UM
    (folder / "P1_he_imagealignment.csv").write_text(f"0,{-s},5000\n{s},0,40\n0,0,1\n")
    measured = xenium.read(folder)
    assert measured.image == folder / "P1_he_image.ome.tif"
    np.testing.assert_allclose(measured.image_from_full @ [5000 - s * 7, 40 + s * 11, 1], [11, 7, 1], atol=1e-9)
    np.testing.assert_allclose(measured.xy_px * PIXEL_UM, CENTRES)  # stay in morphology pixels
    assert any("P1_he_image.ome.tif" in notice for notice in measured.notices)
    np.testing.assert_array_equal(xenium.read(folder, bin_um=8).image_from_full, measured.image_from_full)


def test_the_image_may_have_the_alignment_s_own_name(folder):
    (folder / "scan 7_imagealignment.csv").write_text("2,0,0\n0,2,0\n0,0,1\n")
    (folder / "scan 7.ome.tiff").write_bytes(b"II*\0")
    (folder / "morphology.ome.tif").write_bytes(b"II*\0")
    assert xenium.read(folder).image == folder / "scan 7.ome.tiff"


def test_an_alignment_without_its_image_is_said(folder):
    (folder / "P1_he_imagealignment.csv").write_text("2,0,0\n0,2,0\n0,0,1\n")
    measured = xenium.read(folder)
    assert measured.image is None
    np.testing.assert_array_equal(measured.image_from_full, np.eye(3))
    assert any("not in the folder" in notice for notice in measured.notices)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,2,0\n2,4,0\n0,0,1\n", "singular"),
        ("a,b,c\n2,4,0\n0,0,1\n", "no matrix"),
        ("1,0\n0,1\n", "shape"),
        ("1,0,0\n0,1\n0,0,1\n", "not made of numbers"),
        ("1,0,nan\n0,1,0\n0,0,1\n", "not finite"),
        ("1,0,0\n0,1,0\n5,5,1\n", "last row"),
    ],
)
def test_a_matrix_that_places_nothing_is_refused(folder, text, said):
    (folder / "P1_he_image.ome.tif").write_bytes(b"II*\0")
    (folder / "P1_he_imagealignment.csv").write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        xenium.read(folder)
    assert "P1_he_imagealignment.csv" in caught.value.problem
    assert ("as Xenium Explorer exports it" in caught.value.remedy) == (said != "last row")


HE_MATRIX, IF_MATRIX = "1,0,12.5\n0,1,8\n0,0,1\n", "0.9,0,5\n0,0.9,7\n0,0,1\n"


@pytest.mark.parametrize("he", ["P1_he_", "P1_H&E_", "P1_h_and_e_", "HE-"])
@pytest.mark.parametrize("other", ["P1_if_", "P1_IF-", "P1_other_"])
def test_of_two_alignments_that_of_the_he_is_taken_by_its_name(folder, he, other):
    (folder / f"{he}image.ome.tif").write_bytes(b"II*\0")
    (folder / f"{he}imagealignment.csv").write_text(HE_MATRIX)
    (folder / f"{other}imagealignment.csv").write_text(IF_MATRIX)
    measured = xenium.read(folder)
    assert measured.image == folder / f"{he}image.ome.tif"
    np.testing.assert_allclose(np.linalg.inv(measured.image_from_full), [[1, 0, 12.5], [0, 1, 8], [0, 0, 1]])
    said = (
        f"Of 2 alignments {he}imagealignment.csv is taken, that of the H&E by its name; not {other}imagealignment.csv."
    )
    assert said in measured.notices
    assert told(folder, "xenium") == (said,)


def test_the_alignment_of_another_stain_is_not_used(folder):
    (folder / "P1_if_image.ome.tif").write_bytes(b"II*\0")
    (folder / "P1_if_imagealignment.csv").write_text(IF_MATRIX)
    measured = xenium.read(folder)
    assert measured.image is None
    assert any("of another image than an H&E" in notice for notice in measured.notices)


def dictionaries(table: pd.DataFrame, names: list[str]) -> pa.Table:
    """Text as today's instruments write it: numbers into a dictionary, which names what no row has too."""
    columns = {name: pa.array(table[name]) for name in table if name not in ("feature_name", "codeword_category")}
    number = pa.array(table["feature_name"].map(names.index), pa.int32())
    columns["feature_name"] = pa.DictionaryArray.from_arrays(number, pa.array(names))
    columns["codeword_category"] = pa.array(table["codeword_category"]).dictionary_encode()
    return pa.table(columns)


CONTROLS = {
    "Intergenic_Region_1": "genomic_control_probe",
    "DeprecatedCodeword_01": "deprecated_codeword",
    "UnassignedCodeword_02": "unassigned_codeword",
    "antisense_PROKR2": "negative_control_probe",
}


@pytest.mark.parametrize("told_by", ["is_gene", "codeword_category", "names"])
@pytest.mark.parametrize("with_matrix", [True, False])
def test_controls_of_a_dictionary_are_no_genes_of_zeros(folder, told_by, with_matrix):
    table = transcripts(600)
    table["is_gene"] = table["feature_name"].isin(GENES)
    for i, (name, kind) in enumerate(CONTROLS.items()):
        table.loc[i::40, ["feature_name", "codeword_category", "is_gene"]] = [name, kind, False]
    names = ["Never_Met", *CONTROLS, *sorted(set(table["feature_name"]) - set(CONTROLS))]
    written = dictionaries(table, names)
    drop = {"is_gene": [], "codeword_category": ["is_gene"], "names": ["is_gene", "codeword_category"]}
    pq.write_table(written.drop_columns(drop[told_by]), folder / "transcripts.parquet", row_group_size=70)
    if not with_matrix:
        (folder / "cell_feature_matrix.h5").unlink()
    measured = xenium.read(folder, bin_um=16)
    assert sorted(measured.gene_symbols) == sorted(GENES)
    good = table[table["is_gene"] & (table["qv"] >= 20)]
    expected = good["feature_name"].value_counts()
    sums = np.asarray(measured.counts.sum(axis=0)).ravel()
    assert dict(zip(measured.gene_symbols, sums, strict=True)) == expected.to_dict()


def test_several_alignments_are_refused(folder):
    for name in ("a", "b"):
        (folder / f"{name}_imagealignment.csv").write_text("2,0,0\n0,2,0\n0,0,1\n")
    with pytest.raises(InputError, match="2 files"):
        xenium.read(folder)


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (None, "unit is missing"),
        ("{}", "no pixel_size: the unit is missing"),
        ('{"pixel_size": "0.2125"}', "'0.2125', which is no number"),
        ('{"pixel_size": true}', "no number"),
        ('{"pixel_size": 212.5}', "212.5 um"),
        ('{"pixel_size": 0}', "0 um"),
        ('{"pixel_size": NaN}', "nan um"),
        ('{"pixel_size": 0.21', "not valid JSON"),
    ],
)
def test_the_unit_must_be_known(folder, run, said):
    path = folder / "experiment.xenium"
    path.unlink() if run is None else path.write_text(run)
    assert xenium.looks_like(folder)
    with pytest.raises(InputError, match=said) as caught:
        xenium.read(folder)
    assert caught.value.remedy


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("bin_um", [None, 8])
def test_half_a_matrix_is_refused(folder, bin_um):
    _truncate(folder / "cell_feature_matrix.h5")
    with pytest.raises(InputError, match="truncated or damaged"):
        xenium.read(folder, bin_um)


@pytest.mark.parametrize(("name", "bin_um"), [("cells.parquet", None), ("transcripts.parquet", 8)])
def test_half_a_parquet_file_is_refused(folder, name, bin_um):
    _truncate(folder / name)
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        xenium.read(folder, bin_um)


def test_half_a_gzip_file_is_refused(folder):
    (folder / "cells.parquet").unlink()
    write_cells(folder / "cells.csv")
    (folder / "cells.csv.gz").write_bytes(gzip.compress((folder / "cells.csv").read_bytes())[:-30])
    with pytest.raises(InputError, match="truncated"):
        xenium.read(folder)


def test_half_a_folder_is_refused(folder):
    (folder / "cells.parquet").rename(folder / "elsewhere")
    with pytest.raises(InputError, match="positions of the cells"):
        xenium.read(folder)
    (folder / "elsewhere").rename(folder / "cells.parquet")
    (folder / "transcripts.parquet").unlink()
    with pytest.raises(InputError, match="the transcripts, which bins"):
        xenium.read(folder, bin_um=8)
    (folder / "cell_feature_matrix.h5").unlink()
    with pytest.raises(InputError, match="counts"):
        xenium.read(folder)


def test_cells_of_another_region_or_twice_are_refused(folder):
    write_cells(folder / "cells.parquet", ["x", "y", "z", "w", *CELLS[:2]])
    with pytest.raises(InputError, match="only 2 are in both"):
        xenium.read(folder)
    write_cells(folder / "cells.parquet", [*CELLS[:5], CELLS[0]])
    with pytest.raises(InputError, match="1 of them again"):
        xenium.read(folder)


@pytest.mark.parametrize("column", ["cell_id", "x_centroid"])
def test_a_table_of_cells_without_a_column_is_refused(folder, column):
    pq.write_table(pq.read_table(folder / "cells.parquet").drop_columns([column]), folder / "cells.parquet")
    with pytest.raises(InputError, match=f"no column {column}"):
        xenium.read(folder)


def test_a_position_that_is_no_number_is_refused(folder):
    table = pq.read_table(folder / "cells.parquet").to_pandas()
    table.loc[2, "x_centroid"] = np.nan
    pq.write_table(pa.Table.from_pandas(table), folder / "cells.parquet")
    with pytest.raises(InputError, match="1 cells of column 'x_centroid'"):
        xenium.read(folder)


def test_negative_counts_are_refused(folder):
    write_matrix(folder / "cell_feature_matrix.h5", CELLS, COUNTS - 1)
    with pytest.raises(InputError, match="below 0"):
        xenium.read(folder)


def test_a_link_out_of_the_folder_is_refused(folder):
    outside = folder.parent / "cells.parquet"
    (folder / "cells.parquet").rename(outside)
    (folder / "cells.parquet").symlink_to(outside)
    with pytest.raises(InputError, match="leads out of the folder"):
        xenium.read(folder)


def test_only_controls_are_no_capture(folder):
    table = transcripts()
    pq.write_table(pa.Table.from_pandas(table[~table["is_gene"]]), folder / "transcripts.parquet")
    with pytest.raises(InputError, match="no transcript remains"):
        xenium.read(folder, bin_um=8)


def test_other_folders_are_not_taken_for_xenium(tmp_path):
    (tmp_path / "filtered_feature_bc_matrix.h5").touch()
    (tmp_path / "Lung12_tx_file.csv.gz").touch()
    assert not xenium.looks_like(tmp_path)
