"""Charts: a histogram with its threshold, and scores with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from iscale.plots.draw import plain, save_figure

INK, SOFT = "#202020", "#8a8a8a"
BAR, MARKED = "#0072b2", "#d55e00"
SERIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
LINE = 60
"""Letters to a line of a title."""
MARKERS = "osD^"
"""Series differ in shape as well as in colour."""


def draw_histogram(
    path: Path, counts: ArrayLike, edges: ArrayLike, threshold: float | None, title: str, unit: str
) -> None:
    """Draw counts (bin,) between edges (bin + 1,), and a line at a threshold, if there is one."""
    n, borders = np.asarray(counts, dtype=np.float64), np.asarray(edges, dtype=np.float64)
    figure, axes = _chart(6.4, 3.4, title)
    axes.stairs(n, borders, fill=True, color=BAR, alpha=0.85)
    axes.set_xlabel(plain(unit), fontsize=9)
    axes.set_ylabel("superpixels", fontsize=9)
    axes.set_xlim(float(borders[0]), float(borders[-1]))
    if threshold is not None and np.isfinite(threshold):
        below = float(n[(borders[:-1] + borders[1:]) / 2 < threshold].sum() / max(n.sum(), 1.0))
        axes.axvline(threshold, color=MARKED, lw=1.8)
        label = f"threshold {threshold:.3g}\n{below:.0%} below"
        right = threshold > (borders[0] + borders[-1]) / 2
        axes.annotate(
            label,
            (threshold, 0.96),
            xycoords=("data", "axes fraction"),
            xytext=(-6 if right else 6, 0),
            textcoords="offset points",
            ha="right" if right else "left",
            va="top",
            fontsize=9,
            color=MARKED,
        )
    save_figure(figure, path)


def draw_intervals(
    path: Path,
    names: Sequence[str],
    score: NDArray[np.floating],
    low: NDArray[np.floating],
    high: NDArray[np.floating],
    others: Mapping[str, NDArray[np.floating]],
    title: str,
    unit: str,
) -> None:
    """Draw one row per name, from the top: a score (row,), NaN if not known, its interval, and what others score."""
    rows = np.arange(len(names))
    figure, axes = _chart(6.4, 1.1 + 0.24 * len(names), title)
    axes.hlines(rows, low, high, color=SERIES[0], lw=2.2, alpha=0.5)
    axes.plot(score, rows, "o", color=SERIES[0], ms=5.5, label="this run")
    for i, (name, values) in enumerate(others.items(), start=1):
        colour, marker = SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]
        axes.plot(values, rows, ls="", ms=4.5, mfc="none", label=plain(name), color=colour, marker=marker)
    axes.set_yticks(rows, [plain(name) for name in names], fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(plain(unit), fontsize=9)
    axes.grid(axis="x", color="#e4e4e4", lw=0.8)
    if others:
        axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save_figure(figure, path)


def draw_sorted_scores(path: Path, scores: Mapping[str, NDArray[np.floating]], title: str, unit: str) -> None:
    """Draw the scores (gene,) of every series from the highest to the lowest: how many genes reach what."""
    figure, axes = _chart(6.4, 3.4, title)
    for i, (name, values) in enumerate(scores.items()):
        there = np.sort(values[np.isfinite(values)])[::-1]
        style = ("-", "--", "-.", ":")[i % 4]
        axes.plot(np.arange(1, len(there) + 1), there, ls=style, color=SERIES[i % len(SERIES)], label=plain(name))
    axes.set_xlabel("genes, each series from its best to its worst", fontsize=9)
    axes.set_ylabel(plain(unit), fontsize=9)
    axes.grid(color="#e4e4e4", lw=0.8)
    if len(scores) > 1:
        axes.legend(fontsize=8, frameon=False)
    save_figure(figure, path)


def _chart(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(plain(fill(title, LINE)), fontsize=11, color=INK)
    axes.tick_params(labelsize=8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(SOFT)
    return figure, axes
