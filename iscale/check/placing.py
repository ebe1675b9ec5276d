"""A capture's spots on an image, with what a check holds against them: its tissue, its pixel size, known factors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from iscale.check.footprint import Tissue
from iscale.check.positions import Placement
from iscale.check.sample import Sample
from iscale.geometry import SlideGrid
from iscale.slide.overview import read_overview
from iscale.slide.reader import open_slide

OWN_OVERVIEW_PX = 1024
FACTOR_NAMES = {
    "tissue_hires_scalef": "the hires image",
    "tissue_lowres_scalef": "the lowres image",
    "regist_target_img_scalef": "the image that CytAssist's was registered to",
}
"""Vendors' names of scale factors, and what they lead to from full-resolution pixels."""


def placement_of(sample: Sample, tissue: Tissue, grid: SlideGrid) -> Placement | None:
    """A capture's spots on the mother image; None where it is not aligned, or too small to tell anything."""
    if sample.xy_px is None:
        return None
    pitch = sample.pitch(sample.xy_px)
    if pitch is None:
        return None
    tables = sample.transform is None
    if pitch.um is None and sample.own_um_per_px is not None and sample.own_xy_px is not None:
        measured = sample.pitch(sample.own_xy_px)  # cells have no fixed distance, but a known one
        pitch = replace(pitch, um=None if measured is None else measured.px * sample.own_um_per_px)
    return Placement(
        name=sample.name,
        tissue=tissue,
        xy=sample.xy_px,
        depth=sample.depth,
        pitch=pitch,
        um_per_px=grid.raw_pixel_size_um,
        known=_known_on_mother(sample, grid),
        may_leave=not tables,
        analysis_um=grid.pixel_size_um if tables else None,
    )


def own_placement(sample: Sample) -> Placement | None:
    """A capture's spots on its own image; None where it has none.

    Raises
    ------
    InputError
        Where that image cannot be read.
    """
    if sample.image is None or sample.own_xy_px is None:
        return None
    matrix = sample.image_from_full
    at = sample.own_xy_px @ matrix[:2, :2].T + matrix[:2, 2]
    pitch = sample.pitch(at)
    if pitch is None:
        return None
    per_full = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
    um = None if sample.own_um_per_px is None else sample.own_um_per_px / per_full
    if um is None and pitch.um is not None:
        um = pitch.um / pitch.px
    reader = open_slide(sample.image)
    try:
        shape_px = reader.levels[0]
    finally:
        reader.close()
    tissue = Tissue.of(read_overview(sample.image, OWN_OVERVIEW_PX, um), shape_px)
    known = {
        f"as if they counted in pixels of {FACTOR_NAMES[key]} ({key} = {value:g})": 1 / value
        for key, value in sample.scalefactors.items()
        if key in FACTOR_NAMES and value > 0
    }
    if um is not None:
        known |= {"as if they counted in um": 1 / um}
    return Placement(sample.name, tissue, at, sample.depth, pitch, None, own=True, known=known)


def _known_on_mother(sample: Sample, grid: SlideGrid) -> dict[str, float]:
    known = {"as if they counted in um": 1 / grid.raw_pixel_size_um}
    if abs(grid.scale - 1) > 0.01 and sample.transform is None:
        known["as if they counted in pixels of he-raw.*, not of the analysis image"] = grid.scale
        known["as if they had been brought to the analysis image twice"] = 1 / grid.scale
    for key, value in sample.scalefactors.items():
        if key in FACTOR_NAMES and value > 0:
            where = f"{FACTOR_NAMES[key]} ({key} = {value:g})"
            known[f"as if they counted in pixels of {where}"] = 1 / value
            known[f"as if the mother image were {where} and they counted in full-resolution pixels"] = value
    return known
