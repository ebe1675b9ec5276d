"""What each cluster is: the labels' mean scores in it, and the shares of its superpixels that have them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iscale.annotate.context import AnnotateContext
from iscale.annotate.markers import UNCLASSIFIED
from iscale.geometry import Region
from iscale.store import layout

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
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(COLUMNS)
        for cluster, row in enumerate(total, start=1):
            size = int(row[n:].sum())
            mean = row[:n] / FINEST / max(size, 1)
            best = labels[int(mean.argmax())] if size else ""
            for label, name in enumerate((*labels, UNCLASSIFIED)):
                shown = f"{mean[label]:.6f}" if size and label < n else ""
                share = f"{row[n + label] / size:.6f}" if size else ""
                table.writerow((cluster, size, best, name, shown, share))
    part.replace(path)
