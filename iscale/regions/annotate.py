"""Stage ``annotate``: what each superpixel is, by marker genes that the user names (method, section 5)."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from iscale.engine.ledger import fingerprint
from iscale.engine.plan import Resources, plan_regions, plan_rows
from iscale.engine.step import Step
from iscale.engine.whole_file import whole_file
from iscale.errors import InputError
from iscale.geometry import Region, SlideGrid
from iscale.model.genes import READ_BYTES, open_source
from iscale.plots.overview import TILE as DRAWN_TILE
from iscale.project.layout import MOTHER_FOLDER
from iscale.regions.annotate_kernels import (
    FOLDER,
    MARKERS_PER_TASK,
    THRESHOLDS,
    TILE,
    AnnotateContext,
    clear_figures,
    draw_annotation,
    figures,
    label_region,
    marker_rows,
    range_of_markers,
)
from iscale.regions.label_scores import HIGH, LOW, N_VALUES, SAID, rule_of
from iscale.regions.marker_table import EXAMPLE, UNCLASSIFIED, Markers
from iscale.store import layout
from iscale.store.run_store import RunStore
from iscale.words import plural

if TYPE_CHECKING:
    from iscale.plan.job import Job
    from iscale.plan.workers import Workers

FINEST = 1 << 24
"""Scores are whole multiples of 1/FINEST, as float16 has them: their sums are exact, in any order."""

COLUMNS = ("cluster", "superpixels", "best_label", "label", "mean_score", "share")

Sums = list[list[list[int]]]
"""Per number of clusters and cluster: per label the sum of its score (times `FINEST`), and per label and Unclassified
the number of superpixels."""


def sum_by_cluster(context: AnnotateContext, region: Region) -> Sums:
    """Sum scores and count labels (at the lowest threshold) over the superpixels of each cluster in a region."""
    store, n = context.store, len(context.labels)
    planes = _planes(context)
    totals = [np.zeros((k, 2 * n + 1), np.int64) for k in context.n_clusters]
    for shard in region.tiles(layout.SHARD_SUPERPIXELS):
        labels = np.asarray(store.array("annotation/labels")[(0, *shard.slices)])
        there = labels > 0
        if not there.any():
            continue
        score = np.asarray(store.array("annotation/score")[(slice(None), *shard.slices)])[:, there].astype(np.float64)
        for k, plane, total in zip(context.n_clusters, planes, totals, strict=True):
            cluster = np.asarray(store.array("clusters/labels")[(plane, *shard.slices)])[there].astype(np.int64)
            for label in range(n):
                total[:, label] += np.bincount(cluster, score[label] * FINEST, k + 1)[1:].astype(np.int64)
            at = cluster * (n + 1) + labels[there] - 1
            total[:, n:] += np.bincount(at, minlength=(k + 1) * (n + 1)).reshape(k + 1, n + 1)[1:]
    return [total.tolist() for total in totals]


def _planes(context: AnnotateContext) -> list[int]:
    """Where each number of clusters is in the stored labels of clusters."""
    there = np.asarray(context.store.array("clusters/n_clusters")[...]).tolist()
    return [there.index(k) for k in context.n_clusters]


def cluster_table(context: AnnotateContext, k: int) -> Path:
    """The file that holds what each of ``k`` clusters is."""
    return context.store.folder / f"clusters-gene_{k}" / "annotation.tsv"


def write_tables(context: AnnotateContext, values: list[Sums]) -> None:
    """Write a table for every number of clusters, from what was summed over the regions."""
    for i, k in enumerate(context.n_clusters):
        total = np.sum([np.array(value[i], np.int64) for value in values], axis=0)
        _write_table(cluster_table(context, k), total, context.labels)


def _write_table(path: Path, total: NDArray[np.int64], labels: tuple[str, ...]) -> None:
    n = len(labels)
    rows: list[tuple[Any, ...]] = [COLUMNS]
    for cluster, row in enumerate(total, start=1):
        size = int(row[n:].sum())
        mean = row[:n] / FINEST / max(size, 1)
        best = labels[int(mean.argmax())] if size else ""
        for label, name in enumerate((*labels, UNCLASSIFIED)):
            shown = f"{mean[label]:.6f}" if size and label < n else ""
            share = f"{row[n + label] / size:.6f}" if size else ""
            rows.append((cluster, size, best, name, shown, share))
    _write_rows(path, rows)


def _write_rows(path: Path, rows: Iterable[tuple[Any, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)


FIGURES_PER_TASK = 4
SPARE_BYTES = 16 * 2**20
MATPLOTLIB_BYTES = 250 * 2**20

RANGES = {
    "relative": (f"{LOW:.0%} quantile of counts per 10,000", f"{HIGH:.1%} quantile of counts per 10,000"),
    "published": ("lowest expected counts", "highest expected counts"),
}
"""What ``low`` and ``high`` of a marker are, by the rule."""

VERSION = 3
"""Raised when the annotation of the same expression changes."""


def annotate_steps(
    store: RunStore,
    grid: SlideGrid,
    markers: Markers,
    n_clusters: tuple[int, ...],
    *,
    recipe: str,
    inputs: tuple[str, str],
    resources: Resources,
) -> Iterator[Step]:
    """The steps that fill ``annotation/``: the markers' ranges, the labels, their figures, and a table per clustering.

    Parameters
    ----------
    n_clusters
        Numbers of clusters, of those that ``clusters/labels`` has.
    recipe
        Of the model: with ``published``, markers are scaled as published.
    inputs
        Fingerprints of the predicted expression and of the clusters.
    """
    expression, clusters = inputs
    rule = rule_of(recipe)
    context = AnnotateContext(store, grid, markers.labels, markers.genes, n_clusters, rule)
    parameters: dict[str, Any] = {
        "version": VERSION,
        "labels": list(markers.labels),
        "genes": [list(genes) for genes in markers.genes],
        "thresholds": list(THRESHOLDS),
        "scaling": [rule, LOW, HIGH] if rule == "relative" else rule,
    }
    labelled = fingerprint("annotate", parameters, expression)
    yield _range_step(context, labelled, expression, resources)
    yield _label_step(context, labelled, resources)
    yield _figure_step(context, labelled, resources)
    yield _cluster_step(
        context, fingerprint("annotate/clusters", {"n": list(n_clusters)}, labelled, clusters), resources
    )


def _range_step(context: AnnotateContext, labelled: str, expression: str, resources: Resources) -> Step:
    store, markers = context.store, context.markers
    # A chunk of genes; a gene, the depth, what is counted of them, and the counts.
    counts = (MARKERS_PER_TASK + 2) * 8 * N_VALUES
    task_bytes = READ_BYTES + layout.GENES_PER_CHUNK * 2 * 4 * TILE**2 + 12 * 4 * TILE**2 + counts + SPARE_BYTES

    def prepare() -> None:
        described = {
            "scaling": context.rule,
            "scaling_rule": SAID[context.rule],
            "markers": {label: list(genes) for label, genes in zip(context.labels, context.genes, strict=True)},
        }
        inputs = {"expression": expression}
        store.make_group("annotation", {"unclassified": UNCLASSIFIED, **described, "inputs": inputs})

    def finish(values: list[list[list[float]]]) -> None:
        ends = np.array([row for value in values for row in value], np.float32).reshape(-1, 2)
        store.put("annotation/marker", list(marker_rows(open_source(store), markers).values()), ("marker",))
        meanings = RANGES[context.rule]
        for column, (name, what) in enumerate(zip(("low", "high"), meanings, strict=True)):
            store.put(f"annotation/{name}", ends[:, column], ("marker",), long_name=f"{what} over the tissue")

    return Step(
        name="annotate/range",
        kernel=range_of_markers,
        context=context,
        plan=plan_rows("annotate/range", len(markers), MARKERS_PER_TASK, task_bytes, resources),
        fingerprint=labelled,
        outputs=store.metadata("annotation", "annotation/marker", "annotation/low", "annotation/high"),
        prepare=prepare,
        finish=finish,
        disk_bytes=40 * len(markers),
        files=8,
        note=plural(len(markers), "marker"),
    )


def _label_step(context: AnnotateContext, labelled: str, resources: Resources) -> Step:
    store, shape, side, n = (
        context.store,
        context.grid.superpixel_shape,
        layout.MASK_SHARD_SUPERPIXELS,
        len(context.labels),
    )
    score, labels, confidence = layout.annotation(n, len(THRESHOLDS), shape)
    described = {
        score: f"scores of the labels: the mean of their markers, scaled to [0, 1]: {SAID[context.rule]}",
        labels: "best label: 0 off tissue, 1 to n in the order of `label`, n + 1 where its score is below the "
        "threshold (Unclassified)",
        confidence: "best score minus second-best",
    }
    shares = store.folder / FOLDER / "shares.tsv"

    def prepare() -> None:
        for array, what in described.items():
            store.make(array, {"long_name": what})
        store.put("annotation/label", context.labels, ("label",))
        store.put("annotation/threshold", np.array(THRESHOLDS), ("threshold",))
        store.put_coordinates("annotation", shape, context.grid.superpixel_um)

    def finish(values: list[list[list[int]]]) -> None:
        total = np.sum([np.array(value, np.int64) for value in values], axis=0)
        rows: list[tuple[Any, ...]] = [("threshold", "label", "superpixels", "share")]
        for threshold, row in zip(THRESHOLDS, total, strict=True):
            for label, count in zip((*context.labels, UNCLASSIFIED), row, strict=True):
                rows.append((f"{threshold:.2f}", label, count, f"{count / max(1, row.sum()):.6f}"))
        _write_rows(shares, rows)

    # Of a tile's superpixels: the sum, the rounded score and what ranks it per label; a chunk of genes. Of a shard's:
    # score, labels and confidence, and as much again while they are compressed.
    each = 20 * n + 2 * 4 * layout.GENES_PER_CHUNK + 24 * len(THRESHOLDS) + 24
    tile_bytes = READ_BYTES + layout.SHARD_SUPERPIXELS**2 * each
    shard_bytes = 2 * (min(side, shape[0]) * min(side, shape[1])) * (2 * n + len(THRESHOLDS) + 2)
    return Step(
        name="annotate/label",
        kernel=label_region,
        context=context,
        plan=plan_regions(
            "annotate/label", shape, (side, side), lambda _: tile_bytes + shard_bytes + SPARE_BYTES, resources
        ),
        fingerprint=labelled,
        outputs=(
            *store.metadata("annotation/label", "annotation/threshold", *(array.path for array in described)),
            shares,
        ),
        prepare=prepare,
        finish=finish,
        disk_bytes=sum(array.bytes for array in described),
        files=sum(array.files for array in described) + 9,
        note=plural(n, "label"),
    )


def _figure_step(context: AnnotateContext, labelled: str, resources: Resources) -> Step:
    rows, task_bytes = len(THRESHOLDS) + len(context.labels), 3 * 4 * DRAWN_TILE**2 + MATPLOTLIB_BYTES
    drawn = tuple(figures(context))
    return Step(
        name="annotate/figures",
        kernel=draw_annotation,
        context=context,
        plan=plan_rows("annotate/figures", rows, FIGURES_PER_TASK, task_bytes, resources),
        fingerprint=labelled,
        prepare=lambda: clear_figures(context),
        outputs=drawn,
        disk_bytes=300_000 * len(drawn),
        files=len(drawn),
    )


def _cluster_step(context: AnnotateContext, made: str, resources: Resources) -> Step:
    shape, side, n = context.grid.superpixel_shape, layout.SHARD_SUPERPIXELS, len(context.labels)
    per_superpixel = 2 * n + 8 * n + 8 * 4 + 16
    tables = tuple(cluster_table(context, k) for k in context.n_clusters)
    return Step(
        name="annotate/clusters",
        kernel=sum_by_cluster,
        context=context,
        plan=plan_regions(
            "annotate/clusters", shape, (side, side), lambda _: per_superpixel * side * side + SPARE_BYTES, resources
        ),
        fingerprint=made,
        finish=lambda values: write_tables(context, values),
        outputs=tables,
        disk_bytes=80 * (n + 1) * sum(context.n_clusters),
        files=len(tables),
    )


def check(job: Job, alone: bool) -> None:
    """Read the user's markers; to annotate without any is an error, to run without them is not."""
    if job.markers is None and alone:
        place = job.project / MOTHER_FOLDER / "markers.csv"
        raise InputError(f"{place} is not there: annotation is by marker genes that you name in it.", EXAMPLE)


def steps(job: Job, workers: Workers, made: Mapping[str, str]) -> Iterator[Step]:
    """Steps of the stage for a job (:class:`iscale.stages.Stage`)."""
    if job.markers is not None:
        yield from annotate_steps(
            job.store,
            job.grid,
            job.markers,
            job.options.n_clusters,
            recipe=job.options.recipe,
            inputs=(made["predict"], made["cluster"]),
            resources=workers.of("cpu"),
        )
