"""Captures as instruments wrote them, placed by a transform or not yet placed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from iscale.captures.measured import Measured
from iscale.captures.platforms import read_measured
from iscale.check.project import run_check
from iscale.demo.her2st import PIXEL_SIZE_UM, lay_out_her2st
from iscale.transform import Transform, write_transform

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("tissue_learnt_once")]


def paint(path: Path, xy: np.ndarray, measured: Measured) -> None:
    """Tissue about the spots, darker where they have more counts."""
    rng = np.random.default_rng(0)
    with Image.open(path) as image:
        width, height = image.size
    depth = np.asarray(measured.counts.sum(axis=1)).ravel()
    pixels = np.full((height, width, 3), 243, np.uint8)
    y, x = np.mgrid[:height, :width]
    distance, index = cKDTree(xy).query(np.column_stack([x.ravel(), y.ravel()]), distance_upper_bound=20)
    tissue = np.isfinite(np.asarray(distance))
    dark = 40 * (rankdata(depth) / len(depth))[np.asarray(index)[tissue]] + rng.normal(0, 12, tissue.sum())
    flat = pixels.reshape(-1, 3)
    flat[tissue] = np.clip(np.array([190, 130, 190]) - dark[:, None], 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def codes(project: Path, pixel_size: float = 1.0) -> list[tuple[str, str | None]]:
    return [(finding.code, finding.capture) for finding in run_check(project, {"pixel_size": pixel_size}).findings]


@pytest.fixture(scope="module")
def made(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Visium sample whose mother image is its own hires image, which is painted: in the sample it is blank."""
    project = tmp_path_factory.mktemp("visium") / "project"
    source = project / "DaughterCaptures/UnallignedToMother/V"
    shutil.copytree(data_dir / "visium", source)
    measured = read_measured(source)
    factor = measured.scalefactors["tissue_hires_scalef"]
    assert measured.um_per_px is not None
    paint(source / "spatial/tissue_hires_image.png", measured.xy_px * factor, measured)
    mother = project / "MotherImage"
    mother.mkdir()
    shutil.copyfile(source / "spatial/tissue_hires_image.png", mother / "he-raw.png")
    (mother / "pixel-size-raw.txt").write_text(f"{measured.um_per_px / factor}\n")
    aligned = project / "DaughterCaptures/AllignedToMother/V"
    write_transform(aligned / "transform.json", Transform(np.diag([factor, factor, 1.0])))
    return project


@pytest.fixture
def visium(made: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(made, tmp_path / "project"))


def rewrite(project: Path, matrix: np.ndarray) -> None:
    path = project / "DaughterCaptures/AllignedToMother/V/transform.json"
    before = np.array(json.loads(path.read_text())["matrix"])
    write_transform(path, Transform(matrix @ before))


def test_visium_as_it_came(visium: Path) -> None:
    report = run_check(visium, {"pixel_size": 1.0})
    assert report.findings == (), report.text()
    assert "visium" in report.facts["V"]


def test_full_resolution_positions_on_a_hires_image(visium: Path) -> None:
    rewrite(visium, np.diag([1 / 0.17211704, 1 / 0.17211704, 1.0]))
    report = run_check(visium, {"pixel_size": 1.0})
    assert [finding.code for finding in report.findings] == ["coordinates-scaled"], report.text()
    assert "tissue_hires_scalef" in report.findings[0].message


def test_a_mirrored_transform(visium: Path) -> None:
    rewrite(visium, np.array([[-1.0, 0, 2000], [0, 1, 0], [0, 0, 1]]))
    assert codes(visium) == [("coordinates-mirrored", "V")]


def test_positions_of_another_image_are_told_on_the_captures_own(visium: Path) -> None:
    path = visium / "DaughterCaptures/UnallignedToMother/V/spatial/tissue_positions_list.csv"
    table = pd.read_csv(path, header=None)
    table[[4, 5]] = (table[[4, 5]] * 0.17211704).round().astype(int)
    table.to_csv(path, header=False, index=False)
    report = run_check(visium, {"pixel_size": 1.0})
    assert [finding.code for finding in report.findings] == ["coordinates-scaled"], report.text()
    assert "own image" in report.findings[0].message
    assert "tissue_hires_scalef" in report.findings[0].message


def test_pixel_size_of_the_mother_image(visium: Path) -> None:
    (visium / "MotherImage/pixel-size-raw.txt").write_text("3.0\n")
    assert codes(visium) == [("pixel-size-mother", None)]


def test_radius_of_the_platform(visium: Path) -> None:
    um = float((visium / "MotherImage/pixel-size-raw.txt").read_text())
    (visium / "MotherImage/radius-raw.txt").write_text(f"{55 / um}\n")
    assert codes(visium) == [("radius-differs", None)]


def test_a_capture_that_waits_for_its_alignment_is_looked_at(visium: Path) -> None:
    shutil.rmtree(visium / "DaughterCaptures/AllignedToMother")
    assert codes(visium) == [("not-aligned", "V")]


def test_stated_pixel_size_of_a_capture(her2st_few_genes: Path, tmp_path: Path) -> None:
    layout = lay_out_her2st(her2st_few_genes, tmp_path / "project")
    shutil.rmtree(layout.project / "DaughterCaptures/AllignedToMother/C3")
    own = layout.project / "DaughterCaptures/UnallignedToMother/C3"
    (own / "he.jpg").unlink()
    shutil.copyfile(her2st_few_genes / "C3.jpg", own / "he.jpg")
    (own / "pixel-size.txt").write_text("0.5\n")
    assert codes(layout.project, PIXEL_SIZE_UM) == [("not-aligned", "C3"), ("pixel-size-capture", "C3")]
