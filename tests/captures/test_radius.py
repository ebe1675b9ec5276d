"""The radius of spots: which file states it, in which frame, and what is said where none does."""

from __future__ import annotations

from pathlib import Path

import pytest

from iscale.captures.read import spot_radius_um
from iscale.errors import InputError
from iscale.project.files import find_project


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def project(bare_project: Path) -> Path:
    return bare_project


def test_radius_comes_from_the_frame_of_its_file(project: Path) -> None:
    files = find_project(project)
    sizes = {"raw_pixel_size_um": 0.25, "pixel_size_um": 0.5}
    assert spot_radius_um(files, files.captures[0], **sizes) == 27.5

    write(project / "DaughterCaptures/AllignedToMother/D1/radius.txt", "8")
    write(project / "MotherImage/radius.txt", "55")
    files = find_project(project)
    assert [spot_radius_um(files, c, **sizes) for c in files.captures] == [4.0, 27.5]

    write(project / "MotherImage/radius.txt", "110")
    with pytest.raises(InputError, match=r"contradict each other: 110 px of 0\.25 um are 27\.5 um, 110 px of 0\.5"):
        spot_radius_um(files, files.captures[1], **sizes)


def test_what_the_measurement_states_counts_before_the_project_and_after_the_capture(project: Path) -> None:
    sizes = {"raw_pixel_size_um": 0.25, "pixel_size_um": 0.5, "measured_um": 50.0}
    write(project / "DaughterCaptures/AllignedToMother/D1/radius.txt", "8")
    files = find_project(project)
    assert [spot_radius_um(files, c, **sizes) for c in files.captures] == [4.0, 50.0]


def test_radius_must_be_known(project: Path) -> None:
    (project / "MotherImage/radius-raw.txt").unlink()
    files = find_project(project)
    with pytest.raises(InputError, match=r"Capture D1: the spot radius is not known.*\n.*D1/radius\.txt"):
        spot_radius_um(files, files.captures[0], raw_pixel_size_um=0.25, pixel_size_um=0.5)
    write(project / "MotherImage/radius-raw.txt", "110")
    files = find_project(project)
    with pytest.raises(InputError, match="pixel size is not known"):
        spot_radius_um(files, files.captures[0], raw_pixel_size_um=None, pixel_size_um=0.5)
