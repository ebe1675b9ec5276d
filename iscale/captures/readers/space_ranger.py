"""Visium and Visium HD, as Space Ranger writes them: counts per spot or bin, positions, an image and its scale."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from iscale.captures.counts import take
from iscale.captures.measured import Measured
from iscale.captures.readers.files import (
    blocks,
    check_folder,
    check_inside,
    describe_folder,
    find_file,
    find_optional,
    read_json,
)
from iscale.captures.readers.lattice import VISIUM_DIAMETER_UM, VISIUM_PITCH_UM, VISIUM_STEP_UM, LatticeFit
from iscale.captures.readers.tenx_matrix import TenxMatrix, only_genes, read_h5, read_mtx
from iscale.errors import InputError

POSITIONS = tuple(
    f"spatial/{name}" for name in ("tissue_positions.parquet", "tissue_positions.csv", "tissue_positions_list.csv")
)
COLUMNS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")
TYPES = dict(zip(COLUMNS, (str, np.int64, np.int64, np.int64, np.float64, np.float64), strict=True))
ROWS_AT_ONCE = 1 << 18
REMEDY = "Give the folder as Space Ranger wrote it (outs)."


@dataclass(frozen=True)
class Positions:
    """Positions of the barcodes asked for; rows of those not ``found`` (barcode,) mean nothing.

    ``array`` (barcode, 3) int64 is in_tissue, array_row, array_col; ``xy_px`` (barcode, 2) float64 in full-resolution
    pixels; ``um_per_px`` by the lattice of all rows of the file, None where they span none.
    """

    found: NDArray[np.bool_]
    array: NDArray[np.int64]
    xy_px: NDArray[np.float64]
    um_per_px: float | None


def read_positions(path: Path, barcodes: list[str], step_um: tuple[float, float]) -> Positions:
    """Read positions in batches, of which only the rows of these barcodes (unique) are kept.

    The file is Parquet, or CSV with a header (from version 2) or without; ``step_um`` is one step of ``array_col`` and
    of ``array_row``. An InputError where it is damaged, or has a barcode asked for twice or at no finite position.
    """
    index = pd.Index(barcodes, dtype=object)
    found = np.zeros(len(index), bool)
    array, xy_px = np.zeros((len(index), 3), np.int64), np.zeros((len(index), 2))
    lattice = LatticeFit()
    for batch in _parquet_batches(path) if path.suffix == ".parquet" else _csv_batches(path):
        xy = batch[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(np.float64)
        lattice.add(batch[["array_col", "array_row"]].to_numpy(np.float64) * step_um, xy)
        at = index.get_indexer(pd.Index(batch["barcode"], dtype=object))
        rows = np.flatnonzero(at >= 0)
        at = at[rows]
        twice = found[at] | pd.Index(at).duplicated()
        if twice.any():
            raise InputError(f"{path} has more than one position for {barcodes[at[twice][0]]!r}.", REMEDY)
        bad = ~np.isfinite(xy[rows]).all(axis=1)
        if bad.any():
            raise InputError(f"{path}: the position of {barcodes[at[bad][0]]!r} is not finite.", REMEDY)
        found[at], xy_px[at] = True, xy[rows]
        array[at] = batch[list(COLUMNS[1:4])].to_numpy(np.int64)[rows]
    fitted = lattice.similarity()
    return Positions(found, array, xy_px, None if fitted is None else fitted.um_per_px)


def _parquet_batches(path: Path) -> Iterator[pd.DataFrame]:
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, list(file.schema_arrow.names))
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=list(COLUMNS)):
                yield batch.to_pandas().astype(TYPES)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read as positions: {str(error).splitlines()[0]}", REMEDY) from None


def _csv_batches(path: Path) -> Iterator[pd.DataFrame]:
    """Batches of a table with a header (from version 2) or without; told by whether the first row has numbers."""
    names = list(COLUMNS)
    for number, block in enumerate(blocks(path)):
        if number == 0:
            first = block.partition(b"\n")[0].decode(errors="replace").removeprefix("\ufeff")
            fields = [field.strip().strip('"') for field in first.split(",")]
            if not fields[1:2] or not fields[1].isdigit():
                _check_columns(path, names := fields)
                block = block.partition(b"\n")[2]
        if not block.strip():
            continue
        try:
            table = pd.read_csv(
                io.BytesIO(block), header=None, keep_default_na=False, dtype={0: str}, float_precision="round_trip"
            )
            if table.shape[1] != len(names):
                raise ValueError(f"{table.shape[1]} columns, not {len(names)}")
            yield table.set_axis(names, axis=1).astype(TYPES)
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"{path} cannot be read as positions: {str(error).splitlines()[0]}", REMEDY) from None


def _check_columns(path: Path, names: list[str]) -> None:
    missing = [name for name in COLUMNS if names.count(name) != 1]
    if missing:
        raise InputError(
            f"{path} is no table of positions: it lacks {', '.join(missing)}; its columns are {', '.join(names[:8])}.",
            REMEDY,
        )


DEFAULT_BIN_UM = 8.0
H5_NAMES = ("filtered_feature_bc_matrix.h5", "*filtered_feature_bc_matrix.h5")
MTX_FOLDER = "filtered_feature_bc_matrix"
SCALEFACTORS = "spatial/scalefactors_json.json"
BIN_FOLDER = re.compile(r"square_(\d+)um")
CELLS_FOLDER = "segmented_outputs"
CELL_MATRIX, CELL_OUTLINES = "filtered_feature_cell_matrix.h5", "cell_segmentations.geojson"

LEAST_PLACED = 0.1
"""Files of which a smaller share of the barcodes has a position are refused: those of another slide or bin size share
next to none, those of one sample, either of them cut down, share what both kept."""
MOST_UNPLACED = 0.1
"""Space Ranger gives every barcode a position: a larger share without one is worth a warning."""


def looks_like_visium(folder: Path) -> bool:
    """Whether the names in a folder, or in its ``outs``, are those of Visium, even where some are missing."""
    is_hd = looks_like_visium_hd(folder) or cells_folder(folder) is not None
    return not is_hd and any(_has_names(root) for root in (folder, folder / "outs"))


def looks_like_visium_hd(folder: Path) -> bool:
    """Whether a folder holds, or is, a ``square_...um`` folder of Visium HD."""
    return bool(bin_folders(folder))


def read_visium(folder: Path) -> Measured:
    """Read the ``outs`` folder of a Visium sample (v1 to v4), or the folder that ``outs`` lies in.

    Spots are those of the filtered matrix, in its order, as scanpy reads them; spots off the tissue that it names are
    kept. The size of a pixel is that of the lattice (neighbours are 100 um apart), fitted to all positions by least
    squares: ``spot_diameter_fullres`` is not of 55 um in all versions.

    Raises
    ------
    InputError
        Where a file is missing, damaged or of another sample, or the folder is of another platform.
    """
    check_folder(folder)
    if looks_like_visium_hd(folder) or cells_folder(folder) is not None:
        _refuse_hd(folder)
    outs = folder / "outs"
    root = outs if not _has_names(folder) and _has_names(outs) else folder
    check_inside(folder, root, what="the outs folder")
    factors_file = find_file(root, SCALEFACTORS, what="the scale factors")
    factors = finite_numbers(read_json(factors_file))
    if "bin_size_um" in factors:
        _refuse_hd(folder)
    return _measured(root, factors_file, factors, "visium", VISIUM_DIAMETER_UM, VISIUM_PITCH_UM, VISIUM_STEP_UM)


def read_visium_hd(folder: Path, bin_um: float | None = None) -> Measured:
    """Read the bins of one size of a Visium HD sample, by default of 8 um, or of what the ``square_...um`` folder has.

    The folder is ``outs``, the one it lies in, ``binned_outputs``, or one ``square_...um`` folder.

    Raises
    ------
    InputError
        Where bins of this size are not there, or a file is missing, damaged or of another sample.
    """
    check_folder(folder)
    bins = bin_folders(folder)
    if not bins:
        raise InputError(
            f"{folder} is not of Visium HD: no binned_outputs/square_008um or the like; it {describe_folder(folder)}.",
            REMEDY,
        )
    is_itself = list(bins.values()) == [folder]
    side = bin_um if bin_um is not None else next(iter(bins)) if is_itself else DEFAULT_BIN_UM
    if side not in bins:
        there = ", ".join(f"{size:g}" for size in sorted(bins))
        raise InputError(f"{folder} has no bins of {side:g} um; there are bins of {there} um.", "Choose one of these.")
    root = bins[side]
    check_inside(folder, root, what=f"the bins of {side:g} um")
    factors_file = find_file(root, SCALEFACTORS, what="the scale factors")
    factors = finite_numbers(read_json(factors_file))
    if factors.get("bin_size_um", side) != side:
        raise InputError(
            f"{factors_file} is of bins of {factors['bin_size_um']:g} um, but {root} is named for {side:g} um.", REMEDY
        )
    return _measured(root, factors_file, factors, "visium_hd", 2 * side / math.sqrt(math.pi), side, (side, side))


def _refuse_hd(folder: Path) -> NoReturn:
    raise InputError(
        f"{folder} is of Visium HD, not of Visium: it has square bins or segmented cells.",
        "Read it as Visium HD; a folder of one bin size must have the name Space Ranger gave it, as square_008um.",
    )


def _has_names(root: Path) -> bool:
    files = (SCALEFACTORS, "spatial/*tissue_positions*", *H5_NAMES, f"{MTX_FOLDER}/*matrix.mtx*")
    return root.is_dir() and any(next(root.glob(name), None) is not None for name in files)


def cells_folder(folder: Path) -> Path | None:
    """The folder of the cells that Space Ranger 4 segmented: below this one, or itself."""
    if not folder.is_dir():
        return None
    for root in (folder, folder / CELLS_FOLDER, folder / "outs" / CELLS_FOLDER):
        if any((root / name).is_file() for name in (CELL_MATRIX, CELL_OUTLINES)):
            return root
    return None


def bin_folders(folder: Path) -> dict[float, Path]:
    """Side of the bins in um, and their folder."""
    if not folder.is_dir():
        return {}
    if match := BIN_FOLDER.fullmatch(folder.resolve().name):
        return {float(match[1]): folder}
    for root in (folder, folder / "binned_outputs", folder / "outs" / "binned_outputs"):
        found = {
            float(match[1]): path
            for path in root.glob("square_*um")
            if (match := BIN_FOLDER.fullmatch(path.name)) and path.is_dir()
        }
        if found:
            return found
    return {}


def finite_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Those values that are finite numbers."""
    numbers = {key: value for key, value in values.items() if type(value) in (int, float) and abs(value) < 1e300}
    return {key: float(value) for key, value in numbers.items()}


def positive(factors_file: Path, factors: Mapping[str, float], key: str) -> float:
    """A scale factor, which must be above 0."""
    if not factors.get(key, 0) > 0:
        found = f"{factors[key]:g}" if key in factors else "missing or no number"
        raise InputError(f"{factors_file}: {key} is {found}, not a positive number.", REMEDY)
    return factors[key]


def _measured(
    root: Path,
    factors_file: Path,
    factors: dict[str, float],
    platform: str,
    diameter_um: float,
    pitch_um: float,
    step_um: tuple[float, float],
) -> Measured:
    positions_file = find_file(root, *POSITIONS, what="the positions of the spots")
    image, image_from_full = own_image(root, factors_file, factors)
    given = _counts(root)
    table = only_genes(given)
    positions = read_positions(positions_file, table.barcodes, step_um)
    _check_found(root, positions_file, table.barcodes, positions.found)
    kept = np.flatnonzero(positions.found)
    spot_ids = [table.barcodes[i] for i in kept.tolist()]
    is_stated = "microns_per_pixel" in factors
    um_per_px = positive(factors_file, factors, "microns_per_pixel") if is_stated else positions.um_per_px
    return Measured(
        platform=platform,
        spot_ids=spot_ids,
        gene_symbols=table.gene_symbols,
        gene_ids=table.gene_ids,
        counts=take(table.counts, kept),
        xy_px=positions.xy_px[kept],
        spot_diameter_um=diameter_um,
        um_per_px=um_per_px,
        pitch_um=pitch_um,
        scalefactors=factors,
        image=image,
        image_from_full=image_from_full,
        obs=pd.DataFrame(positions.array[kept], columns=list(COLUMNS[1:4]), index=pd.Index(spot_ids, dtype=object)),
        notices=_notices(positions_file, positions, given, table, um_per_px),
    )


def _counts(root: Path) -> TenxMatrix:
    folder = root / MTX_FOLDER
    path = find_optional(root, *H5_NAMES, what="the counts")
    if path is None and folder.is_dir():
        check_inside(root, folder, what="the counts")
        return read_mtx(folder)
    return read_h5(path or find_file(root, *H5_NAMES, f"{MTX_FOLDER}/matrix.mtx.gz", what="the counts"))


def own_image(root: Path, factors_file: Path, factors: Mapping[str, float]) -> tuple[Path | None, NDArray[np.float64]]:
    """The best image that is there, and the matrix to its pixels."""
    for kind in ("hires", "lowres"):
        path = find_optional(root, f"spatial/tissue_{kind}_image.png", what=f"the {kind} image")
        if path is not None:
            scale = positive(factors_file, factors, f"tissue_{kind}_scalef")
            return path, np.diag([scale, scale, 1.0])
    return None, np.eye(3)


def _check_found(root: Path, positions_file: Path, barcodes: list[str], found: NDArray[np.bool_]) -> None:
    missing = int((~found).sum())
    if found.mean() < LEAST_PLACED:
        raise InputError(
            f"{positions_file} has no position for {missing} of the {len(barcodes)} barcodes of the counts in {root}, "
            f"as {barcodes[int(np.argmin(found))]!r}: they are not of the same sample or bin size.",
            REMEDY,
        )


def _notices(
    path: Path, positions: Positions, given: TenxMatrix, table: TenxMatrix, um_per_px: float | None
) -> tuple[str, ...]:
    n = len(table.barcodes)
    missing = int((~positions.found).sum())
    off = int((positions.array[positions.found, 0] == 0).sum())
    others = len(given.gene_ids) - len(table.gene_ids)
    unplaced = f"{missing} of {n} barcodes have no position in {path.name} and are left out"
    if missing / n > MOST_UNPLACED:
        unplaced = f"Warning: {unplaced}: check that both are of the same sample and bin size"
    notices = {
        f"{unplaced}.": missing,
        f"{off} of {n - missing} spots are off the tissue by in_tissue; they are kept, as scanpy does.": off,
        f"{others} features that are not gene expression are left out.": others,
        f"The positions in {path.name} form no lattice: the size of a pixel is not known.": um_per_px is None,
    }
    return tuple(text for text, is_so in notices.items() if is_so)
