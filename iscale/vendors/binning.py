"""Transcripts and cells of imaging platforms: read in blocks, counted in square bins, matched between files.

A table of transcripts has up to billions of rows and is never held: memory is that of one block and of the distinct
pairs of bin and gene.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import sparse

from iscale.errors import InputError
from iscale.vendors.files import blocks, lines

BIN_UM = 8.0
ROWS_AT_ONCE = 1 << 18
PAIRS_AT_ONCE = 1 << 22

# One int64 holds the bin's row, its column and the gene: sorting it sorts by bin, then gene.
GENE_BITS = 16
INDEX_BITS = 24
INDEX_HALF = 1 << (INDEX_BITS - 1)

AGAIN = "Copy or export the file again."


@dataclass(frozen=True)
class Binned:
    """Square bins with at least one transcript, sorted by row, then column.

    Attributes
    ----------
    ids
        ``y_x``: row and column of the bin, counted from the origin of the positions; negative where those are.
    xy_um
        (bin, 2) float64: x, y of the centres, in um.
    counts
        (bin, gene) float32 CSR.
    """

    ids: list[str]
    xy_um: NDArray[np.float64]
    counts: sparse.csr_matrix


class BinCounts:
    """Counts of transcripts per square bin and gene, gathered block by block.

    The bins' borders are whole multiples of ``bin_um``, so neither the blocks nor the extent of the data move them.

    Parameters
    ----------
    bin_um
        Side of a bin, in um.
    source
        The file of the transcripts, for messages.
    pairs_at_once
        Pairs of bin and gene that are gathered before they are merged. At most this many, or half as many as are
        merged already if that is more (or merging would take time quadratic in them), are held beside these.

    Raises
    ------
    InputError
        ``bin_um`` is not a finite number above 0.
    """

    def __init__(self, bin_um: float, source: Path, pairs_at_once: int = PAIRS_AT_ONCE) -> None:
        if not (np.isfinite(bin_um) and bin_um > 0):
            raise InputError(f"The side of a bin is {bin_um:g} um.", "Give a finite number above 0, such as 8.")
        self.bin_um = float(bin_um)
        self.source = source
        self.pairs_at_once = pairs_at_once
        self._keys: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        self._counts: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        self._waiting = 0

    def add(self, gene: NDArray[np.integer], x_um: NDArray[np.floating], y_um: NDArray[np.floating]) -> None:
        """Count a block of transcripts, each (transcript,): index of the gene (0 or more), x and y in um.

        Raises
        ------
        InputError
            Positions so large that they are no um, or more genes than any panel has.
        """
        if len(gene) == 0:
            return
        if int(gene.max()) >= 1 << GENE_BITS:
            raise InputError(
                f"{self.source} names more than {1 << GENE_BITS:,} genes.", "Is the column of genes that of genes?"
            )
        row, column = self._index(y_um), self._index(x_um)
        keys = (row << (INDEX_BITS + GENE_BITS)) | ((column + INDEX_HALF) << GENE_BITS) | gene.astype(np.int64)
        distinct, counts = np.unique(keys, return_counts=True)
        self._keys.append(distinct)
        self._counts.append(counts.astype(np.int64))
        self._waiting += len(distinct)
        if self._waiting > max(self.pairs_at_once, len(self._keys[0]) // 2):
            self._merge()

    def result(self, n_genes: int) -> Binned:
        """The bins that have any count, over genes 0 to ``n_genes`` - 1."""
        self._merge()
        keys, values = self._keys[0], self._counts[0]
        bins = keys >> GENE_BITS
        starts = np.flatnonzero(np.diff(bins, prepend=bins[:1] - 1))
        genes = (keys & ((1 << GENE_BITS) - 1)).astype(np.int32)
        counts = sparse.csr_matrix(
            (values.astype(np.float32), genes, np.append(starts, len(keys))), shape=(len(starts), n_genes)
        )
        row = bins[starts] >> INDEX_BITS
        column = (bins[starts] & ((1 << INDEX_BITS) - 1)) - INDEX_HALF
        ids = [f"{y}_{x}" for y, x in zip(row.tolist(), column.tolist(), strict=True)]
        return Binned(ids, (np.column_stack([column, row]) + 0.5) * self.bin_um, counts)

    def _index(self, um: NDArray[np.floating]) -> NDArray[np.int64]:
        index = np.floor(np.asarray(um, np.float64) / self.bin_um)
        if not (np.abs(index) < INDEX_HALF).all():  # also where it is not a number
            worst = float(um[np.argmax(~(np.abs(index) < INDEX_HALF))])
            raise InputError(
                f"{self.source} has a transcript at {worst:g} um, beyond {INDEX_HALF:,} bins of {self.bin_um:g} um.",
                "Check the unit of the positions, or give a larger bin.",
            )
        return index.astype(np.int64)

    def _merge(self) -> None:
        keys, counts = np.concatenate(self._keys), np.concatenate(self._counts)
        self._keys, self._counts, self._waiting = [], [], 0  # their memory goes before the sort needs its own
        order = np.argsort(keys, kind="stable")
        keys, counts = keys[order], counts[order]
        starts = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1))
        self._keys = [keys[starts]]
        self._counts = [np.add.reduceat(counts, starts) if len(starts) else counts]


class GeneIndex:
    """Indices of gene names, given in the order in which names are met.

    Parameters
    ----------
    names
        Names that have their index from the start; of those that come twice the first counts.
    is_gene
        Whether a name is a gene's; others have the index -1. None: all are.
    """

    def __init__(self, names: Sequence[str] = (), is_gene: Callable[[str], bool] | None = None) -> None:
        self.names = list(names)
        self._given = len(self.names)
        self._is_gene = is_gene
        self._index: dict[str, int] = {}
        for at, name in enumerate(self.names):
            self._index.setdefault(name, at)

    def order(self) -> list[int]:
        """Indices of all names: those given from the start, then the others in the order of the alphabet."""
        return [*range(self._given), *sorted(range(self._given, len(self.names)), key=self.names.__getitem__)]

    def codes(self, column: pa.ChunkedArray, source: Path) -> NDArray[np.int64]:
        """Indices (transcript,) of a column of names, as text or as bytes.

        Raises
        ------
        InputError
            A transcript has no name, or one that is no text.
        """
        encoded = column.combine_chunks()
        encoded = encoded if pa.types.is_dictionary(encoded.type) else encoded.dictionary_encode()
        if encoded.null_count:
            raise InputError(f"{source}: {encoded.null_count:,} transcripts of a block have no gene.", AGAIN)
        indices = encoded.indices.to_numpy(zero_copy_only=False)
        table = np.array([self._code(name, source) for name in encoded.dictionary.to_pylist()], dtype=np.int64)
        return table[indices] if len(table) else np.empty(0, np.int64)

    def _code(self, name: object, source: Path) -> int:
        if isinstance(name, bytes):
            name = name.decode(errors="replace")
        if not isinstance(name, str) or not name:
            raise InputError(f"{source} names {name!r} as the gene of a transcript.", "Names of genes are needed.")
        if name not in self._index:
            gene = self._is_gene is None or self._is_gene(name)
            self._index[name] = len(self.names) if gene else -1
            self.names += [name] * gene
        return self._index[name]


def csv_header(path: Path) -> list[str]:
    """Names of the columns of a CSV file, as its first line has them, without quotes."""
    return [name.strip().strip('"') for name in next(lines(path), "").split(",")]


def csv_blocks(path: Path, columns: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
    """Some columns of a CSV file with a header (``.gz`` too), in blocks of rows.

    Raises
    ------
    InputError
        A column is not there, a line is cut off, or a cell is not of its column's type.
    """
    header = csv_header(path)
    _check_columns(path, header, list(columns))
    parse = pa_csv.ConvertOptions(column_types=dict(columns), include_columns=list(columns))
    before = 0
    for block in blocks(path):
        if before == 0:  # the header has been read: it must not be taken for a row
            block = block.lstrip(b"\xef\xbb\xbf\r\n").partition(b"\n")[2]
            before = 1
        read = pa_csv.ReadOptions(column_names=header, use_threads=False, block_size=len(block) + 1)
        try:
            table = pa_csv.read_csv(pa.BufferReader(block), read, convert_options=parse) if block.strip() else None
        except pa.ArrowException as error:
            raise InputError(f"{path}: {_where(str(error), header, before)}", AGAIN) from None
        before += block.count(b"\n")
        if table is not None:
            yield table


def parquet_blocks(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of a Parquet file, in blocks of rows.

    Raises
    ------
    InputError
        The file is damaged, or a column is not there.
    """
    _check_columns(path, parquet_header(path), list(columns))
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=list(columns), use_threads=False):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}", AGAIN) from None


def parquet_header(path: Path) -> list[str]:
    """Names of the columns of a Parquet file.

    Raises
    ------
    InputError
        The file is damaged or none.
    """
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}", AGAIN) from None


def numbers(table: pa.Table, name: str, source: Path) -> NDArray[np.float64]:
    """A column (row,) of finite numbers.

    Raises
    ------
    InputError
        Cells are empty, not finite or not numbers.
    """
    column = table.column(name)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise InputError(f"{source}: column {name!r} holds {column.type}, not numbers.", AGAIN)
    values = np.asarray(pc.cast(column, pa.float64()).to_numpy(), np.float64)
    if bad := int((~np.isfinite(values)).sum()):
        raise InputError(f"{source}: {bad:,} cells of column {name!r} are empty or not finite numbers.", AGAIN)
    return values


def _check_columns(path: Path, header: list[str], wanted: list[str]) -> None:
    if missing := [name for name in wanted if name not in header]:
        raise InputError(
            f"{path} has no column {', '.join(missing)} (it has: {', '.join(header[:12])}).",
            "Give the file as the instrument's software wrote it.",
        )
    if twice := [name for name in wanted if header.count(name) > 1]:
        raise InputError(f"{path} has the column {twice[0]} {header.count(twice[0])} times.", AGAIN)


def _where(message: str, header: list[str], before: int) -> str:
    """Arrow's message of a bad cell, with the column's name, and the row counted in the file."""
    message = re.sub(r"Row #(\d+)", lambda found: f"row {int(found[1]) + before}", message)
    return re.sub(
        r"In CSV column #(\d+): ",
        lambda found: f"column {header[int(found[1])]!r}: " if int(found[1]) < len(header) else "",
        message,
    )


def disc_diameter(area: float) -> float:
    """Diameter of the disc of an area.

    >>> disc_diameter(math.pi)
    2.0
    """
    return 2 * math.sqrt(area / math.pi)


def in_both(
    counts_file: Path, count_ids: list[str], cells_file: Path, cell_ids: list[str]
) -> tuple[NDArray[np.intp], NDArray[np.intp], tuple[str, ...]]:
    """Cells that have both counts and a position.

    Returns
    -------
    tuple
        Their rows in the counts and in the table of cells, in the order of the counts, and notices of what is left out.

    Raises
    ------
    InputError
        A cell comes twice in one of the files, or more than half of either file's cells are not in the other.
    """
    for path, ids in ((counts_file, count_ids), (cells_file, cell_ids)):
        if len(set(ids)) < len(ids):
            twice = next(cell for cell, times in Counter(ids).items() if times > 1)
            raise InputError(
                f"{path} has {len(ids):,} cells, {len(ids) - len(set(ids)):,} of them again, such as {twice!r}.",
                "Give the file of one section, in which every cell comes once.",
            )
    places = pd.Index(cell_ids, dtype=object).get_indexer(pd.Index(count_ids, dtype=object))
    rows = np.flatnonzero(places >= 0)
    if 2 * len(rows) < max(len(count_ids), len(cell_ids)) or len(rows) == 0:
        raise InputError(
            f"{counts_file.name} has {len(count_ids):,} cells, {cells_file.name} {len(cell_ids):,}, and only "
            f"{len(rows):,} are in both (of {counts_file.parent}).",
            "Give the files of the same section and the same segmentation.",
        )
    notices = [
        f"{missing:,} of {len(ids):,} cells of {path.name} are left out: {other.name} does not have them."
        for path, ids, other in ((counts_file, count_ids, cells_file), (cells_file, cell_ids, counts_file))
        if (missing := len(ids) - len(rows))
    ]
    return rows, places[rows], tuple(notices)
