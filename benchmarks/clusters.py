"""Clusters against known regions, for several gene embeddings; and streamed k-means against k-means of all at once.

``make bench-clusters``, with ``ISCALE_DATA`` naming the folder that holds ``her2st/``. On the demo the truth is the
type of region that has the largest share of a superpixel; it is *clear* where that share is 0.9 or more. Every
embedding is smoothed, clustered and tidied as the stage ``cluster`` does. The embedding in use is compared with
principal components of `log1p` of relative expression (``PCA``), the same of genes scaled to variance 1, the model's
factors as they are, the one in use with genes scaled to variance 1 or with depth left in, and, if wanted, the
published recipe's.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

import iscale
from benchmarks.report import machine, publish, table
from iscale.demo.her2st import PIXEL_SIZE_UM, lay_out_her2st
from iscale.demo.synthetic import write_demo
from iscale.demo.tissue import SyntheticTissue
from iscale.encoders import get_encoder
from iscale.features.read import read_features
from iscale.geometry import Region
from iscale.model.additive import AdditiveEnsemble
from iscale.model.ensemble import load_ensemble
from iscale.options import load_options
from iscale.plan.job import Job
from iscale.regions.centres import draw_samples, fit_centres, inertia, nearest_centre, smooth
from iscale.regions.components import join_small

CLEAR = 0.9
CLUSTERS = (6, 8, 10)
SIDE = 128
Values = NDArray[np.float32]


def known_regions(grid_shape: tuple[int, int], side_px: int, seed: int = 0) -> tuple[NDArray[np.int64], Values]:
    """(y, x): the type of region with the largest share of each superpixel of the demo, and that share."""
    tissue = SyntheticTissue((side_px, side_px), 0.5, seed)
    centres = [(np.arange(n) + 0.5) * 8.0 for n in grid_shape]
    shares = tissue.fields(centres[0], centres[1]).regions
    return shares.argmax(axis=0), shares.max(axis=0)


def factors_of(job: Job, tissue: NDArray[np.bool_]) -> tuple[AdditiveEnsemble, Values]:
    """The model of a run, and (superpixel, factor) its factors, averaged over the states, row by row of the slide."""
    ensemble = load_ensemble(job.store.folder / "model")
    assert isinstance(ensemble, AdditiveEnsemble)
    groups, um = get_encoder(job.encoder).groups, job.grid.superpixel_um
    factors = np.full((*tissue.shape, ensemble.numbers.loading.shape[0]), np.nan, np.float32)
    for tile in Region(0, tissue.shape[0], 0, tissue.shape[1]).tiles(SIDE):
        there = tissue[tile.slices]
        if there.any():
            features = np.ascontiguousarray(read_features(job.store, groups, tile)[:, there].T)
            i, j = np.nonzero(there)
            xy = np.stack([(tile.x0 + j + 0.5) * um, (tile.y0 + i + 0.5) * um], axis=1).astype(np.float32)
            hidden = ensemble.hidden(torch.from_numpy(features), torch.from_numpy(xy))
            factors[tile.slices][there] = hidden[..., :-1].mean(dim=0).numpy()
    return ensemble, factors[tissue]


def embeddings(run: iscale.Run, job: Job, tissue: NDArray[np.bool_]) -> dict[str, Values]:
    """(superpixel, component) by name."""
    ensemble, factors = factors_of(job, tissue)
    loading = ensemble.numbers.loading.double().numpy()
    relative = loading - loading.mean(axis=1, keepdims=True)
    spread = (factors @ relative).std(axis=0)
    expression, depth = run.expression.to_numpy()[:, tissue].T, run.depth.to_numpy()[tissue]
    composition = np.log1p(1e4 * expression / depth[:, None])
    return {
        "in use": run.embedding.to_numpy()[:, tissue].T,
        "PCA": PCA(min(32, composition.shape[1]), random_state=0).fit_transform(composition),
        "PCA, genes scaled": PCA(min(32, composition.shape[1]), random_state=0).fit_transform(
            composition / composition.std(axis=0)
        ),
        "factors": factors,
        "genes scaled": factors @ axes(relative / spread),
        "with depth": factors @ axes(loading),
    }


def axes(loading: NDArray[np.float64]) -> NDArray[np.float32]:
    """(factor, component): distances of factors times these are those of factors times ``loading``, over the genes."""
    values, vectors = np.linalg.eigh(loading @ loading.T / loading.shape[1])
    return np.asarray(vectors * np.sqrt(values.clip(0)), dtype=np.float32)


def clustered(values: Values, tissue: NDArray[np.bool_], k: int) -> NDArray[np.uint8]:
    """(y, x) labels of one embedding, as the stage finds them."""
    rows = smooth(as_planes(values, tissue), tissue)
    labels = np.zeros(tissue.shape, np.uint8)
    labels[tissue] = nearest_centre(rows, fit_centres(rows, k, 0)) + 1
    return join_small(labels)


def as_planes(values: Values, tissue: NDArray[np.bool_]) -> Values:
    """(component, y, x) of (superpixel, component); NaN off tissue."""
    planes = np.full((values.shape[1], *tissue.shape), np.nan, np.float32)
    planes[:, tissue] = values.T
    return planes


def demo(folder: Path, side_px: int, **options: Any) -> tuple[iscale.Run, Job]:
    """The demo, predicted."""
    project = folder / f"demo-{side_px}"
    if not project.exists():
        write_demo(project, side_px=side_px)
    chosen = {"out": folder / f"out-{side_px}-{options.get('recipe', 'default')}", **options}
    out = iscale.run(project, stage="predict", **chosen)
    return iscale.open_run(out), Job(project, load_options(project, chosen))


def region_rows(folder: Path, side_px: int, with_published: bool) -> list[list[str]]:
    """Lines of the table for a demo of one size."""
    run, job = demo(folder, side_px)
    tissue = run.tissue.to_numpy()
    found = embeddings(run, job, tissue)
    if with_published:
        published, _ = demo(folder, side_px, recipe="published")
        found["published"] = published.embedding.to_numpy()[:, tissue].T
    kind, share = known_regions(tissue.shape, side_px)
    clear = tissue & (share >= CLEAR)
    lines = []
    for name, values in found.items():
        scores = []
        for k in CLUSTERS:
            labels = clustered(values, tissue, k)
            scores += [f"{adjusted_rand_score(kind[at], labels[at]):.3f}" for at in (clear, tissue)]
        lines.append([f"{side_px} px", name, *scores])
        print(lines[-1], flush=True)
    return lines


def inertia_row(folder: Path, source: Path) -> str:
    """What k-means loses on her2st C4 by its batches."""
    project = folder / "C4"
    if not project.exists():
        lay_out_her2st(source, project, "C4", "covered")
    out = iscale.run(project, stage="predict", n_genes=100, pixel_size=PIXEL_SIZE_UM, out=folder / "C4-out")
    (rows,) = draw_samples(iscale.open_run(out).store, ("tissue/mask",), 0)
    lines = []
    for k in CLUSTERS:
        start = time.perf_counter()
        ours = inertia(rows, fit_centres(rows, k, 0))
        middle = time.perf_counter()
        full = KMeans(k, n_init=10, random_state=0).fit(rows).inertia_
        times = middle - start, time.perf_counter() - middle
        lines.append([str(k), f"{ours / full - 1:+.2%}", *(f"{seconds:.0f}" for seconds in times)])
        print(lines[-1], flush=True)
    head = ["clusters", "inertia, over full k-means'", "s", "full k-means, s"]
    return f"her2st C4, {len(rows):,} superpixels; full k-means is the best of 10 starts.\n\n{table(head, lines)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 5120])
    parser.add_argument("--published", action="store_true", help="with the published recipe, which trains for long")
    parser.add_argument("--work", type=Path, help="folder to keep runs in")
    parser.add_argument("--print", action="store_true", help="only print the tables; docs/benchmarks.md stays")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.work or Path(name)
        lines = [line for side in arguments.sides for line in region_rows(folder, side, arguments.published)]
        second = inertia_row(folder, Path(os.environ["ISCALE_DATA"]) / "her2st")
    head = ["demo", "embedding", *(f"{k}, {what}" for k in CLUSTERS for what in ("clear", "all"))]
    text = f"Adjusted Rand index against the demo's regions, for 6, 8 and 10 clusters; {machine()}.\n\n"
    text += f"{table(head, lines)}\n\n{second}"
    if arguments.print:
        print(text)
    else:
        publish("clusters", text)


if __name__ == "__main__":
    main()
