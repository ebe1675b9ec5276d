"""Features of a `PatchEncoder`: patches encoded, their tokens averaged over the patches that cover a place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iscale.encoders import EncoderSpec, get_encoder
from iscale.encoders.base import COLOUR, PatchEncoder
from iscale.encoders.batches import BatchPlan, ahead, encode_batches, plan_batches
from iscale.engine.progress import tell
from iscale.features.by_region import as_float16
from iscale.features.patch_lattice import PatchLattice
from iscale.geometry import SUPERPIXEL_PX, Region
from iscale.store import layout
from iscale.store.run_store import RunStore

VECTORS = "features/vectors"
"""Array of the patches' vectors, by place."""

BLOCK_PX = 512
"""Rows of patches are read together whose first pixels share a row of the image's chunks."""

Read = Callable[[Region], NDArray[np.uint8]]
"""Pixels (c=3, y, x) of a region of the analysis image, which may reach beyond it."""


@dataclass(frozen=True)
class PatchesContext:
    """What a task needs to know."""

    store: RunStore
    spec: EncoderSpec
    everywhere: bool
    """Whether patches without tissue are encoded too."""
    batch_bytes: int
    """Memory that batches may take."""


@dataclass(frozen=True)
class EncodedPatches:
    """What the patches of a region amount to."""

    tokens: NDArray[np.float32]
    """(y, x, feature) over the region's superpixels: mean over the patches that cover each; NaN where none."""
    vectors: NDArray[np.float32] | None
    """(y, x, feature) over the places of ``places``; NaN where not encoded, ``None`` if the encoder has none."""
    places: Region
    """The patches that overlap the region."""
    count: int
    """Patches that were encoded."""


def encode_region(context: PatchesContext, region: Region) -> dict[str, int]:
    """Encode a region and store tokens, colour and vectors; returns how many superpixels and patches that were."""
    store = context.store
    encoder = get_encoder(context.spec)
    assert isinstance(encoder, PatchEncoder)
    mask = store.array("tissue/mask")
    lattice = PatchLattice((mask.shape[0], mask.shape[1]), encoder.patch, encoder.step)
    tissue = np.asarray(mask[region.slices])
    kept = np.ones_like(tissue) if context.everywhere else tissue
    wanted = _wanted(context, lattice, region)
    if not wanted.any():
        return {"tissue": 0, "patches": 0}
    batches = plan_batches(encoder, context.batch_bytes)
    encoded = encode_patches(encoder, lattice, region, wanted, lambda box: read_padded(store, box), batches)
    for shard in region.tiles(layout.SHARD_SUPERPIXELS):
        if kept[shard.within(region)].any():
            _store_superpixels(store, encoded, shard, region, kept[shard.within(region)])
    if encoded.vectors is not None:
        _store_vectors(store, encoded, region, lattice)
    return {"tissue": int(tissue.sum()), "patches": encoded.count}


def _wanted(context: PatchesContext, lattice: PatchLattice, region: Region) -> NDArray[np.bool_]:
    """Which of the patches that overlap a region are encoded for it: (y, x) over ``lattice.covering(region)``.

    Those that cover tissue of the region, for its tokens; those that begin in it and have any tissue, for their vector.
    """
    places = lattice.covering(region)
    if context.everywhere:
        return np.ones(places.shape, np.bool_)
    reach = lattice.reach(places)
    marks = np.zeros(reach.shape, np.bool_)
    inside = reach.clipped(lattice.shape)
    marks[inside.within(reach)] = context.store.array("tissue/mask")[inside.slices]
    touching = lattice.touching(marks, places)
    here = np.zeros_like(marks)
    here[region.within(reach)] = marks[region.within(reach)]
    wanted = lattice.touching(here, places)
    owned = _offset(lattice.owned(region), places)
    wanted[owned] |= touching[owned]
    return wanted


def _offset(box: tuple[slice, slice], places: Region) -> tuple[slice, slice]:
    """A box of places as an index of an array over ``places``."""
    y, x = box
    return slice(y.start - places.y0, y.stop - places.y0), slice(x.start - places.x0, x.stop - places.x0)


def encode_patches(
    encoder: PatchEncoder,
    lattice: PatchLattice,
    region: Region,
    wanted: NDArray[np.bool_],
    read: Read,
    batches: BatchPlan,
) -> EncodedPatches:
    """Encode those patches of a region of superpixels that are wanted: (y, x) over ``lattice.covering(region)``.

    Patches are encoded row by row, left to right, and summed in that order: what a superpixel gets does not depend on
    the region, beyond the rounding of batches that fall differently.
    """
    places = lattice.covering(region)
    sums = torch.zeros((*region.shape, encoder.token_width), device=encoder.device)
    counts = np.zeros(region.shape, np.float32)
    vectors = np.full((*places.shape, encoder.vector_width), np.nan, np.float32) if encoder.vector_width else None
    total, done = int(wanted.sum()), 0
    images = ahead(_batches(lattice, places, wanted, read, batches.size))
    for at, (tokens, found) in encode_batches(encoder, images, batches):
        for (i, j), patch in zip(at, tokens, strict=True):
            _add(sums, counts, patch, region, i * lattice.step, j * lattice.step)
        if vectors is not None and found is not None:
            rows, columns = np.array(at).T
            vectors[rows - places.y0, columns - places.x0] = found.cpu().numpy()
        done += len(at)
        tell(done, total)
    covered = torch.from_numpy(np.where(counts, counts, np.nan)[..., None]).to(sums.device)
    return EncodedPatches(sums.div_(covered).cpu().numpy(), vectors, places, total)


def _add(sums: Tensor, counts: NDArray[np.float32], patch: Tensor, region: Region, y: int, x: int) -> None:
    """Add the (y, x, feature) tokens of the patch that begins at superpixel (y, x), where they lie in the region."""
    own = Region(y, y + patch.shape[0], x, x + patch.shape[0])
    if both := own.common(region):
        sums[both.within(region)] += patch[both.within(own)]
        counts[both.within(region)] += 1


def _batches(
    lattice: PatchLattice, places: Region, wanted: NDArray[np.bool_], read: Read, size: int
) -> Iterator[tuple[list[tuple[int, int]], NDArray[np.uint8]]]:
    """Wanted patches in batches, as (row, column) places and (patch, c, y, x) pixels."""
    side = lattice.patch * SUPERPIXEL_PX
    at: list[tuple[int, int]] = []
    images: list[NDArray[np.uint8]] = []
    for rows in _blocks(places, lattice.step * SUPERPIXEL_PX):
        marked = wanted[rows.start - places.y0 : rows.stop - places.y0]
        columns = np.flatnonzero(marked.any(axis=0))
        if not len(columns):
            continue
        block = Region(rows.start, rows.stop, places.x0 + int(columns[0]), places.x0 + int(columns[-1]) + 1)
        box = lattice.reach(block).scaled(SUPERPIXEL_PX)
        pixels = read(box)
        for i, j in zip(*np.nonzero(marked), strict=True):
            place = rows.start + int(i), places.x0 + int(j)
            y, x = (p * lattice.step * SUPERPIXEL_PX - start for p, start in zip(place, (box.y0, box.x0), strict=True))
            at.append(place)
            images.append(pixels[:, y : y + side, x : x + side])
            if len(at) == size:
                yield at, np.stack(images)
                at, images = [], []
    if at:
        yield at, np.stack(images)


def _blocks(places: Region, step_px: int) -> Iterator[range]:
    """Rows of places that begin in the same row of image chunks."""
    per_block = max(1, BLOCK_PX // step_px)
    for start in range(places.y0 // per_block * per_block, places.y1, per_block):
        yield range(max(start, places.y0), min(start + per_block, places.y1))


def read_padded(store: RunStore, box: Region) -> NDArray[np.uint8]:
    """Analysis image of a box (c, y, x); white beyond the slide's end, as its padding is."""
    array = store.array("image/0")
    inside = box.clipped(array.shape[1:])
    pixels = np.asarray(array[(slice(None), *inside.slices)])
    if inside == box:
        return pixels
    missing = [(0, 0), (0, box.y1 - inside.y1), (0, box.x1 - inside.x1)]
    return np.pad(pixels, missing, constant_values=255)


def _store_superpixels(
    store: RunStore, encoded: EncodedPatches, shard: Region, region: Region, kept: NDArray[np.bool_]
) -> None:
    tokens = as_float16(np.moveaxis(encoded.tokens[shard.within(region)], -1, 0), "patch")
    tokens[:, ~kept] = np.nan
    store.write("features/patch", shard, tokens)
    colour = mean_colour(read_padded(store, shard.scaled(SUPERPIXEL_PX))).astype(np.float16)
    colour[:, ~kept] = np.nan
    store.write(f"features/{COLOUR.name}", shard, colour)


SHADES = (np.arange(256, dtype=np.float16) / np.float16(255)).astype(np.float32)
"""The value of every shade, rounded to float16 as the published code does before it averages."""


def mean_colour(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean of (c, y, x) pixels over superpixels, in 0 to 1: (c, y, x), rounded to float16 as published."""
    c, h, w = pixels.shape
    blocks = pixels.reshape(c, h // SUPERPIXEL_PX, SUPERPIXEL_PX, w // SUPERPIXEL_PX, SUPERPIXEL_PX)
    rows = [SHADES[blocks[:, i]].mean(axis=(1, 3)) for i in range(blocks.shape[1])]
    return np.stack(rows, axis=1).astype(np.float16).astype(np.float32)


def _store_vectors(store: RunStore, encoded: EncodedPatches, region: Region, lattice: PatchLattice) -> None:
    """Store the vectors of the patches that begin in a region; cells where none can begin stay NaN."""
    assert encoded.vectors is not None
    cells = region.coarsened(lattice.step)
    values = np.full((encoded.vectors.shape[-1], *cells.shape), np.nan, np.float32)
    y, x = lattice.owned(region)
    own = encoded.vectors[_offset((y, x), encoded.places)]
    values[:, y.start - cells.y0 : y.stop - cells.y0, x.start - cells.x0 : x.stop - cells.x0] = np.moveaxis(own, -1, 0)
    if np.isfinite(own).any():
        store.write(VECTORS, cells, values)
