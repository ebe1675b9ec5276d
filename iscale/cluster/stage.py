"""Stage ``cluster``: superpixels grouped by their gene embedding, and the genes that mark the groups.

Five steps, over regions of the slide but for the first: the centres are learnt; every superpixel gets the nearest;
small components are joined to their neighbours and clusters counted; labels by size are written; statistics of the
genes are added up, in blocks of genes; maps are drawn. Joining small components is done twice rather than stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from iscale.cluster.components import HALO
from iscale.cluster.figures import clear_figures, figure_files, marker_table
from iscale.cluster.kernels import (
    MASKS,
    ClusterContext,
    count_region,
    draw_region,
    learn,
    markers_of_genes,
    nearest_region,
    order_by_size,
    write_region,
)
from iscale.cluster.learn import ROWS_AT_ONCE, SAMPLE_BYTES
from iscale.cluster.markers import STATISTICS, write_markers
from iscale.cluster.smooth import HALO as SMOOTHING_HALO
from iscale.cluster.smooth import TILE
from iscale.engine.ledger import fingerprint
from iscale.engine.plan import Plan, Resources, check_budget, cut, plan_regions, single_task
from iscale.engine.step import Step
from iscale.errors import InputError
from iscale.geometry import SlideGrid
from iscale.model.sizes import SIZES
from iscale.store import layout
from iscale.store.run_store import RunStore

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
        plan=_plan_rows("cluster/draw", len(n_clusters), 1, FIGURE_BYTES, resources),
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
        plan=_plan_rows("cluster/markers", len(genes), GENES_PER_TASK, task_bytes, resources),
        outputs=(*store.metadata(*(array.path for array in arrays.values())), *tables.values()),
        prepare=make,
        finish=write_tables,
        disk_bytes=sum(array.bytes for array in arrays.values()),
        files=sum(array.files for array in arrays.values()) + len(tables) + 7 * len(n_clusters),
        **common,
    )


def _plan_rows(name: str, rows: int, rows_per_task: int, task_bytes: int, resources: Resources) -> Plan:
    """A plan over the rows of a table."""
    shape, shard = (rows, 1), (rows_per_task, 1)
    plan = Plan(shape, shard, cut(shape, shard, (1, 1)), task_bytes)
    check_budget(name, plan, resources)
    return plan
