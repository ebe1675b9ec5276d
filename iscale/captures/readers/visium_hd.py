"""Visium HD as Space Ranger 4 leaves it: the cells that it segmented, or, as before it, square bins."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import shapely.geometry
from numpy.typing import NDArray

from iscale.captures.counts import take
from iscale.captures.measured import Measured
from iscale.captures.readers.binning import median_diameter
from iscale.captures.readers.blocks import in_both
from iscale.captures.readers.files import check_folder, check_inside, find_file, read_json
from iscale.captures.readers.space_ranger import (
    CELL_MATRIX,
    CELL_OUTLINES,
    DEFAULT_BIN_UM,
    SCALEFACTORS,
    bin_folders,
    cells_folder,
    finite_numbers,
    looks_like_visium_hd,
    own_image,
    positive,
    read_visium_hd,
)
from iscale.captures.readers.tenx_matrix import only_genes, read_h5
from iscale.errors import InputError
from iscale.slide.geojson import features

CELL_ID = re.compile(r"(?:cell_?id_)?0*(\d+)(?:-\d+)?")
REMEDY = "Give it as Space Ranger wrote it, or bin_um to read the bins."


def looks_like(folder: Path) -> bool:
    """Whether a folder holds, or is, bins or segmented cells of Visium HD."""
    return looks_like_visium_hd(folder) or cells_folder(folder) is not None


def told(folder: Path) -> tuple[str, ...]:
    """Whether cells or bins are read, where there is a choice."""
    return _choice(folder, None)[1]


def read(folder: Path, bin_um: float | None = None) -> Measured:
    """Read the segmented cells of a Visium HD sample, where there are any, or bins, where ``bin_um`` says so.

    Raises
    ------
    InputError
        A file is missing, damaged or of another sample, or there are no bins of this side.
    """
    check_folder(folder)
    cells, notices = _choice(folder, bin_um)
    found = read_visium_hd(folder, bin_um) if cells is None else _read_cells(folder, cells)
    return replace(found, notices=(*notices, *found.notices))


def default_bin_um(folder: Path) -> float | None:
    """Side of the bins that are read where bins are wanted: the one folder's, else of 8 um; None without bins."""
    bins = bin_folders(folder)
    return DEFAULT_BIN_UM if DEFAULT_BIN_UM in bins else next(iter(sorted(bins)), None)


def _choice(folder: Path, bin_um: float | None) -> tuple[Path | None, tuple[str, ...]]:
    """The folder of the cells where these are read, None where bins are; and what was chosen."""
    cells, bins = cells_folder(folder), bin_folders(folder)
    if cells is None:
        return None, ()
    if bin_um is not None:
        said = f"Bins of {bin_um:g} um are read, as bin_um says; there are cells too, in {cells.name}."
        return None, (said,)
    lacking = [name for name in (CELL_MATRIX, CELL_OUTLINES) if not any(cells.glob(name))]
    if lacking and bins:
        return None, (f"Bins are read: {cells.name} has no {' and no '.join(lacking)}, so that its cells cannot be.",)
    sides = ", ".join(f"{side:g}" for side in sorted(bins))
    other = f" There are bins of {sides} um too: bin_um = {DEFAULT_BIN_UM:g} would read those." if bins else ""
    return cells, (f"Cells are read, those that Space Ranger segmented ({cells.name}).{other}",)


def _read_cells(folder: Path, root: Path) -> Measured:
    check_inside(folder, root, what="the segmented cells")
    matrix = find_file(root, CELL_MATRIX, what="the counts of the cells")
    outlines = find_file(root, CELL_OUTLINES, what="the outlines of the cells")
    factors_file = find_file(root, SCALEFACTORS, what="the scale factors")
    factors = finite_numbers(read_json(factors_file))
    image, image_from_full = own_image(root, factors_file, factors)
    um_per_px = positive(factors_file, factors, "microns_per_pixel") if "microns_per_pixel" in factors else None
    every = read_h5(matrix)
    table = only_genes(every)
    others = len(every.gene_ids) - len(table.gene_ids)
    ids, xy, area = read_outlines(outlines)
    rows, places, unmatched = in_both(matrix, [_number(name) for name in table.barcodes], outlines, ids)
    spot_ids = [table.barcodes[row] for row in rows.tolist()]
    diameter_px = median_diameter(area[places])
    known = {name: value for name, value in factors.items() if name not in ("bin_size_um", "spot_diameter_fullres")}
    if diameter_px is not None:
        known["spot_diameter_fullres"] = diameter_px
    areas = {} if um_per_px is None else {"cell_area_um2": area[places] * um_per_px**2}
    return Measured(
        platform="visium_hd",
        spot_ids=spot_ids,
        gene_symbols=table.gene_symbols,
        gene_ids=table.gene_ids,
        counts=take(table.counts, rows),
        xy_px=xy[places],
        spot_diameter_um=None if um_per_px is None or diameter_px is None else diameter_px * um_per_px,
        um_per_px=um_per_px,
        scalefactors=known,
        image=image,
        image_from_full=image_from_full,
        obs=pd.DataFrame(areas, index=pd.Index(spot_ids, dtype=object)),
        notices=(*unmatched, *[f"{others} features that are not gene expression are left out."] * bool(others)),
    )


def _number(name: str) -> str:
    """Number of a cell, which the matrix writes as ``cellid_000000012-1``, the outlines as 12."""
    match = CELL_ID.fullmatch(name)
    return match[1] if match else name


def read_outlines(path: Path) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Numbers of cells, (cell, 2) centroids and (cell,) areas of their polygons, in full-resolution pixels."""
    ids: list[str] = []
    places: list[tuple[float, float, float]] = []
    for feature in features(path, REMEDY):
        if not isinstance(feature, dict):
            raise InputError(f"{path} has a feature that is none.", REMEDY)
        properties = feature.get("properties") or {}
        name = properties.get("cell_id", feature.get("id"))
        try:
            with np.errstate(invalid="ignore"):  # what is not finite is told below
                shape = shapely.geometry.shape(feature["geometry"])
                x, y, area = shape.centroid.x, shape.centroid.y, shape.area
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, shapely.errors.ShapelyError):
            raise InputError(
                f"{path}: cell {len(ids) + 1} ({name!r}) has no polygon that can be read.", REMEDY
            ) from None
        if name is None or not np.isfinite([x, y, area]).all():
            what = "no cell_id" if name is None else "positions that are not finite"
            raise InputError(f"{path}: cell {len(ids) + 1} ({name!r}) has {what}.", REMEDY)
        ids.append(_number(str(name)))
        places.append((x, y, area))
    if not ids:
        raise InputError(f"{path} holds no cells.", REMEDY)
    values = np.array(places)
    return ids, values[:, :2], values[:, 2]
