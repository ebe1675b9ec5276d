"""The contact sheet: a small map of every gene, page by page, each with its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from iscale.plots.draw import COLOURS, DPI, QUANTILES, colour_range, length_text, plain, save_figure, scale_bar_um

COLUMNS, ROWS = 12, 8
PER_PAGE = COLUMNS * ROWS
"""Genes of a page: whole chunks of the stored array, so that none is read for two pages."""

CELL_PX, GAP_PX, NAME_PX, HEAD_PX = 104, 8, 16, 52
LONGEST_NAME = 15

Pixels = NDArray[np.uint8]


def pages(n_genes: int) -> int:
    """Pages of a sheet of so many genes.

    >>> pages(96), pages(97)
    (1, 2)
    """
    return ceil(n_genes / PER_PAGE)


def thumbnail(values: NDArray[np.floating]) -> Pixels:
    """A (y, x) map in colours (y, x, 3), clipped at quantiles of its own; NaN is white; 104 px on the longer side."""
    low, high = colour_range(values)
    scaled = np.clip((np.nan_to_num(values, nan=low) - low) / (high - low), 0, 1)
    coloured = (255 * colormaps[COLOURS](scaled)[..., :3]).round()
    picture = Image.fromarray(np.where(np.isfinite(values)[..., None], coloured, 255).astype(np.uint8))
    height, width = (max(1, round(n * CELL_PX / max(values.shape))) for n in values.shape)
    finer = max(values.shape) < CELL_PX
    return np.asarray(picture.resize((width, height), Image.Resampling.NEAREST if finer else Image.Resampling.BOX))


def box_of(values: NDArray[np.floating]) -> tuple[slice, slice]:
    """The smallest box with all of a map that is not NaN; all of it, if nothing is."""
    there = np.isfinite(values)
    if not there.any():
        return slice(0, values.shape[0]), slice(0, values.shape[1])
    ends = [np.flatnonzero(there.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    (y0, y1), (x0, x1) = ends
    return slice(int(y0), int(y1) + 1), slice(int(x0), int(x1) + 1)


def draw_sheet(
    path: Path, maps: Iterator[NDArray[np.floating]], names: Sequence[str], um_per_cell: float, title: str
) -> None:
    """Draw a page: one (y, x) map per name, taken one at a time, all of the same tissue, to which they are cut."""
    columns = min(COLUMNS, len(names))
    rows = ceil(len(names) / columns)
    step_x, step_y = CELL_PX + GAP_PX, CELL_PX + NAME_PX + GAP_PX
    width, height = max(columns * step_x + GAP_PX, 640), HEAD_PX + rows * step_y + GAP_PX
    sheet = np.full((height, width, 3), 255, np.uint8)
    figure = Figure(figsize=(width / DPI, height / DPI))
    shown_px, shown_um, box = 1, 1.0, None
    for i, (name, values) in enumerate(zip(names, maps, strict=True)):
        box = box or box_of(values)
        picture = thumbnail(values[box])
        x, y = GAP_PX + i % columns * step_x, HEAD_PX + i // columns * step_y
        top, left = y + (CELL_PX - picture.shape[0]) // 2, x + (CELL_PX - picture.shape[1]) // 2
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        label = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
        middle, below = (x + CELL_PX / 2) / width, 1 - (y + CELL_PX + 3) / height
        figure.text(middle, below, plain(label), fontsize=7, ha="center", va="top")
        shown_px, shown_um = picture.shape[1], values[box].shape[1] * um_per_cell
    bar = scale_bar_um(shown_um)
    bar_px = max(1, round(bar / shown_um * shown_px))
    sheet[HEAD_PX - 12 : HEAD_PX - 9, GAP_PX : GAP_PX + bar_px] = 0
    figure.figimage(sheet, zorder=-1)
    figure.text(GAP_PX / width, 1 - 6 / height, plain(title), fontsize=9, va="top")
    note = (
        f"{length_text(bar)}; {COLOURS}, colours of every gene from its {QUANTILES[0]:.0%} to its {QUANTILES[1]:.0%} "
        "quantile"
    )
    figure.text((GAP_PX + bar_px + 6) / width, 1 - (HEAD_PX - 10) / height, note, fontsize=7, va="center")
    save_figure(figure, path)
