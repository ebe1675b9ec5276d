"""Section of a report: the slide, its tissue, and where the captures lie on it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from iscale.plots.overview import image_overview, reduction
from iscale.plots.slide import draw_slide
from iscale.report.items import Facts, Figure, Item, Missing, Section, count, percent
from iscale.report.scene import Scene, mean_plane, share_of
from iscale.words import plural

LONGEST_PX = 1100


def slide_section(scene: Scene, captures: dict[str, NDArray[np.float64]]) -> Section:
    """The slide at a glance.

    Parameters
    ----------
    captures
        (spot, 2) positions of each capture's spots, in um.
    """
    grid, items = scene.grid, list[Item]()
    height_mm, width_mm = (n * grid.pixel_size_um / 1000 for n in grid.content_shape_px)
    rows, columns = grid.superpixel_shape
    facts = [
        ("slide", f"{width_mm:.1f} x {height_mm:.1f} mm"),
        (
            "file",
            f"{grid.raw_shape_px[1]:,} x {grid.raw_shape_px[0]:,} px of {grid.raw_pixel_size_um:.4g} µm",
        ),
        ("superpixels", f"{count(rows * columns)}, {grid.superpixel_um:g} µm wide"),
    ]
    if scene.store.has("tissue/mask"):
        on, total = share_of(scene.store, "tissue/mask")
        area = on * grid.superpixel_um**2 / 1e6
        facts.append(("tissue", f"{plural(on, 'superpixel')} ({percent(on / total)}), {area:.1f} mm²"))
        items.append(_figure(scene, captures))
    else:
        items.append(Missing("The tissue has not been found yet.", scene.command("tissue")))
    facts.append(("genes", count(len(scene.genes()))))
    return Section("slide", "The slide", (Facts(tuple(facts)), *items))


def _figure(scene: Scene, captures: dict[str, NDArray[np.float64]]) -> Figure:
    grid = scene.grid
    height, width = (n * grid.pixel_size_um for n in grid.content_shape_px)
    image, extent = image_overview(scene.store, (0.0, width, 0.0, height), LONGEST_PX)
    mask = scene.store.array("tissue/mask")
    factor = reduction(mask.shape)
    path = scene.figure("slide")
    draw_slide(path, image, extent, mean_plane(mask, factor), grid.superpixel_um * factor, captures)
    names = ", ".join(captures) or "no captures"
    alt = f"The stained slide with the outline of its tissue, and frames where captures lie: {names}."
    return Figure(path, alt, "Black: outline of the tissue. Coloured: the captures, where they lie on the slide.")
