"""A mother image that is no stained tissue in transmitted light is told, one that is stained faintly is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from iscale.check.explain import Tissue
from iscale.check.project import run_check
from iscale.demo.synthetic import write_demo
from iscale.slide.colour import why_not_stained
from iscale.slide.overview import read_overview

Picture = NDArray[np.uint8]


def stained(project: Path) -> Picture:
    with Image.open(project / "MotherImage/he-raw.png") as image:
        return np.asarray(image.convert("RGB"))


def signal(side: int = 1024) -> NDArray[np.float64]:
    """Blurred nuclei (y, x) of 0 to 1 within a section."""
    rng = np.random.default_rng(0)
    dots = (rng.random((side, side)) < 0.004).astype(float)
    dots[: side // 8], dots[:, : side // 8] = 0, 0
    found = ndimage.gaussian_filter(dots, 3)
    return np.asarray((found / np.percentile(found, 99)).clip(0, 1))


def lit(*channels: float, dark: float = 0.0) -> Callable[[Path], Picture]:
    """Fluorescence of some colour, over a background."""
    return lambda project: (dark + signal()[..., None] * (np.array(channels) - dark)).astype(np.uint8)


def unstained(tint: tuple[int, int, int]) -> Callable[[Path], Picture]:
    """The stained image without its colours, on tinted glass, with a camera's noise."""

    def paint(project: Path) -> Picture:
        grey = stained(project).mean(-1, keepdims=True) / 245 * np.array(tint)
        return (grey + np.random.default_rng(1).normal(0, 4, grey.shape)).clip(0, 255).astype(np.uint8)

    return paint


NOT_STAINED = {
    "blue": (lit(0, 0, 255), "as fluorescence is"),
    "blue, dim": (lit(0, 0, 90), "as fluorescence is"),
    "blue, over a haze": (lit(10, 12, 250, dark=14), "as fluorescence is"),
    "blue, saturated": (lambda p: (lit(0, 0, 255)(p).clip(0, 40) * 6.0).astype(np.uint8), "as fluorescence is"),
    "grey": (lit(255, 255, 255), "as fluorescence is"),
    "green and red": (lit(200, 230, 0), "as fluorescence is"),
    "grey in transmitted light": (unstained((245, 245, 245)), "has no stain"),
    "on tinted glass": (unstained((240, 236, 220)), "has no stain"),
}


MORE = ("blue, dim", "blue, saturated", "green and red", "grey")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.full] if name in MORE else []) for name in NOT_STAINED]
)
def test_what_is_not_stained_is_one_error_that_a_flag_overrides(tiny_project: Path, name: str) -> None:
    paint, said = NOT_STAINED[name]
    Image.fromarray(paint(tiny_project)).save(tiny_project / "MotherImage/he-raw.png")
    (finding,) = run_check(tiny_project).findings
    assert (finding.code, finding.severity) == ("no-stain", "error")
    assert said in finding.message
    assert "--any-stain" in finding.remedy
    report = run_check(tiny_project, {"any_stain": True})
    assert "no-stain" not in {finding.code for finding in report.findings}
    assert said in report.facts["stain"]


def padded(project: Path) -> Picture:
    return np.pad(stained(project), ((700, 700), (700, 700), (0, 0)))


def underexposed(project: Path) -> Picture:
    return (stained(project) * 0.6).astype(np.uint8)


def faint(project: Path) -> Picture:
    return (245 - (245 - stained(project).astype(float)) * 0.35).astype(np.uint8)


def only_tissue(project: Path) -> Picture:
    return np.tile(stained(project)[256:768, 256:768], (2, 2, 1))


@pytest.mark.parametrize("paint", [stained, padded, underexposed, faint, only_tissue])
def test_what_is_stained_is_not_told(tiny_project: Path, paint: Callable[[Path], Picture]) -> None:
    Image.fromarray(paint(tiny_project)).save(tiny_project / "MotherImage/he-raw.png")
    assert "no-stain" not in {finding.code for finding in run_check(tiny_project).findings}


def doubt(path: Path) -> str:
    overview = read_overview(path, 1024, 0.5)
    return why_not_stained(overview.rgb, Tissue.of(overview, overview.rgb.shape[:2]).mask)


def test_the_demo_is_stained(tmp_path: Path) -> None:
    write_demo(tmp_path / "demo", side_px=2048)
    (slide,) = (tmp_path / "demo/MotherImage").glob("he-raw.*")
    assert doubt(slide) == ""


@pytest.mark.real
@pytest.mark.parametrize(
    "name",
    [
        "st_mob/MOB1.jpg",
        "h5ad/NCBI858.jpg",
        "her2st/C4.jpg",
        "landmarks/Rat-Kidney_HE.jpg",
        "landmarks/Rat-Kidney_PanCytokeratin.jpg",
        "slides/cmu-1-small-region.svs",
        "slides/tcga-cr-7395-jp2k.svs",
        "slides/he.ome.tif",
        "real/dicom/level-0-frames-0-30.dcm",
    ],
)
def test_real_sections_are_stained(data_dir: Path, name: str) -> None:
    assert doubt(data_dir / name) == ""


@pytest.mark.real
def test_a_real_fluorescence_slide_is_told(data_dir: Path) -> None:
    (slide,) = (data_dir / "real/ndpi").glob("*.ndpi")
    assert "as fluorescence is" in doubt(slide)
