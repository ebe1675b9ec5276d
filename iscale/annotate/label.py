"""Labels of superpixels: written by shards, computed by smaller tiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iscale.annotate.context import THRESHOLDS, AnnotateContext
from iscale.annotate.expression import marker_rows, read_rows
from iscale.annotate.scaling import relative_counts
from iscale.annotate.scores import classify, label_scores, scaled
from iscale.basis.source import Source, open_source
from iscale.geometry import Region
from iscale.store import layout
from iscale.store.run_store import RunStore


@dataclass(frozen=True)
class _Marker:
    """A gene that speaks for labels: its row among the run's, what becomes 0 and 1 of it, and the labels' numbers."""

    row: int
    low: float
    high: float
    labels: tuple[int, ...]


def label_region(context: AnnotateContext, region: Region) -> list[list[int]]:
    """Score and label a region; returns how many superpixels have each label (threshold, label), Unclassified last."""
    store, n = context.store, len(context.labels)
    markers = _markers(context)
    counts = np.zeros((len(THRESHOLDS), n + 2), np.int64)
    for shard in region.tiles(layout.MASK_SHARD_SUPERPIXELS):
        tissue = np.asarray(store.array("tissue/mask")[shard.slices])
        if tissue.any():
            score, labels, confidence = _label_shard(context, markers, shard, tissue)
            store.write("annotation/score", shard, score)
            store.write("annotation/labels", shard, labels)
            store.write("annotation/confidence", shard, confidence)
            counts += [np.bincount(plane.ravel(), minlength=n + 2) for plane in labels]
    return [[int(count) for count in row[1:]] for row in counts]


def _label_shard(
    context: AnnotateContext, markers: list[_Marker], shard: Region, tissue: NDArray[np.bool_]
) -> tuple[NDArray[np.float16], NDArray[np.uint8], NDArray[np.float16]]:
    """Score (label, y, x), labels (threshold, y, x) and confidence (y, x) of a shard, a tile at a time."""
    source, n = open_source(context.store), len(context.labels)
    depths = context.store.array("expression/depth") if context.rule == "relative" else None
    score = np.full((n, *shard.shape), np.nan, np.float16)
    labels = np.zeros((len(THRESHOLDS), *shard.shape), np.uint8)
    confidence = np.full(shard.shape, np.nan, np.float16)
    labels_of = [marker.labels for marker in markers]
    for tile in shard.tiles(layout.SHARD_SUPERPIXELS):
        within = tile.within(shard)
        if tissue[within].any():
            depth = None if depths is None else np.asarray(depths[tile.slices]).astype(np.float32)
            found = label_scores(_scaled_markers(source, markers, tile, depth), labels_of, n, tile.shape)
            found[:, ~tissue[within]] = np.nan
            score[:, *within] = found
            labels[:, *within], confidence[within] = classify(found, THRESHOLDS)
    return score, labels, confidence


def _markers(context: AnnotateContext) -> list[_Marker]:
    """Every marker, in the order of the run's genes."""
    limits = _limits(context.store)
    return [
        _Marker(row, *limits[gene], tuple(i for i, genes in enumerate(context.genes) if gene in genes))
        for row, gene in marker_rows(open_source(context.store), context.markers).items()
    ]


def _limits(store: RunStore) -> dict[str, tuple[float, float]]:
    """What becomes 0 and 1 of every marker, as the step before has stored it."""
    names, low, high = (np.asarray(store.array(f"annotation/{part}")[...]) for part in ("marker", "low", "high"))
    ranges = zip(low.tolist(), high.tolist(), strict=True)
    return {str(name): ends for name, ends in zip(names, ranges, strict=True)}


def _scaled_markers(
    source: Source, markers: list[_Marker], tile: Region, depth: NDArray[np.float32] | None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Number of each marker, and its scaled values (y, x) in a tile; with the depth there, of relative expression."""
    for number, (_, values) in enumerate(read_rows(source, [marker.row for marker in markers], tile)):
        if depth is not None:
            values = relative_counts(values, depth).astype(np.float32)
        yield number, scaled(values, markers[number].low, markers[number].high)
