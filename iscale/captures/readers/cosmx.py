"""CosMx: the flat files of a run, as cells or, from the transcripts, as square bins."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from iscale.captures.counts import Counts, CountsWriter
from iscale.captures.measured import Measured
from iscale.captures.readers.binning import BIN_UM, BinCounts, GeneIndex, disc_diameter
from iscale.captures.readers.blocks import column_named, csv_blocks, csv_header, in_both, number_columns, numbers
from iscale.captures.readers.cosmx_frame import AGAIN, Fovs, Frame, Survey, check_pixel, pixel_size, read_fovs
from iscale.captures.readers.files import blocks, find_file, find_optional
from iscale.captures.rearrange import select_genes, take
from iscale.errors import InputError

CONTROL = re.compile("NegPrb|Negative|SystemControl|FalseCode")
ROWS_AT_ONCE = 256
NO_GENES = {"", "fov", "cell_id", "cell", "slide_id", "slide_id_numeric", "run_tissue_name"}


def genes_of(header: list[str]) -> list[str]:
    """Those columns of a matrix of cells that are genes."""
    return [name for name in header if name.lower() not in NO_GENES and not CONTROL.match(name)]


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
    wanted = np.flatnonzero([name.lower() not in NO_GENES and not CONTROL.match(name) for name in header])
    fov_at, cell_at = (header.index(str(name)) for name in at)
    ids: list[str] = []
    counts = CountsWriter(len(genes))
    rows: list[NDArray[np.float32]] = []
    background = 0
    for number, line in _rows(path):
        ends = _ends(path, number, line, len(header))
        starts = np.append(0, ends[:-1] + 1)
        fov, cell = (line[starts[i] : ends[i]].decode(errors="replace").strip(' "') for i in (fov_at, cell_at))
        name = cell_id(fov, cell)
        if name is None:
            background += 1
            continue
        rows.append(_cells(path, line, starts[wanted], ends[wanted], f"{number} (cell {name})", genes))
        ids.append(name)
        if len(rows) == ROWS_AT_ONCE:
            counts.add(sparse.csr_matrix(np.stack(rows)))
            rows = []
    if rows:
        counts.add(sparse.csr_matrix(np.stack(rows)))
    controls = len([name for name in header if CONTROL.match(name)])
    notices = [f"{controls} of {len(genes) + controls} columns are controls and left out."] * (controls > 0)
    if background:
        notices.append(f"{background} rows of counts outside of cells (cell_ID 0) are left out.")
    return ids, genes, counts.done(), tuple(notices)


def _rows(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines after the header that are not blank, with their number in the file, counted without blank ones."""
    number = 0
    for block in blocks(path):
        for line in block.split(b"\n"):
            if line := line.rstrip(b"\r"):
                number += 1
                if number > 1:
                    yield number, line


def _ends(path: Path, number: int, line: bytes, n_columns: int) -> NDArray[np.int64]:
    """Where the cells of a line end."""
    ends = np.append(np.flatnonzero(np.frombuffer(line, np.uint8) == ord(",")), len(line))
    if len(ends) != n_columns:
        raise InputError(
            f"{path}: line {number} has {len(ends)} cells, the header names {n_columns} columns.",
            "Copy the file again; it may have been cut off.",
        )
    return ends


def _cells(
    path: Path, line: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64], row: str, genes: list[str]
) -> NDArray[np.float32]:
    """Counts of one line. Nearly all cells are one digit, which needs no parser."""
    text = np.frombuffer(line + b",", np.uint8)
    digit = text[starts].astype(np.int16) - ord("0")
    simple = (ends - starts == 1) & (digit >= 0) & (digit <= 9)
    counts = np.where(simple, digit, 0).astype(np.float32)
    for at in np.flatnonzero(~simple).tolist():
        cell = line[starts[at] : ends[at]].decode(errors="replace").strip(' "')
        try:
            counts[at] = float(cell)
        except ValueError:
            counts[at] = math.nan
        if not (np.isfinite(counts[at]) and counts[at] >= 0):
            raise InputError(
                f"{path}: the count in line {row}, column {genes[at]!r} is {cell[:40]!r}.",
                "Give raw counts: whole numbers, 0 or more, in every cell.",
            )
    return counts


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
        check_pixel(um_per_px, "The option")
    matrix = find_optional(folder, *MATRIX, what="the counts of the cells")
    fov_file = find_optional(folder, *FOVS, what="the positions of the fields of view")
    fovs = None if fov_file is None else read_fovs(fov_file)
    if bin_um is None and matrix is not None:
        cells = find_file(folder, *CELLS, what=f"the positions of the cells that {matrix.name} counts")
        return _read_cells(matrix, cells, fovs, um_per_px)
    transcripts = find_optional(folder, *TRANSCRIPTS, what="the transcripts")
    if transcripts is None:
        what = "counts (of cells, or transcripts)" if matrix is None else "the transcripts, which bins are made of"
        transcripts = find_file(folder, *MATRIX * (matrix is None), *TRANSCRIPTS, what=what)
    if fovs is None:
        find_file(folder, *FOVS, what=f"the positions of the fields of view that {transcripts.name} names")
    assert fovs is not None
    notices: tuple[str, ...] = ()
    if bin_um is None:
        bin_um = BIN_UM
        notices = (f"There is no {MATRIX[0]}: transcripts are counted in square bins of {bin_um:g} um.",)
    panel = [] if matrix is None else genes_of(csv_header(matrix))
    return _read_bins(transcripts, fovs, panel, bin_um, um_per_px, notices)


def _read_cells(matrix: Path, cells: Path, fovs: Fovs | None, um_per_px: float | None) -> Measured:
    ids, global_px, areas, frame = _read_metadata(cells)
    count_ids, genes, counts, dropped = read_matrix(matrix)
    rows, places, unmatched = in_both(matrix, count_ids, cells, ids)
    um, pixel_notice = pixel_size(um_per_px, fovs, frame)
    spot_ids = [count_ids[row] for row in rows.tolist()]
    index = pd.Index(spot_ids, dtype=object)
    return Measured(
        platform="cosmx",
        spot_ids=spot_ids,
        gene_symbols=genes,
        gene_ids=genes,
        counts=counts if len(rows) == len(count_ids) else take(counts, rows),
        xy_px=frame.pixels(*global_px[places].T),
        spot_diameter_um=None if areas is None else disc_diameter(float(np.median(areas[places]))) * um,
        um_per_px=um,
        obs=None if areas is None else pd.DataFrame({"cell_area_um2": areas[places] * um**2}, index=index),
        notices=(frame.notice, pixel_notice, *dropped, *unmatched),
    )


def _read_metadata(path: Path) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64] | None, Frame]:
    """Ids of cells, (cell, 2) global pixels, (cell,) areas in square pixels if there are any, and their frame."""
    header = csv_header(path)
    fov, cell = (column_named(header, name) or name for name in ("fov", "cell_ID"))
    centres = ["CenterX_global_px", "CenterY_global_px"]
    local = [name for name in ("CenterX_local_px", "CenterY_local_px") if name in header]
    measured = [*centres, *local * (len(local) == 2), *[name for name in ("Area",) if name in header]]
    types = {fov: pa.int64(), cell: pa.string()} | dict.fromkeys(measured, pa.float64())
    survey = Survey(path)
    ids: list[str] = []
    parts = [np.empty((0, len(measured)))]
    for table in csv_blocks(path, types):
        number = numbers(table, fov, path).astype(np.int64)
        found = [cell_id(str(f), c) for f, c in zip(number.tolist(), table.column(cell).to_pylist(), strict=True)]
        is_cell = np.array([name is not None for name in found], dtype=bool)
        values = number_columns(table, measured, path)[is_cell]
        survey.add(number[is_cell], list(values[:, : 2 + 2 * (len(local) == 2)].T))
        ids += [name for name in found if name is not None]
        parts.append(values)
    every = np.concatenate(parts)
    return ids, every[:, :2], every[:, -1] if measured[-1] == "Area" else None, survey.frame()


def _read_bins(
    path: Path, fovs: Fovs, panel: list[str], bin_um: float, um_per_px: float | None, notices: tuple[str, ...]
) -> Measured:
    header = csv_header(path)
    fov, target = (column_named(header, name) or name for name in ("fov", "target"))
    frame = _survey_transcripts(path, fov, header, fovs)
    um, pixel_notice = pixel_size(um_per_px, fovs, frame)
    index = GeneIndex(panel, is_gene=lambda name: CONTROL.match(name) is None)
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


def _survey_transcripts(path: Path, fov: str, header: list[str], fovs: Fovs) -> Frame:
    """The frame of the transcripts, in a reading of its own: the corner is needed before the first bin is laid."""
    local = [name for name in ("x_local_px", "y_local_px") if name in header]
    places = ["x_global_px", "y_global_px", *local * (len(local) == 2)]
    survey = Survey(path)
    for table in csv_blocks(path, {fov: pa.int64()} | dict.fromkeys(places, pa.float64())):
        survey.add(numbers(table, fov, path).astype(np.int64), list(number_columns(table, places, path).T))
    if len(unknown := np.setdiff1d(survey.fovs, fovs.number)):
        raise InputError(
            f"{path} has transcripts of {len(survey.fovs)} fields of view; {fovs.path.name} lacks {len(unknown)} of "
            f"them: {', '.join(map(str, unknown[:8].tolist()))}.",
            "Give the files of the same section.",
        )
    return survey.frame()
