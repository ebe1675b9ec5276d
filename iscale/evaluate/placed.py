"""Captures as a truth: found with what places them on the mother image, and read as maps or as spots."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from iscale.align.transform import TRANSFORM_FILE, read_transform
from iscale.capture_files import CaptureFiles, find_captures
from iscale.captures.radius import spot_radius_um
from iscale.captures.read import measured_radius_um, place_capture, read_capture
from iscale.captures.readings import release
from iscale.captures.spots import Capture
from iscale.errors import InputError
from iscale.evaluate.binned import bin_points, bin_squares
from iscale.evaluate.truth import MapTruth, Reading, SpotTruth, Truth
from iscale.geometry import SlideGrid
from iscale.project import find_project, read_number
from iscale.project_layout import (
    ALIGNED_FOLDERS,
    CAPTURES_FOLDER,
    COUNTS_SUFFIXES,
    LOCS_SUFFIXES,
    SINGLE_SUFFIXES,
    UNALIGNED_FOLDERS,
    one_of,
    optional_file,
    with_suffix,
)
from iscale.vendors.base import Measured
from iscale.vendors.read import detect_platform, read_measured

IMAGING = ("xenium", "cosmx")
BINNED = ("visium_hd",)

POINTS_PER_SIDE = 4
"""Transcripts are read in bins of a quarter of a superpixel: where a bin lies across a border, little is misplaced."""

TRANSCRIPTS = ("transcripts.*", "*_tx_file.csv*")


def open_capture_truth(path: Path, grid: SlideGrid, reading: Reading) -> Truth:
    """Open a capture: of an imaging platform or of Visium HD as maps, any other as spots.

    Parameters
    ----------
    path
        A capture of a project, in either of its folders; or a folder that holds the capture, or one file, and
        ``transform.json`` in it or beside it; or a folder of ``cnts.*`` and ``locs.*``, in pixels of the analysis
        image.
    grid, reading
        As for `iscale.evaluate.truth.open_truth`.

    Raises
    ------
    InputError
        It is not placed on the mother image, or cannot be read.
    """
    files, project = truth_files(path.absolute())
    if files.transform is None:
        # Ids and places that are wrong are told before a radius that lacks: who has to add one should do so once.
        radius_um, lacking = reading.radius_um, None
        if radius_um is None:
            try:
                radius_um = _radius_um(files, project, grid, None)
            except InputError as error:
                lacking = error
        capture = read_capture(
            files,
            radius_um=radius_um or grid.superpixel_um / 2,
            pixel_size_um=grid.pixel_size_um,
            analysis_shape_px=grid.content_shape_px,
            raw_to_analysis=grid.scale,
        )
        if lacking is not None:
            raise lacking
        return _spots(capture)
    assert files.source is not None
    platform = reading.platform or detect_platform(files.source)
    bin_um = _bin_um(platform, files.source, grid, reading)
    measured = read_measured(files.source, platform=platform, bin_um=bin_um)
    release()
    if measured.platform in IMAGING + BINNED:
        return _maps(files, measured, grid, reading, in_bins=bin_um is not None or measured.platform in BINNED)
    transform = read_transform(files.transform)
    radius_um = reading.radius_um or _radius_um(files, project, grid, measured_radius_um(measured, transform, grid))
    return _spots(place_capture(files, measured, transform, grid, radius_um=radius_um))


def truth_files(path: Path) -> tuple[CaptureFiles, Path | None]:
    """Files of a capture that is given by its folder or file, and the project that it is of, if any.

    Raises
    ------
    InputError
        Nothing places it on the mother image.
    """
    folder = path if path.is_dir() and path.suffix.lower() not in SINGLE_SUFFIXES else path.parent
    if folder.parent.name in ALIGNED_FOLDERS + UNALIGNED_FOLDERS and folder.parents[1].name == CAPTURES_FOLDER:
        root = folder.parents[2]
        (files,) = find_captures(root, [folder.name])
        if files.is_aligned:
            return files, root
        raise InputError(
            f"Capture {files.name} is not placed on the mother image (no {TRANSFORM_FILE} nor locs.* in "
            f"{files.aligned}).",
            f"Align it: iscale align {root} --captures {files.name}.",
        )
    name, radius = path.stem if path.is_file() else path.name, optional_file(folder / "radius.txt")
    transform = optional_file(folder / TRANSFORM_FILE) or optional_file(folder.parent / TRANSFORM_FILE)
    if transform is not None:
        return CaptureFiles(name, None, None, radius, _source(path, folder), transform, folder), None
    counts, locs = with_suffix(folder, "cnts", COUNTS_SUFFIXES), with_suffix(folder, "locs", LOCS_SUFFIXES)
    if counts and locs:
        pair = one_of(counts, "the counts"), one_of(locs, "the locations")
        return CaptureFiles(name, *pair, radius, None, None, folder), None
    raise InputError(
        f"{path} is not placed on the mother image: {folder} has neither {TRANSFORM_FILE} nor cnts.* and locs.*.",
        f"Put the {TRANSFORM_FILE} of `iscale align` beside it, or name a capture of a project, as "
        f"{CAPTURES_FOLDER}/{UNALIGNED_FOLDERS[0]}/NAME. Maps of superpixels are .npz, .npy, Zarr or the published "
        "pickle.",
    )


def _source(path: Path, folder: Path) -> Path:
    """The measurement: the file or store that is named, the one alone in the folder, or the folder."""
    if path != folder:
        return path
    about = (TRANSFORM_FILE, "radius.txt")
    entries = [p for p in folder.iterdir() if not p.name.startswith(".") and p.name not in about]
    alone = len(entries) == 1 and entries[0].suffix.lower() in SINGLE_SUFFIXES
    return entries[0] if alone else folder


def _radius_um(files: CaptureFiles, project: Path | None, grid: SlideGrid, stated: float | None) -> float:
    if project is not None:
        found = find_project(project, with_captures=False)
        raw_um = None if found.mother_is_analysis else grid.raw_pixel_size_um
        return spot_radius_um(
            found, files, raw_pixel_size_um=raw_um, pixel_size_um=grid.pixel_size_um, measured_um=stated
        )
    if files.radius is not None:
        return read_number(files.radius) * grid.pixel_size_um
    if stated is not None:
        return stated
    raise InputError(
        f"{files.aligned}: the spots' radius is not known.",
        f"Write it to {files.aligned / 'radius.txt'}, in pixels of the analysis image ({grid.pixel_size_um:g} um).",
    )


def _bin_um(platform: str, source: Path, grid: SlideGrid, reading: Reading) -> float | None:
    """Side of the bins that are asked for: fine ones of transcripts, where there are any."""
    if reading.bin_um is not None or platform not in IMAGING:
        return reading.bin_um
    there = any(next(source.glob(pattern), None) is not None for pattern in TRANSCRIPTS)
    return grid.superpixel_um / POINTS_PER_SIDE if there else None


def _spots(capture: Capture) -> SpotTruth:
    what = f"{capture.name}: {len(capture.spot_ids):,} spots of radius {capture.radius_um:.4g} um"
    return SpotTruth(
        capture.name, capture.genes, capture.counts, capture.xy_px, capture.radius_um, what, capture.notices
    )


def _maps(files: CaptureFiles, measured: Measured, grid: SlideGrid, reading: Reading, in_bins: bool) -> MapTruth:
    """Counts per superpixel of a capture of bins or of cells."""
    assert files.transform is not None
    transform = read_transform(files.transform)
    capture = place_capture(files, measured, transform, grid, radius_um=grid.superpixel_um / 2)
    if measured.platform in BINNED:
        assert measured.pitch_um is not None
        linear = transform.matrix[:2, :2] / transform.scale
        maps = bin_squares(capture, reading.genes, grid, measured.pitch_um, linear)
        unit = f"bins of {measured.pitch_um:g} um, each spread over the superpixels that it lies on"
    else:
        maps = bin_points(capture, reading.genes, grid)
        unit = "transcripts, counted where they lie" if in_bins else "cells, counted at their middles"
    told = (
        ()
        if in_bins
        else (f"{files.name} has no transcripts: a cell's counts lie in one superpixel; see blocks of 2 up.",)
    )
    release()
    found = maps.truth
    return replace(
        found,
        name=files.name,
        what=f"{files.name}: {unit}, {found.what}",
        all_genes=capture.genes,
        notices=(*capture.notices, *told),
    )
