"""Pictures of the page stay within their budget, whatever they hold."""

from __future__ import annotations

import base64
import io
import tomllib
from pathlib import Path

import numpy as np
from PIL import Image

from iscale.report.page import WIDTHS, embed


def _noise(path: Path, width: int) -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (300, width, 3), dtype=np.uint8)).save(path)
    return path


def test_pictures_that_are_too_large_together_become_smaller(tmp_path: Path) -> None:
    paths = [_noise(tmp_path / f"{i}.png", 1000 + i) for i in range(6)]
    roomy, tight = embed(paths), embed(paths, budget=600_000)
    assert roomy[paths[0]].width == 1000
    assert sum(len(picture.uri) for picture in tight.values()) <= 600_000
    assert tight[paths[0]].width in WIDTHS
    for picture in tight.values():
        with Image.open(io.BytesIO(base64.b64decode(picture.uri.split(",")[1]))) as shown:
            assert shown.size == (picture.width, picture.height)
            assert shown.format == "WEBP"


def test_all_that_the_page_is_made_of_is_installed() -> None:
    import iscale.report

    named = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    files = {path.name for path in Path(iscale.report.__file__).parent.glob("page.*")} - {"page.py"}
    assert set(named["tool"]["setuptools"]["package-data"]["iscale.report"]) == files
    assert len(files) == 3


def test_small_pictures_are_not_blown_up(tmp_path: Path) -> None:
    path = _noise(tmp_path / "small.png", 40)
    assert embed([path, path])[path].width == 40
