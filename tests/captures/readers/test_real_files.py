"""Files of instruments and programs, value by value: a Xenium folder, a MERFISH store, Xenium Explorer's matrix."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely
import zarr
from scipy import sparse

from iscale.align.placement import by_matrix
from iscale.captures.platforms import detect_platform, read_measured
from iscale.captures.readers import xenium
from iscale.export.areas.tables import read_boundaries

pytestmark = pytest.mark.real
PIXEL_UM = 0.2125


@pytest.fixture
def folder(data_dir: Path) -> Path:
    return data_dir / "real" / "xenium"


def test_cells_of_a_xenium(folder: Path) -> None:
    assert detect_platform(folder) == "xenium"
    found = read_measured(folder)
    with h5py.File(folder / "cell_feature_matrix.h5") as file:
        matrix = file["matrix"]
        parts = (matrix["data"][:], matrix["indices"][:], matrix["indptr"][:])
        counts = sparse.csc_matrix(parts, shape=matrix["shape"][:]).T.toarray()
        kinds, names = matrix["features/feature_type"][:], matrix["features/name"].asstr()[:]
        barcodes = matrix["barcodes"].asstr()[:]
    genes = kinds == b"Gene Expression"
    assert (found.spot_ids, found.gene_symbols) == (list(barcodes), list(names[genes]))
    assert found.counts.shape == (569, 27)
    np.testing.assert_array_equal(found.counts.toarray(), counts[:, genes])
    cells = pd.read_parquet(folder / "cells.parquet").set_index("cell_id").loc[found.spot_ids]
    np.testing.assert_allclose(found.xy_px * PIXEL_UM, cells[["x_centroid", "y_centroid"]])
    np.testing.assert_array_equal(cells["transcript_counts"], found.counts.sum(axis=1).A1)
    assert found.um_per_px == pytest.approx(PIXEL_UM)
    assert found.obs is not None
    np.testing.assert_allclose(found.obs["cell_area_um2"], cells["cell_area"])
    assert found.spot_diameter_um == pytest.approx(2 * np.sqrt(cells["cell_area"].median() / np.pi))
    assert any("41 Negative Control Codeword, 8 Negative Control Probe, 465 Unassigned" in n for n in found.notices)


def test_cells_of_a_xenium_as_csv(folder: Path, tmp_path: Path) -> None:
    for name in ("experiment.xenium", "cell_feature_matrix.h5", "cells.csv.gz"):
        shutil.copy(folder / name, tmp_path)
    np.testing.assert_allclose(read_measured(tmp_path).xy_px, read_measured(folder).xy_px)


@pytest.mark.parametrize("name", ["transcripts.parquet", "transcripts.csv.gz"])
def test_transcripts_of_a_xenium(folder: Path, tmp_path: Path, name: str) -> None:
    for other in ("experiment.xenium", "cell_feature_matrix.h5", name):
        shutil.copy(folder / other, tmp_path)
    found = read_measured(tmp_path, bin_um=8)
    read = pd.read_parquet if name.endswith("parquet") else pd.read_csv
    table = read(folder / name)
    with h5py.File(folder / "cell_feature_matrix.h5") as file:
        features = file["matrix/features"]
        genes = features["name"].asstr()[:][features["feature_type"][:] == b"Gene Expression"]
    kept = table[table["feature_name"].isin(genes) & (table["qv"] >= 20)]
    y, x = ((kept[f"{axis}_location"] // 8).astype(int) for axis in "yx")
    bins = y.astype(str) + "_" + x.astype(str)
    expected = pd.crosstab(bins, kept["feature_name"]).reindex(found.spot_ids, columns=list(genes), fill_value=0)
    assert sorted(found.spot_ids) == sorted(set(bins))
    assert found.gene_symbols == list(genes)
    np.testing.assert_array_equal(found.counts.toarray(), expected.to_numpy())


def test_boundaries_of_a_xenium_hold_its_cells(folder: Path) -> None:
    found = read_measured(folder)
    ids = [name for block in read_boundaries(folder / "cell_boundaries.parquet") for name in block.ids]
    table = pd.read_parquet(folder / "cell_boundaries.parquet")
    table["cell_id"] = table["cell_id"].str.decode("utf-8")  # this version wrote bytes
    assert ids == list(dict.fromkeys(table["cell_id"]))
    assert set(ids) >= set(found.spot_ids)
    outlines = {
        cell: shapely.Polygon(rows[["vertex_x", "vertex_y"]].to_numpy()) for cell, rows in table.groupby("cell_id")
    }
    at = dict(zip(found.spot_ids, found.xy_px * PIXEL_UM, strict=True))
    inside = [outlines[cell].buffer(1).contains(shapely.Point(at[cell])) for cell in found.spot_ids]
    assert np.mean(inside) > 0.98


def test_cells_of_a_merfish_store(data_dir: Path) -> None:
    store = data_dir / "real" / "spatialdata_merfish"
    assert detect_platform(store) == "spatialdata"
    found = read_measured(store)
    table = zarr.open_group(store / "merfish.zarr" / "tables" / "table", mode="r")
    names = [str(name) for name in np.asarray(table["var/_index"][...])]
    genes = [i for i, name in enumerate(names) if not name.startswith("Blank")]
    assert (len(names), len(genes)) == (268, 258)
    assert found.gene_symbols == [names[i] for i in genes]
    np.testing.assert_array_equal(found.counts.toarray(), np.asarray(table["X"][...])[:, genes])
    shapes = pq.read_table(store / "merfish.zarr" / "shapes" / "cells" / "shapes.parquet").to_pandas()
    named = shapes.loc[np.asarray(table["obs/cell_id"][...])] if shapes.index.name else shapes
    points = shapely.from_wkb(named["geometry"].to_numpy())
    centres = np.column_stack([shapely.get_x(shapely.centroid(points)), shapely.get_y(shapely.centroid(points))])
    np.testing.assert_allclose(found.xy_px, centres)  # global is the identity here
    assert found.um_per_px is None
    assert found.scalefactors["spot_diameter_fullres"] == pytest.approx(2 * named["radius"].median())
    assert "Positions are those of shapes/cells in 'global'." in found.notices


def test_the_matrix_of_xenium_explorer_places_an_image(data_dir: Path, folder: Path, tmp_path: Path) -> None:
    exported = data_dir / "real" / "xenium_explorer" / "sopa_image_test_matrix.csv"
    matrix = np.loadtxt(exported, delimiter=",")
    np.testing.assert_allclose(by_matrix(exported).matrix @ matrix, np.eye(3), atol=1e-9)
    assert by_matrix(exported).scale == pytest.approx(1 / np.hypot(*matrix[0, :2]))
    for name in ("experiment.xenium", "cell_feature_matrix.h5", "cells.parquet"):
        shutil.copy(folder / name, tmp_path)
    shutil.copy(exported, tmp_path / "slide_he_imagealignment.csv")
    (tmp_path / "slide_he_image.ome.tif").write_bytes(b"II*\0")
    found = xenium.read(tmp_path)
    assert found.image == tmp_path / "slide_he_image.ome.tif"
    np.testing.assert_allclose(found.image_from_full @ matrix, np.eye(3), atol=1e-9)
