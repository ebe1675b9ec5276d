"""Stage ``features``: the encoder mapped over regions of the image, by what kind of encoder it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from iscale.encoders import Encoder, EncoderSpec, get_encoder
from iscale.encoders.base import PatchEncoder, RegionEncoder
from iscale.engine.ledger import fingerprint
from iscale.engine.plan import BASELINE_BYTES, Plan, Resources, check_budget, plan_overlapping, plan_regions
from iscale.engine.step import Kernel, Step
from iscale.features.by_region import RegionContext, StoredContext, copy_region, encode_region
from iscale.features.patch_lattice import PatchLattice, computed_twice
from iscale.geometry import SUPERPIXEL_PX, Region, SlideGrid
from iscale.store import layout
from iscale.store.layout import ArrayLayout
from iscale.store.run_store import RunStore

if TYPE_CHECKING:
    from iscale.plan.job import Job
    from iscale.plan.workers import Workers


@dataclass(frozen=True)
class _Features:
    """What all steps of an encoder are made of."""

    store: RunStore
    grid: SlideGrid
    spec: EncoderSpec
    encoder: Encoder
    inputs: tuple[str, ...]
    """Fingerprints of the image and of the tissue mask."""
    resources: Resources

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of superpixels."""
        return self.grid.superpixel_shape

    def arrays(self) -> list[ArrayLayout]:
        """Those of the encoder's groups."""
        return [layout.features(g.name, len(g.features), self.shape, g.stride) for g in self.encoder.groups]

    def step(self, name: str, kernel: Kernel, context: Any, plan: Plan, arrays: list[ArrayLayout], note: str) -> Step:
        """The first step, which makes the group."""

        def prepare() -> None:
            self._make_group()
            for array in arrays:
                self.make(array)

        return Step(
            name=name,
            kernel=kernel,
            context=context,
            plan=plan,
            fingerprint=fingerprint("features", self.encoder.identity(), *self.inputs),
            outputs=self.store.metadata("features", *(array.path for array in arrays)),
            prepare=prepare,
            disk_bytes=sum(array.bytes for array in arrays),
            files=sum(array.files for array in arrays),
            note=f"encoder {self.encoder.name}, {note}",
            where="gpu" if isinstance(self.encoder, PatchEncoder | RegionEncoder) else "cpu",
        )

    def _make_group(self) -> None:
        """Make the group, which says what all features are."""
        attributes = {
            "encoder": self.encoder.identity(),
            "inputs": dict(zip(("image", "tissue"), self.inputs, strict=True)),
            "groups": [
                {"name": g.name, "features": list(g.features), "stride": g.stride, "smooth": g.smooth}
                for g in self.encoder.groups
            ],
        }
        self.store.make_group("features", attributes)

    def make(self, array: ArrayLayout) -> None:
        """Make an empty array."""
        groups = {f"features/{group.name}": group for group in self.encoder.groups}
        if group := groups.get(array.path):
            self.store.make(array, {"smooth_superpixels": group.smooth, "stride_superpixels": group.stride})
        else:
            about = "vectors of the patches, in the lattice's cell in which each begins"
            self.store.make(array, {"long_name": about})


def feature_steps(
    store: RunStore, grid: SlideGrid, spec: EncoderSpec, *, inputs: tuple[str, ...], resources: Resources
) -> Iterator[Step]:
    """The steps that fill ``features/``; the fingerprint of the last is that of the features.

    ``inputs`` are the fingerprints of the image and of the tissue mask.
    """
    encoder = get_encoder(spec)
    features = _Features(store, grid, spec, encoder, inputs, resources)
    if isinstance(encoder, PatchEncoder):
        yield _patches_step(features, encoder)
        if encoder.vector_width:
            yield _context_step(features, encoder)
    elif isinstance(encoder, RegionEncoder):
        rows, columns = _tile(grid)
        encoding = encoder.task_bytes((rows * SUPERPIXEL_PX, columns * SUPERPIXEL_PX))
        yield _shards_step(features, encode_region, RegionContext(store, spec), encoding)
    else:
        yield _shards_step(features, copy_region, StoredContext(store, spec, grid), 0)


def _tile(grid: SlideGrid) -> tuple[int, int]:
    """Rows and columns of the largest shard, in superpixels."""
    rows, columns = (min(layout.SHARD_SUPERPIXELS, n) for n in grid.superpixel_shape)
    return rows, columns


def _shards_step(features: _Features, kernel: Kernel, context: Any, encoding_bytes: int) -> Step:
    """The step of an encoder that works shard by shard."""
    side = layout.SHARD_SUPERPIXELS
    n_features = sum(len(group.features) for group in features.encoder.groups)
    task_bytes = encoding_bytes + 2 * 2 * n_features * side**2
    plan = plan_regions(
        "features", features.shape, (side, side), lambda shape: task_bytes + prod(shape), features.resources
    )
    return features.step("features", kernel, context, plan, features.arrays(), f"{n_features} features")


def _patches_step(features: _Features, encoder: PatchEncoder) -> Step:
    """The step that encodes patches: tokens, colour, and the vectors from which context is made."""
    from iscale.encoders.batches import plan_batches
    from iscale.features.by_patch import PatchesContext
    from iscale.features.by_patch import encode_region as encode_by_patch

    shape, side = features.shape, layout.SHARD_SUPERPIXELS
    lattice = PatchLattice(shape, encoder.patch, encoder.step)
    arrays = [array for array in features.arrays() if array.path != "features/context"]
    if encoder.vector_width:
        arrays.append(layout.vectors(encoder.vector_width, shape, encoder.step))

    def region_bytes(rows_columns: tuple[int, int]) -> int:
        return encoder.model_bytes + patches_bytes(encoder, rows_columns)

    spare = features.resources.memory_bytes - BASELINE_BYTES - region_bytes(_tile(features.grid))
    batches = plan_batches(encoder, spare)
    batch_bytes = (batches.at_once + 1) * batches.size * encoder.patch_bytes()
    plan = plan_overlapping(
        "features/patches",
        shape,
        (side, side),
        lambda rows_columns: batch_bytes + region_bytes(rows_columns),
        lambda region: lattice.covering(region).area,
        features.resources,
    )
    spare = features.resources.memory_bytes - BASELINE_BYTES - (plan.task_bytes - batch_bytes)
    which = "all" if _everywhere(encoder) else "at most, those on tissue"
    twice = computed_twice(lattice, plan.regions)
    context = PatchesContext(features.store, features.spec, _everywhere(encoder), spare)
    note = f"{prod(lattice.places):,} patches ({which}), {100 * twice:.1f} % computed twice"
    return features.step("features/patches", encode_by_patch, context, plan, arrays, note)


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


def _context_step(features: _Features, encoder: PatchEncoder) -> Step:
    """The step that makes context of the vectors."""
    from iscale.features.context import context_of_slide, context_region

    array = next(a for a in features.arrays() if a.path == "features/context")
    whole = _everywhere(encoder)
    plan = (_whole_plan if whole else _windows_plan)(encoder, features.shape, features.resources)
    return Step(
        name="features/context",
        kernel=context_of_slide if whole else context_region,
        context=RegionContext(features.store, features.spec),
        plan=plan,
        fingerprint=fingerprint("features/context", encoder.identity(), *features.inputs),
        outputs=features.store.metadata(array.path),
        prepare=lambda: features.make(array),
        disk_bytes=array.bytes,
        files=array.files,
        note="the whole slide as one grid" if whole else "",
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
    rows, columns = (-(-n // encoder.patch) + 16 for n in shape)
    lattice_bytes = 4 * prod(lattice.places) * (2 * encoder.vector_width + 4 * encoder.context.width)
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
