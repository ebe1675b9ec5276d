"""Reading a store of 3,000 genes: one gene over the slide, and all genes in a window, for several chunkings.

``make bench-reading``. The layout in use is compared with other inner chunks, with the same chunks unsharded, and with
plain chunking: the chunks that Zarr chooses by itself, and a file per gene.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

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

Chunks = tuple[int, int, int] | Literal["auto"]
"""Inner chunks, or unsharded chunks; ``auto`` leaves them to Zarr."""


def smooth_counts(rng: np.random.Generator, n_genes: int, shape: tuple[int, int]) -> NDArray[np.float16]:
    """Maps as smooth and as noisy as predictions are, so that they compress alike."""
    coarse = rng.gamma(0.5, 2.0, (n_genes, shape[0] // 16 + 1, shape[1] // 16 + 1)).astype(np.float32)
    maps = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, : shape[0], : shape[1]]
    maps *= rng.normal(1, 0.05, maps.shape).astype(np.float32)
    return maps.astype(np.float16)


def write(store: RunStore, chunks: Chunks, sharded: bool, n_genes: int, side: int) -> float:
    """Write the store, as many genes at a time as share a shard; returns seconds."""
    shape = (side, side)
    made = layout.genes("expression/expression", n_genes, shape)
    store.create()
    store.make_group("expression", {})
    array = zarr.open_group(store.root, mode="r+").create_array(
        made.path,
        shape=made.shape,
        dtype="float16",
        chunks=chunks,
        shards=(whole(made.shards[0], chunks[0]), *made.shards[1:]) if sharded and chunks != "auto" else None,
        compressors=ZstdCodec(level=1),
        fill_value=np.nan,
        dimension_names=made.dims,
    )
    store.put("expression/gene", tuple(f"G{i}" for i in range(n_genes)), ("gene",))
    store.put_coordinates("expression", shape, 8.0)
    rng, seconds = np.random.default_rng(0), 0.0
    for start in range(0, n_genes, made.shards[0]):
        stop = min(start + made.shards[0], n_genes)
        values = np.empty((stop - start, side, side), np.float16)
        for tile in Region(0, side, 0, side).tiles(made.shards[-1]):
            values[:, *tile.slices] = smooth_counts(rng, stop - start, tile.shape)
        begin = time.perf_counter()
        array[start:stop] = values
        seconds += time.perf_counter() - begin
    return seconds


def whole(n: int, chunk: int) -> int:
    """At least ``n``, in whole chunks."""
    return -(-n // chunk) * chunk


def timed(read: Callable[[], object]) -> float:
    """Median seconds of a warm read."""
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        read()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def row(chunks: Chunks, sharded: bool, name: str, n_genes: int, side: int) -> list[str]:
    """Write a store, read it, and say how long that took."""
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(Path(folder))
        writing = write(store, chunks, sharded, n_genes, side)
        files = sum(1 for path in (store.folder / "run.zarr").rglob("*") if path.is_file())
        chosen = store.array("expression/expression").chunks
        opened = open_run(store.folder).expression
        middle, window = n_genes // 2, slice(side // 5, side // 5 + 100)
        gene = timed(lambda: opened.sel(gene=f"G{middle}").compute())
        all_genes = timed(lambda: opened.isel(y=window, x=window).compute())
    told = f"{chosen} ({name})" if name else f"{chosen}"
    times = f"{writing:.1f}", f"{gene * 1e3:.0f}", f"{all_genes * 1e3:.0f}"
    return [told, "yes" if sharded else "no", str(files), *times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--genes", type=int, default=3000)
    parser.add_argument("--side", type=int, default=512, help="superpixels")
    parser.add_argument("--no-publish", action="store_true")
    options = parser.parse_args()
    side = options.side
    first, *rest = layout.genes("e", options.genes, (side, side)).chunks
    used = (first, rest[0], rest[1])
    cases: list[tuple[Chunks, bool, str]] = [
        (used, True, "in use"),
        ((1, 128, 128), True, ""),
        ((4, 128, 128), True, ""),
        ((16, 64, 64), True, ""),
        (used, False, ""),
        ("auto", False, "Zarr's own choice"),
        ((1, side, side), False, "a file per gene"),
    ]
    rows = [row(*case, options.genes, side) for case in cases]
    head = ["inner chunk (gene, y, x)", "sharded", "files", "write, s", "one gene, ms", "100 x 100, all genes, ms"]
    size = f"{options.genes} genes, {options.side} x {options.side} superpixels, through `open_run`, warm; {machine()}"
    text = f"{size}\n\n{table(head, rows)}"
    if options.no_publish:
        print(text)
    else:
        publish("reading", text)


if __name__ == "__main__":
    main()
