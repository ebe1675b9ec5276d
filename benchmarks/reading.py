"""Reading a store of 3,000 genes: one gene over the slide, and all genes in a window, for several chunkings.

``make bench-reading``. The layout in use is compared with other inner chunks and with the same chunks unsharded.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from benchmarks.report import machine, publish, table
from iscale.geometry import Region
from iscale.results import open_run
from iscale.store import layout
from iscale.store.run_store import RunStore

REPEATS = 5


def smooth_counts(rng: np.random.Generator, n_genes: int, shape: tuple[int, int]) -> NDArray[np.float16]:
    """Maps as smooth and as noisy as predictions are, so that they compress alike."""
    coarse = rng.gamma(0.5, 2.0, (n_genes, shape[0] // 16 + 1, shape[1] // 16 + 1)).astype(np.float32)
    maps = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, : shape[0], : shape[1]]
    maps *= rng.normal(1, 0.05, maps.shape).astype(np.float32)
    return maps.astype(np.float16)


def write(store: RunStore, chunks: tuple[int, int, int], sharded: bool, n_genes: int, side: int) -> float:
    """Write the store, a shard at a time; returns seconds."""
    shape = (side, side)
    made = layout.genes("expression/expression", n_genes, shape)
    store.create()
    store.make_group("expression", {})
    zarr.open_group(store.path, mode="r+").create_array(
        made.path,
        shape=made.shape,
        dtype="float16",
        chunks=chunks,
        shards=made.shards if sharded else None,
        compressors=ZstdCodec(level=1),
        fill_value=np.nan,
        dimension_names=made.dims,
    )
    store.put("expression/gene", tuple(f"G{i}" for i in range(n_genes)), ("gene",))
    store.put_coordinates("expression", shape, 8.0)
    rng, seconds = np.random.default_rng(0), 0.0
    for start in range(0, n_genes, made.shards[0]):
        stop = min(start + made.shards[0], n_genes)
        for tile in Region(0, side, 0, side).tiles(made.shards[-1]):
            values = smooth_counts(rng, stop - start, tile.shape)
            begin = time.perf_counter()
            store.array(made.path, "r+")[(slice(start, stop), *tile.slices)] = values
            seconds += time.perf_counter() - begin
    return seconds


def timed(read: object) -> float:
    """Median seconds of a warm read."""
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        read()  # type: ignore[operator]
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--genes", type=int, default=3000)
    parser.add_argument("--side", type=int, default=512, help="superpixels")
    options = parser.parse_args()
    used = layout.genes("e", options.genes, (options.side, options.side)).chunks
    cases = [(used, True), ((1, 128, 128), True), ((4, 128, 128), True), ((16, 64, 64), True), (used, False)]
    rows = []
    for chunks, sharded in cases:
        with tempfile.TemporaryDirectory() as folder:
            store = RunStore(Path(folder))
            writing = write(store, (chunks[0], chunks[1], chunks[2]), sharded, options.genes, options.side)
            files = sum(1 for path in store.path.rglob("*") if path.is_file())
            opened = open_run(store.path).expression
            gene = timed(lambda e=opened: e.sel(gene="G1234").compute())
            window = timed(lambda e=opened: e.isel(y=slice(100, 200), x=slice(100, 200)).compute())
            name = f"{chunks}{' (in use)' if (chunks, sharded) == (used, True) else ''}"
            rows.append(
                [
                    name,
                    "yes" if sharded else "no",
                    str(files),
                    f"{writing:.1f}",
                    f"{gene * 1e3:.0f}",
                    f"{window * 1e3:.0f}",
                ]
            )
    head = ["inner chunk (gene, y, x)", "sharded", "files", "write, s", "one gene, ms", "100 x 100, all genes, ms"]
    size = f"{options.genes} genes, {options.side} x {options.side} superpixels, through `open_run`, warm; {machine()}"
    publish("reading", f"{size}\n\n{table(head, rows)}")


if __name__ == "__main__":
    main()
