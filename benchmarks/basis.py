"""Every gene on demand: what to store so that any of them can be computed, what it costs, and how fast it is read.

``make bench-basis``, with ``ISCALE_DATA`` naming the folder that holds ``her2st/``. C4 is predicted with all genes that
its captures share, written. What genes are computed from is kept in several forms; errors are those of maps of genes
taken evenly from all, against what the model gives in float32, over the spread (standard deviation) of each map.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import iscale
from benchmarks.report import machine, publish, table
from iscale.arrays import block_mean
from iscale.demo.her2st import PIXEL_SIZE_UM, lay_out_her2st
from iscale.encoders import get_encoder
from iscale.features.read import read_features
from iscale.geometry import Region
from iscale.model.additive import AdditiveEnsemble
from iscale.model.ensemble import load_ensemble
from iscale.model.genes import Source, open_source
from iscale.model.loadings import Loadings, as_components, read_loadings, with_every_gene
from iscale.model.sizes import FACTORS
from iscale.options import load_options
from iscale.plan.job import Job

GENES_COMPARED = 200
WINDOW = 512
STEP = 16
TILE = 64
SUMMED_TILES = 4
REPEATS = 5
Values = NDArray[np.float32]


class Exact:
    """The model itself, from the features: every superpixel and gene in float32.

    Parameters
    ----------
    job
        Of a run that has been predicted.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        model = job.store.folder / "model"
        self.loadings = read_loadings(model)
        ensemble = with_every_gene(load_ensemble(model), self.loadings)
        assert isinstance(ensemble, AdditiveEnsemble)
        self.ensemble = ensemble
        self.groups = get_encoder(job.encoder).groups
        self.tissue = np.asarray(job.store.array("tissue/mask")[...])

    def components(self, region: Region) -> Values:
        """(component, y, x) factors of a window, NaN off tissue."""
        n = self.ensemble.n_states * FACTORS
        result = np.full((n, *region.shape), np.nan, np.float32)
        step = self.job.grid.superpixel_um
        for tile in region.tiles(TILE):
            tissue = self.tissue[tile.slices]
            if not tissue.any():
                continue
            features = read_features(self.job.store, self.groups, tile, "cpu")[:, tissue].T
            i, j = np.nonzero(tissue)
            xy_um = np.stack([(tile.x0 + j + 0.5) * step, (tile.y0 + i + 0.5) * step], axis=1).astype(np.float32)
            with torch.no_grad():
                hidden = self.ensemble.hidden(torch.from_numpy(np.ascontiguousarray(features)), torch.from_numpy(xy_um))
            result[:, *tile.within(region)][:, tissue] = as_components(hidden.numpy())
        return result


def best_of(call: Callable[[], object]) -> float:
    """Seconds of a call, the best of a few."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def forms(components: Values, n_states: int) -> dict[str, tuple[Values, float]]:
    """What could be kept of (component, superpixel) factors: as it is read back, and bytes of a superpixel."""
    low, high = components.min(axis=1, keepdims=True), components.max(axis=1, keepdims=True)
    step = np.where(high > low, high - low, 1) / 255
    centre = components.mean(axis=1, keepdims=True)
    axes = np.linalg.svd((components - centre) @ (components - centre).T)[0]
    states = components.reshape(n_states, FACTORS, -1)
    mean = np.broadcast_to(states.mean(axis=0), states.shape).reshape(components.shape)
    found: dict[str, tuple[Values, float]] = {
        "factors of all states, float16 (in use)": (components.astype(np.float16).astype(np.float32), 2.0),
        "the same in 8 bits, scaled per factor": (np.round((components - low) / step) * step + low, 1.0),
    }
    for rank in (96, 64, 32):
        kept = (axes[:, :rank].T @ (components - centre)).astype(np.float16).astype(np.float32)
        found[f"{rank} principal components, float16"] = (axes[:, :rank] @ kept + centre, 2 * rank / len(components))
    found["mean over the states, float16"] = (mean.astype(np.float16).astype(np.float32), 2 / n_states)
    return {name: (values, share * len(components)) for name, (values, share) in found.items()}


def errors(decoder: Loadings, kept: Values, exact: tuple[Values, Values]) -> list[str]:
    """Root mean square error over a map's spread: median and largest over genes, of expression and of uncertainty."""
    cells = []
    for found, true in zip((decoder.expression(kept), decoder.uncertainty(kept)), exact, strict=True):
        share = np.sqrt(((found - true) ** 2).mean(axis=1)) / true.std(axis=1)
        cells += [f"{100 * np.median(share):.2f} %", f"{100 * share.max():.2f} %"]
    return cells


def kept_table(source: Source, exact: Exact, rows: NDArray[np.int64]) -> str:
    """Bytes and errors of every form."""
    whole = Region(0, source.shape[0], 0, source.shape[1])
    components = exact.components(whole)[:, exact.tissue]
    decoder = exact.loadings.of(rows)
    true = decoder.expression(components), decoder.uncertainty(components)
    lines = [
        [name, f"{size:.0f}", *errors(decoder, kept, true)]
        for name, (kept, size) in forms(components, exact.ensemble.n_states).items()
    ]
    written = source.rows(rows, whole), source.rows(rows, whole, uncertainty=True)
    shares = []
    for found, values in zip(written, true, strict=True):
        share = np.sqrt(((found[:, exact.tissue] - values) ** 2).mean(axis=1)) / values.std(axis=1)
        shares += [f"{100 * np.median(share):.2f} %", f"{100 * share.max():.2f} %"]
    lines.append(["maps of all genes and their uncertainty, float16", f"{4 * len(source.genes):,}", *shares])
    head = ["kept", "bytes per superpixel", "expression: median", "largest", "uncertainty: median", "largest"]
    return table(head, lines)


def times_table(written: Source, computed: Source, exact: Exact) -> str:
    """Seconds of a window and of an overview of a gene that is computed, read from written maps, or from features."""
    height, width = written.shape
    window = Region(0, min(WINDOW, height), 0, min(WINDOW, width))
    whole = Region(0, height, 0, width)
    gene, last = written.genes[len(written.genes) // 2], len(written.genes) // 2
    one = exact.loadings.of(np.array([last]))
    rows = [
        [
            "computed from stored factors (in use)",
            f"{best_of(lambda: computed.read([gene], window)):.2f}",
            f"{best_of(lambda: computed.overview([gene], whole, STEP)):.2f}",
        ],
        [
            "read from written maps",
            f"{best_of(lambda: written.read([gene], window)):.2f}",
            f"{best_of(lambda: block_mean(written.read([gene], whole), STEP)):.2f}",
        ],
        [
            "computed from features",
            f"{best_of(lambda: one.expression(exact.components(window))):.2f}",
            f"{best_of(lambda: block_mean(one.expression(exact.components(whole)), STEP)):.2f}",
        ],
    ]
    return table(["one gene", f"{WINDOW} x {WINDOW} superpixels, s", f"whole slide at 1/{STEP}, s"], rows)


def overview_errors(written: Source, computed: Source, rows: NDArray[np.int64]) -> str:
    """How far overviews from averaged factors are from averaged maps."""
    whole = Region(0, written.shape[0], 0, written.shape[1])
    genes = [written.genes[row] for row in rows]
    maps = written.read(genes, whole)
    lines = []
    for step in (4, 8, 16):
        true, found = block_mean(maps, step), computed.overview(genes, whole, step)
        there = np.isfinite(true[0])
        error = np.sqrt(((found - true)[:, there] ** 2).mean(axis=1)) / true[:, there].std(axis=1)
        bias = found[:, there].mean(axis=1) / true[:, there].mean(axis=1) - 1
        lines.append([f"1/{step}", f"{100 * np.median(error):.1f} %", f"{100 * np.median(bias):+.1f} %"])
    return table(["overview", "error over the map's spread, median", "mean, relative"], lines)


def sums_over_depth(source: Source, tissue: NDArray[np.bool_]) -> str:
    """What all genes of a superpixel add up to, over its depth: quantiles over a quarter of the tiles."""
    rows, depth, found = np.arange(len(source.genes)), source.store.array("expression/depth"), []
    for tile in list(Region(0, source.shape[0], 0, source.shape[1]).tiles(TILE))[::SUMMED_TILES]:
        there = tissue[tile.slices]
        if there.any():
            total = source.rows(rows, tile)[:, there].sum(axis=0, dtype=np.float64)
            found.append(total / np.asarray(depth[tile.slices], np.float64)[there])
    low, median, high = np.quantile(np.concatenate(found), (0.05, 0.5, 0.95))
    return f"All genes of a superpixel add up to {median:.2f} of its depth (median; 90 % from {low:.2f} to {high:.2f})."


def size_of(folder: Path) -> int:
    """Bytes of the files of an array."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-publish", action="store_true")
    options = parser.parse_args()
    data = Path(os.environ["ISCALE_DATA"]) / "her2st"
    with tempfile.TemporaryDirectory() as name:
        project = Path(name) / "C4"
        lay_out_her2st(data, project)
        settings = {"pixel_size": PIXEL_SIZE_UM, "encoder": "texture", "materialize": "all"}
        iscale.run(project, stage="predict", **settings)
        job = Job(project, load_options(project, settings))
        written, computed = open_source(job.store), open_source(job.store)
        computed.written = 0  # as if no map had been written
        exact = Exact(job)
        # Genes that were counted nowhere in the training spots have a map of zeros, which has no spread.
        counted = np.flatnonzero(np.asarray(job.store.array("basis/share")[...]) > 0)
        rows = counted[np.linspace(0, len(counted) - 1, GENES_COMPARED).astype(np.int64)]
        tissue = int(exact.tissue.sum())
        disk = {path: size_of(job.store.folder / "run.zarr" / path) / tissue for path in ("basis", "expression")}
        text = (
            f"her2st C4, {tissue:,} superpixels of tissue, {len(written.genes):,} genes, {GENES_COMPARED} compared; "
            f"{machine()}. On disk a superpixel takes {disk['basis']:.0f} bytes of factors, averages of them included, "
            f"and {disk['expression']:,.0f} of written maps.\n\n"
        )
        parts = (kept_table(computed, exact, rows), times_table(written, computed, exact))
        sums = sums_over_depth(computed, exact.tissue)
        text += "\n\n".join([*parts, overview_errors(written, computed, rows), sums])
    if options.no_publish:
        print(text)
    else:
        publish("basis", text)


if __name__ == "__main__":
    main()
