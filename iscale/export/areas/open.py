"""Open what is to be summed over: which reader a path needs, in which frame its positions are; and square bins."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from iscale.captures.readers.files import find_optional
from iscale.errors import InputError
from iscale.export.areas import geojson, labels, tables
from iscale.export.areas.areas import AREAS_AT_ONCE, Areas, Block, simple_rings
from iscale.export.areas.frame import NAMES, UNITS, Frame, Units, capture_frame, moved, slide_frame
from iscale.export.areas.polygons import PolygonAreas
from iscale.export.areas.sums import Maps
from iscale.geometry import Region, SlideGrid
from iscale.results import Run

Kind = Literal["polygons", "boundaries", "selections", "spots", "labels", "bins"]

DEFAULT_UNITS: dict[Kind, Units] = {"polygons": "px", "boundaries": "um", "selections": "um", "spots": "analysis-px"}
BOUNDARIES = (
    "cell_boundaries.parquet",
    "cell_boundaries.csv.gz",
    "cell_boundaries.csv",
    "cell_segmentations.geojson",
    "segmented_outputs/cell_segmentations.geojson",
    "outs/segmented_outputs/cell_segmentations.geojson",
)
SUFFIXES: dict[str, Kind] = {
    ".geojson": "polygons",
    ".json": "polygons",
    ".tsv": "spots",
    ".txt": "spots",
    ".npy": "labels",
    ".tif": "labels",
    ".tiff": "labels",
    ".png": "labels",
}
FORMATS = (
    "Give polygons (.geojson), Xenium's cell_boundaries (.parquet, .csv.gz), selections of Xenium Explorer (.csv), "
    "labels (.npy, .tif, .png), spots (.tsv, .csv, .parquet with id, x, y), or bins:16."
)
BINS = "bins:"
SMALLEST_BIN_UM = 1.0

OnTissue = Callable[[Region], NDArray[np.bool_]]

TABLES: dict[Kind, Callable[[Path], Iterator[Block]]] = {
    "boundaries": tables.read_boundaries,
    "selections": tables.read_selections,
}

SHOWN = 8
"""Columns of a table that are named."""


@dataclass(frozen=True)
class AreaOptions:
    """What is to be summed over, as the user says it: a path, or ``bins:`` and a side in um.

    Units are None for what the format has as a rule; a capture is whose frame the positions are in, None for the
    slide's.
    """

    over: str
    units: str | None = None
    capture: str | None = None
    radius_um: float | None = None


@dataclass(frozen=True)
class Opened:
    """Areas, the frame that their positions were taken to be in, and what they were read as.

    ``outlines`` reads them again, in the frame; of labels there are none.
    """

    areas: Areas
    frame: Frame
    kind: Kind
    outlines: Callable[[], Iterator[Block]] | None = None


def open_areas(options: AreaOptions, run: Run, maps: Maps, scratch: Path) -> Opened:
    """Open what is to be summed over; refused where something was said that cannot be of it."""
    grid = maps.grid
    if options.over.startswith(BINS):
        _no_frame(options, "bins", "They lie on the slide, in um.")
        side = _bin_side(options.over, grid)
        outlines: Callable[[], Iterator[Block]] = partial(_square_bins, side, grid, maps.on_tissue)
        frame = slide_frame("um", grid)
        what = f"square bins of {side:g} um that touch tissue"
        areas = PolygonAreas(what, options.over, outlines(), frame, grid.superpixel_shape, scratch)
        return Opened(areas, frame, "bins", outlines)
    path = _file(Path(options.over).expanduser())
    kind = kind_of(path)
    if kind == "labels":
        _no_frame(options, "labels", "Their frame is told by the image's shape.")
        return Opened(labels.LabelAreas(path, labels.Image2D(path, scratch), grid), slide_frame("px", grid), kind)
    if options.radius_um is not None and kind != "spots":
        raise InputError(f"{path} has outlines: --radius-um can change nothing.", "It is for tables of spots.")
    frame = _frame(options, kind, run, grid)
    notices: list[str] = []
    if kind == "polygons" and frame.of_slide and frame.units == "px" and grid.bounds_px is not None:
        corner, told = grid.corner_of_others(path.name, *geojson.span_of(path))
        frame = moved(frame, corner)
        notices.append(f"{told}.")
    if kind == "spots":
        if options.radius_um is not None and not 0 < options.radius_um < float("inf"):
            raise InputError(f"--radius-um {options.radius_um:g} is no radius.", "Give um above 0.")
        radius = None if options.radius_um is None else options.radius_um / (frame.scale * grid.superpixel_um)
        outlines = partial(tables.read_spots, path, radius)
    elif kind == "polygons":
        outlines = partial(geojson.read_geojson, path, notices)
    else:
        outlines = partial(TABLES[kind], path)
    what = f"{kind} of {path.name}, in {frame.said}"
    areas = PolygonAreas(what, str(path), outlines(), frame, grid.superpixel_shape, scratch, notices)
    return Opened(areas, frame, kind, outlines)


def kind_of(path: Path) -> Kind:
    """What a file holds, by its suffix, and for tables in Parquet and CSV by their columns.

    >>> kind_of(Path("cells.geojson")), kind_of(Path("locs.tsv.gz")), kind_of(Path("labels.ome.tif"))
    ('polygons', 'spots', 'labels')
    """
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix in (".parquet", ".csv"):
        return _kind_of_table(path, suffix)
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: {suffix or 'no suffix'} is no format of areas.", FORMATS)
    return SUFFIXES[suffix]


def _kind_of_table(path: Path, suffix: str) -> Kind:
    if tables.is_boundaries(path):
        return "boundaries"
    if suffix == ".csv" and tables.is_selections(path):
        return "selections"
    names = tables.header(path)
    if {"x", "y"} <= {name.lower() for name in names}:
        return "spots"
    raise InputError(
        f"{path} has no corners of areas, {' and '.join(tables.CORNERS)}, and no x and y of spots or of an outline "
        f"(it has: {', '.join(names[:SHOWN])}).",
        "A list of cells without their outlines is no area: give the cells' boundaries, or the outline of the "
        f"selection. {FORMATS}",
    )


def _file(path: Path) -> Path:
    """The file, or the cells' outlines in the folder of a Xenium or of Space Ranger 4."""
    if path.is_dir():
        found = find_optional(path, *BOUNDARIES, what="the cells' boundaries")
        if found is None:
            raise InputError(f"{path} is a folder without {' or '.join(BOUNDARIES[:4:3])}.", FORMATS)
        return found
    if not path.is_file():
        raise InputError(f"{path} does not exist.", FORMATS)
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: 0 bytes.", "Export or copy it again.")
    return path


def _frame(options: AreaOptions, kind: Kind, run: Run, grid: SlideGrid) -> Frame:
    if options.units is not None and options.units not in UNITS:
        known = "; ".join(f"{units}: {name}" for units, name in NAMES.items())
        raise InputError(f"--units {options.units} is none of {', '.join(UNITS)}.", f"These are {known}.")
    default: Units = "um" if options.capture and kind in TABLES else DEFAULT_UNITS[kind]
    if options.capture and kind == "spots":
        default = "px"
    units = next((known for known in UNITS if known == options.units), default)
    if options.capture:
        return capture_frame(run, options.capture, units, grid)
    return slide_frame(units, grid)


def _no_frame(options: AreaOptions, what: str, why: str) -> None:
    given = [flag for flag, value in (("units", options.units), ("capture", options.capture)) if value is not None]
    given += ["radius-um"] if options.radius_um is not None else []
    if given:
        raise InputError(f"--{given[0]} can change nothing about {what}.", f"Leave it out. {why}")


def _bin_side(text: str, grid: SlideGrid) -> float:
    """Side in um of ``bins:16``."""
    given = text.partition(":")[2].removesuffix("um")
    try:
        side = float(given)
    except ValueError:
        side = math.nan
    longest = max(grid.content_shape_px) * grid.pixel_size_um
    if not SMALLEST_BIN_UM <= side <= longest:
        raise InputError(
            f"{text}: the side of the bins is {given!r}; {SMALLEST_BIN_UM:g} to {longest:.0f} um are possible here.",
            f"Write it in um, as bins:16. A superpixel is {grid.superpixel_um:g} um wide.",
        )
    return side


def _square_bins(side_um: float, grid: SlideGrid, on_tissue: OnTissue) -> Iterator[Block]:
    """Squares from the slide's corner on, those that touch tissue, row by row; positions are um."""
    shape, ratio = grid.superpixel_shape, side_um / grid.superpixel_um
    rows, columns = (math.ceil(n / ratio - 1e-9) for n in shape)
    edges = np.arange(columns + 1) * ratio
    first = np.minimum(np.floor(edges[:-1] + 1e-9), shape[1] - 1).astype(int)
    last = np.minimum(np.ceil(edges[1:] - 1e-9), shape[1]).astype(int)
    held: list[NDArray[np.int64]] = []
    any_bin = False
    for row in range(rows):
        top, bottom = math.floor(row * ratio + 1e-9), math.ceil((row + 1) * ratio - 1e-9)
        there = on_tissue(Region(min(top, shape[0] - 1), min(bottom, shape[0]), 0, shape[1])).any(axis=0)
        before = np.concatenate([[0], np.cumsum(there)])
        column = np.flatnonzero(before[last] > before[first])
        held.append(np.column_stack([np.full(len(column), row), column]))
        if sum(map(len, held)) >= AREAS_AT_ONCE or row == rows - 1:
            places, held = np.concatenate(held), []
            any_bin |= len(places) > 0
            for start in range(0, len(places), AREAS_AT_ONCE):
                yield _squares(places[start : start + AREAS_AT_ONCE], side_um)
    if not any_bin:
        raise InputError("The run has no tissue: there is nothing to bin.", "Look at its tissue mask (iscale tissue).")


def _squares(places: NDArray[np.int64], side_um: float) -> Block:
    corner = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    outlines = (places[:, None, ::-1] + corner) * side_um
    ids = [f"r{row}c{column}" for row, column in places.tolist()]
    return Block(ids, simple_rings(outlines), {"array_row": places[:, 0], "array_col": places[:, 1]})
