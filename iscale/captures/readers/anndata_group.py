"""Counts and genes of an AnnData on disk, in HDF5 or Zarr: raw counts wherever they lie, never held dense."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from anndata.io import sparse_dataset
from numpy.typing import NDArray
from scipy import sparse

from iscale.captures.counts import Counts, CountsWriter, Entries, row_bounds, select_genes, take
from iscale.captures.readers.controls import GENE_TYPE, is_gene_type
from iscale.captures.readers.old_anndata import DamagedError, read_frame, written_by
from iscale.errors import InputError, IscaleError
from iscale.words import by

COUNTS_PATHS = ("X", "layers/counts", "layers/raw_counts", "raw/X", "raw.X")
"""Where raw counts are looked for, in this order; the last is where versions before 0.7 put raw."""

SYMBOL_COLUMNS = ("gene_symbols", "gene_symbol", "gene_names", "gene_name", "feature_name", "symbol", "symbols")
ID_COLUMNS = ("gene_ids", "gene_id", "ensembl_id", "ensembl_ids", "ensembl")
ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}(\.\d+)?")
TYPE_COLUMNS = ("feature_types", "feature_type")

CELLS_AT_ONCE = 8 << 20
ENTRIES_AT_ONCE = 2 << 20

Values = NDArray[Any]
Checked = Callable[[Values, Values, Values], NDArray[np.float32]]


@dataclass(frozen=True)
class AnnDataTable:
    """What is read of an AnnData: spots (its index are their ids, strings), genes, (spot, gene) float32 counts.

    Ids are unique once `check_unique` has passed them. Counts are whole numbers, 0 or more; notices say where they are
    from, and what was left out.
    """

    obs: pd.DataFrame
    symbols: list[str]
    ids: list[str]
    counts: Counts
    notices: tuple[str, ...]


AGAIN = "Copy it again, or write it again with anndata of today (anndata.read_h5ad, then write_h5ad)."


@contextmanager
def anndata_errors(source: str, root: Any = None) -> Iterator[None]:
    """Turn whatever a damaged AnnData raises into one InputError: h5py, zarr and anndata share no class of errors.

    ``root`` is the AnnData's, where it could be opened: what wrote it is told.
    """
    try:
        yield
    except (IscaleError, MemoryError):
        raise
    except DamagedError as error:
        raise InputError(f"{source} cannot be read as AnnData: {error}.", AGAIN) from None
    except Exception:  # their words are of Python, not of the file
        if root is None:
            what = "it is damaged, cut off, or of another kind"
        else:
            try:
                lacks = [name for name in ("obs", "var") if name not in root]
                what = (
                    f"it has no {' and no '.join(lacks)}" if lacks else "a part of it is damaged or of another layout"
                )
                what += f"; {written_by(root)}"
            except Exception:
                what = "it is damaged"
        raise InputError(f"{source} cannot be read as AnnData: {what}.", AGAIN) from None


def read_table(group: Any, source: str) -> AnnDataTable:
    """Read spots, genes and raw counts of an AnnData's root, ``h5py.Group`` or ``zarr.Group``; ``source`` names it.

    An InputError where there are no raw counts, or sizes do not fit.
    """
    obs = read_frame(group, "obs")
    obs.index = pd.Index([str(name) for name in obs.index], dtype=object)
    place, counts, notice = _raw_counts(group, source)
    var = read_frame(group, place.replace("X", "var") if place.startswith("raw") else "var")
    if counts.shape != (len(obs), len(var)):
        raise InputError(
            f"{source}: {place} is {counts.shape[0]} x {counts.shape[1]}, obs x var is {len(obs)} x {len(var)}.",
            "Write it again with anndata.",
        )
    if not all(counts.shape):
        raise InputError(f"{source} holds {len(obs)} spots and {len(var)} genes.", "Give one that holds counts.")
    counts, var, left_out = _only_genes(counts, var, source)
    symbols, ids = genes_of(var)
    return AnnDataTable(obs, symbols, ids, counts, (notice, *left_out))


def check_unique(table: AnnDataTable, source: str) -> None:
    """Refuse spots of one name: what is known of one would be taken for the other's."""
    twice = [name for name, times in Counter(table.obs.index).items() if times > 1]
    if twice:
        raise InputError(
            f"{source}: {len(twice)} names of obs are given more than once: {', '.join(twice[:3])}.",
            "Make them unique (adata.obs_names_make_unique()) and write it again; sections that were joined, by a "
            "column library_id too.",
        )


def rows_of(table: AnnDataTable, rows: NDArray[np.intp], what: str) -> AnnDataTable:
    """Some rows of a table, with a notice that says of what."""
    notice = f"Of {len(table.obs):,} rows the {len(rows):,} of {what} are read."
    return replace(table, obs=table.obs.iloc[rows], counts=take(table.counts, rows), notices=(*table.notices, notice))


def _raw_counts(group: Any, source: str) -> tuple[str, Counts, str]:
    """The first place that holds raw counts; they; and a notice that says so."""
    looked: list[str] = []
    for place in COUNTS_PATHS:
        if place not in group:
            if "." in place:
                continue
            looked.append(f"there is no {place}")
            continue
        counts, reason = _counts(group[place])
        if counts is not None:
            why = f" ({', '.join(looked)})" if looked else ""
            return place, counts, f"Counts are those of {place}{why}."
        looked.append(f"{place} {reason}")
    raise InputError(
        f"{source} holds no raw counts: {', '.join(looked)}.",
        "Put them, whole numbers of 0 or more, into X or layers['counts'] and write it again.",
    )


def _counts(node: Any) -> tuple[Counts | None, str]:
    """The counts of a matrix, read block by block; or None, and why they are none."""
    is_sparse = "data" in node if hasattr(node, "keys") else False
    if not is_sparse and len(getattr(node, "shape", ())) != 2:
        return None, "is no matrix"
    stored = node["data"] if is_sparse else node
    if stored.dtype.kind not in "iufb":
        return None, f"holds {stored.dtype}, not numbers"
    first = _not_counts(np.asarray(stored[:1000] if is_sparse else stored[:10]))
    if len(first):  # so that no time goes by over a large one
        return None, f"holds {first[0]:.6g}"
    try:
        return read_matrix(node, _checked), ""
    except _NoCountError as error:
        return None, f"holds {error}"


class _NoCountError(Exception):
    """A number that is no count."""


def _checked(values: Values, *_: Values) -> NDArray[np.float32]:
    bad = _not_counts(values)
    if len(bad):
        raise _NoCountError(f"{bad[0]:.6g}")
    return values.astype(np.float32)


def read_matrix(node: Any, checked: Checked) -> Counts:
    """Read a matrix as anndata writes it, dense, CSR or CSC, block by block; a ValueError where it is damaged.

    ``checked`` makes float32 counts (entry,) of numbers that are not 0, the indices of their spots and of their genes,
    or refuses them.
    """
    return _read_sparse(node, checked) if hasattr(node, "keys") else _read_dense(node, checked)


def _read_dense(node: Any, checked: Checked) -> Counts:
    if len(node.shape) != 2:
        raise DamagedError(f"a matrix of the shape {by(node.shape)}")
    writer = CountsWriter(node.shape[1])
    step = max(1, CELLS_AT_ONCE // max(1, node.shape[1]))
    for at in range(0, node.shape[0], step):
        block = np.asarray(node[at : at + step])
        rows, columns = np.nonzero(block)
        values = checked(block[rows, columns], at + rows, columns)
        writer.add(sparse.csr_matrix((values, (rows, columns)), shape=block.shape))
    return writer.done()


def _read_sparse(node: Any, checked: Checked) -> Counts:
    shape, by_spot = sparse_dataset(node).shape, sparse_dataset(node).format == "csr"
    n_rows, n_columns = shape if by_spot else shape[::-1]
    indptr = np.asarray(node["indptr"][:]).astype(np.int64)
    n = node["data"].shape[0]
    fits = len(indptr) == n_rows + 1 and node["indices"].shape[0] == n
    if not fits or indptr[0] != 0 or indptr[-1] != n or (np.diff(indptr) < 0).any():
        raise DamagedError(f"the {len(indptr)} starts of {n_rows} rows do not go from 0 to {n}")
    writer, entries = CountsWriter(n_columns), Entries((n_columns, n_rows))
    for first, last in row_bounds(indptr, ENTRIES_AT_ONCE):
        part = slice(int(indptr[first]), int(indptr[last]))
        columns = np.asarray(node["indices"][part])
        if len(columns) and not 0 <= columns.min() <= columns.max() < n_columns:
            raise DamagedError(f"there are indices of {columns.min()} to {columns.max()}, for {n_columns}")
        starts = (indptr[first : last + 1] - part.start).astype(np.int32)
        rows = np.repeat(np.arange(first, last), np.diff(starts))
        values = checked(np.asarray(node["data"][part]), *((rows, columns) if by_spot else (columns, rows)))
        if by_spot:
            block = sparse.csr_matrix((values, columns.astype(np.int32), starts), shape=(last - first, n_columns))
            writer.add(block)
        else:
            entries.add(columns, rows, values)
    return writer.done() if by_spot else entries.counts()


def _not_counts(values: NDArray[Any]) -> NDArray[Any]:
    """Those of the values that are not whole numbers of 0 or more."""
    if values.dtype.kind in "bu":
        return values[:0].ravel()
    with np.errstate(invalid="ignore"):
        return np.asarray(values[~(np.isfinite(values) & (values >= 0) & (values == np.round(values)))])


def _only_genes(counts: Counts, var: pd.DataFrame, source: str) -> tuple[Counts, pd.DataFrame, tuple[str, ...]]:
    """Leave out controls, antibodies and the like where the table tells them from genes."""
    column = next((name for name in TYPE_COLUMNS if name in var), None)
    if column is None:
        return counts, var, ()
    types = [str(kind) for kind in var[column]]
    is_gene = np.array([is_gene_type(kind) for kind in types], dtype=bool)
    if is_gene.all() or (column != TYPE_COLUMNS[0] and not is_gene.any()):  # CELLxGENE writes biotypes there
        return counts, var, ()
    if not is_gene.any():
        kinds = ", ".join(sorted(set(types))[:5])
        raise InputError(
            f"{source}: none of {len(var)} features is of the type {GENE_TYPE!r}; there are: {kinds}.",
            "Give the counts of a gene expression measurement.",
        )
    notice = f"{int((~is_gene).sum())} of {len(var)} features are not of the type {GENE_TYPE!r} and were left out."
    return select_genes(counts, np.flatnonzero(is_gene)), var[is_gene], (notice,)


def genes_of(var: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Symbols and ids of genes.

    Symbols are the index, unless that holds Ensembl ids and a column holds symbols; ids are a column of ids, else the
    index.

    >>> genes_of(pd.DataFrame({"gene_name": ["TP53", None]}, index=["ENSG00000141510", "ENSG00000012048"]))
    (['TP53', 'ENSG00000012048'], ['ENSG00000141510', 'ENSG00000012048'])
    >>> genes_of(pd.DataFrame({"gene_ids": ["ENSG00000141510"]}, index=["TP53"]))
    (['TP53'], ['ENSG00000141510'])
    """
    names = [str(name) for name in var.index]
    are_ids = sum(bool(ENSEMBL.fullmatch(name)) for name in names) > len(names) / 2
    symbols = _column(var, SYMBOL_COLUMNS, names) if are_ids else names
    return symbols, names if are_ids else _column(var, ID_COLUMNS, names)


def _column(var: pd.DataFrame, wanted: Sequence[str], names: list[str]) -> list[str]:
    """The first of the columns that is there, the names where it is empty."""
    lower = {str(column).lower(): column for column in reversed(var.columns)}
    found = next((lower[name] for name in wanted if name in lower), None)
    if found is None:
        return names
    values = [None if pd.isna(value) else str(value).strip() for value in var[found].astype(object)]
    return [value or name for value, name in zip(values, names, strict=True)]
