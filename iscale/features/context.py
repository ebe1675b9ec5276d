"""Context features: what lies around a patch, from the vectors of patches, by windows or of the slide as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from iscale.encoders import EncoderSpec, get_encoder
from iscale.encoders.base import ContextModel, PatchEncoder
from iscale.encoders.batches import encode_batches, plan_batches, run_context
from iscale.engine.progress import tell
from iscale.features.by_patch import VECTORS, Read, read_padded
from iscale.features.by_region import RegionContext, as_float16, tissue_cells
from iscale.features.patch_lattice import PatchLattice, Vectors
from iscale.geometry import PATCH_PX, SUPERPIXEL_PX, Region
from iscale.store import layout
from iscale.store.run_store import RunStore


def whole_slide(
    encoder: PatchEncoder,
    model: ContextModel,
    lattice: PatchLattice,
    vectors: Vectors,
    read: Read,
) -> Vectors:
    """Context of all patches of a slide, each shift's patches seen as one grid (method, section 2).

    A shift of n steps takes the slide without its first n steps, and without the last that are missing to a whole
    patch: one row and one column of patches fewer than the slide has. The grid is then padded to a multiple of 16
    patches with patches of repeated edge pixels. The published shifts, 0 to 192 px, leave out the slide's last row and
    column of patches; a shift of 256 px gives them their context. ``vectors`` are those of all places.
    """
    result = np.full((*lattice.places, model.width), np.nan, np.float32)
    rows, columns = (list(_offsets(n, lattice.shifts)) for n in lattice.places)
    for done, (y, x) in enumerate((y, x) for y in rows for x in columns):
        tell(done, len(rows) * len(columns))
        grid = vectors[y.grid, x.grid]
        padded = _pad(encoder, lattice, grid, (y.grid.start, x.grid.start), read)
        found = run_context(model, padded[None])[0]
        result[y.places, x.places] = found[y.patches, x.patches]
    return result


@dataclass(frozen=True)
class _Offset:
    """One axis of a shift: the places of its grid, those of them that take their context from it, as places and as
    patches of the grid.
    """

    grid: slice
    places: slice
    patches: slice


def _offsets(places: int, shifts: int) -> Iterator[_Offset]:
    """The shifts of one axis of ``places`` places: the published ones, and one more for the last place."""
    patches = (places - 1) // shifts
    if patches == 0:
        yield _Offset(slice(0, 1), slice(0, 1), slice(0, 1))
        return
    for start in range(shifts):
        places_of_shift = slice(start, start + shifts * patches, shifts)
        yield _Offset(places_of_shift, places_of_shift, slice(0, patches))
    last = slice(shifts, shifts + shifts * patches, shifts)
    yield _Offset(last, slice(places - 1, places), slice(patches - 1, patches))


GRID_MULTIPLE = 16
"""A slide seen as a whole is padded to a multiple of this many patches."""

PADDING_AT_ONCE = 8
"""Patches of padding that are encoded at the same time."""


def _pad(
    encoder: PatchEncoder,
    lattice: PatchLattice,
    grid: Vectors,
    start: tuple[int, int],
    read: Read,
) -> Vectors:
    """A shift's grid of vectors with those of the padding.

    The padding repeats the last row of pixels below the image, the last column right of it and the last pixel in the
    corner, so all its patches under one column are the same, and all beside one row: each is encoded once. ``start`` is
    the place of the grid's first patch.
    """
    h, w, width = grid.shape
    below, beside = -h % GRID_MULTIPLE, -w % GRID_MULTIPLE
    padded = np.empty((h + below, w + beside, width), np.float32)
    padded[:h, :w] = grid
    step = lattice.step * SUPERPIXEL_PX
    top, left = start[0] * step, start[1] * step
    bottom, right = top + h * PATCH_PX, left + w * PATCH_PX
    row = read(Region(bottom - 1, bottom, left, right))
    column = read(Region(top, bottom, right - 1, right))
    under = row.reshape(3, 1, w, PATCH_PX).transpose(2, 0, 1, 3).repeat(PATCH_PX, axis=2)
    right_of = column.reshape(3, h, PATCH_PX, 1).transpose(1, 0, 2, 3).repeat(PATCH_PX, axis=3)
    corner = np.broadcast_to(row[None, :, :, -1:], (1, 3, PATCH_PX, PATCH_PX))
    if below:
        padded[h:, :w] = _encode_vectors(encoder, under)
    if beside:
        padded[:h, w:] = _encode_vectors(encoder, right_of)[:, None]
    if below and beside:
        padded[h:, w:] = _encode_vectors(encoder, corner)
    return padded


def _encode_vectors(encoder: PatchEncoder, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Vectors (patch, feature) of (patch, c, y, x) pixels."""
    plan = plan_batches(encoder, PADDING_AT_ONCE * encoder.patch_bytes())
    batches = ((i, np.ascontiguousarray(patches[i : i + plan.size])) for i in range(0, len(patches), plan.size))
    found = [vectors.cpu().numpy() for _, (_, vectors) in encode_batches(encoder, batches, plan) if vectors is not None]
    return np.concatenate(found)


def windowed(
    model: ContextModel,
    lattice: PatchLattice,
    places: Region,
    read: Callable[[Region], Vectors],
    blank: NDArray[np.float32],
) -> Vectors:
    """Context (y, x, feature) of the patches of ``places``, from windows that slide by half their side; NaN where none.

    Windows begin at odd quarters of their side, on the slide and beyond its edges, so that every patch lies in the
    middle half of exactly one window, in both directions.
    """
    assert model.window is not None
    block = model.window // 2 * lattice.shifts
    result = np.full((*places.shape, model.width), np.nan, np.float32)
    blocks = list(places.tiles(block))
    for done, part in enumerate(blocks):
        tell(done, len(blocks))
        middle = part.coarsened(block).scaled(block)
        found = _window(model, lattice, middle, read, blank)
        if found is not None:
            result[part.within(places)] = found[part.within(middle)]
    return result


def _window(
    model: ContextModel,
    lattice: PatchLattice,
    middle: Region,
    read: Callable[[Region], Vectors],
    blank: NDArray[np.float32],
) -> Vectors | None:
    """Context of a block of places that are the middle of one window per shift; ``None`` if none has a vector."""
    assert model.window is not None
    window, shifts, quarter = model.window, lattice.shifts, model.window // 4
    margin = quarter * shifts
    box = Region(max(0, middle.y0 - margin), middle.y1 + margin, max(0, middle.x0 - margin), middle.x1 + margin)
    own = read(middle)
    there = np.isfinite(own[..., 0])
    if not there.any():
        return None
    vectors = np.empty((window * shifts, window * shifts, len(blank)), np.float32)
    vectors[...] = blank
    read_box = read(box)
    top, left = margin - (middle.y0 - box.y0), margin - (middle.x0 - box.x0)
    view = vectors[top : top + box.shape[0], left : left + box.shape[1]]
    encoded = np.isfinite(read_box[..., 0])
    view[encoded] = read_box[encoded]
    # Every shift's window by itself: place = shifts * patch + shift.
    grids = vectors.reshape(window, shifts, window, shifts, -1).transpose(1, 3, 0, 2, 4)
    found = run_context(model, grids.reshape(shifts * shifts, window, window, -1))
    core = found.reshape(shifts, shifts, window, window, -1)[:, :, quarter:-quarter, quarter:-quarter]
    context: Vectors = core.transpose(2, 0, 3, 1, 4).reshape(*middle.shape, -1)
    context[~there] = np.nan
    return context


GROUP = "features/context"


def context_region(context: RegionContext, region: Region) -> int:
    """Store the context of a region of superpixels; returns how many cells have one."""
    encoder, lattice = _encoder_and_lattice(context)
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


def context_of_slide(context: RegionContext, region: Region) -> int:
    """Store the context of a slide that the model sees as a whole; returns how many cells have one."""
    encoder, lattice = _encoder_and_lattice(context)
    assert encoder.context is not None
    places = Region(0, lattice.places[0], 0, lattice.places[1])
    vectors = read_vectors(context.store, lattice, places)
    found = whole_slide(encoder, encoder.context, lattice, vectors, lambda box: read_padded(context.store, box))
    cells = Region(0, lattice.shape[0], 0, lattice.shape[1]).coarsened(lattice.step)
    return _store(context, lattice, found, places, cells, np.ones(cells.shape, np.bool_))


def _encoder_and_lattice(context: RegionContext) -> tuple[PatchEncoder, PatchLattice]:
    encoder = _encoder(context.spec)
    rows, columns = context.store.array("tissue/mask").shape
    return encoder, PatchLattice((rows, columns), encoder.patch, encoder.step)


def _encoder(spec: EncoderSpec) -> PatchEncoder:
    encoder = get_encoder(spec)
    assert isinstance(encoder, PatchEncoder)
    return encoder


def _store(
    context: RegionContext,
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
        inside = box.clipped(lattice.places)
        values[inside.within(box)] = np.moveaxis(np.asarray(array[(slice(None), *inside.slices)]), 0, -1)
    return values


@lru_cache(maxsize=1)
def blank_vector(spec: EncoderSpec) -> NDArray[np.float32]:
    """The vector of a white patch: it stands for patches off the tissue and off the slide."""
    encoder = _encoder(spec)
    side = encoder.patch * SUPERPIXEL_PX
    white = torch.full((1, 3, side, side), 255, dtype=torch.uint8, device=encoder.device)
    _, vectors = encoder.encode(white)
    assert vectors is not None
    return vectors[0].cpu().numpy()


def mean_over_covering(found: Vectors, places: Region, cells: Region, shifts: int) -> NDArray[np.float32]:
    """Mean (y, x, feature) over the patches that cover each cell of the lattice; NaN where none has a value.

    ``found`` is (y, x, feature) over ``places``, NaN where there is none: at least over ``cells`` and, where there are
    such, the ``shifts - 1`` places before them.
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
            to = Region(y0 + back_y, y1 + back_y, x0 + back_x, x1 + back_x).within(cells)
            sums[to] += np.where(there, values, 0)
            counts[to] += there
    with np.errstate(invalid="ignore"):
        return sums / counts
