"""Figures: a map of the slide, and spots over the image. Pure matplotlib on small arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

COLOURS = "viridis"
QUANTILES = (0.01, 0.99)
WIDTH_INCHES = 7.0
DPI = 120


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


def draw_map(path: Path, values: NDArray[np.floating], um_per_cell: float, title: str, unit: str) -> None:
    """Draw a (y, x) map of cells of ``um_per_cell``; NaN stays white."""
    figure = _figure(values.shape)
    axes = figure.add_axes((0.02, 0.02, 0.83, 0.9))
    low, high = colour_range(values)
    extent = (0.0, values.shape[1] * um_per_cell, values.shape[0] * um_per_cell, 0.0)
    shown = axes.imshow(values, cmap=COLOURS, vmin=low, vmax=high, extent=extent, interpolation="nearest")
    _finish(figure, axes, shown, title, unit, values.shape[1] * um_per_cell)
    _save(figure, path)


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
    figure = _figure(image.shape[:2])
    axes = figure.add_axes((0.02, 0.02, 0.83, 0.9))
    axes.imshow(image, extent=extent_um, alpha=0.6)
    low, high = colour_range(values)
    discs = EllipseCollection(
        2 * radius_um,
        2 * radius_um,
        np.zeros(len(radius_um)),
        units="xy",
        offsets=xy_um,
        offset_transform=axes.transData,
        array=values,
        cmap=COLOURS,
        clim=(low, high),
    )
    axes.add_collection(discs, autolim=False)
    _finish(figure, axes, discs, title, unit, abs(extent_um[1] - extent_um[0]))
    _save(figure, path)


def scale_bar_um(width_um: float) -> float:
    """A round length near a fifth of the width.

    >>> scale_bar_um(6400), scale_bar_um(900)
    (1000.0, 100.0)
    """
    target = width_um / 5
    power = 10.0 ** np.floor(np.log10(target))
    return float(max(m * power for m in (1, 2, 5) if m * power <= target))


def _figure(shape: tuple[int, ...]) -> Figure:
    height = WIDTH_INCHES * 0.83 / 0.9 * shape[0] / shape[1]
    return Figure(figsize=(WIDTH_INCHES, float(np.clip(height, 2.5, 14.0))))


def _finish(figure: Figure, axes: Axes, shown: ScalarMappable, title: str, unit: str, width_um: float) -> None:
    axes.set_axis_off()
    axes.set_title(title, fontsize=11)
    bar = scale_bar_um(width_um)
    label = f"{bar:g} \N{MICRO SIGN}m" if bar < 1000 else f"{bar / 1000:g} mm"
    start = 0.03
    axes.plot([start, start + bar / width_um], [0.03, 0.03], transform=axes.transAxes, color="black", lw=3)
    axes.text(start, 0.045, label, transform=axes.transAxes, fontsize=8)
    colour_bar = figure.colorbar(shown, cax=figure.add_axes((0.87, 0.1, 0.025, 0.7)))
    colour_bar.set_label(f"{unit}, {QUANTILES[0]:.0%} to {QUANTILES[1]:.0%}", fontsize=8)
    colour_bar.ax.tick_params(labelsize=8)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    figure.savefig(part, dpi=DPI, format="png", metadata={"Software": "iscale"})
    part.replace(path)
