"""Stage ``fit``: the ensemble learnt from the training spots and the features in their discs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from iscale.captures.spots import TrainingSpots
from iscale.captures.stage import SHARED_COUNTS, SHARED_GENES, read_training
from iscale.encoders import get_encoder
from iscale.encoders.base import FeatureGroup
from iscale.engine.ledger import fingerprint
from iscale.engine.machine import give_back, here
from iscale.engine.plan import BASELINE_BYTES, Resources, single_task
from iscale.engine.progress import progress_between
from iscale.engine.step import Step
from iscale.geometry import Region, SlideGrid
from iscale.model.discs import disc_sizes
from iscale.model.ensemble import SETTINGS_FILE, TENSORS_FILE
from iscale.model.gather import GATHER_COPIES, gather_discs
from iscale.model.loadings import GENES_FILE, NUMBERS_FILE
from iscale.model.sizes import HELD_OUT_FRACTION, SCORED_GENES, SIZES, STATES, FitSize
from iscale.store.layout import SHARD_SUPERPIXELS
from iscale.store.run_store import RunStore

if TYPE_CHECKING:
    from iscale.model.fit import FitResult
    from iscale.plan.job import Job
    from iscale.plan.workers import Workers

VERSION = 2
"""Raised when a fit leaves other files of the same spots and features."""

SPARE_BYTES = 50 * 2**20
"""What is small: coefficients, the ensemble, blocks of counts."""

GATHERED = 0.1
"""How far the stage counts as done when the features of the discs are there."""


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
    from iscale.model.every_gene import SharedGenes
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


def fit_step(context: FitContext, spots: TrainingSpots, *, inputs: tuple[str, ...], resources: Resources) -> Step:
    """The step that fills ``model/``.

    Parameters
    ----------
    inputs
        Fingerprints of the features and of the training spots.
    """
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
    """What a task that trains a model on spots is projected to need.

    Attributes
    ----------
    context
        The task's, which says whether it holds the features of the discs.
    task_bytes, scratch_bytes
        Peak memory, and what lies in a scratch file meanwhile.
    note
        What a reader of the plan should know.
    """

    context: FitContext
    task_bytes: int
    scratch_bytes: int
    note: str


def needs_of_fit(
    context: FitContext, spots: TrainingSpots, resources: Resources, *, n_scored: int, beside: int = 0
) -> FitNeeds:
    """Project a fit, and choose whether the features of the discs are held: where the budget has room for them.

    Parameters
    ----------
    context, spots, resources
        Of the task.
    n_scored
        Spots of which all genes are predicted at once.
    beside
        Peak bytes of other work of the task, done before or after the training.
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
