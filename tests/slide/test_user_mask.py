from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from leica import write_scn
from PIL import Image

from iscale.errors import InputError
from iscale.geometry import Region, SlideGrid
from iscale.slide.reader import open_slide
from iscale.slide.user_mask import read_user_mask

GRID = SlideGrid((2000, 3000), 0.25, 0.5)
WHOLE = Region(0, GRID.superpixel_shape[0], 0, GRID.superpixel_shape[1])


SCANNED = Region(160, 672, 200, 968)
CROPPED = SlideGrid((1000, 2000), 0.5, 0.5, SCANNED)
UNCROPPED = SlideGrid((1000, 2000), 0.5, 0.5)


def square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def feature(kind: str, coordinates: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": {}}


def write(folder: Path, value: Any) -> Path:
    path = folder / "tissue.geojson"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_a_mask_image_is_read_at_the_centres_of_superpixels(tmp_path: Path) -> None:
    image = np.zeros((200, 300), np.uint8)
    image[40:120, 100:250] = 1
    Image.fromarray(image).save(tmp_path / "mask-raw.png")
    mask = read_user_mask(tmp_path / "mask-raw.png", GRID).superpixels(WHOLE)
    assert mask.shape == (64, 96)
    rows, columns = np.nonzero(mask)
    # a mask pixel is 10 raw pixels, 5 analysis pixels; centres are at 16 i + 8
    assert (rows.min(), rows.max()) == (12, 36)
    assert (columns.min(), columns.max()) == (31, 77)
    assert mask[12:37, 31:78].all()


def test_the_padding_is_never_tissue(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 30), 255, np.uint8)).save(tmp_path / "mask-raw.png")
    mask = read_user_mask(tmp_path / "mask-raw.png", GRID).superpixels(WHOLE)
    assert mask[:62, :93].all()
    assert not mask[63:].any()
    assert not mask[:, 94:].any()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_what_is_not_zero_is_tissue_in_every_kind_of_png(tmp_path: Path, mode: str) -> None:
    values = np.zeros((200, 300), np.uint8)
    values[:100] = 255
    if mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16))
    elif mode == "RGBA":
        image = Image.fromarray(np.dstack([np.full((200, 300, 3), 255, np.uint8), values]))
    else:
        image = Image.fromarray(values).convert(mode)
    image.save(tmp_path / "mask-raw.png")
    mask = read_user_mask(tmp_path / "mask-raw.png", GRID).superpixels(WHOLE)
    assert mask[:31, :93].all()
    assert not mask[32:].any()


@pytest.mark.parametrize("wrap", ["collection", "list", "feature", "geometry"])
def test_polygons_in_every_wrapping(tmp_path: Path, wrap: str) -> None:
    one = feature("Polygon", [square(320, 640, 640)])
    value = {
        "collection": {"type": "FeatureCollection", "features": [one]},
        "list": [one],
        "feature": one,
        "geometry": one["geometry"],
    }[wrap]
    mask = read_user_mask(write(tmp_path, value), GRID).superpixels(WHOLE)
    expected = np.zeros_like(mask)
    expected[20:40, 10:30] = True  # 32 raw pixels to a superpixel
    assert np.array_equal(mask, expected)


def test_holes_and_several_polygons(tmp_path: Path) -> None:
    ring = [square(0, 0, 640), square(160, 160, 320)]
    mask = read_user_mask(
        write(tmp_path, [feature("MultiPolygon", [ring, [square(960, 960, 320)]])]), GRID
    ).superpixels(WHOLE)
    expected = np.zeros_like(mask)
    expected[:20, :20] = True
    expected[5:15, 5:15] = False
    expected[30:40, 30:40] = True
    assert np.array_equal(mask, expected)


def test_polygons_do_not_depend_on_the_region(tmp_path: Path) -> None:
    angles = np.linspace(0, 2 * np.pi, 401)
    radii = 700 + 200 * np.random.default_rng(1).random(401)
    points = np.stack([1500 + radii * np.cos(angles), 1000 + radii * np.sin(angles)], 1)
    reader = read_user_mask(write(tmp_path, feature("Polygon", [points.tolist()])), GRID)
    full = reader.superpixels(WHOLE)
    area = 0.5 * np.sum(points[:-1, 0] * points[1:, 1] - points[1:, 0] * points[:-1, 1])
    assert full.sum() * 32**2 == pytest.approx(area, rel=0.03)
    for side in (7, 16, 40):
        for region in WHOLE.tiles(side):
            assert np.array_equal(reader.superpixels(region), full[region.slices])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{not json", "is not JSON"),
        ({"type": "FeatureCollection", "features": []}, "no Polygon"),
        (feature("Point", [1, 2]), "no Polygon"),
        (feature("Polygon", [[["a", "b"], ["c", "d"], ["e", "f"]]]), "not x, y pairs"),
        (feature("Polygon", [[[1, 2], [3, 4]]]), "2 usable points"),
        (feature("Polygon", [square(5000, 100, 500)]), "the slide is 3000 px wide and 2000 px high"),
        ([feature("Polygon", [square(0, 0, 99)]), feature("Polygon", [square(-900, 0, 99)])], "1 of 2 polygons"),
    ],
)
def test_bad_polygons_are_told(tmp_path: Path, value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_user_mask(write(tmp_path, value), GRID)
    assert "tissue.geojson" in str(caught.value)
    assert caught.value.remedy


def test_bad_mask_images_are_told(tmp_path: Path) -> None:
    path = tmp_path / "mask-raw.png"
    with pytest.raises(InputError, match="does not exist"):
        read_user_mask(path, GRID)
    path.write_text("no image")
    with pytest.raises(InputError, match="not a PNG"):
        read_user_mask(path, GRID)
    Image.fromarray(np.zeros((200, 300), np.uint8)).save(path)
    with pytest.raises(InputError, match="marks no tissue"):
        read_user_mask(path, GRID)
    Image.fromarray(np.ones((300, 200), np.uint8)).save(path)
    with pytest.raises(InputError, match=r"300 x 200 px .*ratio 1\.500.* 2000 x 3000 px .*ratio 0\.667"):
        read_user_mask(path, GRID)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=r"mask-raw\.png"):
        read_user_mask(path, GRID)
    (tmp_path / "mask.tif").touch()
    with pytest.raises(InputError, match=r"\.tif"):
        read_user_mask(tmp_path / "mask.tif", GRID)


def rectangle(x0: float, y0: float, x1: float, y1: float) -> dict[str, Any]:
    return feature("Polygon", [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]])


def superpixels(path: Path, grid: SlideGrid) -> np.ndarray:
    return read_user_mask(path, grid).superpixels(Region(0, 64, 0, 128))


def test_polygons_count_from_the_corner_of_what_was_scanned(tmp_path: Path) -> None:
    moved = write(tmp_path, [rectangle(80 + 200, 40 + 160, 344 + 200, 280 + 160), rectangle(600, 456, 960, 664)])
    expected = superpixels(moved, UNCROPPED)
    path = write(tmp_path, [rectangle(80, 40, 344, 280), rectangle(400, 296, 760, 504)])
    mask = read_user_mask(path, CROPPED)
    assert np.array_equal(mask.superpixels(Region(0, 64, 0, 128)), expected)
    assert expected.sum() > 400
    (told,) = mask.notices
    assert "tissue.geojson counts from the corner of the scanned part" in told
    assert "x 200, y 160" in told
    assert read_user_mask(path, UNCROPPED).notices == ()


def test_polygons_that_reach_out_of_what_was_scanned_count_from_the_slides_corner(tmp_path: Path) -> None:
    path = write(tmp_path, rectangle(280, 200, 1544, 440))
    mask = read_user_mask(path, CROPPED)
    assert np.array_equal(mask.superpixels(Region(0, 64, 0, 128)), superpixels(path, UNCROPPED))
    assert "the corner of the whole slide" in mask.notices[0]


def test_a_mask_image_of_the_scanned_part_is_laid_over_that(tmp_path: Path) -> None:
    values = np.zeros((512, 768), np.uint8)
    values[32:64, 48:480] = 255
    for times in (1, 2, 4):
        Image.fromarray(values[::times, ::times]).save(tmp_path / "mask-raw.png")
        mask = read_user_mask(tmp_path / "mask-raw.png", CROPPED)
        found = mask.superpixels(Region(0, 64, 0, 128))
        rows, columns = np.nonzero(found)  # centres are at 16 i + 8; the part begins at y 160, x 200
        assert (rows.min(), rows.max()) == (12, 13)
        assert (columns.min(), columns.max()) == (15, 41)
        assert found.sum() == 2 * 27
        assert "is laid over the scanned part" in mask.notices[0]


def test_a_mask_image_of_the_whole_slide_is_laid_over_that(tmp_path: Path) -> None:
    values = np.zeros((100, 200), np.uint8)
    values[10:20, 30:90] = 1
    Image.fromarray(values).save(tmp_path / "mask-raw.png")
    mask = read_user_mask(tmp_path / "mask-raw.png", CROPPED)
    assert np.array_equal(mask.superpixels(Region(0, 64, 0, 128)), superpixels(tmp_path / "mask-raw.png", UNCROPPED))
    assert "the whole slide" in mask.notices[0]
    Image.fromarray(values[:, :90]).save(tmp_path / "mask-raw.png")
    with pytest.raises(InputError, match="the scanned part of it 512 x 768 px"):
        read_user_mask(tmp_path / "mask-raw.png", CROPPED)


def test_a_leica_slide_states_what_was_scanned(tmp_path: Path) -> None:
    """Drawn in QuPath around the one dark rectangle, a mask covers just that."""
    scanned = np.full((512, 768, 3), 240, np.uint8)
    scanned[48:208, 56:312] = (120, 60, 130)
    write_scn(tmp_path / "s.scn", scanned, (200, 160), (1000, 2000))
    reader = open_slide(tmp_path / "s.scn")
    assert reader.levels[0] == (1000, 2000)
    assert reader.pixel_size_um == pytest.approx(0.5)
    assert reader.bounds == SCANNED
    dark = reader.read(0, Region(0, 1000, 0, 2000)).astype(int).sum(axis=2) < 500
    reader.close()
    grid = SlideGrid(reader.levels[0], 0.5, 0.5, reader.bounds)
    found = superpixels(write(tmp_path, rectangle(56, 48, 312, 208)), grid)[:62, :125]
    assert np.array_equal(found, dark[:992].reshape(62, 16, 125, 16).mean((1, 3)) > 0.5)
    assert found.sum() == 10 * 16
