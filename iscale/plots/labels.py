"""Maps of classes, such as clusters and labels; the slide with the outlines of its captures."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from numpy.typing import NDArray

from iscale.arrays import block_mode, block_share
from iscale.geometry import Region
from iscale.plots.draw import (
    TALLEST_INCHES,
    TITLE_INCHES,
    WIDTH_INCHES,
    hull_of,
    plain,
    save_figure,
    scale_bar,
    white_halo,
)

# fmt: off
PALETTE = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#0000ff", "#002424", "#000086",
    "#c2e792", "#496dff", "#792400", "#002455", "#f30055", "#6d496d", "#1831ce", "#009eff", "#3149b6", "#f39e55",
    "#9ece9e", "#c2dbff", "#006d3d", "#3d1800", "#003d86", "#aa3d00", "#79b6ce", "#3d3d31", "#0c3149", "#db9e6d",
)
# fmt: on
"""The first seven are Okabe and Ito's, without black; the rest were drawn one by one, each as far as may be (in CIELAB)
from white and all before it, as normal, protanopic and deuteranopic eyes see them: 14 units or more apart."""

TILE = 512
"""Superpixels read at a time, per side: a multiple of every reduction."""
ROW_INCHES, LETTER_INCHES, SWATCH_INCHES = 0.2, 0.075, 0.16
"""Of the legend."""
LONGEST_NAME = 32


def class_colours(n: int) -> list[str]:
    """Colours of ``n`` classes, as hexadecimal text; the first are those of fewer classes.

    Up to 30 are told apart by colour-blind readers too; further ones repeat them, darker.

    >>> class_colours(2)
    ['#0072b2', '#e69f00']
    """
    return [_darker(PALETTE[i % len(PALETTE)], 0.72 ** (i // len(PALETTE))) for i in range(n)]


def _darker(colour: str, factor: float) -> str:
    hue, lightness, saturation = colorsys.rgb_to_hls(*to_rgb(colour))
    rgb = colorsys.hls_to_rgb(hue, lightness * factor, saturation)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def label_map(array: Any, index: int | None, factor: int) -> NDArray[np.uint8]:
    """The most frequent label of every block of ``factor`` x ``factor`` superpixels, a power of two up to 512.

    Parameters
    ----------
    array
        (row, y, x) or, with ``index`` None, (y, x) stored array of labels; 0 is none. It is read tile by tile.

    Returns
    -------
    ndarray
        (y, x) uint8. 0 where more than half of a block has no label; else the most frequent label, of several the
        smallest.
    """
    if TILE % factor:
        raise ValueError(f"factor {factor} does not divide {TILE}")
    height, width = array.shape[-2:]
    result = np.zeros((ceil(height / factor), ceil(width / factor)), dtype=np.uint8)
    for tile in Region(0, height, 0, width).tiles(TILE):
        place = tile.slices if index is None else (index, *tile.slices)
        result[tile.coarsened(factor).slices] = _most_frequent(np.asarray(array[place]), factor)
    return result


def _most_frequent(labels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    if factor == 1:
        return labels
    return np.where(block_share(labels == 0, factor) > 0.5, 0, block_mode(labels, factor)).astype(np.uint8)


def draw_labels(
    path: Path,
    labels: NDArray[np.integer],
    names: Sequence[str],
    colours: Sequence[str],
    um_per_cell: float,
    title: str,
    *,
    width: float = WIDTH_INCHES,
) -> None:
    """Draw a map (y, x) of classes, its legend and a scale bar: 0 stays white, ``i`` is the class ``names[i - 1]``."""
    if labels.size and int(labels.max()) > len(names):
        raise ValueError(f"label {labels.max()} of {len(names)} names")
    rows, cells = labels.shape
    tall = float(np.clip(width * rows / cells, 1.5, TALLEST_INCHES))
    columns = max(1, ceil(len(names) * ROW_INCHES / tall))
    longest = max((min(len(name), LONGEST_NAME) for name in names), default=0)
    column_inches = SWATCH_INCHES + LETTER_INCHES * longest + 0.25
    size = width + columns * column_inches + 0.3, tall + TITLE_INCHES + 0.1
    figure = Figure(figsize=size)
    axes = figure.add_axes((0.1 / size[0], 0.1 / size[1], width / size[0], tall / size[1]))
    rgb = np.array([to_rgb("white"), *(to_rgb(colour) for colour in colours)])
    axes.imshow((255 * rgb[labels]).round().astype(np.uint8), interpolation="nearest", extent=(0, cells, rows, 0))
    axes.set_axis_off()
    axes.set_title(plain(title), fontsize=11)
    scale_bar(axes, cells * um_per_cell)
    legend = figure.add_axes(
        ((width + 0.2) / size[0], 0.1 / size[1], columns * column_inches / size[0], tall / size[1])
    )
    _legend(legend, names, colours, columns * column_inches, tall, column_inches)
    save_figure(figure, path)


def _legend(
    axes: Axes, names: Sequence[str], colours: Sequence[str], width: float, height: float, column_inches: float
) -> None:
    """Swatches and names from the top, in columns; in inches."""
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    rows = max(1, int(height / ROW_INCHES))
    for i, (name, colour) in enumerate(zip(names, colours, strict=True)):
        x, y = i // rows * column_inches, i % rows * ROW_INCHES
        axes.add_patch(Rectangle((x, y + 0.02), SWATCH_INCHES, SWATCH_INCHES, facecolor=colour, edgecolor="#808080"))
        label = plain(name, LONGEST_NAME)
        axes.text(x + SWATCH_INCHES + 0.08, y + ROW_INCHES / 2, label, fontsize=8, va="center")


SLIDE_INCHES = 8.4
"""Widest and tallest picture of a slide."""
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
    image, extent_um
        (y, x, c) pixels, and left, right, bottom, top of what they cover, in um.
    tissue
        (y, x) share of tissue, in cells of ``um_per_cell`` from the same corner as the image's positions.
    captures
        (spot, 2) positions of each capture's spots, in um.
    """
    left, right, bottom, top = extent_um
    width, height = right - left, bottom - top
    scale = min(SLIDE_INCHES / width, SLIDE_INCHES / height)
    figure = Figure(figsize=(max(width * scale, 2.0), max(height * scale, 1.2)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(image, extent=extent_um, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    axes.set_autoscale_on(False)
    if tissue.min() < 0.5 <= tissue.max():
        x, y = ((np.arange(n) + 0.5) * um_per_cell for n in tissue.shape[::-1])
        axes.contour(x, y, tissue, levels=[0.5], colors=[TISSUE], linewidths=1.2)
    halo = white_halo()
    for (name, xy), colour in zip(captures.items(), class_colours(len(captures)), strict=True):
        hull = hull_of(np.asarray(xy, dtype=np.float64))
        axes.add_patch(Polygon(hull, fill=False, ec=colour, lw=2.2, path_effects=halo))
        x, y = hull.mean(axis=0)
        text = axes.text(x, y, plain(name), ha="center", va="center", fontsize=11, weight="bold", color=colour)
        text.set(path_effects=halo, clip_on=True)
    scale_bar(axes, width)
    save_figure(figure, path)
