"""Stage ``plot``: measured spots over the image, and predicted maps, into the published folders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.captures.spots import TrainingSpots
from iscale.captures.stage import dense_genes, on_mother, open_capture, read_training
from iscale.engine.ledger import fingerprint
from iscale.engine.plan import Resources, plan_rows
from iscale.engine.progress import tell
from iscale.engine.step import Step
from iscale.geometry import Region, SlideGrid
from iscale.model.genes import GeneArray, imputed_genes
from iscale.plots.draw import CELL_PX, PER_PAGE, draw_sheet, draw_spots, draw_with_uncertainty, pages
from iscale.plots.overview import LONGEST_SIDE, TILE, image_overview, mean_maps, reduction
from iscale.project.layout import INTEGRATED, MAPS_FOLDER, REFINED_FOLDER, SPOTS_FOLDER, file_name, is_sheet, sheet_name
from iscale.store.layout import GENES_PER_CHUNK, genes_by_chunk
from iscale.store.run_store import RunStore
from iscale.words import plural

if TYPE_CHECKING:
    from iscale.plan.job import Job
    from iscale.plan.workers import Workers

MOST_DRAWN = 100_000
"""Spots of a figure; more are smaller than its pixels."""

Values = NDArray[np.floating]


def coarser(xy_um: Values, radius_um: float, values: Values) -> tuple[Values, Values, Values]:
    """Spots (spot, 2) as they are, or where they are too many, squares of them at their mean place, with mean values.

    ``values`` are (spot, column). Returns places (drawn, 2), radii (drawn,) of discs of the squares' area, values.
    """
    if len(xy_um) <= MOST_DRAWN:
        return xy_um, np.full(len(xy_um), radius_um), values
    low, extent = xy_um.min(axis=0), np.ptp(xy_um, axis=0)
    side = math.sqrt(float(extent.prod()) / MOST_DRAWN) or float(extent.max()) / MOST_DRAWN
    column, row = np.floor((xy_um - low) / side).astype(np.int64).T
    _, square = np.unique(row * (int(column.max()) + 1) + column, return_inverse=True)
    n = np.bincount(square)
    means = [np.bincount(square, part) / n for part in (*xy_um.T, *values.T)]
    return np.column_stack(means[:2]), np.full(len(n), side / math.sqrt(math.pi)), np.column_stack(means[2:])


UNIT = "expected counts per superpixel"
MARGIN_RADII = 4.0
"""Space around a capture's spots, in their radii."""

VERSION = 2
"""Raised when the same values are drawn in another way."""


@dataclass(frozen=True)
class PlotContext:
    """What a task needs to know: the plotted genes are rows of the step's grid."""

    store: RunStore
    grid: SlideGrid
    genes: tuple[str, ...]
    capture: str = ""
    refined: bool = False


def plot_maps(context: PlotContext, region: Region) -> None:
    """Draw some genes' predicted maps, each with its uncertainty; refined ones where the context says so."""
    store, rows = context.store, slice(region.y0, region.y1)
    expression = imputed_genes(store)
    factor = reduction(expression.shape)
    cells = store.array("tissue/cells") if context.refined else None
    values = mean_maps(expression, rows, factor, cells)
    spread = mean_maps(imputed_genes(store, uncertainty=True), rows, factor, cells)
    folder = store.folder / (REFINED_FOLDER if context.refined else MAPS_FOLDER)
    for i, gene in enumerate(context.genes[rows]):
        title = f"{gene}, refined: 0 where no nuclei are likely" if context.refined else gene
        draw_with_uncertainty(
            folder / f"{file_name(gene)}.png", values[i], spread[i], context.grid.superpixel_um * factor, title, UNIT
        )


def plot_sheet(context: PlotContext, region: Region) -> None:
    """Draw a page of the contact sheet: rows of the step's grid are pages."""
    array = imputed_genes(context.store)
    factor = reduction(array.shape, 2 * CELL_PX)
    for page in range(region.y0, region.y1):
        first, end = page * PER_PAGE, min((page + 1) * PER_PAGE, len(context.genes))
        head = f"{plural(len(context.genes), 'gene')}, predicted expression ({UNIT})"
        title = head if pages(len(context.genes)) == 1 else f"{head}: {first + 1} to {end}"
        path = context.store.folder / MAPS_FOLDER / sheet_name(page)
        maps = _in_chunks(array, first, end, factor)
        draw_sheet(path, maps, context.genes[first:end], context.grid.superpixel_um * factor, title)


def _in_chunks(array: GeneArray, first: int, end: int, factor: int) -> Iterator[NDArray[np.float32]]:
    """Reduced maps of rows, those that share stored chunks read together."""
    for together in genes_by_chunk(range(first, end)):
        tell(together[0], end - first)
        yield from mean_maps(array, slice(first + together[0], first + together[-1] + 1), factor)


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
    context: PlotContext, folder: str, gene: str, xy_um: np.ndarray, radius_um: np.ndarray, counts: np.ndarray
) -> None:
    margin = MARGIN_RADII * radius_um.max()
    (x0, y0), (x1, y1) = xy_um.min(axis=0) - margin, xy_um.max(axis=0) + margin
    image, extent = image_overview(context.store, (x0, x1, y0, y1))
    path = context.store.folder / SPOTS_FOLDER / folder / f"{file_name(gene)}.png"
    draw_spots(path, image, extent, xy_um, radius_um, np.log1p(counts), f"{gene}, {folder}", "log(1 + counts)")


def _clear(folder: Path, sheets: bool = False) -> None:
    """Remove figures of an earlier run, which may be of other genes: pages of the contact sheet, or all others."""
    for figure in folder.glob("*.png"):
        if is_sheet(figure) == sheets:
            figure.unlink()


def plot_steps(
    store: RunStore,
    grid: SlideGrid,
    captures: tuple[str, ...],
    genes: tuple[str, ...],
    *,
    inputs: tuple[str, str],
    resources: Resources,
    cells: str = "",
    all_genes: tuple[str, ...] = (),
) -> Iterator[Step]:
    """The steps that draw: the maps, refined maps, contact sheet, every capture, the integrated spots.

    Parameters
    ----------
    captures, genes
        Names of the captures, and of the genes to draw, the first of the imputed ones.
    inputs
        Fingerprints of the integrated spots and of the predicted expression.
    cells
        Fingerprint of ``tissue/cells``; empty where there is none: no refined maps are drawn.
    all_genes
        Names of all imputed genes, for the contact sheet; by default those that are drawn.
    """
    spots, expression = inputs
    context = PlotContext(store, grid, genes)
    yield _figures(context, plot_maps, "maps", MAPS_FOLDER, (expression,), resources=resources)
    if cells:
        refined = replace(context, refined=True)
        yield _figures(refined, plot_maps, "refined", REFINED_FOLDER, (expression, cells), resources=resources)
    yield _sheet_step(replace(context, genes=all_genes or genes), expression, resources)
    drawn = f"{SPOTS_FOLDER}/{INTEGRATED}"
    yield _figures(context, plot_integrated, "integrated", drawn, (spots,), resources=resources)
    for name in captures:
        of_capture = replace(context, capture=name)
        folder = f"{SPOTS_FOLDER}/{name}"
        yield _figures(of_capture, plot_capture, f"capture.{name}", folder, (spots,), resources=resources)


def _figures(
    context: PlotContext,
    kernel: Callable[[PlotContext, Region], None],
    name: str,
    folder: str,
    inputs: tuple[str, ...],
    *,
    resources: Resources,
) -> Step:
    """A step that draws a figure per gene into a folder; a task draws the genes of a stored chunk."""
    genes, at = context.genes, context.store.folder / folder
    # A chunk's genes of a tile, stored and read, and two overviews of each.
    task_bytes = GENES_PER_CHUNK * (2 * 2 * TILE * TILE + 2 * 4 * LONGEST_SIDE**2) + 8 * 4 * TILE * TILE + 250 * 2**20
    return Step(
        name=f"plot/{name}",
        kernel=kernel,
        context=context,
        plan=plan_rows(f"plot/{name}", len(genes), GENES_PER_CHUNK, task_bytes, resources),
        fingerprint=fingerprint("plot", {"genes": list(genes), "version": VERSION}, *inputs),
        prepare=partial(_clear, at),
        outputs=tuple(at / f"{file_name(gene)}.png" for gene in genes),
        disk_bytes=600_000 * len(genes),
        files=len(genes),
    )


def _sheet_step(context: PlotContext, expression: str, resources: Resources) -> Step:
    """The step that draws the contact sheet; a task draws a page, so that every gene is read once."""
    n, folder = pages(len(context.genes)), context.store.folder / MAPS_FOLDER
    task_bytes = GENES_PER_CHUNK * 2 * 2 * TILE * TILE + 8 * 4 * TILE * TILE + 200 * 2**20
    return Step(
        name="plot/contact-sheet",
        kernel=plot_sheet,
        context=context,
        plan=plan_rows("plot/contact-sheet", n, 1, task_bytes, resources),
        fingerprint=fingerprint("plot", {"genes": list(context.genes), "version": VERSION}, expression),
        prepare=partial(_clear, folder, sheets=True),
        outputs=tuple(folder / sheet_name(page) for page in range(n)),
        disk_bytes=1_500_000 * n,
        files=n,
    )


def steps(job: Job, workers: Workers, made: Mapping[str, str]) -> Iterator[Step]:
    """Steps of the stage for a job (:class:`iscale.stages.Stage`)."""
    yield from plot_steps(
        job.store,
        job.grid,
        job.spots.captures,
        job.spots.genes[: job.options.n_plots],
        inputs=(made["integrate"], made["predict"]),
        resources=workers.of("cpu"),
        cells=made["refine"],
        all_genes=job.spots.genes,
    )
