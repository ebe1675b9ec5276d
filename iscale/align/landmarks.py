"""Landmarks of a capture and of the mother image, from the files in which people set them.

======================================  ==============================================================================
``landmarks.csv`` (or ``.tsv``)         pairs: ``name, capture_x, capture_y, mother_x, mother_y``, or Xenium Explorer's
                                        keypoints, whose ``fixed`` image is the capture's and ``alignment`` the H&E
``landmarks-capture`` + ``-mother``     a file for each image: ``.csv`` with ``index, X, Y`` (BIRL, ImageJ), QuPath's
                                        points as ``.geojson`` or ``.tsv``
======================================  ==============================================================================

Positions count in full-resolution pixels. A column whose name says ``um`` or ``µm`` (QuPath's measurements of a
calibrated image do), and rows whose ``unit`` says so, are in um of their image.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iscale.align.point_files import REMEDY, Table, read_geojson, read_table
from iscale.errors import InputError

STEM, CAPTURE_STEM, MOTHER_STEM = "landmarks", "landmarks-capture", "landmarks-mother"
TABLE_SUFFIXES, GEOJSON_SUFFIXES = (".csv", ".tsv", ".txt"), (".geojson", ".json")

CAPTURE_PREFIXES = ("capture", "daughter", "source", "fixed")
MOTHER_PREFIXES = ("mother", "target", "alignment")
"""What columns of pairs begin with. Xenium Explorer aligns the H&E to the fixed image of the Xenium."""


@dataclass(frozen=True)
class Landmarks:
    """The same places in a capture and in the mother image.

    Attributes
    ----------
    names
        (landmark,) names.
    capture_xy, mother_xy
        (landmark, 2) float64: x, y in full-resolution pixels of the capture's image and of the mother image.
    notices
        What was matched and left out, one sentence each.
    """

    names: tuple[str, ...]
    capture_xy: NDArray[np.float64]
    mother_xy: NDArray[np.float64]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Points:
    """Points of one image in its pixels; ``names`` is None where they are known by their order alone."""

    path: Path
    names: list[str] | None
    xy: NDArray[np.float64]


def find_landmarks(folder: Path) -> tuple[Path, ...]:
    """Files of landmarks in a folder: one of pairs, or the capture's and the mother image's; none, if empty.

    Raises
    ------
    InputError
        More than one file could be meant, or one of two is missing.
    """
    found = {stem: _with_stem(folder, stem) for stem in (STEM, CAPTURE_STEM, MOTHER_STEM)}
    files = [path for paths in found.values() for path in paths]
    both = bool(found[CAPTURE_STEM] and found[MOTHER_STEM])
    if len(files) > (2 if both else 1):
        raise InputError(
            f"{folder} has {len(files)} files of landmarks: {', '.join(path.name for path in files)}.",
            f"Keep {STEM}.csv alone, or one {CAPTURE_STEM} with one {MOTHER_STEM}.",
        )
    if len(files) == 1 and not found[STEM]:
        wanted = MOTHER_STEM if found[CAPTURE_STEM] else CAPTURE_STEM
        raise InputError(
            f"{folder} has {files[0].name}, but no {wanted}{files[0].suffix}.",
            "Landmarks are pairs: export them of both images.",
        )
    return tuple(files)


def _with_stem(folder: Path, stem: str) -> list[Path]:
    suffixes = TABLE_SUFFIXES + (GEOJSON_SUFFIXES if stem != STEM else ())
    return sorted(p for p in folder.iterdir() if p.stem == stem and p.suffix.lower() in suffixes and p.is_file())


def read_landmarks(
    *paths: Path, capture_um_per_px: float | None = None, mother_um_per_px: float | None = None
) -> Landmarks:
    """Read landmarks from one file of pairs, or from the capture's and the mother image's.

    Parameters
    ----------
    paths
        One or two files. ``landmarks-capture.*`` or ``landmarks-mother.*`` alone is read with the other.
    capture_um_per_px, mother_um_per_px
        Side of a full-resolution pixel, in um; None where it is not known, which files in pixels do not need.

    Raises
    ------
    InputError
        A file cannot be read as landmarks, names one twice, or has a position that is no number or in um of an image
        whose pixel size is not known; or the two files have no landmark in common.
    """
    if len(paths) == 1 and paths[0].stem in (CAPTURE_STEM, MOTHER_STEM):
        paths = find_landmarks(paths[0].parent)
    if len(paths) == 1:
        table = _no_geojson(paths[0])
        capture = _of_pairs(table, CAPTURE_PREFIXES, capture_um_per_px, "capture")
        mother = _of_pairs(table, MOTHER_PREFIXES, mother_um_per_px, "mother image")
    else:
        capture = _of_one_image(paths[0], capture_um_per_px, "capture")
        mother = _of_one_image(paths[1], mother_um_per_px, "mother image")
    return _matched(capture, mother)


def _no_geojson(path: Path) -> Table:
    if path.suffix.lower() in GEOJSON_SUFFIXES:
        raise InputError(
            f"{path} holds the points of one image, and landmarks are pairs.",
            f"Export those of both, as {CAPTURE_STEM}{path.suffix} and {MOTHER_STEM}{path.suffix}.",
        )
    return read_table(path)


def _of_pairs(table: Table, prefixes: tuple[str, ...], um_per_px: float | None, image: str) -> _Points:
    x, y = (table.find(*(name for p in prefixes for name in (p + axis, axis + p))) for axis in "xy")
    if x is None or y is None:
        found = ", ".join(name or "(no name)" for name in table.columns[:6])
        raise InputError(f"{table.path} has no columns for x and y of the {image} (it has: {found}).", REMEDY)
    return _points(table, x, y, um_per_px, image)


def _of_one_image(path: Path, um_per_px: float | None, image: str) -> _Points:
    if path.suffix.lower() in GEOJSON_SUFFIXES:
        names, xy = read_geojson(path)
        return _checked(_Points(path, names if any(names) else None, xy))
    table = read_table(path)
    x, y = table.find("x", "centroidx"), table.find("y", "centroidy")
    if x is None or y is None:
        found = ", ".join(name or "(no name)" for name in table.columns[:6])
        raise InputError(f"{path} has no columns x and y (it has: {found}).", REMEDY)
    several = table.find("numpoints")
    if several is not None and table.numbers(several).max() > 1:
        raise InputError(
            f"{path} has a row for {table.numbers(several).max():.0f} points: their centroid is no landmark.",
            "Export the points as GeoJSON, or set each as an annotation of its own.",
        )
    return _points(table, x, y, um_per_px, image)


def _points(table: Table, x: int, y: int, um_per_px: float | None, image: str) -> _Points:
    """Positions of a table, in pixels."""
    xy = np.column_stack([table.numbers(x), table.numbers(y)])
    in_um = np.column_stack([table.in_um(x), table.in_um(y)])
    if in_um.any() and um_per_px is None:
        raise InputError(
            f"{table.path} gives positions in um, and the pixel size of the {image} is not known.",
            "Give the landmarks in full-resolution pixels, or the pixel size of the image.",
        )
    return _checked(_Points(table.path, table.names(), np.where(in_um, xy / (um_per_px or 1.0), xy)))


def _checked(points: _Points) -> _Points:
    if points.names is None:
        return points
    nameless = sum(not name for name in points.names)
    if nameless:
        raise InputError(
            f"{points.path}: {nameless} of {len(points.names)} landmarks have no name.", "Name all, or none."
        )
    twice = [name for name, count in Counter(points.names).items() if count > 1]
    if twice:
        raise InputError(
            f"{points.path} names {len(twice)} landmarks more than once: {', '.join(twice[:3])}.",
            "Give every landmark a name of its own.",
        )
    return points


def _matched(capture: _Points, mother: _Points) -> Landmarks:
    """The landmarks that both have, in the capture's order."""
    if capture.names is None or mother.names is None:
        return _in_order(capture, mother)
    row = {name: i for i, name in enumerate(mother.names)}
    common = [(name, i, row[name]) for i, name in enumerate(capture.names) if name in row]
    if not common:
        raise InputError(
            f"No landmark has the same name in {capture.path.name} ({', '.join(capture.names[:3])} ...) and in "
            f"{mother.path.name} ({', '.join(mother.names[:3])} ...).",
            "Give the same place the same name in both.",
        )
    notices = tuple(
        f"Landmarks that only {points.path.name} has were left out: {', '.join(lonely)}."
        for points, other in ((capture, mother), (mother, capture))
        if (lonely := [name for name in points.names or () if name not in (other.names or ())])
    )
    names, ours, theirs = zip(*common, strict=True)
    return Landmarks(names, capture.xy[list(ours)], mother.xy[list(theirs)], notices)


def _in_order(capture: _Points, mother: _Points) -> Landmarks:
    n = len(capture.xy)
    if n != len(mother.xy) or (capture.names is None) != (mother.names is None):
        which = " and ".join(p.path.name for p in (capture, mother) if p.names is None)
        raise InputError(
            f"The landmarks in {which} have no names, so they cannot be matched: {n} are in {capture.path.name}, "
            f"{len(mother.xy)} in {mother.path.name}.",
            "Name them, or give as many without names in both, in the same order.",
        )
    names = tuple(str(i + 1) for i in range(n))
    if capture.path == mother.path:
        return Landmarks(names, capture.xy, mother.xy)
    return Landmarks(names, capture.xy, mother.xy, (f"The {n} landmarks have no names: they were matched in order.",))
