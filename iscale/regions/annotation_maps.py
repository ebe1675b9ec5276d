"""Figures of the annotation: a map per threshold; a mask and a map of scores per label."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iscale.geometry import SUPERPIXEL_PX, Region, SlideGrid
from iscale.plots.draw import draw_map
from iscale.plots.labels import class_colours, draw_labels, label_map
from iscale.plots.overview import mean_map, reduction
from iscale.project.layout import file_name
from iscale.regions.annotate_kernels import THRESHOLDS, AnnotateContext
from iscale.regions.marker_table import UNCLASSIFIED

FOLDER = "annotation"
NOTHING = "#d9d9d9"
"""Colour of what is Unclassified."""


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
    part = path.with_name(path.name + ".part")
    Image.fromarray(np.where(mask[:rows, :columns], 255, 0).astype(np.uint8)).save(part, format="PNG")
    part.replace(path)
