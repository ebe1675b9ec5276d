"""CosMx: the flat files of a run, as cells or, from the transcripts, as square bins.

A section lies in fields of view (fovs), whose global pixels have a corner, a direction and a size: 0.18 um in the first
release (a fov of 5472 x 3648 px), 0.12028 um since (4256 x 4256 px).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from iscale.captures.counts import Counts, CountsWriter, select_genes, take
from iscale.captures.measured import Measured
from iscale.captures.readers.binning import BIN_UM, BinCounts, GeneIndex, check_pixel, disc_diameter, median_diameter
from iscale.captures.readers.blocks import (
    cell_bounds,
    cell_numbers,
    column_named,
    csv_blocks,
    csv_header,
    in_both,
    number_columns,
    numbers,
    numbers_if_any,
)
from iscale.captures.readers.controls import is_control
from iscale.captures.readers.files import byte_lines, find_file, find_optional
from iscale.errors import InputError

ROWS_AT_ONCE = 256
NO_GENES = {"", "fov", "cell_id", "cell", "slide_id", "slide_id_numeric", "run_tissue_name"}


def genes_of(header: list[str]) -> list[str]:
    """Those columns of a matrix of cells that are genes."""
    return [name for name in header if name.lower() not in NO_GENES and not is_control(name)]


def cell_id(fov: str, cell: str) -> str | None:
    """Id of a cell, unique in the section: ``fov_cell``, or the file's own where it has such; None for background.

    >>> cell_id("3", "17"), cell_id("3", "c_1_3_17"), cell_id("3", "0")
    ('3_17', 'c_1_3_17', None)
    """
    if cell.rpartition("_")[2] == "0":
        return None
    return cell if "_" in cell else f"{fov}_{cell}"


def read_matrix(path: Path) -> tuple[list[str], list[str], Counts, tuple[str, ...]]:
    """Read a matrix of cells line by line: ids, genes, (cell, gene) float32 counts, and notices of what is left out."""
    header = csv_header(path)
    at = [column_named(header, name) for name in ("fov", "cell_ID")]
    genes = genes_of(header)
    if None in at or not genes:
        raise InputError(
            f"{path} has {len(genes):,} genes and begins with {', '.join(header[:8])}; fov, cell_ID and genes are due.",
            AGAIN,
        )
    wanted = np.flatnonzero([name.lower() not in NO_GENES and not is_control(name) for name in header])
    fov_at, cell_at = (header.index(str(name)) for name in at)
    names: list[str | None] = []

    def rows() -> Iterator[NDArray[np.float32]]:
        for number, line in enumerate(islice(byte_lines(path), 1, None), 2):
            starts, ends = cell_bounds(line, b",")
            if len(ends) != len(header):
                raise InputError(
                    f"{path}: line {number} has {len(ends)} cells, the header names {len(header)} columns.",
                    "Copy the file again; it may have been cut off.",
                )
            fov, cell = (line[starts[i] : ends[i]].decode(errors="replace").strip(' "') for i in (fov_at, cell_at))
            names.append(cell_id(fov, cell))
            if names[-1] is not None:
                yield _cells(path, line, starts[wanted], ends[wanted], f"{number} (cell {names[-1]})", genes)

    counts = CountsWriter(len(genes))
    counts.add_rows(rows(), ROWS_AT_ONCE)
    ids = [name for name in names if name is not None]
    background = len(names) - len(ids)
    controls = len([name for name in header if is_control(name)])
    notices = [f"{controls} of {len(genes) + controls} columns are controls and left out."] * (controls > 0)
    if background:
        notices.append(f"{background} rows of counts outside of cells (cell_ID 0) are left out.")
    return ids, genes, counts.done(), tuple(notices)


def _cells(
    path: Path, line: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64], row: str, genes: list[str]
) -> NDArray[np.float32]:
    """Counts of one line."""

    def number(at: int, raw: bytes) -> float:
        cell = raw.decode(errors="replace").strip(' "')
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not 0 <= np.float32(value) < math.inf:
            raise InputError(
                f"{path}: the count in line {row}, column {genes[at]!r} is {cell[:40]!r}.",
                "Give raw counts: whole numbers, 0 or more, in every cell.",
            )
        return value

    return cell_numbers(line, starts, ends, number)


MATRIX = ("*exprMat_file.csv", "*exprMat_file.csv.gz")
CELLS = ("*metadata_file.csv", "*metadata_file.csv.gz")
TRANSCRIPTS = ("*tx_file.csv", "*tx_file.csv.gz")
FOVS = ("*fov_positions_file.csv", "*fov_positions_file.csv.gz")


def looks_like(folder: Path) -> bool:
    """Whether a folder has flat files of CosMx, maybe not all."""
    return any(any(folder.glob(name)) for name in (*MATRIX, *CELLS, *TRANSCRIPTS, *FOVS))


def read(folder: Path, bin_um: float | None = None, um_per_px: float | None = None) -> Measured:
    """Read a folder with flat files of one CosMx section.

    It holds ``*_exprMat_file.csv`` and ``*_metadata_file.csv``, or ``*_tx_file.csv`` and ``*_fov_positions_file.csv``,
    each maybe ``.gz``. With ``bin_um`` transcripts are counted in square bins of that side; without cells are read,
    where there is a matrix of them. ``um_per_px``, the side of a pixel in um, is derived from the files by default.

    Raises
    ------
    InputError
        A file that is needed is missing or damaged, or files do not belong together.
    """
    if um_per_px is not None:
        check_pixel(um_per_px, "The option", PIXEL_REMEDY)
    matrix = find_optional(folder, *MATRIX, what="the counts of the cells")
    fovs, unused = _fovs_if_any(folder)
    if bin_um is None and matrix is not None:
        cells = find_file(folder, *CELLS, what=f"the positions of the cells that {matrix.name} counts")
        found = _read_cells(matrix, cells, fovs, um_per_px)
        return replace(found, notices=(*found.notices, *unused))
    transcripts = find_optional(folder, *TRANSCRIPTS, what="the transcripts")
    if transcripts is None:
        what = "counts (of cells, or transcripts)" if matrix is None else "the transcripts, which bins are made of"
        transcripts = find_file(folder, *MATRIX * (matrix is None), *TRANSCRIPTS, what=what)
    notices = unused
    if bin_um is None:
        bin_um = BIN_UM
        notices += (f"There is no {MATRIX[0]}: transcripts are counted in square bins of {bin_um:g} um.",)
    panel = [] if matrix is None else genes_of(csv_header(matrix))
    return _read_bins(transcripts, fovs, panel, bin_um, um_per_px, notices)


def _fovs_if_any(folder: Path) -> tuple[Fovs | None, tuple[str, ...]]:
    """The fields of view, where a file of them is there and can be used: they only tell, and check, more."""
    try:
        path = find_optional(folder, *FOVS, what="the positions of the fields of view")
        return None if path is None else read_fovs(path), ()
    except InputError as error:
        return None, (f"The positions of the fields of view are not used: {error.problem}",)


def _read_cells(matrix: Path, cells: Path, fovs: Fovs | None, um_per_px: float | None) -> Measured:
    ids, global_px, areas, frame = _read_metadata(cells, um_per_px)
    count_ids, genes, counts, dropped = read_matrix(matrix)
    rows, places, unmatched = in_both(matrix, count_ids, cells, ids)
    um, pixel_notice = pixel_size(um_per_px, fovs, frame)
    spot_ids = [count_ids[row] for row in rows.tolist()]
    diameter_px = median_diameter(None if areas is None else areas[places])
    index = pd.Index(spot_ids, dtype=object)
    return Measured(
        platform="cosmx",
        spot_ids=spot_ids,
        gene_symbols=genes,
        gene_ids=genes,
        counts=take(counts, rows),
        xy_px=frame.pixels(*global_px[places].T),
        spot_diameter_um=None if diameter_px is None else diameter_px * um,
        um_per_px=um,
        obs=None if areas is None else pd.DataFrame({"cell_area_um2": areas[places] * um**2}, index=index),
        notices=(frame.notice, pixel_notice, *dropped, *unmatched),
    )


def _read_metadata(
    path: Path, um_per_px: float | None
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64] | None, Frame]:
    """Ids of cells, (cell, 2) global pixels, (cell,) areas in square pixels if there are any, and their frame.

    Where the file has global positions in mm only, they are brought into pixels.
    """
    header = csv_header(path)
    fov, cell = (column_named(header, name) or name for name in ("fov", "cell_ID"))
    px, mm, local = ([f"Center{axis}_{unit}" for axis in "XY"] for unit in ("global_px", "global_mm", "local_px"))
    in_mm = not set(px) <= set(header) and set(mm) <= set(header)
    centres = mm if in_mm else px
    more = [*local * (set(local) <= set(header)), *["Area"] * ("Area" in header)]
    types = {fov: pa.int64(), cell: pa.string()}
    types |= dict.fromkeys(centres, pa.float64()) | dict.fromkeys(more, pa.string())  # what is not needed may be odd
    ids: list[str] = []
    fovs: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    parts = [np.empty((0, 2 + len(more)))]
    for table in csv_blocks(path, types):
        number = numbers(table, fov, path).astype(np.int64)
        found = [cell_id(str(f), c) for f, c in zip(number.tolist(), table.column(cell).to_pylist(), strict=True)]
        is_cell = np.array([name is not None for name in found], dtype=bool)
        odd = [numbers_if_any(table, name) for name in more]
        parts.append(np.column_stack([number_columns(table, centres, path), *odd])[is_cell])
        fovs.append(number[is_cell])
        ids += [name for name in found if name is not None]
    every, of_fov = np.concatenate(parts), np.concatenate(fovs)
    places = every[:, 2:4] if set(local) <= set(more) else None
    if in_mm:
        every[:, :2] *= 1000 / (um_per_px or _um_by_local(every[:, :2], places, of_fov) or NEW_UM)
    survey = Survey(path)
    if len(ids):
        survey.add(of_fov, [*every[:, :2].T, *(places.T if places is not None else ())])
    return ids, every[:, :2], every[:, -1] if "Area" in more else None, survey.frame()


def _um_by_local(mm: NDArray[np.float64], px: NDArray[np.float64] | None, fov: NDArray[np.int64]) -> float | None:
    """Side of a pixel by how far cells of a field of view lie apart in mm and in local pixels; the published, if near.

    None where that does not tell.
    """
    if px is None:
        return None
    groups = pd.DataFrame(np.column_stack([mm, px])).groupby(fov)
    spread = (groups.max() - groups.min()).sum()
    apart_px = float(spread[2] + spread[3])
    if not apart_px > 0:
        return None
    um = 1000 * float(spread[0] + spread[1]) / apart_px
    return next((known for known in (OLD_UM, NEW_UM) if abs(um / known - 1) < 0.01), um)


def _read_bins(
    path: Path, fovs: Fovs | None, panel: list[str], bin_um: float, um_per_px: float | None, notices: tuple[str, ...]
) -> Measured:
    header = csv_header(path)
    fov, target = (column_named(header, name) or name for name in ("fov", "target"))
    frame = _survey_transcripts(path, fov, header, fovs)
    um, pixel_notice = pixel_size(um_per_px, fovs, frame)
    index = GeneIndex(panel, is_gene=lambda name: not is_control(name))
    bins = BinCounts(bin_um, path)
    total = controls = 0
    for table in csv_blocks(path, {"x_global_px": pa.float64(), "y_global_px": pa.float64(), target: pa.string()}):
        gene = index.codes(table.column(target), path)
        kept = gene >= 0
        total, controls = total + len(gene), controls + int((~kept).sum())
        xy_um = frame.pixels(numbers(table, "x_global_px", path), numbers(table, "y_global_px", path))[kept] * um
        bins.add(gene[kept], xy_um[:, 0], xy_um[:, 1])
    binned, order = bins.result(len(index.names)), index.order()
    if not binned.ids:
        raise InputError(f"{path}: all {total:,} transcripts are controls.", "Give the transcripts of a whole run.")
    counted = f"Of {total:,} transcripts {controls:,} are controls and left out, {total - controls:,} are counted."
    symbols = [index.names[at] for at in order]
    return Measured(
        platform="cosmx",
        spot_ids=binned.ids,
        gene_symbols=symbols,
        gene_ids=symbols,
        counts=select_genes(binned.counts, np.array(order)),
        xy_px=binned.xy_um / um,
        spot_diameter_um=disc_diameter(bin_um**2),
        um_per_px=um,
        pitch_um=bin_um,
        notices=(*notices, frame.notice, pixel_notice, counted),
    )


def _survey_transcripts(path: Path, fov: str, header: list[str], fovs: Fovs | None) -> Frame:
    """The frame of the transcripts, in a reading of its own: the corner is needed before the first bin is laid."""
    local = [name for name in ("x_local_px", "y_local_px") if name in header]
    places = ["x_global_px", "y_global_px", *local * (len(local) == 2)]
    survey = Survey(path)
    for table in csv_blocks(path, {fov: pa.int64()} | dict.fromkeys(places, pa.float64())):
        survey.add(numbers(table, fov, path).astype(np.int64), list(number_columns(table, places, path).T))
    if fovs is not None and len(unknown := np.setdiff1d(survey.fovs, fovs.number)):
        raise InputError(
            f"{path} has transcripts of {len(survey.fovs)} fields of view; {fovs.path.name} lacks {len(unknown)} of "
            f"them: {', '.join(map(str, unknown[:8].tolist()))}.",
            "Give the files of the same section.",
        )
    return survey.frame()


OLD_UM, NEW_UM = 0.18, 0.12028
OLD_FOV_PX, NEW_FOV_PX = (5472, 3648), (4256, 4256)
PIXEL_REMEDY = f"It is {NEW_UM:g} for current instruments, {OLD_UM:g} for the first release: give the right one."

SHIFT_PX = 5.0
"""How far global minus local positions may vary in a fov: the centres of cells are rounded, one of them at a time."""

AGAIN = "Export the flat files of the run again."


@dataclass(frozen=True)
class Fovs:
    """Corners of the fields of view: unique numbers, (fov, 2) x, y in global pixels and in mm, each where known."""

    path: Path
    number: NDArray[np.int64]
    px: NDArray[np.float64] | None
    mm: NDArray[np.float64] | None


@dataclass(frozen=True)
class Frame:
    """The capture's own pixels: global pixels from a corner (x, y), y downwards.

    ``y_sign`` is 1 where global y runs down, -1 where it runs up; ``largest_local`` the largest local x and y in the
    file, in pixels, 0 where it has none; the notice says what was done to the positions; ``corners`` are x, y of the
    fields of view in global pixels, by their numbers, where local positions tell them.
    """

    corner: tuple[float, float]
    y_sign: int
    largest_local: tuple[float, float]
    notice: str
    corners: Mapping[int, tuple[float, float]] = field(default_factory=dict)

    def pixels(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions (point, 2) in pixels of the capture, of global x and y."""
        return np.column_stack([x - self.corner[0], self.y_sign * (y - self.corner[1])])


class Survey:
    """Extent of global and local positions per field of view, gathered block by block."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self._low = self._high = pd.DataFrame()

    def add(self, fov: NDArray[np.int64], columns: list[NDArray[np.float64]]) -> None:
        """Take in global x and y, and local x and y where the file has them, each (point,)."""
        x, y = columns[:2]
        values = {"x": x, "y": y}
        if len(columns) == 4:
            u, v = columns[2:]
            values |= {"u": u, "v": v, "x_shift": x - u, "y_down": y - v, "y_up": y + v}
        groups = pd.DataFrame(values).groupby(fov)
        self._low = pd.concat([self._low, groups.min()]).groupby(level=0).min()
        self._high = pd.concat([self._high, groups.max()]).groupby(level=0).max()

    @property
    def fovs(self) -> NDArray[np.int64]:
        """Numbers of the fields of view that were met, sorted."""
        return np.asarray(self._low.index, np.int64)

    def frame(self) -> Frame:
        """The frame that these lie in; an InputError where global and local positions differ by more than a shift."""
        if self._low.empty:
            raise InputError(f"{self.source} has no rows that could be used.", AGAIN)
        low, high = self._low, self._high
        if "u" not in low or low["u"].isna().all() or low["v"].isna().all():
            corner = float(low["x"].min()), float(low["y"].min())
            return Frame(
                corner, 1, (0.0, 0.0), _frame_notice(corner, "as global y does: there is no local y to compare")
            )
        self._check_shift()
        spread = high - low
        largest = float(high["u"].max()), float(high["v"].max())
        if spread["y_down"].max() <= spread["y_up"].max():
            corner = float(low["x_shift"].min()), float(low["y_down"].min())
            how = "as global and local y do in this file"
            return Frame(corner, 1, largest, _frame_notice(corner, how), self._corners("y_down"))
        corner = float(low["x_shift"].min()), float(high["y_up"].max())
        how = "as local y does; global y runs upwards in this file and is turned round"
        return Frame(corner, -1, largest, _frame_notice(corner, how), self._corners("y_up"))

    def _corners(self, y: str) -> dict[int, tuple[float, float]]:
        middle = ((self._low + self._high) / 2)[["x_shift", y]].dropna()
        return {int(fov): (float(x), float(v)) for fov, x, v in middle.itertuples()}

    def _check_shift(self) -> None:
        x, down, up = ((self._high - self._low)[name].max() for name in ("x_shift", "y_down", "y_up"))
        for axis, worst in (("x", x), ("y", min(down, up))):
            if worst > SHIFT_PX:
                raise InputError(
                    f"{self.source}: global and local {axis} do not belong together: their difference varies by "
                    f"{worst:.0f} px in a field of view, {SHIFT_PX:g} are the most.",
                    f"{AGAIN} Without its local columns the file is read with y as it is.",
                )


def _frame_notice(corner: tuple[float, float], how: str) -> str:
    return (
        f"Positions are counted from x {corner[0]:.1f}, y {corner[1]:.1f} of the vendor's global pixels, "
        f"the corner of the fields of view; y runs downwards {how}."
    )


def read_fovs(path: Path) -> Fovs:
    """Read the corners of the fields of view."""
    header = csv_header(path)
    fov = column_named(header, "fov") or "fov"
    in_px = [column_named(header, f"{axis}_global_px") for axis in "xy"]
    in_mm = [column_named(header, f"{axis}_global_mm", f"{axis}_mm") for axis in "xy"]
    px, mm = ([name for name in pair if name is not None and None not in pair] for pair in (in_px, in_mm))
    names = [fov, *(px or ([] if mm else ["x_global_px", "y_global_px"])), *mm]
    tables = list(csv_blocks(path, {name: pa.float64() for name in names}))
    values = np.concatenate([np.empty((0, len(names)))] + [number_columns(table, names, path) for table in tables])
    number = values[:, 0].astype(np.int64)
    if len(number) == 0 or len(np.unique(number)) < len(number):
        raise InputError(
            f"{path} has {len(number)} fields of view, {len(number) - len(np.unique(number))} of them again.",
            "Give the positions of one section, in which every field of view comes once.",
        )
    return Fovs(path, number, values[:, 1:3] if px else None, values[:, -2:] if mm else None)


def pixel_size(given: float | None, fovs: Fovs | None, frame: Frame) -> tuple[float, str]:
    """Side of a pixel, in um, and where it comes from; an InputError where what the files say is not plausible."""
    derived, how = _derived_pixel(fovs, frame)
    if given is None:
        check_pixel(derived or NEW_UM, "The files" if fovs is None else str(fovs.path), PIXEL_REMEDY)
        return derived or NEW_UM, f"A pixel is {derived or NEW_UM:.5g} um, {how}."
    differs = derived is not None and abs(derived / given - 1) > 0.01
    return given, f"A pixel is {given:.5g} um, as given{f' (the files say {derived:.5g} um, {how})' * differs}."


def _derived_pixel(fovs: Fovs | None, frame: Frame) -> tuple[float | None, str]:
    if fovs is not None and fovs.mm is not None:
        rows = [i for i, number in enumerate(fovs.number.tolist()) if number in frame.corners]
        px = fovs.px if fovs.px is not None else np.array([frame.corners[int(fovs.number[i])] for i in rows])
        mm = fovs.mm if fovs.px is not None else fovs.mm[rows]
        extent = np.ptp(px, axis=0).sum() if len(px) else 0
        if extent > 0:  # the sum, as some exports swap the axes of mm
            um = 1000 * float(np.ptp(mm, axis=0).sum() / extent)
            where = "has positions in pixels and in mm" if fovs.px is not None else "has the positions in mm"
            return um, f"as {fovs.path.name} {where}"
    if fovs is not None and fovs.px is not None:
        for um, sides in ((OLD_UM, OLD_FOV_PX), (NEW_UM, NEW_FOV_PX)):
            for axis, side in enumerate(sides):
                pitch = _pitch(fovs.px[:, axis])
                if pitch is not None and abs(pitch / side - 1) < 0.01:
                    return um, f"as fields of view lie {pitch:.0f} px apart in {'xy'[axis]}"
    width, height = frame.largest_local
    if width > 1.01 * NEW_FOV_PX[0]:
        return OLD_UM, f"as a field of view is {width:.0f} px wide"
    if height > 1.01 * OLD_FOV_PX[1]:
        return NEW_UM, f"as a field of view is {height:.0f} px high"
    return None, "that of current instruments: the files do not tell (give the pixel size if it is another)"


def _pitch(px: NDArray[np.float64]) -> float | None:
    """Distance of neighbouring columns (or rows) of fields of view; those of one column differ by a few pixels."""
    apart = np.diff(np.sort(px))
    apart = apart[apart > 100]
    return float(apart.min()) if len(apart) else None
