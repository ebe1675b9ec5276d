"""Counts as a folder with ``matrix.mtx``: the Matrix Market file, and the names of its rows and columns beside it."""

from __future__ import annotations

import csv
import io
import re
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from iscale.errors import InputError
from iscale.vendors.counts import Counts
from iscale.vendors.files import blocks, find_file, lines
from iscale.vendors.rearrange import Entries
from iscale.vendors.tenx_matrix import (
    MOST_UNFOLDED,
    REMEDY,
    TenxMatrix,
    check_range,
    check_values,
    checked,
    twice,
)

MTX_BANNER = b"%%MatrixMarket matrix coordinate"
MTX_SHORTEST_LINE = len(b"1 1 1\n")


def read_mtx(folder: Path) -> TenxMatrix:
    """Read a folder with ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv`` (or ``genes.tsv``), plain or gzipped.

    Raises
    ------
    InputError
        Where a file is missing or damaged, their lengths do not agree, or a count is not finite or below 0.
    """
    matrix = find_file(folder, *_names("matrix.mtx"), what="the counts")
    barcode_file = find_file(folder, *_names("barcodes.tsv"), what="the barcodes")
    feature_file = find_file(folder, *_names("features.tsv"), *_names("genes.tsv"), what="the genes")
    barcodes = [line.split("\t")[0] for line in lines(barcode_file)]
    features = [line.split("\t") for line in lines(feature_file)]
    typed = all(len(feature) > 2 for feature in features)
    table = TenxMatrix(
        barcodes=barcodes,
        gene_ids=[feature[0] for feature in features],
        gene_symbols=[feature[min(1, len(feature) - 1)] for feature in features],
        feature_types=[feature[2] for feature in features] if typed else None,
        genomes=None,
        counts=_mtx_counts(matrix, (len(features), len(barcodes))),
    )
    return checked(matrix, table)


def _names(name: str) -> tuple[str, ...]:
    """How a file may be named: gzipped or not, and with a prefix, as downloads have."""
    return f"{name}.gz", name, f"*{name}.gz", f"*{name}"


def _mtx_counts(path: Path, shape: tuple[int, int]) -> Counts:
    """Counts of (feature, barcode) entries, in whatever order."""
    parts = blocks(path)
    n, rest = _mtx_header(path, next(parts, b""), shape)
    entries = Entries(shape[::-1])
    count = 0
    for part in chain([rest], parts):
        table = _parse_entries(path, part, count)
        at, count = count, count + len(table)
        if count > n:
            break
        features, barcodes = (table[axis].to_numpy(np.int64) - 1 for axis in (0, 1))
        check_range(path, features, shape[0], "feature")
        check_range(path, barcodes, shape[1], "barcode")
        values = table[2].to_numpy(np.float32)
        check_values(path, values, at)
        entries.add(barcodes, features, values)
    if count != n:
        found = f"more, {count:,} or above" if count > n else f"{count:,}"
        raise InputError(f"{path} says it has {n:,} entries, but holds {found}.", REMEDY)
    counts = entries.counts()
    if counts.nnz < n:
        raise twice(path)
    return counts


def _mtx_header(path: Path, block: bytes, shape: tuple[int, int]) -> tuple[int, bytes]:
    """Number of entries, and what of the first block follows the header."""
    first, _, rest = block.partition(b"\n")
    banner = first.split()
    if banner[:3] != MTX_BANNER.split() or banner[3:] not in ([b"integer", b"general"], [b"real", b"general"]):
        raise InputError(
            f"{path} is no Matrix Market file of counts: it begins with {first[:60].decode(errors='replace')!r}.",
            f"Its first line must be '{MTX_BANNER.decode()} integer general'.",
        )
    line, _, rest = re.sub(rb"\A(?:%[^\n]*\n)+", b"", rest).partition(b"\n")
    sizes = line.split()
    if len(sizes) != 3 or not all(size.isdigit() and len(size) < 19 for size in sizes):
        shown = line[:60].decode(errors="replace")
        raise InputError(f"{path}: the line of sizes is {shown!r}, not three whole numbers.", REMEDY)
    rows, columns, n = map(int, sizes)
    if (rows, columns) != shape:
        raise InputError(
            f"{path} is {rows} features x {columns} barcodes, the files beside it name {shape[0]} and {shape[1]}.",
            "Give the three files of one matrix.",
        )
    # So that no size that a header merely claims is allocated.
    n_bytes = path.stat().st_size * (MOST_UNFOLDED if path.suffix == ".gz" else 1)
    if n > min(rows * columns, n_bytes // MTX_SHORTEST_LINE + 1):
        raise InputError(f"{path} says it has {n:,} entries, more than it can hold.", REMEDY)
    return n, rest


def _parse_entries(path: Path, part: bytes, before: int) -> pd.DataFrame:
    """Feature, barcode (both from 1) and count of each of a block of whole lines."""
    if not part.strip():
        return pd.DataFrame({0: [], 1: [], 2: []})
    types = {0: np.int64, 1: np.int64, 2: np.float64}
    try:
        table = pd.read_csv(io.BytesIO(part), sep=r"\s+", header=None, dtype=types, quoting=csv.QUOTE_NONE)
    except (ValueError, OverflowError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: after entry {before:,} a line is no entry ({reason}).", REMEDY) from None
    if table.shape[1] != 3:
        raise InputError(f"{path}: after entry {before:,} a line has {table.shape[1]} fields, not 3.", REMEDY)
    return table
