"""OME-TIFF: chosen genes as channels of a tiled, pyramidal image (QuPath, Fiji, tifffile)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from iscale.export.ome_zarr import CHUNK, COLOURS, Levels, write_levels
from iscale.export.request import Request, remove, tiles
from iscale.geometry import Region


def write(request: Request) -> str:
    """Write the file, from levels that are made beside it and go: a TIFF is written from its first byte to its last."""
    scratch = request.part.with_name(f"{request.part.name}-levels")
    try:
        levels = write_levels(zarr.open_group(scratch, mode="w", zarr_format=3), request)
        _write_tiff(zarr.open_group(scratch, mode="r"), request, levels)
    finally:
        remove(scratch)
    return levels.text(request)


def _write_tiff(stored: zarr.Group, request: Request, levels: Levels) -> None:
    n = len(request.genes)
    per_level = [len(tiles(Region(0, h, 0, w), CHUNK)) * n for h, w in levels.shapes]
    options: dict[str, Any] = {
        "dtype": "float32",
        "tile": (CHUNK, CHUNK),
        "photometric": "minisblack",
        "compression": "zlib",
        "maxworkers": 1,
    }
    with (
        tifffile.TiffWriter(request.part, bigtiff=True, ome=True) as tiff,
        request.counted(sum(per_level), "tiff") as done,
    ):
        for level, shape in enumerate(levels.shapes):
            step_um = request.superpixel_um * 2**level
            tiff.write(
                _counting(_tiles(stored[str(level)]), done),
                shape=(n, *shape),
                subifds=len(levels.shapes) - 1 if level == 0 else 0,
                subfiletype=1 if level else 0,
                metadata=_metadata(request) if level == 0 else None,
                resolution=(1e4 / step_um, 1e4 / step_um),
                resolutionunit="CENTIMETER",
                **options,
            )


def _metadata(request: Request) -> dict[str, Any]:
    """What becomes OME-XML."""
    n, step = len(request.genes), request.superpixel_um
    place = {"X": request.region.x0 * step, "Y": request.region.y0 * step}
    return {
        "axes": "CYX",
        "Name": "expression",
        **{f"PhysicalSize{axis}": step for axis in "XY"},
        **{f"PhysicalSize{axis}Unit": "µm" for axis in "XY"},
        "Channel": {"Name": list(request.genes), "Color": [_colour(i) for i in range(n)]},
        "Plane": {f"Position{axis}": [value] * n for axis, value in place.items()}
        | {f"Position{axis}Unit": ["µm"] * n for axis in place},
    }


def _colour(i: int) -> int:
    """Red, green, blue and opaqueness as OME-XML has them: one signed number."""
    value = int(COLOURS[i % len(COLOURS)] + "FF", 16)
    return value - 2**32 if value >= 2**31 else value


def _tiles(array: Any) -> Iterator[NDArray[np.float32]]:
    """Tiles of a level, channel after channel, those at the end filled up with 0."""
    for row in range(array.shape[0]):
        for place in tiles(Region(0, array.shape[1], 0, array.shape[2]), CHUNK):
            tile = np.zeros((CHUNK, CHUNK), np.float32)
            tile[: place.shape[0], : place.shape[1]] = array[(row, *place.slices)]
            yield tile


def _counting(found: Iterator[NDArray[np.float32]], done: Any) -> Iterator[NDArray[np.float32]]:
    for tile in found:
        done()  # before: nobody asks again after the last
        yield tile
