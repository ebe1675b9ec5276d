"""What a fit is projected to need, and whether it holds the features of the discs, follows from the budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iscale.captures.spots import TrainingSpots
from iscale.encoders.base import FeatureGroup
from iscale.engine.plan import Resources
from iscale.errors import MemoryBudgetError
from iscale.geometry import Region, SlideGrid
from iscale.model.data import RowFile
from iscale.model.discs import disc_offsets
from iscale.model.fit_stage import FitContext, fit_step, gather_discs
from iscale.store import layout
from iscale.store.run_store import RunStore

GRID = SlideGrid((8192, 8192), 0.5, 0.5)
GB = 10**9


def step(tmp_path, memory: int, *, n_spots: int, radius_um: float, n_genes: int, recipe: str = "default"):
    spots = TrainingSpots(
        genes=tuple(f"G{k}" for k in range(n_genes)),
        counts=np.broadcast_to(np.float32(0), (n_spots, n_genes)),
        depth=np.zeros(n_spots, np.float32),
        xy_px=np.zeros((n_spots, 2)),
        radius_um=np.full(n_spots, radius_um),
        capture=np.zeros(n_spots, np.int64),
        captures=("A",),
    )
    groups = (FeatureGroup("texture", tuple(map(str, range(200)))),)
    context = FitContext(RunStore(tmp_path), GRID, groups, recipe, 0, "cpu")
    return fit_step(context, spots, inputs=(), resources=Resources(memory))


def test_few_rows_are_held_and_counted(tmp_path) -> None:
    held = step(tmp_path, 2 * GB, n_spots=400, radius_um=27.5, n_genes=100)
    assert held.context.hold_bytes == 400 * 37 * 200 * 4
    assert held.plan.worker_bytes < GB


def test_rows_over_the_budget_go_to_a_file_that_is_counted_as_disk(tmp_path) -> None:
    rows = 20_000 * 145 * 200 * 4
    filed = step(tmp_path, 2 * GB, n_spots=20_000, radius_um=55.0, n_genes=1000)
    held = step(tmp_path, 8 * GB, n_spots=20_000, radius_um=55.0, n_genes=1000)
    assert (filed.context.hold_bytes, held.context.hold_bytes) == (0, rows)
    assert held.plan.task_bytes - filed.plan.task_bytes == rows
    assert filed.disk_bytes - held.disk_bytes == rows
    assert filed.fingerprint == held.fingerprint


@pytest.mark.parametrize("recipe", ["default", "published"])
def test_four_visium_captures_of_all_variable_genes_fit_two_gigabytes(tmp_path, recipe) -> None:
    assert step(tmp_path, 2 * GB, n_spots=20_000, radius_um=27.5, n_genes=3000, recipe=recipe)


def test_what_does_not_fit_even_so_is_an_error_with_the_figures(tmp_path) -> None:
    with pytest.raises(MemoryBudgetError, match=r"fit needs .* budget is 1 GB"):
        step(tmp_path, GB, n_spots=30_000, radius_um=27.5, n_genes=3000)


@pytest.mark.parametrize("hold_bytes", [10**6, 0])
def test_discs_are_gathered_across_shards_and_without_what_is_off_tissue(tmp_path: Path, hold_bytes: int) -> None:
    grid = SlideGrid((4096, 4096), 0.5, 0.5)
    shape, group = grid.superpixel_shape, FeatureGroup("at", ("row", "column"))
    store = RunStore(tmp_path)
    store.create()
    mask = np.ones(shape, bool)
    mask[:, 140:] = False
    store.make_group("tissue", {})
    store.make(layout.mask("tissue/mask", shape))
    store.write("tissue/mask", Region(0, shape[0], 0, shape[1]), mask)
    store.make_group("features", {})
    store.make(layout.features("at", 2, shape, 1))
    store.write("features/at", Region(0, shape[0], 0, shape[1]), np.stack(np.indices(shape)).astype(np.float16))

    superpixels = np.array([[127, 130], [60, 139], [0, 0], [10, 200]])
    n = len(superpixels)
    spots = TrainingSpots(
        genes=(),
        counts=np.zeros((n, 0), np.float32),
        depth=np.ones(n, np.float32),
        xy_px=superpixels[:, ::-1] * 16.0 + 3,
        radius_um=np.array([27.5, 27.5, 16.0, 27.5]),
        capture=np.zeros(n, np.int64),
        captures=("D1",),
    )
    discs = gather_discs(store, (group,), spots, grid, hold_bytes=hold_bytes)
    assert isinstance(discs.features, RowFile) == (hold_bytes == 0)
    assert (np.diff(discs.spot) >= 0).all()
    for k, centre in enumerate(superpixels):
        covered = centre + disc_offsets(spots.radius_um[k] / grid.superpixel_um)
        expected = {(i, j) for i, j in covered.tolist() if i >= 0 and 0 <= j < 140}
        found = np.asarray(discs.features[np.flatnonzero(discs.spot == k)])
        assert {(int(i), int(j)) for i, j in found} == expected
        assert len(found) == len(expected)
