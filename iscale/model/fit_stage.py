"""Stage ``fit``: features of the training spots' discs, gathered from the store, and the ensemble learnt from them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from iscale.captures.spots import DiscFeatures, TrainingSpots
from iscale.captures.stage import SHARED_COUNTS, SHARED_GENES, read_training
from iscale.encoders import get_encoder
from iscale.encoders.base import FeatureGroup
from iscale.engine.ledger import fingerprint
from iscale.engine.machine import give_back, here
from iscale.engine.plan import BASELINE_BYTES, Resources, single_task
from iscale.engine.progress import progress_between, tell
from iscale.engine.step import Step
from iscale.features.read import read_features
from iscale.geometry import SUPERPIXEL_PX, Region, SlideGrid
from iscale.model.discs import blocks_of, disc_rows, disc_sizes
from iscale.model.ensemble import SETTINGS_FILE, TENSORS_FILE
from iscale.model.loadings import GENES_FILE, NUMBERS_FILE
from iscale.model.sizes import HELD_OUT_FRACTION, SCORED_GENES, SIZES, STATES, FitSize
from iscale.store.layout import SHARD_SUPERPIXELS
from iscale.store.run_store import RunStore
from iscale.store.scratch import FileRows

if TYPE_CHECKING:
    from iscale.model.fit import FitResult
    from iscale.plan.job import Job
    from iscale.plan.workers import Workers

VERSION = 3
"""Raised when a fit leaves other files of the same spots and features."""

SPARE_BYTES = 50 * 2**20
"""What is small: coefficients, the ensemble, blocks of counts."""

GATHERED = 0.1
"""How far the stage counts as done when the features of the discs are there."""

HOLD_BYTES = 2**30
"""Rows up to so many bytes are held in memory, where nothing else is said."""

GATHER_COPIES = 6
"""Peak of reading the features of a tile, over those features."""


@dataclass(frozen=True)
class FitContext:
    """What the fit needs to know; features of discs up to so many bytes are held in memory, more in a file."""

    store: RunStore
    grid: SlideGrid
    groups: tuple[FeatureGroup, ...]
    recipe: str
    seed: int
    device: str
    hold_bytes: int = 0


def fit_model(context: FitContext, region: Region) -> None:
    """Gather, fit, and put the model in place of an older one."""
    from iscale.model.data import SharedGenes
    from iscale.model.fit import fit

    del region
    spots = read_training(context.store, context.grid)
    counts = context.store.array(SHARED_COUNTS)
    shared = SharedGenes(context.store.names(SHARED_GENES), lambda genes: np.asarray(counts[:, genes], np.float32))
    with progress_between(0.0, GATHERED):
        discs = gather_discs(context.store, context.groups, spots, context.grid, hold_bytes=context.hold_bytes)
    give_back()
    with progress_between(GATHERED, 1.0):
        result = fit(
            spots,
            discs,
            pixel_size_um=context.grid.pixel_size_um,
            superpixel_um=context.grid.superpixel_um,
            shared=shared,
            recipe=context.recipe,
            seed=context.seed,
            device=here(context.device),
            n_states=STATES,
        )
    _save(context, result)


def _save(context: FitContext, result: FitResult) -> None:
    model, fresh = context.store.folder / "model", context.store.folder / "model.new"
    shutil.rmtree(fresh, ignore_errors=True)
    result.ensemble.save(fresh)
    (fresh / "history.json").write_text(json.dumps(result.history))
    if result.loadings:
        result.loadings.save(fresh)
    shutil.rmtree(model, ignore_errors=True)
    fresh.rename(model)
    store = context.store
    store.put("training/held_out", result.held_out.astype(np.bool_), ("spot",))
    for name, scores in result.held_out_scores.items():
        store.put(
            f"training/held_out_{name}", np.asarray(scores, np.float64), ("gene",), long_name="Pearson correlation"
        )


def gather_discs(
    store: RunStore,
    groups: Sequence[FeatureGroup],
    spots: TrainingSpots,
    grid: SlideGrid,
    *,
    hold_bytes: int = HOLD_BYTES,
) -> DiscFeatures:
    """Features of every tissue superpixel in every spot's disc.

    Spots are visited by the shard that holds their centre, so that each shard is read about once. The
    rows of a spot are put where they lie if all discs are whole: in memory, from where they are moved together in the
    end, if they take no more than ``hold_bytes``, or else in a file in the store's scratch folder, which is read past
    the gaps.
    """
    from iscale.model.data import RowFile

    n_features = sum(len(group.features) for group in groups)
    size = disc_sizes(spots.radius_um, grid.superpixel_um)
    first = np.cumsum(size) - size
    held = 4 * int(size.sum()) * n_features <= hold_bytes
    array = np.empty((int(size.sum()), n_features), np.float32) if held else None
    file = None if held else FileRows.nameless(store.scratch, n_features)
    count = np.zeros(len(size), np.int64)
    for spot, rows in _visit(store, groups, spots, grid):
        count[spot] = len(rows)
        if array is not None:
            array[first[spot] : first[spot] + len(rows)] = rows
        elif file is not None:
            file.write(int(first[spot]), rows)
    spot_of_row = np.repeat(np.arange(len(count)), count)
    if file is not None:
        return DiscFeatures(RowFile(file, np.concatenate([[0], np.cumsum(count)]), first), spot_of_row)
    assert array is not None
    return DiscFeatures(_without_gaps(array, first, count), spot_of_row)


def _without_gaps(
    array: NDArray[np.float32], first: NDArray[np.int64], count: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Move the rows of all spots together, in place."""
    end = 0
    for a, n in zip(first.tolist(), count.tolist(), strict=True):
        if a != end:
            array[end : end + n] = array[a : a + n]
        end += n
    return array[:end]


def _visit(
    store: RunStore, groups: Sequence[FeatureGroup], spots: TrainingSpots, grid: SlideGrid
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Every spot once, with the features of its disc, (row, feature) float32."""
    centres = np.floor(spots.xy_px[:, ::-1] / SUPERPIXEL_PX).astype(np.int64)
    tiles, tile_of = np.unique(centres // SHARD_SUPERPIXELS, axis=0, return_inverse=True)
    visited = 0
    for tile in range(len(tiles)):
        members = np.flatnonzero(tile_of.reshape(-1) == tile)
        own, at = disc_rows(centres[members], spots.radius_um[members], grid.superpixel_um, grid.superpixel_shape)
        (y0, x0), (y1, x1) = at.min(axis=0).tolist(), (at.max(axis=0) + 1).tolist()
        features = read_features(store, groups, Region(y0, y1, x0, x1))
        starts = np.searchsorted(own, np.arange(len(members) + 1))
        for block in blocks_of(starts, np.arange(len(members))):
            a, b = starts[block[0]], starts[block[-1] + 1]
            values = features[:, at[a:b, 0] - y0, at[a:b, 1] - x0].T
            there = np.logical_not(np.isnan(values).any(axis=1))
            for k in block.tolist():
                own_rows = slice(starts[k] - a, starts[k + 1] - a)
                yield int(members[k]), values[own_rows][there[own_rows]]
        visited += len(members)
        tell(visited, len(centres))


def fit_step(context: FitContext, spots: TrainingSpots, *, inputs: tuple[str, ...], resources: Resources) -> Step:
    """The step that fills ``model/``; inputs are the fingerprints of the features and of the training spots."""
    needs = needs_of_fit(context, spots, resources, n_scored=int(HELD_OUT_FRACTION * len(spots.depth)))
    parameters = {"recipe": context.recipe, "seed": context.seed, "version": VERSION}
    files = [SETTINGS_FILE, TENSORS_FILE, *((NUMBERS_FILE, GENES_FILE) if SIZES[context.recipe].factors else ())]
    return Step(
        name="fit",
        kernel=fit_model,
        context=needs.context,
        plan=single_task("fit", needs.task_bytes, resources),
        fingerprint=fingerprint("fit", parameters, *inputs),
        outputs=tuple(context.store.folder / "model" / name for name in files),
        disk_bytes=20 * 2**20 + needs.scratch_bytes,
        files=len(files) + 2,
        note=needs.note,
        where="gpu",
    )


@dataclass(frozen=True)
class FitNeeds:
    """What a task that trains a model on spots is projected to need: peak memory, and bytes in a scratch file.

    The task's context says whether it holds the features of the discs; the note is for readers of the plan.
    """

    context: FitContext
    task_bytes: int
    scratch_bytes: int
    note: str


def needs_of_fit(
    context: FitContext, spots: TrainingSpots, resources: Resources, *, n_scored: int, beside: int = 0
) -> FitNeeds:
    """Project a fit, and choose whether the features of the discs are held: where the budget has room for them.

    ``n_scored`` are spots of which all genes are predicted at once, ``beside`` the peak bytes of other work of the
    task, done before or after the training.
    """
    cells = disc_sizes(spots.radius_um, context.grid.superpixel_um)
    rows_bytes = 4 * int(cells.sum()) * sum(len(group.features) for group in context.groups)
    task_bytes = _task_bytes(context, spots, cells, n_scored, beside)
    held = BASELINE_BYTES + task_bytes + rows_bytes <= resources.memory_bytes
    return FitNeeds(
        context=replace(context, hold_bytes=rows_bytes if held else 0),
        task_bytes=task_bytes + (rows_bytes if held else 0),
        scratch_bytes=0 if held else rows_bytes,
        note=f"recipe {context.recipe}, {len(cells)} spots, {int(cells.sum())} superpixels in discs, their features "
        + ("in memory" if held else "in a scratch file"),
    )


def _task_bytes(context: FitContext, spots: TrainingSpots, cells: NDArray[np.int64], n_scored: int, beside: int) -> int:
    """Projected peak without the features of the discs, whose number of superpixels per spot is given."""
    size = FitSize(
        spots=len(cells),
        genes=len(spots.genes),
        features=sum(len(group.features) for group in context.groups),
        states=STATES,
        captures=len(spots.captures),
        most_rows=int(cells.max(initial=1)),
    )
    counts = 4 * size.spots * size.genes
    reading = 2 * counts
    side = SHARD_SUPERPIXELS + 2 * float(spots.radius_um.max(initial=0.0)) / context.grid.superpixel_um
    gather = int(GATHER_COPIES * 4 * size.features * side**2)
    # Predicted counts of the held-out spots, and several times those of some genes, in float64.
    scores = n_scored * 8 * (size.genes + 8 * SCORED_GENES)
    recipe = SIZES[context.recipe].fit_bytes(size)
    index = 3 * 8 * int(cells.sum())
    return max(reading, counts + index + max(gather, recipe, scores, beside)) + SPARE_BYTES


def fit_context(job: Job, workers: Workers) -> FitContext:
    """What a fit on a job's spots needs to know."""
    groups, options = get_encoder(job.encoder).groups, job.options
    return FitContext(job.store, job.grid, groups, options.recipe, options.seed, workers.device)


def steps(job: Job, workers: Workers, made: Mapping[str, str]) -> Iterator[Step]:
    """Steps of the stage for a job (:class:`iscale.stages.Stage`)."""
    inputs = made["features"], made["integrate"]
    yield fit_step(fit_context(job, workers), job.spots, inputs=inputs, resources=workers.of("gpu"))
