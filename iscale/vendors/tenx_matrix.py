"""Count matrices of 10x Genomics: the value, what every source of one must fulfil, and the HDF5 file that holds one.

The file, and ``matrix.mtx`` (:mod:`iscale.vendors.matrix_market`), hold features x barcodes by columns, which is
barcodes x features by rows: it is read by blocks of barcodes, and what is many goes to disk
(:mod:`iscale.vendors.counts`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from iscale.errors import InputError
from iscale.vendors.counts import Counts, CountsWriter
from iscale.vendors.rearrange import select_genes

GENE_TYPE = "Gene Expression"
BLOCK = 4 << 20
# Deflate unfolds to 1,032 times its input at most: a file that claims more than that is damaged.
MOST_UNFOLDED = 1032
REMEDY = "Copy or download it again, or run the vendor's software again."
COUNTS_REMEDY = "Give raw counts: whole numbers, 0 or more."
H5_ERRORS = (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError, MemoryError)


@dataclass(frozen=True)
class TenxMatrix:
    """Counts of a 10x matrix.

    Attributes
    ----------
    barcodes
        Per row, as written (``AAAC...-1``, ``s_008um_00001_00002-1``, a cell id); unique.
    gene_ids, gene_symbols
        Per column, as written; symbols need not be unique.
    feature_types
        Per column (``Gene Expression``, ``Antibody Capture`` ...); None where the source does not say.
    genomes
        Per column; None where the source does not say.
    counts
        (barcode, feature) float32, sorted columns; finite and not negative.
    """

    barcodes: list[str]
    gene_ids: list[str]
    gene_symbols: list[str]
    feature_types: list[str] | None
    genomes: list[str] | None
    counts: Counts


def only_genes(table: TenxMatrix) -> TenxMatrix:
    """The features of type ``Gene Expression``; the table itself where all are, or where it has no types.

    Raises
    ------
    InputError
        Where no feature is of this type.
    """
    if table.feature_types is None:
        return table
    kept = [i for i, kind in enumerate(table.feature_types) if kind == GENE_TYPE]
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
    """Read ``*_feature_bc_matrix.h5``, of today's layout (group ``matrix``) or the old one (group named by genome).

    Raises
    ------
    InputError
        Where the file is truncated, damaged or no such matrix, or a count is not finite or below 0.
    """
    try:
        with h5py.File(path, "r") as file:
            _refuse_links(file)
            table = _read_matrix(path, file["matrix"]) if "matrix" in file else _read_old(path, file)
    except H5_ERRORS as error:
        raise InputError(
            f"{path} cannot be read as a 10x matrix, it may be truncated or damaged: {_message(error)}", REMEDY
        ) from None
    return checked(path, table)


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
        raise ValueError(f"shape {shape}, {len(indptr)} starts, {len(indices)} indices and {n} values do not agree")
    if indptr[0] != 0 or indptr[-1] != n or (np.diff(indptr) < 0).any():
        raise ValueError(f"the starts of the barcodes do not go from 0 to {n}")
    if n > min(shape[0] * shape[1], MOST_UNFOLDED * path.stat().st_size):
        raise ValueError(f"it claims {n:,} values of {shape[0]} x {shape[1]} in {path.stat().st_size:,} bytes")
    writer, first = CountsWriter(shape[0]), 0
    while first < shape[1]:
        last = max(first + 1, int(np.searchsorted(indptr, indptr[first] + BLOCK, side="right")) - 1)
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
        first = last
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
