"""Space Ranger folders: what scanpy reads of the samples, pixels from the lattice, one error for a bad folder."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from space_ranger_folders import BINS, COLUMNS, hexagons, write_counts

from iscale.captures.measured import as_anndata
from iscale.captures.readers import space_ranger as space_ranger_positions
from iscale.captures.readers.space_ranger import looks_like_visium, looks_like_visium_hd, read_visium, read_visium_hd
from iscale.errors import InputError


@pytest.mark.real
@pytest.mark.parametrize("sample", ["visium", "visium_hd"])
def test_the_samples_are_what_scanpy_reads(data_dir: Path, tmp_path: Path, scanpy: ModuleType, sample: str) -> None:
    source = data_dir / sample if sample == "visium" else data_dir / sample / BINS
    # scanpy insists on images, and reads no Parquet.
    (tmp_path / "spatial").mkdir()
    shutil.copyfile(source / "filtered_feature_bc_matrix.h5", tmp_path / "filtered_feature_bc_matrix.h5")
    shutil.copyfile(source / "spatial/scalefactors_json.json", tmp_path / "spatial/scalefactors_json.json")
    for kind in ("hires", "lowres"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"spatial/tissue_{kind}_image.png")
    if sample == "visium":
        shutil.copyfile(source / "spatial/tissue_positions_list.csv", tmp_path / "spatial/tissue_positions_list.csv")
    else:
        table = pd.read_parquet(source / "spatial/tissue_positions.parquet")
        table.to_csv(tmp_path / "spatial/tissue_positions.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = scanpy.read_visium(tmp_path, library_id="s")
        theirs.var_names_make_unique()
    found = read_visium(data_dir / sample) if sample == "visium" else read_visium_hd(data_dir / sample)
    ours = as_anndata("s", found)
    assert ours.shape == theirs.shape == (2695, 100)
    assert (ours.X != theirs.X).nnz == 0
    assert list(ours.obs_names) == list(theirs.obs_names)
    assert list(ours.var_names) == list(theirs.var_names)
    assert list(ours.var["gene_ids"]) == list(theirs.var["gene_ids"])
    # pandas' quick parser, which scanpy uses, is off by a last bit where positions have decimals.
    assert_allclose(ours.obsm["spatial"], theirs.obsm["spatial"].astype(float), rtol=3e-16, atol=0)
    for column in ("in_tissue", "array_row", "array_col"):
        assert_array_equal(ours.obs[column], theirs.obs[column])
    factors = ours.uns["spatial"]["s"]["scalefactors"]
    assert theirs.uns["spatial"]["s"]["scalefactors"].items() <= factors.items()


@pytest.mark.real
def test_pixels_of_the_visium_sample_are_sized_by_its_lattice(data_dir: Path) -> None:
    found = read_visium(data_dir / "visium")
    assert (found.platform, found.spot_diameter_um, found.pitch_um, found.notices) == ("visium", 55.0, 100.0, ())
    # In x, 137.66 px from spot to spot are 100 um; in y, 119.76 px from row to row are 86.6 um.
    assert 50 * math.sqrt(3) / 119.763 < found.um_per_px < 100 / 137.658
    # What Space Ranger calls a spot's diameter is 65 um here, not 55.
    assert_allclose(found.scalefactors["spot_diameter_fullres"] * found.um_per_px, 64.9, atol=0.1)
    assert found.image == data_dir / "visium/spatial/tissue_hires_image.png"
    x, y, _ = found.image_from_full @ [*found.xy_px.max(axis=0), 1]
    with Image.open(found.image) as image:
        width, height = image.size
    assert 0.8 * width < x < width
    assert 0.8 * height < y < height


@pytest.mark.real
def test_bins_of_the_visium_hd_sample(data_dir: Path) -> None:
    found = read_visium_hd(data_dir / "visium_hd")
    assert (found.platform, found.pitch_um, found.um_per_px) == ("visium_hd", 8.0, 0.27376126715315274)
    assert_allclose(math.pi / 4 * found.spot_diameter_um**2, 64)
    assert found.notices == ("1327 of 2695 spots are off the tissue by in_tissue; they are kept, as scanpy does.",)
    table = pd.read_parquet(data_dir / "visium_hd" / BINS / "spatial/tissue_positions.parquet").set_index("barcode")
    assert_array_equal(found.xy_px, table.loc[found.spot_ids, ["pxl_col_in_fullres", "pxl_row_in_fullres"]])
    assert_array_equal(found.xy_px, read_visium_hd(data_dir / "visium_hd" / BINS).xy_px)


@pytest.mark.real
def test_bins_of_a_sample_that_was_cut_down_are_those_with_a_position(data_dir: Path, scanpy: ModuleType) -> None:
    bins = data_dir / "visium_hd/binned_outputs/square_016um"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = scanpy.read_10x_h5(bins / "filtered_feature_bc_matrix.h5")
        theirs.var_names_make_unique()
    table = pd.read_parquet(bins / "spatial/tissue_positions.parquet").set_index("barcode")
    theirs = theirs[theirs.obs_names.isin(table.index)]
    table = table.loc[theirs.obs_names]
    found = read_visium_hd(data_dir / "visium_hd", bin_um=16)
    ours = as_anndata("s", found)
    assert ours.shape == theirs.shape == (642, 100)
    assert list(ours.obs_names) == list(theirs.obs_names)
    assert list(ours.var["gene_ids"]) == list(theirs.var["gene_ids"])
    assert found.counts.nnz == theirs.X.nnz > 0
    assert (ours.X != theirs.X).nnz == 0
    assert_array_equal(found.xy_px, table[["pxl_col_in_fullres", "pxl_row_in_fullres"]])
    assert_array_equal(found.obs, table[["in_tissue", "array_row", "array_col"]])
    assert found.pitch_um == 16
    assert found.notices == (
        "Warning: 2053 of 2695 barcodes have no position in tissue_positions.parquet and are left out: check that both "
        "are of the same sample and bin size.",
        "306 of 642 spots are off the tissue by in_tissue; they are kept, as scanpy does.",
    )


@pytest.mark.real
def test_folders_are_told_by_their_names(data_dir: Path, visium: Path, visium_hd: Path, tmp_path: Path) -> None:
    for folder in (data_dir / "visium", visium):
        assert looks_like_visium(folder)
        assert not looks_like_visium_hd(folder)
    for folder in (data_dir / "visium_hd", visium_hd, visium_hd / "binned_outputs", visium_hd / BINS):
        assert looks_like_visium_hd(folder)
        assert not looks_like_visium(folder)
    for folder in (data_dir / "cosmx", data_dir / "h5ad", tmp_path / "none", data_dir / "README.md"):
        assert not looks_like_visium(folder)
        assert not looks_like_visium_hd(folder)


def test_spots_come_in_the_order_of_the_matrix(visium: Path) -> None:
    found = read_visium(visium)
    positions = hexagons().set_index("barcode").loc[found.spot_ids]
    assert len(found.spot_ids) == (hexagons()["in_tissue"] == 1).sum()
    assert found.spot_ids[0] == "S119-1"
    assert_allclose(found.xy_px, positions[["pxl_col_in_fullres", "pxl_row_in_fullres"]])
    assert_array_equal(found.obs, positions[["in_tissue", "array_row", "array_col"]])
    assert list(found.obs.index) == found.spot_ids
    assert_array_equal(np.asarray(found.counts.sum(axis=1)).ravel(), 2 * (1 + np.arange(len(found.spot_ids)) % 7))
    assert_array_equal(found.image_from_full, np.diag([0.1, 0.1, 1.0]))


def test_outs_prefixed_names_and_mtx_are_read(visium: Path, tmp_path: Path) -> None:
    expected = read_visium(visium)
    (tmp_path / "parent").mkdir()
    visium.rename(tmp_path / "parent/outs")
    outs = tmp_path / "parent/outs"
    h5 = outs / "filtered_feature_bc_matrix.h5"
    h5 = h5.rename(outs / f"GSM1_{h5.name}")
    assert looks_like_visium(tmp_path / "parent")
    assert read_visium(tmp_path / "parent").spot_ids == expected.spot_ids
    h5.unlink()
    folder = outs / "filtered_feature_bc_matrix"
    folder.mkdir()
    entries = expected.counts.tocoo()
    rows = [f"{g + 1} {s + 1} {n:.0f}" for g, s, n in zip(entries.col, entries.row, entries.data, strict=True)]
    head = ["%%MatrixMarket matrix coordinate integer general", f"3 {len(expected.spot_ids)} {len(rows)}"]
    for name, content in (
        ("matrix.mtx.gz", head + rows),
        ("barcodes.tsv.gz", expected.spot_ids),
        ("features.tsv.gz", [f"G{i}\tG{i}\tGene Expression" for i in range(3)]),
    ):
        (folder / name).write_bytes(gzip.compress("\n".join(content).encode()))
    found = read_visium(tmp_path / "parent")
    assert (found.counts != expected.counts).nnz == 0
    assert_array_equal(found.xy_px, expected.xy_px)


def test_images_may_be_missing(visium: Path) -> None:
    (visium / "spatial/tissue_hires_image.png").unlink()
    found = read_visium(visium)
    assert found.image == visium / "spatial/tissue_lowres_image.png"
    assert_array_equal(found.image_from_full, np.diag([0.03, 0.03, 1.0]))
    (visium / "spatial/tissue_lowres_image.png").unlink()
    assert read_visium(visium).image is None


def test_what_is_left_out_is_told(visium: Path) -> None:
    path = visium / "filtered_feature_bc_matrix.h5"
    barcodes = [*(f"S{i}-1" for i in range(120)), "T1-1", "T2-1"]
    write_counts(path, barcodes)
    with h5py.File(path, "r+") as file:
        file["matrix/features/feature_type"][1] = b"Antibody"
    found = read_visium(visium)
    assert found.spot_ids == barcodes[:120]
    assert found.gene_symbols == ["G0", "G2"]
    assert found.counts.shape == (120, 2)
    assert found.notices == (
        "2 of 122 barcodes have no position in tissue_positions.csv and are left out.",
        "24 of 120 spots are off the tissue by in_tissue; they are kept, as scanpy does.",
        "1 features that are not gene expression are left out.",
    )


@pytest.mark.parametrize(("strangers", "warned"), [(0, None), (10, False), (11, True), (810, True), (811, None)])
def test_barcodes_without_a_position_are_left_out_told_or_refused(
    visium: Path, strangers: int, warned: bool | None
) -> None:
    """Of 90 placed spots and others: a tenth is a notice, more a warning, more than nine tenths are refused."""
    placed = [f"S{i}-1" for i in range(90)]
    write_counts(visium / "filtered_feature_bc_matrix.h5", [*(f"T{i}-1" for i in range(strangers)), *placed])
    if strangers == 811:
        with pytest.raises(InputError, match=r"no position for 811 of the 901 barcodes .*, as 'T0-1'"):
            read_visium(visium)
        return
    found = read_visium(visium)
    assert found.spot_ids == placed
    expected = 2 * (1 + (strangers + np.arange(90)) % 7)
    assert_array_equal(np.asarray(found.counts.sum(axis=1)).ravel(), expected)
    assert_allclose(found.xy_px, hexagons()[["pxl_col_in_fullres", "pxl_row_in_fullres"]][:90])
    told = [notice for notice in found.notices if "have no position" in notice]
    assert len(told) == (warned is not None)
    if warned is not None:
        start = "Warning: " if warned else ""
        assert told[0].startswith(f"{start}{strangers} of {90 + strangers} barcodes have no position")


def test_bins_are_chosen(visium_hd: Path, tmp_path: Path) -> None:
    assert read_visium_hd(visium_hd).pitch_um == 8
    assert read_visium_hd(visium_hd, bin_um=2).pitch_um == 2
    assert read_visium_hd(visium_hd / "binned_outputs", bin_um=16).pitch_um == 16
    assert read_visium_hd(visium_hd / "binned_outputs/square_016um").pitch_um == 16
    for call, there in (
        (lambda: read_visium_hd(visium_hd, bin_um=4), "no bins of 4 um; there are bins of 2, 8, 16 um"),
        (lambda: read_visium_hd(visium_hd / BINS, bin_um=2), "no bins of 2 um; there are bins of 8 um"),
    ):
        with pytest.raises(InputError, match=there):
            call()
    shutil.rmtree(visium_hd / BINS)
    with pytest.raises(InputError, match="no bins of 8 um; there are bins of 2, 16 um"):
        read_visium_hd(visium_hd)


def test_visium_hd_is_not_read_as_visium(visium_hd: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "renamed"
    shutil.copytree(visium_hd / BINS, renamed)
    for folder in (visium_hd, visium_hd / BINS, renamed):
        with pytest.raises(InputError, match="is of Visium HD, not of Visium"):
            read_visium(folder)


def _write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def _factors(**changed: object) -> Callable[[Path], object]:
    given = {"tissue_hires_scalef": 0.1, "tissue_lowres_scalef": 0.1} | changed
    return _write("spatial/scalefactors_json.json", json.dumps(given).encode())


def _positions(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], object]:
    return lambda folder: change(hexagons()).to_csv(folder / "spatial/tissue_positions.csv", index=False)


def _link_out(folder: Path) -> None:
    path = folder / "spatial/tissue_positions.csv"
    path.rename(folder.parent / "elsewhere.csv")
    path.symlink_to(folder.parent / "elsewhere.csv")


def _bomb(folder: Path) -> None:
    (folder / "filtered_feature_bc_matrix.h5").unlink()
    mtx = folder / "filtered_feature_bc_matrix"
    mtx.mkdir()
    (mtx / "matrix.mtx.gz").write_bytes(gzip.compress(b"x"))
    (mtx / "features.tsv.gz").write_bytes(gzip.compress(b"x"))
    (mtx / "barcodes.tsv.gz").write_bytes(gzip.compress(bytes(80 << 20), 1))


def _truncate(folder: Path) -> None:
    path = folder / "filtered_feature_bc_matrix.h5"
    path.write_bytes(path.read_bytes()[:-500])


CSV = "spatial/tissue_positions.csv"
JSON = "spatial/scalefactors_json.json"
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no spatial": (lambda f: shutil.rmtree(f / "spatial"), "does not hold the scale factors: looked for spatial/"),
    "no counts": (lambda f: (f / "filtered_feature_bc_matrix.h5").unlink(), "does not hold the counts: looked for"),
    "no factors": (lambda f: (f / JSON).unlink(), "does not hold the scale factors"),
    "no positions": (lambda f: (f / CSV).unlink(), "does not hold the positions of the spots"),
    "json": (_write(JSON, b'{"tissue_hires_scalef": '), "is not valid JSON"),
    "h5": (_truncate, "may be truncated or damaged"),
    "bomb": (_bomb, r"barcodes\.tsv\.gz has a line of more than 67,108,864 bytes"),
    "link": (_link_out, "leads out of the folder"),
    "scale 0": (_factors(tissue_hires_scalef=0), "tissue_hires_scalef is 0, not a positive number"),
    "scale text": (_factors(tissue_hires_scalef="0.1"), "tissue_hires_scalef is missing or no number"),
    "scale nan": (_factors(tissue_hires_scalef=math.nan), "tissue_hires_scalef is missing or no number"),
    "scale huge": (_factors(tissue_hires_scalef=10**400), "tissue_hires_scalef is missing or no number"),
    "no scale": (_write(JSON, b"{}"), "tissue_hires_scalef is missing or no number"),
    "pixel": (_factors(microns_per_pixel=-1), "microns_per_pixel is -1, not a positive number"),
    "other sample": (
        _positions(lambda t: t.assign(barcode="X" + t["barcode"])),
        "no position for 96 of the 96 barcodes .*, as 'S119-1': they are not of the same sample",
    ),
}


@pytest.mark.parametrize("damage", BAD)
def test_a_bad_folder_is_one_error(visium: Path, damage: str) -> None:
    change, problem = BAD[damage]
    change(visium)
    assert looks_like_visium(visium)
    with pytest.raises(InputError, match=problem) as error:
        read_visium(visium)
    assert str(visium) in error.value.problem
    assert error.value.remedy


def test_folders_of_others_and_links_out_are_refused(visium_hd: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/transcripts.csv").touch()
    with pytest.raises(InputError, match=r"it holds transcripts\.csv"):
        read_visium_hd(tmp_path / "other")
    with pytest.raises(InputError, match=r"the folder holds transcripts\.csv"):
        read_visium(tmp_path / "other")
    for read in (read_visium, read_visium_hd):
        with pytest.raises(InputError, match="none is not there"):
            read(tmp_path / "none")
    (visium_hd / BINS).rename(tmp_path / "square_008um")
    (visium_hd / BINS).symlink_to(tmp_path / "square_008um")
    with pytest.raises(InputError, match="leads out of the folder"):
        read_visium_hd(visium_hd)
    (visium_hd / BINS).unlink()
    shutil.copytree(visium_hd / "binned_outputs/square_016um", visium_hd / BINS)
    with pytest.raises(InputError, match=r"is of bins of 16 um, but .*square_008um is named for 8 um"):
        read_visium_hd(visium_hd)


def test_many_bins_exist_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n, per_bin = 200_000, 50
    monkeypatch.setattr("iscale.captures.readers.tenx_matrix.BLOCK", 1 << 16)
    monkeypatch.setattr(space_ranger_positions, "ROWS_AT_ONCE", 1 << 14)
    folder = tmp_path / "square_002um"
    (folder / "spatial").mkdir(parents=True)
    (folder / "spatial/scalefactors_json.json").write_text('{"microns_per_pixel": 0.25, "bin_size_um": 2.0}')
    row, column = np.divmod(np.arange(n), 600)
    barcodes = [f"s_002um_{i:05d}_{j:05d}-1" for i, j in zip(row.tolist(), column.tolist(), strict=True)]
    write_counts(folder / "filtered_feature_bc_matrix.h5", barcodes, n_genes=200, per_spot=per_bin)
    columns = (barcodes, np.ones(n, int), row, column, row * 8.0, column * 8.0)
    table = pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))
    table.sample(frac=1, random_state=0).to_parquet(folder / "spatial/tissue_positions.parquet")
    tracemalloc.start()
    try:
        found = read_visium_hd(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.counts.shape == (n, 200)
    assert_array_equal(found.xy_px, table[["pxl_col_in_fullres", "pxl_row_in_fullres"]])
    matrix = 8 * n * per_bin
    # One matrix and a block of it; per bin its barcode, twice in tables to look it up, and its numbers.
    assert peak < 1.1 * matrix + 250 * n
