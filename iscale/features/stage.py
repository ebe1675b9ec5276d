"""Stage ``features``: the encoder mapped over regions of the image, by what kind of encoder it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from iscale.encoders import Encoder, EncoderSpec, get_encoder
from iscale.encoders.base import PatchEncoder, RegionEncoder
from iscale.engine.ledger import fingerprint
from iscale.engine.plan import BASELINE_BYTES, Plan, Resources, check_budget, plan_overlapping, plan_regions
from iscale.engine.step import Step
from iscale.features.by_region import RegionContext, StoredContext, copy_region, encode_region
from iscale.features.patch_lattice import PatchLattice, computed_twice
from iscale.geometry import SUPERPIXEL_PX, Region, SlideGrid
from iscale.store import layout
from iscale.store.layout import ArrayLayout
from iscale.store.run_store import RunStore

if TYPE_CHECKING:
    from iscale.plan.job import Job
    from iscale.plan.workers import Workers


def feature_steps(
    store: RunStore, grid: SlideGrid, spec: EncoderSpec, *, inputs: tuple[str, ...], resources: Resources
) -> Iterator[Step]:
    """The steps that fill ``features/``; the fingerprint of the last is that of the features.

    Parameters
    ----------
    inputs
        Fingerprints of the image and of the tissue mask.
    """
    encoder = get_encoder(spec)
    if isinstance(encoder, PatchEncoder):
        yield _patches_step(store, grid, spec, encoder, inputs, resources)
        if encoder.vector_width:
            yield _context_step(store, grid, spec, encoder, inputs, resources)
    elif isinstance(encoder, RegionEncoder):
        tile_px = _tile(grid)[0] * SUPERPIXEL_PX, _tile(grid)[1] * SUPERPIXEL_PX
        encoding = encoder.task_bytes(tile_px)
        yield _shard_step(store, grid, encoder, encode_region, RegionContext(store, spec), encoding, inputs, resources)
    else:
        yield _shard_step(store, grid, encoder, copy_region, StoredContext(store, spec, grid), 0, inputs, resources)


def _tile(grid: SlideGrid) -> tuple[int, int]:
    """Rows and columns of the largest shard, in superpixels."""
    rows, columns = (min(layout.SHARD_SUPERPIXELS, n) for n in grid.superpixel_shape)
    return rows, columns


def _shard_step(
    store: RunStore,
    grid: SlideGrid,
    encoder: Encoder,
    kernel: Callable[[Any, Region], Any],
    context: Any,
    encoding_bytes: int,
    inputs: tuple[str, ...],
    resources: Resources,
) -> Step:
    """The step of an encoder that works shard by shard."""
    shape, side = grid.superpixel_shape, layout.SHARD_SUPERPIXELS
    arrays = _group_arrays(encoder, shape)
    n_features = sum(len(group.features) for group in encoder.groups)
    task_bytes = encoding_bytes + 2 * 2 * n_features * side**2
    return Step(
        name="features",
        kernel=kernel,
        context=context,
        plan=plan_regions(
            "features",
            shape,
            (side, side),
            lambda rows_columns: task_bytes + rows_columns[0] * rows_columns[1],
            resources,
        ),
        fingerprint=fingerprint("features", encoder.identity(), *inputs),
        outputs=store.metadata("features", *(array.path for array in arrays)),
        prepare=lambda: _prepare(store, encoder, arrays, inputs),
        disk_bytes=sum(array.bytes for array in arrays),
        files=sum(array.files for array in arrays),
        note=f"encoder {encoder.name}, {n_features} features",
        where="gpu" if isinstance(encoder, RegionEncoder) else "cpu",
    )


def _group_arrays(encoder: Encoder, shape: tuple[int, int]) -> list[ArrayLayout]:
    return [layout.features(group.name, len(group.features), shape, group.stride) for group in encoder.groups]


def _prepare(store: RunStore, encoder: Encoder, arrays: list[ArrayLayout], inputs: tuple[str, ...]) -> None:
    """Make the group, which says what all features are, and empty arrays."""
    attributes = {
        "encoder": encoder.identity(),
        "inputs": dict(zip(("image", "tissue"), inputs, strict=True)),
        "groups": [
            {"name": g.name, "features": list(g.features), "stride": g.stride, "smooth": g.smooth}
            for g in encoder.groups
        ],
    }
    store.make_group("features", attributes)
    for array in arrays:
        _make(store, encoder, array)


def _make(store: RunStore, encoder: Encoder, array: ArrayLayout) -> None:
    attributes = next(
        (
            {"smooth_superpixels": group.smooth, "stride_superpixels": group.stride}
            for group in encoder.groups
            if array.path == f"features/{group.name}"
        ),
        {"long_name": "vectors of the patches, in the lattice's cell in which each begins"},
    )
    store.make(array, attributes)


def _patches_step(
    store: RunStore,
    grid: SlideGrid,
    spec: EncoderSpec,
    encoder: PatchEncoder,
    inputs: tuple[str, ...],
    resources: Resources,
) -> Step:
    """The step that encodes patches: tokens, colour, and the vectors from which context is made."""
    from iscale.encoders.batches import plan_batches
    from iscale.features.by_patch import PatchesContext
    from iscale.features.by_patch import encode_region as encode_by_patch

    shape, side = grid.superpixel_shape, layout.SHARD_SUPERPIXELS
    lattice = PatchLattice(shape, encoder.patch, encoder.step)
    arrays = [array for array in _group_arrays(encoder, shape) if array.path != "features/context"]
    if encoder.vector_width:
        arrays.append(layout.vectors(encoder.vector_width, shape, encoder.step))

    def region_bytes(rows_columns: tuple[int, int]) -> int:
        return encoder.model_bytes + patches_bytes(encoder, rows_columns)

    spare = resources.memory_bytes - BASELINE_BYTES - region_bytes(_tile(grid))
    batches = plan_batches(encoder, spare)
    batch_bytes = (batches.at_once + 1) * batches.size * encoder.patch_bytes()
    plan = plan_overlapping(
        "features/patches",
        shape,
        (side, side),
        lambda rows_columns: batch_bytes + region_bytes(rows_columns),
        lambda region: lattice.covering(region).area,
        resources,
    )
    spare = resources.memory_bytes - BASELINE_BYTES - (plan.task_bytes - batch_bytes)
    places = lattice.places[0] * lattice.places[1]
    twice = computed_twice(lattice, plan.regions)
    everywhere = _everywhere(encoder)
    which = "all" if everywhere else "at most, those on tissue"
    return Step(
        name="features/patches",
        kernel=encode_by_patch,
        context=PatchesContext(store, spec, everywhere, spare),
        plan=plan,
        fingerprint=fingerprint("features", encoder.identity(), *inputs),
        outputs=store.metadata("features", *(array.path for array in arrays)),
        prepare=lambda: _prepare(store, encoder, arrays, inputs),
        disk_bytes=sum(array.bytes for array in arrays),
        files=sum(array.files for array in arrays),
        note=f"encoder {encoder.name}, {places:,} patches ({which}), {100 * twice:.1f} % computed twice",
        where="gpu",
    )


def patches_bytes(encoder: PatchEncoder, superpixels: tuple[int, int]) -> int:
    """Peak bytes of encoding a region, but for the model and its batches.

    Sums of the tokens, the vectors of its places, the pixels of a block of rows and of the next, and a shard's tokens
    as they are rounded, stored and compressed.
    """
    rows, columns = superpixels
    sums = 4 * rows * columns * (encoder.token_width + 3)
    vectors = 2 * 4 * encoder.vector_width * (rows // encoder.step + 4) * (columns // encoder.step + 4)
    pixels = 3 * 3 * (512 + 16 * encoder.patch) * 16 * (columns + 2 * encoder.patch)
    shard = 4 * 2 * encoder.token_width * min(layout.SHARD_SUPERPIXELS, rows) * min(layout.SHARD_SUPERPIXELS, columns)
    return sums + vectors + pixels + shard


def _everywhere(encoder: PatchEncoder) -> bool:
    """Whether patches off the tissue count too: where a model sees the slide as a whole."""
    return encoder.context is not None and encoder.context.window is None


def _context_step(
    store: RunStore,
    grid: SlideGrid,
    spec: EncoderSpec,
    encoder: PatchEncoder,
    inputs: tuple[str, ...],
    resources: Resources,
) -> Step:
    """The step that makes context of the vectors."""
    from iscale.features.context import LatticeContext, context_of_slide, context_region

    shape = grid.superpixel_shape
    array = next(a for a in _group_arrays(encoder, shape) if a.path == "features/context")
    plan = _whole_plan(encoder, shape, resources) if _everywhere(encoder) else _windows_plan(encoder, shape, resources)
    return Step(
        name="features/context",
        kernel=context_of_slide if _everywhere(encoder) else context_region,
        context=LatticeContext(store, spec),
        plan=plan,
        fingerprint=fingerprint("features/context", encoder.identity(), *inputs),
        outputs=store.metadata(array.path),
        prepare=lambda: _make(store, encoder, array),
        disk_bytes=array.bytes,
        files=array.files,
        note="the whole slide as one grid" if _everywhere(encoder) else "",
        where="gpu",
    )


def _windows_plan(encoder: PatchEncoder, shape: tuple[int, int], resources: Resources) -> Plan:
    side, shifts = layout.SHARD_SUPERPIXELS, encoder.patch // encoder.step
    width = encoder.context.width if encoder.context else encoder.vector_width
    window = 0
    if encoder.context and encoder.context.window:
        grids = shifts**2 * encoder.context.bytes_for(encoder.context.window, encoder.context.window)
        window = grids + 4 * 4 * encoder.vector_width * (shifts * encoder.context.window) ** 2

    def region_bytes(rows_columns: tuple[int, int]) -> int:
        cells = (rows_columns[0] // encoder.step + shifts) * (rows_columns[1] // encoder.step + shifts)
        return encoder.model_bytes + window + 4 * 4 * width * cells

    return plan_regions("features/context", shape, (side, side), region_bytes, resources)


def _whole_plan(encoder: PatchEncoder, shape: tuple[int, int], resources: Resources) -> Plan:
    from iscale.features.context import PADDING_AT_ONCE

    assert encoder.context is not None
    lattice = PatchLattice(shape, encoder.patch, encoder.step)
    places = lattice.places[0] * lattice.places[1]
    rows, columns = (-(-n // encoder.patch) + 16 for n in shape)
    lattice_bytes = 4 * places * (2 * encoder.vector_width + 4 * encoder.context.width)
    # One row or column of padding patches, repeated to whole patches, and those being encoded.
    padding = 3 * 256**2 * max(rows, columns) + (PADDING_AT_ONCE + 4) * encoder.patch_bytes()
    grid = encoder.context.bytes_for(rows, columns) + padding
    plan = Plan(shape, shape, (Region(0, shape[0], 0, shape[1]),), encoder.model_bytes + lattice_bytes + grid)
    check_budget("features/context", plan, resources)
    return plan


def check(job: Job, alone: bool) -> None:
    """Read the stage's inputs before any work."""
    _ = job.encoder


def steps(job: Job, workers: Workers, made: Mapping[str, str]) -> Iterator[Step]:
    """Steps of the stage for a job (:class:`iscale.stages.Stage`)."""
    inputs = made["ingest"], made["tissue"]
    yield from feature_steps(job.store, job.grid, job.encoder, inputs=inputs, resources=workers.of("gpu"))
