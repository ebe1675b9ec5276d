"""Counts and locations of one capture brought together by their spot ids, whichever way the table is turned."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iscale.captures.counts import Counts
from iscale.captures.locations import Locations, read_locations
from iscale.captures.rearrange import take, transposed
from iscale.captures.tables import CountTable, read_counts
from iscale.errors import InputError

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
    row_of = {spot: i for i, spot in enumerate(table.rows)}
    common = [i for i, spot in enumerate(locations.ids) if spot in row_of]
    located = set(locations.ids)
    no_counts = [spot for spot in locations.ids if spot not in row_of]
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
    ids = [locations.ids[i] for i in common]
    counts = take(table.counts, np.array([row_of[spot] for spot in ids], dtype=np.int64))
    return Matched(Locations(ids, locations.xy[common]), table.columns, counts, tuple(notices))
