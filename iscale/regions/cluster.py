"""Stage ``cluster``: superpixels grouped by their gene embedding, and the genes that mark the groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from iscale.engine.ledger import fingerprint
from iscale.engine.plan import Resources, plan_regions, plan_rows, single_task
from iscale.engine.progress import tell
from iscale.engine.step import Step
from iscale.errors import InputError
from iscale.geometry import Region, SlideGrid
from iscale.model.genes import imputed_genes
from iscale.model.sizes import SIZES
from iscale.plots.labels import class_colours, draw_labels, label_map
from iscale.plots.overview import reduction
from iscale.regions.centres import HALO as SMOOTHING_HALO
from iscale.regions.centres import (
    ROWS_AT_ONCE,
    SAMPLE_BYTES,
    TILE,
    distinct,
    draw_samples,
    fit_centres,
    nearest_centre,
    read_smoothed,
)
from iscale.regions.components import HALO, join_small
from iscale.regions.marker_genes import STATISTICS, Sums, relative_expression, statistics, write_markers
from iscale.store import layout
from iscale.store.run_store import RunStore

if TYPE_CHECKING:
    from iscale.plan.job import Job
    from iscale.plan.workers import Workers

PREFIX = "clusters-gene_"
MARKERS = "markers.tsv"
LABELS = "annotation.tsv"
"""What the stage ``annotate`` says of the clusters."""
OURS = ("labels.png", "refined/labels.png", MARKERS, f"refined/{MARKERS}")


def cluster_folder(store: RunStore, k: int) -> Path:
    """Folder of what is known of ``k`` clusters (published name)."""
    return store.folder / f"{PREFIX}{k}"


def marker_table(store: RunStore, which: str, k: int) -> Path:
    """Table of the genes that mark the clusters ``labels`` or ``refined``."""
    folder = cluster_folder(store, k)
    return (folder if which == "labels" else folder / which) / MARKERS


def figure_files(store: RunStore, k: int) -> tuple[Path, ...]:
    """Files that `draw_clusters` writes."""
    folder = cluster_folder(store, k)
    masks = (folder / "masks" / f"{cluster}.png" for cluster in range(1, k + 1))
    return (folder / "labels.png", folder / "refined" / "labels.png", *masks)


def clear_figures(store: RunStore, n_clusters: tuple[int, ...]) -> None:
    """Remove maps and labels of an earlier run's clusters, and all of numbers of clusters that this run has not."""
    for folder in store.folder.glob(f"{PREFIX}*"):
        for mask in (folder / "masks").glob("*.png"):
            mask.unlink()
        (folder / LABELS).unlink(missing_ok=True)
        if folder.name in {f"{PREFIX}{k}" for k in n_clusters}:
            continue
        for name in OURS:
            (folder / name).unlink(missing_ok=True)
        for inner in (folder / "refined", folder / "masks", folder):
            if inner.is_dir() and not any(inner.iterdir()):
                inner.rmdir()


def draw_clusters(store: RunStore, row: int, k: int, superpixel_um: float) -> None:
    """Draw the maps of ``k`` clusters, which are one row of the labels' arrays, and one mask per cluster."""
    factor = reduction(store.array("clusters/labels").shape)
    um_per_cell = superpixel_um * factor
    colours = class_colours(k)
    files = figure_files(store, k)
    titles = {"labels": f"{k} clusters", "refined": f"{k} clusters of superpixels with nuclei"}
    for path, (which, title) in zip(files, titles.items(), strict=False):
        sizes = np.asarray(store.array(f"clusters/{which}_sizes")[row, :k])
        shares = sizes / max(1, sizes.sum())
        names = [f"{cluster} ({share:.1%})" for cluster, share in enumerate(shares, start=1)]
        drawn = label_map(store.array(f"clusters/{which}"), row, factor)
        draw_labels(path, drawn, names, colours, um_per_cell, title)
        if which == "labels":
            for cluster, mask in enumerate(files[2:], start=1):
                own, name = (drawn == cluster).astype(np.uint8), names[cluster - 1]
                draw_labels(mask, own, [name], [colours[cluster - 1]], um_per_cell, f"Cluster {cluster} of {k}")


MASKS = {"labels": "tissue/mask", "refined": "tissue/cells"}
"""Name of each set of clusters, and the superpixels that are clustered."""


@dataclass(frozen=True)
class ClusterContext:
    """What a task needs to know."""

    store: RunStore
    grid: SlideGrid
    n_clusters: tuple[int, ...]
    seed: int


def learn(context: ClusterContext, region: Region) -> None:
    """Find the centres of all clusters on samples of the slide; NaN are those that too few superpixels leave over."""
    del region
    store, n_clusters = context.store, context.n_clusters
    samples = draw_samples(store, tuple(MASKS.values()), context.seed)
    fits = len(samples) * len(n_clusters)
    for i, (which, rows) in enumerate(zip(MASKS, samples, strict=True)):
        found = distinct(rows, max(n_clusters))
        if which == "labels" and found < max(n_clusters):
            raise InputError(
                f"There cannot be {max(n_clusters)} clusters: the tissue has {len(rows)} superpixels, of which {found} "
                "differ in their expression.",
                f"Ask for {max(found, 1)} or fewer with --n-clusters.",
            )
        centres = np.full((len(n_clusters), max(n_clusters), rows.shape[1]), np.nan, dtype=np.float32)
        for j, k in enumerate(n_clusters):
            if used := min(k, found):
                centres[j, :used] = fit_centres(rows, used, context.seed)
            tell(4 * fits + i * len(n_clusters) + j + 1, 5 * fits)
        store.put(f"clusters/{which}_centres", centres, ("n_clusters", "cluster", "component"))


def nearest_region(context: ClusterContext, region: Region) -> None:
    """Write which centre is nearest, for every superpixel of a region."""
    store, n = context.store, len(context.n_clusters)
    centres = {which: np.asarray(store.array(f"clusters/{which}_centres")[...]) for which in MASKS}
    for shard in region.tiles(layout.MASK_SHARD_SUPERPIXELS):
        maps = {which: np.zeros((n, *shard.shape), np.uint8) for which in MASKS}
        for tile in shard.tiles(TILE):
            found = read_smoothed(store, tile, tuple(MASKS.values()))
            for which, (there, values) in zip(MASKS, found, strict=True):
                for row in range(n if len(values) else 0):
                    labels = (nearest_centre(values, centres[which][row]) + 1).astype(np.uint8)
                    maps[which][row, *tile.within(shard)][there] = labels
            tell((tile.y0 - region.y0) * region.shape[1] + (tile.x0 - region.x0), region.area)
        for which, labels in maps.items():
            store.write(f"clusters/{which}_nearest", shard, labels)


def _joined(context: ClusterContext, which: str, row: int, shard: Region) -> NDArray[np.uint8]:
    """Nearest centres of a shard, small components joined to their neighbours: (y, x)."""
    stored = context.store.array(f"clusters/{which}_nearest")
    window = shard.grown(HALO, (stored.shape[1], stored.shape[2]))
    return join_small(np.asarray(stored[(row, *window.slices)]))[shard.within(window)]


def count_region(context: ClusterContext, region: Region) -> dict[str, list[list[int]]]:
    """Superpixels of a region that each centre gets: per set, a list for every number of clusters."""
    most = max(context.n_clusters)
    counts = {which: np.zeros((len(context.n_clusters), most + 1), np.int64) for which in MASKS}
    for shard in region.tiles(layout.MASK_SHARD_SUPERPIXELS):
        for which, count in counts.items():
            for row in range(len(context.n_clusters)):
                count[row] += np.bincount(_joined(context, which, row, shard).ravel(), minlength=most + 1)
    return {which: count[:, 1:].tolist() for which, count in counts.items()}


def write_region(context: ClusterContext, region: Region) -> None:
    """Write a region's labels, the largest cluster of the slide being 1."""
    store = context.store
    for shard in region.tiles(layout.MASK_SHARD_SUPERPIXELS):
        for which in MASKS:
            order = np.asarray(store.array(f"clusters/{which}_order")[...])
            label_of = np.concatenate([np.zeros_like(order[:, :1]), order], axis=1)
            rows = range(len(context.n_clusters))
            maps = [label_of[row][_joined(context, which, row, shard)] for row in rows]
            store.write(f"clusters/{which}", shard, np.stack(maps))


def order_by_size(counts: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Labels by size, the largest first; of two of one size, that of the earlier centre.

    Of (n_clusters, centre) superpixels: the label that each centre becomes, and (n_clusters, cluster) superpixels of
    each.

    >>> order, sizes = order_by_size(np.array([[2, 5, 0]]))
    >>> order.tolist(), sizes.tolist()
    ([[2, 1, 3]], [[5, 2, 0]])
    """
    largest_first = np.argsort(-counts, axis=1, kind="stable")
    order = np.empty(counts.shape, np.uint8)
    np.put_along_axis(order, largest_first, np.arange(1, counts.shape[1] + 1, dtype=np.uint8)[None], axis=1)
    return order, np.take_along_axis(counts, largest_first, axis=1)


def markers_of_genes(context: ClusterContext, region: Region) -> None:
    """Write the statistics of some genes in every cluster: rows of the region are genes, and all its tiles are read."""
    store, genes = context.store, slice(region.y0, region.y1)
    shape = context.grid.superpixel_shape
    stored = {which: store.array(f"clusters/{which}") for which in MASKS}
    expression, depth = imputed_genes(store), store.array("expression/depth")
    sums = {
        (which, row): Sums.of_nothing(region.shape[0], k) for which in MASKS for row, k in enumerate(context.n_clusters)
    }
    for tile in Region(0, shape[0], 0, shape[1]).tiles(layout.SHARD_SUPERPIXELS):
        labels = {which: np.asarray(array[(slice(None), *tile.slices)]) for which, array in stored.items()}
        if labels["labels"].any():
            values = np.asarray(expression[(genes, *tile.slices)])
            relative, there = relative_expression(values, np.asarray(depth[tile.slices]))
            log = np.log1p(relative)
            for (which, row), total in sums.items():
                total.add(relative, log, labels[which][row][there])
        tell(tile.y0 * shape[1] + tile.x1 * layout.SHARD_SUPERPIXELS, shape[0] * shape[1])
    for (which, row), total in sums.items():
        k = context.n_clusters[row]
        store.write(f"clusters/markers_{k}/{which}", Region(0, len(STATISTICS), 0, k), statistics(total), genes)


def draw_region(context: ClusterContext, region: Region) -> None:
    """Draw the maps of some numbers of clusters: rows of the region are these."""
    for row in range(region.y0, region.y1):
        draw_clusters(context.store, row, context.n_clusters[row], context.grid.superpixel_um)


GENES_PER_TASK = 32
MOST_CLUSTERS = 255
FIGURE_BYTES = 300 * 2**20
VERSION = 1
"""Raised when the clusters of the same embedding change."""


def cluster_steps(
    store: RunStore,
    grid: SlideGrid,
    n_clusters: tuple[int, ...],
    seed: int,
    genes: tuple[str, ...],
    *,
    inputs: tuple[str, str],
    resources: Resources,
) -> Iterator[Step]:
    """The steps that fill ``clusters/`` and the folders ``clusters-gene_<k>``.

    Parameters
    ----------
    n_clusters
        Numbers of clusters, each at least 2 and at most 255.
    seed
        Of the samples, and of k-means.
    genes
        Names of the predicted genes.
    inputs
        Fingerprints of ``predict``, which writes the embedding, and of the superpixels with nuclei.
    """
    if not n_clusters or min(n_clusters) < 1 or max(n_clusters) > MOST_CLUSTERS:
        raise InputError(
            f"The number of clusters is {', '.join(map(str, n_clusters)) or 'not given'}.",
            f"Give one number or several from 2 to {MOST_CLUSTERS} with --n-clusters.",
        )
    context = ClusterContext(store, grid, n_clusters, seed)
    parameters = {"n_clusters": list(n_clusters), "seed": seed, "genes": list(genes), "version": VERSION}
    common: dict[str, Any] = {"context": context, "fingerprint": fingerprint("cluster", parameters, *inputs)}
    yield _learn_step(context, common, inputs, resources)
    yield from _label_steps(context, common, resources)
    yield _marker_step(context, common, genes, resources)
    files = tuple(path for k in n_clusters for path in figure_files(store, k))
    yield Step(
        name="cluster/draw",
        kernel=draw_region,
        plan=plan_rows("cluster/draw", len(n_clusters), 1, FIGURE_BYTES, resources),
        outputs=files,
        prepare=partial(clear_figures, store, n_clusters),
        disk_bytes=100_000 * len(files),
        files=len(files),
        **common,
    )


def _tile_bytes(n_clusters: tuple[int, ...]) -> int:
    """Of a tile of the widest embedding: as stored, smoothed, in float64 where distances are taken, and these."""
    width = max(sizes.embedding_width for sizes in SIZES.values())
    return (TILE + 2 * SMOOTHING_HALO) ** 2 * width * 2 * 2 + ROWS_AT_ONCE * (width * 20 + max(n_clusters) * 8)


def _learn_step(context: ClusterContext, common: dict[str, Any], inputs: tuple[str, str], resources: Resources) -> Step:
    store, grid, n_clusters = context.store, context.grid, context.n_clusters

    def make_group() -> None:
        provenance = {"embedding": inputs[0], "cells": inputs[1]}
        store.make_group("clusters", {"seed": context.seed, "inputs": provenance})
        store.put("clusters/n_clusters", np.array(n_clusters), ("n_clusters",))
        store.put("clusters/cluster", np.arange(1, max(n_clusters) + 1), ("cluster",))
        store.put_coordinates("clusters", grid.superpixel_shape, grid.superpixel_um)

    return Step(
        name="cluster/learn",
        kernel=learn,
        # Both samples, one of them once more where its rows are compared.
        plan=single_task("cluster/learn", 3 * SAMPLE_BYTES + _tile_bytes(n_clusters) + 64 * 2**20, resources),
        outputs=store.metadata("clusters", *(f"clusters/{which}_centres" for which in MASKS)),
        prepare=make_group,
        disk_bytes=10**6,
        files=13,
        **common,
    )


def _label_steps(context: ClusterContext, common: dict[str, Any], resources: Resources) -> Iterator[Step]:
    """The steps over regions: nearest centres, small components joined and counted, labels."""
    store, shape, n_clusters = context.store, context.grid.superpixel_shape, context.n_clusters
    side = layout.MASK_SHARD_SUPERPIXELS
    maps = {
        end: [layout.labels(f"clusters/{which}{end}", len(n_clusters), shape) for which in MASKS]
        for end in ("_nearest", "")
    }
    described = {"_nearest": "nearest centre, counted from 1", "": "cluster, the largest is 1"}
    whose = {"labels": "all superpixels of the tissue", "refined": "superpixels with nuclei"}
    held = 2 * 2 * len(n_clusters) * side**2
    task_bytes = {
        "nearest": held + _tile_bytes(n_clusters),
        "count": 80 * (side + 2 * HALO) ** 2,
        "labels": held + 80 * (side + 2 * HALO) ** 2,
    }

    def make(end: str) -> None:
        for which, array in zip(MASKS, maps[end], strict=True):
            store.make(array, {"long_name": f"{described[end]}; of {whose[which]}"})

    def put_order(found: list[dict[str, list[list[int]]]]) -> None:
        for which in MASKS:
            order, sizes = order_by_size(np.sum([counts[which] for counts in found], axis=0))
            store.put(f"clusters/{which}_order", order, ("n_clusters", "cluster"), long_name="label of every centre")
            store.put(f"clusters/{which}_sizes", sizes, ("n_clusters", "cluster"), long_name="superpixels of a label")

    def step(name: str, **more: Any) -> Step:
        plan = plan_regions(f"cluster/{name}", shape, (side, side), lambda _: task_bytes[name], resources)
        return Step(name=f"cluster/{name}", plan=plan, **more, **common)

    def written(end: str) -> dict[str, Any]:
        return {
            "prepare": partial(make, end),
            "outputs": store.metadata(*(array.path for array in maps[end])),
            "disk_bytes": sum(array.bytes for array in maps[end]),
            "files": sum(array.files for array in maps[end]),
        }

    yield step("nearest", kernel=nearest_region, **written("_nearest"))
    outputs = store.metadata(*(f"clusters/{which}_{what}" for which in MASKS for what in ("order", "sizes")))
    yield step("count", kernel=count_region, finish=put_order, outputs=outputs, files=8)
    yield step("labels", kernel=write_region, **written(""))


def _marker_step(context: ClusterContext, common: dict[str, Any], genes: tuple[str, ...], resources: Resources) -> Step:
    store, n_clusters = context.store, context.n_clusters
    arrays = {
        (which, k): layout.gene_statistics(
            f"clusters/markers_{k}/{which}", len(genes), len(STATISTICS), k, GENES_PER_TASK
        )
        for which in MASKS
        for k in n_clusters
    }
    tables = {key: marker_table(store, *key) for key in arrays}
    tile = layout.SHARD_SUPERPIXELS**2
    task_bytes = tile * (8 * 5 * GENES_PER_TASK + 16 * max(n_clusters) + 4 * len(n_clusters)) + 2**20

    def make() -> None:
        for k in n_clusters:
            store.make_group(f"clusters/markers_{k}", {"mean_in, mean_out": "counts per 10,000"})
            store.put(f"clusters/markers_{k}/gene", genes, ("gene",))
            store.put(f"clusters/markers_{k}/statistic", STATISTICS, ("statistic",))
            store.put(f"clusters/markers_{k}/cluster", np.arange(1, k + 1), ("cluster",))
        for array in arrays.values():
            store.make(array, {"long_name": "expression of genes in a cluster and elsewhere"})

    def write_tables(_: list[None]) -> None:
        for key, array in arrays.items():
            found = np.asarray(store.array(array.path)[...])
            write_markers(tables[key], dict(zip(STATISTICS, np.moveaxis(found, 1, 0), strict=True)), genes)

    return Step(
        name="cluster/markers",
        kernel=markers_of_genes,
        plan=plan_rows("cluster/markers", len(genes), GENES_PER_TASK, task_bytes, resources),
        outputs=(*store.metadata(*(array.path for array in arrays.values())), *tables.values()),
        prepare=make,
        finish=write_tables,
        disk_bytes=sum(array.bytes for array in arrays.values()),
        files=sum(array.files for array in arrays.values()) + len(tables) + 7 * len(n_clusters),
        **common,
    )


def steps(job: Job, workers: Workers, made: Mapping[str, str]) -> Iterator[Step]:
    """Steps of the stage for a job (:class:`iscale.stages.Stage`)."""
    yield from cluster_steps(
        job.store,
        job.grid,
        job.options.n_clusters,
        job.options.seed,
        job.spots.genes,
        inputs=(made["predict"], made["refine"]),
        resources=workers.of("cpu"),
    )
