"""One daughter capture from its files, checked."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from scipy import sparse

from iscale.captures.locations import Locations, check_on_image, read_locations
from iscale.captures.spots import Capture
from iscale.captures.tables import CountTable, read_counts
from iscale.errors import InputError
from iscale.project import CaptureFiles

LEAST_MATCH = 0.5
"""Below this share of common spot ids, of the smaller of counts and locations, the two are taken for different sets."""


def read_capture(
    files: CaptureFiles,
    *,
    radius_um: float,
    pixel_size_um: float,
    analysis_shape_px: tuple[int, int],
    to_analysis: float = 1.0,
    raw_to_analysis: float | None = None,
) -> Capture:
    """Read counts and locations of a capture that is aligned to the mother image.

    The counts may be spots x genes or genes x spots: they are turned by the ids of the locations. Spots that only one
    of the two files has are dropped with a notice where at least half of the smaller set match.

    Parameters
    ----------
    files
        The capture's files.
    radius_um
        Radius of its spots, in um.
    pixel_size_um
        Side of an analysis pixel, in um.
    analysis_shape_px
        Height and width of the analysis image.
    to_analysis
        Analysis pixels per pixel of ``locs.*``.
    raw_to_analysis
        Analysis pixels per pixel of the raw image: only to tell the user where locations count in raw pixels.

    Raises
    ------
    InputError
        Where anything in the files cannot be used; the message names file, numbers and remedy.
    """
    _check_radius(files, radius_um, pixel_size_um, analysis_shape_px)
    locations = read_locations(files.locs)
    table = _spots_by_genes(files, read_counts(files.counts), locations.ids)
    _refuse_duplicates(files.counts, table.rows, "spots")
    _refuse_duplicates(files.counts, table.columns, "genes")
    located, counts, notices = _common_spots(files, table, locations)
    xy_px = located.xy * to_analysis
    check_on_image(files.locs, xy_px, analysis_shape_px, raw_to_analysis)
    if counts.sum() == 0:
        raise InputError(f"{files.counts}: all counts of the {counts.shape[0]} spots are 0.", "Give raw counts.")
    if np.any(counts.data != np.round(counts.data)):
        notices += (
            f"Warning: {files.counts} holds numbers that are not whole. Raw counts are expected: of normalised or log "
            "values the predictions are no counts, and depth means nothing.",
        )
    return Capture(
        name=files.name,
        spot_ids=tuple(located.ids),
        genes=tuple(table.columns),
        counts=counts,
        xy_px=xy_px,
        radius_um=radius_um,
        notices=notices,
    )


def _check_radius(
    files: CaptureFiles, radius_um: float, pixel_size_um: float, analysis_shape_px: tuple[int, int]
) -> None:
    if not (np.isfinite(radius_um) and radius_um > 0):
        raise InputError(f"Capture {files.name}: the spot radius is {radius_um:g} um.", "It must be above 0.")
    radius_px = radius_um / pixel_size_um
    if 2 * radius_px > min(analysis_shape_px):
        raise InputError(
            f"Capture {files.name}: a spot of radius {radius_um:g} um ({radius_px:.0f} px of the analysis image) is "
            f"larger than the image ({analysis_shape_px[1]} x {analysis_shape_px[0]} px).",
            "Check radius-raw.txt (pixels of he-raw.*), radius.txt (pixels of the analysis image) and the pixel size.",
        )


def _spots_by_genes(files: CaptureFiles, table: CountTable, ids: list[str]) -> CountTable:
    """Turn the table so that its rows are spots: the axis of which more names are among the locations."""
    known = set(ids)
    in_rows, in_columns = (len(known.intersection(names)) for names in (table.rows, table.columns))
    if in_rows == in_columns == 0:
        raise _no_common_ids(files, table, ids)
    if in_rows >= in_columns:
        return table
    return CountTable(table.columns, table.rows, sparse.csr_matrix(table.counts.T))


def _no_common_ids(files: CaptureFiles, table: CountTable, ids: list[str]) -> InputError:
    stems = {_stem(name) for name in ids}
    suffix = (
        " They match without the suffix after '-'." if stems & {_stem(n) for n in table.rows + table.columns} else ""
    )
    return InputError(
        f"{files.counts} and {files.locs.name} have no spot id in common: the rows of the counts are "
        f"{_some(table.rows)}, its columns {_some(table.columns)}, the {len(ids)} located spots {_some(ids)}.",
        f"Use the same spot ids in both files.{suffix}",
    )


def _stem(name: str) -> str:
    return re.sub(r"-\d+$", "", name)


def _some(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:3]) + (" ..." if len(names) > 3 else "")


def _refuse_duplicates(path: Path, names: list[str], what: str) -> None:
    if len(set(names)) == len(names):
        return
    seen: set[str] = set()
    twice = list(dict.fromkeys(name for name in names if name in seen or seen.add(name)))  # type: ignore[func-returns-value]
    raise InputError(
        f"{path} names {len(twice)} {what} more than once: {', '.join(twice[:5])}.",
        "Sum them or rename them, so that every name stands for one."
        if what == "genes"
        else "Give every spot one row.",
    )


def _common_spots(
    files: CaptureFiles, table: CountTable, locations: Locations
) -> tuple[Locations, sparse.csr_matrix, tuple[str, ...]]:
    """Located spots that have counts, in the order of the locations; their counts; and what was left out."""
    row_of = {name: i for i, name in enumerate(table.rows)}
    common = [i for i, name in enumerate(locations.ids) if name in row_of]
    located = set(locations.ids)
    no_counts = [name for name in locations.ids if name not in row_of]
    no_place = [name for name in table.rows if name not in located]
    if len(common) < LEAST_MATCH * min(len(locations.ids), len(table.rows)):
        raise InputError(
            f"Only {len(common)} spots are in both {files.counts} ({len(table.rows)} spots) and {files.locs.name} "
            f"({len(locations.ids)} spots). Only in the counts: {_some(no_place)}; only located: {_some(no_counts)}.",
            "Use the same spot ids in both files.",
        )
    notices = [
        f"Capture {files.name}: {len(names)} of {total} spots in {path.name} are not in {other.name} and were left "
        f"out: {_some(names)}."
        for names, total, path, other in (
            (no_counts, len(locations.ids), files.locs, files.counts),
            (no_place, len(table.rows), files.counts, files.locs),
        )
        if names
    ]
    ids = [locations.ids[i] for i in common]
    counts = sparse.csr_matrix(table.counts[[row_of[name] for name in ids]])
    return Locations(ids, locations.xy[common]), counts, tuple(notices)
