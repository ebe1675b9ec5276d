"""The slide at a glance: its image, the outline of its tissue, and where the captures lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from numpy.typing import NDArray

from iscale.plots.draw import hull_of, plain, save_figure, scale_bar
from iscale.plots.labels import class_colours

WIDTH_INCHES, TALLEST_INCHES = 8.4, 8.4
TISSUE = "#202020"


def draw_slide(
    path: Path,
    image: NDArray[np.uint8],
    extent_um: tuple[float, float, float, float],
    tissue: NDArray[np.floating],
    um_per_cell: float,
    captures: Mapping[str, NDArray[np.floating]],
) -> None:
    """Draw the slide with the outline of its tissue and the hulls of its captures.

    Parameters
    ----------
    path
        File to write; its folder is made.
    image, extent_um
        (y, x, c) pixels, and left, right, bottom, top of what they cover.
    tissue
        (y, x) share of tissue, in cells of ``um_per_cell`` from the same corner as the image's positions.
    um_per_cell
        Side of such a cell, in um.
    captures
        (spot, 2) positions of each capture's spots, in um.
    """
    left, right, bottom, top = extent_um
    width, height = right - left, bottom - top
    scale = min(WIDTH_INCHES / width, TALLEST_INCHES / height)
    figure = Figure(figsize=(max(width * scale, 2.0), max(height * scale, 1.2)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(image, extent=extent_um, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    axes.set_autoscale_on(False)
    if tissue.min() < 0.5 <= tissue.max():
        x, y = ((np.arange(n) + 0.5) * um_per_cell for n in tissue.shape[::-1])
        axes.contour(x, y, tissue, levels=[0.5], colors=[TISSUE], linewidths=1.2)
    halo = [effects.withStroke(linewidth=3, foreground="white")]
    for (name, xy), colour in zip(captures.items(), class_colours(len(captures)), strict=True):
        hull = hull_of(np.asarray(xy, dtype=np.float64))
        axes.add_patch(Polygon(hull, fill=False, ec=colour, lw=2.2, path_effects=halo))
        x, y = hull.mean(axis=0)
        text = axes.text(x, y, plain(name), ha="center", va="center", fontsize=11, weight="bold", color=colour)
        text.set(path_effects=halo, clip_on=True)
    scale_bar(axes, width)
    save_figure(figure, path)
