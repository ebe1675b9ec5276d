"""AnnData (``.h5ad``): bins by genes with the image, as scanpy and squidpy draw them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from iscale.errors import InputError
from iscale.export.request import Request
from iscale.export.rows import Column, Piece, Table, index_of, obs_columns, obsm_columns, read_sums
from iscale.geometry import SUPERPIXEL_PX, Region
from iscale.model.genes import WRITTEN
from iscale.project.layout import file_name
from iscale.store.anndata_file import INDEX, Group, Hdf5, InChunks, make_anndata, make_categories, make_frame
from iscale.store.run_store import OUTPUT_FOLDER, report_of
from iscale.words import plural

SIDES_PX = {"hires": 2048, "lowres": 600}
"""Longest sides of the two images: the finest level of the pyramid that is no larger."""


BOUND = (
    "layers['uncertainty'] adds the spreads of a bin's superpixels up, as if all erred together: the spread of a sum "
    "is at most that."
)

GENES_AT_ONCE = 256
"""Genes read together of a shard, in float32 17 MB: what is computed on demand is then read once for all of them."""

ROWS_OF_COLUMNS = 65536
"""Rows of a chunk of what is not X."""

Filled = tuple[InChunks, Callable[[Piece], NDArray[Any]]]
"""An array, and what gives a piece's rows of it."""


def write(request: Request) -> str:
    """Write the bins of a window, its image with them."""
    table = Table(request)
    levels = {name: _level(request, longest) for name, longest in SIDES_PX.items()}
    window = _image_window(request, max(levels.values()))
    library = file_name(_name(request)) or "slide"
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
    with _disk_errors(), h5py.File(request.part, "w") as file:
        obsm = obsm_columns(request, (window.y0, window.x0))
        spread = request.source.has_factors or request.run.store.has(WRITTEN[True])
        told = {"uncertainty": BOUND} if spread else {}
        uns = {"spatial": spatial, "iscale": about(request) | told}
        write_anndata(Hdf5(file), request, table, obs_columns(request), obsm, uns, uncertainty=spread)
    text = f"{plural(table.rows, 'bin')} of {request.bin_um:g} um with tissue x {plural(len(request.genes), 'gene')}."
    return f"{text}\n{BOUND}" if spread else text


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Raise what HDF5 says of the disk when it closes a file as what it is."""
    try:
        yield
    except RuntimeError as error:
        if "errno" in str(error):
            raise OSError(str(error)) from error
        raise


def _name(request: Request) -> str:
    """The project's name: slides of several projects are often called alike, and tools join tables by this name."""
    store = request.run.store
    project = Path(str(report_of(store).get("project") or "")).name
    place = Path(store.url or store.folder.absolute())
    return project or (place.parent.name if place.name == OUTPUT_FOLDER else place.name)


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


def write_anndata(
    into: Group,
    request: Request,
    table: Table,
    obs: Sequence[Column],
    obsm: Sequence[Column],
    uns: Mapping[str, Any],
    *,
    uncertainty: bool = False,
) -> None:
    """Write bins by genes into an empty group: the rows of a table, what is known of each, and of all of them.

    With ``uncertainty`` its sums are a layer.
    """
    n = table.rows
    make_anndata(into)
    into.element("var", _genes(request))
    into.element("uns", dict(uns))
    make_frame(into, "obs", [column.name for column in obs])
    names = InChunks(into.strings(f"obs/{INDEX}", n, ROWS_OF_COLUMNS), ROWS_OF_COLUMNS)
    filled: list[Filled] = [(names, index_of)]
    filled += [_column(into, f"obs/{column.name}", column, n) for column in obs]
    filled += [_column(into, f"obsm/{column.name}", column, n) for column in obsm]
    matrices = {"X": False} | ({"layers/uncertainty": True} if uncertainty else {})
    genes = [(*one, spread) for path, spread in matrices.items() for one in _gene_columns(into, path, request, n)]
    with request.counted(len(table)) as done:
        for piece in table:
            for rows, of in filled:
                rows.add(of(piece))
            for writer, some, spread in genes:
                writer.add(read_sums(request, some, piece.tile, uncertainty=spread)[:, piece.there].T)
            done()
    for rows in (*(rows for rows, _ in filled), *(writer for writer, _, _ in genes)):
        rows.close()


def _gene_columns(into: Group, path: str, request: Request, n: int) -> list[tuple[InChunks, tuple[str, ...]]]:
    """X or a layer, and who writes which of its columns."""
    x = into.array(path, (n, len(request.genes)), "float32", into.chunk)
    return [
        (InChunks(x, into.chunk[0], slice(start, start + len(names))), names)
        for start, names in request.blocks(GENES_AT_ONCE)
    ]


def _column(into: Group, path: str, column: Column, n: int) -> Filled:
    if column.categories is not None:
        make_categories(into, path, column.categories)
        path = f"{path}/codes"
    shape = (n, column.width) if column.width else (n,)
    array = into.array(path, shape, column.dtype, (ROWS_OF_COLUMNS, column.width)[: len(shape)])
    return InChunks(array, ROWS_OF_COLUMNS), lambda piece: column.of(piece).astype(column.dtype)


def _genes(request: Request) -> pd.DataFrame:
    """What is known of the genes: how well each is predicted, where that was tested."""
    var = pd.DataFrame(index=pd.Index(list(request.genes), dtype=object))
    try:
        trust = request.run.trust
    except InputError:
        return var
    var["trust"] = pd.Categorical(trust["word"].reindex(var.index))
    var["trust_score"] = trust["score"].reindex(var.index).to_numpy(np.float32)
    return var


def about(request: Request) -> dict[str, Any]:
    """Where an export is from, for ``uns``."""
    from iscale import __version__

    return {
        "version": __version__,
        "values": "expected counts, summed over the tissue of a bin",
        "bin_um": request.bin_um,
        "pixel_size_um": request.grid.pixel_size_um,
    }
