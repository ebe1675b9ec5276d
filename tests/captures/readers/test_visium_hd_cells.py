"""Cells that Space Ranger 4 segmented: counts by their outlines, and the choice between them and bins."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from space_ranger_folders import write_counts

from iscale.captures.platforms import detect_platform, read_capture, read_measured, told
from iscale.captures.readers.visium_hd import default_bin_um, read_outlines
from iscale.errors import InputError
from iscale.slide import geojson

N = 9
CENTRES = np.array([(100.0 + 50 * (i % 3), 80.0 + 60 * (i // 3)) for i in range(N)])
SIDES = 10.0 + 2 * np.arange(N)
FACTORS = {"microns_per_pixel": 0.25, "tissue_hires_scalef": 0.05, "tissue_lowres_scalef": 0.015}


def feature(i: int, number: Any = None) -> dict[str, Any]:
    (x, y), half = CENTRES[i], SIDES[i] / 2
    ring = [
        [x - half, y - half],
        [x + half, y - half],
        [x + half, y + half],
        [x - half, y + half],
        [x - half, y - half],
    ]
    properties = {"cell_id": i + 1 if number is None else number}
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": properties}


def write_cells(root: Path, features: list[Any] | None = None) -> Path:
    """Segmented cells, whose outlines come in another order than their counts."""
    (root / "spatial").mkdir(parents=True)
    write_counts(root / "filtered_feature_cell_matrix.h5", [f"cellid_{i + 1:09d}-1" for i in range(N)])
    features = [feature(i) for i in range(N)][::-1] if features is None else features
    text = json.dumps({"type": "FeatureCollection", "features": features})
    (root / "cell_segmentations.geojson").write_text(text)
    (root / "spatial" / "scalefactors_json.json").write_text(json.dumps(FACTORS))
    Image.new("RGB", (20, 20)).save(root / "spatial" / "tissue_hires_image.png")
    return root


@pytest.mark.parametrize("at", ["segmented_outputs", "outs/segmented_outputs", "elsewhere"])
def test_cells_lie_at_the_middle_of_their_outlines(tmp_path: Path, at: str) -> None:
    root = write_cells(tmp_path / at)
    place = root if at == "elsewhere" else tmp_path
    assert detect_platform(place) == "visium_hd"
    found = read_measured(place)
    assert found.spot_ids == [f"cellid_{i + 1:09d}-1" for i in range(N)]
    np.testing.assert_allclose(found.xy_px, CENTRES)
    assert found.counts[4].toarray().sum() == 2 * 5
    assert (found.um_per_px, found.pitch_um) == (0.25, None)
    assert found.spot_diameter_um == pytest.approx(2 * np.sqrt(np.median(SIDES**2) / np.pi) * 0.25)
    assert found.obs is not None
    np.testing.assert_allclose(found.obs["cell_area_um2"], SIDES**2 / 16)
    assert found.image == root / "spatial" / "tissue_hires_image.png"
    np.testing.assert_array_equal(np.diag(found.image_from_full), [0.05, 0.05, 1])
    assert found.notices[0].startswith("Cells are read, those that Space Ranger segmented")
    assert read_capture(place, name="H").uns["spatial"]["H"]["images"]["hires"].shape == (20, 20, 3)


def test_cells_or_bins_is_told(visium_hd: Path) -> None:
    write_cells(visium_hd / "segmented_outputs")
    cells = read_measured(visium_hd)
    assert len(cells.spot_ids) == N
    said = "There are bins of 2, 8, 16 um too: bin_um = 8 would read those."
    assert said in cells.notices[0]
    assert told(visium_hd, "visium_hd") == (cells.notices[0],)
    bins = read_measured(visium_hd, bin_um=16)
    assert bins.pitch_um == 16
    assert bins.notices[0] == "Bins of 16 um are read, as bin_um says; there are cells too, in segmented_outputs."
    assert read_measured(visium_hd / "binned_outputs").pitch_um == 8
    assert default_bin_um(visium_hd) == 8
    (visium_hd / "segmented_outputs/cell_segmentations.geojson").unlink()
    whole = read_measured(visium_hd)
    assert whole.pitch_um == 8
    assert "segmented_outputs has no cell_segmentations.geojson" in whole.notices[0]
    shutil.rmtree(visium_hd / "segmented_outputs")
    assert told(visium_hd, "visium_hd") == ()


def test_bins_that_are_not_there_are_refused(tmp_path: Path) -> None:
    write_cells(tmp_path / "segmented_outputs")
    with pytest.raises(InputError, match="not of Visium HD: no binned_outputs"):
        read_measured(tmp_path, bin_um=8)
    assert default_bin_um(tmp_path) is None


def test_cells_without_an_outline_are_left_out_and_told(tmp_path: Path) -> None:
    write_cells(tmp_path / "segmented_outputs", [feature(i) for i in range(7)])
    found = read_measured(tmp_path)
    np.testing.assert_allclose(found.xy_px, CENTRES[:7])
    assert any("2 of 9 cells of filtered_feature_cell_matrix.h5 are left out" in notice for notice in found.notices)


@pytest.mark.parametrize("number", [3, "3", "cellid_000000003-1", "cell_id_3"])
def test_numbers_of_cells_are_written_in_several_ways(tmp_path: Path, number: Any) -> None:
    write_cells(tmp_path / "segmented_outputs", [feature(i, number if i == 2 else None) for i in range(N)])
    np.testing.assert_allclose(read_measured(tmp_path).xy_px, CENTRES)


def test_outlines_of_any_length_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_cells(tmp_path / "segmented_outputs")
    monkeypatch.setattr(geojson, "TEXT_AT_ONCE", 70)
    ids, xy, area = read_outlines(root / "cell_segmentations.geojson")
    assert ids == [str(i + 1) for i in range(N)][::-1]
    np.testing.assert_allclose(xy, CENTRES[::-1])
    np.testing.assert_allclose(area, (SIDES**2)[::-1])


BAD = {
    "cut off": (
        '{"type": "FeatureCollection", "features": [{"type": "Fea',
        "is not JSON: what begins at character 43 is no value",
    ),
    "no features": ('{"type": "FeatureCollection"}', r"cell 1 \(None\) has no polygon"),
    "none": ('{"features": []}', "holds no cells"),
    "a number": ('{"features": [3]}', "has a feature that is none"),
    "no polygon": ('{"features": [{"properties": {"cell_id": 1}}]}', r"cell 1 \(1\) has no polygon"),
    "no id": (json.dumps({"features": [feature(0) | {"properties": {}}]}), r"cell 1 \(None\) has no cell_id"),
    "not finite": (
        '{"features": [{"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [NaN, 1], [0, 0]]]}, '
        '"properties": {"cell_id": 1}}]}',
        "no polygon that can be read|not finite",
    ),
}


@pytest.mark.parametrize("fault", list(BAD))
def test_outlines_that_cannot_be_read_are_one_error(tmp_path: Path, fault: str) -> None:
    text, said = BAD[fault]
    root = write_cells(tmp_path / "segmented_outputs")
    (root / "cell_segmentations.geojson").write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        read_measured(tmp_path)
    assert caught.value.remedy
