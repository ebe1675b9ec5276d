"""Readers that may meet a large file put its counts on disk, block by block, and they are those of the file."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import zarr
from cosmx_folders import COUNTS, GENES, write_cells
from scipy import sparse
from tenx_tables import write_h5, write_mtx

from iscale.captures import counts
from iscale.captures.counts import Counts, StoredCounts, in_memory
from iscale.captures.locations import read_matched
from iscale.captures.readers import anndata_group, tenx_matrix
from iscale.captures.readers.anndata_group import read_table
from iscale.captures.readers.cosmx import read_matrix
from iscale.captures.readers.tenx_matrix import TenxMatrix, only_genes, read_h5, read_mtx
from iscale.captures.tables import read_counts

N, M = 90, 20
TABLE = sparse.random(N, M, 0.3, "csr", np.float32, np.random.default_rng(0), lambda n: np.arange(n) % 9 + 1.0)
SPOTS, NAMES = [f"s{i}" for i in range(N)], [f"G{i}" for i in range(M)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (counts, "MOST_IN_MEMORY", 12),
        (counts, "AT_ONCE", 60),
        (tenx_matrix, "BLOCK", 50),
        (anndata_group, "ENTRIES_AT_ONCE", 50),
        (anndata_group, "CELLS_AT_ONCE", 60),
    ):
        monkeypatch.setattr(module, name, value)


def is_table(found: Counts, expected: sparse.csr_matrix = TABLE) -> None:
    assert isinstance(found, StoredCounts)
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(in_memory(found), name), getattr(expected, name))


def tenx(kinds: list[str]) -> TenxMatrix:
    return TenxMatrix(SPOTS, NAMES, NAMES, kinds, ["g"] * M, TABLE)


def test_10x_matrices(tmp_path: Path) -> None:
    kinds = ["Gene Expression"] * M
    write_h5(tmp_path / "a.h5", tenx(kinds))
    is_table(read_h5(tmp_path / "a.h5").counts)
    write_mtx(tmp_path / "by_barcode", tenx(kinds))
    write_mtx(tmp_path / "by_gene", tenx(kinds), by_gene=True)
    for folder in ("by_barcode", "by_gene"):
        is_table(read_mtx(tmp_path / folder).counts)
    kinds[3] = kinds[7] = "Antibody Capture"
    write_h5(tmp_path / "b.h5", tenx(kinds))
    is_table(only_genes(read_h5(tmp_path / "b.h5")).counts, TABLE[:, [i for i in range(M) if i not in (3, 7)]])


FORMS: dict[str, Callable[[sparse.csr_matrix], object]] = {
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "dense": lambda matrix: matrix.toarray(),
}


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_anndata(tmp_path: Path, form: str, store: str) -> None:
    adata = ad.AnnData(FORMS[form](TABLE), obs=pd.DataFrame(index=SPOTS), var=pd.DataFrame(index=NAMES))
    if store == "h5ad":
        adata.write_h5ad(tmp_path / "cnts.h5ad")
        is_table(read_counts(tmp_path / "cnts.h5ad").counts)
        return
    with ad.settings.override(zarr_write_format=3, auto_shard_zarr_v3=False):
        ad.io.write_elem(zarr.open_group(tmp_path / "a.zarr", mode="w"), "table", adata)
    is_table(read_table(zarr.open_group(tmp_path / "a.zarr/table", mode="r"), "a").counts)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", ["cnts.tsv", "cnts.parquet"])
def test_tables_in_the_order_of_the_locations(tmp_path: Path, name: str, turned: bool) -> None:
    frame = pd.DataFrame(TABLE.toarray().astype(int), index=SPOTS, columns=NAMES)
    frame = frame.T if turned else frame
    if name.endswith("tsv"):
        frame.to_csv(tmp_path / name, sep="\t")
    else:
        frame.to_parquet(tmp_path / name)
    order = np.random.default_rng(3).permutation(N)
    lines = "".join(f"{SPOTS[i]}\t{i}\t{2 * i}\n" for i in order)
    (tmp_path / "locs.tsv").write_text("spot\tx\ty\n" + lines)
    found = read_matched("a", tmp_path / name, tmp_path / "locs.tsv")
    assert found.locations.ids == [SPOTS[i] for i in order]
    is_table(found.counts, TABLE[order].sorted_indices())


def test_cosmx(tmp_path: Path) -> None:
    write_cells(tmp_path)
    found = read_matrix(tmp_path / "S_exprMat_file.csv")[2]
    is_table(found, sparse.csr_matrix(COUNTS[:, : len(GENES)], dtype=np.float32))


def test_memory_of_reading_does_not_grow_with_the_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((counts, "MOST_IN_MEMORY"), (counts, "AT_ONCE"), (tenx_matrix, "BLOCK")):
        monkeypatch.setattr(module, name, 1 << 14)
    n, m = 4000, 500
    peaks = []
    for per_spot in (50, 200):
        rng = np.random.default_rng(0)
        genes = np.sort(np.argpartition(rng.random((n, m)), per_spot)[:, :per_spot], axis=1).reshape(-1)
        values = rng.integers(1, 9, n * per_spot).astype(np.float32)
        matrix = sparse.csr_matrix((values, genes, np.arange(n + 1) * per_spot), shape=(n, m))
        names = [f"G{i}" for i in range(m)]
        path = tmp_path / f"{per_spot}.h5"
        write_h5(
            path, TenxMatrix([f"s{i}" for i in range(n)], names, names, ["Gene Expression"] * m, ["g"] * m, matrix)
        )
        tracemalloc.start()
        found = read_h5(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.counts.nnz == n * per_spot
    assert peaks[1] < 1.2 * peaks[0] + 200_000
    assert peaks[1] < 0.5 * 8 * 4000 * 200
