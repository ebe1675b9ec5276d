"""A SpatialData store: its parts as Zarr and anndata read them, and where spatialdata can be had, as that does."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import shapely
import zarr
from scipy import sparse
from whole_runs import GENES, binned, write_whole_run

from iscale import on_mother
from iscale.captures.spots import Capture
from iscale.captures.stage import write_capture
from iscale.export import spatialdata
from iscale.export.command import export_run
from iscale.geometry import SlideGrid
from iscale.results import Run

READ = """
import json, sys
from importlib.metadata import version
import numpy as np
import spatialdata as sd
from spatialdata import get_element_instances, join_spatialelement_table
from spatialdata.transformations import get_transformation

store, out = sys.argv[1:]
data = sd.read_zarr(store)
table = data["expression"]
found = {f"labels/{name}": element.data.compute() for name, element in data.labels.items()}
for level, node in data["he"].children.items():
    found[f"image/{level}"] = node["image"].data.compute()
_, joined = join_spatialelement_table(data, spatial_element_names=["bins"], table_name="expression", how="left")
found |= {"x": table.X, "instances": np.asarray(get_element_instances(data["bins"])), "joined": joined.X}
found |= {name: table.obs[name].to_numpy() for name in ("bin_id", "array_row", "array_col")}
for name, spots in data.shapes.items():
    placed = sd.transform(spots, to_coordinate_system="px")
    found[f"shapes/{name}"] = np.column_stack([spots.geometry.x, spots.geometry.y, spots.radius, placed.geometry.x])
    found[f"names/{name}"] = spots.index.to_numpy().astype(str)
np.savez(out, **found)
matrices = {
    f"{name} {system}": get_transformation(data[name], to_coordinate_system=system)
    .to_affine_matrix(("x", "y"), ("x", "y")).tolist()
    for name in ("he", "bins", "cluster_4") for system in data.coordinate_systems
}
extent = sd.get_extent(data, coordinate_system="um")
print(json.dumps({"matrices": matrices, "x": list(map(float, extent["x"])), "version": version("spatialdata")}))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = write_whole_run(tmp_path_factory.mktemp("spatialdata") / "iSCALE_output")
    run.store.make_group("captures", {})
    for name in CAPTURES:
        write_capture(run.store, capture_called(name), SlideGrid((160 * 16, 192 * 16), 0.5, 0.5))
    return run


CAPTURES = {"D1": "D1", "Bins": "capture_Bins"}
"""Captures, and what their shapes are called: a raster is called bins already."""

TURNED = np.array([[0.0, -2.0, 2400.0], [2.0, 0.0, 300.0], [0.0, 0.0, 1.0]])
OWN = np.array([[100.0, 40.0], [200.0, 350.0], [625.5, 411.25]])


def capture_called(name: str) -> Capture:
    """Three spots of 30 um about their middles, turned onto the slide."""
    at = OWN @ TURNED[:2, :2].T + TURNED[:2, 2]
    counts = sparse.csr_matrix(np.ones((3, 1), np.float32))
    spots = tuple(f"{name}-{i}" for i in range(3))
    return Capture(name, spots, ("KRT8",), counts, at, 30.0, transform=TURNED, source_xy_px=OWN)


def test_captures_are_circles_in_um_on_the_slide(run: Run, tmp_path: Path) -> None:
    said = export_run(run.store.folder, "spatialdata", out=tmp_path / "sd.zarr", genes="KRT8", bin_um=32)
    assert "shapes/capture_Bins, shapes/D1" in said
    for capture, name in CAPTURES.items():
        table = pd.read_parquet(tmp_path / "sd.zarr" / "shapes" / name / "shapes.parquet")
        assert table.index.tolist() == [f"{capture}-{i}" for i in range(3)]
        points = shapely.from_wkb(table["geometry"].to_numpy())
        expected = on_mother(run.captures[capture])
        np.testing.assert_allclose(expected, (OWN @ TURNED[:2, :2].T + TURNED[:2, 2]) * 0.5)
        np.testing.assert_array_equal(shapely.get_coordinates(points), expected)
        assert table["radius"].tolist() == [30.0] * 3
        about = zarr.open_group(tmp_path / "sd.zarr", path=f"shapes/{name}", mode="r").attrs.asdict()
        scales = {t["output"]["name"]: t["scale"] for t in about["coordinateTransformations"]}
        assert scales == {"global": [1.0, 1.0], "um": [1.0, 1.0], "px": [2.0, 2.0]}


@pytest.fixture
def python() -> str:
    """The Python of an environment that has spatialdata, which cannot be installed beside our dask."""
    name = os.environ.get("ISCALE_SPATIALDATA_PYTHON")
    if not name:
        pytest.skip("ISCALE_SPATIALDATA_PYTHON is not set: it names the Python of an environment with spatialdata")
    return name


@pytest.mark.parametrize("bin_um", [8, 16])
def test_rows_of_the_table_are_cells_of_the_raster(run: Run, tmp_path: Path, bin_um: int) -> None:
    export_run(run.store.folder, "spatialdata", out=tmp_path / "sd.zarr", bin_um=bin_um)
    side = bin_um // 8
    table = ad.read_zarr(tmp_path / "sd.zarr" / "tables" / "expression")
    raster = np.asarray(zarr.open_array(tmp_path / "sd.zarr", path="labels/bins/0", mode="r"))
    assert raster.shape == (160 // side, 192 // side)
    i, j = table.obs["array_row"].to_numpy(), table.obs["array_col"].to_numpy()
    assert (raster[i, j] == table.obs["bin_id"]).all()
    assert (raster > 0).sum() == len(table)
    assert table.obs["region"].cat.categories.tolist() == ["bins"]
    np.testing.assert_allclose(table.X, binned(run.expression.values, side)[:, i, j].T, rtol=1e-6)
    clusters = zarr.open_array(tmp_path / "sd.zarr", path="labels/cluster_4/0", mode="r")
    np.testing.assert_array_equal(clusters[...], run.clusters.values[0])
    labels = zarr.open_array(tmp_path / "sd.zarr", path="labels/label_0.25/0", mode="r")
    np.testing.assert_array_equal(labels[...], run.annotation.values[1])


def test_the_image_is_linked_and_the_same(run: Run, tmp_path: Path) -> None:
    text = export_run(run.store.folder, "spatialdata", out=tmp_path / "sd.zarr", genes="KRT8", bin_um=32)
    assert "linked to the run's files" in text
    for level in run.image.children:
        array = zarr.open_array(tmp_path / "sd.zarr", path=f"images/he/{level}", mode="r")
        np.testing.assert_array_equal(array[...], run.image[level]["image"].values)
    linked = [
        path for path in (tmp_path / "sd.zarr" / "images").rglob("*") if path.is_file() and path.stat().st_nlink > 1
    ]
    assert linked
    assert all(path.name != "zarr.json" for path in linked), "metadata of both would change together"


def test_the_image_is_copied_where_files_cannot_be_linked(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(spatialdata, "os", SimpleNamespace(walk=os.walk, link=no_link))
    text = export_run(run.store.folder, "spatialdata", out=tmp_path / "sd.zarr", genes="KRT8", bin_um=32)
    assert "images/he (copied)" in text
    array = zarr.open_array(tmp_path / "sd.zarr", path="images/he/0", mode="r")
    np.testing.assert_array_equal(array[...], run.image["0"]["image"].values)


def test_a_window_is_in_the_frame_of_the_slide(run: Run, tmp_path: Path) -> None:
    export_run(run.store.folder, "spatialdata", out=tmp_path / "sd.zarr", window="640,320,1280,800", genes="KRT8")
    clusters = np.asarray(zarr.open_array(tmp_path / "sd.zarr", path="labels/cluster_4/0", mode="r"))
    expected = np.zeros_like(run.clusters.values[0])
    expected[40:100, 80:160] = run.clusters.values[0, 40:100, 80:160]
    np.testing.assert_array_equal(clusters, expected)
    table = ad.read_zarr(tmp_path / "sd.zarr" / "tables" / "expression")
    assert len(table) == run.tissue.values[40:100, 80:160].sum()


@pytest.mark.parametrize("bin_um", [8, 32])
def test_spatialdata_reads_it(run: Run, tmp_path: Path, python: str, bin_um: int) -> None:
    side = bin_um // 8
    export_run(run.store.folder, "spatialdata", out=tmp_path / "sd.zarr", bin_um=bin_um)
    command = [python, "-W", "ignore", "-c", READ, str(tmp_path / "sd.zarr"), str(tmp_path / "read.npz")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    for name, side_um in (("he", 0.5), ("bins", float(bin_um)), ("cluster_4", 8.0)):
        for system, size in (("um", side_um), ("global", side_um), ("px", side_um / 0.5)):
            assert said["matrices"][f"{name} {system}"] == [[size, 0, 0], [0, size, 0], [0, 0, 1]]
    assert said["x"] == [0, 192 * 8]
    with np.load(tmp_path / "read.npz") as read:
        i, j = read["array_row"], read["array_col"]
        expected = binned(run.expression.values, side)[:, i, j].T
        np.testing.assert_allclose(read["x"], expected, rtol=1e-6)
        np.testing.assert_allclose(read["joined"], expected, rtol=1e-6)
        assert (read["labels/bins"][i, j] == read["bin_id"]).all()
        assert set(read["instances"]) - {0} == set(read["bin_id"])
        for capture, name in CAPTURES.items():
            xy = (OWN @ TURNED[:2, :2].T + TURNED[:2, 2]) * 0.5
            np.testing.assert_allclose(read[f"shapes/{name}"], np.column_stack([xy, [30.0] * 3, xy[:, 0] / 0.5]))
            assert read[f"names/{name}"].tolist() == [f"{capture}-{i}" for i in range(3)]
        np.testing.assert_array_equal(read["labels/cluster_4"], run.clusters.values[0])
        levels = [run.image[level]["image"].values for level in run.image.children]
        for k, level in enumerate(levels):
            np.testing.assert_array_equal(read[f"image/scale{k}"], level)
    assert len(GENES) == expected.shape[1]
