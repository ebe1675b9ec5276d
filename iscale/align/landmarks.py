"""Landmarks of a capture and of the mother image, from the files in which people set them: tables, QuPath's GeoJSON."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from iscale.errors import InputError
from iscale.geometry import SlideGrid

Unit = Literal["px", "um"]

NAME_COLUMNS = ("name", "landmark", "id", "index", "key", "point", "")
"""Columns that name a point, the best first; the empty one is the first column of a table with row numbers."""
CLASS_COLUMNS = ("class", "classification")
UNIT_SUFFIX = re.compile(r"[\s_(\[]+(µm|μm|um|microns?|micromet(?:er|re)s?|px|pixels?)[\s)\]]*$")
REMEDY = (
    "Give a table of pairs with the columns name, capture_x, capture_y, mother_x, mother_y, or a table for each image "
    "with the columns name, x, y."
)


@dataclass(frozen=True)
class Table:
    """A text table with named columns.

    Columns are in small letters without blanks, signs and units (``Centroid X µm`` is ``centroidx``), their units
    beside them where the name states one; rows are the cells of every row that is not blank, after the number of its
    line.
    """

    path: Path
    columns: tuple[str, ...]
    units: tuple[Unit | None, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]

    def texts(self, column: int) -> list[str]:
        """Cells of a column."""
        return [row[column].strip() for _, row in self.rows]

    def numbers(self, column: int) -> NDArray[np.float64]:
        """Cells of a column as numbers; an InputError where one is not finite."""
        values = np.empty(len(self.rows))
        for i, (line, row) in enumerate(self.rows):
            try:
                values[i] = float(row[column])
            except ValueError:
                values[i] = math.nan
            if not math.isfinite(values[i]):
                cell = row[column].strip()
                raise InputError(
                    f"{self.path}: line {line} has {cell!r} for {self.columns[column]}, which is no finite number.",
                    "Give every landmark a position, or take it out of the file.",
                )
        return values

    def in_um(self, column: int) -> NDArray[np.bool_]:
        """(row,) whether positions in a column are in um: its name says so, or a column ``unit`` does."""
        stated = self.find("unit", "units")
        if stated is None:
            return np.full(len(self.rows), self.units[column] == "um")
        units = [_column(f"x {text}")[1] for text in self.texts(stated)]
        if None in units:
            line, row = self.rows[units.index(None)]
            raise InputError(f"{self.path}: line {line} has the unit {row[stated].strip()!r}.", "Write px or um.")
        return np.array([unit == "um" for unit in units])

    def find(self, *names: str) -> int | None:
        """The first of the columns that is there."""
        return next((self.columns.index(name) for name in names if name in self.columns), None)

    def names(self) -> list[str] | None:
        """Names of the points, the first of a table's ways to name them; None where it has none.

        A class names points only where no two have the same. QuPath writes the points of one annotation with its name:
        they are numbered.
        """
        at = self.find(*NAME_COLUMNS)
        names = [plain_name(text) for text in self.texts(at)] if at is not None else []
        of_class = self.find(*CLASS_COLUMNS)
        if of_class is not None:
            if not any(names):
                names = self.texts(of_class)
                return names if len(set(names)) == len(names) and all(names) else None
            names = numbered(names)
        return names if any(names) else None


def plain_name(text: str) -> str:
    """A name as it is compared: numbers without decimals, so that 3 and 3.0 are one.

    >>> plain_name(" 3.0 "), plain_name("vessel 2")
    ('3', 'vessel 2')
    """
    text = text.strip()
    return text.split(".")[0] if re.fullmatch(r"\d+\.0*", text) else text


def numbered(names: list[str]) -> list[str]:
    """Names that occur more than once, with a number.

    >>> numbered(["vessel", "edge", "vessel"])
    ['vessel 1', 'edge', 'vessel 2']
    """
    total, seen = Counter(names), Counter[str]()
    result = []
    for name in names:
        seen[name] += 1
        result.append(f"{name} {seen[name]}" if name and total[name] > 1 else name)
    return result


def read_table(path: Path) -> Table:
    """Read a table whose cells are separated by commas, semicolons or tabs; lines from ``#`` on are comments.

    An InputError where it has no header and rows, or a row has another number of cells than the header.
    """
    lines = [(n, line) for n, line in enumerate(read_text(path).splitlines(), start=1)]
    lines = [(n, line) for n, line in lines if line.strip(" ,;\t") and not line.lstrip().startswith("#")]
    if len(lines) < 2:
        raise InputError(f"{path} holds no landmarks: {len(lines)} lines with text.", REMEDY)
    separator = max("\t;,", key=lines[0][1].count)
    rows = [next(csv.reader([line], delimiter=separator)) for _, line in lines]
    for (number, _), row in zip(lines, rows, strict=True):
        if len(row) != len(rows[0]):
            raise InputError(f"{path}: line {number} has {len(row)} cells, the header {len(rows[0])}.", REMEDY)
    if separator == ";":  # written where the decimal sign is a comma
        rows[1:] = [[re.sub(r"^(\s*-?\d+),(\d+\s*)$", r"\1.\2", cell) for cell in row] for row in rows[1:]]
    heads = [_column(cell) for cell in rows[0]]
    body = tuple((number, tuple(row)) for (number, _), row in zip(lines[1:], rows[1:], strict=True))
    return Table(path, tuple(name for name, _ in heads), tuple(unit for _, unit in heads), body)


def _column(text: str) -> tuple[str, Unit | None]:
    """Name and unit of a column.

    >>> [_column(t) for t in ("Centroid X µm", "capture_x_um", "X", "mother_y (px)", " ")]
    [('centroidx', 'um'), ('capturex', 'um'), ('x', None), ('mothery', 'px'), ('', None)]
    """
    text = text.strip().lower()
    stated = UNIT_SUFFIX.search(text)
    unit: Unit | None = None if stated is None else ("px" if stated[1].startswith("p") else "um")
    return re.sub(r"[^a-z0-9]", "", UNIT_SUFFIX.sub("", text)), unit


def read_geojson(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    """Names, empty where there is none, and (point, 2) x, y of a GeoJSON file as QuPath exports points.

    It holds features, a collection of them, or only one. Points are named by ``properties.name``, or else by the
    classification; those of a MultiPoint are numbered. QuPath counts in full-resolution pixels.
    """
    try:
        document = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} cannot be read as JSON: {error}.", "Export the points again.") from None
    features = document.get("features") or [document] if isinstance(document, dict) else document
    names: list[str] = []
    classes: list[str] = []
    places: list[Any] = []
    for feature in features if isinstance(features, list) else []:
        geometry = (feature.get("geometry") if isinstance(feature, dict) else None) or {}
        kind, points = geometry.get("type"), geometry.get("coordinates") or []
        if kind not in ("Point", "MultiPoint"):
            continue
        points = [points] if kind == "Point" else points
        name, of_class = _feature_names(feature)
        places += points
        names += numbered([name] * len(points))
        classes += [of_class] * len(points)
    try:
        xy = np.array([[float(place[0]), float(place[1])] for place in places]).reshape(-1, 2)
    except (TypeError, ValueError, IndexError):
        raise InputError(f"{path}: a point has no two numbers as coordinates.", "Export the points again.") from None
    if not len(xy) or not np.isfinite(xy).all():
        raise InputError(
            f"{path} holds {len(xy)} points, {int(np.isfinite(xy).all(axis=1).sum())} of them with finite coordinates.",
            "Set landmarks with QuPath's Points tool, name them, and export them as GeoJSON.",
        )
    return (names if any(names) else numbered(classes)), xy


def _feature_names(feature: dict[str, Any]) -> tuple[str, str]:
    """Its name and the name of its class, empty where there is none."""
    properties = feature.get("properties") or {}
    of_class = properties.get("classification")
    of_class = of_class.get("name") if isinstance(of_class, dict) else of_class
    return str(properties.get("name") or "").strip(), str(of_class or "").strip()


def read_text(path: Path) -> str:
    """Text of a file; an InputError where it cannot be read, or is no text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file in UTF-8.", REMEDY) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", "Check the path of the landmarks.") from None


STEM, CAPTURE_STEM, MOTHER_STEM = "landmarks", "landmarks-capture", "landmarks-mother"
TABLE_SUFFIXES, GEOJSON_SUFFIXES = (".csv", ".tsv", ".txt"), (".geojson", ".json")

CAPTURE_PREFIXES = ("capture", "daughter", "source", "fixed")
MOTHER_PREFIXES = ("mother", "target", "alignment")
"""What columns of pairs begin with. Xenium Explorer aligns the H&E to the fixed image of the Xenium."""


@dataclass(frozen=True)
class Landmarks:
    """The same places in a capture and in the mother image.

    Attributes
    ----------
    names
        (landmark,) names.
    capture_xy, mother_xy
        (landmark, 2) float64: x, y in full-resolution pixels of the capture's image and of the mother image.
    notices
        What was matched and left out, one sentence each.
    """

    names: tuple[str, ...]
    capture_xy: NDArray[np.float64]
    mother_xy: NDArray[np.float64]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Points:
    """Points of one image in its pixels; ``names`` is None where they are known by their order alone."""

    path: Path
    names: list[str] | None
    xy: NDArray[np.float64]
    of_qupath: bool = False


def find_landmarks(folder: Path) -> tuple[Path, ...]:
    """Files of landmarks in a folder: one of pairs, or the capture's and the mother image's; none, if empty.

    An InputError where more than one file could be meant, or one of two is missing.
    """
    found = {stem: _with_stem(folder, stem) for stem in (STEM, CAPTURE_STEM, MOTHER_STEM)}
    files = [path for paths in found.values() for path in paths]
    both = bool(found[CAPTURE_STEM] and found[MOTHER_STEM])
    if len(files) > (2 if both else 1):
        raise InputError(
            f"{folder} has {len(files)} files of landmarks: {', '.join(path.name for path in files)}.",
            f"Keep {STEM}.csv alone, or one {CAPTURE_STEM} with one {MOTHER_STEM}.",
        )
    if len(files) == 1 and not found[STEM]:
        wanted = MOTHER_STEM if found[CAPTURE_STEM] else CAPTURE_STEM
        raise InputError(
            f"{folder} has {files[0].name}, but no {wanted}{files[0].suffix}.",
            "Landmarks are pairs: export them of both images.",
        )
    return tuple(files)


def _with_stem(folder: Path, stem: str) -> list[Path]:
    suffixes = TABLE_SUFFIXES + (GEOJSON_SUFFIXES if stem != STEM else ())
    return sorted(p for p in folder.iterdir() if p.stem == stem and p.suffix.lower() in suffixes and p.is_file())


def read_landmarks(
    *paths: Path,
    capture_um_per_px: float | None = None,
    mother_um_per_px: float | None = None,
    mother_grid: SlideGrid | None = None,
) -> Landmarks:
    """Read landmarks from one file of pairs, or from the capture's and the mother image's.

    Parameters
    ----------
    paths
        One or two files. ``landmarks-capture.*`` or ``landmarks-mother.*`` alone is read with the other.
    capture_um_per_px, mother_um_per_px
        Side of a full-resolution pixel, in um; None where it is not known, which files in pixels do not need.
    mother_grid
        The mother image's: points of QuPath count from the corner of what was scanned, where that is stated.

    Raises
    ------
    InputError
        A file cannot be read as landmarks, names one twice, or has a position that is no number or in um of an image
        whose pixel size is not known; or the two files have no landmark in common.
    """
    if len(paths) == 1 and paths[0].stem in (CAPTURE_STEM, MOTHER_STEM):
        paths = find_landmarks(paths[0].parent)
    if len(paths) == 1:
        table = _no_geojson(paths[0])
        capture = _of_pairs(table, CAPTURE_PREFIXES, capture_um_per_px, "capture")
        mother = _of_pairs(table, MOTHER_PREFIXES, mother_um_per_px, "mother image")
    else:
        capture = _of_one_image(paths[0], capture_um_per_px, "capture")
        mother, told = _from_corner(_of_one_image(paths[1], mother_um_per_px, "mother image"), mother_grid)
        marks = _matched(capture, mother)
        return replace(marks, notices=(*told, *marks.notices))
    return _matched(capture, mother)


def _from_corner(points: _Points, grid: SlideGrid | None) -> tuple[_Points, tuple[str, ...]]:
    """Points of the mother image counted from the slide's corner, and what is to be told of it."""
    if grid is None or not points.of_qupath:
        return points, ()
    low, high = points.xy.min(0), points.xy.max(0)
    corner, told = grid.corner_of_others(points.path.name, (low[0], low[1]), (high[0], high[1]))
    return replace(points, xy=points.xy + corner), (f"{told}.",) if told else ()


def _no_geojson(path: Path) -> Table:
    if path.suffix.lower() in GEOJSON_SUFFIXES:
        raise InputError(
            f"{path} holds the points of one image, and landmarks are pairs.",
            f"Export those of both, as {CAPTURE_STEM}{path.suffix} and {MOTHER_STEM}{path.suffix}.",
        )
    return read_table(path)


def _of_pairs(table: Table, prefixes: tuple[str, ...], um_per_px: float | None, image: str) -> _Points:
    x_names, y_names = ([name for p in prefixes for name in (p + axis, axis + p)] for axis in "xy")
    return _points(table, *_xy_columns(table, x_names, y_names, f"for x and y of the {image}"), um_per_px, image)


def _of_one_image(path: Path, um_per_px: float | None, image: str) -> _Points:
    if path.suffix.lower() in GEOJSON_SUFFIXES:
        names, xy = read_geojson(path)
        return _checked(_Points(path, names if any(names) else None, xy, of_qupath=True))
    table = read_table(path)
    x, y = _xy_columns(table, ["x", "centroidx"], ["y", "centroidy"], "x and y")
    several = table.find("numpoints")
    if several is not None and table.numbers(several).max() > 1:
        raise InputError(
            f"{path} has a row for {table.numbers(several).max():.0f} points: their centroid is no landmark.",
            "Export the points as GeoJSON, or set each as an annotation of its own.",
        )
    points = _points(table, x, y, um_per_px, image)
    return replace(points, of_qupath=table.find("centroidx") is not None)


def _xy_columns(table: Table, x_names: list[str], y_names: list[str], what: str) -> tuple[int, int]:
    x, y = table.find(*x_names), table.find(*y_names)
    if x is None or y is None:
        found = ", ".join(name or "(no name)" for name in table.columns[:6])
        raise InputError(f"{table.path} has no columns {what} (it has: {found}).", REMEDY)
    return x, y


def _points(table: Table, x: int, y: int, um_per_px: float | None, image: str) -> _Points:
    """Positions of a table, in pixels."""
    xy = np.column_stack([table.numbers(x), table.numbers(y)])
    in_um = np.column_stack([table.in_um(x), table.in_um(y)])
    if in_um.any() and um_per_px is None:
        raise InputError(
            f"{table.path} gives positions in um, and the pixel size of the {image} is not known.",
            "Give the landmarks in full-resolution pixels, or the pixel size of the image.",
        )
    return _checked(_Points(table.path, table.names(), np.where(in_um, xy / (um_per_px or 1.0), xy)))


def _checked(points: _Points) -> _Points:
    if points.names is None:
        return points
    nameless = sum(not name for name in points.names)
    if nameless:
        raise InputError(
            f"{points.path}: {nameless} of {len(points.names)} landmarks have no name.", "Name all, or none."
        )
    twice = [name for name, count in Counter(points.names).items() if count > 1]
    if twice:
        raise InputError(
            f"{points.path} names {len(twice)} landmarks more than once: {', '.join(twice[:3])}.",
            "Give every landmark a name of its own.",
        )
    return points


def _matched(capture: _Points, mother: _Points) -> Landmarks:
    """The landmarks that both have, in the capture's order."""
    if capture.names is None or mother.names is None:
        return _in_order(capture, mother)
    row = {name: i for i, name in enumerate(mother.names)}
    common = [(name, i, row[name]) for i, name in enumerate(capture.names) if name in row]
    if not common:
        raise InputError(
            f"No landmark has the same name in {capture.path.name} ({', '.join(capture.names[:3])} ...) and in "
            f"{mother.path.name} ({', '.join(mother.names[:3])} ...).",
            "Give the same place the same name in both.",
        )
    notices = tuple(
        f"Landmarks that only {points.path.name} has were left out: {', '.join(lonely)}."
        for points, other in ((capture, mother), (mother, capture))
        if (lonely := [name for name in points.names or () if name not in (other.names or ())])
    )
    names, ours, theirs = zip(*common, strict=True)
    return Landmarks(names, capture.xy[list(ours)], mother.xy[list(theirs)], notices)


def _in_order(capture: _Points, mother: _Points) -> Landmarks:
    n = len(capture.xy)
    if n != len(mother.xy) or (capture.names is None) != (mother.names is None):
        which = " and ".join(p.path.name for p in (capture, mother) if p.names is None)
        raise InputError(
            f"The landmarks in {which} have no names, so they cannot be matched: {n} are in {capture.path.name}, "
            f"{len(mother.xy)} in {mother.path.name}.",
            "Name them, or give as many without names in both, in the same order.",
        )
    names = tuple(str(i + 1) for i in range(n))
    if capture.path == mother.path:
        return Landmarks(names, capture.xy, mother.xy)
    return Landmarks(names, capture.xy, mother.xy, (f"The {n} landmarks have no names: they were matched in order.",))
