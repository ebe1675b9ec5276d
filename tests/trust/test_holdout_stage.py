"""The steps from spots and features to the trust table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from iscale.errors import InputError, MemoryBudgetError
from iscale.model.data import RowFile, training_data
from iscale.model.fit_stage import gather_discs
from iscale.trust.folds import cut_folds
from iscale.trust.held_out import FoldSpots, predict_baselines, predict_held
from iscale.trust.table import trust_path


@pytest.fixture(scope="module")
def trust(scene):
    return scene.hold_out("capture")


def test_genes_that_follow_from_the_image_are_told_from_noise(trust) -> None:
    assert trust["follows"].word == "reliable"
    assert trust["follows"].score > 0.8
    assert trust["noise"].word == "not predicted"
    assert trust["rare"].word == "cannot be told"
    assert trust["noise"].score < trust["follows less"].score < trust["follows"].score


def test_the_ceiling_is_that_of_the_counts_and_not_of_the_image(trust) -> None:
    assert trust["noise"].ceiling > 0.9
    assert trust["follows"].score < trust["follows"].ceiling < 1
    assert trust["follows less"].score < 0.85 * trust["follows less"].ceiling


def test_baselines_are_scored_on_the_same_spots(trust) -> None:
    assert trust["follows"].ridge > 0.75
    assert trust["follows"].knn < trust["follows"].ridge - 0.1
    assert abs(trust["noise"].ridge) < 0.25


def test_regions_of_one_capture_can_be_held_out(scene) -> None:
    spots = replace(scene.spots, captures=("A",), capture=np.zeros_like(scene.spots.capture), capture_scale=(1.0,))
    trust = scene.hold_out("region", spots)
    assert trust["follows"].word == "reliable"
    assert trust["noise"].word == "not predicted"


def data_of(scene, spots):
    discs = gather_discs(scene.context.store, scene.context.groups, spots, scene.context.grid)
    grid = scene.context.grid
    frame = {"pixel_size_um": grid.pixel_size_um, "superpixel_um": grid.superpixel_um}
    return training_data(spots, discs, **frame, seed=0, device=torch.device("cpu")), discs


@pytest.mark.parametrize("how", ["capture", "spots", "region"])
def test_what_was_counted_in_held_out_spots_does_not_reach_their_prediction(scene, how) -> None:
    folds = cut_folds(scene.spots, how, seed=0)

    def predictions(spots):
        data, discs = data_of(scene, spots)
        held = FoldSpots.of(folds, 1, data)
        expression, depth = predict_held(held, data, recipe="default", seed=0, n_states=2)
        baselines = [np.hstack(block[1:]) for block in predict_baselines(held, data, discs, seed=0)]
        return np.hstack([expression, depth[:, None], *baselines])

    counts, depth = scene.spots.counts.copy(), scene.spots.depth.copy()
    own = folds.tested(1)
    counts[own] = np.random.default_rng(9).permuted(counts[own], axis=0) * 7
    depth[own] *= 3
    before, after = predictions(scene.spots), predictions(replace(scene.spots, counts=counts, depth=depth))
    np.testing.assert_array_equal(before, after)
    assert np.isfinite(before).all()


def test_the_scale_of_the_held_out_capture_changes_no_score(scene, trust) -> None:
    factor = np.where(scene.spots.capture == 1, 2, 1).astype(np.float32)
    spots = replace(
        scene.spots,
        counts=scene.spots.counts * factor[:, None],
        depth=scene.spots.depth * factor,
        capture_scale=(1.0, 2.0),
    )
    scaled = scene.hold_out("capture", spots)
    for gene in ("follows", "follows less", "noise"):
        assert scaled[gene].score == pytest.approx(trust[gene].score, abs=0.02)
        assert scaled[gene].ceiling == pytest.approx(trust[gene].ceiling, abs=0.02)


def test_spots_off_tissue_and_without_counts_are_not_tested_on(scene) -> None:
    """The tissue ends 4 superpixels before the slide's right border."""
    column = scene.spots.xy_px[:, 0] // 16
    depth = scene.spots.depth.copy()
    depth[30:40] = 0
    data, _ = data_of(scene, replace(scene.spots, depth=depth))
    folds = cut_folds(scene.spots, "region", seed=0)
    tested = np.concatenate([FoldSpots.of(folds, fold, data).test for fold in range(5)])
    assert set(tested) == set(np.flatnonzero((column < 124) & (depth > 0)))
    assert (column[data.usable] >= 124).any()


def test_where_too_little_lies_on_tissue_nothing_is_said(scene) -> None:
    xy_px = scene.spots.xy_px.copy()
    xy_px[scene.spots.capture == 0] = 2040.0  # off tissue, so that nothing can be learnt without capture B
    xy_px[0] = scene.spots.xy_px[0]
    trust = scene.hold_out("capture", replace(scene.spots, xy_px=xy_px))
    assert {gene.word for gene in trust.values()} == {"cannot be told"}
    assert all(np.isnan(gene.score) for gene in trust.values())


def test_nothing_changes_where_features_go_through_a_file(scene, trust) -> None:
    first, table = scene.steps("capture")
    without = replace(first.context.fit, hold_bytes=0)
    assert isinstance(
        gather_discs(without.store, without.groups, scene.spots, without.grid, hold_bytes=0).features, RowFile
    )
    step = replace(first, context=replace(first.context, fit=without))
    step.prepare()
    for region in step.plan.regions:
        step.kernel(step.context, region)
    table.finish([table.kernel(table.context, region) for region in table.plan.regions])
    assert scene.hold_out("capture") == trust


def test_what_is_done_is_not_done_again_and_other_spots_are_other_work(scene) -> None:
    prints = [step.fingerprint for step in scene.steps("capture")]
    assert [step.fingerprint for step in scene.steps("capture")] == prints
    counts = scene.spots.counts.copy()
    counts[0, 0] += 1
    other = scene.steps("capture", replace(scene.spots, counts=counts))
    assert not {step.fingerprint for step in other} & set(prints)
    assert scene.steps("capture")[1].outputs == (trust_path(scene.context.store.folder, "capture"),)


def test_what_does_not_fit_is_an_error_before_any_work(scene) -> None:
    with pytest.raises(MemoryBudgetError, match="holdout/capture needs"):
        scene.steps("capture", memory=6 * 10**8)


def test_thirty_thousand_spots_of_three_thousand_genes_fit_a_budget_of_three_gigabytes(scene) -> None:
    n = 30_000
    spots = replace(
        scene.spots,
        genes=tuple(f"G{k}" for k in range(3000)),
        counts=np.broadcast_to(np.float32(0), (n, 3000)),
        depth=np.zeros(n, np.float32),
        xy_px=np.zeros((n, 2)),
        radius_um=np.full(n, 27.5),
        capture=np.arange(n) % 2,
    )
    object.__setattr__(spots, "content", "many")
    assert scene.steps("capture", spots, memory=3 * 10**9)


def test_one_capture_is_one_clear_error(scene) -> None:
    spots = replace(scene.spots, captures=("A",), capture=np.zeros_like(scene.spots.capture))
    with pytest.raises(InputError, match="two are needed"):
        scene.steps("capture", spots)
