"""The synthetic slide: a pyramid that both readers open, painted as asked, in memory that does not grow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from iscale.demo.painting import paint, write_synthetic_slide
from iscale.geometry import Region


def test_slide_is_a_pyramid_with_its_pixel_size(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    tissue = write_synthetic_slide(path, (1100, 1700), seed=4, pixel_size_um=0.4)
    with openslide.OpenSlide(path) as slide:
        assert slide.level_dimensions == ((1700, 1100), (425, 275))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.4)
        region = np.asarray(slide.read_region((700, 400), 0, (500, 400)))[..., :3]
    painted = paint(tissue, Region(400, 800, 700, 1200))
    assert np.abs(region.astype(int) - painted).mean() < 3  # JPEG
    with tifffile.TiffFile(path) as file:
        fine, coarse = (level.asarray().astype(np.float32) for level in file.series[0].levels)
    expected = fine.reshape(275, 4, 425, 4, 3).mean(axis=(1, 3))
    assert np.abs(expected - coarse).mean() < 4  # JPEG keeps less of the colour of a coarse picture
    assert sorted(p.name for p in tmp_path.iterdir()) == ["slide.tif"]


def test_the_same_slide_twice_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif"):
        write_synthetic_slide(tmp_path / name, (700, 900), seed=4)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


@pytest.mark.parametrize("large", [4096, pytest.param(8192, marks=pytest.mark.full)])
def test_memory_does_not_grow_with_the_slide(tmp_path: Path, large: int) -> None:
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom iscale.demo.painting import write_synthetic_slide\n"
        "side = int(sys.argv[1])\nwrite_synthetic_slide(Path(sys.argv[2]), (side, side), tissue_fraction=0.05)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    peaks = [
        int(subprocess.check_output([sys.executable, "-c", code, str(side), str(tmp_path / "slide.tif")], text=True))
        for side in (1024, large)
    ]
    assert peaks[1] - peaks[0] < 40  # the larger ones are 50 and 201 MB as arrays
