"""What cannot be summed over ends in one error with numbers, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from area_runs import SUPERPIXEL_RAW, add_capture, box, feature, some_maps, write_geojson, write_run
from PIL import Image

from iscale.errors import InputError, StoreError
from iscale.export.areas import aggregate as command
from iscale.export.areas.aggregate import aggregate_run
from iscale.results import Run
from iscale.store.lock import hold

S = SUPERPIXEL_RAW
CELL = feature([box(80 * S, 80 * S, 82 * S, 82 * S)], "a")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("run"), some_maps())


@pytest.fixture
def refused(run: Run, tmp_path: Path) -> Any:
    """Aggregates, and gives the error."""

    def refused(over: object, **options: Any) -> str:
        out = tmp_path / "out" / "found.h5ad"
        with pytest.raises((InputError, StoreError)) as error:
            aggregate_run(run.store.folder, str(over), out=out, **options)
        assert not out.parent.exists() or not list(out.parent.iterdir())
        return str(error.value)

    return refused


def test_polygons_beside_the_slide_are_refused_with_their_extent(refused: Any, tmp_path: Path) -> None:
    far = [feature([box(x, 9000, x + 10, 9010)], str(x)) for x in range(9000, 9500, 100)]
    text = refused(write_geojson(tmp_path / "far.geojson", [CELL, *far]))
    assert "the centres of 5 of 6 areas lie beside the slide" in text
    assert "x 2,592 to 9,405, y 2,592 to 9,005" in text
    assert "5,120 px wide and 4,608 high" in text
    text = refused(write_geojson(tmp_path / "far.geojson", far), units="um")
    assert "1,280 um wide" in text


def test_the_unit_that_would_fit_is_named(refused: Any, tmp_path: Path) -> None:
    pixels = pd.DataFrame(
        [("a", x, y) for x, y in box(3000, 3000, 3040, 3040)], columns=["cell_id", "vertex_x", "vertex_y"]
    )
    pixels.to_parquet(tmp_path / "px.parquet", index=False)
    text = refused(tmp_path / "px.parquet")
    assert "taken as um from the slide's corner" in text
    assert "give --units px" in text


def test_few_beside_the_slide_are_told(run: Run, tmp_path: Path) -> None:
    far = feature([box(9000, 9000, 9010, 9010)], "far")
    path = write_geojson(tmp_path / "cells.geojson", [CELL, CELL, far])
    text = aggregate_run(run.store.folder, str(path), out=tmp_path / "found.h5ad")
    assert "Centres beside the slide, where nothing is: 1 of 3 areas." in text


@pytest.mark.parametrize(
    ("ring", "told"),
    [
        ([[1, 1], [2, "nan"], [3, 3]], "has a point at [2.0, nan]"),
        ([["x", 1]] * 4, "not x, y pairs"),
    ],
)
def test_outlines_that_are_none_are_refused(refused: Any, tmp_path: Path, ring: Any, told: str) -> None:
    assert told in refused(write_geojson(tmp_path / "few.geojson", [CELL, feature([ring], "b")]))


FEW = [[3.0 * S, 4.0 * S], [3.5 * S, 4.5 * S]]


@pytest.mark.parametrize("rings", [[FEW], [[*FEW, FEW[0]]], [FEW[:1]], [FEW, box(1, 1, 2, 2)]])
def test_an_area_without_extent_is_a_row_of_zeros(run: Run, tmp_path: Path, rings: Any) -> None:
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}
    cells = [CELL, feature(rings, "b"), point, CELL, feature(rings, "last")]
    path, out = write_geojson(tmp_path / "few.geojson", cells), tmp_path / "found.h5ad"
    text = aggregate_run(run.store.folder, str(path), out=out)
    assert "0 in the row of 2 areas without any extent" in text
    assert "1 object of other kinds left out: points, lines." in text
    found = ad.read_h5ad(out)
    assert found.obs["area_um2"].round(6).tolist() == [4 * 64, 0, 4 * 64, 0]
    np.testing.assert_allclose(found.obs[["x_um", "y_um"]].to_numpy()[[1, 3]], [[24, 32]] * 2)
    assert found.X[[1, 3]].sum() == 0
    np.testing.assert_array_equal(found.X[0], found.X[2])


def test_a_hole_without_extent_is_none(run: Run, tmp_path: Path) -> None:
    holed = feature([box(80 * S, 80 * S, 82 * S, 82 * S), FEW], "holed")
    path, out = write_geojson(tmp_path / "hole.geojson", [CELL, holed]), tmp_path / "found.h5ad"
    aggregate_run(run.store.folder, str(path), out=out)
    found = ad.read_h5ad(out)
    np.testing.assert_array_equal(found.X[0], found.X[1])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty: 0 bytes"),
        ("[]", "has no area"),
        ('{"type": "FeatureCollection", "features": []}', "has no area"),
        ('{"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}', "1 object of other kinds"),
        (
            '{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": []}}',
            "1 area, and none encloses",
        ),
        ('{"features": [{"type": "Feature",', "is not JSON"),
        ('{"features": [{"a": 1} {"b": 2}]}', "is not JSON"),
        ('{"features": []} more', "is not JSON"),
        ("PK\u0003\u0004", "is not JSON: what begins at character 0 is no value"),
    ],
)
def test_files_without_polygons_are_refused(refused: Any, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "none.geojson").write_text(text)
    assert told in refused(tmp_path / "none.geojson")


def test_points_of_qupath_alone_are_refused(refused: Any, tmp_path: Path) -> None:
    points = [{"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}} for _ in range(7)]
    assert "7 objects of other kinds: points" in refused(write_geojson(tmp_path / "points.geojson", points))


def test_unknown_genes_are_refused_with_the_nearest(refused: Any, tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "cells.geojson", [CELL])
    assert "Similar names: G1" in refused(path, genes=["g1"])
    assert "no gene 'TP53' among the 3" in refused(path, genes=["TP53"])
    assert "No gene is named" in refused(path, genes=[])


def test_a_target_that_is_there_stays(run: Run, tmp_path: Path) -> None:
    path, out = write_geojson(tmp_path / "cells.geojson", [CELL]), tmp_path / "found.h5ad"
    out.write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        aggregate_run(run.store.folder, str(path), out=out)
    assert out.read_text() == "mine"
    aggregate_run(run.store.folder, str(path), out=out, overwrite=True)
    assert out.stat().st_size > 1000
    with pytest.raises(InputError, match="does not end in"):
        aggregate_run(run.store.folder, str(path), out=tmp_path / "found.txt")
    with pytest.raises(InputError, match=r"does not end in \.geojson"):
        aggregate_run(run.store.folder, str(path), to="geojson", out=tmp_path / "found.csv")
    with pytest.raises(InputError, match="--to xlsx: there is no such format"):
        aggregate_run(run.store.folder, str(path), to="xlsx")
    with pytest.raises(InputError, match="is the file of the areas"):
        aggregate_run(run.store.folder, str(path), out=path, overwrite=True)
    np.save(tmp_path / "labels.npy", np.ones((144, 160), int))
    with pytest.raises(InputError, match="it has no outlines to write as GeoJSON"):
        aggregate_run(run.store.folder, str(tmp_path / "labels.npy"), to="geojson", out=tmp_path / "no.geojson")
    assert not (tmp_path / "no.geojson").exists()


def test_a_target_that_cannot_be_finished_leaves_the_old_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = write_geojson(tmp_path / "cells.geojson", [CELL]), tmp_path / "out" / "found.h5ad"
    aggregate_run(run.store.folder, str(path), out=out)
    before = out.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("iscale.store.scratch.FileRows.add", full)
    with pytest.raises(StoreError, match="No space left"):
        aggregate_run(run.store.folder, str(path), out=out, overwrite=True)
    assert out.read_bytes() == before
    assert [p.name for p in out.parent.iterdir()] == ["found.h5ad"]


def test_a_disk_without_room_is_refused_first(refused: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=20)
    monkeypatch.setattr(command.shutil, "disk_usage", lambda _: free)
    assert "1 area x 3 genes take 24 B, 20 B are free" in refused(write_geojson(tmp_path / "cells.geojson", [CELL]))


def test_a_run_without_expression_says_which_stage_makes_it(tmp_path: Path) -> None:
    early = write_run(tmp_path / "early", some_maps())
    shutil.rmtree(early.store.folder / "run.zarr" / "expression")
    with pytest.raises(InputError, match="iscale predict"):
        aggregate_run(early.store.folder, "bins:16")
    with hold(early.store.folder), pytest.raises(InputError, match="a run is being written"):
        aggregate_run(early.store.folder, "bins:16")


def test_a_table_without_the_columns_is_refused(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_text("cell_id,x_centroid,y_centroid\na,1,2\n")
    text = refused(tmp_path / "cells.csv")
    assert "has no corners of areas, vertex_x and vertex_y, and no x and y" in text
    assert "(it has: cell_id, x_centroid, y_centroid)" in text
    (tmp_path / "spots.csv").write_text("id,x,y\na,1,2\nb,1,\n")
    assert "1 of 2 rows have no position, the first is row 2: (1, )" in refused(tmp_path / "spots.csv", radius_um=20)
    (tmp_path / "spots.csv").write_text("id,x,y\na,1,2\nb,1\n")
    assert "row 2 has 2 cells, the header names 3 columns" in refused(tmp_path / "spots.csv", radius_um=20)
    (tmp_path / "stats.csv").write_text("#Selection name: S\nCell ID,Cluster\naaaa-1,2\n")
    text = refused(tmp_path / "stats.csv")
    assert "(it has: Cell ID, Cluster)" in text
    assert "A list of cells without their outlines is no area" in text
    (tmp_path / "locs.tsv").write_text("spot\tx\na\t1\n")
    assert "has no columns x and y" in refused(tmp_path / "locs.tsv", radius_um=20)
    (tmp_path / "locs.tsv").write_text("spot\tx\ty\na\t1000\t1000\n")
    assert "radius is not known" in refused(tmp_path / "locs.tsv")
    assert "is no radius" in refused(tmp_path / "locs.tsv", radius_um=-1)
    (tmp_path / "rows.csv").write_text("cell_id,vertex_x,vertex_y\n" + "a,1,1\nb,2,2\n" * 4)
    assert "8 areas, and none encloses anything" in refused(tmp_path / "rows.csv")


def test_labels_that_do_not_fit_are_refused_with_the_frames(refused: Any, tmp_path: Path) -> None:
    for name, labels, told in (
        ("other", np.ones((100, 160), int), "is 100 x 160 px"),
        ("empty", np.zeros((144, 160), int), "144 x 160 px are 0) has no area"),
        ("below", np.full((144, 160), -1), "labels below 0"),
        ("real", np.ones((144, 160)), "holds float64"),
        ("deep", np.ones((144, 160, 3), int), "of shape 144 x 160 x 3"),
    ):
        np.save(tmp_path / f"{name}.npy", labels)
        assert told in refused(tmp_path / f"{name}.npy")
    Image.new("RGB", (160, 144)).save(tmp_path / "colour.png")
    assert "image of colours" in refused(tmp_path / "colour.png")
    (tmp_path / "damaged.tif").write_bytes(b"II*\0damaged")
    assert "cannot be read as labels" in refused(tmp_path / "damaged.tif")


def test_what_can_change_nothing_or_is_not_there_is_refused(run: Run, refused: Any, tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "cells.geojson", [CELL])
    add_capture(run, "X1", np.eye(3), 0.5)
    assert "it has X1" in refused(path, capture="X2")
    assert "--units analysis-px are of the slide" in refused(path, capture="X1", units="analysis-px")
    assert "is none of px, um, analysis-px" in refused(path, units="mm")
    assert "--radius-um can change nothing" in refused(path, radius_um=5)
    assert "--units can change nothing about bins" in refused("bins:16", units="px")
    assert "1 to 1280 um are possible" in refused("bins:0.1")
    assert "1 to 1280 um are possible" in refused("bins:wide")
    assert "does not exist" in refused(tmp_path / "gone.geojson")
    (tmp_path / "cells.xml").write_text("x")
    assert ".xml is no format of areas" in refused(tmp_path / "cells.xml")
    (tmp_path / "empty").mkdir()
    assert "is a folder without cell_boundaries.parquet" in refused(tmp_path / "empty")


def test_a_single_feature_and_other_members_are_read(run: Run, tmp_path: Path) -> None:
    whole = {"crs": {"features": [1]}, "type": "FeatureCollection", "features": [CELL], "after": [1, {"x": 2}]}
    for number, value in enumerate((whole, CELL, [CELL], CELL["geometry"])):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(value))
        assert " in 1 area: " in aggregate_run(run.store.folder, str(path), out=tmp_path / f"{number}.h5ad")
