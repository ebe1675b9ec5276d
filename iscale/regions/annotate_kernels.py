"""What tasks of the stage ``annotate`` do: find the range of every marker, label superpixels, draw the maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iscale.engine.progress import tell
from iscale.engine.whole_file import whole_file
from iscale.geometry import SUPERPIXEL_PX, Region, SlideGrid
from iscale.model.genes import Source, open_source
from iscale.plots.draw import draw_map
from iscale.plots.labels import class_colours, draw_labels, label_map
from iscale.plots.overview import mean_map, reduction
from iscale.project.layout import file_name
from iscale.regions.label_scores import (
    N_VALUES,
    Rule,
    classify,
    count_values,
    label_scores,
    quantiles,
    relative_counts,
    scaled,
)
from iscale.regions.marker_table import NOTHING, UNCLASSIFIED
from iscale.store import layout
from iscale.store.layout import genes_by_chunk
from iscale.store.run_store import RunStore

THRESHOLDS = (0.01, 0.05, 0.10, 0.15, 0.20, 0.25)
"""Below each of these, in turn, the best score makes no label (method, section 5)."""


@dataclass(frozen=True)
class AnnotateContext:
    """Names and numbers only: small, and the same on all workers.

    Labels, per label its markers, of which clusterings there is a table, and how markers are scaled to [0, 1].
    """

    store: RunStore
    grid: SlideGrid
    labels: tuple[str, ...]
    genes: tuple[tuple[str, ...], ...]
    n_clusters: tuple[int, ...] = ()
    rule: Rule = "relative"

    @property
    def markers(self) -> tuple[str, ...]:
        """Every marker once."""
        return tuple(dict.fromkeys(gene for genes in self.genes for gene in genes))


def marker_rows(source: Source, markers: Iterable[str]) -> dict[int, str]:
    """Markers by their row among the genes of a run, in the order of the rows."""
    return dict(sorted((source.row(gene), gene) for gene in dict.fromkeys(markers)))


def read_rows(source: Source, rows: Sequence[int], place: Region) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Values (y, x) of ascending rows at a place, one after the other; genes that are stored together are read once."""
    for together in genes_by_chunk(rows):
        near = [rows[at] for at in together]
        yield from zip(near, source.rows(np.array(near, np.int64), place), strict=True)


MARKERS_PER_TASK = 8
TILE = 512
"""Superpixels read at a time, per side."""


def range_of_markers(context: AnnotateContext, region: Region) -> list[list[float]]:
    """What becomes 0 and what becomes 1 of some markers: rows of the region, in the order of the run's genes.

    By the context's rule, of finite values: per marker its lowest and highest expected counts, or two quantiles of its
    counts per 10,000; both 0 where it has none.
    """
    rows = list(marker_rows(open_source(context.store), context.markers))[region.y0 : region.y1]
    found = _quantiles(context, rows) if context.rule == "relative" else _extremes(context, rows)
    return [list(found.get(row, (0.0, 0.0))) for row in rows]


def _extremes(context: AnnotateContext, rows: list[int]) -> dict[int, tuple[float, float]]:
    """Lowest and highest expected counts, by row."""
    found: dict[int, tuple[float, float]] = {}
    for _, row, values in _values(context, rows):
        there = values[np.isfinite(values)]
        if there.size:
            low, high = found.get(row, (np.inf, -np.inf))
            found[row] = min(low, float(there.min())), max(high, float(there.max()))
    return found


def _quantiles(context: AnnotateContext, rows: list[int]) -> dict[int, tuple[float, float]]:
    """Two quantiles of relative expression, by row: values are counted, so that no order changes them."""
    counts = {row: np.zeros(N_VALUES, np.int64) for row in rows}
    depths, last = context.store.array("expression/depth"), None
    for tile, row, values in _values(context, rows):
        if tile != last:
            depth, last = np.asarray(depths[tile.slices]).astype(np.float32), tile
        there = np.isfinite(values) & (depth > 0)
        counts[row] += count_values(relative_counts(values[there], depth[there]))
    return {row: quantiles(n) for row, n in counts.items()}


def _values(context: AnnotateContext, rows: list[int]) -> Iterator[tuple[Region, int, NDArray[np.float32]]]:
    """Tiles that have tissue, and of each every row and its values (y, x)."""
    source, tissue = open_source(context.store), context.store.array("tissue/mask")
    tiles = list(Region(0, source.shape[0], 0, source.shape[1]).tiles(TILE))
    for done, tile in enumerate(tiles, start=1):
        if np.asarray(tissue[tile.slices]).any():
            for row, values in read_rows(source, rows, tile):
                yield tile, row, values
        tell(done, len(tiles))


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


FOLDER = "annotation"


def figures(context: AnnotateContext) -> Iterator[Path]:
    """All files that `draw_annotation` writes: maps, then masks, then scores."""
    folder = context.store.folder / FOLDER
    yield from (folder / f"{threshold:.2f}.png" for threshold in THRESHOLDS)
    for kind in ("masks", "scores"):
        yield from (folder / kind / f"{file_name(label)}.png" for label in context.labels)


def draw_annotation(context: AnnotateContext, region: Region) -> None:
    """Draw some figures; rows of the region are thresholds, then labels."""
    for row in range(region.y0, region.y1):
        if row < len(THRESHOLDS):
            _draw_threshold(context, row)
        else:
            _draw_label(context, row - len(THRESHOLDS))


def clear_figures(context: AnnotateContext) -> None:
    """Remove figures of an earlier run, which may be of other labels."""
    folder = context.store.folder / FOLDER
    for path in (*folder.glob("*.png"), *folder.glob("masks/*.png"), *folder.glob("scores/*.png")):
        path.unlink()


def _draw_threshold(context: AnnotateContext, row: int) -> None:
    array = context.store.array("annotation/labels")
    factor = reduction(array.shape)
    path = context.store.folder / FOLDER / f"{THRESHOLDS[row]:.2f}.png"
    names, colours = [*context.labels, UNCLASSIFIED], [*class_colours(len(context.labels)), NOTHING]
    title = f"annotation, best score at least {THRESHOLDS[row]:.2f}"
    draw_labels(path, label_map(array, row, factor), names, colours, context.grid.superpixel_um * factor, title)


def _draw_label(context: AnnotateContext, label: int) -> None:
    folder, name = context.store.folder / FOLDER, f"{file_name(context.labels[label])}.png"
    labels, score = (context.store.array(f"annotation/{part}") for part in ("labels", "score"))
    factor = reduction(score.shape)
    _write_mask(folder / "masks" / name, label_map(labels, 0, factor) == label + 1, context.grid, factor)
    title, unit = f"{context.labels[label]}, score", "mean of the markers, each scaled to [0, 1]"
    draw_map(folder / "scores" / name, mean_map(score, label, factor), context.grid.superpixel_um * factor, title, unit)


def _write_mask(path: Path, mask: NDArray[np.bool_], grid: SlideGrid, factor: int) -> None:
    """Write a mask, white where true, of the slide without its padding: as masks of a project are read."""
    rows, columns = (ceil(n / (SUPERPIXEL_PX * factor)) for n in grid.content_shape_px)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        Image.fromarray(np.where(mask[:rows, :columns], 255, 0).astype(np.uint8)).save(part, format="PNG")
