"""Captures as shapes of a SpatialData store: a circle for each spot, in um on the slide.

Written as spatialdata 0.7 writes them (shapes 0.3): GeoParquet 1.0 (https://geoparquet.org/releases/v1.0.0), whose
columns are the point as WKB, the radius and the spot's name.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import zarr
from numpy.typing import NDArray

from iscale.captures.stage import on_mother, open_capture
from iscale.export.request import Request
from iscale.project.layout import file_name
from iscale.store.ome import axes

FILE = "shapes.parquet"
ATTRIBUTES: dict[str, Any] = {
    "encoding-type": "ngff:shapes",
    "axes": ["x", "y"],
    "spatialdata_attrs": {"version": "0.3"},
}
ROWS_AT_ONCE = 1 << 18
SPOT = "spot"
"""Column of the names."""


def write_captures(
    request: Request, group: zarr.Group, folder: Path, taken: Collection[str], systems: Mapping[str, str]
) -> list[str]:
    """Write the run's captures into an empty group that lies in a folder.

    Parameters
    ----------
    request
        The export, of whose run they are; all spots are written, also of a window.
    group, folder
        Where to.
    taken
        Names of other elements: one of a store's must not be called as another.
    systems
        Units of the coordinate systems, by their names: ``micrometer``, or else analysis pixels.

    Returns
    -------
    list of str
        What they are called.
    """
    store = request.run.store
    if not store.has("captures"):
        return []
    stored = zarr.open_group(store.root, path="captures", mode="r")
    others, names = {name.lower() for name in taken}, []
    for capture in sorted(stored.group_keys()):
        adata = open_capture(zarr.open_group(store.root, path=f"captures/{capture}", mode="r"), counts=False)
        radius_um = float(adata.uns["spatial"][capture]["metadata"]["spot_diameter_um"]) / 2
        name = file_name(capture)
        name = f"capture_{name}" if name.lower() in others else name
        others.add(name.lower())
        made = group.create_group(name)
        made.attrs.update(ATTRIBUTES | {"coordinateTransformations": _placed(systems, request.grid.pixel_size_um)})
        _write_circles(folder / name / FILE, [str(spot) for spot in adata.obs_names], on_mother(adata), radius_um)
        names.append(name)
    return names


def _placed(systems: Mapping[str, str], pixel_size_um: float) -> list[dict[str, Any]]:
    """How um lie in each coordinate system."""
    return [
        {
            "type": "scale",
            "scale": [1.0 if unit == "micrometer" else 1 / pixel_size_um] * 2,
            "input": {"name": "xy", "axes": axes("xy", "unit")},
            "output": {"name": system, "axes": axes("xy", unit)},
        }
        for system, unit in systems.items()
    ]


def _write_circles(path: Path, names: list[str], xy: NDArray[np.float64], radius: float) -> None:
    """Write circles, some at a time."""
    columns = [("geometry", pa.binary()), ("radius", pa.float64()), (SPOT, pa.string())]
    about = {"geo": json.dumps(_geo(xy)), "pandas": json.dumps(_pandas(columns))}
    schema = pa.schema(columns, metadata=about)
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, max(1, len(names)), ROWS_AT_ONCE):
            part = slice(first, first + ROWS_AT_ONCE)
            points = np.asarray(shapely.to_wkb(shapely.points(xy[part])), dtype=object)
            arrays = [points, np.full(len(points), radius), names[part]]
            writer.write_table(pa.table([pa.array(a, t) for a, (_, t) in zip(arrays, columns, strict=True)], schema))


def _geo(xy: NDArray[np.float64]) -> dict[str, Any]:
    box = [*xy.min(axis=0).tolist(), *xy.max(axis=0).tolist()] if len(xy) else None
    column = {"encoding": "WKB", "crs": None, "geometry_types": ["Point"]}
    return {
        "version": "1.0.0",
        "primary_column": "geometry",
        "columns": {"geometry": column | ({"bbox": box} if box else {})},
    }


def _pandas(columns: list[tuple[str, pa.DataType]]) -> dict[str, Any]:
    """By which pandas takes the names for the index."""
    kinds = {"geometry": ("bytes", "object"), "radius": ("float64", "float64"), SPOT: ("unicode", "object")}
    return {
        "index_columns": [SPOT],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": name, "pandas_type": kinds[name][0], "numpy_type": kinds[name][1]}
            | {"metadata": None}
            for name, _ in columns
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
