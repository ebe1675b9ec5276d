"""Peak memory of the stage ``fit``, beside what was projected, for captures of growing size.

``make bench-fit_memory``. Each case is a store of random features and counts, made beforehand, and one process that
does what a worker does: read the training spots, gather the features of their discs, train, score, write the model.
The peak is that process' own (``VmHWM``). The published recipe trains for one epoch: further ones need no more.
"""

from __future__ import annotations

import argparse
import pickle
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.report import machine, publish, table
from iscale.captures.spots import TrainingSpots
from iscale.captures.stage import SHARED_COUNTS, SHARED_GENES, shared_layout, write_training
from iscale.encoders.base import FeatureGroup
from iscale.engine.plan import Resources, parse_bytes
from iscale.errors import MemoryBudgetError
from iscale.geometry import Region, SlideGrid
from iscale.model import published
from iscale.model.discs import disc_sizes
from iscale.model.fit_stage import FitContext, fit_model, fit_step
from iscale.store import layout
from iscale.store.run_store import RunStore

GRID = SlideGrid((10_240, 10_240), 0.5, 0.5)
CAPTURES = 4
NO_LIMIT = 10**15
SHARED = 10_000
"""Genes that all captures measured."""
TEXTURE = (FeatureGroup("texture", tuple(f"t{k}" for k in range(200))),)
HIPT = (
    FeatureGroup("context", tuple(f"c{k}" for k in range(192)), stride=4, smooth=16),
    FeatureGroup("patch", tuple(f"p{k}" for k in range(384)), smooth=4),
    FeatureGroup("colour", ("red", "green", "blue"), smooth=4),
)


@dataclass(frozen=True)
class Case:
    """A fit: spots of a radius, features, genes, and how it is trained."""

    spots: int
    radius_um: float
    groups: tuple[FeatureGroup, ...]
    genes: int
    recipe: str = "default"


VISIUM, WIDE, BINS = 27.5, 55.0, 12.0
CASES = (
    Case(5_000, VISIUM, TEXTURE, 1000),
    Case(20_000, VISIUM, TEXTURE, 1000),
    Case(20_000, VISIUM, TEXTURE, 3000),
    Case(20_000, WIDE, TEXTURE, 1000),
    Case(20_000, VISIUM, HIPT, 3000),
    Case(30_000, BINS, TEXTURE, 1000),
    Case(30_000, BINS, HIPT, 3000),
    Case(5_000, VISIUM, TEXTURE, 1000, "published"),
    Case(20_000, VISIUM, HIPT, 3000, "published"),
    Case(20_000, WIDE, TEXTURE, 1000, "published"),
)


def write_features(store: RunStore, groups: tuple[FeatureGroup, ...]) -> None:
    """A slide that is tissue all over, each of its shards with the same random features."""
    store.create()
    shape, side, rng = GRID.superpixel_shape, layout.SHARD_SUPERPIXELS, np.random.default_rng(0)
    store.make_group("tissue", {})
    store.make(layout.mask("tissue/mask", shape))
    store.write("tissue/mask", Region(0, shape[0], 0, shape[1]), np.ones(shape, bool))
    store.make_group("features", {})
    for group in groups:
        array = layout.features(group.name, len(group.features), shape, group.stride)
        store.make(array)
        values = rng.normal(size=(len(group.features), side // group.stride, side // group.stride)).astype(np.float16)
        for shard in Region(0, *array.shape[1:2], 0, *array.shape[2:]).tiles(side // group.stride):
            store.write(array.path, shard, values)


def write_spots(store: RunStore, case: Case) -> TrainingSpots:
    """Random spots over the slide, whose expression varies in eight directions."""
    rng = np.random.default_rng(1)
    tissue, loading = rng.normal(size=(case.spots, 8)), rng.normal(size=(8, case.genes)) / 4
    counts = np.concatenate([rng.poisson(np.exp(part @ loading)) for part in np.array_split(tissue, 20)])
    spots = TrainingSpots(
        genes=tuple(f"G{k}" for k in range(case.genes)),
        counts=counts.astype(np.float32),
        depth=3 * counts.sum(axis=1).astype(np.float32),
        xy_px=rng.uniform(200, GRID.shape_px[0] - 200, (case.spots, 2)),
        radius_um=np.full(case.spots, case.radius_um),
        capture=rng.integers(0, CAPTURES, case.spots),
        captures=tuple("ABCD"[:CAPTURES]),
    )
    write_training(store, spots, GRID)
    write_others(store, spots)
    return spots


def write_others(store: RunStore, spots: TrainingSpots) -> None:
    """Counts of as many shared genes as captures measure, those trained on first."""
    names = (*spots.genes, *(f"O{k}" for k in range(SHARED - len(spots.genes))))
    array = shared_layout(replace(spots, shared_genes=names))
    store.put(SHARED_GENES, names, ("shared_gene",))
    store.make(array)
    rng, stored = np.random.default_rng(2), store.array(SHARED_COUNTS, "r+")
    for start in range(0, SHARED, array.chunks[1]):
        genes = slice(start, min(start + array.chunks[1], SHARED))
        block = rng.poisson(0.5, (len(spots.depth), genes.stop - genes.start)).astype(np.float32)
        trained = spots.counts[:, genes]
        block[:, : trained.shape[1]] = trained
        stored[:, genes] = block


def fit_here(folder: Path) -> None:
    """Do the fit of a folder in this process, and print its peak."""
    published.EPOCHS = 1
    fit_model(pickle.loads((folder / "context").read_bytes()), Region(0, 1, 0, 1))
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) * 1024)


def measure(case: Case, memory: str, folder: Path) -> list[str]:
    """A line of the table."""
    store = RunStore(folder / "out")
    write_features(store, case.groups)
    spots = write_spots(store, case)
    context = FitContext(store, GRID, case.groups, case.recipe, 0, "cpu")
    try:
        step = fit_step(context, spots, inputs=(), resources=Resources(parse_bytes(memory)))
        fits = "yes"
    except MemoryBudgetError:
        step = fit_step(context, spots, inputs=(), resources=Resources(NO_LIMIT))
        fits = "no"
    (folder / "context").write_bytes(pickle.dumps(step.context))
    sizes = disc_sizes(spots.radius_um, GRID.superpixel_um)
    del spots
    begin = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.fit_memory", "--child", str(folder)]
    peak = int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])
    took, projected = time.perf_counter() - begin, step.plan.worker_bytes
    features, rows = sum(len(group.features) for group in case.groups), int(sizes.sum())
    return [
        *(case.recipe, f"{case.spots:,}", str(sizes.max()), str(features), f"{case.genes:,}"),
        f"{4 * rows * features / 1e9:.2f}" + (", file" if "file" in step.note else ""),
        *(f"{projected / 1e9:.2f}", f"{peak / 1e9:.2f}", f"{projected / peak:.2f}", fits, f"{took:.0f}"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--cases", type=int, nargs="+", default=list(range(len(CASES))), help="numbers, from 0")
    parser.add_argument("--no-publish", action="store_true")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        fit_here(options.child)
        return
    rows = []
    for case in (CASES[k] for k in options.cases):
        with tempfile.TemporaryDirectory() as name:
            rows.append(measure(case, options.memory, Path(name)))
        print(rows[-1], flush=True)
    head = [
        "recipe",
        "spots",
        "superpixels of a disc",
        "features",
        "genes",
        "rows, GB",
        "projected, GB",
        "measured, GB",
    ]
    head += ["projected / measured", f"fits {options.memory}", "s"]
    text = f"`--memory {options.memory}`; {machine()}\n\n{table(head, rows)}"
    if options.no_publish:
        print(text)
    else:
        publish("fit_memory", text)


if __name__ == "__main__":
    main()
