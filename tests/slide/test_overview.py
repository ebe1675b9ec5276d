"""Overviews: small pictures of slides of any kind, whose pixels are known to lie where they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from iscale.errors import InputError
from iscale.slide.overview import Overview, read_overview


def gradient(height: int, width: int) -> np.ndarray:
    """Red tells x, green y."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 200 / width, y * 200 / height, np.full((height, width), 90)], -1).astype(np.uint8)


@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
@pytest.mark.parametrize("longest", [100, 333, 5000])
def test_pixels_lie_where_they_say(tmp_path: Path, kind: str, longest: int) -> None:
    image = gradient(700, 1000)
    path = tmp_path / f"he.{kind}"
    if kind == "tif":
        tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", resolution=(20000, 20000), resolutionunit=3)
    else:
        Image.fromarray(image).save(path, quality=95) if kind == "jpg" else Image.fromarray(image).save(path)
    seen = read_overview(path, longest)
    assert max(seen.rgb.shape) <= longest
    h, w = seen.rgb.shape[:2]
    middle = seen.to_full @ np.array([w // 2 + 0.5, h // 2 + 0.5, 1])
    found = seen.rgb[h // 2, w // 2]
    assert found[0] == pytest.approx(middle[0] * 0.2, abs=3)
    assert found[1] == pytest.approx(middle[1] * 200 / 700, abs=3)
    assert seen.full_um == (0.5 if kind == "tif" else None)


def test_a_slide_of_several_levels(data_dir: Path) -> None:
    seen = read_overview(data_dir / "slides" / "tcga-cr-7395-jp2k.svs", 600)
    assert max(seen.rgb.shape) <= 600
    assert seen.full_per_px * seen.rgb.shape[1] == pytest.approx(4441, rel=0.01)


def test_a_part_is_where_it_was() -> None:
    whole = Overview(gradient(100, 200), np.diag([4.0, 4.0, 1.0]), 0.5)
    part = whole.cropped(np.array([100.0, 40.0]), np.array([300.0, 200.0]))
    assert part.rgb.shape == (40, 50, 3)
    np.testing.assert_allclose(part.to_full @ [0, 0, 1], [100, 40, 1])
    np.testing.assert_array_equal(part.rgb, whole.rgb[10:50, 25:75])
    assert part.um_per_px == pytest.approx(2)
    assert whole.cropped(np.array([9000.0, 0.0]), np.array([9900.0, 9.0])) is whole


def test_a_damaged_image_is_an_error_of_input(tmp_path: Path) -> None:
    Image.fromarray(gradient(700, 1000)).save(tmp_path / "he.jpg")
    data = (tmp_path / "he.jpg").read_bytes()
    (tmp_path / "he.jpg").write_bytes(data[: len(data) // 3])
    with pytest.raises(InputError, match=r"he\.jpg"):
        read_overview(tmp_path / "he.jpg", 500)
