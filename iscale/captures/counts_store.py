"""A capture's counts in the store, as anndata writes a CSR matrix: written and read block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import anndata as ad
import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.vendors.counts import AT_ONCE, Counts, blocks

CHUNK, SHARD = 1 << 18, 1 << 23
"""Counts that are read at least, and that share a file: 500 million are 120 files."""

SPOTS = 1 << 20
"""Spots whose starts share a file."""

MOST_READ = 1 << 25
"""A capture with more counts is opened without them."""


def write_counts(group: zarr.Group, counts: Counts) -> None:
    """Write counts into an empty group."""
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": list(counts.shape)})
    n = counts.nnz
    indptr = counts.indptr.astype(np.int32 if n < 2**31 else np.int64)
    group.create_array("indptr", data=indptr, chunks=(min(SPOTS, len(indptr)),))
    chunk, shard = (max(1, min(CHUNK, n)),), (SHARD,) if n > SHARD else None
    data, genes = (
        group.create_array(name, shape=(n,), dtype=dtype, chunks=chunk, shards=shard)
        for name, dtype in (("data", np.float32), ("indices", np.int32))
    )
    at = 0
    for own_data, own_genes in _whole_shards(counts):
        place = slice(at, at + len(own_data))
        data[place], genes[place] = own_data, own_genes
        at += len(own_data)


def open_capture(group: zarr.Group, *, counts: bool = True) -> ad.AnnData:
    """The AnnData of a capture; of one with very many counts, these stay in the store until they are asked for.

    Without ``counts`` it has none.
    """
    data = group["X/data"]
    if counts and isinstance(data, zarr.Array) and data.shape[0] <= MOST_READ:
        return ad.io.read_zarr(group)
    parts = {name: ad.io.read_elem(group[name]) for name in ("obs", "var", "obsm", "uns")}
    return ad.AnnData(X=ad.io.sparse_dataset(group["X"]) if counts else None, **parts)


def dense_genes(group: zarr.Group, genes: Sequence[str]) -> NDArray[np.float32]:
    """(spot, gene) counts of a few genes of a capture in the store, read block by block."""
    names = ad.io.read_elem(group["var"]).index
    columns = names.get_indexer(list(genes))
    stored = ad.io.sparse_dataset(group["X"])
    indptr = np.asarray(zarr.open_array(group.store_path, path="X/indptr", mode="r")[...])
    found = np.zeros((len(indptr) - 1, len(columns)), np.float32)
    start = 0
    while start < len(found):
        stop = max(start + 1, int(np.searchsorted(indptr, indptr[start] + AT_ONCE, side="right")) - 1)
        found[start:stop] = stored[start:stop][:, columns].toarray()
        start = stop
    return found


def files_of(counts: Counts) -> int:
    """About how many files the counts will be."""
    per_file = SHARD if counts.nnz > SHARD else CHUNK
    return 4 + 2 * -(-counts.nnz // per_file) + -(-counts.shape[0] // SPOTS)


def _whole_shards(counts: Counts) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Counts and their genes in pieces of a shard each: a part of one would be read and written again."""
    held: list[tuple[NDArray[Any], NDArray[Any]]] = []
    n = 0
    for _, block in blocks(counts):
        held.append((block.data, block.indices))
        n += block.nnz
        while n >= SHARD:
            data, genes = (np.concatenate(arrays) for arrays in zip(*held, strict=True))
            yield data[:SHARD], genes[:SHARD]
            held = [(data[SHARD:], genes[SHARD:])]
            n -= SHARD
    if n:
        data, genes = (np.concatenate(arrays) for arrays in zip(*held, strict=True))
        yield data, genes
