"""What makes spots fit the tissue is told on sections of two kinds, whole and in part."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from iscale.check.explain import Tissue, explain, orientations
from iscale.check.sample import find_pitch
from iscale.slide.overview import read_overview
from iscale.slide.reader import open_slide

pytestmark = pytest.mark.real
SECTIONS = {"MOB1": ("st_mob", 4.6), "MOB2": ("st_mob", 4.6), "C3": ("her2st", 0.688), "C5": ("her2st", 0.688)}


@dataclass(frozen=True)
class Section:
    """A section's own spots on its own image."""

    tissue: Tissue
    ids: list[str]
    xy: NDArray[np.float64]
    depth: NDArray[np.float64]

    def told(self, xy: NDArray[np.float64], keep: NDArray[np.bool_] | None = None) -> tuple[str, str, float]:
        kept = np.ones(len(xy), np.bool_) if keep is None else keep
        pitch = find_pitch(xy[kept], [name for name, k in zip(self.ids, kept, strict=True) if k], None)
        assert pitch is not None
        found = explain(self.tissue, xy[kept], self.depth[kept], pitch)
        return found.kind, found.how, found.factor


ALIKE = ("MOB2", "C5")
"""Neighbours of the others, of the same kind."""


@pytest.fixture(
    scope="module", params=[pytest.param(s, marks=[pytest.mark.full] if s in ALIKE else []) for s in SECTIONS]
)
def section(request: pytest.FixtureRequest, data_dir: Path) -> Section:
    """Each of the sections."""
    name = request.param
    folder, um = SECTIONS[name]
    path = data_dir / folder / f"{name}.jpg"
    reader = open_slide(path)
    shape = reader.levels[0]
    reader.close()
    with gzip.open(data_dir / folder / f"{name}.counts.tsv.gz", "rt") as file:
        next(file)
        rows = (line.rstrip("\n").split("\t") for line in file)
        depth = {row[0]: float(np.array(row[1:], np.float64).sum()) for row in rows}
    ids, xy = [], []
    with (data_dir / folder / f"{name}.spots.tsv").open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            spot = f"{row['x']}x{row['y']}"
            if row["selected"] == "1" and spot in depth:
                ids.append(spot)
                xy.append((float(row["pixel_x"]), float(row["pixel_y"])))
    tissue = Tissue.of(read_overview(path, 1024, um), shape)
    return Section(tissue, ids, np.array(xy), np.array([depth[spot] for spot in ids]))


def test_right_positions_fit(section: Section) -> None:
    assert section.told(section.xy)[0] == "fits"


def test_every_orientation_is_told(section: Section) -> None:
    for how, (kind, _, wrong) in orientations(section.xy, section.tissue.shape_px).items():
        if "90" in how or "diagonal" in how:
            continue  # the inverse of these on an image that is not square is another: below
        assert section.told(wrong)[:2] == (kind, how)


@pytest.mark.parametrize("factor", [0.05, 0.917, 1.09, 4.0])
def test_every_scale_is_told(section: Section, factor: float) -> None:
    kind, _, found = section.told(section.xy * factor)
    assert kind == "scaled"
    assert found == pytest.approx(1 / factor, rel=0.02)


def test_a_shift_is_a_shift(section: Section) -> None:
    width = section.tissue.shape_px[1]
    assert section.told(section.xy + np.array([0.08, -0.05]) * width)[0] == "shifted"


@pytest.mark.parametrize("axis", [0, 1])
def test_a_part_of_the_section_fits_and_its_reflection_is_told(section: Section, axis: int) -> None:
    low, high = section.xy[:, axis].min(), section.xy[:, axis].max()
    part = section.xy[:, axis] < low + 0.4 * (high - low)
    assert section.told(section.xy, part)[0] == "fits"
    for how, (kind, _, wrong) in orientations(section.xy, section.tissue.shape_px).items():
        if kind == "swapped" or how.startswith("mirrored h") or how.startswith("mirrored v"):
            assert section.told(wrong, part)[:2] == (kind, how)
