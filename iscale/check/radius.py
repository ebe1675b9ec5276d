"""Whether the radius of a spot is one that its platform, and the distance of its spots, allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from iscale.check.finding import Finding
from iscale.check.positions import Verdict
from iscale.check.sample import Sample
from iscale.errors import InputError
from iscale.project import ProjectFiles, read_number

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

    Parameters
    ----------
    samples
        The captures.
    verdicts
        Of those that are placed on the mother image, by name.
    files
        The project's files.
    raw_um
        Stated side of a pixel of the mother image, in um.
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
    apart_px, radius_px = pitch.px * verdict.scale, radius_um / raw_um
    share = radius_px / apart_px
    limit = LARGEST_OF_BINS if pitch.um is not None and pitch.um < BIN_UM else LARGEST
    if SMALLEST <= share <= limit:
        return []
    shown = (
        f"The radius of a spot is {radius_um:.4g} um ({radius_px:.4g} px of the mother image), its spots are "
        f"{apart_px * raw_um:.4g} um ({apart_px:.4g} px) apart"
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
