"""A capture of millions of bins within a memory budget: ``iscale run`` on 2,000,000 bins of 2,000 genes.

``make bench-dense``. The capture is one of Visium HD, written in a streaming way as Space Ranger writes it, over a
painted slide. Peaks are the kernel's own (``VmHWM``).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.report import machine, publish, table
from benchmarks.sampling import disk_bytes, sample, stage_figures
from iscale.captures.readers.space_ranger import COLUMNS
from iscale.demo.painting import write_synthetic_slide
from iscale.transform import Transform, write_transform

PIXEL_UM, BIN_UM = 0.5, 2.0
ROWS_AT_ONCE = 32
NAME = "HD"


def lay_out(project: Path, side: int, n_genes: int, per_bin: float) -> int:
    """A slide, and on it a capture of ``side`` x ``side`` bins; how many counts other than 0 it has."""
    mother = project / "MotherImage"
    mother.mkdir(parents=True)
    bin_px = BIN_UM / PIXEL_UM
    slide_px = -(-round(side * bin_px * 1.3) // 1024) * 1024
    write_synthetic_slide(
        mother / "he-raw.tif", (slide_px, slide_px), seed=0, tissue_fraction=0.8, pixel_size_um=PIXEL_UM
    )
    captures = project / "DaughterCaptures"
    folder = captures / "UnallignedToMother" / NAME / "binned_outputs" / f"square_{round(BIN_UM):03d}um"
    (folder / "spatial").mkdir(parents=True)
    factors = {"bin_size_um": BIN_UM, "microns_per_pixel": PIXEL_UM, "spot_diameter_fullres": bin_px}
    (folder / "spatial/scalefactors_json.json").write_text(json.dumps(factors))
    matrix = np.eye(3)
    matrix[:2, 2] = (slide_px - side * bin_px) / 2
    write_transform(captures / "AllignedToMother" / NAME / "transform.json", Transform(matrix, "as it was made"))
    (project / "iscale.toml").write_text(f"[capture.{NAME}]\nbin_um = {BIN_UM:g}\n")
    _write_positions(folder / "spatial/tissue_positions.parquet", side, bin_px)
    return _write_counts(folder / "filtered_feature_bc_matrix.h5", side, n_genes, per_bin)


def _barcodes(row: int, side: int) -> list[str]:
    return [f"s_{round(BIN_UM):03d}um_{row:05d}_{column:05d}-1" for column in range(side)]


def _write_positions(path: Path, side: int, bin_px: float) -> None:
    types = (pa.string(), *[pa.int64()] * 3, *[pa.float64()] * 2)
    schema = pa.schema(list(zip(COLUMNS, types, strict=True)))
    columns = np.arange(side)
    with pq.ParquetWriter(path, schema) as writer:
        for row in range(side):
            at = np.full(side, row)
            values = [
                _barcodes(row, side),
                np.ones(side, int),
                at,
                columns,
                (at + 0.5) * bin_px,
                (columns + 0.5) * bin_px,
            ]
            arrays = [pa.array(v, kind) for v, kind in zip(values, types, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _write_counts(path: Path, side: int, n_genes: int, per_bin: float) -> int:
    with h5py.File(path, "w") as file:
        matrix = file.create_group("matrix")
        names = np.array([f"G{i}" for i in range(n_genes)], "S")
        for field in ("id", "name"):
            matrix[f"features/{field}"] = names
        matrix["features/feature_type"] = np.array(["Gene Expression"] * n_genes, "S")
        matrix["shape"] = np.array([n_genes, side**2])
        stored = {
            name: matrix.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(1 << 16,), compression=1)
            for name, dtype in (("data", np.int32), ("indices", np.int64), ("barcodes", "S24"))
        }
        lengths = []
        for row, bins, genes, counts in _counts(side, n_genes, per_bin):
            lengths.append(np.bincount(bins, minlength=min(ROWS_AT_ONCE, side - row) * side))
            texts = [name for at in range(row, min(row + ROWS_AT_ONCE, side)) for name in _barcodes(at, side)]
            for name, values in (("data", counts), ("indices", genes), ("barcodes", np.array(texts, "S24"))):
                start = len(stored[name])
                stored[name].resize((start + len(values),))
                stored[name][start:] = values
        matrix["indptr"] = np.append(0, np.cumsum(np.concatenate(lengths)))
        return len(stored["data"])


def _counts(side: int, n_genes: int, per_bin: float) -> Iterator[tuple[int, NDArray, NDArray, NDArray]]:
    """By rows of bins: bin, gene and count of what is not 0. Two mixtures of genes change into each other over x."""
    rng = np.random.default_rng(0)
    weights = [np.cumsum(w / w.sum()) for w in rng.lognormal(0, 1.5, (2, n_genes))]
    share = 0.5 + 0.5 * np.sin(np.arange(side) * 9 / side)
    for row in range(0, side, ROWS_AT_ONCE):
        n_bins = min(ROWS_AT_ONCE, side - row) * side
        bins = np.repeat(np.arange(n_bins), rng.poisson(per_bin, n_bins))
        drawn = rng.random(len(bins))
        genes = np.where(rng.random(len(bins)) < share[bins % side], *(np.searchsorted(w, drawn) for w in weights))
        keys, counts = np.unique(bins * n_genes + np.minimum(genes, n_genes - 1), return_counts=True)
        yield row, keys // n_genes, keys % n_genes, counts


def _n_counts(project: Path) -> int:
    """Counts of a project that was written before; 0 where there is none."""
    for path in project.glob("DaughterCaptures/UnallignedToMother/*/binned_outputs/*/*.h5"):
        with h5py.File(path, "r") as file:
            return int(file["matrix/indptr"][-1])
    return 0


def measure(bins: int, options: argparse.Namespace) -> list[str]:
    """A row of the table."""
    side = round(bins**0.5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = (options.projects or folder) / f"{bins}-bins"
        begin = time.perf_counter()
        n = _n_counts(project) or lay_out(project, side, options.genes, options.per_bin)
        print(f"{side**2:,} bins, {n:,} counts: written in {time.perf_counter() - begin:.0f} s", flush=True)
        checked = sample(["check", str(project), "--memory", options.memory])
        print(f"check: {checked.seconds:.0f} s, {checked.own_bytes / 1e9:.2f} GB", flush=True)
        arguments = ["run", str(project), "--out", str(folder / "out"), "--memory", options.memory]
        arguments += ["--n-genes", str(options.n_genes), "--n-plots", "2", "--dist-st", str(options.dist_st)]
        ran = sample([*arguments, "--encoder", "texture"])
        steps = {step["step"]: step for step in json.loads((folder / "out/report.json").read_text())["steps"]}
        return [
            f"{side**2:,}",
            f"{n:,}",
            f"{8 * n / 1e9:.2f}",
            f"{max(ran.own_bytes, ran.worker_bytes) / 1e9:.2f}",
            f"{steps['integrate']['projected_bytes'] / 1e9:.2f}",
            f"{checked.own_bytes / 1e9:.2f}",
            f"{checked.seconds:.0f}",
            f"{steps['integrate']['seconds']:.0f}",
            f"{stage_figures(folder / 'out').seconds['fit'] - steps['integrate']['seconds']:.0f}",
            f"{ran.seconds:.0f}",
            f"{disk_bytes(folder / 'out/run.zarr/captures') / 1e9:.2f}",
            f"{sum(path.is_file() for path in (folder / 'out/run.zarr/captures').rglob('*')):,}",
        ]


HEAD = [
    "bins",
    "counts other than 0",
    "as one matrix, GB",
    "run, peak GB",
    "integrate projected, GB",
    "check, peak GB",
    "check, s",
    "integrate (writing), s",
    "fit, s",
    "run, s",
    "captures on disk, GB",
    "files",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bins", type=int, nargs="+", default=[200_000, 2_000_000])
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--per-bin", type=float, default=52.0)
    parser.add_argument("--n-genes", type=int, default=100)
    parser.add_argument("--dist-st", type=float, default=20.0)
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--projects", type=Path, help="keep the captures here, and use those that are there")
    parser.add_argument("--no-publish", action="store_true")
    options = parser.parse_args()
    rows = []
    for bins in options.bins:
        rows.append(measure(bins, options))
        print(rows[-1], flush=True)
    text = f"Bins of {BIN_UM:g} um, {options.genes:,} genes of which {options.n_genes} are imputed, "
    text += f"`--dist-st {options.dist_st:g}`, `--memory {options.memory}`, serial; {machine()}\n\n{table(HEAD, rows)}"
    if options.no_publish:
        print(text)
    else:
        publish("dense", text)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
