"""Centres and sizes of shapes in a GeoParquet file: points with a radius, polygons and multipolygons."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from iscale.errors import InputError

POINT, POLYGON, MULTIPOLYGON = 1, 3, 6
REMEDY = "Write points, polygons or multipolygons in two dimensions, as spatialdata does."


@dataclass(frozen=True)
class Shapes:
    """Shapes of an element, in its own coordinates.

    Attributes
    ----------
    ids
        Of the instances, as text.
    xy
        (shape, 2) float64: x, y of the points, or of the polygons' centroids.
    area
        (shape,) float64: of the discs around points, or of the polygons.
    """

    ids: list[str]
    xy: NDArray[np.float64]
    area: NDArray[np.float64]


def read_shapes(path: Path) -> Shapes:
    """Read ``shapes.parquet``.

    Raises
    ------
    InputError
        Where it cannot be read, or holds other geometries.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}", "Write it again.") from None
    metadata = table.schema.metadata or {}
    geometry = json.loads(metadata.get(b"geo", b"{}")).get("primary_column", "geometry")
    if geometry not in table.column_names or not pa.types.is_binary(table.schema.field(geometry).type):
        raise InputError(f"{path} has no column {geometry!r} of shapes in WKB.", REMEDY)
    ids = _ids(table, json.loads(metadata.get(b"pandas", b"{}")).get("index_columns", []))
    centres = np.empty((len(table), 2))
    area = np.zeros(len(table))
    for i, wkb in enumerate(table.column(geometry).to_pylist()):
        try:
            centres[i], area[i] = centre_and_area(wkb)
        except (ValueError, struct.error, TypeError) as error:
            raise InputError(f"{path}: the shape of {ids[i]!r} cannot be read: {error}.", REMEDY) from None
    if "radius" in table.column_names:
        area = np.where(area == 0, np.pi * table.column("radius").to_numpy().astype(np.float64) ** 2, area)
    return Shapes(ids, centres, area)


def _ids(table: pa.Table, index: list[Any]) -> list[str]:
    """The index that pandas wrote: a column, or a range that only its description holds."""
    if index and isinstance(index[0], str):
        return [str(value) for value in table.column(index[0]).to_pylist()]
    start, step = (index[0]["start"], index[0]["step"]) if index else (0, 1)
    return [str(start + step * i) for i in range(len(table))]


def centre_and_area(wkb: bytes) -> tuple[NDArray[np.float64], float]:
    """Centroid (x, y) and area of a shape in well-known binary (OGC 06-103r4, section 8); holes count.

    >>> centre_and_area(struct.pack("<BIdd", 1, 1, 3.0, 4.0))
    (array([3., 4.]), 0.0)

    Raises
    ------
    ValueError
        Another kind of geometry, or one without area.
    """
    order, kind = ("<" if wkb[0] == 1 else ">"), struct.unpack_from("<I" if wkb[0] == 1 else ">I", wkb, 1)[0]
    if kind == POINT:
        return np.array(struct.unpack_from(f"{order}2d", wkb, 5)), 0.0
    if kind == POLYGON:
        moment, area, _ = _polygon(wkb, 0)
    elif kind == MULTIPOLYGON:
        moment, area, at = np.zeros(2), 0.0, 9
        for _ in range(struct.unpack_from(f"{order}I", wkb, 5)[0]):
            part, part_area, at = _polygon(wkb, at)
            moment, area = moment + part, area + part_area
    else:
        raise ValueError(f"it is of WKB type {kind}, not a point (1), polygon (3) or multipolygon (6)")
    if not area > 0:
        raise ValueError("it has no area")
    return moment / area, area


def _polygon(wkb: bytes, at: int) -> tuple[NDArray[np.float64], float, int]:
    """Area times centroid, area, and where the polygon ends."""
    order = "<" if wkb[at] == 1 else ">"
    moment, area = np.zeros(2), 0.0
    n_rings = struct.unpack_from(f"{order}I", wkb, at + 5)[0]
    at += 9
    for ring in range(n_rings):
        n_points = struct.unpack_from(f"{order}I", wkb, at)[0]
        points = np.frombuffer(wkb, f"{order}f8", 2 * n_points, at + 4).reshape(-1, 2)
        at += 4 + 16 * n_points
        if n_points < 3:
            continue
        origin = points[0]
        a, b = points[:-1] - origin, points[1:] - origin  # near 0: large coordinates would cost digits
        cross = a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1]
        ring_area = cross.sum() / 2
        ring_moment = ((a + b) * cross[:, None]).sum(axis=0) / 6 + ring_area * origin
        sign = np.sign(ring_area) * (1 if ring == 0 else -1)
        moment, area = moment + sign * ring_moment, area + float(sign * ring_area)
    return moment, area, at
