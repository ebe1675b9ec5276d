"""Plans tile the grid with whole shards, within the budget, or fail before any work."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iscale.engine.plan import (
    BASELINE_BYTES,
    Plan,
    Resources,
    cut,
    cut_evenly,
    parse_bytes,
    plan_overlapping,
    plan_regions,
    single_task,
)
from iscale.errors import MemoryBudgetError
from iscale.geometry import Region

sides = st.integers(1, 400)
shards = st.integers(1, 130)


@given(st.tuples(sides, sides), st.tuples(shards, shards), st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_regions_tile_the_grid_with_whole_shards(
    shape: tuple[int, int], shard: tuple[int, int], per_region: tuple[int, int]
) -> None:
    covered = np.zeros(shape, dtype=int)
    for region in cut(shape, shard, per_region):
        covered[region.slices] += 1
        assert region.y0 % shard[0] == 0
        assert region.x0 % shard[1] == 0
        assert region.y1 % shard[0] == 0 or region.y1 == shape[0]
        assert region.x1 % shard[1] == 0 or region.x1 == shape[1]
    assert (covered == 1).all()


@given(st.tuples(sides, sides), st.tuples(shards, shards), st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_even_regions_tile_the_grid_and_differ_by_a_shard(
    shape: tuple[int, int], shard: tuple[int, int], most: tuple[int, int]
) -> None:
    covered = np.zeros(shape, dtype=int)
    regions = cut_evenly(shape, shard, most)
    for region in regions:
        covered[region.slices] += 1
        for part, side, n in zip(region.slices, shard, shape, strict=True):
            assert part.start % side == 0
            assert part.stop % side == 0 or part.stop == n
    assert (covered == 1).all()
    in_shards = [tuple(-(-n // side) for n, side in zip(r.shape, shard, strict=True)) for r in regions]
    for axis in (0, 1):
        sizes = {size[axis] for size in in_shards}
        assert max(sizes) <= most[axis]
        assert max(sizes) - min(sizes) <= 1


def test_costly_work_is_shared_by_all_workers_with_little_done_twice() -> None:
    def plan(workers: int, memory: int = 2**32) -> Plan:
        def work(region: Region) -> float:
            return (region.shape[0] + 12) * (region.shape[1] + 12)

        return plan_overlapping(
            "s", (1280, 1280), (128, 128), lambda s: 1000 * s[0] * s[1], work, Resources(memory, workers)
        )

    assert plan(1).regions[0].shape == (384, 384)
    assert len(plan(1).regions) == 16
    assert len(plan(25).regions) % 25 == 0
    assert len(plan(200).regions) == 100
    assert plan(1, BASELINE_BYTES + 1000 * 128 * 256).regions[0].area == 128 * 256


@given(st.tuples(sides, sides), st.integers(1, 4), st.integers(BASELINE_BYTES + 128**2, 2**32), st.integers(1, 8))
def test_a_plan_keeps_its_budget(shape: tuple[int, int], workers: int, memory: int, weight: int) -> None:
    try:
        plan = plan_regions(
            "step", shape, (128, 128), lambda s: weight * 1000 * s[0] * s[1], Resources(memory, workers)
        )
    except MemoryBudgetError:
        smallest = weight * 1000 * min(128, shape[0]) * min(128, shape[1])
        assert BASELINE_BYTES + smallest > memory
        return
    assert plan.worker_bytes <= memory
    assert all(weight * 1000 * r.area <= plan.task_bytes for r in plan.regions)


def test_over_budget_names_the_step_the_figures_and_the_remedy() -> None:
    with pytest.raises(MemoryBudgetError, match=r"features needs 1\.63 GB .* budget is 1 GB\.\n.*--memory 1\.7GB"):
        single_task("features", 10**9, Resources(10**9))


def test_more_workers_get_smaller_regions() -> None:
    def n_regions(workers: int) -> int:
        plan = plan_regions("s", (5120, 5120), (128, 128), lambda _: 1, Resources(2**31, workers))
        return len(plan.regions)

    assert n_regions(1) < n_regions(8)


def test_shards_of_a_region_are_those_it_covers() -> None:
    plan = plan_regions("s", (300, 300), (128, 128), lambda _: 1, Resources(2**31, shards_per_side=2))
    assert [list(plan.shards_of(r)) for r in plan.regions] == [
        [(0, 0), (0, 1), (1, 0), (1, 1)],
        [(0, 2), (1, 2)],
        [(2, 0), (2, 1)],
        [(2, 2)],
    ]


@pytest.mark.parametrize("text", ["", "2 XB", "-1GB", "0", "GB", "nan", "inf", "1e99GB"])
def test_what_is_not_a_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_bytes(text)


@pytest.mark.parametrize(("text", "n"), [("1KiB", 1024), ("3 MiB", 3 << 20), ("2tb", 2 * 10**12), ("700", 700)])
def test_sizes_with_units(text: str, n: int) -> None:
    assert parse_bytes(text) == n
