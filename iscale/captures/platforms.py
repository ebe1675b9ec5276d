"""A capture of any platform from one path: which platform it is, and its reader called with what the user states."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np

from iscale.captures.measured import EYE, Measured, as_anndata
from iscale.captures.readers.controls import without_controls
from iscale.captures.readers.files import describe_folder, find_optional
from iscale.errors import InputError
from iscale.slide.overview import read_overview

CONTRADICTION = 0.01
"""A pixel size that the user states and one that the files state differ where they differ by more, relatively."""

OVERVIEW_PX = 2000
"""Longest side of an overview that stands for Space Ranger's hires image."""

LARGEST_IMAGE_PX = 8000
"""Images of the capture are held in the AnnData up to this side."""


@dataclass(frozen=True)
class Platform:
    """What is known of a platform before its reader is imported.

    ``module`` is one of ``iscale.captures.readers``, ``looks_like`` and ``read`` two functions there; ``needs`` says
    what its folder holds; ``takes`` are keywords of this module's functions that its reader takes, and what it calls
    them; ``told`` is a function of its module, where it has one, that says by names of files what will be read.
    """

    module: str
    looks_like: str
    read: str
    needs: str
    takes: tuple[tuple[str, str], ...] = ()
    told: str = ""


BINS = ("bin_um", "bin_um")
TABLE = (("pixel_size_um", "pixel_size_um"), ("section", "section"), ("unit", "unit"))
_PLATFORMS = {
    "visium": Platform(
        "space_ranger",
        "looks_like_visium",
        "read_visium",
        "filtered_feature_bc_matrix.h5 and spatial/ (Space Ranger's outs)",
    ),
    "visium_hd": Platform(
        "visium_hd",
        "looks_like",
        "read",
        "binned_outputs/square_008um/ or segmented_outputs/",
        (BINS,),
        "told",
    ),
    "xenium": Platform("xenium", "looks_like", "read", "experiment.xenium and cell_feature_matrix.h5", (BINS,), "told"),
    "cosmx": Platform(
        "cosmx",
        "looks_like",
        "read",
        "*_exprMat_file.csv and *_metadata_file.csv, or *_tx_file.csv and *_fov_positions_file.csv",
        (BINS, ("pixel_size_um", "um_per_px")),
    ),
    "h5ad": Platform("h5ad", "looks_like", "read", "one .h5ad file", TABLE),
    "spatialdata": Platform("spatialdata", "looks_like", "read", "a *.zarr store with tables/", TABLE, "told"),
    "st": Platform("st", "looks_like", "read", "*counts.tsv and *spots.tsv (the first arrays), and their image"),
    "tables": Platform("tables", "looks_like", "read", "cnts.tsv and locs.tsv (or .tsv.gz, .parquet, .h5ad)"),
}
PLATFORMS = tuple(_PLATFORMS)
"""Names of what can be read."""

LACKS = {
    "bin_um": "has no bins",
    "section": "is of one section",
    "unit": "states the unit of its positions",
}
"""What is given and does not fit all platforms, and what is wrong with it for the others."""


def detect_platform(path: str | PathLike[str]) -> str:
    """Tell the platform of a capture, one of :data:`PLATFORMS`, by the names of its files.

    Raises
    ------
    InputError
        Where there is nothing, nothing known, or what several platforms may have written.
    """
    place = _existing(path)
    found = _candidates(place)
    if len(found) > 1:
        raise InputError(
            f"{place} may be of {len(found)} platforms: {', '.join(found)}.",
            f"Say which (--platform {found[0]}), or give each its own folder.",
        )
    if not found:
        needs = "; ".join(f"{name}: {platform.needs}" for name, platform in _PLATFORMS.items())
        raise InputError(
            f"{place} is of no known platform: it {describe_folder(place) if place.is_dir() else 'is a file'}.",
            f"A capture's folder holds, for {needs}.",
        )
    return found[0]


def read_measured(
    path: str | PathLike[str],
    *,
    platform: str | None = None,
    bin_um: float | None = None,
    pixel_size_um: float | None = None,
    image: str | PathLike[str] | None = None,
    section: str | None = None,
    unit: str | None = None,
) -> Measured:
    """Read a capture as its instrument, or whoever handed it on, wrote it.

    Parameters
    ----------
    path
        Folder or file.
    platform
        One of :data:`PLATFORMS`; None to tell it by the names of the files.
    bin_um
        Side of the bins in um, of a platform that is read by bins.
    pixel_size_um
        Side of a full-resolution pixel of the capture's image in um; counts before what the files state.
    image
        The capture's image at full resolution: positions count in its pixels.
    section
        The section to take, of a table that holds several.
    unit
        ``px`` or ``um``, the unit of the positions; of a table whose files do not say.

    Raises
    ------
    InputError
        Where the capture cannot be read, is of another platform, or what is stated does not fit.
    """
    given = {"bin_um": bin_um, "pixel_size_um": pixel_size_um, "section": section, "unit": unit}
    measured = _dispatch(path, platform, given)
    return _as_stated(measured, pixel_size_um, image)


def read_capture(
    path: str | PathLike[str],
    *,
    name: str | None = None,
    platform: str | None = None,
    bin_um: float | None = None,
    pixel_size_um: float | None = None,
    image: str | PathLike[str] | None = None,
    section: str | None = None,
    unit: str | None = None,
) -> ad.AnnData:
    """Read a capture into an AnnData in scanpy's layout.

    Parameters
    ----------
    path, platform, bin_um, pixel_size_um, image, section, unit
        As for :func:`read_measured`.
    name
        Its key in ``uns["spatial"]``; by default the folder's or file's name.

    Returns
    -------
    AnnData
        As :func:`iscale.captures.measured.as_anndata` makes it. ``uns["spatial"][name]["images"]`` has Space Ranger's
        hires and lowres images, (y, x, 3) uint8, up to 8,000 px; for other platforms ``hires`` is an overview of the
        capture's own image, with ``tissue_hires_scalef`` in the scale factors, so that scanpy draws it. Notices that
        begin with "Warning" are Python warnings too.

    Raises
    ------
    InputError
        As :func:`read_measured`.
    """
    given = {"bin_um": bin_um, "pixel_size_um": pixel_size_um, "section": section, "unit": unit}
    found = _dispatch(path, platform, given)
    name = name or _name(Path(path).expanduser())
    stated = _as_stated(found, pixel_size_um, image)
    adata = as_anndata(name, stated)
    about = adata.uns["spatial"][name]
    about["images"] = _small_images(found)
    if not about["images"] and stated.image is not None and np.array_equal(stated.image_from_full, EYE):
        seen = read_overview(stated.image, OVERVIEW_PX)
        about["images"] = {"hires": seen.rgb}
        about["scalefactors"]["tissue_hires_scalef"] = 1 / seen.full_per_px
    for notice in stated.notices:
        if notice.startswith("Warning"):
            warnings.warn(f"{path}: {notice}", stacklevel=2)
    return adata


def _existing(path: str | PathLike[str]) -> Path:
    place = Path(path).expanduser()
    if not place.exists():
        raise InputError(f"{place} does not exist.", "Give the folder or the file of a capture.")
    return place


def _call(platform: Platform, function: str) -> Callable[..., Any]:
    called: Callable[..., Any] = getattr(
        importlib.import_module(f"iscale.captures.readers.{platform.module}"), function
    )
    return called


def _candidates(place: Path) -> list[str]:
    """Platforms that the names fit. A .h5ad in an instrument's folder is what somebody made of the rest."""
    found = [name for name, platform in _PLATFORMS.items() if _call(platform, platform.looks_like)(place)]
    return [name for name in found if name != "h5ad"] if len(found) > 1 else found


def _dispatch(path: str | PathLike[str], platform: str | None, given: Mapping[str, Any]) -> Measured:
    place = _existing(path)
    for what in ("bin_um", "pixel_size_um"):
        if (value := given[what]) is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"{what} is {value:g}.", "It is a length in um, above 0.")
    if given["unit"] not in (None, "px", "um"):
        raise InputError(f"unit is {given['unit']!r}.", "It is px or um.")
    chosen = platform or detect_platform(place)
    kind = _known(chosen)
    others = _candidates(place)
    if platform is not None and others and not _call(kind, kind.looks_like)(place):
        raise InputError(
            f"{place} is not of the platform {platform}, which has {kind.needs}: it looks like {' or '.join(others)}.",
            "Leave the platform out, or give another folder.",
        )
    taken = {ours for ours, _ in kind.takes}
    for what, lacks in LACKS.items():
        if given[what] is not None and what not in taken:
            takers = ", ".join(name for name, other in _PLATFORMS.items() if what in dict(other.takes))
            shown = f"{given[what]:g}" if what == "bin_um" else given[what]
            raise InputError(f"{place}: {what} is {shown}, but {chosen} {lacks}.", f"Leave it out; it is for {takers}.")
    measured: Measured = _call(kind, kind.read)(place, **{theirs: given[ours] for ours, theirs in kind.takes})
    return without_controls(measured)


def _known(platform: str) -> Platform:
    if platform not in _PLATFORMS:
        raise InputError(f"There is no platform {platform!r}.", f"There are: {', '.join(PLATFORMS)}.")
    return _PLATFORMS[platform]


def told(path: str | PathLike[str], platform: str) -> tuple[str, ...]:
    """What its reader takes of a capture where there is a choice, told by names of files and headers, in no time.

    An InputError where there is one that the user has to make.
    """
    kind = _known(platform)
    if not kind.told:
        return ()
    found: tuple[str, ...] = _call(kind, kind.told)(_existing(path))
    return found


def _as_stated(measured: Measured, pixel_size_um: float | None, image: str | PathLike[str] | None) -> Measured:
    """What the user states of the image and its pixels, over what the files state."""
    if image is not None:
        measured = _with_image(measured, Path(image).expanduser(), pixel_size_um is None)
    return measured if pixel_size_um is None else _with_pixel_size(measured, pixel_size_um)


def _with_image(measured: Measured, path: Path, take_size: bool) -> Measured:
    from iscale.captures.readers.own_image import open_image

    image = open_image(path)
    if not image.is_of(measured.xy_px):
        scales = {key: value for key, value in measured.scalefactors.items() if key.endswith("_scalef")}
        fits = next((key for key, scale in scales.items() if image.is_of(measured.xy_px * scale)), None)
        guess = f" Times {fits} they lie on it: it looks like that image." if fits else ""
        raise InputError(
            f"{image.mismatch(measured.xy_px)}.",
            f"Positions count in full-resolution pixels: give the image that the platform's software was given.{guess}",
        )
    measured = replace(measured, image=path, image_from_full=EYE)
    if not take_size or measured.um_per_px is not None or image.um_per_px is None:
        return measured
    notice = f"The pixel size, {image.um_per_px:.4g} um, is the one that {path.name} states."
    return replace(_with_pixel_size(measured, image.um_per_px), notices=(*measured.notices, notice))


def _with_pixel_size(measured: Measured, um: float) -> Measured:
    stated, notices = measured.um_per_px, measured.notices
    if stated is not None and abs(stated / um - 1) > CONTRADICTION:
        notices += (f"Warning: the pixel size is {um:.4g} um as you state it; the files say {stated:.4g} um.",)
    diameter = measured.spot_diameter_um
    diameter_px = measured.scalefactors.get("spot_diameter_fullres")
    if diameter_px is not None and (measured.pitch_um is None or measured.platform == "tables"):
        diameter = diameter_px * um  # known in pixels; where the platform fixes the pitch, in um
    return replace(measured, um_per_px=um, spot_diameter_um=diameter, notices=notices)


def _name(path: Path) -> str:
    place = path.resolve()
    if place.is_dir() and place.name in ("outs", "binned_outputs", "segmented_outputs"):
        return place.parent.name
    return place.stem if place.is_file() or place.suffix.lower() == ".zarr" else place.name


def _small_images(measured: Measured) -> dict[str, np.ndarray[Any, np.dtype[np.uint8]]]:
    """Space Ranger's images, from the folder that its reader found one in."""
    from iscale.slide.flat_reader import FlatImage

    images: dict[str, np.ndarray[Any, np.dtype[np.uint8]]] = {}
    if measured.platform not in ("visium", "visium_hd") or measured.image is None:
        return images
    for kind in ("hires", "lowres"):
        path = find_optional(measured.image.parent, f"tissue_{kind}_image.png", what=f"the {kind} image")
        if path is not None and max((image := FlatImage(path)).levels[0]) <= LARGEST_IMAGE_PX:
            images[kind] = image.overview(LARGEST_IMAGE_PX)[0]
    return images
