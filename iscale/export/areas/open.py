"""Which reader a path needs, and in which frame its positions are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from iscale.captures.readers.files import find_optional
from iscale.errors import InputError
from iscale.export.areas import boundaries, geojson, labels, regular
from iscale.export.areas.areas import Areas
from iscale.export.areas.frame import NAMES, UNITS, Frame, Units, capture_frame, slide_frame
from iscale.export.areas.polygons import PolygonAreas
from iscale.export.areas.sums import Maps
from iscale.geometry import SlideGrid
from iscale.results import Run

Kind = Literal["polygons", "boundaries", "spots", "labels", "bins"]

DEFAULT_UNITS: dict[Kind, Units] = {"polygons": "px", "boundaries": "um", "spots": "analysis-px"}
BOUNDARIES = ("cell_boundaries.parquet", "cell_boundaries.csv.gz", "cell_boundaries.csv")
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
    "Give polygons (.geojson), Xenium's cell_boundaries (.parquet, .csv.gz), labels (.npy, .tif, .png), spots (.tsv, "
    ".parquet with id, x, y), or bins:16."
)
BINS = "bins:"

SHOWN = 8
"""Columns of a table that are named."""


@dataclass(frozen=True)
class Asked:
    """What is to be summed over, as the user says it.

    Attributes
    ----------
    over
        A path, or ``bins:`` and a side in um.
    units
        Of the positions; None for what the format has as a rule.
    capture
        Whose frame the positions are in; None for the slide's.
    radius_um
        Of spots.
    """

    over: str
    units: str | None = None
    capture: str | None = None
    radius_um: float | None = None


@dataclass(frozen=True)
class Opened:
    """Areas, the frame that their positions were taken to be in, and what they were read as."""

    areas: Areas
    frame: Frame
    kind: Kind


def open_areas(asked: Asked, run: Run, maps: Maps, scratch: Path) -> Opened:
    """Open what is to be summed over.

    Raises
    ------
    InputError
        It is not there, of no known format, or something was said that cannot be of it.
    """
    grid = maps.grid
    if asked.over.startswith(BINS):
        _no_frame(asked, "bins", "They lie on the slide, in um.")
        side = regular.bin_side(asked.over, grid)
        blocks = regular.square_bins(side, grid, maps.on_tissue)
        frame = slide_frame("um", grid)
        what = f"square bins of {side:g} um that touch tissue"
        areas = PolygonAreas(what, asked.over, blocks, frame, grid.superpixel_shape, scratch)
        return Opened(areas, frame, "bins")
    path = _file(Path(asked.over).expanduser())
    kind = kind_of(path)
    if kind == "labels":
        _no_frame(asked, "labels", "Their frame is told by the image's shape.")
        return Opened(labels.LabelAreas(path, labels.Image2D(path, scratch), grid), slide_frame("px", grid), kind)
    if asked.radius_um is not None and kind != "spots":
        raise InputError(f"{path} has outlines: --radius-um can change nothing.", "It is for tables of spots.")
    frame = _frame(asked, kind, run, grid)
    notices: list[str] = []
    if kind == "spots":
        if asked.radius_um is not None and not 0 < asked.radius_um < float("inf"):
            raise InputError(f"--radius-um {asked.radius_um:g} is no radius.", "Give um above 0.")
        radius = None if asked.radius_um is None else asked.radius_um / (frame.scale * grid.superpixel_um)
        blocks = regular.read_spots(path, radius)
    else:
        blocks = geojson.read_geojson(path, notices) if kind == "polygons" else boundaries.read_boundaries(path)
    what = f"{kind} of {path.name}, in {frame.said}"
    areas = PolygonAreas(what, str(path), blocks, frame, grid.superpixel_shape, scratch, notices)
    return Opened(areas, frame, kind)


def kind_of(path: Path) -> Kind:
    """What a file holds, by its suffix, and for tables in Parquet and CSV by their columns.

    Raises
    ------
    InputError
        It is of no known format.

    Examples
    --------
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
    if boundaries.is_boundaries(path):
        return "boundaries"
    names = boundaries.header(path)
    has_positions = {"x", "y"} <= {name.lower() for name in names}
    if has_positions and suffix == ".parquet":
        return "spots"
    remedy = "A table of spots is .tsv or .parquet: write it so." if has_positions else FORMATS
    raise InputError(
        f"{path} has no corners of areas, {' and '.join(boundaries.CORNERS)} (it has: {', '.join(names[:SHOWN])}).",
        remedy,
    )


def _file(path: Path) -> Path:
    """The file, or the boundaries in a Xenium folder."""
    if path.is_dir():
        found = find_optional(path, *BOUNDARIES, what="the cells' boundaries")
        if found is None:
            raise InputError(f"{path} is a folder without {' or '.join(BOUNDARIES[:2])}.", FORMATS)
        return found
    if not path.is_file():
        raise InputError(f"{path} does not exist.", FORMATS)
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: 0 bytes.", "Export or copy it again.")
    return path


def _frame(asked: Asked, kind: Kind, run: Run, grid: SlideGrid) -> Frame:
    if asked.units is not None and asked.units not in UNITS:
        known = "; ".join(f"{units}: {name}" for units, name in NAMES.items())
        raise InputError(f"--units {asked.units} is none of {', '.join(UNITS)}.", f"These are {known}.")
    default: Units = "um" if asked.capture and kind == "boundaries" else DEFAULT_UNITS[kind]
    if asked.capture and kind == "spots":
        default = "px"
    units = next((known for known in UNITS if known == asked.units), default)
    if asked.capture:
        return capture_frame(run, asked.capture, units, grid)
    return slide_frame(units, grid)


def _no_frame(asked: Asked, what: str, why: str) -> None:
    given = [flag for flag, value in (("units", asked.units), ("capture", asked.capture)) if value is not None]
    given += ["radius-um"] if asked.radius_um is not None else []
    if given:
        raise InputError(f"--{given[0]} can change nothing about {what}.", f"Leave it out. {why}")
