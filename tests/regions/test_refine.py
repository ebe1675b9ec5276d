"""Cells are found where nuclei were painted, whatever the regions; a user's mask replaces them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from iscale.demo.painting import _body, _colour, _nuclei_of, _stamp, write_synthetic_slide
from iscale.demo.tissue import LARGE_CELL_UM, SMALL_CELL_UM, SyntheticTissue
from iscale.engine.drivers import SerialDriver
from iscale.engine.execute import execute
from iscale.engine.ledger import Ledger
from iscale.engine.plan import Resources
from iscale.engine.watchers import Silence
from iscale.errors import InputError
from iscale.geometry import Region, SlideGrid
from iscale.options import load_options
from iscale.pipeline.run import run
from iscale.plan.job import Job
from iscale.project.files import find_project
from iscale.regions.refine import refine_steps
from iscale.store import layout
from iscale.store.run_store import RunStore

SIDE, UM = 3072, 0.5
BARE = 1536
Mask = npt.NDArray[np.bool_]


def project_of(folder: Path, image: npt.NDArray[np.uint8] | None = None) -> Path:
    """A project of a mother image alone: the picture given, or the demo's slide."""
    mother = folder / "MotherImage"
    mother.mkdir(parents=True)
    if image is None:
        write_synthetic_slide(mother / "he-raw.tif", (SIDE, SIDE), 0, pixel_size_um=UM)
    else:
        Image.fromarray(image).save(mother / "he-raw.png")
    (mother / "pixel-size-raw.txt").write_text(f"{UM}\n")
    return folder


def refine(project: Path, out: Path, shards: int | None = None, **options: float) -> list[str]:
    """Run up to the tissue, then the stage; the names of its steps that had anything to do."""
    run(project, stage="tissue", out=out, region_shards=shards, **options)
    job = Job(project, load_options(project, {"out": out, **options}), with_captures=False)
    ran = []
    resources = Resources(2 * 10**9, shards_per_side=shards)
    for step in refine_steps(job.store, job.grid, job.files.user_cells, inputs=("i", "t"), resources=resources):
        report = execute(step, SerialDriver(), Ledger(job.store.ledgers, step.name), Silence())
        ran += [step.name] if report.regions else []
    return ran


def read(out: Path, name: str) -> npt.NDArray[np.generic]:
    return np.asarray(RunStore(out).array(f"tissue/{name}")[...])


def painted_nuclei() -> npt.NDArray[np.float32]:
    """Share (y, x) of every superpixel that the demo paints with nuclei (with a quarter of their stain, or more)."""
    tissue = SyntheticTissue((SIDE, SIDE), UM, 0)
    share = np.empty((SIDE // 16, SIDE // 16), np.float32)
    for tile in Region(0, SIDE, 0, SIDE).tiles(1024):
        y_um, x_um = ((np.arange(a, b) + 0.5) * UM for a, b in ((tile.y0, tile.y1), (tile.x0, tile.x1)))
        lattices = ((LARGE_CELL_UM, True), (SMALL_CELL_UM, False))
        stains = [_stamp(_nuclei_of(tissue, y_um, x_um, um, large), y_um, x_um, um) for um, large in lattices]
        there = (np.maximum(*stains) > 0.25) & (tissue.share(y_um, x_um) > 0.5)
        share[tile.coarsened(16).slices] = there.reshape(64, 16, 64, 16).mean((1, 3))
    return share


def without_nuclei() -> npt.NDArray[np.uint8]:
    """The demo's tissue as it is between nuclei."""
    tissue = SyntheticTissue((BARE, BARE), UM, 0)
    at_um = (np.arange(BARE) + 0.5) * UM
    fields = tissue.fields(at_um, at_um)
    stains = (stain * fields.tissue for stain in _body(tissue, fields, at_um, at_um))
    return _colour(*stains, np.ones((BARE, BARE), np.float32))


@pytest.fixture(scope="module")
def bare() -> npt.NDArray[np.uint8]:
    return without_nuclei()


@pytest.fixture(scope="module")
def demo_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project_of(tmp_path_factory.mktemp("demo-slide"))


@pytest.fixture(scope="module")
def refined(demo_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("refined")
    assert refine(demo_slide, out, shards=1) == ["refine/nuclei", "refine/cells"]
    return out


def test_cells_are_where_nuclei_were_painted(refined: Path) -> None:
    tissue, cells, share = read(refined, "mask"), read(refined, "cells"), painted_nuclei()
    assert not (cells & ~tissue).any()
    assert (cells == (share > 0.15))[tissue].mean() > 0.97
    assert cells[tissue & (share > 0.25)].mean() > 0.99
    assert cells[tissue & (share == 0)].mean() < 0.002
    statistic = read(refined, "haematoxylin")[tissue]
    assert roc_auc_score(share[tissue] > 0.15, statistic.astype(np.float32)) > 0.996
    assert 0.2 < cells[tissue].mean() < 0.7


def test_the_statistic_and_how_it_was_split_are_kept(refined: Path) -> None:
    tissue, statistic = read(refined, "mask"), read(refined, "haematoxylin")
    assert np.array_equal(np.isnan(statistic), ~tissue)
    told = RunStore(refined).attributes("tissue/haematoxylin")
    assert "two groups" in told["how"]
    assert sum(told["histogram"]["superpixels"]) == tissue.sum()
    assert 0.8 * tissue.sum() * 64 < sum(told["histogram"]["pixels"]) < tissue.sum() * 64  # glands are hollow
    cells = read(refined, "cells")
    assert np.array_equal(cells, statistic.astype(np.float32) > np.float32(told["threshold"]))
    counted = RunStore(refined).attributes("tissue/cells")
    assert (counted["tissue_superpixels"], counted["cell_superpixels"]) == (tissue.sum(), cells.sum())
    pixels = np.asarray(Image.open(refined / "refine/threshold.png").convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 20


def test_regions_do_not_change_a_bit(demo_slide: Path, refined: Path, tmp_path: Path) -> None:
    refine(demo_slide, tmp_path, shards=2)
    assert read(refined, "haematoxylin").tobytes() == read(tmp_path, "haematoxylin").tobytes()
    assert np.array_equal(read(refined, "cells"), read(tmp_path, "cells"))
    one, other = (RunStore(out).attributes("tissue/haematoxylin") for out in (refined, tmp_path))
    assert one == other


def test_memory_stays_under_the_projection(demo_slide: Path, refined: Path) -> None:
    job = Job(demo_slide, load_options(demo_slide, {"out": refined}), with_captures=False)
    for step in refine_steps(job.store, job.grid, None, inputs=("i", "t"), resources=Resources(2 * 10**9)):
        tracemalloc.start()
        step.kernel(step.context, step.plan.regions[0])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert step.plan.task_bytes / 16 < peak < step.plan.task_bytes, step.name


def test_tissue_without_nuclei_has_no_cells(bare: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    refine(project_of(tmp_path / "p", bare), tmp_path / "out")
    tissue, cells = read(tmp_path / "out", "mask"), read(tmp_path / "out", "cells")
    assert tissue.mean() > 0.3
    assert cells[tissue].mean() < 0.002


def test_a_users_mask_of_the_tissue_leaves_glass_unknown(tmp_path: Path, demo_slide: Path, refined: Path) -> None:
    """The threshold moves with the density of glass, so that nearly the same cells are found."""
    project = tmp_path / "p"
    project.mkdir()
    (project / "MotherImage").symlink_to(demo_slide / "MotherImage")
    Image.fromarray(read(refined, "mask")).save(project / "mask-raw.png")
    refine(project, tmp_path / "out")
    told = RunStore(tmp_path / "out").attributes("tissue/haematoxylin")
    assert told["glass"] == "pure white"
    tissue = read(refined, "mask")
    assert (read(tmp_path / "out", "cells") == read(refined, "cells"))[tissue].mean() > 0.98


def test_a_users_mask_of_cells_replaces_the_measurement(bare: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    project, out = project_of(tmp_path / "p", bare), tmp_path / "out"
    refine(project, out)
    drawn = np.zeros((BARE // 16, BARE // 16), np.uint8)
    drawn[: BARE // 32] = 255
    Image.fromarray(drawn).save(project / "MotherImage" / "cells-raw.png")
    assert find_project(project, with_captures=False).user_cells == project / "MotherImage" / "cells-raw.png"
    assert refine(project, out) == ["refine/cells"]
    tissue = read(out, "mask")
    assert np.array_equal(read(out, "cells"), tissue & (drawn > 0))
    assert RunStore(out).attributes("tissue/cells")["source"].endswith("cells-raw.png")
    Image.fromarray(255 - drawn).save(project / "MotherImage" / "cells-raw.png")
    assert refine(project, out) == ["refine/cells"]
    assert np.array_equal(read(out, "cells"), tissue & (drawn == 0))
    (project / "cells-of-mine.geojson").write_text("{}")
    with pytest.raises(InputError, match=r"2 masks of cells: MotherImage/cells-raw\.png, cells-of-mine\.geojson"):
        find_project(project, with_captures=False)


def test_pixels_too_large_to_show_nuclei_make_all_tissue_cells(tmp_path: Path) -> None:
    store, grid = RunStore(tmp_path), SlideGrid((1024, 1280), 4.0, 4.0)
    store.create()
    store.make_group("tissue", {})
    store.make(layout.mask("tissue/mask", grid.superpixel_shape))
    tissue = np.random.default_rng(0).random(grid.superpixel_shape) < 0.5
    store.write("tissue/mask", Region(0, 64, 0, 80), tissue)
    (step,) = refine_steps(store, grid, None, inputs=("i", "t"), resources=Resources(2 * 10**9))
    execute(step, SerialDriver(), Ledger(store.ledgers, step.name), Silence())
    assert np.array_equal(read(tmp_path, "cells"), tissue)
    assert step.note == "all tissue: no nuclei are seen at 4 um per pixel"
    assert store.attributes("tissue/cells")["source"] == step.note
