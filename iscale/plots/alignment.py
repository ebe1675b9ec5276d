"""Figures that show an alignment: a capture on the mother image before and after, laid over it, as a checkerboard."""

from __future__ import annotations

import io
import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from iscale.align.quality import BAD, DOUBTFUL, GOOD, Quality, figures_of, verdict
from iscale.align.structure import tissue_mask
from iscale.arrays import downsampled
from iscale.engine.whole_file import whole_file
from iscale.plots.draw import add_discs, hull_of, painted, scale_bar, white_halo
from iscale.slide.overview import Overview
from iscale.transform import Transform

MARGIN = 0.12
"""Around the capture, as a share of its extent."""
SLIMMEST = 0.6
"""Sides of a panel, the shorter over the longer, at least."""
SQUARES = 8
"""Of the checkerboard, along the longer side."""
BEYOND = 225
"""Grey of what is not on the mother image."""

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """A part of the plane of the mother image, in its full-resolution pixels, and the pixels it is drawn with."""

    x: float
    y: float
    width: float
    height: float
    px_wide: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in drawn pixels."""
        return max(1, round(self.px_wide * self.height / self.width)), self.px_wide

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top, for matplotlib."""
        return self.x, self.x + self.width, self.y + self.height, self.y

    @property
    def centres(self) -> Points:
        """(y, x, 2) full-resolution positions of the drawn pixels' centres."""
        h, w = self.shape
        x = self.x + (np.arange(w) + 0.5) * self.width / w
        y = self.y + (np.arange(h) + 0.5) * self.height / h
        return np.stack(np.meshgrid(x, y), axis=-1)


def window_about(points: Points, px_wide: int, aspect: float | None = None) -> Window:
    """The window that shows all points (point, 2), with a margin; ``aspect`` is height over width."""
    low, high = points.min(axis=0), points.max(axis=0)
    width, height = np.maximum(high - low, 1.0) * (1 + 2 * MARGIN)
    ratio = aspect or float(np.clip(height / width, SLIMMEST, 1 / SLIMMEST))
    width, height = max(width, height / ratio), max(height, width * ratio)
    x, y = (low + high) / 2 - (width / 2, height / 2)
    return Window(float(x), float(y), float(width), float(height), px_wide)


def sampled(overview: Overview, window: Window, transform: Transform | None = None) -> tuple[Pixels, NDArray[np.bool_]]:
    """Pixels (y, x, 3) of an overview in a window, and where (y, x) it has any.

    ``transform`` is from a capture's full-resolution pixels to the mother's; None for the mother image.
    """
    per_px = window.width / window.px_wide / overview.full_per_px / (transform.scale if transform else 1.0)
    factor = max(1, min(int(per_px), min(overview.rgb.shape[:2]) // 2))
    rgb = downsampled(overview.rgb, factor)
    at = in_overview(overview, window, transform) / factor
    h, w = rgb.shape[:2]
    inside = ((at >= 0) & (at < (w, h))).all(axis=-1)
    place = [at[..., 1] - 0.5, at[..., 0] - 0.5]
    channels = [ndimage.map_coordinates(rgb[..., c], place, order=1, mode="nearest") for c in range(3)]
    return np.where(inside[..., None], np.stack(channels, axis=-1), np.uint8(BEYOND)).astype(np.uint8), inside


def laid_over(capture: Pixels, mother: Pixels, there: NDArray[np.bool_]) -> Pixels:
    """The mean of both images (y, x, 3) where the capture is, else the mother image."""
    mean = ((capture.astype(np.uint16) + mother) // 2).astype(np.uint8)
    return np.where(there[..., None], mean, mother)


def checkerboard(capture: Pixels, mother: Pixels, there: NDArray[np.bool_]) -> Pixels:
    """Squares of both images (y, x, 3) in turn; where the capture is not, the mother image."""
    side = math.ceil(max(there.shape) / SQUARES)
    y, x = np.ogrid[: there.shape[0], : there.shape[1]]
    odd = (y // side + x // side) % 2 == 1
    return np.where((odd & there)[..., None], capture, mother)


def in_overview(overview: Overview, window: Window, transform: Transform | None) -> Points:
    """(y, x, 2) positions of a window's pixels in an overview."""
    full = window.centres.reshape(-1, 2)
    if transform is not None:
        full = Transform(np.asarray(np.linalg.inv(transform.matrix), dtype=np.float64)).apply(full)
    return overview.from_full(full).reshape(*window.shape, 2)


WIDTH_INCHES, DPI = 10.0, 140
PANEL_INCHES, GAP_INCHES, LABEL_INCHES, HEADER_INCHES = 4.85, 0.1, 0.28, 1.5
LARGEST_BYTES = 1_400_000
PALETTES = (256, 128, 64, 32)
"""Colours of the PNG: the first that keeps it small. Photographs of tissue hardly compress otherwise."""
NEAR = 10
"""A colour found that differs from one of ours by less than this in all channels (0 to 255) gives way to it."""
MOST_SPOTS = 4000
"""Spots drawn: of more, every so many."""
FEW_SPOTS = 1000
"""More are drawn with thin lines, so that they do not hide the tissue."""
LOCATOR_PX = 220
WRAP = 118
"""Letters to a line of the header."""
OUTLINE, OTHER, SPOTS, INK = "#00a550", "#5a5a5a", "#ffdd33", "#202020"
VERDICT_COLOURS = {GOOD: "#0a7d32", DOUBTFUL: "#b36b00", BAD: "#b3161b"}


def draw_alignment(
    path: Path,
    capture: Overview | None,
    mother: Overview,
    before: Transform,
    after: Transform,
    xy_px: NDArray[np.floating],
    radius_px: float,
    title: str,
    quality: Quality,
) -> None:
    """Draw one PNG, 1400 px wide, that shows whether a capture lies where it belongs.

    Parameters
    ----------
    capture, mother
        Overviews; without one of the capture's own image there are two panels, outline and spots only.
    before, after
        The transform that was started from, and the final one: the capture's full-resolution pixels to the mother's.
    xy_px, radius_px
        (spot, 2) x, y, and the radius of a spot, in the capture's full-resolution pixels.
    title, quality
        The capture's name; how good ``after`` is.
    """
    tissue = None if capture is None else tissue_mask(capture)
    shown = _Shown(capture, tissue, mother, np.asarray(xy_px, dtype=np.float64), radius_px)
    px = round(PANEL_INCHES * DPI)
    final = window_about(shown.extremes(after), px)
    aspect = final.height / final.width
    # Where the capture came from belongs into the first picture, as long as it does not make that a map.
    start = window_about(np.concatenate([shown.extremes(after), shown.extremes(before)]), px, aspect)
    start = start if start.width < 4 * final.width else final
    rows = 2 if capture is not None else 1
    row_inches = PANEL_INCHES * aspect + LABEL_INCHES + GAP_INCHES
    figure = Figure(figsize=(WIDTH_INCHES, HEADER_INCHES + rows * row_inches), facecolor="white")
    axes = [_panel(figure, i, aspect) for i in range(2 * rows)]
    _draw_placed(axes[0], shown, before, start, f"Before ({before.how}); dashed: after")
    _draw_outline(axes[0], shown, after, start, OTHER, dashed=True)
    _draw_placed(axes[1], shown, after, final, f"After ({after.how})")
    if capture is not None:
        below, _ = sampled(mother, final)
        above, there = sampled(capture, final, after)
        _show(axes[2], laid_over(above, below, there), final, "Capture laid over the mother image, half transparent")
        _show(axes[3], checkerboard(above, below, there), final, "Checkerboard of mother image and capture")
        for picture in axes[2:]:
            _draw_frame(picture, capture, after)
    for picture, window in zip(axes, (start, final, final, final), strict=False):
        if mother.full_um is not None:
            scale_bar(picture, window.width * mother.full_um, y=0.035, fontsize=9, halo=True)
    _header(figure, title, after, quality)
    _locator(figure, mother, final)
    _save(figure, path)


@dataclass(frozen=True)
class _Shown:
    """A capture as it is drawn: image and tissue where it has them, and spots, on the mother image."""

    capture: Overview | None
    tissue: NDArray[np.bool_] | None
    mother: Overview
    xy_px: Points
    radius_px: float

    @property
    def own_points(self) -> Points:
        """(point, 2) points of the capture that say how far it reaches, in its full-resolution pixels."""
        points = self.xy_px if len(self.xy_px) else np.zeros((1, 2))
        if self.capture is not None and self.tissue is not None and self.tissue.any():
            rows, columns = (np.flatnonzero(self.tissue.any(axis=axis)) + 0.5 for axis in (1, 0))
            corners = np.stack([columns[[0, -1, 0, -1]], rows[[0, 0, -1, -1]]], axis=-1)
            to_full = self.capture.to_full
            corners = corners @ to_full[:2, :2].T + to_full[:2, 2]
            # Arrays with spots beside the tissue too would make it small.
            on = ((points >= corners.min(axis=0)) & (points <= corners.max(axis=0))).all(axis=1)
            points = corners if on.any() else np.concatenate([points, corners])
        return points

    def extremes(self, transform: Transform) -> Points:
        """The same on the mother image."""
        return transform.apply(self.own_points)


def _panel(figure: Figure, number: int, aspect: float) -> Axes:
    """Axes of a panel, from the top left, below the header; made in inches."""
    width, height = figure.get_size_inches()
    row, column = divmod(number, 2)
    step = PANEL_INCHES * aspect + LABEL_INCHES + GAP_INCHES
    left = (WIDTH_INCHES - 2 * PANEL_INCHES - GAP_INCHES) / 2 + column * (PANEL_INCHES + GAP_INCHES)
    bottom = height - HEADER_INCHES - (row + 1) * step + GAP_INCHES
    axes = figure.add_axes(
        (left / width, bottom / height, PANEL_INCHES / width, PANEL_INCHES * aspect / height), aspect="auto"
    )
    _frame(axes)
    return axes


def _frame(axes: Axes) -> None:
    """A thin frame without ticks."""
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set(color="#b0b0b0", linewidth=0.6)


def _show(axes: Axes, pixels: Pixels, window: Window, label: str) -> None:
    axes.imshow(pixels, extent=window.extent, interpolation="nearest", aspect="auto")
    axes.set_title(label, fontsize=9.5, loc="left", pad=4, color=INK)
    axes.set_autoscale_on(False)


def _draw_placed(axes: Axes, shown: _Shown, transform: Transform, window: Window, label: str) -> None:
    """The mother image with the capture's outline and spots where a transform puts them."""
    _show(axes, sampled(shown.mother, window)[0], window, label)
    _draw_spots(axes, shown, transform, window)
    _draw_outline(axes, shown, transform, window, OUTLINE)
    halo = white_halo()
    if shown.capture is None:
        note = "The capture has no image of its own:\nspots, and the hull of them"
        axes.text(0.97, 0.035, note, transform=axes.transAxes, fontsize=9, ha="right", path_effects=halo)
    points = transform.apply(shown.own_points) - (window.x, window.y)
    if not ((points >= 0) & (points < (window.width, window.height))).all(axis=1).any():
        note = "The capture lies outside of this picture"
        axes.text(0.5, 0.5, note, transform=axes.transAxes, ha="center", path_effects=halo)


def _draw_spots(axes: Axes, shown: _Shown, transform: Transform, window: Window) -> None:
    xy = transform.apply(shown.xy_px[:: max(1, math.ceil(len(shown.xy_px) / MOST_SPOTS))])
    # A cell's disc would be less than a pixel: it is drawn as a dot that can be seen.
    diameter = max(2 * shown.radius_px * transform.scale, 2.5 * window.width / window.px_wide)
    few = len(xy) <= FEW_SPOTS
    halo = [effects.withStroke(linewidth=1.9, foreground="#303030", alpha=0.7)] if few else None
    style = {"facecolor": "none", "edgecolor": SPOTS, "linewidth": 0.9 if few else 0.6, "path_effects": halo}
    add_discs(axes, xy, np.full(len(xy), diameter), **style)


def _draw_outline(
    axes: Axes, shown: _Shown, transform: Transform, window: Window, colour: str, dashed: bool = False
) -> None:
    """The border of the capture's tissue, or the hull of its spots."""
    style = "dashed" if dashed else "solid"
    if shown.capture is None or shown.tissue is None:
        hull = Polygon(hull_of(transform.apply(shown.xy_px)), fill=False, ec=colour, lw=1.6, ls=style)
        axes.add_patch(hull)
        return
    at = in_overview(shown.capture, window, transform)
    place = [at[..., 1] - 0.5, at[..., 0] - 0.5]
    inside = ndimage.map_coordinates(shown.tissue.astype(np.float32), place, order=1)
    if inside.min() < 0.5 < inside.max():
        x, y = np.moveaxis(window.centres, -1, 0)
        axes.contour(x, y, inside, levels=[0.5], colors=[colour], linewidths=1.6, linestyles=style)


def _draw_frame(axes: Axes, capture: Overview, transform: Transform) -> None:
    """The border of the capture's image."""
    h, w = capture.rgb.shape[:2]
    corners = np.array([[0.0, 0.0], [w, 0.0], [w, h], [0.0, h]]) @ capture.to_full[:2, :2].T + capture.to_full[:2, 2]
    axes.add_patch(Polygon(transform.apply(corners), fill=False, ec=OTHER, lw=0.8, ls="dashed"))


def _header(figure: Figure, title: str, after: Transform, quality: Quality) -> None:
    """Name, verdict, the figures it rests on, and why it is not good."""
    word, reasons = verdict(quality)
    height = float(figure.get_size_inches()[1])
    left = (WIDTH_INCHES - 2 * PANEL_INCHES - GAP_INCHES) / 2 / WIDTH_INCHES

    def line(text: str, inches: float, size: float, **more: Any) -> None:
        figure.text(left, 1 - inches / height, text, fontsize=size, va="top", **more)

    line(f"{title}: {word}", 0.1, 15, color=VERDICT_COLOURS[word], weight="bold")
    described = str(after)
    facts = f"{described[0].upper()}{described[1:]}. {figures_of(quality)}."
    facts_lines, reasons_lines = textwrap.wrap(facts, WRAP), textwrap.wrap(" ".join(reasons), WRAP)
    line("\n".join(facts_lines), 0.43, 9, color=INK)
    line("\n".join(reasons_lines[:4]), 0.49 + 0.165 * len(facts_lines), 9, color="#505050")


def _locator(figure: Figure, mother: Overview, window: Window) -> None:
    """Where on the slide the pictures are, small, at the top right."""
    rgb = downsampled(mother.rgb, max(1, math.ceil(max(mother.rgb.shape[:2]) / LOCATOR_PX)))
    h, w = mother.rgb.shape[:2]
    height = float(figure.get_size_inches()[1])
    tall = HEADER_INCHES - 0.2
    wide = min(tall * w / h, 2.2)
    tall = wide * h / w
    right = (WIDTH_INCHES + 2 * PANEL_INCHES + GAP_INCHES) / 2
    axes = figure.add_axes(
        ((right - wide) / WIDTH_INCHES, 1 - (tall + 0.1) / height, wide / WIDTH_INCHES, tall / height)
    )
    axes.imshow(rgb, extent=(0, w, h, 0), aspect="auto")
    axes.set(xlim=(0, w), ylim=(h, 0))
    ends = np.array([[window.x, window.y], [window.x + window.width, window.y + window.height]])
    low, high = np.clip(mother.from_full(ends), 0, (w, h))
    axes.add_patch(Rectangle((low[0], low[1]), *(high - low), fill=False, ec=VERDICT_COLOURS[BAD], lw=1.4))
    _frame(axes)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = painted(figure, DPI)
    data = b""
    for colours in PALETTES:
        packed = io.BytesIO()
        _with_colours(picture, colours).save(packed, "PNG", optimize=True)
        data = packed.getvalue()
        if len(data) <= LARGEST_BYTES:
            break
    with whole_file(path) as part:
        part.write_bytes(data)


def _with_colours(picture: Image.Image, colours: int) -> Image.Image:
    """The picture in a few colours, those of lines and letters among them: to a palette of its own they are rare."""
    named = ("white", "black", OUTLINE, OTHER, SPOTS, INK, *VERDICT_COLOURS.values())
    kept = np.round(255 * np.array([to_rgb(colour) for colour in named])).astype(int)
    found = np.array(picture.quantize(colours - len(kept), dither=Image.Dither.NONE).getpalette()).reshape(-1, 3)
    found = found[: colours - len(kept)]
    near = (np.abs(found[:, None] - kept).max(axis=-1) < NEAR).any(axis=1)
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([kept, found[~near]]).ravel().tolist())
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)
