"""Areas go back as a table or as objects with measurements: outlines where they were, every value the table's."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from area_runs import SUPERPIXEL_RAW, add_capture, box, feature, some_maps, write_geojson, write_run

from iscale.export.areas import text as written
from iscale.export.areas.aggregate import aggregate_run
from iscale.results import Run

S = SUPERPIXEL_RAW
UUID = "0f1e2d3c-4b5a-4678-9abc-def012345678"
HOLED = [box(80 * S, 80 * S, 84 * S, 84 * S), box(81 * S, 81 * S, 82 * S, 82 * S)]
TWO = {
    "type": "MultiPolygon",
    "coordinates": [[box(70 * S, 60 * S, 71 * S, 61 * S)], [box(75 * S, 60 * S, 76 * S, 62 * S)]],
}
CELLS: list[dict[str, Any]] = [
    feature(HOLED, UUID, objectType="annotation", classification={"name": "Tumor, in situ"}),
    {"type": "Feature", "geometry": TWO, "properties": {"cell_id": 7, "name": "two"}, "id": "c7"},
    feature([[[3.0, 4.0], [5.0, 6.0]]], "flat"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("run"), some_maps())


def table_of(run: Run, over: Path | str, tmp_path: Path, **options: Any) -> ad.AnnData:
    aggregate_run(run.store.folder, str(over), out=tmp_path / "table.h5ad", overwrite=True, **options)
    return ad.read_h5ad(tmp_path / "table.h5ad")


def test_objects_have_their_outlines_and_the_tables_values(run: Run, tmp_path: Path) -> None:
    path, out = write_geojson(tmp_path / "cells.geojson", CELLS), tmp_path / "measured.geojson"
    said = aggregate_run(run.store.folder, str(path), out=out)
    assert "Not written, as they enclose nothing: 1 area." in said
    found = json.loads(out.read_text())
    assert found["type"] == "FeatureCollection"
    first, second = found["features"]
    assert first["id"] == UUID
    assert first["geometry"] == CELLS[0]["geometry"]
    assert second["geometry"] == TWO
    assert "id" not in second
    assert (second["properties"]["id"], second["properties"]["name"]) == ("c7", "two")
    assert first["properties"]["classification"] == {"name": "Tumor, in situ"}
    assert [f["properties"]["objectType"] for f in (first, second)] == ["annotation", "detection"]
    table = table_of(run, path, tmp_path)
    for row, one in enumerate((first, second)):
        measured = one["properties"]["measurements"]
        np.testing.assert_allclose([measured[gene] for gene in table.var_names], table.X[row], rtol=1e-6)
        for name in ("area_um2", "x_um", "y_um", "share_on_tissue", "n_superpixels", "depth"):
            assert measured[name] == pytest.approx(table.obs[name].iloc[row], rel=1e-6)
    again = table_of(run, out, tmp_path)  # as it would come back from QuPath
    np.testing.assert_array_equal(again.X, table.X[:2])
    assert again.obs_names.tolist() == [UUID, "c7"]


def test_outlines_are_written_in_pixels_of_the_slide_whatever_they_came_in(run: Run, tmp_path: Path) -> None:
    turned = np.array([[0.0, -2.0, 5000.0], [2.0, 0.0, 10.0], [0, 0, 1]])
    add_capture(run, "X1", turned, um_per_px=0.5)
    rows = [("a", 500.0, 600.0), ("a", 520.0, 600.0), ("a", 520.0, 630.0), ("a", 500.0, 630.0)]
    (tmp_path / "cells.csv").write_text("cell_id,vertex_x,vertex_y\n" + "".join(f"{i},{x},{y}\n" for i, x, y in rows))
    out = tmp_path / "cells.geojson"
    aggregate_run(run.store.folder, str(tmp_path / "cells.csv"), capture="X1", to="geojson", out=out)
    (one,) = json.loads(out.read_text())["features"]
    (ring,) = one["geometry"]["coordinates"]
    expected = [[5000 - 2 * y / 0.5, 2 * x / 0.5 + 10] for _, x, y in rows]
    np.testing.assert_allclose(ring, [*expected, expected[0]])
    assert one["properties"]["id"] == "a"


def test_a_table_of_text_has_every_value(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_geojson(tmp_path / "cells.geojson", CELLS)
    monkeypatch.setattr(written, "VALUES_AT_ONCE", 4)  # a row at a time
    aggregate_run(run.store.folder, str(path), to="csv", out=tmp_path / "cells.csv", genes=["G2", "G0"])
    with (tmp_path / "cells.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = table_of(run, path, tmp_path, genes=["G2", "G0"])
    assert [row["id"] for row in rows] == table.obs_names.tolist() == [UUID, "c7", "flat"]
    assert list(rows[0]) == ["id", *table.obs.columns, "G2", "G0"]
    assert [row["classification"] for row in rows] == ["Tumor, in situ", "", ""]
    for gene in ("G2", "G0"):
        np.testing.assert_array_equal(np.float32([row[gene] for row in rows]), table[:, gene].X[:, 0])
    np.testing.assert_allclose([float(row["x_um"]) for row in rows], table.obs["x_um"])


def test_areas_of_one_name_keep_it_beside_their_numbers(run: Run, tmp_path: Path) -> None:
    cells = [feature([box(80 * S, y * S, 82 * S, (y + 1) * S)], "same") for y in (60, 61)]
    path = write_geojson(tmp_path / "cells.geojson", cells)
    aggregate_run(run.store.folder, str(path), out=tmp_path / "same.csv")
    with (tmp_path / "same.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["row"], row["id"]) for row in rows] == [("0", "same"), ("1", "same")]


def test_bins_are_squares(run: Run, tmp_path: Path) -> None:
    aggregate_run(run.store.folder, "bins:64", to="geojson", out=tmp_path / "bins.geojson")
    found = json.loads((tmp_path / "bins.geojson").read_text())["features"]
    table = table_of(run, "bins:64", tmp_path)
    assert [one["properties"]["id"] for one in found] == table.obs_names.tolist()
    corners = np.array([one["geometry"]["coordinates"][0][0] for one in found])
    np.testing.assert_allclose(corners, table.obs[["array_col", "array_row"]].to_numpy() * 8 * S)
