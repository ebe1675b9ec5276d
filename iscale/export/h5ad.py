"""AnnData (``.h5ad``): bins by genes with the image, as scanpy and squidpy draw them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from iscale.export.anndata_rows import Hdf5, about, write_anndata
from iscale.export.request import Request
from iscale.export.rows import Table, obs_columns, obsm_columns
from iscale.geometry import SUPERPIXEL_PX, Region
from iscale.project.layout import file_name
from iscale.words import plural

SIDES_PX = {"hires": 2048, "lowres": 600}
"""Longest sides of the two images: the finest level of the pyramid that is no larger."""


def write(request: Request) -> str:
    """Write the bins of a window, its image with them."""
    table = Table(request)
    levels = {name: _level(request, longest) for name, longest in SIDES_PX.items()}
    window = _image_window(request, max(levels.values()))
    library = file_name(_name(request))
    images = {name: _pixels(request, window, level) for name, level in levels.items()}
    scales: dict[str, float] = {f"tissue_{name}_scalef": 0.5**level for name, level in levels.items()}
    side_px = float(request.side * SUPERPIXEL_PX)
    corner_um = [window.x0 * request.grid.pixel_size_um, window.y0 * request.grid.pixel_size_um]
    spatial = {
        library: {
            "images": images,
            "scalefactors": {**scales, "spot_diameter_fullres": side_px, "fiducial_diameter_fullres": side_px},
            "metadata": {"corner_um": np.array(corner_um), "microns_per_pixel": request.grid.pixel_size_um},
        }
    }
    with _told_of_the_disk(), h5py.File(request.part, "w") as file:
        obsm = obsm_columns(request, (window.y0, window.x0))
        uns = {"spatial": spatial, "iscale": about(request)}
        write_anndata(Hdf5(file), request, table, obs_columns(request), obsm, uns)
    return f"{plural(table.rows, 'bin')} of {request.bin_um:g} um with tissue x {plural(len(request.genes), 'gene')}."


@contextmanager
def _told_of_the_disk() -> Iterator[None]:
    """Raise what HDF5 says of the disk when it closes a file as what it is."""
    try:
        yield
    except RuntimeError as error:
        if "errno" in str(error):
            raise OSError(str(error)) from error
        raise


def _name(request: Request) -> str:
    """The slide's name."""
    images = request.run.store.attributes("image").get("ome", {}).get("multiscales", [{}])
    return str(images[0].get("name", "slide")).partition(".")[0] or "slide"


def _levels(request: Request) -> int:
    return len(request.run.store.attributes("image")["ome"]["multiscales"][0]["datasets"])


def _level(request: Request, longest: int) -> int:
    """The finest level at which the window is no larger than so many pixels; the coarsest, where none is."""
    side_px = max(request.region.shape) * SUPERPIXEL_PX
    return next((level for level in range(_levels(request)) if side_px <= longest << level), _levels(request) - 1)


def _image_window(request: Request, coarsest: int) -> Region:
    """Analysis pixels of the image: the window, from a pixel's corner of the coarsest level that is taken."""
    px = request.region.scaled(SUPERPIXEL_PX)
    step = 1 << coarsest
    return Region(px.y0 // step * step, px.y1, px.x0 // step * step, px.x1)


def _pixels(request: Request, window: Region, level: int) -> NDArray[np.uint8]:
    """(y, x, c) pixels of a level."""
    array: Any = request.run.store.array(f"image/{level}")
    return np.ascontiguousarray(
        np.moveaxis(np.asarray(array[(slice(None), *window.coarsened(1 << level).slices)]), 0, -1)
    )
