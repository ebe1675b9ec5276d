"""AnnData files: raw counts wherever they lie, positions as x, y, the image only where the spots lie on it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse

from iscale.captures.readers import anndata_group
from iscale.captures.readers.h5ad import looks_like, read
from iscale.errors import InputError

N, GENES = 20, ["ERBB2", "CD3E", "KRT8", "ACTB"]
RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(2, (N, 4)).astype(np.float32)
XY = RNG.uniform((0, 0), (300, 100), (N, 2))
IDS = [f"c{i}" for i in range(N)]


def table(matrix: Any = COUNTS, **obs: Any) -> ad.AnnData:
    return ad.AnnData(matrix.copy(), obs=pd.DataFrame(obs, index=IDS), var=pd.DataFrame(index=GENES))


def placed(xy: NDArray[np.float64] = XY, **obs: Any) -> ad.AnnData:
    adata = table(**obs)
    adata.obsm["spatial"] = xy.copy()
    return adata


def write(adata: ad.AnnData, folder: Path, name: str = "sample.h5ad") -> Path:
    adata.write_h5ad(folder / name)
    return folder / name


def draw(folder: Path, name: str, wide: int, high: int) -> Path:
    Image.new("RGB", (wide, high)).save(folder / name)
    return folder / name


MATRICES = {
    "dense": COUNTS,
    "whole": COUNTS.astype(np.int64),
    "csr": sparse.csr_matrix(COUNTS),
    "csc": sparse.csc_matrix(COUNTS),
}


@pytest.mark.parametrize("kind", list(MATRICES))
def test_every_storage_is_the_same_counts(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anndata_group, "CELLS_AT_ONCE", 12)
    adata = table(MATRICES[kind])
    adata.obsm["spatial"] = XY
    found = read(write(adata, tmp_path))
    assert (found.spot_ids, found.gene_symbols, found.gene_ids) == (IDS, GENES, GENES)
    assert isinstance(found.counts, sparse.csr_matrix)
    assert found.counts.dtype == np.float32
    np.testing.assert_array_equal(found.counts.toarray(), COUNTS)
    np.testing.assert_array_equal(found.xy_px, XY)
    assert found.notices == ("Counts are those of X.",)
    assert (found.um_per_px, found.spot_diameter_um, found.pitch_um, found.image) == (None, None, None, None)


@pytest.mark.parametrize("layer", ["counts", "raw_counts"])
@pytest.mark.parametrize("matrix", [np.log1p(COUNTS), sparse.csr_matrix(np.log1p(COUNTS))], ids=["dense", "sparse"])
def test_raw_counts_of_a_layer_count_before_a_normalised_x(tmp_path: Path, layer: str, matrix: Any) -> None:
    adata = table(matrix)
    adata.obsm["spatial"] = XY
    adata.layers[layer] = sparse.csr_matrix(COUNTS)
    found = read(write(adata, tmp_path))
    np.testing.assert_array_equal(found.counts.toarray(), COUNTS)
    assert f"layers/{layer} (X holds " in found.notices[0]


def test_raw_counts_of_raw_have_the_genes_of_raw(tmp_path: Path) -> None:
    adata = placed()
    adata.raw = adata
    adata = adata[:, :2].copy()
    adata.X = np.log1p(adata.X)
    found = read(write(adata, tmp_path))
    assert found.gene_symbols == GENES
    np.testing.assert_array_equal(found.counts.toarray(), COUNTS)


@pytest.mark.parametrize("bad", [0.5, -1, np.nan, np.inf])
def test_no_raw_counts_is_one_error_that_says_where_it_looked(tmp_path: Path, bad: float) -> None:
    adata = placed()
    adata.X[3, 2] = bad
    with pytest.raises(InputError, match=rf"no raw counts: X holds {bad:g}, there is no layers/counts, .* no raw/X"):
        read(write(adata, tmp_path))


ENSEMBL = [f"ENSG0000000000{i}" for i in range(4)]


@pytest.mark.parametrize("column", ["gene_symbols", "gene_name", "feature_name", "symbol"])
def test_symbols_of_a_column_where_names_are_ensembl_ids(tmp_path: Path, column: str) -> None:
    adata = placed()
    adata.var_names = ENSEMBL
    adata.var[column] = pd.Categorical([*GENES[:3], None])
    found = read(write(adata, tmp_path))
    assert (found.gene_symbols, found.gene_ids) == ([*GENES[:3], ENSEMBL[3]], ENSEMBL)


def test_ids_of_a_column_and_genes_only(tmp_path: Path) -> None:
    adata = placed()
    adata.var["gene_ids"] = ENSEMBL
    adata.var["gene_name"] = "not looked at: the names are symbols"
    adata.var["feature_types"] = ["Gene Expression", "Gene Expression", "Antibody Capture", "Gene Expression"]
    found = read(write(adata, tmp_path))
    assert (found.gene_symbols, found.gene_ids) == (["ERBB2", "CD3E", "ACTB"], [ENSEMBL[i] for i in (0, 1, 3)])
    np.testing.assert_array_equal(found.counts.toarray(), COUNTS[:, [0, 1, 3]])
    assert "1 of 4 features" in found.notices[1]


COLUMNS = {
    "visium": {"pxl_row_in_fullres": XY[:, 1], "pxl_col_in_fullres": XY[:, 0]},
    "seurat": {"imagerow": XY[:, 1], "imagecol": XY[:, 0]},
    "plain": {"y": XY[:, 1], "x": XY[:, 0]},
    "pixel": {"y_pixel": XY[:, 1], "x_pixel": XY[:, 0]},
}


@pytest.mark.parametrize("kind", list(COLUMNS))
def test_columns_give_x_before_y(tmp_path: Path, kind: str) -> None:
    np.testing.assert_array_equal(read(write(table(**COLUMNS[kind]), tmp_path)).xy_px, XY)


@pytest.mark.parametrize("key", ["X_spatial", "spatial_fullres"])
def test_other_keys_and_a_third_column(tmp_path: Path, key: str) -> None:
    adata = table(x=XY[:, 1], y=XY[:, 0])
    adata.obsm[key] = np.column_stack([XY, np.arange(N)])
    found = read(write(adata, tmp_path))
    np.testing.assert_array_equal(found.xy_px, XY)
    assert f"third column of obsm['{key}'], z, is not used" in found.notices[1]


def test_a_table_of_positions_is_read_by_its_names(tmp_path: Path) -> None:
    adata = table()
    columns = {"pxl_row_in_fullres": XY[:, 1], "pxl_col_in_fullres": XY[:, 0]}
    adata.obsm["spatial"] = pd.DataFrame(columns, index=IDS)
    np.testing.assert_array_equal(read(write(adata, tmp_path)).xy_px, XY)


@pytest.mark.parametrize("in_obsm", [False, True])
def test_um_become_pixels_of_the_size_stated(tmp_path: Path, in_obsm: bool) -> None:
    adata = table(x_centroid=XY[:, 0], y_centroid=XY[:, 1])
    if in_obsm:
        adata.obsm["spatial"] = XY
    path = write(adata, tmp_path)
    draw(tmp_path, "sample.png", 610, 210)
    found = read(path, pixel_size_um=0.5)
    np.testing.assert_allclose(found.xy_px, XY * 2)
    assert (found.um_per_px, found.image) == (0.5, tmp_path / "sample.png")
    unstated = read(path)
    np.testing.assert_array_equal(unstated.xy_px, XY)
    assert (unstated.um_per_px, unstated.image) == (1.0, None)
    assert "is in um and the pixel size" in unstated.notices[1]


def test_scale_factors_of_the_one_library(tmp_path: Path) -> None:
    adata = placed()
    factors = {"spot_diameter_fullres": 110.0, "microns_per_pixel": 0.5, "tissue_hires_scalef": 0.1}
    library = {"scalefactors": factors, "images": {"hires": np.zeros((9, 9, 3), np.uint8)}, "metadata": {"by": "me"}}
    adata.uns["spatial"] = {"S1": library, "is_single": True}
    found = read(write(adata, tmp_path))
    assert (found.scalefactors, found.um_per_px, found.spot_diameter_um) == (factors, 0.5, 55.0)
    adata.uns["spatial"]["S2"] = library
    with pytest.raises(InputError, match=r"2 sections, by uns\['spatial'\]: S1, S2"):
        read(write(adata, tmp_path))


def test_bins_have_the_disc_of_their_area(tmp_path: Path) -> None:
    adata = placed()
    adata.uns["spatial"] = {"S1": {"scalefactors": {"bin_size_um": 8.0, "microns_per_pixel": 0.25}}}
    found = read(write(adata, tmp_path))
    assert found.pitch_um == 8
    assert found.spot_diameter_um is not None
    assert np.pi * (found.spot_diameter_um / 2) ** 2 == pytest.approx(64)


def test_a_visium_array_tells_the_pixel_size(tmp_path: Path) -> None:
    row, col = np.divmod(np.arange(N), 5)
    col = 2 * col + row % 2
    turned = np.column_stack([row * 50 * np.sqrt(3), -col * 50.0]) / 0.4  # a quarter turn, mirrored
    found = read(write(placed(turned + 1000, array_row=row, array_col=col), tmp_path))
    assert found.um_per_px == pytest.approx(0.4)
    assert (found.pitch_um, found.spot_diameter_um) == (100, 55)
    odd = read(write(placed(turned, array_row=row, array_col=col + 1), tmp_path))
    assert (odd.um_per_px, odd.pitch_um) == (None, None)
    scattered = read(write(placed(XY, array_row=row, array_col=col), tmp_path))
    assert scattered.um_per_px is None


@pytest.mark.parametrize("name", ["sample.png", "sample.JPG", "he.png"])
def test_the_image_beside_the_file(tmp_path: Path, name: str) -> None:
    image = draw(tmp_path, name, 300, 100)
    found = read(write(placed(), tmp_path))
    assert found.image == image
    np.testing.assert_array_equal(found.image_from_full, np.eye(3))
    draw(tmp_path, name.split(".")[0] + ".jpeg", 300, 100)
    with pytest.raises(InputError, match="2 images that may be the capture's"):
        read(tmp_path)


def test_an_image_that_the_spots_are_not_on_is_not_the_captures(tmp_path: Path) -> None:
    adata = placed(XY * 10)
    adata.uns["spatial"] = {"S1": {"scalefactors": {"tissue_hires_scalef": 0.1}}}
    path = write(adata, tmp_path)
    draw(tmp_path, "sample.png", 300, 100)
    found = read(path)
    assert found.image is None
    assert "300 px wide and 100 px high" in found.notices[-1]
    assert "looks like the hires image" in found.notices[-1]


def test_a_broken_image_does_not_hide_the_counts(tmp_path: Path) -> None:
    (tmp_path / "he.png").write_bytes(b"no image")
    found = read(write(placed(), tmp_path))
    assert found.image is None
    assert "he.png is not used" in found.notices[-1]


def test_x_pixel_is_turned_only_where_the_image_says_so(tmp_path: Path) -> None:
    path = write(table(x_pixel=XY[:, 1], y_pixel=XY[:, 0]), tmp_path)
    assert "no image tells" in read(path).notices[-1]
    draw(tmp_path, "sample.png", 300, 100)
    found = read(path)
    np.testing.assert_array_equal(found.xy_px, XY)
    assert "they were turned" in found.notices[-1]
    draw(tmp_path, "sample.png", 300, 300)
    square = read(path)
    np.testing.assert_array_equal(square.xy_px, XY[:, ::-1])
    assert "comes out mirrored" in square.notices[-1]


def no_positions(adata: ad.AnnData) -> None:
    del adata.obsm["spatial"]
    adata.obsm["X_pca"] = XY


def four_columns(adata: ad.AnnData) -> None:
    adata.obsm["spatial"] = np.column_stack([XY, XY])


def lost(adata: ad.AnnData) -> None:
    adata.obsm["spatial"][4] = np.nan


def text(adata: ad.AnnData) -> None:
    del adata.obsm["spatial"]
    adata.obs["x"] = adata.obs["y"] = "here"


def twice(adata: ad.AnnData) -> None:
    adata.obs_names = ["c1", *IDS[1:]]


FAULTS = {
    "no positions": (no_positions, "holds no positions: obsm has X_pca, obs has nothing"),
    "four columns": (four_columns, r"obsm\['spatial'\] is 20 x 4; 20 x 2 is needed"),
    "not finite": (lost, r"1 of 20 spots have no finite position .* first 'c4' at \(nan, nan\)"),
    "text": (text, "obs x, y holds '.*' in 20 of 20 rows, not numbers"),
    "spot twice": (twice, "1 names of obs are given more than once: c1"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_is_one_clear_error(tmp_path: Path, fault: str) -> None:
    spoil, message = FAULTS[fault]
    adata = placed()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spoil(adata)
        path = write(adata, tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert caught.value.remedy


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "sample.h5ad"
    path.write_bytes(b"not HDF5")
    with pytest.raises(InputError, match=r"sample\.h5ad cannot be read as AnnData"):
        read(path)
    write(table(sparse.csr_matrix(COUNTS)), tmp_path)
    with h5py.File(path, "r+") as file:
        file["X/indices"][3] = 77
    with pytest.raises(InputError, match=r"sample\.h5ad cannot be read as AnnData: .*ind"):
        read(path)
    with h5py.File(path, "r+") as file:
        del file["var"]
    with pytest.raises(InputError, match=r"sample\.h5ad cannot be read as AnnData"):
        read(path)


def test_what_looks_like_one(tmp_path: Path) -> None:
    assert not looks_like(tmp_path)
    assert not looks_like(tmp_path / "none.h5ad")
    path = write(placed(), tmp_path)
    assert looks_like(path)
    assert looks_like(tmp_path)
    path.rename(tmp_path / "cnts.h5ad")
    assert not looks_like(tmp_path)
    write(placed(), tmp_path, "a.h5ad")
    write(placed(), tmp_path, "b.h5ad")
    with pytest.raises(InputError, match=r"holds 3 \.h5ad files: a\.h5ad, b\.h5ad, cnts\.h5ad"):
        read(tmp_path)


@pytest.mark.real
def test_real_cells_are_scanpys_on_their_image(data_dir: Path) -> None:
    scanpy = pytest.importorskip("scanpy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = scanpy.read_h5ad(data_dir / "h5ad" / "NCBI858.h5ad")
    found = read(data_dir / "h5ad")
    np.testing.assert_array_equal(found.counts.toarray(), other.X)
    assert (found.spot_ids, found.gene_symbols) == (list(other.obs_names), list(other.var_names))
    # The file's x_pixel is the row: the crops of the project that it is from say so, and the image's height.
    np.testing.assert_array_equal(found.xy_px, other.obs[["y_pixel", "x_pixel"]].to_numpy())
    assert found.image == data_dir / "h5ad" / "NCBI858.jpg"
    stain = 255 - np.asarray(Image.open(found.image).convert("RGB")).min(axis=2).astype(float)
    x, y = found.xy_px.astype(int).T
    assert stain[y, x].mean() > 1.8 * stain.mean()  # on nuclei, not beside them


@pytest.mark.real
def test_a_file_that_scanpy_wrote_of_visium_tells_its_pixel_size(data_dir: Path, tmp_path: Path) -> None:
    scanpy = pytest.importorskip("scanpy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = scanpy.read_visium(data_dir / "visium", library_id="S1")
        adata.var_names_make_unique()
        adata.write_h5ad(tmp_path / "visium.h5ad")
    found = read(tmp_path)
    np.testing.assert_array_equal(found.counts.toarray(), adata.X.toarray())
    np.testing.assert_array_equal(found.xy_px, adata.obsm["spatial"])
    assert found.gene_ids == list(adata.var["gene_ids"])
    assert found.um_per_px == pytest.approx(0.7247, rel=1e-3)


TABLES: dict[str, tuple[dict[str, Any], str]] = {
    "rows and columns": ({"row": XY[:, 1], "col": XY[:, 0]}, "col across and row down"),
    "down before across": ({"y": XY[:, 1], "x": XY[:, 0]}, "x across and y down"),
    "image and array": (
        {"imagerow": XY[:, 1], "imagecol": XY[:, 0], "row": np.arange(N), "col": np.arange(N)},
        "imagecol across and imagerow down",
    ),
    "full resolution": ({"pxl_row_in_fullres": XY[:, 1], "pxl_col_in_fullres": XY[:, 0]}, "pxl_col_in_fullres across"),
    "capitals": ({"Y": XY[:, 1], "X": XY[:, 0]}, "X across and Y down"),
    "only numbered": ({"spatial0": XY[:, 0], "spatial1": XY[:, 1]}, "spatial0 across and spatial1 down"),
    "text": ({"y": XY[:, 1].astype(str), "x": XY[:, 0].astype(str)}, "x across and y down"),
}


@pytest.mark.parametrize("kind", list(TABLES))
def test_tables_of_positions_are_read_by_their_names(tmp_path: Path, kind: str) -> None:
    columns, said = TABLES[kind]
    adata = table()
    adata.obsm["spatial"] = pd.DataFrame(columns, index=IDS)
    found = read(write(adata, tmp_path))
    np.testing.assert_allclose(found.xy_px, XY)
    assert any(said in notice for notice in found.notices)


def test_a_table_of_positions_without_names_is_refused(tmp_path: Path) -> None:
    adata = table()
    adata.obsm["spatial"] = pd.DataFrame({"array_row": XY[:, 1], "array_col": XY[:, 0]}, index=IDS)
    with pytest.raises(InputError, match="do not say which is across and which is down: array_row, array_col"):
        read(write(adata, tmp_path))


def test_text_that_is_numbers_is_positions(tmp_path: Path) -> None:
    found = read(write(table(x=XY[:, 0].astype(str), y=pd.Categorical(XY[:, 1].astype(str))), tmp_path))
    np.testing.assert_allclose(found.xy_px, XY)


def test_a_unit_that_is_stated_is_taken(tmp_path: Path) -> None:
    path = write(placed(), tmp_path)
    found = read(path, unit="um", pixel_size_um=0.5)
    np.testing.assert_allclose(found.xy_px, XY * 2)
    assert found.um_per_px == 0.5
    write(table(x_centroid=XY[:, 0], y_centroid=XY[:, 1]), tmp_path)
    found = read(path, unit="px")
    np.testing.assert_allclose(found.xy_px, XY)
    assert found.um_per_px is None
    assert "Warning: obs x_centroid, y_centroid is in px as you state it; its names say um." in found.notices
