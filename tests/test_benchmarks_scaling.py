"""What the benchmarks of scale rest on: slides without pixels, sampled processes, and the study's arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import scaling
from benchmarks.rates import Rates, number, published
from benchmarks.sampling import disk_bytes, sample, stage_of
from benchmarks.slides import bytes_of_run, check_room, write_empty_slide
from benchmarks.study import Assumptions, Card, cost, hipt_on_cores, hipt_run, seconds, stage, texture_run
from benchmarks.workload import Slide, finished, patches, patches_on_tissue, shards, tissue_of
from iscale.slide.reader import open_slide

SMALL = Slide(side=16_384, tissue=0.3, genes=100)

RATES = Rates(
    ingest=1e-7,
    tissue=1e-9,
    texture=1e-4,
    predict=1e-5,
    predict_gene=1e-7,
    fit=5.0,
    plot=5.0,
    context=0.02,
    matmul=(0.8, 0.7),
    patches=(6.0, 12.0),
    tasks=100.0,
    image_bytes=800.0,
    texture_bytes=140.0,
    gene_bytes=3.4,
)

PAGE = """
<!-- scale: begin -->

`--encoder texture --memory 2GB --dask local --workers 2`, 50 genes, 30% of the slide tissue; 2 cores

| slide, px | tissue superpixels | predict, s |
| --- | --- | --- |
| 5000 x 5000 | 29,199 | 2.2 |
| 40000 x 40000 | 1,875,000 | 60.0 (59 to 61) |

<!-- scale: end -->
<!-- workers: begin -->

(not run yet)

<!-- workers: end -->
"""


def test_a_slide_without_pixels_has_the_shape_of_one_and_next_to_no_size(tmp_path: Path) -> None:
    write_empty_slide(tmp_path / "slide.tif", 100_000)
    reader = open_slide(tmp_path / "slide.tif")
    assert reader.levels[0] == (100_000, 100_000)
    assert reader.pixel_size_um == pytest.approx(0.5)
    reader.close()
    assert (tmp_path / "slide.tif").stat().st_size < 1e6


def test_a_sampled_command_tells_its_peak_and_a_failing_one_what_it_said() -> None:
    found = sample(["--help"])
    assert found.seconds > 0
    assert found.own_bytes > 10e6
    assert found.worker_bytes == 0
    with pytest.raises(SystemExit, match="No such command"):
        sample(["no-such-stage"])


def test_stages_are_those_of_their_steps(tmp_path: Path) -> None:
    assert [stage_of(step) for step in ("image/0", "tissue/mask", "features/context", "integrate", "plot/maps")] == [
        "ingest",
        "tissue",
        "features",
        "fit",
        "plot",
    ]
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"12345")
    assert disk_bytes(tmp_path) == 5


def test_a_benchmark_that_cannot_fit_the_disk_is_not_begun(tmp_path: Path) -> None:
    assert 2e9 < bytes_of_run(40_000, 50, 0.3) < 5e9
    with pytest.raises(SystemExit, match=r"free, this benchmark needs up to .* TMPDIR"):
        check_room(tmp_path, 10**18)


def test_published_tables_are_read_by_their_columns_and_missing_ones_named() -> None:
    table = published("scale", PAGE)
    assert number(table.rows[-1]["predict, s"]) == 60.0
    assert number(table.row("slide, px", "5000")["tissue superpixels"]) == 29_199
    assert "50 genes" in table.above
    with pytest.raises(SystemExit, match="make bench-workers"):
        published("workers", PAGE)


def test_workers_take_regions_in_order() -> None:
    assert finished([3, 1, 1, 1], 2) == 3
    assert finished([1, 1, 1, 3], 2) == 4
    assert finished([1] * 10, 3) == 4


def test_regions_of_the_planner_hold_all_tissue_and_encode_shared_patches_more_than_once() -> None:
    plan = shards(SMALL, 2)
    assert sum(tissue_of(SMALL, plan)) == SMALL.superpixels
    assert SMALL.superpixels == pytest.approx(0.3 * 1024**2, rel=0.05)
    for shifts in (16, 4, 1):
        once = patches_on_tissue(SMALL, shifts)
        assert once <= sum(patches(SMALL, shifts, 1)) < 1.3 * once
    assert sum(patches(SMALL, 1, 1)) == patches_on_tissue(SMALL, 1)
    assert len(patches(SMALL, 16, 32)) > len(patches(SMALL, 16, 1))


def test_a_stage_is_bound_by_the_slowest_of_workers_hand_out_and_store() -> None:
    given = Assumptions(bandwidth=1e9, lifetime_s=1e12)
    assert stage("a", [1.0] * 8, 2, 0.0, RATES, given).seconds == pytest.approx(4)
    assert stage("a", [0.001] * 800, 100, 0.0, RATES, given).bound == "hand-out of regions"
    stored = stage("a", [1.0] * 8, 8, 60e9, RATES, given)
    assert (stored.bound, stored.seconds) == ("store", 60)


def test_workers_that_are_replaced_lose_half_a_region_and_their_start() -> None:
    given = Assumptions(lifetime_s=100.0, start_s=10.0)
    assert stage("a", [20.0] * 5, 1, 0.0, RATES, given).computing == pytest.approx(100 * 1.2)


def test_faster_cards_and_more_of_them_are_never_slower_and_feeding_sets_a_floor() -> None:
    given, slow, fast = Assumptions(), Card("slow", 1e12), Card("fast", 1e18)
    features = {
        (card.name, gpus): hipt_run(SMALL, gpus, 16, card, 1e-3, RATES, given)[3].seconds
        for card in (slow, fast)
        for gpus in (1, 4)
    }
    assert features["slow", 1] > features["slow", 4] > features["fast", 4]
    assert features["fast", 1] > 1e-3 * patches_on_tissue(SMALL, 16)
    assert cost(hipt_run(SMALL, 1, 16, slow, 1e-3, RATES, given), given) > 0
    assert [s.name for s in texture_run(SMALL, 8, RATES, given)] == [
        "start",
        "ingest",
        "tissue",
        "features",
        "fit",
        "predict",
        "plot",
    ]
    on_cores = hipt_on_cores(SMALL, 1, 16, 10.0, RATES, Assumptions(lifetime_s=1e12))
    assert on_cores[3].seconds == pytest.approx(1.02 * sum(patches(SMALL, 16, 1)) / 10)
    assert seconds(texture_run(SMALL, 8, RATES, given)) < seconds(texture_run(SMALL, 2, RATES, given))


def test_every_table_of_the_page_is_made_and_has_its_place() -> None:
    page = scaling.PAGE.read_text()
    for name in ("work", "rates", "patch", "slide", "many", "bottleneck"):
        assert f"<!-- {name}: begin -->" in page
        assert f"<!-- {name}: end -->" in page
    given = Assumptions()
    assert "A100, bfloat16" in scaling.slide_table(SMALL, 1e-3, RATES, given)
    assert "64 GPUs" in scaling.bottleneck_table(SMALL, 1e-3, RATES, given)
    assert scaling.many_table(SMALL, 1e-3, RATES, given).count("\n") == 11
    assert scaling.work_table(SMALL, (1, 8)).count("\n") == 4
    assert "million" in scaling.rates_table(RATES, 1e-3)
    assert scaling.patch_table(1e-3, RATES).count("\n") == 5


@pytest.mark.parametrize("option", list(vars(Assumptions())))
def test_every_assumption_that_is_an_option_is_told_on_the_page(option: str) -> None:
    assert f"`--{option.replace('_', '-')}`" in scaling.PAGE.read_text()
