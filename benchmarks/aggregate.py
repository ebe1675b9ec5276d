"""Sums over cells: what of the maps' total they keep, how long they take, and in how much memory.

``make bench-aggregate``, with ``ISCALE_DATA`` naming the folder that holds ``her2st/``. Cells are hexagons with moved
corners that cover the tissue without a gap: section C4 of her2st with 100,000 in GeoJSON, and a generated slide of
16.4 x 16.4 mm, all tissue, with up to a million in a Xenium table of corners and in GeoJSON. Each case is a process of
its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter

import iscale
from benchmarks.report import machine, publish, table
from iscale.demo.her2st import PIXEL_SIZE_UM, lay_out_her2st
from iscale.geometry import Region, SlideGrid
from iscale.results import Run, open_run
from iscale.store import layout
from iscale.store.run_store import RunStore

MOVED = 0.2
"""How far corners are moved at most, of the distance of two."""

CELLS = (100_000, 300_000, 1_000_000)
SIDE, GENES = 2048, 32
"""Of the generated slide: superpixels a side, and genes."""

CORNERS = ((0, 0), (1, 0), (2, 0), (2, 1), (1, 1), (0, 1), (0, 0))
"""Of a cell, in steps of half its width and its height."""

ONE = """
import json, sys, time
from pathlib import Path
from iscale.export.areas.aggregate import aggregate_run
from iscale.engine.machine import peak_bytes
began = time.perf_counter()
text = aggregate_run(sys.argv[1], sys.argv[2], out=Path(sys.argv[3]), overwrite=True)
print(text, file=sys.stderr)
print(json.dumps([time.perf_counter() - began, peak_bytes()]))
"""


def cells(size_um: tuple[float, float], step_um: float) -> Iterator[NDArray[np.float64]]:
    """Rows of cells (cell, corner, 2) in um that tile a slide of such a width and height, and reach beyond."""
    rng = np.random.default_rng(0)
    rows, columns = int(np.ceil(size_um[1] / step_um)) + 1, int(np.ceil(2 * size_um[0] / step_um)) + 6
    y, x = np.mgrid[: rows + 1, :columns]
    at = np.stack([(x - 2) * step_um / 2, (y - 0.5) * step_um], axis=-1)
    at += rng.uniform(-MOVED, MOVED, at.shape) * (step_um / 2, step_um)
    for row in range(rows):
        first = np.arange(row % 2, columns - 2, 2)
        yield np.stack([at[row + dy, first + dx] for dx, dy in CORNERS], axis=1)


def write_geojson(path: Path, run: Run, wanted: int) -> int:
    """About so many cells over a run's tissue; returns how many."""
    tissue = np.isfinite(run.depth.to_numpy())
    side = 16 * run.pixel_size_um
    step = float(np.sqrt(tissue.sum() * side**2 / wanted))
    around = binary_dilation(tissue, np.ones((3, 3)), int(np.ceil(step / side)))
    size, n = (tissue.shape[1] * side, tissue.shape[0] * side), 0
    per_px = run.store.attributes("image")["raw_pixel_size_um"]
    with path.open("w") as file:
        file.write('{"type":"FeatureCollection","features":[')
        for row in cells(size, step):
            middle = np.clip((row[:, :6].mean(axis=1) // side).astype(int), 0, np.array(tissue.shape[::-1]) - 1)
            for cell in row[around[middle[:, 1], middle[:, 0]]]:
                geometry = {"type": "Polygon", "coordinates": [(cell / per_px).tolist()]}
                feature = {
                    "type": "Feature",
                    "id": f"cell-{n}",
                    "geometry": geometry,
                    "properties": {"objectType": "cell"},
                }
                file.write("," * bool(n) + json.dumps(feature))
                n += 1
        file.write("]}")
    return n


def write_corners(path: Path, wanted: int, most: int) -> int:
    """The first so many cells of ``most`` that tile the generated slide, as Xenium writes them; returns how many."""
    size = SIDE * 8.0
    step, n = float(np.sqrt(size**2 / most)), 0
    schema = pa.schema([("cell_id", pa.string()), ("vertex_x", pa.float64()), ("vertex_y", pa.float64())])
    with pq.ParquetWriter(path, schema) as file:
        for row in cells((size, size), step):
            if n >= wanted:
                break
            names = np.repeat([f"c{n + i}-1" for i in range(len(row))], row.shape[1])
            columns = [names, row[..., 0].ravel(), row[..., 1].ravel()]
            file.write_table(pa.table(columns, schema=schema))
            n += len(row)
    return n


def write_slide(folder: Path) -> Run:
    """A run that was never run: smooth maps on a slide that is all tissue."""
    store, rng = RunStore(folder), np.random.default_rng(0)
    store.create()
    shape, side = (SIDE, SIDE), layout.SHARD_SUPERPIXELS
    grid = SlideGrid((16 * SIDE, 16 * SIDE), 0.5, 0.5)
    about = {"raw_shape_px": list(grid.raw_shape_px), "raw_pixel_size_um": 0.5, "pixel_size_um": 0.5}
    store.make_group("image", about)
    store.make_group("expression", {})
    for name in ("expression", "uncertainty"):
        store.make(layout.genes(f"expression/{name}", GENES, shape))
    store.make(layout.plane("expression/depth", shape))
    for shard in Region(0, SIDE, 0, SIDE).tiles(side):
        values = np.exp(gaussian_filter(rng.normal(size=(GENES, side, side)), (0, 2, 2)) * 4).astype(np.float16)
        store.write("expression/expression", shard, values)
        store.write("expression/uncertainty", shard, values / np.float16(8))
        store.write("expression/depth", shard, values.sum(axis=0, dtype=np.float32).astype(np.float16))
    store.put("expression/gene", tuple(f"G{i}" for i in range(GENES)), ("gene",))
    store.put_coordinates("expression", shape, grid.superpixel_um)
    return open_run(folder)


def measured(run: Run, over: Path, out: Path) -> tuple[float, float]:
    """Seconds and peak GB of a process that sums a run over a file."""
    done = subprocess.run(
        [sys.executable, "-c", ONE, str(run.store.folder), str(over), str(out)], stdout=subprocess.PIPE, check=True
    )
    seconds, peak = json.loads(done.stdout)
    return seconds, peak / 1e9


def difference(run: Run, out: Path) -> float:
    """Largest difference of a gene's sum over all cells from its map's total, relative to that."""
    found = ad.read_h5ad(out, backed="r")
    sums = np.zeros(found.n_vars)
    for first in range(0, found.n_obs, 1 << 15):
        sums += found[first : first + (1 << 15)].to_memory().X.sum(axis=0, dtype=np.float64)
    found.file.close()
    totals = np.array([np.nansum(run.expression[i].to_numpy(), dtype=np.float64) for i in range(len(sums))])
    return float(np.abs(sums / totals - 1).max())


def line(name: str, run: Run, over: Path, n: int, out: Path, whole: bool) -> list[str]:
    """A row of the table."""
    seconds, peak = measured(run, over, out)
    kept = f"{difference(run, out):.1e}" if whole else "-"
    genes, written = run.expression.sizes["gene"], out.stat().st_size / 1e9
    out.unlink()
    print(name, n, seconds, peak, kept, flush=True)
    size = over.stat().st_size / 1e6
    return [
        name,
        f"{n:,}",
        str(genes),
        f"{size:,.0f}",
        f"{seconds:.0f}",
        f"{n / seconds:,.0f}",
        f"{peak:.2f}",
        f"{written:.2f}",
        kept,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, help="a run of her2st C4 that is there already")
    parser.add_argument("--cells", type=int, nargs="+", default=list(CELLS), help="on the generated slide")
    parser.add_argument("--print", action="store_true", help="only print the table; docs/benchmarks.md stays")
    options = parser.parse_args()
    if options.run is None and "ISCALE_DATA" not in os.environ:
        raise SystemExit("ISCALE_DATA is not set: it names the folder that holds her2st/")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        out = work / "cells.h5ad"
        if options.run is None:
            case = lay_out_her2st(Path(os.environ["ISCALE_DATA"]) / "her2st", work / "C4")
            run = open_run(iscale.run(case.project, stage="predict", n_genes=100, pixel_size=PIXEL_SIZE_UM))
        else:
            run = open_run(options.run)
        n = write_geojson(work / "cells.geojson", run, CELLS[0])
        rows.append(line("her2st C4, GeoJSON", run, work / "cells.geojson", n, out, whole=True))
        slide = write_slide(work / "slide")
        for wanted in options.cells:
            whole = wanted == max(options.cells)
            n = write_corners(work / "cells.parquet", 2 * wanted if whole else wanted, max(options.cells))
            rows.append(line("generated, Xenium Parquet", slide, work / "cells.parquet", n, out, whole))
        n = write_geojson(work / "cells.geojson", slide, max(options.cells))
        rows.append(line("generated, GeoJSON", slide, work / "cells.geojson", n, out, whole=True))
    head = [
        "slide",
        "cells",
        "genes",
        "file, MB",
        "s",
        "cells/s",
        "peak, GB",
        "written, GB",
        "largest difference from the total",
    ]
    text = f"Expected counts and their uncertainty; {machine()}\n\n{table(head, rows)}"
    if options.print:
        print(text)
    else:
        publish("aggregate", text)


if __name__ == "__main__":
    main()
