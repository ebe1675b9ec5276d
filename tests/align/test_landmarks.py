"""Landmarks from the files in which people set them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iscale.align.landmarks import find_landmarks, read_landmarks
from iscale.errors import InputError
from iscale.geometry import Region, SlideGrid

CAPTURE = [[10.0, 20.0], [30.5, 40.0], [50.0, 65.0]]
MOTHER = [[110.0, 120.0], [130.5, 140.0], [150.0, 165.0]]


def write(folder: Path, name: str, text: str, encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_text(text, encoding=encoding)
    return path


def pairs(header: str, separator: str = ",") -> str:
    rows = [header, *(f"{n},{c[0]},{c[1]},{m[0]},{m[1]}" for n, c, m in zip("abc", CAPTURE, MOTHER, strict=True))]
    return "\n".join(rows).replace(",", separator) + "\n"


def points(xy: list[list[float]], header: str = "index,X,Y", first: int = 1) -> str:
    return "\n".join([header, *(f"{i},{x},{y}" for i, (x, y) in enumerate(xy, start=first))]) + "\n"


def feature(name: str | None, xy: Any, **properties: Any) -> dict[str, Any]:
    kind = "MultiPoint" if isinstance(xy[0], list) else "Point"
    named = {"name": name} if name else {}
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": xy},
        "properties": {"objectType": "annotation", **named, **properties},
    }


@pytest.mark.parametrize(
    "text",
    [
        pairs("name,capture_x,capture_y,mother_x,mother_y"),
        pairs("Landmark,source_x,source_y,target_x,target_y", "\t"),
        pairs("id;Capture X (px);Capture Y (px);X mother;Y mother", ";"),
        "# set by hand\n\n" + pairs("name,fixedX,fixedY,alignmentX,alignmentY") + ",,,,\n",
        pairs("name;capture_x;capture_y;mother_x;mother_y", ";").replace(".", ","),
    ],
)
def test_pairs_in_one_table(tmp_path: Path, text: str) -> None:
    marks = read_landmarks(write(tmp_path, "landmarks.csv", text, "utf-8-sig"))
    assert marks.names == ("a", "b", "c")
    np.testing.assert_array_equal(marks.capture_xy, CAPTURE)
    np.testing.assert_array_equal(marks.mother_xy, MOTHER)
    assert marks.notices == ()


def test_xenium_explorers_keypoints(tmp_path: Path) -> None:
    """The Xenium is fixed, the H&E is aligned to it; they have no names."""
    text = "fixedX,fixedY,alignmentX,alignmentY\n10.5,20,110,120\n30,40,130,140\n"
    marks = read_landmarks(write(tmp_path, "keypoints.csv", text))
    assert marks.names == ("1", "2")
    np.testing.assert_array_equal(marks.capture_xy, [[10.5, 20], [30, 40]])
    np.testing.assert_array_equal(marks.mother_xy, [[110, 120], [130, 140]])


def test_a_table_for_each_image_is_matched_by_index(tmp_path: Path) -> None:
    capture = write(tmp_path, "landmarks-capture.csv", points([*CAPTURE, [1, 2]], ",X,Y"))
    mother = write(tmp_path, "landmarks-mother.csv", "index,Y,X\n3.0,165,150\n2.0,140,130.5\n7.0,1,1\n1.0,120,110\n")
    for paths in ((capture, mother), (capture,), find_landmarks(tmp_path)):
        marks = read_landmarks(*paths)
        assert marks.names == ("1", "2", "3")
        np.testing.assert_array_equal(marks.capture_xy, CAPTURE)
        np.testing.assert_array_equal(marks.mother_xy, MOTHER)
        assert marks.notices == (
            "Landmarks that only landmarks-capture.csv has were left out: 4.",
            "Landmarks that only landmarks-mother.csv has were left out: 7.",
        )


def test_birl_files_of_real_sections(data_dir: Path) -> None:
    folder = data_dir / "landmarks"
    marks = read_landmarks(folder / "Rat-Kidney_HE.csv", folder / "Rat-Kidney_PanCytokeratin.csv")
    assert len(marks.names) == 69
    np.testing.assert_array_equal(marks.capture_xy[0], [63, 309])
    np.testing.assert_array_equal(marks.mother_xy[0], [62, 290])
    assert len(marks.notices) == 1


@pytest.mark.parametrize("form", ["collection", "list", "one multipoint"])
def test_qupath_geojson(tmp_path: Path, form: str) -> None:
    for image, xy in (("capture", CAPTURE), ("mother", MOTHER)):
        single = [feature(name, place) for name, place in zip("abc", xy, strict=True)]
        outline = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [0, 1]]]}}
        document: Any = {
            "collection": {"type": "FeatureCollection", "features": [outline, *single]},
            "list": list(reversed(single)) if image == "mother" else single,
            "one multipoint": feature("vessel", xy),
        }[form]
        write(tmp_path, f"landmarks-{image}.geojson", json.dumps(document))
    marks = read_landmarks(*find_landmarks(tmp_path))
    assert marks.names == (("vessel 1", "vessel 2", "vessel 3") if form == "one multipoint" else ("a", "b", "c"))
    np.testing.assert_array_equal(marks.capture_xy, CAPTURE)
    np.testing.assert_array_equal(marks.mother_xy, MOTHER)


def test_geojson_points_without_names_are_matched_in_order_or_by_class(tmp_path: Path) -> None:
    def both(make: Any) -> tuple[Path, Path]:
        capture = write(tmp_path, "c.geojson", json.dumps([make(i, xy) for i, xy in enumerate(CAPTURE)]))
        return capture, write(tmp_path, "m.geojson", json.dumps([make(i, xy) for i, xy in enumerate(MOTHER)]))

    marks = read_landmarks(*both(lambda i, xy: feature(None, xy)))
    assert marks.names == ("1", "2", "3")
    assert marks.notices == ("The 3 landmarks have no names: they were matched in order.",)
    marks = read_landmarks(*both(lambda i, xy: feature(None, xy, classification={"name": f"class {i // 2}"})))
    assert marks.names == ("class 0 1", "class 0 2", "class 1")
    with pytest.raises(InputError, match=r"c\.geojson names 1 landmarks more than once: a"):
        read_landmarks(*both(lambda i, xy: feature("a", xy)))
    with pytest.raises(InputError, match=r"c\.geojson: 1 of 3 landmarks have no name"):
        read_landmarks(*both(lambda i, xy: feature("ab"[i : i + 1], xy)))


def test_qupath_points_and_measurements_as_tsv(tmp_path: Path) -> None:
    """Points count in pixels; measurements of a calibrated image in um."""
    capture = write(tmp_path, "c.tsv", "x\ty\tclass\tname\n10\t20\tT\ta\n30.5\t40\tT\tb\n50\t65\tT\tc\n")
    rows = [f"s.svs\tPoints\t{n}\t\t{x * 0.25}\t{y * 0.25}\t1" for n, (x, y) in zip("abc", MOTHER, strict=True)]
    header = "Image\tROI\tName\tClassification\tCentroid X µm\tCentroid Y µm\tNum points"
    mother = write(tmp_path, "m.tsv", "\n".join([header, *rows]) + "\n")
    marks = read_landmarks(capture, mother, mother_um_per_px=0.25)
    assert marks.names == ("a", "b", "c")
    np.testing.assert_array_equal(marks.capture_xy, CAPTURE)
    np.testing.assert_allclose(marks.mother_xy, MOTHER)
    with pytest.raises(
        InputError, match=r"m\.tsv gives positions in um, and the pixel size of the mother image is not"
    ):
        read_landmarks(capture, mother, capture_um_per_px=0.25)
    several = write(tmp_path, "several.tsv", "\n".join([header, rows[0][:-1] + "5"]) + "\n")
    with pytest.raises(InputError, match="has a row for 5 points: their centroid is no landmark"):
        read_landmarks(capture, several, mother_um_per_px=0.25)


@pytest.mark.parametrize("form", ["geojson", "tsv"])
@pytest.mark.parametrize("reach", [0, 1000])
def test_points_of_qupath_count_from_the_corner_of_what_was_scanned(tmp_path: Path, form: str, reach: float) -> None:
    """Points that reach out of that count from the slide's."""
    grid = SlideGrid((1000, 2000), 0.25, 0.5, Region(160, 672, 200, 968))
    drawn = [[x + reach, y] for x, y in MOTHER]
    if form == "geojson":
        files = [
            write(tmp_path, f"{name}.geojson", json.dumps([feature(n, at) for n, at in zip("abc", xy, strict=True)]))
            for name, xy in (("c", CAPTURE), ("m", drawn))
        ]
    else:
        rows = [f"{n}\t{x * 0.25}\t{y * 0.25}" for n, (x, y) in zip("abc", drawn, strict=True)]
        named = zip("abc", CAPTURE, strict=True)
        files = [
            write(tmp_path, "c.csv", "".join(["name,x,y\n", *(f"{n},{x},{y}\n" for n, (x, y) in named)])),
            write(tmp_path, "m.tsv", "\n".join(["Name\tCentroid X µm\tCentroid Y µm", *rows]) + "\n"),
        ]
    marks = read_landmarks(*files, mother_um_per_px=0.25, mother_grid=grid)
    np.testing.assert_allclose(marks.mother_xy, np.add(drawn, [0, 0] if reach else [200, 160]))
    np.testing.assert_array_equal(marks.capture_xy, CAPTURE)
    assert ("the whole slide" if reach else "x 200, y 160") in marks.notices[0]
    unbounded = read_landmarks(*files, mother_um_per_px=0.25, mother_grid=SlideGrid((1000, 2000), 0.25, 0.5))
    np.testing.assert_allclose(unbounded.mother_xy, drawn)
    assert unbounded.notices == ()


def test_points_of_one_qupath_annotation_are_numbered_and_one_class_is_no_name(tmp_path: Path) -> None:
    text = "x\ty\tclass\tname\n" + "".join(f"{x}\t{y}\tTumor\t{{}}\n" for x, y in CAPTURE)
    named = [write(tmp_path, name, text.format("v", "v", "edge")) for name in ("c.tsv", "m.tsv")]
    assert read_landmarks(*named).names == ("v 1", "v 2", "edge")
    nameless = [write(tmp_path, name, text.format("", "", "")) for name in ("c.tsv", "m.tsv")]
    assert read_landmarks(*nameless).names == ("1", "2", "3")


def test_units_of_columns_and_of_rows(tmp_path: Path) -> None:
    path = write(tmp_path, "l.csv", "name,capture_x_um,capture_y_um,mother_x,mother_y\na,10,20,1,2\nb,30,40,3,4\n")
    marks = read_landmarks(path, capture_um_per_px=0.5)
    np.testing.assert_array_equal(marks.capture_xy, [[20, 40], [60, 80]])
    np.testing.assert_array_equal(marks.mother_xy, [[1, 2], [3, 4]])
    path = write(tmp_path, "l.csv", "name,unit,capture_x,capture_y,mother_x,mother_y\na,µm,1,2,3,4\nb,px,1,2,3,4\n")
    marks = read_landmarks(path, capture_um_per_px=0.5, mother_um_per_px=0.1)
    np.testing.assert_allclose(marks.capture_xy, [[2, 4], [1, 2]])
    np.testing.assert_allclose(marks.mother_xy, [[30, 40], [3, 4]])
    with pytest.raises(InputError, match="pixel size of the capture is not known"):
        read_landmarks(path, mother_um_per_px=0.1)
    write(tmp_path, "l.csv", "name,unit,capture_x,capture_y,mother_x,mother_y\na,inch,1,2,3,4\n")
    with pytest.raises(InputError, match="line 2 has the unit 'inch'"):
        read_landmarks(path, capture_um_per_px=0.5, mother_um_per_px=0.1)


HEADER = "name,capture_x,capture_y,mother_x,mother_y\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no landmarks: 0 lines"),
        (HEADER, "holds no landmarks: 1 lines"),
        (HEADER + "a,1,2,3\n", "line 2 has 4 cells, the header 5"),
        (HEADER + "a,1,2,3,4\n\nb,1,left,3,4\n", "line 4 has 'left' for capturey, which is no finite number"),
        (HEADER + "a,1,2,3,nan\n", "line 2 has 'nan' for mothery"),
        (HEADER + "a,1,2,3,4\na,5,6,7,8\nb,1,2,3,4\n", "names 1 landmarks more than once: a"),
        (HEADER + "a,1,2,3,4\n,5,6,7,8\n", "1 of 2 landmarks have no name"),
        ("name,x,y\na,1,2\n", r"no columns for x and y of the capture \(it has: name, x, y\)"),
        ("name,capture_x,capture_y\na,1,2\n", "no columns for x and y of the mother image"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_landmarks(write(tmp_path, "landmarks.csv", text))


def test_files_that_are_none(tmp_path: Path) -> None:
    good = write(tmp_path, "good.csv", points(CAPTURE))
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00\xd8")
    for name, text, says in (
        ("a.geojson", "{", "cannot be read as JSON"),
        ("a.geojson", "3", "holds 0 points"),
        ("a.geojson", '{"type": "FeatureCollection", "features": []}', "holds 0 points"),
        ("a.geojson", json.dumps(feature("a", [1, "left"])), "a point has no two numbers"),
        ("a.geojson", json.dumps(feature("a", [1])), "a point has no two numbers"),
        ("a.csv", points(MOTHER, "index,X,Z"), r"no columns x and y \(it has: index, x, z\)"),
        ("a.csv", points(MOTHER, first=10), r"No landmark has the same name in good.csv \(1, 2, 3 ...\)"),
        ("a.csv", "X,Y\n1,2\n", "landmarks in a.csv have no names, so they cannot be matched: 3 are in good.csv, 1 in"),
    ):
        with pytest.raises(InputError, match=says):
            read_landmarks(good, write(tmp_path, name, text))
    with pytest.raises(InputError, match="is not a text file"):
        read_landmarks(good, tmp_path / "bytes.csv")
    with pytest.raises(InputError, match=r"none\.csv cannot be read: No such file"):
        read_landmarks(tmp_path / "none.csv")
    with pytest.raises(InputError, match="holds the points of one image"):
        read_landmarks(write(tmp_path, "a.geojson", "{}"))


def test_which_files_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "locs.csv", "")
    assert find_landmarks(tmp_path) == ()
    capture = write(tmp_path, "landmarks-capture.geojson", "")
    with pytest.raises(InputError, match=r"landmarks-capture\.geojson, but no landmarks-mother\.geojson"):
        find_landmarks(tmp_path)
    mother = write(tmp_path, "landmarks-mother.TSV", "")
    assert find_landmarks(tmp_path) == (capture, mother)
    both = write(tmp_path, "landmarks.csv", "")
    with pytest.raises(InputError, match="has 3 files of landmarks"):
        find_landmarks(tmp_path)
    capture.unlink()
    mother.unlink()
    assert find_landmarks(tmp_path) == (both,)
