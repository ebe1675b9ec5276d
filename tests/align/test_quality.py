"""What is measured of an alignment tells the right place from wrong ones, on real neighbouring sections."""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from iscale.align.quality import BAD, GOOD, Quality, measure, verdict
from iscale.align.structure import Stain, haematoxylin, stain_of
from iscale.slide.overview import Overview, read_overview
from iscale.transform import Transform

PX = 512


@dataclass(frozen=True)
class Section:
    overview: Overview
    stain: Stain
    xy_px: NDArray[np.float64]
    depth: NDArray[np.float64]
    radius_px: float


@cache
def _section(path: Path, full_um: float) -> Section:
    overview = read_overview(path, PX, full_um)
    spots = path.with_name(f"{path.stem}.spots.tsv")
    with spots.open() as file:
        places = {
            f"{r['x']}x{r['y']}": (float(r["pixel_x"]), float(r["pixel_y"]))
            for r in csv.DictReader(file, delimiter="\t")
        }
    xy, depth = [], []
    with gzip.open(path.with_name(f"{path.stem}.counts.tsv.gz"), "rt") as file:
        next(file)
        for line in file:
            name, _, counts = line.partition("\t")
            if name in places:
                xy.append(places[name])
                depth.append(np.fromstring(counts, sep="\t").sum())
    return Section(overview, stain_of(overview), np.array(xy), np.array(depth), 50 / full_um)


def _her2st(data_dir: Path, name: str) -> Section:
    return _section(data_dir / "her2st" / f"{name}.jpg", 0.688)


def _known(data_dir: Path, name: str) -> Transform:
    affine = json.loads((data_dir / "her2st" / "alignment.json").read_text())[name]["affine_xy_to_C4_px"]
    return Transform(np.vstack([affine, [0.0, 0.0, 1.0]]), "landmarks")


def _measured(capture: Section, mother: Section, transform: Transform, with_image: bool = True) -> Quality:
    image = capture.overview if with_image else None
    args = (transform, capture.xy_px, capture.radius_px, capture.depth)
    return measure(image, mother.overview, *args, mother_stain=mother.stain)


def _about(middle: NDArray[np.float64], linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """A matrix that turns, or mirrors, about a point."""
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = middle - linear @ middle
    return matrix


def _spoilt(capture: Section, right: Transform, how: str) -> Transform:
    middle = right.apply(capture.xy_px).mean(axis=0)
    move = np.eye(3)
    if how == "shifted":
        move[0, 2] = 1500 / 0.688
    elif how == "shifted a little":
        move[1, 2] = 300 / 0.688
    elif how == "mirrored":
        move = _about(middle, np.diag([-1.0, 1.0]))
    elif how == "turned":
        move = _about(middle, np.array([[0.0, -1.0], [1.0, 0.0]]))
    elif how == "identity":
        return Transform(np.eye(3))
    return Transform(move @ right.matrix)


@pytest.mark.real
@pytest.mark.parametrize("name", ["C3", "C5"])
def test_neighbouring_sections_that_are_aligned_are_good(data_dir: Path, name: str) -> None:
    quality = _measured(_her2st(data_dir, name), _her2st(data_dir, "C4"), _known(data_dir, name))
    assert verdict(quality) == (GOOD, [])
    assert quality.overlap is not None
    assert quality.overlap > 0.96
    assert quality.iou is not None
    assert quality.iou > 0.94
    assert quality.stain_correlation is not None
    assert quality.stain_elsewhere is not None
    assert quality.stain_correlation > 1.5 * quality.stain_elsewhere
    assert quality.counts_correlation is not None
    assert quality.counts_correlation > 0.35
    assert quality.spots_on_tissue is not None
    assert quality.spots_on_tissue > 0.95
    assert quality.spots_outside == 0


@pytest.mark.real
@pytest.mark.parametrize("how", ["shifted", "shifted a little", "mirrored", "turned", "identity"])
def test_a_wrong_place_is_bad(data_dir: Path, how: str) -> None:
    capture = _her2st(data_dir, "C3")
    quality = _measured(capture, _her2st(data_dir, "C4"), _spoilt(capture, _known(data_dir, "C3"), how))
    word, reasons = verdict(quality)
    assert word == BAD
    assert len(reasons) >= 2


@pytest.mark.real
def test_spots_alone_tell_the_right_place_from_a_mirrored_one(data_dir: Path) -> None:
    capture, mother = _her2st(data_dir, "C3"), _her2st(data_dir, "C4")
    right = _known(data_dir, "C3")
    quality = _measured(capture, mother, right, with_image=False)
    assert verdict(quality) == (GOOD, [])
    assert quality.overlap is quality.iou is quality.stain_correlation is None
    mirrored = _measured(capture, mother, _spoilt(capture, right, "mirrored"), with_image=False)
    assert verdict(mirrored)[0] == BAD


@pytest.mark.real
def test_a_symmetric_organ_is_good_on_itself_and_bad_upside_down(data_dir: Path) -> None:
    """Both bulbs have much the same outline when turned by 180 degrees: their layers tell."""
    bulb = _section(data_dir / "st_mob" / "MOB1.jpg", 4.6)
    own = _measured(bulb, bulb, Transform(np.eye(3)))
    assert verdict(own) == (GOOD, [])
    assert own.overlap == own.iou == own.spots_on_tissue == 1.0, "spots beside the tissue are not asked to lie on it"
    assert own.stain_correlation == pytest.approx(1.0, abs=1e-6)
    rows, columns = np.nonzero(bulb.stain.mask)
    at = np.array([columns.min() + columns.max(), rows.min() + rows.max()]) / 2 * bulb.overview.full_per_px
    turned = _measured(bulb, bulb, Transform(_about(at, -np.eye(2))))
    assert turned.overlap is not None
    assert turned.overlap > 0.88
    assert verdict(turned)[0] == BAD


@pytest.mark.real
def test_a_capture_far_off_the_image_is_bad_and_has_no_nan(data_dir: Path) -> None:
    capture, mother = _her2st(data_dir, "C3"), _her2st(data_dir, "C4")
    far = np.eye(3)
    far[0, 2] = 1e6
    quality = _measured(capture, mother, Transform(far))
    assert quality.spots_outside == 1.0
    assert quality.spots_on_tissue == 0.0
    assert quality.stain_correlation is quality.counts_correlation is quality.overlap is None
    assert verdict(quality)[0] == BAD
    assert json.loads(json.dumps(asdict(quality), allow_nan=False)) == asdict(quality)


def _painted(with_image_of_tissue: bool = True) -> Overview:
    """A disc of 3 mm of blue stain in random structures, on glass; 8 um per pixel."""
    from scipy import ndimage

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:500, :500]
    coarse = ndimage.gaussian_filter(rng.normal(size=(500, 500)), 8)
    nuclei = 0.3 + 0.15 * coarse / coarse.std() + 0.05 * rng.normal(size=(500, 500))
    inside = (np.hypot(y - 250, x - 250) < 190) & with_image_of_tissue
    density = np.where(inside, np.maximum(nuclei, 0.02), 0)[..., None] * np.array([0.65, 0.70, 0.29])
    rgb = 245 * 10**-density + rng.normal(0, 1, (500, 500, 1))
    return Overview(np.clip(rgb, 0, 255).astype(np.uint8), np.diag([16.0, 16.0, 1.0]), 0.5)


def test_counts_of_cells_are_summed_before_they_are_compared() -> None:
    """Single cells hold few counts, which say next to nothing; more cells lie where nuclei are."""
    mother = _painted()
    stain = stain_of(mother)
    rng = np.random.default_rng(1)
    nuclei = haematoxylin(stain.density)
    chosen = rng.choice(nuclei.size, 8000, p=(nuclei / nuclei.sum()).ravel())
    rows, columns = np.divmod(chosen, 500)
    xy = (np.stack([columns, rows], axis=-1) + rng.random((8000, 2))) * 16.0
    depth = 1.0 + rng.poisson(2, 8000)
    quality = measure(None, mother, Transform(np.eye(3)), xy, 10.0, depth, mother_stain=stain)
    assert quality.counts_correlation is not None
    assert quality.counts_correlation > 0.4
    assert verdict(quality) == (GOOD, [])
    single = measure(None, mother, Transform(np.eye(3)), xy, 50.0, depth, mother_stain=stain)
    assert single.counts_correlation is not None
    assert abs(single.counts_correlation) < 0.1


def test_images_without_tissue_and_captures_without_spots_are_measured_as_none() -> None:
    glass = _painted(with_image_of_tissue=False)
    nothing = measure(glass, _painted(), Transform(np.eye(3)), np.zeros((0, 2)), 100.0, np.zeros(0))
    assert nothing.spots == 0
    assert nothing.spots_on_tissue is nothing.spots_outside is nothing.overlap is None
    assert nothing.stain_correlation is nothing.counts_correlation is None
    assert verdict(nothing)[0] != GOOD
    constant = measure(None, _painted(), Transform(np.eye(3)), np.full((50, 2), 4000.0), 100.0, np.ones(50))
    assert constant.counts_correlation is None
    assert constant.spots_on_tissue == 1.0


def test_spots_without_counts_are_not_asked_to_lie_on_tissue() -> None:
    xy = np.concatenate([np.full((30, 2), 4000.0), np.full((30, 2), 100.0)])
    depth = np.concatenate([np.ones(30), np.zeros(30)])
    quality = measure(None, _painted(), Transform(np.eye(3)), xy, 100.0, depth)
    assert (quality.spots, quality.spots_on_tissue) == (30, 1.0)


def test_the_pixel_sizes_of_both_images_do_not_matter() -> None:
    """The same picture, with full-resolution pixels twice as large, through a transform that says so."""
    mother = _painted()
    capture = Overview(mother.rgb, np.diag([8.0, 8.0, 1.0]), 1.0)
    xy = np.random.default_rng(0).uniform(1500, 2500, (60, 2))
    quality = measure(capture, mother, Transform(np.diag([2.0, 2.0, 1.0])), xy, 50.0, np.ones(60))
    assert quality.overlap == quality.iou == 1.0
    assert quality.stain_correlation == pytest.approx(1.0, abs=1e-6)
    assert quality.residual_um is None
