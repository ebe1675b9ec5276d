"""The built-in demo: a project that reads as any other, whose counts are what its truth says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iscale.captures.integrate import integrate
from iscale.captures.read import read_aligned_capture, spot_radius_um
from iscale.captures.spots import Capture
from iscale.demo.her2st import disc_sums
from iscale.demo.synthetic import GENES, HOUSEKEEPING, MARKERS, PIXEL_SIZE_UM, DemoTruth, read_truth, write_demo
from iscale.errors import InputError
from iscale.geometry import SUPERPIXEL_PX
from iscale.project.files import ProjectFiles, find_project, read_number

SIDE_PX = 3072


@pytest.fixture(scope="module")
def demo(demo_run: Path) -> DemoTruth:
    return read_truth(demo_run / "project")


def captures_of(files: ProjectFiles) -> list[Capture]:
    sizes = {"raw_pixel_size_um": PIXEL_SIZE_UM, "pixel_size_um": PIXEL_SIZE_UM}
    return [
        read_aligned_capture(
            capture,
            radius_um=spot_radius_um(files, capture, **sizes),
            pixel_size_um=PIXEL_SIZE_UM,
            analysis_shape_px=(SIDE_PX, SIDE_PX),
        )
        for capture in files.captures
    ]


def test_demo_is_a_project(demo: DemoTruth) -> None:
    files = find_project(demo.project)
    assert files.pixel_size_raw is not None
    assert read_number(files.pixel_size_raw) == PIXEL_SIZE_UM
    captures = captures_of(files)
    assert [(c.name, c.radius_um) for c in captures] == [("D1", 27.5), ("D2", 27.5), ("D3", 20.0)]
    assert all(c.genes == GENES and not c.notices for c in captures)
    spots = integrate(
        captures, n_genes=50, dist_st_px=100, analysis_shape_px=(SIDE_PX, SIDE_PX), pixel_size_um=PIXEL_SIZE_UM
    )
    assert len(spots.xy_px) > 80
    assert len(GENES) == len(set(GENES)) == 60


def test_counts_are_noisy_measurements_of_the_truth(demo: DemoTruth) -> None:
    superpixel_um = SUPERPIXEL_PX * PIXEL_SIZE_UM
    for capture, efficiency in zip(captures_of(find_project(demo.project)), (1.0, 0.7, 1.2), strict=True):
        expected = disc_sums(demo.expected, capture.xy_px, capture.radius_um / superpixel_um)
        counts = capture.counts.toarray()
        assert counts.sum() / np.nansum(expected) == pytest.approx(efficiency, rel=0.15)
        r = [np.corrcoef(np.log1p(counts[:, g]), np.log1p(expected[:, g]))[0, 1] for g in range(len(GENES))]
        assert np.median(r) > 0.85
        assert not np.array_equal(counts, np.round(expected))


def test_markers_are_high_where_their_region_is(demo: DemoTruth) -> None:
    mean = {kind: np.mean(demo.expected[[GENES.index(g) for g in MARKERS[kind]]], axis=0) for kind in MARKERS}
    depth = demo.expected.sum(axis=0)
    assert np.nanmax(depth) < 2000
    for kind in ("tumour", "stroma", "lymphoid"):
        others = [other for other in MARKERS if other != kind]
        where = mean[kind] > np.nanpercentile(mean[kind], 97)
        assert all(mean[kind][where].mean() > 2 * mean[other][where].mean() for other in others)
    assert np.nanmin(demo.expected[GENES.index(HOUSEKEEPING[0])]) >= 0


def test_both_frames_show_the_same_tissue(demo: DemoTruth) -> None:
    """A capture's own image at its own locations has the colours of the mother image at the aligned ones."""
    import tifffile

    mother = tifffile.imread(demo.project / "MotherImage/he-raw.tif", level=0).astype(np.float32)
    for name in ("D1", "D2", "D3"):
        folders = [demo.project / "DaughterCaptures" / f / name for f in ("AllignedToMother", "UnallignedToMother")]
        aligned, own = (np.loadtxt(f / "locs.tsv", skiprows=1, usecols=(1, 2)) for f in folders)
        with Image.open(folders[1] / "he.jpg") as picture:
            image = np.asarray(picture).astype(np.float32)
        a, b = patches(mother, aligned, 40), patches(image, own, 20)
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.97


def patches(image: np.ndarray, xy: np.ndarray, reach: int) -> np.ndarray:
    size = np.array(image.shape[1::-1])
    corner = np.clip(np.round(xy).astype(int) - reach, 0, size - 2 * reach)
    return np.array([image[y : y + 2 * reach, x : x + 2 * reach].mean(axis=(0, 1)) for x, y in corner])


def test_truth_is_read_back_and_a_second_demo_is_the_same(tmp_path: Path) -> None:
    first, again = (write_demo(tmp_path / name / "project", seed=2, side_px=2048) for name in ("one", "other"))
    np.testing.assert_array_equal(read_truth(first.project).expected, first.expected)
    np.testing.assert_array_equal(first.expected, again.expected)
    for path in sorted(p for p in first.project.rglob("*") if p.is_file()):
        assert path.read_bytes() == (again.project / path.relative_to(first.project)).read_bytes(), path.name
    with pytest.raises(InputError, match="has MotherImage and DaughterCaptures already"):
        write_demo(again.project)


def test_too_small(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1024 px is too small"):
        write_demo(tmp_path / "project", side_px=1024)
