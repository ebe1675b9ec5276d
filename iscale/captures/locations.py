"""Spot locations: read from ``locs.*``, brought together with counts by their ids, and checked against the image."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from iscale.captures.counts import Counts, take, transposed
from iscale.captures.readers.blocks import parquet_errors
from iscale.captures.readers.files import byte_lines
from iscale.captures.tables import CountTable, decode, read_counts
from iscale.errors import InputError

ID_NAMES = ("spot", "spot_id", "id", "barcode", "cell", "cell_id")
LOCS_REMEDY = "Write it with three columns separated by tabs: spot, x, y."


@dataclass(frozen=True)
class Locations:
    """Spots and where they lie: unique ids, and (spot, 2) float64 x, y in the file's own pixels, finite."""

    ids: list[str]
    xy: NDArray[np.float64]


def read_locations(path: Path) -> Locations:
    """Read ``locs.tsv``, ``locs.tsv.gz`` or ``locs.parquet``.

    Columns are found by name, whatever their case: ``x``, ``y``, and one of ``spot``, ``barcode``, ``id`` ...;
    without such a name the ids are the first column, or the index of the table.

    Raises
    ------
    InputError
        Where the file is damaged, has no such columns, names a spot twice or has a coordinate that is no finite number.
    """
    table = _read_parquet(path) if path.name.lower().endswith(".parquet") else read_text_table(path)
    lower = {str(name).lower(): name for name in reversed(table.columns)}
    if "x" not in lower or "y" not in lower:
        found = ", ".join(str(name) for name in table.columns[:6])
        raise InputError(f"{path} has no columns x and y (it has: {found}).", LOCS_REMEDY)
    if table.empty:
        raise InputError(f"{path} names no spots.", LOCS_REMEDY)
    others = [name for name in table.columns if name not in (lower["x"], lower["y"])]
    named = [lower[name] for name in ID_NAMES if name in lower]
    if not (named or others):
        raise InputError(f"{path} has only the columns x and y: the spots have no ids.", LOCS_REMEDY)
    ids = [str(v) for v in table[(named or others)[0]]]
    twice = sorted({name for name, is_twice in zip(ids, pd.Index(ids).duplicated(), strict=True) if is_twice})
    if twice:
        raise InputError(
            f"{path} names {len(twice)} spots more than once: {', '.join(twice[:3])}.", "Give every spot one row."
        )
    xy = np.column_stack([pd.to_numeric(table[lower[axis]], errors="coerce").to_numpy(np.float64) for axis in "xy"])
    bad = np.flatnonzero(~np.isfinite(xy).all(axis=1))
    if len(bad):
        x, y = (table[lower[axis]].iloc[bad[0]] for axis in "xy")
        raise InputError(
            f"{path}: {len(bad)} of {len(xy)} spots have no finite position, first {ids[bad[0]]!r} at ({x}, {y}).",
            "Give every spot a position, or take it out of the file.",
        )
    return Locations(ids, xy)


def read_text_table(path: Path) -> pd.DataFrame:
    """A table of text, tab-separated with a header, every cell as it is written; an InputError where it is none."""
    rows = [[decode(path, field) for field in line.split(b"\t")] for line in byte_lines(path, None)]
    if not rows:
        raise InputError(f"{path} is empty.", LOCS_REMEDY)
    header, body = rows[0], rows[1:]
    if len(header) == 1:
        raise InputError(f"{path} is not separated by tabs: its first line is {header[0][:60]!r}.", LOCS_REMEDY)
    if body and len(body[0]) == len(header) + 1:  # the ids are an index without a name
        header = ["", *header]
    ragged = next((i for i, row in enumerate(body) if len(row) != len(header)), None)
    if ragged is not None:
        raise InputError(
            f"{path}: row {ragged + 1} has {len(body[ragged])} cells, the header names {len(header)} columns.",
            "Write the table again; it may have been cut off.",
        )
    return pd.DataFrame(body, columns=header)


def _read_parquet(path: Path) -> pd.DataFrame:
    with parquet_errors(path, "Write it again."):
        table = pd.read_parquet(path)
    return table if isinstance(table.index, pd.RangeIndex) else table.reset_index()


def check_on_image(
    path: Path, xy_px: NDArray[np.float64], shape_px: tuple[int, int], raw_to_analysis: float | None
) -> None:
    """Refuse spots (spot, 2) that lie outside of the analysis image, with a guess at why.

    ``raw_to_analysis``, analysis pixels per pixel of the raw image where there is one, is tried as the cause.
    """
    inside = _inside(xy_px, shape_px)
    if inside.all():
        return
    (x0, y0), (x1, y1) = xy_px.min(axis=0), xy_px.max(axis=0)
    outside = int((~inside).sum())
    raise InputError(
        f"{path}: {outside} of {len(xy_px)} spots lie outside of the image. The spots span x {x0:.0f} to {x1:.0f}, "
        f"y {y0:.0f} to {y1:.0f}; the analysis image is {shape_px[1]} px wide and {shape_px[0]} px high.",
        _guess(xy_px, shape_px, raw_to_analysis),
    )


def keep_on_image(
    name: str, path: Path, xy_px: NDArray[np.float64], shape_px: tuple[int, int]
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """(spot,) which spots of a capture lie on the analysis image, where a transform took them there; what is left out.

    A capture may reach beyond the mother image: its section is another, and its glass is larger than the tissue. But an
    InputError where half of the spots or more do.
    """
    keep = _inside(xy_px, shape_px)
    outside, total = int((~keep).sum()), len(keep)
    if not outside:
        return keep, ()
    if 2 * outside >= total:
        (x0, y0), (x1, y1) = xy_px.min(axis=0), xy_px.max(axis=0)
        raise InputError(
            f"Capture {name}: {path} takes {outside} of {total} spots outside of the mother image. The spots span "
            f"x {x0:.0f} to {x1:.0f}, y {y0:.0f} to {y1:.0f}; the analysis image is {shape_px[1]} px wide and "
            f"{shape_px[0]} px high.",
            "Align it anew (iscale align PROJECT). A transform that you wrote yourself takes full-resolution pixels of "
            "the capture's own image (not of a hires or lowres one) to those of the mother image.",
        )
    return keep, (f"Capture {name}: {outside} of {total} spots lie outside of the mother image and were left out.",)


def _inside(xy: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    return np.asarray(np.all((xy >= 0) & (xy < (shape[1], shape[0])), axis=1))


def _guess(xy: NDArray[np.float64], shape: tuple[int, int], raw_to_analysis: float | None) -> str:
    if raw_to_analysis is not None and raw_to_analysis != 1 and _inside(xy * raw_to_analysis, shape).all():
        return (
            f"Multiplied by {raw_to_analysis:.4g} all lie inside: they look like pixels of the raw image. "
            "Locations count in pixels of the analysis image."
        )
    if _inside(xy[:, ::-1], shape).all():
        return "With x and y swapped all lie inside: check the order of the columns."
    far = xy.max(axis=0)
    if (xy >= 0).all():
        factor = min(shape[1] / far[0], shape[0] / far[1])
        return (
            f"A constant factor of {factor:.3g} or less would bring all inside: check that the locations count in "
            "pixels of the analysis image, and its pixel size."
        )
    return "Check the alignment, and take spots that lie beside the image out of the file."


LEAST_MATCH = 0.5
"""Below this share of common spot ids, of the smaller of counts and locations, the two are taken for different sets."""


@dataclass(frozen=True)
class Matched:
    """Spots that have both counts and a place, in the order of the locations' file.

    Names of genes are unique; counts are (spot, gene) float32, finite, 0 or more; notices say what was left out.
    """

    locations: Locations
    genes: list[str]
    counts: Counts
    notices: tuple[str, ...]


def read_matched(name: str, counts_path: Path, locs_path: Path) -> Matched:
    """Read ``cnts.*`` and ``locs.*`` of the capture ``name``, and keep the spots that both have.

    The counts may be spots x genes or genes x spots: they are turned by the ids of the locations. Spots that only one
    of the two files has are dropped with a notice where at least half of the smaller set match. An InputError where a
    file cannot be used, names a spot or a gene twice, or fewer are in both.
    """
    locations = read_locations(locs_path)
    table = _spots_by_genes(read_counts(counts_path), locations.ids, counts_path, locs_path)
    _refuse_duplicates(counts_path, table.rows, "spots", "Give every spot one row.")
    _refuse_duplicates(
        counts_path, table.columns, "genes", "Sum them or rename them, so that every name stands for one."
    )
    return _common_spots(name, table, locations, counts_path, locs_path)


def _spots_by_genes(table: CountTable, ids: list[str], counts_path: Path, locs_path: Path) -> CountTable:
    """Turn the table so that its rows are spots: the axis of which more names are among the locations."""
    known = set(ids)
    in_rows, in_columns = (len(known.intersection(names)) for names in (table.rows, table.columns))
    if in_rows == in_columns == 0:
        raise _no_common_ids(table, ids, counts_path, locs_path)
    if in_rows >= in_columns:
        return table
    return CountTable(table.columns, table.rows, transposed(table.counts))


def _no_common_ids(table: CountTable, ids: list[str], counts_path: Path, locs_path: Path) -> InputError:
    stems = {_stem(name) for name in ids}
    suffix = (
        " They match without the suffix after '-'." if stems & {_stem(n) for n in table.rows + table.columns} else ""
    )
    return InputError(
        f"{counts_path} and {locs_path.name} have no spot id in common: the rows of the counts are "
        f"{_some(table.rows)}, its columns {_some(table.columns)}, the {len(ids)} located spots {_some(ids)}.",
        f"Use the same spot ids in both files.{suffix}",
    )


def _stem(name: str) -> str:
    return re.sub(r"-\d+$", "", name)


def _some(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:3]) + (" ..." if len(names) > 3 else "")


def _refuse_duplicates(path: Path, names: list[str], what: str, remedy: str) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise InputError(f"{path} names {len(twice)} {what} more than once: {', '.join(twice[:5])}.", remedy)


def _common_spots(name: str, table: CountTable, locations: Locations, counts_path: Path, locs_path: Path) -> Matched:
    """Located spots that have counts, in the order of the locations; their counts; and what was left out."""
    rows, common = common_rows(table.rows, locations.ids)
    counted, located = set(table.rows), set(locations.ids)
    no_counts = [spot for spot in locations.ids if spot not in counted]
    no_place = [spot for spot in table.rows if spot not in located]
    if len(common) < LEAST_MATCH * min(len(locations.ids), len(table.rows)):
        raise InputError(
            f"Only {len(common)} spots are in both {counts_path} ({len(table.rows)} spots) and {locs_path.name} "
            f"({len(locations.ids)} spots). Only in the counts: {_some(no_place)}; only located: {_some(no_counts)}.",
            "Use the same spot ids in both files.",
        )
    notices = [
        f"Capture {name}: {len(spots)} of {total} spots in {path.name} are not in {other.name} and were left "
        f"out: {_some(spots)}."
        for spots, total, path, other in (
            (no_counts, len(locations.ids), locs_path, counts_path),
            (no_place, len(table.rows), counts_path, locs_path),
        )
        if spots
    ]
    kept = Locations([locations.ids[i] for i in common.tolist()], locations.xy[common])
    return Matched(kept, table.columns, take(table.counts, rows), tuple(notices))


def common_rows(ids: Sequence[str], others: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(common,) where names that both have stand in ``ids``, first, and in ``others``; in the order of these."""
    row = dict(zip(reversed(ids), reversed(range(len(ids))), strict=True))
    pairs = [(row[name], i) for i, name in enumerate(others) if name in row]
    rows, other_rows = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return rows, other_rows
