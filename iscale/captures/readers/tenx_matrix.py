"""Count matrices of 10x Genomics: what every source must fulfil, the HDF5 file, the folder with ``matrix.mtx``."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from iscale.captures.counts import Counts, CountsWriter, Entries, row_bounds, select_genes
from iscale.captures.readers.controls import GENE_TYPE, is_gene_type
from iscale.captures.readers.files import blocks, find_file, lines
from iscale.errors import InputError
from iscale.words import by

BLOCK = 4 << 20
# Deflate unfolds to 1,032 times its input at most: a file that claims more than that is damaged.
MOST_UNFOLDED = 1032
REMEDY = "Copy or download it again, or run the vendor's software again."
COUNTS_REMEDY = "Give raw counts: whole numbers, 0 or more."
H5_ERRORS = (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError, MemoryError)


@dataclass(frozen=True)
class TenxMatrix:
    """Counts of a 10x matrix, (barcode, feature) float32, sorted columns, finite and not negative; names as written.

    Barcodes (``AAAC...-1``, ``s_008um_00001_00002-1``, a cell id) are unique, symbols need not be. Types (``Gene
    Expression``, ``Antibody Capture`` ...) and genomes of the features are None where the source does not say.
    """

    barcodes: list[str]
    gene_ids: list[str]
    gene_symbols: list[str]
    feature_types: list[str] | None
    genomes: list[str] | None
    counts: Counts


def only_genes(table: TenxMatrix) -> TenxMatrix:
    """The features of the type of genes; the table itself where all are, or where it has no types."""
    if table.feature_types is None:
        return table
    kept = [i for i, kind in enumerate(table.feature_types) if is_gene_type(kind)]
    if len(kept) == len(table.gene_ids):
        return table
    if not kept:
        raise InputError(
            f"None of {len(table.gene_ids)} features is of type {GENE_TYPE!r}; "
            f"there are: {', '.join(sorted(set(table.feature_types)))}.",
            "Give the matrix of a gene expression measurement.",
        )
    return replace(
        table,
        gene_ids=[table.gene_ids[i] for i in kept],
        gene_symbols=[table.gene_symbols[i] for i in kept],
        feature_types=[GENE_TYPE] * len(kept),
        genomes=None if table.genomes is None else [table.genomes[i] for i in kept],
        counts=select_genes(table.counts, np.array(kept)),
    )


def read_h5(path: Path) -> TenxMatrix:
    """Read ``*_feature_bc_matrix.h5``, of today's layout (group ``matrix``) or the old one (group named by genome)."""
    with open_h5(path) as file:
        _refuse_links(file)
        table = _read_matrix(path, file["matrix"]) if "matrix" in file else _read_old(path, file)
    return checked(path, table)


@contextmanager
def open_h5(path: Path, remedy: str = REMEDY) -> Iterator[h5py.File]:
    """Open a matrix in HDF5; what a damaged one raises becomes an InputError."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except H5_ERRORS as error:
        raise InputError(
            f"{path} cannot be read as a 10x matrix, it may be truncated or damaged: {_message(error)}", remedy
        ) from None


def _message(error: Exception) -> str:
    """First line of an error; a KeyError's text is in quotes of its own."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return (text.splitlines() or [type(error).__name__])[0]


def _read_matrix(path: Path, group: h5py.Group) -> TenxMatrix:
    features = group["features"]
    optional = {name: _strings(features, name) if name in features else None for name in ("feature_type", "genome")}
    return TenxMatrix(
        barcodes=_strings(group, "barcodes"),
        gene_ids=_strings(features, "id"),
        gene_symbols=_strings(features, "name"),
        feature_types=optional["feature_type"],
        genomes=optional["genome"],
        counts=_h5_counts(path, group),
    )


def _read_old(path: Path, file: h5py.File) -> TenxMatrix:
    genomes = [name for name in file if isinstance(file[name], h5py.Group) and "genes" in file[name]]
    if len(genomes) != 1:
        raise InputError(
            f"{path} is no 10x matrix of one genome: it holds {', '.join(sorted(file)) or 'nothing'}.",
            "Give filtered_feature_bc_matrix.h5 as Space Ranger wrote it.",
        )
    group = file[genomes[0]]
    gene_ids = _strings(group, "genes")
    return TenxMatrix(
        barcodes=_strings(group, "barcodes"),
        gene_ids=gene_ids,
        gene_symbols=_strings(group, "gene_names"),
        feature_types=None,
        genomes=genomes * len(gene_ids),
        counts=_h5_counts(path, group),
    )


def _refuse_links(file: h5py.File) -> None:
    """A file that is not trusted must not have others opened."""
    outside = file.visititems_links(lambda name, link: name if isinstance(link, h5py.ExternalLink) else None)
    if outside is not None:
        raise ValueError(f"{outside} is a link to another file")


def _dataset(group: h5py.Group, name: str, kinds: str) -> h5py.Dataset:
    """A one-dimensional dataset of these kinds, whose values lie in the file itself."""
    data = group[name]
    if not isinstance(data, h5py.Dataset) or data.ndim != 1 or data.dtype.kind not in kinds:
        raise ValueError(f"{name} is not a list of {'texts' if 'S' in kinds else 'numbers'}")
    if data.external or data.is_virtual:
        raise ValueError(f"{name} lies in another file")
    return data


def _strings(group: h5py.Group, name: str) -> list[str]:
    """Texts, in blocks: millions of barcodes would else be there twice."""
    data = _dataset(group, name, "SO")
    texts: list[str] = []
    for at in range(0, len(data), BLOCK):
        texts += [raw.decode() for raw in data[at : at + BLOCK]]
    return texts


def _h5_counts(path: Path, group: h5py.Group) -> Counts:
    shape = _dataset(group, "shape", "iu")[:].tolist()
    data, indices = _dataset(group, "data", "iuf"), _dataset(group, "indices", "iu")
    indptr = _dataset(group, "indptr", "iu")[:].astype(np.int64)
    n = len(data)
    if len(shape) != 2 or len(indptr) != shape[1] + 1 or len(indices) != n:
        raise ValueError(f"shape {by(shape)}, {len(indptr)} starts, {len(indices)} indices and {n} values do not agree")
    if indptr[0] != 0 or indptr[-1] != n or (np.diff(indptr) < 0).any():
        raise ValueError(f"the starts of the barcodes do not go from 0 to {n}")
    if n > min(shape[0] * shape[1], MOST_UNFOLDED * path.stat().st_size):
        raise ValueError(f"it claims {n:,} values of {shape[0]} x {shape[1]} in {path.stat().st_size:,} bytes")
    writer = CountsWriter(shape[0])
    for first, last in row_bounds(indptr, BLOCK):
        part = np.s_[int(indptr[first]) : int(indptr[last])]
        values, columns = data[part].astype(np.float32), indices[part]
        check_values(path, values, part.start)
        check_range(path, columns, shape[0], "feature")
        starts = (indptr[first : last + 1] - part.start).astype(np.int32)
        block = sparse.csr_matrix((values, columns.astype(np.int32), starts), shape=(last - first, shape[0]))
        block.sort_indices()
        if not block.has_canonical_format:
            raise twice(path)
        writer.add(block)
    return writer.done()


def twice(path: Path) -> InputError:
    """What to say of a cell of the table that is there twice."""
    return InputError(f"{path} has more than one count for the same barcode and feature.", REMEDY)


def check_values(path: Path, values: NDArray[np.float32], before: int) -> None:
    """Refuse counts (entry,) that are not finite or below 0; ``before`` of the file's were checked already."""
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        raise InputError(
            f"{path}: count {before + int(bad[0]) + 1:,} is {values[bad[0]]:g}, not finite or below 0.", COUNTS_REMEDY
        )


def check_range(path: Path, indices: NDArray[np.integer[Any]], n: int, what: str) -> None:
    """Refuse indices, from 0, that are not below ``n``."""
    bad = indices[(indices < 0) | (indices >= n)]
    if len(bad):
        raise InputError(
            f"{path}: {len(bad)} entries are of a {what} that is not there: index {bad[0]} (from 0) of {n}.", REMEDY
        )


def checked(path: Path, table: TenxMatrix) -> TenxMatrix:
    """What every source must fulfil: names for all rows and columns, and no barcode twice."""
    shape, named = table.counts.shape, (len(table.barcodes), len(table.gene_ids))
    per_gene = (table.gene_symbols, table.feature_types, table.genomes)
    if shape != named or any(column is not None and len(column) != shape[1] for column in per_gene):
        raise InputError(
            f"{path}: the matrix is {shape[0]} barcodes x {shape[1]} features, "
            f"but {named[0]} barcodes and {named[1]} features are named.",
            REMEDY,
        )
    if not all(shape):
        raise InputError(f"{path} holds {shape[0]} barcodes and {shape[1]} features: no counts.", REMEDY)
    if len(set(table.barcodes)) < shape[0]:
        raise InputError(f"{path} names {shape[0] - len(set(table.barcodes))} barcodes more than once.", REMEDY)
    return table


MTX_BANNER = b"%%MatrixMarket matrix coordinate"
MTX_SHORTEST_LINE = len(b"1 1 1\n")


def read_mtx(folder: Path) -> TenxMatrix:
    """Read a folder with ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv`` (or ``genes.tsv``), plain or gzipped."""
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
