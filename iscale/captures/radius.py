"""How large the spots of a capture are, by the files of the project and what the measurement states."""

from __future__ import annotations

from iscale.capture_files import CaptureFiles
from iscale.errors import InputError
from iscale.project import ProjectFiles, read_number
from iscale.project_layout import MOTHER_FOLDER


def spot_radius_um(
    project: ProjectFiles,
    capture: CaptureFiles,
    *,
    raw_pixel_size_um: float | None,
    pixel_size_um: float,
    measured_um: float | None = None,
) -> float:
    """Spot radius of a capture in um: its own ``radius.txt``, else what the measurement says, else the project's.

    ``radius-raw.txt`` counts in pixels of ``he-raw.*``, ``radius.txt`` in pixels of the analysis image. Where
    the project has both they must agree to one analysis pixel (the latter is rounded in published projects).

    Parameters
    ----------
    project, capture
        The files.
    raw_pixel_size_um, pixel_size_um
        Side of a pixel of ``he-raw.*`` (None where there is no such image), and of the analysis image, in um.
    measured_um
        The radius that the capture's platform, or its files, state; None where they do not.

    Raises
    ------
    InputError
        Where no radius is given, two contradict each other, or the pixel size of the raw image is not known.
    """
    if capture.radius is not None:
        return read_number(capture.radius) * pixel_size_um
    if measured_um is not None:
        return measured_um
    if project.radius_raw is None and project.radius is None:
        raise InputError(
            f"Capture {capture.name}: the spot radius is not known: its files do not state it, and "
            f"{project.root / MOTHER_FOLDER} has neither radius-raw.txt nor radius.txt.",
            "Write the radius of a spot in pixels of he-raw.* to radius-raw.txt "
            "(27.5 um for Visium, 50 um for arrays of 1,000 spots, each divided by the pixel size in um), or this "
            "capture's, in pixels of the analysis image, to "
            f"{capture.aligned / 'radius.txt'}.",
        )
    if project.radius_raw is None:
        assert project.radius is not None
        return read_number(project.radius) * pixel_size_um
    if raw_pixel_size_um is None:
        raise InputError(
            f"{project.radius_raw} counts in pixels of he-raw.*, whose pixel size is not known.",
            "Write it in um to pixel-size-raw.txt, or write the radius in analysis pixels to radius.txt.",
        )
    radius_um = read_number(project.radius_raw) * raw_pixel_size_um
    if project.radius is not None:
        other = read_number(project.radius)
        if abs(other - radius_um / pixel_size_um) > 1:
            raise InputError(
                f"radius-raw.txt and radius.txt in {project.radius.parent} contradict each other: "
                f"{radius_um / raw_pixel_size_um:g} px of {raw_pixel_size_um:g} um are {radius_um:g} um, "
                f"{other:g} px of {pixel_size_um:g} um are {other * pixel_size_um:g} um.",
                "Correct one of them, or delete radius.txt.",
            )
    return radius_um
