"""The first Spatial Transcriptomics arrays, as their pipeline and spot detector left them: counts, spots, image.

``*counts.tsv`` has a row per spot, named ``XxY`` by its place on the array; ``*spots.tsv`` has the columns ``x``,
``y``, ``new_x``, ``new_y`` (the place, and the place as corrected by the detector), ``pixel_x``, ``pixel_y`` and
``selected`` (1 under tissue).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from iscale.captures.counts import take, transposed
from iscale.captures.locations import common_rows, read_text_table
from iscale.captures.measured import Measured
from iscale.captures.readers.files import find_file
from iscale.captures.readers.lattice import st_lattice
from iscale.captures.readers.own_image import OwnImage, open_image
from iscale.captures.tables import CountTable, read_counts
from iscale.errors import InputError
from iscale.slide.reader import SUFFIXES

COUNTS_NAMES = ("*counts.tsv", "*counts.tsv.gz", "*stdata.tsv", "*stdata.tsv.gz")
SPOTS_NAMES = ("*spots.tsv", "*spots.tsv.gz")
COLUMNS = ("x", "y", "pixel_x", "pixel_y")
LEAST_SHARE = 0.5
"""Where fewer of the counted spots are in the table of spots, the two are of different sections."""


def looks_like(path: Path) -> bool:
    """Whether a folder has a table of spots and a table of counts, by their names."""
    return path.is_dir() and all(any(any(path.glob(n)) for n in names) for names in (COUNTS_NAMES, SPOTS_NAMES))


def read(folder: Path) -> Measured:
    """Read a folder with ``*counts.tsv``, ``*spots.tsv`` and the section's image.

    Spots that are not under tissue (``selected`` 0) are left out. An array of 1,000 spots, 200 um apart, tells the size
    of a pixel; one of 2,000 does not.

    Raises
    ------
    InputError
        A file is missing or damaged, or the two tables are not of one section.
    """
    counts_path = find_file(folder, *COUNTS_NAMES, what="the counts")
    spots_path = find_file(folder, *SPOTS_NAMES, what="the table of spots")
    table, spots = read_counts(counts_path), _spots(spots_path)
    if len(set(table.columns).intersection(spots.index)) > len(set(table.rows).intersection(spots.index)):
        table = CountTable(table.columns, table.rows, transposed(table.counts))
    rows, kept = common_rows(table.rows, list(spots.index))
    if len(rows) < LEAST_SHARE * min(len(table.rows), len(spots)):
        raise InputError(
            f"Only {len(rows)} of the {len(table.rows)} spots in {counts_path} are among the {len(spots)} in "
            f"{spots_path.name}, as {table.rows[0]!r} against {spots.index[0]!r}.",
            "Give the two tables of one section.",
        )
    ids, xy = [str(name) for name in spots.index[kept]], spots[["pixel_x", "pixel_y"]].to_numpy(np.float64)[kept]
    image = _image(folder, xy)
    lattice = st_lattice(ids, xy)
    um_per_px = _size(image, lattice.um_per_px if lattice else None)
    return Measured(
        platform="st",
        spot_ids=ids,
        gene_symbols=table.columns,
        gene_ids=table.columns,
        counts=take(table.counts, rows),
        xy_px=xy,
        spot_diameter_um=lattice.diameter_um if lattice else None,
        um_per_px=um_per_px,
        pitch_um=lattice.pitch_um if lattice else None,
        image=image.path if image else None,
        notices=tuple(_left_out(len(table.rows) - len(ids), len(table.rows))),
    )


def _image(folder: Path, xy: NDArray[np.float64]) -> OwnImage | None:
    """The one image in the folder, on which the spots must lie."""
    found = sorted(path for path in folder.iterdir() if path.is_file() and path.name.lower().endswith(SUFFIXES))
    if not found:
        return None
    if len(found) > 1:
        raise InputError(
            f"{folder} holds {len(found)} images: {', '.join(path.name for path in found)}.",
            "Keep the section's, whose pixels the spots count in.",
        )
    image = open_image(found[0])
    if not image.is_of(xy):
        raise InputError(f"{found[0]}: {image.mismatch(xy)}.", "Give the image that the spots were detected on.")
    return image


def _size(image: OwnImage | None, of_lattice: float | None) -> float | None:
    if image is not None and image.um_per_px is not None:
        return image.um_per_px
    return of_lattice


def _left_out(count: int, total: int) -> list[str]:
    return [f"{count} of {total} counted spots are not under tissue and are left out."] if count else []


def _spots(path: Path) -> pd.DataFrame:
    """Spots under tissue by their names."""
    table = read_text_table(path)
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise InputError(
            f"{path} has no column {', '.join(missing)} (it has: {', '.join(map(str, table.columns[:8]))}).",
            "Give the table that the spot detector wrote: x, y, new_x, new_y, pixel_x, pixel_y, selected.",
        )
    numbers: pd.DataFrame = table.apply(pd.to_numeric, errors="coerce")
    bad = np.flatnonzero(~np.isfinite(numbers[list(COLUMNS)]).all(axis=1))
    if len(bad):
        raise InputError(
            f"{path}: {len(bad)} of {len(table)} rows hold something that is no number, first row {bad[0] + 1}.",
            "Write the table again.",
        )
    if "selected" in numbers:
        numbers = numbers[numbers["selected"] != 0]
    numbers.index = pd.Index([f"{x:g}x{y:g}" for x, y in numbers[["x", "y"]].to_numpy()])
    if numbers.empty or numbers.index.has_duplicates:
        what = "names no spot under tissue" if numbers.empty else "names a place of the array twice"
        raise InputError(f"{path} {what}.", "Give every spot one row.")
    return numbers
