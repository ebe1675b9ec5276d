"""Areas with their sums as text: a CSV table, or GeoJSON objects with measurements, as QuPath reads them."""

from __future__ import annotations

import csv
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from iscale.export.areas.areas import Block
from iscale.export.areas.frame import Frame, per_unit
from iscale.geometry import SlideGrid
from iscale.store.anndata_file import INDEX

VALUES_AT_ONCE = 1 << 22
"""Values of areas by genes that are held together."""

KIND = "detection"
"""What QuPath is told that an area is, where its file did not say."""

ABOUT = ("name", "classification", "object_type", "id")
"""Columns that are no measurements."""

DECIMALS = 3
"""Of corners, in pixels."""


def write_csv(table: Path, target: Path) -> None:
    """A row for each area: its id, what is known of it, and its sums; from a table of areas as AnnData."""
    with h5py.File(table) as file, target.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out, lineterminator="\n")
        genes = _texts(file["var"][INDEX][...])
        order = _columns(file)
        rows.writerow(["row" if "id" in order else "id", *order, *genes])
        for names, obs, values in _blocks(file):
            known = zip(*(obs[name] for name in order), strict=True)
            for name, about, sums in zip(names, known, values, strict=True):
                rows.writerow([name, *map(_cell, about), *map(_cell, sums.tolist())])


def write_geojson(table: Path, outlines: Iterator[Block], frame: Frame, grid: SlideGrid, target: Path) -> int:
    """An object for each area, its outline in full-resolution pixels of the slide, its sums as measurements.

    Parameters
    ----------
    table
        The areas as AnnData.
    outlines
        The same, read again, in the same order.
    frame, grid
        Of their positions, and the slide's.
    target
        The file to write.

    Returns
    -------
    int
        How many areas were left out, as they have no outline.
    """
    left_out, separator = 0, "\n"
    scale = per_unit("px", grid)
    with h5py.File(table) as file, target.open("w", encoding="utf-8") as out:
        genes = _texts(file["var"][INDEX][...])
        geometries = (geometry for block in outlines for geometry in _geometries(block, frame, scale))
        out.write('{"type": "FeatureCollection", "features": [')
        for names, obs, values in _blocks(file):
            for row, name in enumerate(names):
                geometry = next(geometries)
                if geometry is None:
                    left_out += 1
                    continue
                about = {column: cells[row] for column, cells in obs.items()}
                out.write(separator + json.dumps(_feature(name, geometry, about, genes, values[row])))
                separator = ",\n"
        out.write("\n]}\n")
    return left_out


def _feature(
    name: str, geometry: dict[str, Any], about: dict[str, Any], genes: list[str], values: NDArray[np.float32]
) -> dict[str, Any]:
    known = {key: float(value) for key, value in about.items() if key not in ABOUT and not isinstance(value, str)}
    numbers = known | dict(zip(genes, values.tolist(), strict=True))
    own = str(about.get("id", name))
    properties: dict[str, Any] = {
        "objectType": about.get("object_type") or KIND,
        "name": about.get("name") or own,
        "id": own,
        "measurements": {key: float(f"{value:.7g}") for key, value in numbers.items() if np.isfinite(value)},
    }
    if about.get("classification"):
        properties["classification"] = {"name": about["classification"]}
    identity = {"id": own} if _is_uuid(own) else {}  # QuPath's own; it takes no other there
    return {"type": "Feature", **identity, "geometry": geometry, "properties": properties}


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _geometries(block: Block, frame: Frame, scale: float) -> Iterator[dict[str, Any] | None]:
    """Outlines of a block's areas as GeoJSON has them; None for one that encloses nothing."""
    rings = block.rings
    xy = frame.to_superpixels(rings.xy) / scale
    for area in range(len(rings)):
        polygons = []
        for polygon in range(rings.areas[area], rings.areas[area + 1]):
            first, last = rings.polygons[polygon], rings.polygons[polygon + 1]
            corners = [_closed(xy[rings.rings[ring] : rings.rings[ring + 1]]) for ring in range(first, last)]
            if corners and len(corners[0]) > 3:
                polygons.append([ring for ring in corners if len(ring) > 3])
        if len(polygons) == 1:
            yield {"type": "Polygon", "coordinates": polygons[0]}
        else:
            yield {"type": "MultiPolygon", "coordinates": polygons} if polygons else None


def _closed(xy: NDArray[np.float64]) -> list[list[float]]:
    points: list[list[float]] = np.round(xy, DECIMALS).tolist()
    return points if not points or points[0] == points[-1] else [*points, points[0]]


def _columns(file: h5py.File) -> list[str]:
    return [str(name) for name in file["obs"].attrs["column-order"]]


def _blocks(file: h5py.File) -> Iterator[tuple[list[str], dict[str, list[Any]], NDArray[np.float32]]]:
    """Names, columns and sums of some areas at a time."""
    obs, matrix = file["obs"], file["X"]
    step = max(1, VALUES_AT_ONCE // max(1, matrix.shape[1]))
    for first in range(0, matrix.shape[0], step):
        rows = slice(first, first + step)
        known = {name: _values(obs[name], rows) for name in _columns(file)}
        yield _texts(obs[INDEX][rows]), known, np.asarray(matrix[rows], np.float32)


def _values(stored: Any, rows: slice) -> list[Any]:
    """A column: numbers, text, or the names of categories, empty where there is none."""
    if isinstance(stored, h5py.Group):
        names = np.array([*_texts(stored["categories"][...]), ""], dtype=object)
        return list(names[stored["codes"][rows]])
    values = stored[rows]
    return _texts(values) if values.dtype.kind == "O" else list(values.tolist())


def _texts(values: NDArray[Any]) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _cell(value: Any) -> str:
    """A number with the digits that float32 has; empty where there is none."""
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.9g}"
    return str(value)
