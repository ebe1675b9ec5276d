"""Stage ``fit``: the ensemble learnt from the training spots and the features in their discs."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass

import numpy as np

from iscale.captures.spots import TrainingSpots
from iscale.captures.stage import read_training
from iscale.device import here
from iscale.encoders.base import FeatureGroup
from iscale.engine.ledger import fingerprint
from iscale.engine.plan import Resources, single_task
from iscale.engine.step import Step
from iscale.geometry import Region, SlideGrid
from iscale.model.discs import disc_offsets
from iscale.model.ensemble import SETTINGS_FILE, TENSORS_FILE
from iscale.model.fit import FitResult, fit
from iscale.model.gather import gather_discs
from iscale.store.run_store import RunStore

STATES = 5
"""Independent initialisations, trained together."""


@dataclass(frozen=True)
class FitContext:
    """What the fit needs to know."""

    store: RunStore
    grid: SlideGrid
    groups: tuple[FeatureGroup, ...]
    recipe: str
    seed: int
    device: str


def fit_model(context: FitContext, region: Region) -> None:
    """Gather, fit, and put the model in place of an older one."""
    del region
    spots = read_training(context.store, context.grid)
    discs = gather_discs(context.store, context.groups, spots, context.grid)
    result = fit(
        spots,
        discs,
        pixel_size_um=context.grid.pixel_size_um,
        superpixel_um=context.grid.superpixel_um,
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
    n_features = sum(len(group.features) for group in context.groups)
    cells = sum(len(disc_offsets(r / context.grid.superpixel_um)) for r in spots.radius_um)
    n_spots = len(spots.depth)
    # The rows as gathered and two copies; every state's design matrix and its square, in float64; targets and copies.
    rows = 3 * 4 * cells * n_features
    design = 8 * STATES * n_spots * 3 * (n_features + 128 + min(512, n_spots))
    task_bytes = rows + design + 10 * spots.counts.nbytes + 200 * 2**20
    parameters = {"recipe": context.recipe, "seed": context.seed}
    return Step(
        name="fit",
        kernel=fit_model,
        context=context,
        plan=single_task("fit", task_bytes, resources),
        fingerprint=fingerprint("fit", parameters, *inputs),
        outputs=(context.store.folder / "model" / SETTINGS_FILE, context.store.folder / "model" / TENSORS_FILE),
        disk_bytes=20 * 2**20,
        files=4,
        note=f"recipe {context.recipe}, {len(spots.depth)} spots, {cells} superpixels in discs",
        where="gpu",
    )
