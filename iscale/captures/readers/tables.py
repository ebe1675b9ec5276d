"""The published pair: ``cnts.*``, and ``locs.*`` in pixels of the capture's own image ``he.*`` beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from iscale.captures.locations import read_matched
from iscale.captures.measured import Measured
from iscale.captures.readers.files import find_file, find_optional
from iscale.captures.readers.lattice import Lattice, st_lattice
from iscale.captures.readers.own_image import IMAGE_SETTING, OwnImage, find_image, open_image
from iscale.errors import InputError
from iscale.project.files import read_number
from iscale.project.layout import COUNTS_SUFFIXES, LOCS_SUFFIXES

COUNTS_NAMES = tuple(f"cnts{suffix}" for suffix in COUNTS_SUFFIXES)
LOCS_NAMES = tuple(f"locs{suffix}" for suffix in LOCS_SUFFIXES)
ANALYSIS_STEM, RAW_STEM = "he", "he-raw"

DISAGREE = 0.05
"""A stated pixel size that differs by more from the array's, relatively, is told."""


@dataclass(frozen=True)
class Scale:
    """What is known of a pixel's side, the distance of neighbouring spots and their diameter, in um; and where from."""

    um_per_px: float | None
    pitch_um: float | None
    diameter_um: float | None
    notices: tuple[str, ...]


def looks_like(path: Path) -> bool:
    """Whether a folder has ``cnts.*`` or ``locs.*``."""
    return path.is_dir() and any((path / name).is_file() for name in (*COUNTS_NAMES, *LOCS_NAMES))


def read(folder: Path) -> Measured:
    """Read a folder with ``cnts.*`` and ``locs.*``.

    Positions count in pixels of ``he.*``, where there is none of ``he-raw.*``. The folder's ``pixel-size.txt`` (um per
    pixel of ``he.*``) or ``pixel-size-raw.txt`` (of ``he-raw.*``), and ``radius.txt`` or ``radius-raw.txt`` (pixels of
    the same image) are read where they are there.

    Raises
    ------
    InputError
        A file is missing or damaged, the two do not name the same spots, or the spots are not on the image.
    """
    counts_path = find_file(folder, *COUNTS_NAMES, what="the counts")
    locs_path = find_file(folder, *LOCS_NAMES, what="the spots' locations")
    matched = read_matched(folder.name, counts_path, locs_path)
    ids, xy = matched.locations.ids, matched.locations.xy
    image, is_raw = _image(folder)
    if image is not None and not image.is_of(xy):
        raise InputError(
            f"{locs_path}: {image.mismatch(xy)}.",
            f"Locations count in pixels of the capture's own image: give that as he.* ({IMAGE_SETTING}).",
        )
    lattice = st_lattice(ids, xy)
    scale = _scale(folder, image, is_raw, lattice)
    radius_path = _of_image(folder, "radius", is_raw)
    factors = {"spot_diameter_fullres": 2 * read_number(radius_path)} if radius_path else {}
    diameter_um = scale.diameter_um
    if radius_path and scale.um_per_px is not None:
        diameter_um = factors["spot_diameter_fullres"] * scale.um_per_px
    return Measured(
        platform="tables",
        spot_ids=ids,
        gene_symbols=matched.genes,
        gene_ids=matched.genes,
        counts=matched.counts,
        xy_px=xy,
        spot_diameter_um=diameter_um,
        um_per_px=scale.um_per_px,
        pitch_um=scale.pitch_um,
        scalefactors=factors,
        image=None if image is None else image.path,
        notices=(*matched.notices, *scale.notices),
    )


def _image(folder: Path) -> tuple[OwnImage | None, bool]:
    """The image that the locations count in, and whether it is ``he-raw.*``."""
    for stem in (ANALYSIS_STEM, RAW_STEM):
        # A link to the image is how people lay out a project of their own without copying it.
        if path := find_image(folder, stem, trusted=True):
            return open_image(path), stem == RAW_STEM
    return None, False


def _of_image(folder: Path, stem: str, is_raw: bool) -> Path | None:
    """``radius.txt`` or ``pixel-size.txt`` of the image in use: one of another image's pixels is not taken."""
    names = [f"{stem}-raw.txt", f"{stem}.txt"] if is_raw else [f"{stem}.txt"]
    if not is_raw and find_image(folder, RAW_STEM, trusted=True) is None:
        names.append(f"{stem}-raw.txt")
    return find_optional(folder, *names, what=f"the {stem.replace('-', ' ')}")


def _scale(folder: Path, image: OwnImage | None, is_raw: bool, lattice: Lattice | None) -> Scale:
    """The size of a pixel from the first that tells it: a file, the image, the names of an array's spots."""
    stated = _of_image(folder, "pixel-size", is_raw)
    if stated is not None:
        um, source = read_number(stated), stated.name
    elif image is not None and image.um_per_px is not None:
        um, source = image.um_per_px, image.path.name
    elif lattice is not None:
        notice = (
            f"The pixel size, {lattice.um_per_px:.4g} um, is that of an array whose spots are {lattice.pitch_um:g} um "
            f"apart, as their names tell (they lie {lattice.residual_um:.2g} um off it)."
        )
        return Scale(lattice.um_per_px, lattice.pitch_um, lattice.diameter_um, (notice,))
    else:
        return Scale(None, None, None, ())
    notices = (f"The pixel size, {um:.4g} um, is the one that {source} states.",)
    if lattice is None:
        return Scale(um, None, None, notices)
    if abs(lattice.um_per_px / um - 1) <= DISAGREE:
        return Scale(um, lattice.pitch_um, lattice.diameter_um, notices)
    doubt = (
        f"Warning: spots of such names are {lattice.pitch_um:g} um apart on the usual array, at a pixel size of "
        f"{lattice.um_per_px:.4g} um, not {um:.4g} um: check {source}."
    )
    return Scale(um, None, None, (*notices, doubt))
