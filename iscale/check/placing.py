"""A capture's spots on an image, with what a check holds against them: tissue, pixel size, radius, known factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from iscale.check.explain import Tissue
from iscale.check.finding import Finding
from iscale.check.positions import Placement, Verdict
from iscale.check.sample import Sample
from iscale.errors import InputError
from iscale.geometry import SlideGrid
from iscale.project.files import ProjectFiles, read_number
from iscale.slide.overview import read_overview
from iscale.slide.reader import open_slide

LARGEST = 0.45
"""Radius over pitch: discs of printed spots do not touch (Visium 0.275, ST 0.25), those of twice their radius do."""

LARGEST_OF_BINS = 0.6
"""Bins fill the plane: a disc of their area has 0.564 of their side."""

BIN_UM = 20.0
SMALLEST = 0.1
DIFFERENT = 0.1


def check_radius(
    samples: Sequence[Sample], verdicts: Mapping[str, Verdict], files: ProjectFiles, raw_um: float
) -> list[Finding]:
    """Hold radii against the pitch of spots, and ``radius-raw.txt`` against what platforms state.

    ``verdicts`` are of captures on the mother image, a pixel of which is stated to be ``raw_um`` wide.
    """
    findings = []
    for sample in samples:
        verdict = verdicts.get(sample.name)
        if verdict is not None and sample.radius_um is not None:
            findings += _against_pitch(sample, verdict, raw_um, sample.radius_um)
    if any(finding.code for finding in findings) or any(v.code.startswith("pixel-size") for v in verdicts.values()):
        return _grouped(findings)
    return _against_platforms(samples, files, raw_um)


def _against_pitch(sample: Sample, verdict: Verdict, raw_um: float, radius_um: float) -> list[Finding]:
    pitch = verdict.placement.pitch
    if not pitch.regular:
        return []
    # In pixels, of positions that are brought to the image's: a wrong pixel size or scale is not told twice.
    pitch_px, radius_px = pitch.px * verdict.scale, radius_um / raw_um
    share = radius_px / pitch_px
    limit = LARGEST_OF_BINS if pitch.um is not None and pitch.um < BIN_UM else LARGEST
    if SMALLEST <= share <= limit:
        return []
    shown = (
        f"The radius of a spot is {radius_um:.4g} um ({radius_px:.4g} px of the mother image), its spots are "
        f"{pitch_px * raw_um:.4g} um ({pitch_px:.4g} px) apart"
    )
    if share > limit:
        message = f"{shown}: discs of this radius {'overlap' if share > 0.5 else 'would touch'}."
        remedy = "Give the radius, not the diameter, in pixels of the image that the file's name says."
        return [Finding("radius-too-large", message, remedy, sample.name)]
    message = f"{shown}: only {100 * 3.1416 * share**2:.1g} % of the area would be measured."
    remedy = "Give the radius in pixels of the image that the file's name says, not in um."
    return [Finding("radius-too-small", message, remedy, sample.name)]


def _grouped(findings: list[Finding]) -> list[Finding]:
    """One finding where the project's one radius is wrong for all captures."""
    if len(findings) > 1 and len({(finding.code, finding.message) for finding in findings}) == 1:
        first = findings[0]
        return [Finding(first.code, first.message, first.remedy)]
    return findings


def _against_platforms(samples: Sequence[Sample], files: ProjectFiles, raw_um: float) -> list[Finding]:
    """The project's radius, where it is none of any platform's and no table needs it."""
    stated = {sample.name: sample.platform_radius_um for sample in samples if sample.platform_radius_um is not None}
    if files.radius_raw is None or not stated or any(sample.transform is None for sample in samples):
        return []
    try:
        given = read_number(files.radius_raw) * raw_um
    except InputError:
        return []
    if any(abs(given / radius - 1) <= DIFFERENT for radius in stated.values()):
        return []
    said = ", ".join(f"{name} {radius:.4g} um" for name, radius in stated.items())
    message = f"radius-raw.txt says {given:.4g} um; the captures' own files and platforms say: {said}. These are used."
    return [Finding("radius-differs", message, "Correct radius-raw.txt, or delete it.")]


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
    """A capture's spots on its own image; None where it has none."""
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
    known = {f"as if they counted in pixels of {where}": 1 / value for where, value in _vendors_factors(sample)}
    if um is not None:
        known |= {"as if they counted in um": 1 / um}
    return Placement(sample.name, tissue, at, sample.depth, pitch, None, own=True, known=known)


def _known_on_mother(sample: Sample, grid: SlideGrid) -> dict[str, float]:
    known = {"as if they counted in um": 1 / grid.raw_pixel_size_um}
    if abs(grid.scale - 1) > 0.01 and sample.transform is None:
        known["as if they counted in pixels of he-raw.*, not of the analysis image"] = grid.scale
        known["as if they had been brought to the analysis image twice"] = 1 / grid.scale
    for where, value in _vendors_factors(sample):
        known[f"as if they counted in pixels of {where}"] = 1 / value
        known[f"as if the mother image were {where} and they counted in full-resolution pixels"] = value
    return known


def _vendors_factors(sample: Sample) -> list[tuple[str, float]]:
    """What vendors' scale factors lead to, in words with the number, and the number."""
    stated = sample.scalefactors.items()
    return [(f"{FACTOR_NAMES[k]} ({k} = {v:g})", v) for k, v in stated if k in FACTOR_NAMES and v > 0]
