"""Stage ``tissue``: what of the slide is tissue, decided once on a small overview, then superpixel by superpixel.

What sets tissue apart on every stain is not its colour but that it is uneven at the scale of cells: over a few tens of
um the density of glass varies by less than 0.01, of the palest tissue by 0.03. A pink haze of stain, a shadow, a tinted
or vignetted slide are smooth. So texture decides; colour only draws the edge, and takes out ink and dirt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from iscale.arrays import block_share, pixel_mean
from iscale.engine.ledger import fingerprint
from iscale.engine.plan import Resources, plan_regions, single_task
from iscale.engine.step import Kernel, Step
from iscale.errors import InputError
from iscale.geometry import SUPERPIXEL_PX, Region, SlideGrid
from iscale.slide.base import Pixels, file_fingerprint
from iscale.slide.colour import FILL, Array, Glass, Mask, density, fit_glass, ink, strength
from iscale.slide.user_mask import UserMask, read_user_mask
from iscale.store import layout
from iscale.store.run_store import RunStore

if TYPE_CHECKING:
    from iscale.plan.job import Job
    from iscale.plan.workers import Workers

GLASS, TISSUE, EDGE = 0, 1, 2
"""Values of the coarse classes: at an edge each superpixel's own colour decides."""

WORKING_UM = 4.0
"""A finer overview is first averaged to about this pixel size: texture then means the same on all slides."""

WINDOW = 5
"""Texture is the standard deviation in windows of so many coarse pixels, to a side."""

LOWEST_TEXTURE, HIGHEST_TEXTURE = 0.013, 0.04
"""The threshold on texture lies within these: a slide without glass, or without tissue, has no two groups."""

SMALLEST_GLASS_SHARE = 0.02
"""Glass is a peak of the histogram of texture that holds this share of the slide."""

ROUGHEST_GLASS = 0.025
"""Glass has no more texture than this, with the noise of strong JPEG compression."""

FAINTEST_SHARE, FAINTEST_DENSITY = 0.2, 0.045
"""Tissue is denser than glass by this share of what is typical of the slide's tissue, or by this much."""

SMALLEST_INK_MM2 = 0.001
"""Ink of less than this (30 x 30 um) is not a pen's: dark nuclei, pigment."""

STAINED_HOLE = 0.4
"""A hole is even tissue, not glass, where its mean stain is at least this share of what is typical of the tissue."""

SMALLEST_MM2 = 0.0025
"""Fragments and holes smaller than this (50 x 50 um) are ignored ..."""

SMALLEST_SHARE = 0.005
"""... and fragments smaller than this share of the largest."""

ACHROMATIC = 0.25
"""Dirt, bubbles and edges of glass take all channels alike: spread of density over channels, over the largest."""

OVERVIEW_PX = 4_000_000
"""The slide as a whole is judged on the finest pyramid level with at most this many pixels."""

BYTES_PER_OVERVIEW_PX = 150
BYTES_PER_SUPERPIXEL = 140

VERSION = 1
"""Raised when the mask of the same slide changes."""


@dataclass(frozen=True)
class TissueModel:
    """What `superpixel_mask` needs to know of the whole slide; JSON-able by `dataclasses.asdict`."""

    glass: Glass
    texture_threshold: float
    """Standard deviation of density above which the overview is tissue."""
    edge_density: float
    """Density relative to glass above which a superpixel at an edge is tissue."""
    coarse_px: int
    """Side of a pixel of the coarse classes, in analysis pixels; a power of 2."""
    shape_px: tuple[int, int]
    """Height and width of the analysis image that the overview shows."""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TissueModel:
        """The inverse of `dataclasses.asdict`, also after a way through JSON."""
        h, w = values["shape_px"]
        return cls(**{**values, "glass": Glass.from_json(values["glass"]), "shape_px": (h, w)})


def learn_tissue(overview: Pixels, um_per_px: float, factor: int) -> tuple[TissueModel, Pixels]:
    """Decide where the tissue is, at the resolution of an overview (y, x, 3), at best of 1 to 4 million pixels.

    That is a pyramid level of the analysis image, padding included; its pixels have ``um_per_px``, and are ``factor``
    analysis pixels to a side, a power of 2. It gives the model and the coarse classes (y, x): glass, tissue or edge.
    """
    shape_px = overview.shape[0] * factor, overview.shape[1] * factor
    times = 1
    while um_per_px * times * 2 <= WORKING_UM and min(overview.shape[:2]) // (times * 2) >= 8 * WINDOW:
        times *= 2
    padding = [(0, -n % times) for n in overview.shape[:2]]
    rgb = pixel_mean(np.pad(overview, [*padding, (0, 0)], mode="edge"), times)
    um = um_per_px * times
    od = density(rgb)
    fill = np.asarray((rgb > FILL).all(-1) | (rgb < 255 - FILL).all(-1))
    seen: Mask = ~ndimage.binary_dilation(fill)  # pixels next to fill are a mixture with it
    texture = local_deviation(od, seen)
    threshold = _texture_threshold(texture[seen])
    glass = fit_glass(od, seen & (texture < threshold))
    h, w = od.shape[:2]
    relative = od - glass.density((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w)
    inked = _inked(relative, od, seen, um)
    uneven = seen & (texture > threshold)
    uneven &= _stained(relative, uneven)
    tissue = _fragments(_without_lines(uneven & ~inked), inked, relative, um)
    edge = _edge(tissue) & ~fill & ~inked
    inner = strength(relative)[tissue & ~edge]
    typical = float(np.median(inner)) if inner.size else 0.3
    classes = np.where(edge, EDGE, np.where(tissue, TISSUE, GLASS)).astype(np.uint8)
    model = TissueModel(glass, threshold, min(max(0.3 * typical, 0.03), 0.15), factor * times, shape_px)
    return model, classes


def superpixel_mask(pixels: Pixels, region: Region, model: TissueModel, classes: Pixels) -> Mask:
    """Which superpixels (y, x) of a region are tissue, by what `learn_tissue` returned.

    Each is decided by itself, from the coarse class of its place and, at an edge, from its own mean colour: no halo is
    needed. The pixels (y, x, 3) of the region are of the pyramid level of 16 x 16 analysis pixels or a finer one: its
    sides are whole multiples of the region's.
    """
    per_superpixel = pixels.shape[0] // region.shape[0]
    if pixels.shape != (region.shape[0] * per_superpixel, region.shape[1] * per_superpixel, 3):
        raise ValueError(f"pixels {pixels.shape} are not those of {region.shape} superpixels")
    tissue, edge = _shares(region, model, classes)
    undecided = (edge > 0) & (tissue + edge >= 0.5)
    mask: Mask = tissue > 0.5
    if not undecided.any():
        return mask
    h, w = (n / SUPERPIXEL_PX for n in model.shape_px)
    rows = (np.arange(region.y0, region.y1) + 0.5) / h
    columns = (np.arange(region.x0, region.x1) + 0.5) / w
    relative = density(pixel_mean(pixels, per_superpixel)) - model.glass.density(rows, columns)
    stained = strength(relative) > model.edge_density
    return np.where(undecided, stained, mask)


def _shares(region: Region, model: TissueModel, classes: Pixels) -> tuple[Array, Array]:
    """Shares (y, x) of each superpixel that are tissue and edge in the coarse classes."""
    if model.coarse_px >= SUPERPIXEL_PX:
        times = model.coarse_px // SUPERPIXEL_PX
        rows = np.arange(region.y0, region.y1) // times
        columns = np.arange(region.x0, region.x1) // times
        at = classes[np.ix_(rows, columns)]
        return (at == TISSUE).astype(np.float32), (at == EDGE).astype(np.float32)
    side = SUPERPIXEL_PX // model.coarse_px
    at = classes[region.scaled(side).slices]
    return block_share(at == TISSUE, side), block_share(at == EDGE, side)


def local_deviation(od: Array, seen: Mask, window: int = WINDOW) -> Array:
    """Standard deviation (y, x) of density in a window, over the three channels; of the pixels that were scanned only.

    Without the restriction every border between what was scanned and fill looks like texture.
    """
    weight = ndimage.uniform_filter(seen.astype(np.float32), window)
    enough = weight > 2.5 / window**2
    safe = np.where(enough, weight, 1)
    variance = np.zeros(seen.shape, np.float32)
    for channel in range(3):
        # Centred first: float32 variances of values far from 0 lose the small ones.
        values = np.where(seen, od[..., channel] - float(od[..., channel].mean()), 0).astype(np.float32)
        mean = ndimage.uniform_filter(values, window) / safe
        variance += np.maximum(ndimage.uniform_filter(values * values, window) / safe - mean * mean, 0)
    return np.where(enough, np.sqrt(variance), np.float32(0))


def _texture_threshold(texture: Array) -> float:
    """The valley between the texture of glass and that of tissue, kept within the range that separates the two."""
    counts, edges = np.histogram(np.log10(np.maximum(texture, 10**-3.5)), bins=175, range=(-3.5, 0.0))
    frequency = ndimage.gaussian_filter1d(counts / max(1, texture.size), 4.0, mode="constant")
    at = 10 ** ((edges[:-1] + edges[1:]) / 2)
    glass = _glass_mode(frequency, at)
    low = LOWEST_TEXTURE if glass is None else max(LOWEST_TEXTURE, float(at[glass]))
    between = np.flatnonzero((at >= low) & (at <= HIGHEST_TEXTURE))
    rare = between[frequency[between] <= 1.2 * frequency[between].min() + 1e-5]
    return float(at[rare[len(rare) // 2]])


def _glass_mode(frequency: NDArray[np.float64], at: NDArray[np.float64]) -> int | None:
    """The first peak, from the smooth end, that holds a part of the slide and can be glass, if there is one."""
    padded = np.pad(frequency, 1)
    peaks = np.flatnonzero((frequency >= padded[:-2]) & (frequency > padded[2:]) & (at < ROUGHEST_GLASS))
    for peak in peaks:
        if frequency[max(0, peak - 8) : peak + 8].sum() > SMALLEST_GLASS_SHARE:
            return int(peak)
    return None


def _stained(relative: Array, uneven: Mask) -> Mask:
    """Where there is some stain at all: smears and scratches of the glass are uneven, but hardly denser than it."""
    stain = strength(relative)
    typical = float(np.median(stain[uneven])) if uneven.any() else 0.0
    return np.asarray(ndimage.uniform_filter(stain, WINDOW) > min(FAINTEST_SHARE * typical, FAINTEST_DENSITY))


def _inked(relative: Array, od: Array, seen: Mask, um: float) -> Mask:
    """Pen strokes with their blurred rims; specks of such colours inside tissue are not ink."""
    found = ink(relative, local_deviation(od, seen, 3)) & seen
    found = ndimage.binary_opening(found, iterations=1)
    strokes, n = ndimage.label(found, np.ones((3, 3)))
    area = np.bincount(strokes.ravel(), minlength=n + 1)
    area[0] = 0
    found = (area > SMALLEST_INK_MM2 * 1e6 / um**2)[strokes]
    return np.asarray(ndimage.binary_dilation(found, iterations=WINDOW // 2 + 1))


def _without_lines(uneven: Mask) -> Mask:
    """Drop what is no wider than the window: a single edge (of a shadow, of a cover slip) seen from both sides."""
    disc = np.hypot(*np.mgrid[-3:4, -3:4]) <= WINDOW / 2 + 0.7
    padded = np.pad(uneven, 4, mode="edge")  # tissue may be cut by the border of the image
    wide = ndimage.binary_dilation(ndimage.binary_opening(padded, disc), disc) & padded
    return np.asarray(wide[4:-4, 4:-4])


def _fragments(uneven: Mask, inked: Mask, relative: Array, um: float) -> Mask:
    """Connected pieces of tissue: small holes and stained ones closed, tiny and colourless pieces dropped."""
    smallest = max(SMALLEST_MM2 * 1e6 / um**2, 4.0)
    filled = uneven | _holes_to_close(uneven, inked, strength(relative), smallest)
    pieces, n = ndimage.label(filled, np.ones((3, 3)))
    if n == 0:
        return filled
    area = np.bincount(pieces.ravel(), minlength=n + 1).astype(float)
    area[0] = 0
    sums = np.stack([np.bincount(pieces.ravel(), relative[..., c].ravel(), n + 1) for c in range(3)], -1)
    mean = sums / np.maximum(area, 1)[:, None]
    chroma = (mean.max(1) - mean.min(1)) / np.maximum(mean.max(1), 0.02)
    # A whole section can be nearly grey (faint counterstain): dirt has clearly less colour than the main piece.
    coloured = chroma > min(ACHROMATIC, 0.6 * float(chroma[area.argmax()]))
    keep = coloured & (area >= smallest)
    keep &= area >= SMALLEST_SHARE * (area * keep).max()
    return np.asarray(keep[pieces])


def _holes_to_close(uneven: Mask, inked: Mask, stain: Array, smallest: float) -> Mask:
    """Holes in tissue that are tiny, or enclosed by it and as strongly stained: even tissue, such as collagen."""
    holes, n = ndimage.label(~uneven & ~inked)
    area = np.bincount(holes.ravel(), minlength=n + 1)
    mean = np.bincount(holes.ravel(), stain.ravel(), n + 1) / np.maximum(area, 1)
    typical = float(np.median(stain[uneven])) if uneven.any() else np.inf
    open_ones = np.unique(np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]]))
    close = mean > STAINED_HOLE * typical
    close[open_ones] = False
    close |= area < smallest
    close[0] = False
    return np.asarray(close[holes])


def _edge(tissue: Mask) -> Mask:
    """Where texture cannot tell: its window reaches over the border of the tissue by half its width."""
    grown = ndimage.binary_dilation(tissue, np.ones((3, 3), bool))
    inner = ndimage.binary_erosion(tissue, np.ones((3, 3), bool), iterations=WINDOW // 2 + 1, border_value=1)
    return np.asarray(grown & ~inner)


@dataclass(frozen=True)
class TissueContext:
    """What a task needs to know."""

    store: RunStore
    grid: SlideGrid
    level: int
    user_mask: Path | None = None


def learn(context: TissueContext, region: Region) -> None:
    """Decide on the overview what glass, ink and tissue look like on this slide."""
    del region
    factor = 2**context.level
    overview = _pixels(context.store, context.level, None)
    model, classes = learn_tissue(overview, context.grid.pixel_size_um * factor, factor)
    context.store.put("tissue/classes", classes, ("y_coarse", "x_coarse"), long_name="coarse classes of the slide")
    context.store.set_attributes("tissue", model=asdict(model))


def mask_region(context: TissueContext, region: Region) -> int:
    """Decide a region; returns its number of tissue superpixels."""
    store, found = context.store, 0
    factor = SUPERPIXEL_PX // 2**context.level
    model = TissueModel.from_json(store.attributes("tissue")["model"])
    classes = np.asarray(store.array("tissue/classes")[...])
    for shard in region.tiles(layout.MASK_SHARD_SUPERPIXELS):
        pixels = _pixels(store, context.level, shard.scaled(factor))
        mask = superpixel_mask(pixels, shard, model, classes)
        store.write("tissue/mask", shard, mask)
        found += int(mask.sum())
    return found


@lru_cache(maxsize=1)
def _user_mask(path: Path, grid: SlideGrid) -> UserMask:
    return read_user_mask(path, grid)


def user_mask_region(context: TissueContext, region: Region) -> int:
    """Take a region from the user's mask; returns its number of tissue superpixels."""
    assert context.user_mask is not None
    mask = _user_mask(context.user_mask, context.grid).superpixels(region)
    context.store.write("tissue/mask", region, mask)
    return int(mask.sum())


def _pixels(store: RunStore, level: int, region: Region | None) -> Pixels:
    """Pixels (y, x, c) of a pyramid level, or of a region of it."""
    place = (slice(None), *region.slices) if region else (...,)
    return np.ascontiguousarray(np.moveaxis(np.asarray(store.array(f"image/{level}")[place]), 0, -1))


def tissue_steps(
    store: RunStore, grid: SlideGrid, user_mask: Path | None, *, inputs: tuple[str, ...], resources: Resources
) -> Iterator[Step]:
    """The steps that fill ``tissue/``: the overview is judged, then every superpixel; a user's mask replaces both.

    ``inputs`` is the fingerprint of the image.
    """
    shapes = layout.level_shapes(grid.shape_px)
    array = layout.mask("tissue/mask", grid.superpixel_shape)

    def make_group() -> None:
        store.make_group("tissue", {"source": str(user_mask or "automatic"), "inputs": {"image": inputs[0]}})

    def make_mask() -> None:
        if user_mask:
            make_group()
        store.make(array, {"long_name": "superpixels that are tissue"})
        store.put_coordinates("tissue", grid.superpixel_shape, grid.superpixel_um)

    def finish(counts: list[int]) -> None:
        if not any(counts):
            raise InputError(
                "No tissue was found on the mother image.",
                "Draw it yourself: MotherImage/mask-raw.png (white on black) or mask.geojson.",
            )

    if user_mask:
        parameters: dict[str, object] = {"user_mask": file_fingerprint(user_mask), **grid.bounds_parameter}
    else:
        parameters = {"version": VERSION}
        level = next((k for k, shape in enumerate(shapes) if prod(shape) <= OVERVIEW_PX), len(shapes) - 1)
        yield Step(
            name="tissue/overview",
            kernel=learn,
            context=TissueContext(store, grid, level),
            plan=single_task("tissue/overview", BYTES_PER_OVERVIEW_PX * prod(shapes[level]), resources),
            fingerprint=fingerprint("tissue", parameters, *inputs),
            outputs=store.metadata("tissue", "tissue/classes"),
            prepare=make_group,
            disk_bytes=prod(shapes[level]) // 4,
            files=1,
        )

    level = min(4, len(shapes) - 1)
    side = layout.MASK_SHARD_SUPERPIXELS
    per_superpixel = BYTES_PER_SUPERPIXEL + 3 * (SUPERPIXEL_PX // 2**level) ** 2
    most = per_superpixel * min(side, max(grid.superpixel_shape)) ** 2 + OVERVIEW_PX
    kernel: Kernel = user_mask_region if user_mask else mask_region
    yield Step(
        name="tissue/mask",
        kernel=kernel,
        context=TissueContext(store, grid, level, user_mask),
        plan=plan_regions(
            "tissue/mask", grid.superpixel_shape, (side, side), lambda shape: most + prod(shape), resources
        ),
        fingerprint=fingerprint("tissue", parameters, *inputs),
        outputs=store.metadata("tissue", "tissue/mask", "tissue/y", "tissue/x"),
        prepare=make_mask,
        finish=finish,
        disk_bytes=array.bytes,
        files=array.files + 2,
        note=f"from {user_mask.name}" if user_mask else "",
    )


def check(job: Job, alone: bool) -> None:
    """Read the stage's inputs before any work."""
    if job.files.user_mask:
        job.notices += [f"tissue mask: {text}" for text in read_user_mask(job.files.user_mask, job.grid).notices]


def steps(job: Job, workers: Workers, made: Mapping[str, str]) -> Iterator[Step]:
    """Steps of the stage for a job (:class:`iscale.stages.Stage`)."""
    yield from tissue_steps(
        job.store, job.grid, job.files.user_mask, inputs=(made["ingest"],), resources=workers.of("cpu")
    )
