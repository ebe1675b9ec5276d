"""Xenium: the output folder of Xenium Onboard Analysis, as cells or, from the transcripts, as square bins.

Positions are um in the vendor's files. The pixels of the capture are those of the full-resolution morphology image,
``pixel_size`` um of ``experiment.xenium`` each. A Xenium folder has no H&E of its own; where Xenium Explorer's
alignment of one lies in it, that H&E is the capture's image.
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from iscale.captures.counts import select_genes, take
from iscale.captures.measured import Measured
from iscale.captures.readers.binning import BIN_UM, BinCounts, GeneIndex, check_pixel, disc_diameter, median_diameter
from iscale.captures.readers.blocks import (
    csv_blocks,
    csv_header,
    in_both,
    numbers,
    numbers_if_any,
    parquet_blocks,
    parquet_header,
)
from iscale.captures.readers.controls import is_control, is_gene_type
from iscale.captures.readers.files import find_file, find_optional, lines, read_json
from iscale.captures.readers.tenx_matrix import only_genes, open_h5, read_h5
from iscale.errors import InputError
from iscale.transform import checked_matrix

EXPERIMENT = "experiment.xenium"
MATRIX = "cell_feature_matrix.h5"
CELLS = ("cells.parquet", "cells.csv.gz", "cells.csv")
TRANSCRIPTS = ("transcripts.parquet", "transcripts.csv.gz", "transcripts.csv")
ALIGNMENT = "*imagealignment.csv"
HE = re.compile(r"(?<![a-z0-9])h(_?and_?|n|&|_|-)?e(?![a-z0-9])", re.IGNORECASE)
OTHER_STAIN = re.compile(r"(?<![a-z0-9])(m?if|ihc|dapi|immuno\w*|fluor\w*)(?![a-z0-9])", re.IGNORECASE)
ALIGNMENT_REMEDY = "Give it as Xenium Explorer exports it: 3 lines of 3 numbers with commas."

LEAST_QV = 20.0
"""The vendor's own threshold: transcripts below it (probability of a wrong call above 1 %) are in no cell's counts."""

TEXT_COLUMNS = {
    "cell_id": pa.string(),
    "cell_area": pa.string(),
    "feature_name": pa.string(),
    "codeword_category": pa.string(),
}
UNIT_REMEDY = (
    f"Put the {EXPERIMENT} of this run into the folder: it holds pixel_size, the um of a pixel (0.2125 for Xenium)."
)


def looks_like(folder: Path) -> bool:
    """Whether a folder is a Xenium output, maybe an incomplete one."""
    return any((folder / name).is_file() for name in (EXPERIMENT, MATRIX, *TRANSCRIPTS))


def read(folder: Path, bin_um: float | None = None) -> Measured:
    """Read the output folder with ``experiment.xenium``.

    With ``bin_um`` transcripts are counted in square bins of that side; without cells are read, where there is a
    matrix.

    Raises
    ------
    InputError
        A file that is needed is missing or damaged, the pixel size is not known, or files do not belong together.
    """
    um_per_px = _pixel_size(folder)
    matrix = find_optional(folder, MATRIX, what="the counts of the cells")
    image, image_from_full, notices = _aligned_image(folder)
    if bin_um is None and matrix is None:
        find_file(folder, MATRIX, *TRANSCRIPTS, what="counts (of cells, or transcripts)")
        bin_um = BIN_UM
        notices += (f"There is no {MATRIX}: transcripts are counted in square bins of {bin_um:g} um.",)
    if bin_um is None:
        assert matrix is not None
        found = _read_cells(folder, matrix, um_per_px)
    else:
        source = find_file(folder, *TRANSCRIPTS, what="the transcripts, which bins are made of")
        found = _read_bins(source, matrix, bin_um, um_per_px)
    return replace(found, image=image, image_from_full=image_from_full, notices=(*notices, *found.notices))


def _pixel_size(folder: Path) -> float:
    path = find_optional(folder, EXPERIMENT, what="the description of the run")
    if path is None:
        raise InputError(f"{folder} has no {EXPERIMENT}: the unit is missing, um per pixel is not known.", UNIT_REMEDY)
    value = read_json(path).get("pixel_size")
    if isinstance(value, bool) or not isinstance(value, int | float):
        shown = "no pixel_size" if value is None else f"the pixel_size {value!r}, which is no number"
        raise InputError(f"{path} has {shown}: the unit is missing, um per pixel is not known.", UNIT_REMEDY)
    check_pixel(value, str(path), UNIT_REMEDY)
    return float(value)


def _blocks(path: Path, columns: list[str]) -> Iterator[pa.Table]:
    if path.name.endswith(".parquet"):
        return parquet_blocks(path, columns)
    types = {name: TEXT_COLUMNS.get(name, pa.float64()) for name in columns}
    return csv_blocks(path, types | ({"is_gene": pa.bool_()} if "is_gene" in types else {}))


def _header(path: Path) -> list[str]:
    return parquet_header(path) if path.name.endswith(".parquet") else csv_header(path)


def _read_cells(folder: Path, matrix: Path, um_per_px: float) -> Measured:
    source = find_file(folder, *CELLS, what=f"the positions of the cells that {MATRIX} counts")
    ids, xy_um, areas = _cell_table(source)
    every = read_h5(matrix)
    table = only_genes(every)
    dropped = Counter(kind for kind in every.feature_types or () if not is_gene_type(kind))
    of_each = ", ".join(f"{number:,} {kind}" for kind, number in sorted(dropped.items()))
    no_genes = f"{dropped.total():,} of {len(every.gene_ids):,} features are no genes and left out: {of_each}."
    rows, places, unmatched = in_both(matrix, table.barcodes, source, ids)
    spot_ids = [table.barcodes[row] for row in rows.tolist()]
    return Measured(
        platform="xenium",
        spot_ids=spot_ids,
        gene_symbols=table.gene_symbols,
        gene_ids=table.gene_ids,
        counts=take(table.counts, rows),
        xy_px=xy_um[places] / um_per_px,
        spot_diameter_um=median_diameter(None if areas is None else areas[places]),
        um_per_px=um_per_px,
        obs=None
        if areas is None
        else pd.DataFrame({"cell_area_um2": areas[places]}, index=pd.Index(spot_ids, dtype=object)),
        notices=(*[no_genes] * bool(dropped), *unmatched),
    )


def _cell_table(path: Path) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64] | None]:
    """Ids, (cell, 2) centroids in um and, where the table has them, (cell,) areas in um^2."""
    has_area = "cell_area" in _header(path)
    columns = ["cell_id", "x_centroid", "y_centroid", *["cell_area"] * has_area]
    ids: list[str] = []
    parts: list[NDArray[np.float64]] = []
    for table in _blocks(path, columns):
        ids += [_text(value, path) for value in table.column("cell_id").to_pylist()]
        at = [numbers(table, name, path) for name in columns[1:3]]
        parts.append(np.column_stack([*at, *[numbers_if_any(table, name) for name in columns[3:]]]))
    if not ids:
        raise InputError(f"{path} names no cells.", "Copy it again from the instrument's output.")
    values = np.concatenate(parts)
    return ids, values[:, :2], values[:, 2] if has_area else None


def _text(value: object, path: Path) -> str:
    """A cell's id: text today, whole numbers in the first versions, bytes where Parquet does not say it is text."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if not isinstance(value, str | int) or value == "":
        raise InputError(f"{path} names {value!r} as a cell_id.", "Every cell needs an id: copy the file again.")
    return str(value)


def _read_bins(source: Path, matrix: Path | None, bin_um: float, um_per_px: float) -> Measured:
    gene_ids, symbols = _panel(matrix) if matrix is not None else ([], [])
    index = GeneIndex(symbols, is_gene=lambda name: not is_control(name))
    bins = BinCounts(bin_um, source)
    left_out = _count(source, index, bins)
    binned = bins.result(len(index.names))
    if not binned.ids:
        raise InputError(f"{source}: no transcript remains. {left_out}", "Give the transcripts of a whole run.")
    order = index.order()
    return Measured(
        platform="xenium",
        spot_ids=binned.ids,
        gene_symbols=[index.names[at] for at in order],
        gene_ids=gene_ids + [index.names[at] for at in order[len(symbols) :]],
        counts=select_genes(binned.counts, np.array(order)),
        xy_px=binned.xy_um / um_per_px,
        spot_diameter_um=disc_diameter(bin_um**2),
        um_per_px=um_per_px,
        pitch_um=bin_um,
        notices=(left_out,),
    )


def _panel(path: Path) -> tuple[list[str], list[str]]:
    """Ids and symbols of the genes of a matrix, without reading its counts."""
    with open_h5(path, "Copy it again, or take it out of the folder: bins can be made without it.") as file:
        features = file["matrix/features"]
        columns = [[raw.decode() for raw in features[name][:]] for name in ("id", "name", "feature_type")]
    genes = [(i, name) for i, name, kind in zip(*columns, strict=True) if is_gene_type(kind) and not is_control(name)]
    return [gene for gene, _ in genes], [name for _, name in genes]


def _count(path: Path, index: GeneIndex, bins: BinCounts) -> str:
    """Add the transcripts of a file that are genes' and of good quality; says what is left out."""
    header = _header(path)
    tells = next((name for name in ("is_gene", "codeword_category") if name in header), None)
    columns = ["feature_name", "x_location", "y_location", "qv", *([tells] if tells else [])]
    total = controls = poor = 0
    for table in _blocks(path, columns):
        total += table.num_rows
        table = table if tells is None else table.filter(_are_genes(table.column(tells), tells))
        gene = index.codes(table.column("feature_name"), path)
        known, good = gene >= 0, numbers(table, "qv", path) >= LEAST_QV
        poor += int((known & ~good).sum())
        kept = known & good
        controls -= int(known.sum())
        bins.add(gene[kept], *(numbers(table, name, path)[kept] for name in ("x_location", "y_location")))
    controls += total
    how = f"by the column {tells}, or by their names" if tells else "by their names"
    return (
        f"Of {total:,} transcripts {controls:,} are controls ({how}) and {poor:,} have a qv under {LEAST_QV:g}: "
        f"both are left out, {total - controls - poor:,} are counted."
    )


def _are_genes(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    if name == "is_gene":
        return pc.fill_null(pc.cast(column, pa.bool_()), False)
    # predesigned_gene, custom_gene; against negative_control_codeword, unassigned_codeword ...
    kinds = pc.unique(pc.cast(column, pa.string()))
    genes = [kind for kind in kinds.to_pylist() if kind is not None and is_gene_type(kind)]
    return pc.is_in(pc.cast(column, pa.string()), pa.array(genes, pa.string()))


def _aligned_image(folder: Path) -> tuple[Path | None, NDArray[np.float64], tuple[str, ...]]:
    """The H&E that Xenium Explorer aligned, the matrix from morphology pixels to its pixels, and notices."""
    path, chosen = _alignment(folder)
    if path is None:
        return None, np.eye(3), chosen
    try:
        values = [[float(cell) for cell in line.split(",")] for line in lines(path)]
    except ValueError:
        raise InputError(f"{path} is no matrix: not all of it are numbers.", ALIGNMENT_REMEDY) from None
    matrix = checked_matrix(values, str(path), remedy=ALIGNMENT_REMEDY)
    from_morphology = np.asarray(np.linalg.inv(matrix), np.float64)
    before = path.name.removesuffix("imagealignment.csv")
    beside = f"{glob.escape(before)}image.ome.tif*"
    image = find_optional(folder, beside, *_image_names(before.rstrip("_-. ")), what="the H&E image that is aligned")
    if image is None:
        lost = f"{path.name} aligns an H&E image that is not in the folder: it is not used."
        return None, np.eye(3), (*chosen, lost)
    return image, from_morphology, (*chosen, f"The H&E is {image.name}, placed by {path.name}.")


def told(folder: Path) -> tuple[str, ...]:
    """Which alignment of an H&E is taken, where one is there."""
    path, chosen = _alignment(folder)
    return chosen or ((f"Its H&E is placed by {path.name}.",) if path is not None else ())


def _alignment(folder: Path) -> tuple[Path | None, tuple[str, ...]]:
    """The alignment of the H&E, by name where there are several, and what was chosen."""
    found = sorted(path.name for path in folder.glob(ALIGNMENT) if not path.name.startswith("."))
    others = [name for name in found if OTHER_STAIN.search(name) and not HE.search(name)]
    by_name = [name for name in found if HE.search(name)] or [name for name in found if name not in others]
    if found and not by_name:
        return None, (f"{', '.join(found)}: by its name of another image than an H&E; it is not used.",)
    wanted = glob.escape(by_name[0]) if len(by_name) == 1 else ALIGNMENT
    path = find_optional(folder, wanted, what="the alignment of an H&E image")
    if len(found) < 2:
        return path, ()
    left = ", ".join(name for name in found if name != by_name[0])
    return path, (f"Of {len(found)} alignments {by_name[0]} is taken, that of the H&E by its name; not {left}.",)


def _image_names(stem: str) -> list[str]:
    """Names of the H&E image of an alignment: of the same stem first, then as 10x calls it."""
    own = [glob.escape(stem) + end for end in ("_image.ome.tif*", ".ome.tif*", "image.ome.tif*")] if stem else []
    other = [glob.escape(stem) + end for end in (".tif", ".tiff", ".svs", ".ndpi", ".jpg", ".png")] if stem else []
    return [*own, "*he_image*.ome.tif*", *other]
