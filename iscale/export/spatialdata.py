"""A SpatialData store: the image, clusters and labels as rasters, bins by genes as a table of a raster of bins, and
captures as shapes.

Written as spatialdata 0.7 writes it (container 0.2, rasters and shapes 0.3, tables 0.2, all Zarr v3), without that
package: it and ours ask for different versions of dask.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from iscale.export.h5ad import about, write_anndata
from iscale.export.request import Request, tiles
from iscale.export.rows import Column, Piece, Table, obs_columns, obsm_columns
from iscale.export.shapes import write_captures
from iscale.geometry import SUPERPIXEL_PX
from iscale.store.anndata_file import Zarr
from iscale.store.layout import MASK_SHARD_SUPERPIXELS, SHARD_SUPERPIXELS
from iscale.store.ome import axes, scaling
from iscale.words import plural

BINS, TABLE, REGION_KEY, INSTANCE_KEY = "bins", "expression", "region", "bin_id"
"""The raster whose numbers are those of the rows of the table, and the columns that say so."""

VERSION = {"version": "0.5-dev-spatialdata"}
RASTER = {"version": "0.3"}

SYSTEMS = {"global": "micrometer", "um": "micrometer", "px": "unit"}
"""Coordinate systems and their units: um from the slide's corner, which is also the one that tools take where none is
named, and analysis pixels."""


def write(request: Request) -> str:
    """Write the store.

    The image is linked where the file system can, else copied. Rasters have the whole slide's frame; of a window they
    hold nothing else.
    """
    table = Table(request)
    root = zarr.open_group(request.part, mode="w", zarr_format=3)
    linked = _write_image(request, root.create_group("images").create_group("he"))
    names = _write_labels(request, root.create_group("labels"), table)
    shapes = write_captures(
        request, root.create_group("shapes"), request.part / "shapes", {"he", TABLE, *names}, SYSTEMS
    )
    root.create_group("tables")
    group = root.create_group(f"tables/{TABLE}")
    keys = {"region": BINS, "region_key": REGION_KEY, "instance_key": INSTANCE_KEY}
    uns = {"spatialdata_attrs": keys, "iscale": about(request)}
    obs = [*_keys(), *obs_columns(request)]
    write_anndata(Zarr(group), request, table, obs, obsm_columns(request), uns)
    group.attrs.update({"spatialdata-encoding-type": "ngff:regions_table", "version": "0.2", **keys})
    root.attrs.update({"spatialdata_attrs": {"version": "0.2"}})
    elements = [*(f"labels/{name}" for name in names), *(f"shapes/{name}" for name in shapes)]
    return (
        f"images/he ({linked}), {', '.join(elements)}, tables/{TABLE}: {plural(table.rows, 'bin')} of "
        f"{request.bin_um:g} um with tissue x {plural(len(request.genes), 'gene')}."
    )


def _keys() -> list[Column]:
    """Columns by which the table's rows are cells of the raster: numbers from 1 in their order."""
    return [
        Column(REGION_KEY, "int8", lambda piece: np.zeros(piece.rows), (BINS,)),
        Column(INSTANCE_KEY, "int64", lambda piece: piece.start + 1 + np.arange(piece.rows)),
    ]


def _write_image(request: Request, group: zarr.Group) -> str:
    """The image's levels as they are stored; how they came there."""
    store = request.run.store
    stored = store.attributes("image")["ome"]["multiscales"][0]["datasets"]
    how = {_take(request, dataset["path"], group) for dataset in stored}
    attributes = _ome("he", "cyx", 1.0, [2.0**level for level in range(len(stored))], request)
    attributes["ome"]["omero"] = {"channels": [{"label": label} for label in "rgb"]}
    group.attrs.update(attributes)
    return "linked to the run's files" if how == {"linked"} else "copied"


def _take(request: Request, level: str, group: zarr.Group) -> str:
    """Link or copy a level. Files of a run are replaced, never changed, so that a link stays what it was."""
    store = request.run.store
    if store.url:
        source = store.array(f"image/{level}")
        made = group.create_array(
            level,
            shape=source.shape,
            dtype=source.dtype,
            chunks=source.chunks,
            shards=source.shards,
            fill_value=255,
            dimension_names=("c", "y", "x"),
        )
        for tile in _lattice(source.shape[-2:], (source.shards or source.chunks)[-1]):
            made[(slice(None), *tile)] = source[(slice(None), *tile)]
        return "copied"
    start, end = Path(store.root) / "image" / level, request.part / group.path / level
    how = "linked"
    for folder, _, files in os.walk(start):
        into = end / Path(folder).relative_to(start)
        into.mkdir(parents=True, exist_ok=True)
        for name in files:
            try:
                if name == "zarr.json":
                    raise OSError
                os.link(Path(folder) / name, into / name)
            except OSError:
                shutil.copyfile(Path(folder) / name, into / name)
                how = how if name == "zarr.json" else "copied"
    return how


def _lattice(shape: tuple[int, ...], side: int) -> Iterator[tuple[slice, slice]]:
    for y in range(0, shape[0], side):
        for x in range(0, shape[1], side):
            yield slice(y, min(y + side, shape[0])), slice(x, min(x + side, shape[1]))


def _write_labels(request: Request, group: zarr.Group, table: Table) -> list[str]:
    """The raster of bins, and one for each number of clusters and each threshold of the annotation."""
    _write_bins(request, group.create_group(BINS), table)
    fine = replace(request, side=1)  # clusters are of superpixels, whatever the bins
    kept = [column for column in obs_columns(fine) if column.categories is not None]
    rasters = {column.name: _raster(request, group, column.name, "uint8", 1) for column in kept}
    mask = request.run.store.array("tissue/mask")
    for tile in tiles(request.region):
        there = np.asarray(mask[tile.slices])
        if not there.any():
            continue
        piece = Piece(tile, there.astype(np.float32), 0, 1)
        for column in kept:
            values = np.zeros(tile.shape, np.uint8)
            values[there] = column.of(piece) + 1
            rasters[column.name][tile.slices] = values
    names = [BINS, *rasters]
    group.attrs.update({"ome": {"labels": names}})
    return names


def _write_bins(request: Request, group: zarr.Group, table: Table) -> None:
    array = _raster(request, group, "", "uint32", request.side)
    for piece in table:
        numbers = np.zeros(piece.there.shape, np.uint32)
        numbers[piece.there] = piece.start + 1 + np.arange(piece.rows)
        array[piece.tile.coarsened(request.side).slices] = numbers


def _raster(request: Request, group: zarr.Group, name: str, dtype: str, side: int) -> Any:
    """An empty raster of bins of ``side`` superpixels over the whole slide."""
    made = group.require_group(name) if name else group
    h, w = (n // side for n in request.grid.superpixel_shape)
    chunk = SHARD_SUPERPIXELS // side
    shard = MASK_SHARD_SUPERPIXELS // side
    made.attrs.update(
        {**_ome(name or BINS, "yx", float(side * SUPERPIXEL_PX), [1.0], request), "image-label": {"version": "0.5"}}
    )
    return made.create_array(
        "0",
        shape=(h, w),
        dtype=dtype,
        chunks=(chunk, chunk),
        shards=(shard, shard) if side == 1 else None,
        fill_value=0,
        dimension_names=("y", "x"),
    )


def _ome(name: str, letters: str, side_px: float, factors: list[float], request: Request) -> dict[str, Any]:
    """Attributes of a raster: its levels, and how a cell of its finest lies in each coordinate system."""
    datasets = [
        {"path": str(level), "coordinateTransformations": [scaling(letters, factor)]}
        for level, factor in enumerate(factors)
    ]
    placed = [
        {
            **scaling(letters, side_px if system == "px" else side_px * request.grid.pixel_size_um),
            "input": {"name": letters, "axes": axes(letters, "unit")},
            "output": {"name": system, "axes": axes(letters, unit)},
        }
        for system, unit in SYSTEMS.items()
    ]
    scales = {"name": name, "axes": axes(letters, None), "datasets": datasets, "coordinateTransformations": placed}
    return {"ome": {**VERSION, "multiscales": [scales]}, "spatialdata_attrs": RASTER}
