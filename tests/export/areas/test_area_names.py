"""What areas are called in the files of programs, and areas of files that QuPath and Xenium Explorer wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from area_runs import RAW_UM, SUPERPIXEL_RAW, box, write_geojson, write_run

from iscale.errors import InputError
from iscale.export.areas.aggregate import aggregate_run
from iscale.results import Run

S = SUPERPIXEL_RAW
PER_SUPERPIXEL = 2.0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A slide as large as that of QuPath's files, with the same count everywhere."""
    maps = np.full((1, 640, 864), PER_SUPERPIXEL, np.float32)
    return write_run(tmp_path_factory.mktemp("run"), maps, spread=False)


def aggregated(run: Run, over: Path, tmp_path: Path, **options: Any) -> tuple[ad.AnnData, str]:
    text = aggregate_run(run.store.folder, str(over), out=tmp_path / "found.h5ad", overwrite=True, **options)
    found = ad.read_h5ad(tmp_path / "found.h5ad")
    np.testing.assert_allclose(found.X[:, 0], found.obs["area_um2"] / 64 * PER_SUPERPIXEL, rtol=1e-5)
    return found, text


def cells(*members: dict[str, object]) -> list[dict[str, object]]:
    """Cells of a superpixel, side by side, each with these members."""
    return [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [box(i * S, 3 * S, (i + 1) * S, 4 * S)]},
            "properties": {},
            **member,
        }
        for i, member in enumerate(members)
    ]


@pytest.mark.parametrize(
    ("members", "ids", "member"),
    [
        ([{"id": 0}, {"id": 7}], ["0", "7"], "id"),
        ([{"properties": {"id": "x"}}, {"properties": {"id": "y"}}], ["x", "y"], "properties.id"),
        ([{"properties": {"cell_id": 7}}, {"properties": {"cell_id": 3.0}}], ["7", "3"], "properties.cell_id"),
        ([{"properties": {"Cell": "c"}}, {"properties": {"Cell": "d"}}], ["c", "d"], "properties.cell"),
        ([{"properties": {"label": 2}}, {"properties": {"label": 1}}], ["2", "1"], "properties.label"),
        ([{"properties": {"name": "n"}}, {"properties": {"name": "m"}}], ["n", "m"], "properties.name"),
        ([{"id": "u", "properties": {"name": "n"}}, {"id": "v", "properties": {"name": "m"}}], ["u", "v"], "id"),
        (
            [{"properties": {"label": "T", "name": "n"}}, {"properties": {"label": "T", "name": "m"}}],
            ["n", "m"],
            "properties.name",
        ),
    ],
)
def test_ids_are_found_where_programs_write_them(
    run: Run, tmp_path: Path, members: list[dict[str, object]], ids: list[str], member: str
) -> None:
    found, text = aggregated(run, write_geojson(tmp_path / "cells.geojson", cells(*members)), tmp_path)
    assert found.obs_names.tolist() == ids
    assert f"Ids are the features' {member}." in text
    assert "Rows are numbered" not in text


def test_blocks_after_the_first_are_called_by_the_same_member(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [{"properties": {"cell_id": i, "name": "a"}} for i in (7, 3, 12, 5)]
    members[2:] = [{"properties": {"cell_id": i, "name": f"n{i}"}, "id": f"u{i}"} for i in (12, 5)]
    monkeypatch.setattr("iscale.export.areas.geojson.AREAS_AT_ONCE", 2)
    found, _ = aggregated(run, write_geojson(tmp_path / "cells.geojson", cells(*members)), tmp_path)
    assert found.obs_names.tolist() == ["7", "3", "12", "5"]


def test_without_ids_no_column_of_them_is_named(run: Run, tmp_path: Path) -> None:
    for n in (1, 3):
        found, text = aggregated(run, write_geojson(tmp_path / "cells.geojson", cells(*[{}] * n)), tmp_path)
        assert found.obs_names.tolist() == [str(i) for i in range(n)]
        assert "No area has an id (looked for: id, properties.id, properties.cell_id," in text
        assert "obs['id']" not in text
        assert "id" not in found.obs


def test_an_area_without_an_id_among_others_is_numbered(run: Run, tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "cells.geojson", cells({"id": "a"}, {}, {"id": "b"}))
    found, text = aggregated(run, path, tmp_path)
    assert "Ids that come again, or are empty: 1. Rows are numbered, ids are in obs['id']." in text
    assert found.obs["id"].tolist() == ["a", "", "b"]


def area_px(rings: list[list[list[float]]]) -> float:
    """Area of an outline, by the shoelace formula."""
    x, y = (np.asarray(rings[0], float) - rings[0][0]).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


@pytest.mark.parametrize(
    ("name", "ids", "classes"),
    [
        ("qupath-ellipse.json", ["ellipse"], None),
        ("qupath-polygon.json", ["polygon"], None),
        ("qupath-wand.json", ["wand"], None),
        (
            "qupath-polygon-cell-classified.json",
            ["Erythrocytes 2", "Erythrocytes 1", "Neutrophils 1", "Neutrophils 2"],
            ["Cell", "Cell", "Nucleus", "Nucleus"],
        ),
    ],
)
def test_objects_that_qupath_exported_are_areas(
    run: Run, tmp_path: Path, data_dir: Path, name: str, ids: list[str], classes: list[str] | None
) -> None:
    path = data_dir / "real" / "qupath" / name
    found, text = aggregated(run, path, tmp_path)
    written = json.loads(path.read_text())
    outlines = [each["geometry"]["coordinates"] for each in (written if isinstance(written, list) else [written])]
    assert found.obs_names.tolist() == ids
    assert "Ids are the features' properties.name." in text
    np.testing.assert_allclose(found.obs["area_um2"], [area_px(rings) * RAW_UM**2 for rings in outlines], rtol=1e-9)
    assert set(found.obs["object_type"]) == {"annotation"}
    if classes is None:
        assert "classification" not in found.obs
    else:
        assert found.obs["classification"].tolist() == classes


def test_points_that_qupath_exported_are_no_areas(run: Run, tmp_path: Path, data_dir: Path) -> None:
    with pytest.raises(InputError, match="1 object of other kinds: points, lines"):
        aggregated(run, data_dir / "real" / "qupath" / "qupath-multipoint.json", tmp_path)


def test_selections_of_xenium_explorer_are_areas(run: Run, tmp_path: Path, data_dir: Path) -> None:
    folder = data_dir / "real" / "xenium_explorer"
    several, text = aggregated(run, folder / "sopa_coordinates.csv", tmp_path)
    assert several.obs_names.tolist() == [f"Selection {i}" for i in (1, 2, 3, 4)]
    np.testing.assert_allclose(several.obs["area_um2"], [3727.84, 2881.22, 2092.84, 796.25], rtol=5e-3)
    assert "selections of sopa_coordinates.csv, in um from the slide's corner" in text
    one, _ = aggregated(run, folder / "sopa_Selection_1_coordinates.csv", tmp_path)
    assert one.obs_names.tolist() == ["Selection 2"]  # as the file itself says
    np.testing.assert_allclose(one.obs["area_um2"], [17440.76], rtol=5e-3)


def test_a_list_of_a_selections_cells_is_no_area(run: Run, tmp_path: Path, data_dir: Path) -> None:
    path = data_dir / "real" / "xenium_explorer" / "sopa_Selection_1_cells_stats.csv"
    with pytest.raises(InputError, match="it has: Cell ID, Cluster, Transcripts, Area") as error:
        aggregated(run, path, tmp_path)
    assert "A list of cells without their outlines" in str(error.value)


def test_a_selections_outline_in_a_file_of_ones_own(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "niche.csv"
    path.write_text(
        "Selection,X,Y\n" + "".join(f"A,{x},{y}\n" for x, y in box(8, 16, 24, 32)) + "B,0,0\nB,8,0\nB,0,8\n"
    )
    found, _ = aggregated(run, path, tmp_path)
    assert found.obs_names.tolist() == ["A", "B"]
    np.testing.assert_allclose(found.obs["area_um2"], [256, 32])
    np.testing.assert_allclose(found.obs[["x_um", "y_um"]].to_numpy()[0], [16, 24])


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_spots_are_read_from_csv_as_from_tsv(run: Run, tmp_path: Path, separator: str) -> None:
    rows = [("barcode", "X", "y", "radius"), ("a", "1100.5", "900", "55"), ("b", "1300", "1000.25", "27.5")]
    (tmp_path / "spots.csv").write_text("".join(separator.join(row) + "\n" for row in rows))
    found, _ = aggregated(run, tmp_path / "spots.csv", tmp_path)
    assert found.obs_names.tolist() == ["a", "b"]
    np.testing.assert_allclose(found.obsm["spatial"], [[550.25, 450], [650, 500.125]])
    np.testing.assert_allclose(found.obs["area_um2"], np.pi * np.array([27.5, 13.75]) ** 2)
