"""Context features: what lies around a patch, from the vectors of the patches.

The vectors of one shift form a grid. A context model sees either windows of it, each patch in the window in which it
lies most central, or all of it at once. A cell of the lattice gets the mean over the patches that cover it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from iscale.encoders import EncoderSpec, get_encoder
from iscale.encoders.base import PatchEncoder
from iscale.features.by_patch import VECTORS
from iscale.features.by_region import as_float16, tissue_cells
from iscale.features.context_whole import whole_slide
from iscale.features.context_windows import windowed
from iscale.features.patch_lattice import PatchLattice, Vectors
from iscale.geometry import SUPERPIXEL_PX, Region
from iscale.store import layout
from iscale.store.run_store import RunStore

GROUP = "features/context"


@dataclass(frozen=True)
class LatticeContext:
    """What a task needs to know."""

    store: RunStore
    spec: EncoderSpec


def context_region(context: LatticeContext, region: Region) -> int:
    """Store the context of a region of superpixels; returns how many cells have one."""
    encoder, lattice = _encoder(context), _lattice(context)
    cells = region.coarsened(lattice.step)
    before = lattice.shifts - 1
    places = Region(max(0, cells.y0 - before), cells.y1, max(0, cells.x0 - before), cells.x1)
    if encoder.context is None:
        found = read_vectors(context.store, lattice, places)
    else:
        blank = blank_vector(context.spec)
        found = windowed(encoder.context, lattice, places, lambda box: read_vectors(context.store, lattice, box), blank)
    tissue = np.asarray(context.store.array("tissue/mask")[region.slices])
    return _store(context, lattice, found, places, cells, tissue_cells(tissue, lattice.step))


def context_of_slide(context: LatticeContext, region: Region) -> int:
    """Store the context of a slide that the model sees as a whole; returns how many cells have one."""
    encoder, lattice = _encoder(context), _lattice(context)
    assert encoder.context is not None
    places = Region(0, lattice.places[0], 0, lattice.places[1])
    image = context.store.array("image/0")

    def read(box: Region) -> NDArray[np.uint8]:
        return np.asarray(image[(slice(None), *box.slices)])

    found = whole_slide(encoder, encoder.context, lattice, read_vectors(context.store, lattice, places), read)
    cells = Region(0, lattice.shape[0], 0, lattice.shape[1]).coarsened(lattice.step)
    return _store(context, lattice, found, places, cells, np.ones(cells.shape, np.bool_))


def _encoder(context: LatticeContext) -> PatchEncoder:
    encoder = get_encoder(context.spec)
    assert isinstance(encoder, PatchEncoder)
    return encoder


def _lattice(context: LatticeContext) -> PatchLattice:
    shape = context.store.array("tissue/mask").shape
    encoder = _encoder(context)
    return PatchLattice((shape[0], shape[1]), encoder.patch, encoder.step)


def _store(
    context: LatticeContext,
    lattice: PatchLattice,
    found: Vectors,
    places: Region,
    cells: Region,
    kept: NDArray[np.bool_],
) -> int:
    values = mean_over_covering(found, places, cells, lattice.shifts)
    values[~kept] = np.nan
    for shard in cells.tiles(layout.SHARD_SUPERPIXELS // lattice.step):
        part = values[shard.within(cells)]
        if np.isfinite(part[..., 0]).any():
            context.store.write(GROUP, shard, as_float16(np.moveaxis(part, -1, 0), "context"))
    return int(np.isfinite(values[..., 0]).sum())


def read_vectors(store: RunStore, lattice: PatchLattice, box: Region) -> Vectors:
    """Vectors of a box of places; NaN beyond the last place."""
    array = store.array(VECTORS)
    rows, columns = lattice.places
    values = np.full((*box.shape, array.shape[0]), np.nan, np.float32)
    if box.y0 < rows and box.x0 < columns:
        inside = Region(box.y0, min(box.y1, rows), box.x0, min(box.x1, columns))
        values[inside.within(box)] = np.moveaxis(np.asarray(array[(slice(None), *inside.slices)]), 0, -1)
    return values


@lru_cache(maxsize=1)
def blank_vector(spec: EncoderSpec) -> NDArray[np.float32]:
    """The vector of a white patch: it stands for patches off the tissue and off the slide."""
    encoder = get_encoder(spec)
    assert isinstance(encoder, PatchEncoder)
    side = encoder.patch * SUPERPIXEL_PX
    white = torch.full((1, 3, side, side), 255, dtype=torch.uint8, device=encoder.device)
    _, vectors = encoder.encode(white)
    assert vectors is not None
    return vectors[0].cpu().numpy()


def mean_over_covering(found: Vectors, places: Region, cells: Region, shifts: int) -> NDArray[np.float32]:
    """Mean over the patches that cover each cell of the lattice.

    Parameters
    ----------
    found
        (y, x, feature) over ``places``; NaN where there is none.
    places
        At least ``cells`` and, where there are such, the ``shifts - 1`` places before them.

    Returns
    -------
    ndarray
        (y, x, feature) float32 over ``cells``; NaN where no patch has a value.
    """
    h, w = cells.shape
    sums = np.zeros((h, w, found.shape[-1]), np.float32)
    counts = np.zeros((h, w, 1), np.float32)
    for back_y in range(shifts):
        for back_x in range(shifts):
            y0, y1 = max(cells.y0 - back_y, places.y0), min(cells.y1 - back_y, places.y1)
            x0, x1 = max(cells.x0 - back_x, places.x0), min(cells.x1 - back_x, places.x1)
            if y0 >= y1 or x0 >= x1:
                continue
            values = found[y0 - places.y0 : y1 - places.y0, x0 - places.x0 : x1 - places.x0]
            there = np.isfinite(values[..., :1])
            to = (
                slice(y0 + back_y - cells.y0, y1 + back_y - cells.y0),
                slice(x0 + back_x - cells.x0, x1 + back_x - cells.x0),
            )
            sums[to] += np.where(there, values, 0)
            counts[to] += there
    with np.errstate(invalid="ignore"):
        return sums / counts
