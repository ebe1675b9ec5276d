"""A small slide in a store, with random features, on which the expression of some genes follows from these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from iscale.captures.spots import TrainingSpots
from iscale.encoders.base import FeatureGroup
from iscale.engine.drivers import SerialDriver
from iscale.engine.execute import execute
from iscale.engine.ledger import Ledger
from iscale.engine.plan import Resources
from iscale.engine.step import Step
from iscale.engine.watchers import Silence
from iscale.geometry import Region, SlideGrid
from iscale.model.discs import disc_rows
from iscale.model.fit_stage import FitContext
from iscale.store import layout
from iscale.store.run_store import RunStore
from iscale.trust.folds import How
from iscale.trust.stage import holdout_steps
from iscale.trust.table import Trust, read_trust, trust_path

GENES = ("follows", "follows less", "noise", "rare")


@dataclass(frozen=True)
class Scene:
    """A run up to its features, and the spots of two captures."""

    context: FitContext
    spots: TrainingSpots

    def hold_out(self, how: How, spots: TrainingSpots | None = None) -> dict[str, Trust]:
        """Run the steps; the trust table by gene."""
        for step in self.steps(how, spots):
            execute(step, SerialDriver(), Ledger(self.context.store.ledgers, step.name), Silence())
        return {gene.gene: gene for gene in read_trust(trust_path(self.context.store.folder, how))}

    def steps(self, how: How, spots: TrainingSpots | None = None, memory: int = 2 * 10**9) -> list[Step]:
        """The steps of a way to hold out."""
        inputs = "features", "integrate"
        return list(holdout_steps(self.context, spots or self.spots, how, inputs=inputs, resources=Resources(memory)))


@pytest.fixture(scope="session", autouse=True)
def small_work() -> Iterator[None]:
    """One core, as threads that wait for each other on a busy machine cost more than they do; and two states."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iscale.engine.machine.available_cores", lambda: 1)
        patch.setattr("iscale.trust.stage.STATES", 2)
        yield


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    rng = np.random.default_rng(0)
    grid = SlideGrid((2048, 2048), 0.5, 0.5)
    side, n_features = grid.superpixel_shape[0], 8
    smooth = gaussian_filter(rng.normal(size=(n_features, side, side)), (0, 2, 2))
    features = (smooth / smooth.std()).astype(np.float16)
    store = RunStore(tmp_path_factory.mktemp("scene"))
    store.create()
    everywhere = Region(0, side, 0, side)
    store.make_group("tissue", {})
    store.make(layout.mask("tissue/mask", (side, side)))
    store.write("tissue/mask", everywhere, np.arange(side) < side - 4 + np.zeros((side, 1), np.int64))
    store.make_group("features", {})
    store.make(layout.features("random", n_features, (side, side), 1))
    store.write("features/random", everywhere, features)

    centre = np.stack(np.meshgrid(np.arange(4, side, 9), np.arange(4, side, 9)), axis=-1).reshape(-1, 2)[:, ::-1]
    centre = np.concatenate([centre, centre[::3] + np.array([2, 3])]).clip(0, side - 1)
    radius_um = np.full(len(centre), 24.0)
    spot, at = disc_rows(centre, radius_um, grid.superpixel_um, (side, side))
    mean = np.stack([np.bincount(spot, f[at[:, 0], at[:, 1]].astype(float)) for f in features]) / np.bincount(spot)
    mean /= mean.std(axis=1, keepdims=True)
    rates = np.stack(
        [
            20 * np.exp(0.6 * mean[0]),
            20 * np.exp(0.25 * mean[1] + 0.25 * rng.normal(size=len(centre))),
            20 * np.exp(0.5 * rng.normal(size=len(centre))),
            np.full(len(centre), 0.05),
        ],
        axis=1,
    )
    counts = rng.poisson(rates).astype(np.float32)
    spots = TrainingSpots(
        genes=GENES,
        counts=counts,
        depth=(counts.sum(axis=1) + 200).astype(np.float32),
        xy_px=(centre[:, ::-1] * 16 + 8).astype(np.float64),
        radius_um=radius_um,
        capture=(centre[:, 1] > 0.6 * side).astype(np.int64),
        captures=("A", "B"),
        capture_scale=(1.0, 1.0),
    )
    group = FeatureGroup("random", tuple(f"F{k}" for k in range(n_features)))
    return Scene(FitContext(store, grid, (group,), "default", 0, "cpu"), spots)
