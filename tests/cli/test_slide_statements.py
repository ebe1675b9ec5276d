"""What a person states of the mother image against what its file states: in ``init``, in a plan, and in ``check``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from iscale.check.project import run_check
from iscale.cli.init import init_project
from iscale.errors import InputError
from iscale.options import Options, load_options
from iscale.plan.job import Job

APERIO = "Aperio Image Library v11.2.1 \n1024x1024 [0,0 1024x1024] (256x256) JPEG/RGB Q=70|AppMag = 20|MPP = "


def write_slide(project: Path, name: str, **options: Any) -> None:
    """Put the mother image of a project under another name, as a TIFF; take the stated pixel size away."""
    mother = project / "MotherImage"
    pixels = np.asarray(Image.open(mother / "he-raw.png"))
    (mother / "he-raw.png").unlink()
    (mother / "pixel-size-raw.txt").unlink()
    tifffile.imwrite(mother / name, pixels, tile=(256, 256), photometric="rgb", metadata=None, **options)


def print_dpi(project: Path) -> None:
    write_slide(project, "he-raw.tif", resolution=(4800, 4800), resolutionunit="INCH")


def aperio(stated: str) -> Callable[[Path], None]:
    return lambda project: write_slide(project, "he-raw.svs", compression="jpeg", description=f"{APERIO}{stated}")


def other_size(project: Path) -> None:
    write_slide(project, "he-raw.tif", resolution=(40000, 40000), resolutionunit="CENTIMETER")


SLIDES = {
    "print": (print_dpi, "4800 dpi, 5.292 um"),
    "MPP 0": (aperio("0"), "0 x 0 um"),
    "MPP -1": (aperio("-1"), "-1 x -1 um"),
    "MPP 500": (aperio("500"), "500 x 500 um"),
    "MPP 0.25": (aperio("0.25"), "0.25 um"),
    "tags of 0.25": (other_size, "0.25 um"),
}


def by_flag(project: Path) -> dict[str, Any]:
    return {"pixel_size_raw": 0.5}


def by_file(project: Path) -> dict[str, Any]:
    (project / "MotherImage/pixel-size-raw.txt").write_text("0.5\n")
    return {}


def by_settings(project: Path) -> dict[str, Any]:
    (project / "iscale.toml").write_text("pixel_size_raw = 0.5\n")
    return {}


@pytest.mark.parametrize("state", [by_flag, by_file, by_settings])
@pytest.mark.parametrize("slide", SLIDES)
def test_what_a_person_states_wins_and_both_are_told(
    tiny_project: Path, slide: str, state: Callable[[Path], dict[str, Any]]
) -> None:
    write, said = SLIDES[slide]
    write(tiny_project)
    job = Job(tiny_project, load_options(tiny_project, state(tiny_project)))
    assert job.grid.raw_pixel_size_um == 0.5
    (warning,) = (text for text in job.notices if "Warning: " in text)
    assert warning.startswith("mother image: Warning: 0.5 um from ")
    assert said in warning


@pytest.mark.parametrize("slide", ["print", "MPP 0", "MPP -1", "MPP 500"])
def test_a_size_that_cannot_be_is_asked_for(tiny_project: Path, slide: str) -> None:
    write, said = SLIDES[slide]
    write(tiny_project)
    with pytest.raises(InputError, match=rf"pixel size is unknown.*{said}.*--pixel-size-raw"):
        _ = Job(tiny_project, Options()).grid


def test_check_and_init_tell_both(tiny_project: Path, tmp_path: Path) -> None:
    print_dpi(tiny_project)
    report = run_check(tiny_project, {"pixel_size_raw": 0.5})
    (finding,) = (finding for finding in report.findings if finding.code == "pixel-size-stated")
    assert finding.severity == "warning"
    assert "0.5 um from --pixel-size-raw" in finding.message
    assert "5.292 um" in finding.message
    capture = tiny_project / "DaughterCaptures/AllignedToMother/D1"
    slide = tiny_project / "MotherImage/he-raw.tif"
    said = init_project(tmp_path / "new", slide, [f"D1={capture}"], pixel_size_raw=0.5, platform="tables")
    assert "Warning: 0.5 um from --pixel-size-raw" in said
    assert "5.292 um" in said
