"""Stage ``plot``: measured spots over the image, and predicted maps, into the published folders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import zarr

from iscale.captures.counts_store import dense_genes, open_capture
from iscale.captures.spots import TrainingSpots
from iscale.captures.stage import on_mother, read_training
from iscale.engine.ledger import fingerprint
from iscale.engine.plan import Plan, Resources, check_budget, cut
from iscale.engine.step import Step
from iscale.geometry import Region, SlideGrid
from iscale.plots.coarser import coarser
from iscale.plots.draw import draw_map, draw_spots
from iscale.plots.overview import TILE, image_overview, mean_map, reduction
from iscale.store.run_store import RunStore

GENES_PER_TASK = 4
SPOTS_FOLDER = "spot_level_st_plots"
INTEGRATED = "spots-integrated"
MAPS_FOLDER = "super_res_ST_plots"
MARGIN_RADII = 4.0
"""Space around a capture's spots, in their radii."""


@dataclass(frozen=True)
class PlotContext:
    """What a task needs to know: the plotted genes are rows of the step's grid."""

    store: RunStore
    grid: SlideGrid
    genes: tuple[str, ...]
    capture: str = ""


def plot_maps(context: PlotContext, region: Region) -> None:
    """Draw the predicted maps of some genes."""
    array = context.store.array("expression/expression")
    factor = reduction(array.shape)
    for gene in range(region.y0, region.y1):
        values = mean_map(array, gene, factor)
        path = context.store.folder / MAPS_FOLDER / f"{file_name(context.genes[gene])}.png"
        unit = "expected counts per superpixel"
        draw_map(path, values, context.grid.superpixel_um * factor, context.genes[gene], unit)


def plot_capture(context: PlotContext, region: Region) -> None:
    """Draw some genes' counts of one capture."""
    group = zarr.open_group(context.store.root, path=f"captures/{context.capture}", mode="r")
    data = open_capture(group, counts=False)
    diameter_um = float(data.uns["spatial"][context.capture]["metadata"]["spot_diameter_um"])
    genes = context.genes[region.y0 : region.y1]
    xy_um, radius_um, counts = coarser(on_mother(data), diameter_um / 2, dense_genes(group, genes))
    for gene, values in zip(genes, counts.T, strict=True):
        _spots_figure(context, context.capture, gene, xy_um, radius_um, values)


def plot_integrated(context: PlotContext, region: Region) -> None:
    """Draw some genes' counts of the integrated spots."""
    spots: TrainingSpots = read_training(context.store, context.grid)
    xy_um = spots.xy_px * context.grid.pixel_size_um
    for gene in range(region.y0, region.y1):
        _spots_figure(context, INTEGRATED, spots.genes[gene], xy_um, spots.radius_um, spots.counts[:, gene])


def _spots_figure(
    context: PlotContext,
    folder: str,
    gene: str,
    xy_um: np.ndarray,
    radius_um: np.ndarray,
    counts: np.ndarray,
) -> None:
    margin = MARGIN_RADII * radius_um.max()
    (x0, y0), (x1, y1) = xy_um.min(axis=0) - margin, xy_um.max(axis=0) + margin
    image, extent = image_overview(context.store, (x0, x1, y0, y1))
    path = context.store.folder / SPOTS_FOLDER / folder / f"{file_name(gene)}.png"
    draw_spots(path, image, extent, xy_um, radius_um, np.log1p(counts), f"{gene}, {folder}", "log(1 + counts)")


def _clear(folder: Path) -> None:
    """Remove figures of an earlier run, which may be of other genes."""
    for figure in folder.glob("*.png"):
        figure.unlink()


def file_name(gene: str) -> str:
    """A gene's name as a file name: what could leave the folder or upset a shell becomes ``_``.

    >>> file_name("HLA-A"), file_name("../x y")
    ('HLA-A', '.._x_y')
    """
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in gene)


def plot_steps(
    store: RunStore,
    grid: SlideGrid,
    captures: tuple[str, ...],
    genes: tuple[str, ...],
    *,
    inputs: tuple[str, str],
    resources: Resources,
) -> Iterator[Step]:
    """The steps that draw: one for the maps, one per capture, one for the integrated spots.

    Parameters
    ----------
    captures, genes
        Names of the captures, and of the genes to draw, the first of the imputed ones.
    inputs
        Fingerprints of the integrated spots and of the predicted expression.
    """
    spots, expression = inputs
    task_bytes = 2 * 4 * TILE * TILE + 250 * 2**20
    plan = Plan((len(genes), 1), (GENES_PER_TASK, 1), cut((len(genes), 1), (GENES_PER_TASK, 1), (1, 1)), task_bytes)
    check_budget("plot", plan, resources)
    drawn = f"{SPOTS_FOLDER}/{INTEGRATED}"
    parts = [("integrated", plot_integrated, "", drawn, spots), ("maps", plot_maps, "", MAPS_FOLDER, expression)]
    parts += [(f"capture.{name}", plot_capture, name, f"{SPOTS_FOLDER}/{name}", spots) for name in captures]
    for name, kernel, capture, folder, needed in parts:
        yield Step(
            name=f"plot/{name}",
            kernel=kernel,
            context=PlotContext(store, grid, genes, capture),
            plan=plan,
            fingerprint=fingerprint("plot", {"genes": list(genes)}, needed),
            prepare=partial(_clear, store.folder / folder),
            outputs=tuple(store.folder / folder / f"{file_name(gene)}.png" for gene in genes),
            disk_bytes=300_000 * len(genes),
            files=len(genes),
        )
