"""``iscale aggregate RUN --over PATH``: expression summed over cells, spots or bins: AnnData, CSV or GeoJSON."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from iscale import __version__
from iscale.engine.machine import give_back
from iscale.engine.plan import format_bytes
from iscale.engine.progress import Watcher
from iscale.engine.watchers import Silence, counted
from iscale.engine.whole_file import whole_file
from iscale.errors import InputError, StoreError
from iscale.export.areas.areas import Facts
from iscale.export.areas.frame import Inside
from iscale.export.areas.geojson import IDS
from iscale.export.areas.open import AreaOptions, Kind, Opened, open_areas
from iscale.export.areas.sums import LAYERS, ExcessCover, FoundFacts, Maps, found_columns, open_maps, sum_over
from iscale.export.areas.text import write_csv, write_geojson
from iscale.export.areas.writer import TableWriter
from iscale.model.genes import choose_genes
from iscale.project.layout import file_name
from iscale.results import Run, open_run
from iscale.words import plural

FOLDER = "aggregate"
H5AD, GEOJSON, CSV = "h5ad", "geojson", "csv"
FORMATS = (H5AD, GEOJSON, CSV)
"""What can be written, each with its name as suffix."""

BOUND = (
    "layers['uncertainty'] adds the spreads of the superpixels up, as if all erred together: the spread of a sum is at "
    "most that."
)


def aggregate_run(
    run: str | Path,
    over: str,
    *,
    genes: str | Sequence[str] | None = None,
    to: str | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    units: str | None = None,
    capture: str | None = None,
    radius_um: float | None = None,
    uncertainty: bool = True,
    watcher: Watcher | None = None,
) -> str:
    """Sum a run's expression over areas, and write one row for each, in the order of their file.

    A superpixel's expected counts are taken to lie evenly on it: an area gets the share that it covers. Where areas
    overlap, each gets its own.

    Parameters
    ----------
    run
        The run, as for `iscale.open_run`.
    over
        A file of areas, a Xenium folder, or ``bins:`` and a side in um: see `iscale.export.areas.open`.
    genes
        As for `iscale.model.genes.choose_genes`: any that the run can tell; those of ``run.expression`` where None.
    to
        ``h5ad``: AnnData; ``csv``: a table; ``geojson``: objects with their outlines in full-resolution pixels of the
        slide and their sums as measurements, for QuPath. What ``out`` ends in where None, else ``h5ad``.
    out
        The file to write; ``aggregate/<name of the file>.<to>`` of the run's output where None.
    overwrite
        Whether one that is there is replaced.
    units
        Of the positions: ``px``, ``um`` or ``analysis-px``; None for what the format has as a rule.
    capture
        A capture of the run in whose frame the positions are; None for the slide's.
    radius_um
        Of spots.
    uncertainty
        Whether the layer ``uncertainty`` is written, where the run has it; CSV and GeoJSON have none.
    watcher
        Who is told of progress.

    Returns
    -------
    str
        What was written, and what the user should know of.

    Raises
    ------
    InputError
        The run is not there or not finished, the areas cannot be read or do not lie on the slide, a gene is unknown, or
        the target is there.
    StoreError
        The target cannot be written.
    """
    opened = open_run(run)
    maps = open_maps(opened)
    names = choose_genes(genes, maps.source)
    options = AreaOptions(over, units, capture, radius_um)
    target, kind = _target(opened, over, out, to, overwrite)
    matrices = tuple(LAYERS) if uncertainty and maps.has_uncertainty and kind == H5AD else ("X",)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as part, TemporaryDirectory(prefix=".aggregate-", dir=target.parent) as scratch:
            areas = open_areas(options, opened, maps, Path(scratch))
            _check_outlines(kind, areas, over)
            table = part if kind == H5AD else Path(scratch) / "table.h5ad"
            text = _write(table, areas, maps, names, matrices, Path(scratch), watcher or Silence(), options)
            text += _as_text(kind, table, areas, maps, part)
    except OSError as error:
        raise StoreError(
            f"{target}: cannot be written ({error.strerror or error}).", "Make room, or choose another file with --out."
        ) from None
    finally:
        give_back()
    return f"{text}\nWritten: {target}"


def _target(run: Run, over: str, out: Path | None, to: str | None, overwrite: bool) -> tuple[Path, str]:
    """The file to write, and in which format."""
    told = "" if out is None else Path(out).suffix.removeprefix(".")
    kind = to or (told if told in FORMATS else H5AD)
    if kind not in FORMATS:
        raise InputError(f"--to {kind}: there is no such format.", f"Choose one of {', '.join(FORMATS)}.")
    name = over.replace(":", "-") if over.startswith("bins:") else Path(over).name.split(".")[0]
    target = run.store.folder / FOLDER / f"{file_name(name) or 'areas'}.{kind}" if out is None else Path(out)
    if target.suffix != f".{kind}":
        raise InputError(
            f"{target} does not end in .{kind}.",
            f"Name it NAME.{kind}, or choose another format with --to: {', '.join(FORMATS)}.",
        )
    if target.is_dir() or (target.exists() and not overwrite):
        raise InputError(f"{target} is there already.", "Choose another with --out, or replace it with --overwrite.")
    if target.exists() and Path(over).exists() and target.samefile(over):
        raise InputError(f"{target} is the file of the areas.", "Choose another with --out.")
    return target, kind


def _check_outlines(kind: str, opened: Opened, over: str) -> None:
    if kind == GEOJSON and opened.outlines is None:
        raise InputError(
            f"{over} is an image of labels: it has no outlines to write as GeoJSON.",
            "Write a table, --to csv or h5ad, or give the cells as polygons.",
        )


def _as_text(kind: str, table: Path, opened: Opened, maps: Maps, target: Path) -> str:
    """Write the table in a format of text; what is to be said of it."""
    if kind == CSV:
        write_csv(table, target)
    if kind == GEOJSON and opened.outlines is not None:
        left_out = write_geojson(table, opened.outlines(), opened.frame, maps.grid, target)
        if left_out:
            return f"\nNot written, as they enclose nothing: {plural(left_out, 'area')}."
    return ""


def _write(
    part: Path,
    opened: Opened,
    maps: Maps,
    genes: tuple[str, ...],
    matrices: tuple[str, ...],
    scratch: Path,
    watcher: Watcher,
    options: AreaOptions,
) -> str:
    grid, areas = maps.grid, opened.areas
    writer = TableWriter(part)
    try:
        inside = Inside(opened.frame, grid)
        with counted(watcher, "aggregate/areas", 1) as done:
            for facts in areas.facts():
                inside.add(facts.centre)
                writer.add_rows(facts.ids, facts.columns | _columns(facts, grid.superpixel_um))
            done()
        give_back()
        notices = [*areas.notices, *inside.check(options.over)]
        _check_room(part, writer.rows, len(genes), len(matrices))
        writer.make_matrices(genes, [name.partition("/")[2] for name in matrices[1:]])
        found = FoundFacts(scratch, writer.rows)
        with counted(watcher, "aggregate/sums", len(areas.shards())) as done, writer.adding() as rows:
            excess = sum_over(areas, maps, genes, rows, found, done)
        uns = {
            "iscale": {
                "version": __version__,
                "over": opened.areas.what,
                "mother_um_per_px": grid.raw_pixel_size_um,
                "X": "expected counts: sums of superpixels by the share of each that lies in the area",
            }
        }
        if len(matrices) > 1:
            uns["iscale"]["uncertainty"] = BOUND
        columns = found_columns(found, lambda rows: writer.column("area_um2", rows) / grid.superpixel_um**2)
        writer.finish(columns, grid.raw_pixel_size_um, uns)
        notices += _repeated(writer, opened.kind) + _overlap(excess)
        empty = sum(int((values[:, 0] == 0).sum()) for _, values in found.blocks())
        typical = _typical(writer.column("area_um2"))
    finally:
        writer.close()
    if empty:
        notices.append(f"On no tissue, and 0 in the row: {empty:,} of {plural(writer.rows, 'area')}.")
    notices.insert(0, typical)
    head = f"Expected counts of {plural(len(genes), 'gene')} in {plural(writer.rows, 'area')}: {areas.what}."
    return "\n".join([head, *notices, *([BOUND] if len(matrices) > 1 else [])])


def _typical(area_um2: NDArray[np.float64]) -> str:
    """The median area, by which a wrong unit shows."""
    median = float(np.median(area_um2))
    return f"Median area {median:,.4g} um2: that of a disc {2 * math.sqrt(median / math.pi):,.3g} um across."


def _columns(facts: Facts, superpixel_um: float) -> dict[str, NDArray[np.float64]]:
    return {
        "area_um2": facts.area * superpixel_um**2,
        "x_um": facts.centre[:, 0] * superpixel_um,
        "y_um": facts.centre[:, 1] * superpixel_um,
    }


def _check_room(part: Path, rows: int, genes: int, matrices: int) -> None:
    needed, free = 4 * rows * genes * matrices, shutil.disk_usage(part.parent).free
    if needed > free:
        raise StoreError(
            f"{part.parent}: {plural(rows, 'area')} x {plural(genes, 'gene')} take {format_bytes(needed)}, "
            f"{format_bytes(free)} are free.",
            "Make room, choose another place with --out, or fewer genes with --genes"
            + (", or --no-uncertainty." if matrices > 1 else "."),
        )


def _repeated(writer: TableWriter, kind: Kind) -> list[str]:
    if not writer.named:
        looked = f" (looked for: {', '.join(IDS)})" if kind == "polygons" else ""
        return [f"No area has an id{looked}: rows are numbered from 0."]
    if not (repeated := writer.repeated()):
        return []
    why = " Cells of several nuclei, or corners of a cell that do not stand together?" if kind == "boundaries" else ""
    return [f"Ids that come again, or are empty: {repeated:,}. Rows are numbered, ids are in obs['id'].{why}"]


def _overlap(excess: ExcessCover) -> list[str]:
    if not excess.superpixels:
        return []
    return [
        f"Areas overlap: on {plural(excess.superpixels, 'superpixel')} they take more than there is, "
        f"{excess.excess:,.1f} superpixels in all. Each area gets its own sum."
    ]
