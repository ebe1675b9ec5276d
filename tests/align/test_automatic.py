"""Alignment by images, on real sections whose alignment is known. ``make bench-alignment`` has all starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import alignment as known
from iscale.align.automatic import AlignmentRefusedError, align_automatically, refine_by_images
from iscale.slide.overview import Overview, read_overview
from iscale.transform import Transform

pytestmark = pytest.mark.usefixtures("data_dir")

GOOD_UM = 100.0


def section(name: str) -> Overview:
    """Overview of a section, of half the pixels that the benchmark takes."""
    path = known.data() / "her2st" / f"{name}.jpg"
    return read_overview(path, 1024 if name == "C4" else 512, known.PIXEL_UM)


@pytest.fixture(scope="module")
def mother(data_dir: Path) -> Overview:
    return section("C4")


@pytest.fixture(scope="module")
def found(mother: Overview) -> Transform:
    """Where C5 is placed."""
    return align_automatically(section("C5"), mother)


def test_a_section_finds_its_neighbour(found: Transform) -> None:
    assert known.error_um(found, "C5") < 40
    assert not found.mirrored
    assert 0.98 < found.scale < 1.03
    assert found.measures["confidence"] > 0.6


def test_landmarks_that_are_some_way_off_are_refined(mother: Overview) -> None:
    off = known.truth("C5").matrix.copy()
    off[:2, 2] += 250 / known.PIXEL_UM
    found = refine_by_images(section("C5"), mother, Transform(off, "landmarks"))
    assert known.error_um(Transform(off), "C5") > 300
    assert known.error_um(found, "C5") < 40
    assert found.how == "landmarks, refined by the images"
    assert found.measures["moved_px"] == pytest.approx(250 * 2**0.5 / known.PIXEL_UM, rel=0.15)


def test_what_cannot_be_improved_is_left(mother: Overview) -> None:
    capture = section("C4")
    with pytest.raises(AlignmentRefusedError, match="Keep it as it is"):
        refine_by_images(capture, mother, Transform(np.eye(3)))


def test_an_affine_may_stretch_and_is_no_worse(mother: Overview) -> None:
    found = align_automatically(section("C5"), mother, kind="affine")
    assert found.stretch > 1.005
    assert known.error_um(found, "C5") < 40


def test_rotation_reflection_and_scale_need_not_be_known(mother: Overview) -> None:
    capture = known.turned(section("C3"), 137, mirrored=True, scale=0.8)
    found = align_automatically(replace(capture, full_um=None), mother)
    assert known.error_um(found, "C3") < GOOD_UM


def test_the_same_bytes_twice(mother: Overview, found: Transform) -> None:
    np.testing.assert_array_equal(align_automatically(section("C5"), mother).matrix, found.matrix)


@pytest.mark.parametrize("where", ["bottom right", pytest.param("bottom left", marks=pytest.mark.full)])
def test_a_quarter_of_the_tissue_is_placed_or_refused(mother: Overview, where: str) -> None:
    capture = known.crop(section("C3"), where)
    try:
        found = align_automatically(capture, mother)
    except AlignmentRefusedError:
        return
    assert known.error_um(found, "C3") < GOOD_UM


@pytest.mark.full
def test_another_organ_is_refused(data_dir: Path) -> None:
    other = read_overview(data_dir / "st_mob" / "MOB1.jpg", 512, 4.6)
    with pytest.raises(AlignmentRefusedError, match=r"No place on the mother image stands out.*asked"):
        align_automatically(known.crop(section("C3"), "bottom left"), other)


def test_glass_is_refused(mother: Overview) -> None:
    empty = Overview(np.full((300, 400, 3), 240, np.uint8), np.eye(3), 8.0)
    with pytest.raises(AlignmentRefusedError, match="capture's image shows hardly any tissue"):
        align_automatically(empty, mother)


def test_a_wrong_pixel_size_is_refused_and_told(mother: Overview) -> None:
    wrong = replace(section("C3"), full_um=known.PIXEL_UM * 1.3)
    with pytest.raises(AlignmentRefusedError, match=r"At 0\.7\d times that scale a place would stand out"):
        align_automatically(wrong, mother)
