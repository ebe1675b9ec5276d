"""SpatialData: the table of a ``.zarr`` store, its spots placed by the shapes that it annotates.

The store is read as it lies on disk, Zarr of format 2 or 3; the package spatialdata is not needed. Positions are those
of the coordinate system ``global``, which are taken for full-resolution pixels of the capture's image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from iscale.errors import InputError
from iscale.vendors.anndata_group import AnnDataTable, read_table, readable
from iscale.vendors.anndata_positions import positions_of
from iscale.vendors.base import Measured
from iscale.vendors.files import check_inside, find_file
from iscale.vendors.geoparquet import read_shapes
from iscale.vendors.h5ad import assemble
from iscale.vendors.own_image import IMAGE_SETTING

SYSTEM = "global"
SPLIT_REMEDY = "Split it: write a store with one table, of one region, for each capture."


@dataclass(frozen=True)
class Placed:
    """Where the spots lie.

    Attributes
    ----------
    xy
        (spot, 2) float64: x, y in pixels.
    notices
        Where they are from.
    factors
        The diameter of a spot in pixels, where it is known, under scanpy's name.
    um_per_px
        Side of a pixel, where it is known.
    """

    xy: NDArray[np.float64]
    notices: tuple[str, ...]
    factors: dict[str, float] = field(default_factory=dict)
    um_per_px: float | None = None


def looks_like(path: Path) -> bool:
    """Whether a folder is a Zarr store with ``tables``, or holds just one that is."""
    return _store(path) is not None


def read(path: Path, table: str | None = None) -> Measured:
    """Read the table of a store.

    Parameters
    ----------
    path
        The store, or a folder that holds just one.
    table
        Name of the table; None where there is one.

    Raises
    ------
    InputError
        Where there is no such table, it is of several regions, or its spots cannot be placed.
    """
    store = _store(path)
    if store is None:
        raise InputError(f"{path} is no SpatialData store: a folder *.zarr with tables/.", "Name the store itself.")
    name = _table_name(store, table)
    check_inside(store, store / "tables" / name, what="the table")
    source = f"{store}/tables/{name}"
    with readable(source):
        group = zarr.open_group(store / "tables" / name, mode="r")
        found = read_table(group, source)
        attributes = dict(group.attrs)
        region = _region(found.obs, attributes, source)
        placed = _placed_by_shapes(store, region, found, attributes, source) if region else None
        if placed is None:
            placed = _placed_by_table(group, found, source)
    notices = (*placed.notices, f"Images of a SpatialData store are not read ({IMAGE_SETTING}).")
    return assemble(
        "spatialdata", found, placed.xy, placed.factors, image=None, um_per_px=placed.um_per_px, notices=notices
    )


def _store(path: Path) -> Path | None:
    if not path.is_dir():
        return None
    if (path / "tables").is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs")):
        return path
    below = [p for p in path.iterdir() if p.suffix.lower() == ".zarr" and (p / "tables").is_dir()]
    return below[0] if len(below) == 1 else None


def _table_name(store: Path, table: str | None) -> str:
    found = sorted(
        p.name for p in (store / "tables").iterdir() if (p / "zarr.json").is_file() or (p / ".zgroup").is_file()
    )
    if table is None and len(found) == 1:
        return found[0]
    if table not in found:
        wanted = "one is needed" if table is None else f"there is no {table!r}"
        raise InputError(
            f"{store} has {len(found)} tables, {wanted}; there are: {', '.join(found[:8]) or 'none'}.", SPLIT_REMEDY
        )
    return table


def _region(obs: pd.DataFrame, attributes: Mapping[str, Any], source: str) -> str | None:
    """The one element that the table annotates."""
    region = attributes.get("region")
    regions = list(region) if isinstance(region, list | tuple | np.ndarray) else [] if region is None else [region]
    key = attributes.get("region_key")
    if key in obs.columns:
        regions = sorted({str(name) for name in obs[key]})
    if len(regions) > 1:
        raise InputError(
            f"{source} is of {len(regions)} regions: {', '.join(str(name) for name in regions[:5])}.", SPLIT_REMEDY
        )
    return str(regions[0]) if regions else None


def _placed_by_table(group: zarr.Group, table: AnnDataTable, source: str) -> Placed:
    """Positions that the table itself holds: which unit they have nothing says, unless they are Xenium's um."""
    found = positions_of(group, table.obs, source)
    if found.in_um:
        notice = f"{found.source} is in um: positions are in pixels of 1 um."
        return Placed(found.xy, (*found.notices, notice), um_per_px=1.0)
    return Placed(found.xy, (*found.notices, f"Positions are {found.source}, taken for full-resolution pixels."))


def _placed_by_shapes(
    store: Path, region: str, table: AnnDataTable, attributes: Mapping[str, Any], source: str
) -> Placed | None:
    """Positions of the shapes that the table annotates; None where its region is no shapes (labels, say)."""
    folder = store / "shapes" / region
    if region != Path(region).name or not folder.is_dir():
        return None
    check_inside(store, folder, what="the shapes")
    path = find_file(folder, "shapes.parquet", what=f"the shapes {region}")
    element = zarr.open_group(folder, mode="r")
    stored: Any = element.attrs.asdict().get("coordinateTransformations", [])
    matrix = to_global(stored, str(folder))
    shapes = read_shapes(path)
    key = attributes.get("instance_key")
    if key not in table.obs.columns:
        raise InputError(f"{source} has no column {key!r} that names the instances of {region}.", "Write it again.")
    row_of = {name: i for i, name in enumerate(shapes.ids)}
    wanted = [str(name) for name in table.obs[key]]
    lost = [name for name in wanted if name not in row_of]
    if lost:
        raise InputError(
            f"{source}: {len(lost)} of {len(wanted)} spots are not in shapes/{region}: {', '.join(lost[:3])}.",
            "Take them out of the table (spatialdata.match_table_to_element).",
        )
    rows = [row_of[name] for name in wanted]
    scale = abs(float(np.linalg.det(matrix[:2, :2])))
    diameter_px = 2 * float(np.sqrt(np.median(shapes.area[rows]) * scale / np.pi))
    xy = shapes.xy[rows] @ matrix[:2, :2].T + matrix[:2, 2]
    factors = {"spot_diameter_fullres": diameter_px} if diameter_px > 0 else {}
    return Placed(xy, (f"Positions are those of shapes/{region} in {SYSTEM!r}.",), factors)


def to_global(transformations: Sequence[Mapping[str, Any]], source: str) -> NDArray[np.float64]:
    """The matrix (3, 3) that takes an element's x, y, 1 to the coordinate system ``global``.

    Raises
    ------
    InputError
        Where none leads there, or one is of a kind that is not read.
    """
    for transformation in transformations:
        if transformation.get("output", {}).get("name") == SYSTEM:
            matrix = _matrix(transformation, source)
            if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
                raise InputError(f"{source}: the transformation to {SYSTEM!r} is singular.", "Write it again.")
            return matrix
    names = ", ".join(str(t.get("output", {}).get("name")) for t in transformations) or "none"
    raise InputError(
        f"{source} has no transformation to the coordinate system {SYSTEM!r} (there is: {names}).",
        f"Set one (spatialdata.transformations.set_transformation(..., to_coordinate_system={SYSTEM!r})).",
    )


def _matrix(transformation: Mapping[str, Any], source: str) -> NDArray[np.float64]:
    kind = transformation.get("type")
    if kind == "sequence":
        matrix = np.eye(3)
        for part in transformation["transformations"]:
            matrix = _matrix(part, source) @ matrix
        return matrix
    axes = [[axis["name"] for axis in transformation[end]["axes"]] for end in ("input", "output")]
    matrix = np.eye(3)
    if kind == "identity":
        return matrix
    if kind in ("scale", "translation"):
        for name, value in zip(axes[0], transformation[kind], strict=True):
            if name in "xy":
                at = "xy".index(name)
                matrix[at, at if kind == "scale" else 2] = value
        return matrix
    if kind == "affine":
        stored = np.asarray(transformation["affine"], dtype=np.float64)
        columns = [*axes[0], "1"]
        for i, out in enumerate("xy"):
            for j, into in enumerate(("x", "y", "1")):
                matrix[i, j] = stored[axes[1].index(out), columns.index(into)]
        return matrix
    raise InputError(
        f"{source}: a transformation of the type {kind!r} is not read.",
        "Identity, scale, translation, affine and sequences of them are.",
    )
