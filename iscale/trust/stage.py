"""Stage ``holdout``: the model trained without parts of the spots, and the trust table of what it makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from iscale.captures.spots import TrainingSpots
from iscale.engine.ledger import fingerprint
from iscale.engine.machine import give_back, here
from iscale.engine.plan import Plan, Resources, check_budget, cut
from iscale.engine.progress import progress_between, tell
from iscale.engine.step import Step
from iscale.geometry import Region
from iscale.model.fit_stage import GATHERED, SPARE_BYTES, VERSION, FitContext, fit_context, gather_discs, needs_of_fit
from iscale.model.sizes import STATES
from iscale.trust.correlation import blocks_of_tissue, correlation, noise_ceiling
from iscale.trust.folds import Folds, How, cut_folds
from iscale.trust.held_out import GENES_AT_ONCE, FoldSpots, HeldOutStore, predict_baselines, predict_held
from iscale.trust.table import Trust, trust_path, write_trust
from iscale.words import plural

if TYPE_CHECKING:
    from iscale.plan.job import Job
    from iscale.plan.workers import Workers

TRAINED = 0.8
"""How far a fold counts as done when its model is trained."""
COPIES = 14
"""Arrays of (spot, gene) float64 that the scores of a block of genes take at their peak, about."""


@dataclass(frozen=True)
class HoldoutContext:
    """What a task needs to know: the folds are rows of the first step's grid, the genes of the second's."""

    fit: FitContext
    how: How

    @property
    def stored(self) -> HeldOutStore:
        """Where the held-out spots and their predictions lie."""
        return HeldOutStore(self.fit.store, self.how)


def hold_out_folds(context: HoldoutContext, region: Region) -> dict[str, int]:
    """Train without each of some folds, and predict it; returns how many spots were tested."""
    return {"tested": sum(_hold_out(context, fold) for fold in range(region.y0, region.y1))}


def _hold_out(context: HoldoutContext, fold: int) -> int:
    import torch

    from iscale.model.data import training_data

    fit, stored = context.fit, context.stored
    spots = stored.read_spots(fit.grid)
    folds = stored.read_folds()
    with progress_between(0.0, GATHERED):
        discs = gather_discs(fit.store, fit.groups, spots, fit.grid, hold_bytes=fit.hold_bytes)
    give_back()
    data = training_data(
        spots,
        discs,
        pixel_size_um=fit.grid.pixel_size_um,
        superpixel_um=fit.grid.superpixel_um,
        seed=fit.seed,
        device=torch.device(here(fit.device)),
    )
    held = FoldSpots.of(folds, fold, data)
    if not held.possible:
        return 0
    own = np.searchsorted(folds.tested(fold), held.test)
    with progress_between(GATHERED, TRAINED):
        expression, depth = predict_held(held, data, recipe=fit.recipe, seed=fit.seed, n_states=STATES)
    stored.write(fold, "expression", own, expression)
    stored.write(fold, "depth", own, depth[:, None])
    del expression
    give_back()
    with progress_between(TRAINED, 1.0):
        for genes, nearest, ridge in predict_baselines(held, data, discs, seed=fit.seed):
            stored.write(fold, "knn", own, nearest, genes)
            stored.write(fold, "ridge", own, ridge, genes)
            tell(genes.stop, len(spots.genes))
    return len(held.test)


def score_genes(context: HoldoutContext, region: Region) -> list[list[Any]]:
    """Score some genes; returns a line of numbers per gene, those of :class:`Trust` but its name."""
    stored = context.stored
    found = stored.read_rows()
    group, block = found.capture, blocks_of_tissue(found.xy_um, found.capture)
    lines = []
    for start in range(region.y0, region.y1, GENES_AT_ONCE):
        genes = slice(start, min(start + GENES_AT_ONCE, region.y1))
        counts, guess, knn, ridge = (
            stored.read(name, found, genes) for name in ("counts", "expression", "knn", "ridge")
        )
        log = np.log1p(counts)
        score = correlation(log, np.log1p(guess), group, block)
        normalised = correlation(
            _per_depth(counts, found.depth), _per_depth(guess, found.predicted_depth), group, block
        )
        columns = (
            *(score.value, score.low, score.high, normalised.value),
            correlation(log, knn, group, block).value,
            correlation(log, ridge, group, block).value,
            noise_ceiling(counts, group, per_molecule=found.per_molecule, seed=context.fit.seed),
        )
        lines += np.stack(columns, axis=1).tolist()
    return lines


def _per_depth(counts: NDArray[np.float64], depth: NDArray[np.float64]) -> NDArray[np.float64]:
    from iscale.model.fit import NORMALISED_DEPTH

    return np.asarray(np.log1p(NORMALISED_DEPTH * counts / depth[:, None]))


def holdout_steps(
    context: FitContext,
    spots: TrainingSpots,
    how: How,
    *,
    inputs: tuple[str, str],
    resources: Resources,
) -> Iterator[Step]:
    """The steps that test the model on held-out spots: a task per fold, then the table, by genes.

    Parameters
    ----------
    context
        As of the stage ``fit``.
    spots
        The training spots, or those that :func:`iscale.trust.folds.merge_within_captures` makes: these know of how many
        measured spots each is the mean, and none is of several captures.
    how
        What is held out: see :func:`iscale.trust.folds.cut_folds`.
    inputs
        Fingerprints of the features and of the integrated spots.
    resources
        What a worker may use.

    Raises
    ------
    InputError
        If nothing can be held out.
    """
    folds = cut_folds(spots, how, seed=context.seed)
    first = _folds_step(context, spots, how, folds, inputs, resources)
    yield first
    yield _table_step(HoldoutContext(context, how), spots, first.fingerprint, resources)


def _folds_step(
    context: FitContext,
    spots: TrainingSpots,
    how: How,
    folds: Folds,
    inputs: tuple[str, str],
    resources: Resources,
) -> Step:
    name = f"holdout/{how}"
    most = int(np.bincount(folds.fold[folds.fold >= 0]).max())
    n_features = sum(len(group.features) for group in context.groups)
    beside = _baseline_bytes(len(spots.depth), n_features)
    needs = needs_of_fit(context, spots, resources, n_scored=most, beside=beside)
    grid = len(folds.names), 1
    plan = Plan(grid, (1, 1), cut(grid, (1, 1), (1, 1)), needs.task_bytes)
    check_budget(name, plan, resources)
    stored = HeldOutStore(context.store, how)
    parameters = {"how": how, "recipe": context.recipe, "seed": context.seed, "spots": spots.content, "fit": VERSION}
    return Step(
        name=name,
        kernel=hold_out_folds,
        context=HoldoutContext(needs.context, how),
        plan=plan,
        fingerprint=fingerprint("holdout", parameters, *inputs),
        outputs=stored.outputs(len(folds.names)),
        prepare=partial(stored.prepare, spots, folds, context.grid, {"recipe": context.recipe, "seed": context.seed}),
        disk_bytes=stored.bytes_of(spots, folds) + needs.scratch_bytes,
        files=stored.files_of(spots, folds),
        note=f"{', '.join(folds.names)}; {needs.note}",
        where="gpu",
    )


def _baseline_bytes(n_spots: int, n_features: int) -> int:
    """Peak of :func:`predict_baselines` without the counts: mean features in float64 and copies, and targets."""
    targets = 6 * n_spots * GENES_AT_ONCE
    return 8 * (3 * n_spots * n_features + 30 * n_features**2 + targets)


def _table_step(context: HoldoutContext, spots: TrainingSpots, folds: str, resources: Resources) -> Step:
    name, genes = f"holdout/{context.how}.table", spots.genes
    path = trust_path(context.fit.store.folder, context.how)
    grid = len(genes), 1
    task_bytes = SPARE_BYTES + 8 * COPIES * len(spots.depth) * min(GENES_AT_ONCE, len(genes))
    plan = Plan(grid, (GENES_AT_ONCE, 1), cut(grid, (GENES_AT_ONCE, 1), (1, 1)), task_bytes)
    check_budget(name, plan, resources)

    def write(blocks: list[list[list[float]]]) -> None:
        lines = [line for block in blocks for line in block]
        write_trust(path, (Trust(gene, *line) for gene, line in zip(genes, lines, strict=True)))

    return Step(
        name=name,
        kernel=score_genes,
        context=context,
        plan=plan,
        fingerprint=fingerprint("holdout.table", {"genes": list(genes)}, folds),
        outputs=(path,),
        finish=write,
        disk_bytes=100 * len(genes),
        files=1,
        note=plural(len(genes), "gene"),
    )


def check(job: Job, alone: bool) -> None:
    """Read the stage's inputs before any work."""
    _ = job.hold_out


def steps(job: Job, workers: Workers, made: Mapping[str, str]) -> Iterator[Step]:
    """Steps of the stage for a job (:class:`iscale.stages.Stage`)."""
    if job.hold_out is not None:
        inputs = made["features"], made["integrate"]
        yield from holdout_steps(
            fit_context(job, workers), job.test_spots, job.hold_out, inputs=inputs, resources=workers.of("gpu")
        )
