"""One daughter capture from aligned tables, or as it was measured and placed by a transform; checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from iscale.captures.counts import Counts, depth_of, take, whole_numbers
from iscale.captures.locations import Matched, check_on_image, common_rows, keep_on_image, read_locations, read_matched
from iscale.captures.measured import Measured, unique_names
from iscale.captures.spots import Capture
from iscale.engine.machine import give_back
from iscale.errors import InputError
from iscale.geometry import SlideGrid
from iscale.project.files import CaptureFiles, ProjectFiles, read_number
from iscale.project.layout import MOTHER_FOLDER
from iscale.transform import Transform


def spot_radius_um(
    project: ProjectFiles,
    capture: CaptureFiles,
    *,
    raw_pixel_size_um: float | None,
    pixel_size_um: float,
    measured_um: float | None = None,
) -> float:
    """Spot radius of a capture in um: its own ``radius.txt``, else what the measurement says, else the project's.

    ``radius-raw.txt`` counts in pixels of ``he-raw.*`` (``raw_pixel_size_um``, None where there is no such image),
    ``radius.txt`` in pixels of the analysis image. Where the project has both they must agree to one analysis pixel
    (the latter is rounded in published projects). An InputError where no radius is given, two contradict each other, or
    the pixel size of the raw image is not known.
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


class Readings:
    """Reads the files of every capture once, until it is told to forget them."""

    def __init__(self) -> None:
        self._measured: dict[str, Measured] = {}
        self._matched: dict[str, Matched] = {}

    def measured(self, source: Path, **reading: Any) -> Measured:
        """As :func:`iscale.captures.platforms.read_measured`."""
        from iscale.captures.platforms import read_measured

        key = repr((source.absolute(), sorted(reading.items())))
        if key not in self._measured:
            self._measured[key] = read_measured(source, **reading)
        return self._measured[key]

    def matched(self, name: str, counts: Path, locs: Path) -> Matched:
        """As :func:`iscale.captures.locations.read_matched`."""
        key = repr((name, counts.absolute(), locs.absolute()))
        if key not in self._matched:
            self._matched[key] = read_matched(name, counts, locs)
        return self._matched[key]

    def forget(self) -> None:
        """Keep nothing of what was read so far."""
        self._measured, self._matched = {}, {}
        release()


def release() -> None:
    """Return to the system what reading left behind: allocators keep what was freed, up to hundreds of megabytes."""
    pa.default_memory_pool().release_unused()
    give_back()


def read_aligned_capture(
    files: CaptureFiles,
    *,
    radius_um: float,
    pixel_size_um: float,
    analysis_shape_px: tuple[int, int],
    to_analysis: float = 1.0,
    raw_to_analysis: float | None = None,
    read: Callable[[str, Path, Path], Matched] = read_matched,
) -> Capture:
    """Read counts and locations of a capture that is given by tables aligned to the mother image.

    Its own pixels are those of the mother image. ``to_analysis`` is analysis pixels per pixel of ``locs.*``,
    ``raw_to_analysis`` per pixel of the raw image, None where the mother image is at the analysis resolution; ``read``
    reads the tables, or has read them before. An InputError where anything in the files cannot be used.
    """
    check_radius(files.name, radius_um, pixel_size_um, analysis_shape_px)
    assert files.locs is not None
    assert files.counts is not None
    matched = read(files.name, files.counts, files.locs)
    xy_px = matched.locations.xy * to_analysis
    check_on_image(files.locs, xy_px, analysis_shape_px, raw_to_analysis)
    notices = matched.notices + _check_counts(files.counts, matched.counts)
    to_raw = 1.0 if raw_to_analysis is None else 1 / raw_to_analysis
    return Capture(
        name=files.name,
        spot_ids=tuple(matched.locations.ids),
        genes=tuple(matched.genes),
        counts=matched.counts,
        xy_px=xy_px,
        radius_um=radius_um,
        notices=notices,
        source_xy_px=xy_px * to_raw,
        own_um_per_px=pixel_size_um / to_raw,
    )


def place_capture(
    files: CaptureFiles, measured: Measured, transform: Transform, grid: SlideGrid, *, radius_um: float
) -> Capture:
    """A capture as its instrument measured it, placed on the mother image by its transform (of full-resolution pixels).

    Spots that fall outside of the mother image are left out with a notice where they are fewer than half. Where there
    are aligned locations beside the transform the transform counts; that the two disagree by more than a spot's radius
    is told.
    """
    check_radius(files.name, radius_um, grid.pixel_size_um, grid.content_shape_px)
    xy_px = transform.apply(measured.xy_px) * grid.scale
    where = files.transform or files.aligned
    keep, left_out = keep_on_image(files.name, where, xy_px, grid.content_shape_px)
    counts = take(measured.counts, np.flatnonzero(keep))
    beside = _beside_locations(files, measured.spot_ids, xy_px * grid.pixel_size_um, radius_um, grid.pixel_size_um)
    summary = f"{len(measured.spot_ids)} spots of {measured.platform}, radius {radius_um:.4g} um; {transform}"
    return Capture(
        name=files.name,
        spot_ids=tuple(name for name, kept in zip(measured.spot_ids, keep, strict=True) if kept),
        genes=tuple(unique_names(measured.gene_symbols)),
        counts=counts,
        xy_px=xy_px[keep],
        radius_um=radius_um,
        notices=(
            f"Capture {files.name}: {summary}",
            *(_of_capture(files.name, notice) for notice in measured.notices),
            *left_out,
            *beside,
            *_check_counts(files.source or where, counts),
        ),
        transform=transform.matrix,
        source_xy_px=measured.xy_px[keep],
        platform=measured.platform,
        own_um_per_px=measured.um_per_px,
        gene_ids=tuple(measured.gene_ids),
    )


def _of_capture(name: str, notice: str) -> str:
    """A reader's notice with the capture's name, where it does not name it itself."""
    if notice.startswith("Capture "):
        return notice
    warning = notice.removeprefix("Warning: ")
    return f"Capture {name}: {notice}" if warning == notice else f"Warning: capture {name}: {warning}"


def measured_radius_um(measured: Measured, transform: Transform, grid: SlideGrid) -> float | None:
    """Radius of a spot in um as the measurement states it, None where it does not.

    The platform's diameter in um counts before one in pixels, whose size the transform and the mother image tell.
    """
    if measured.spot_diameter_um is not None:
        return measured.spot_diameter_um / 2
    diameter_px = measured.scalefactors.get("spot_diameter_fullres")
    return None if diameter_px is None else diameter_px * transform.scale * grid.raw_pixel_size_um / 2


def _beside_locations(
    files: CaptureFiles, spot_ids: list[str], xy_um: NDArray[np.float64], radius_um: float, pixel_size_um: float
) -> tuple[str, ...]:
    """What to say of aligned locations beside a transform."""
    if files.locs is None:
        return ()
    locations = read_locations(files.locs)
    rows, common = common_rows(spot_ids, locations.ids)
    if not len(common):
        return (f"Capture {files.name}: {files.locs.name} names none of the spots measured, and is not used.",)
    apart_um = float(np.linalg.norm(xy_um[rows] - locations.xy[common] * pixel_size_um, axis=1).mean())
    if apart_um <= radius_um:
        return ()
    return (
        f"Warning: capture {files.name}: transform.json and {files.locs.name} are {apart_um:.4g} um apart, the mean of "
        f"{len(common)} spots of radius {radius_um:.4g} um. transform.json is used: delete the one that is wrong.",
    )


def _check_counts(path: Path, counts: Counts) -> tuple[str, ...]:
    """Refuse counts that are all 0; tell of such that are no counts."""
    if depth_of(counts).sum() == 0:
        raise InputError(f"{path}: all counts of the {counts.shape[0]} spots are 0.", "Give raw counts.")
    if whole_numbers(counts):
        return ()
    return (
        f"Warning: {path} holds numbers that are not whole. Raw counts are expected: of normalised or log values the "
        "predictions are no counts, and depth means nothing.",
    )


def check_radius(name: str, radius_um: float, pixel_size_um: float, analysis_shape_px: tuple[int, int]) -> None:
    """Refuse a spot radius that is no length, or larger than the image."""
    if not (np.isfinite(radius_um) and radius_um > 0):
        raise InputError(f"Capture {name}: the spot radius is {radius_um:g} um.", "It must be above 0.")
    radius_px = radius_um / pixel_size_um
    if 2 * radius_px > min(analysis_shape_px):
        raise InputError(
            f"Capture {name}: a spot of radius {radius_um:g} um ({radius_px:.0f} px of the analysis image) is "
            f"larger than the image ({analysis_shape_px[1]} x {analysis_shape_px[0]} px).",
            "Check radius-raw.txt (pixels of he-raw.*), radius.txt (pixels of the analysis image) and the pixel size.",
        )
