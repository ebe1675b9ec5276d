"""The ways to place a capture: a matrix, its image being the mother image, aligned tables, landmarks, its image."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iscale.align.fit import fit_landmarks, fit_pairs
from iscale.align.landmarks import find_landmarks, read_landmarks
from iscale.captures.locations import common_rows, read_locations
from iscale.captures.measured import Measured
from iscale.errors import InputError
from iscale.geometry import SlideGrid
from iscale.project.files import CaptureFiles
from iscale.slide.overview import Overview, read_overview
from iscale.transform import Kind, Transform, checked_matrix, read_transform

CAPTURE_PX, MOTHER_PX = 1024, 2048
"""Longest sides of the overviews that are aligned: of the mother image a capture may be a small part."""

FRAMED, FRAME_UM = ("visium", "visium_hd"), 300.0
"""Around the spots of these lies a frame of printed marks, which is no tissue, at more than this distance."""

LEAST_SPOTS = 8
"""Aligned tables place a capture by their common spots: of fewer the transform is uncertain."""


@dataclass(frozen=True)
class Scene:
    """What an alignment is between: a capture as measured, and the mother image, its file, overview and grids."""

    files: CaptureFiles
    measured: Measured
    mother_image: Path
    mother: Overview
    grid: SlideGrid


def capture_overview(measured: Measured) -> Overview | None:
    """Overview of a capture's own image, in the capture's full-resolution pixels; None where it has none."""
    if measured.image is None:
        return None
    seen = read_overview(measured.image, CAPTURE_PX)
    whole = Overview(seen.rgb, np.linalg.inv(measured.image_from_full) @ seen.to_full, measured.um_per_px)
    if measured.platform not in FRAMED or measured.um_per_px is None:
        return whole
    margin = FRAME_UM / measured.um_per_px
    return whole.cropped(measured.xy_px.min(axis=0) - margin, measured.xy_px.max(axis=0) + margin)


def by_matrix(path: Path) -> Transform:
    """A matrix that the user has: ``transform.json``, or the CSV that Xenium Explorer exports for an image.

    The CSV takes pixels of the aligned H&E image to pixels of the Xenium's morphology image. With that H&E as the
    mother image its inverse places the capture. An InputError where it holds no matrix that can place a capture.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist.", "Check the path of the matrix.")
    if path.suffix.lower() != ".csv":
        return read_transform(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[float(cell) for cell in row] for row in csv.reader(file) if row]
    except ValueError:  # also where it is no text
        raise InputError(
            f"{path} holds no matrix: not all of it are numbers.", "Give 3 rows of 3 numbers, separated by commas."
        ) from None
    return Transform(np.linalg.inv(checked_matrix(rows, str(path))).astype(np.float64), "given")


def by_own_image(scene: Scene) -> Transform | None:
    """Where the capture's own image is the mother image: its positions count in that, through a known matrix."""
    image = scene.measured.image
    if image is None or not image.samefile(scene.mother_image):
        return None
    return Transform(np.array(scene.measured.image_from_full, dtype=np.float64), "same image")


def by_tables(scene: Scene) -> Transform | None:
    """From ``AllignedToMother/<capture>/locs.*``: the affine that takes the measured positions there.

    An InputError where too few spots are in both, or they do not follow one transform.
    """
    files, measured = scene.files, scene.measured
    if files.locs is None:
        return None
    aligned = read_locations(files.locs)
    own, theirs = common_rows(measured.spot_ids, aligned.ids)
    if len(own) < LEAST_SPOTS:
        raise InputError(
            f"{files.locs} has {len(own)} of the {len(measured.spot_ids)} spots that were measured in {files.source}; "
            f"at least {LEAST_SPOTS} are needed to tell the transform.",
            "Use the same spot ids in both.",
        )
    source, target = measured.xy_px[own], aligned.xy[theirs] / scene.grid.scale
    matrix = fit_pairs(source, target, "affine")
    transform = Transform(matrix, "tables")
    off_um = np.hypot(*(transform.apply(source) - target).T) * scene.grid.raw_pixel_size_um
    return Transform(matrix, "tables", _residuals(off_um))


def by_landmarks(scene: Scene, path: Path | None, kind: Kind, tell: Callable[[str], None]) -> Transform | None:
    """From landmarks: a file that is named, or one in the capture's folders; None where there is none."""
    folders = [folder for folder in (scene.files.aligned, scene.files.source) if folder and folder.is_dir()]
    paths = (path,) if path else next((found for folder in folders if (found := find_landmarks(folder))), ())
    if not paths:
        return None
    marks = read_landmarks(
        *paths,
        capture_um_per_px=scene.measured.um_per_px,
        mother_um_per_px=scene.grid.raw_pixel_size_um,
        mother_grid=scene.grid,
    )
    for notice in marks.notices:
        tell(notice)
    fit = fit_landmarks(
        marks.capture_xy, marks.mother_xy, kind, um_per_px=scene.grid.raw_pixel_size_um, names=marks.names
    )
    for notice in fit.notices:
        tell(notice)
    measures = {
        **_residuals(fit.residual_um[fit.inlier]),
        "landmarks": {name: round(float(um), 2) for name, um in zip(fit.names, fit.residual_um, strict=True)},
        "outliers": list(fit.outliers),
    }
    return Transform(fit.matrix, "landmarks", measures)


def by_images(scene: Scene, kind: Kind) -> Transform:
    """From the capture's own image, searched for on the whole mother image; an InputError where no place stands out."""
    from iscale.align.automatic import align_automatically

    return align_automatically(_image(scene), scene.mother, kind=kind)


def refined(scene: Scene, kind: Kind, start: Transform) -> Transform:
    """From where landmarks or a matrix put it, to the nearest place where the images agree most.

    An InputError where the capture has no image of its own, or the images agree no better elsewhere.
    """
    from iscale.align.automatic import refine_by_images

    return refine_by_images(_image(scene), scene.mother, start, kind=kind)


def _image(scene: Scene) -> Overview:
    capture = capture_overview(scene.measured)
    if capture is None:
        raise InputError(
            f"Capture {scene.files.name} has no image of its own to search for on the mother image.",
            "Name one (image = ... in [capture.NAME] of iscale.toml), or give landmarks (--landmarks) or a matrix.",
        )
    return capture


def _residuals(off_um: NDArray[np.float64]) -> dict[str, float]:
    return {
        "residual_um": round(float(np.median(off_um)), 2),
        "largest_residual_um": round(float(off_um.max()), 2),
    }
