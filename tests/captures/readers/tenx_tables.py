"""A small 10x matrix, and writers of the layouts that one comes in."""

from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import numpy as np
from scipy import sparse

from iscale.captures.readers.tenx_matrix import TenxMatrix

SAMPLE = "visium/filtered_feature_bc_matrix.h5"


def small_table() -> TenxMatrix:
    """Five barcodes, four features, one of them no gene; the second barcode is empty."""
    counts = np.array([[1, 0, 2, 0], [0, 0, 0, 0], [0, 3, 0, 0], [4, 5, 6, 7], [0, 0, 0, 8]], np.float32)
    kinds = ["Gene Expression", "Antibody Capture", "Gene Expression", "Gene Expression"]
    symbols = ["A", "B", "A", "C"]
    return TenxMatrix([f"b{i}" for i in range(5)], list("wxyz"), symbols, kinds, ["g"] * 4, sparse.csr_matrix(counts))


def write_h5(path: Path, table: TenxMatrix) -> None:
    with h5py.File(path, "w") as file:
        matrix = file.create_group("matrix")
        features = matrix.create_group("features")
        for name, values in (("id", table.gene_ids), ("name", table.gene_symbols), ("genome", table.genomes)):
            features[name] = np.array(values, "S")
        features["feature_type"] = np.array(table.feature_types, "S")
        matrix["barcodes"] = np.array(table.barcodes, "S")
        matrix["data"] = table.counts.data.astype(np.int32)
        matrix["indices"] = table.counts.indices.astype(np.int64)
        matrix["indptr"] = table.counts.indptr.astype(np.int64)
        matrix["shape"] = np.array(table.counts.shape[::-1], np.int32)


def write_mtx(folder: Path, table: TenxMatrix, *, old: bool = False, by_gene: bool = False) -> None:
    """As Cell Ranger 3 writes it, or, ``old``, as 2 did: not gzipped, genes.tsv without types."""
    folder.mkdir()
    entries = sparse.csc_matrix(table.counts).tocoo() if by_gene else table.counts.tocoo()
    rows = zip(entries.col + 1, entries.row + 1, entries.data.astype(int), strict=True)
    per_gene = [table.gene_ids, table.gene_symbols] + ([] if old else [table.feature_types or []])
    content = {
        "matrix.mtx": "%%MatrixMarket matrix coordinate integer general\n%metadata_json: {}\n"
        f"{table.counts.shape[1]} {table.counts.shape[0]} {table.counts.nnz}\n"
        + "".join(f"{gene} {barcode} {count}\n" for gene, barcode, count in rows),
        "barcodes.tsv": "\n".join(table.barcodes) + "\n",
        "genes.tsv" if old else "features.tsv": "".join("\t".join(row) + "\n" for row in zip(*per_gene, strict=True)),
    }
    for name, text in content.items():
        if old:
            (folder / name).write_text(text)
        else:
            (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))


def assert_same(found: TenxMatrix, expected: TenxMatrix) -> None:
    assert found.counts.dtype == np.float32
    assert found.counts.has_canonical_format
    assert found.counts.shape == expected.counts.shape
    assert (found.counts != expected.counts).nnz == 0
    assert (found.barcodes, found.gene_ids) == (expected.barcodes, expected.gene_ids)
    assert found.gene_symbols == expected.gene_symbols
