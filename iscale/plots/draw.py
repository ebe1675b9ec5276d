"""Figures: a map of the slide, spots over the image, and the sheet of small maps. Matplotlib on small arrays."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy.spatial import ConvexHull, QhullError

from iscale.engine.whole_file import whole_file

Place = tuple[float, float, float, float]
"""Left, bottom, width and height of axes, as shares of the figure."""

COLOURS = "viridis"
SPREAD_COLOURS = "magma"
"""Both run from dark to light evenly, also for colour-blind readers."""

QUANTILES = (0.01, 0.99)
WIDTH_INCHES = 7.0
DPI = 120
PNG_EFFORT = 3
"""Of zlib: files in three colours are no larger than with four and a harder try, in a third of the time."""
BAR_INCHES = 0.95
"""Room for a colour bar with its figures and label."""
TITLE_INCHES = 0.4
TALLEST_INCHES = 14.0
WIDE = 1.6
"""Width over height from which two panels stand one above the other."""


def colour_range(values: NDArray[np.floating]) -> tuple[float, float]:
    """Values between which colours run: quantiles, so that single superpixels do not decide.

    >>> colour_range(np.array([np.nan, 2.0, 2.0]))
    (2.0, 3.0)
    """
    there = values[np.isfinite(values)]
    if not there.size:
        return 0.0, 1.0
    low, high = (float(np.quantile(there, q)) for q in QUANTILES)
    return (low, high) if high > low else (low, low + 1.0)


def draw_map(
    path: Path, values: NDArray[np.floating], um_per_cell: float, title: str, unit: str, *, width: float = WIDTH_INCHES
) -> None:
    """Draw a (y, x) map of cells of ``um_per_cell``, ``width`` inches wide; NaN stays white."""
    figure, axes, bar = _with_bar(values.shape, width)
    shown = _show_map(axes, values, um_per_cell, COLOURS)
    _finish(figure, axes, shown, bar, title, unit, values.shape[1] * um_per_cell)
    save_figure(figure, path)


def draw_with_uncertainty(
    path: Path,
    values: NDArray[np.floating],
    spread: NDArray[np.floating],
    um_per_cell: float,
    title: str,
    unit: str,
    *,
    panel: float = 5.2,
) -> None:
    """Draw a (y, x) map and, beside it or below, its uncertainty: one scale bar, colours clipped at quantiles.

    NaN stays white; ``panel`` is the width of a map in inches, where the two stand side by side.
    """
    height, width = values.shape
    stacked = width > WIDE * height
    panel = WIDTH_INCHES if stacked else panel
    tall = float(np.clip(panel * height / width, 1.2, TALLEST_INCHES / (2 if stacked else 1)))
    rows, columns = (2, 1) if stacked else (1, 2)
    size = columns * (panel + BAR_INCHES) + 0.1, rows * (tall + TITLE_INCHES) + 0.1
    figure = Figure(figsize=size)
    parts = (values, plain(title), unit, COLOURS), (spread, "uncertainty (standard deviation)", unit, SPREAD_COLOURS)
    for i, (part, heading, of, colours) in enumerate(parts):
        left = 0.1 + (0 if stacked else i) * (panel + BAR_INCHES)
        bottom = size[1] - (i + 1 if stacked else 1) * (tall + TITLE_INCHES)
        axes = figure.add_axes((left / size[0], bottom / size[1], panel / size[0], tall / size[1]))
        shown = _show_map(axes, part, um_per_cell, colours)
        axes.set_axis_off()
        axes.set_title(heading, fontsize=11)
        bar = ((left + panel + 0.08) / size[0], (bottom + 0.1 * tall) / size[1], 0.14 / size[0], 0.8 * tall / size[1])
        _colour_bar(figure, shown, bar, of)
        if i == 0:
            scale_bar(axes, width * um_per_cell)
    save_figure(figure, path)


def draw_spots(
    path: Path,
    image: NDArray[np.uint8],
    extent_um: tuple[float, float, float, float],
    xy_um: NDArray[np.floating],
    radius_um: NDArray[np.floating],
    values: NDArray[np.floating],
    title: str,
    unit: str,
) -> None:
    """Draw spots, coloured by value, over a (y, x, c) image that covers left, right, bottom, top in um."""
    figure, axes, bar = _with_bar(image.shape[:2], WIDTH_INCHES)
    axes.imshow(image, extent=extent_um, alpha=0.6)
    discs = add_discs(axes, xy_um, 2 * radius_um, array=values, cmap=COLOURS, clim=colour_range(values))
    _finish(figure, axes, discs, bar, title, unit, abs(extent_um[1] - extent_um[0]))
    save_figure(figure, path)


def add_discs(axes: Axes, xy: NDArray[np.floating], diameters: NDArray[np.floating], **style: Any) -> EllipseCollection:
    """Draw discs at places (disc, 2), all in the axes' own unit, whose limits they leave as they are."""
    flat, at = np.zeros(len(xy)), axes.transData
    discs = EllipseCollection(diameters, diameters, flat, units="xy", offsets=xy, offset_transform=at, **style)
    axes.add_collection(discs, autolim=False)
    return discs


def scale_bar_um(width_um: float) -> float:
    """A round length near a fifth of the width.

    >>> scale_bar_um(6400), scale_bar_um(900)
    (1000.0, 100.0)
    """
    target = width_um / 5
    power = 10.0 ** np.floor(np.log10(target))
    return float(max(m * power for m in (1, 2, 5) if m * power <= target))


def length_text(um: float) -> str:
    """A length for people.

    >>> length_text(500), length_text(2000)
    ('500 µm', '2 mm')
    """
    return f"{um:g} \N{MICRO SIGN}m" if um < 1000 else f"{um / 1000:g} mm"


def white_halo(width: float = 3) -> list[effects.withStroke]:
    """What sets lines and letters off from the picture below."""
    return [effects.withStroke(linewidth=width, foreground="white")]


def scale_bar(axes: Axes, width_um: float, *, y: float = 0.03, fontsize: float = 8, halo: bool = False) -> None:
    """Draw a scale bar into the lower left corner of axes that show ``width_um``; a halo sets it off from tissue."""
    bar, start = scale_bar_um(width_um), 0.03
    line: dict[str, Any] = {"solid_capstyle": "butt", "path_effects": white_halo(5)} if halo else {}
    letters: dict[str, Any] = {"path_effects": white_halo()} if halo else {}
    axes.plot([start, start + bar / width_um], [y, y], transform=axes.transAxes, color="black", lw=3, **line)
    axes.text(start, y + 0.015, length_text(bar), transform=axes.transAxes, fontsize=fontsize, **letters)


def hull_of(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners of the convex hull; of points that have none, the points."""
    try:
        return np.asarray(points[ConvexHull(points).vertices], dtype=np.float64)
    except (QhullError, ValueError):
        return points


def plain(text: str, most: int | None = None) -> str:
    r"""A user's text, of so many letters at most, as matplotlib shows it as it is: a dollar sign would begin a formula.

    >>> plain("a$b"), plain("Tumour", 4)
    ('a\\$b', 'Tum…')
    """
    shown = text if most is None or len(text) <= most else text[: most - 1] + "…"
    return shown.replace("$", r"\$")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all; its folder is made."""
    picture, made_by = painted(figure), PngInfo()
    made_by.add_text("Software", "iscale")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        picture.save(part, "PNG", pnginfo=made_by, dpi=(DPI, DPI), compress_level=PNG_EFFORT)


def painted(figure: Figure, dpi: int = DPI) -> Image.Image:
    """A figure in pixels, so many per inch."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        # A user's label in letters that the font lacks is drawn as boxes: no reason to stop or to warn.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return Image.fromarray(pixels).convert("RGB")


def _with_bar(shape: tuple[int, ...], width: float) -> tuple[Figure, Axes, Place]:
    """A figure so many inches wide, axes for a (y, x) picture, and the place of its colour bar."""
    panel = width - BAR_INCHES - 0.1
    tall = float(np.clip(panel * shape[0] / shape[1], 2.0, TALLEST_INCHES))
    height = tall + TITLE_INCHES + 0.1
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.1 / width, 0.1 / height, panel / width, tall / height))
    return figure, axes, ((panel + 0.18) / width, (0.1 + 0.1 * tall) / height, 0.14 / width, 0.8 * tall / height)


def _show_map(axes: Axes, values: NDArray[np.floating], um_per_cell: float, colours: str) -> ScalarMappable:
    low, high = colour_range(values)
    extent = (0.0, values.shape[1] * um_per_cell, values.shape[0] * um_per_cell, 0.0)
    return axes.imshow(values, cmap=colours, vmin=low, vmax=high, extent=extent, interpolation="nearest")


def _finish(
    figure: Figure, axes: Axes, shown: ScalarMappable, bar: Place, title: str, unit: str, width_um: float
) -> None:
    axes.set_axis_off()
    axes.set_title(plain(title), fontsize=11)
    scale_bar(axes, width_um)
    _colour_bar(figure, shown, bar, unit)


def _colour_bar(figure: Figure, shown: ScalarMappable, place: Place, unit: str) -> None:
    """A colour bar that says at which quantiles colours end."""
    bar = figure.colorbar(shown, cax=figure.add_axes(place))
    bar.set_label(f"{unit}, {QUANTILES[0]:.0%} to {QUANTILES[1]:.0%}", fontsize=8)
    bar.ax.tick_params(labelsize=8)


SHEET_COLUMNS, SHEET_ROWS = 12, 8
PER_PAGE = SHEET_COLUMNS * SHEET_ROWS
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
    columns = min(SHEET_COLUMNS, len(names))
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
        middle, below = (x + CELL_PX / 2) / width, 1 - (y + CELL_PX + 3) / height
        figure.text(middle, below, plain(name, LONGEST_NAME), fontsize=7, ha="center", va="top")
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
