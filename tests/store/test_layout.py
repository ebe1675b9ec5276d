"""Chunks and shards: a snapshot of what the functions choose, and the number of files at full size."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.slides import lay_out_empty
from iscale.encoders.texture import TextureEncoder
from iscale.geometry import SlideGrid
from iscale.options import load_options
from iscale.plan.job import Job
from iscale.plan.steps import steps
from iscale.stages import stage_called
from iscale.store import layout

WHOLE_SLIDE = SlideGrid((100_000, 100_000), 0.5, 0.5)


def test_chunks_and_shards_are_those_that_were_chosen() -> None:
    shape = (6272, 6272)
    assert layout.image_level(0, (100_096, 100_096)).shards == (3, 2048, 2048)
    assert layout.mask("tissue/mask", shape).shards == (512, 512)
    features = layout.features("far", 46, shape, 4)
    assert (features.shape, features.chunks, features.shards) == ((46, 1568, 1568), (46, 16, 16), (46, 32, 32))
    wide = layout.features("patch", 384, shape, 1)
    assert (wide.chunks, wide.shards) == ((64, 64, 64), (384, 128, 128))
    few = layout.genes("e", 50, shape)
    assert (few.chunks, few.shards) == ((8, 128, 128), (56, 128, 128))
    assert layout.genes("e", 3, shape).shards == (3, 128, 128)


def test_shards_are_whole_chunks() -> None:
    for n in (1, 3, 5, 63, 65, 130, 511, 513, 3000):
        for array in (layout.genes("e", n, (16, 16)), layout.features("f", n, (16, 16), 1)):
            assert all(s % c == 0 for s, c in zip(array.shards, array.chunks, strict=True))


def whole_slide(encoder: str) -> list[layout.ArrayLayout]:
    """All sharded arrays of a run of a whole slide with 3,000 genes."""
    grid = WHOLE_SLIDE
    shape = grid.superpixel_shape
    arrays = [layout.image_level(k, s) for k, s in enumerate(layout.level_shapes(grid.shape_px))]
    arrays += [layout.mask("tissue/mask", shape)]
    if encoder == "texture":
        arrays += [layout.features(g.name, len(g.features), shape, g.stride) for g in TextureEncoder().groups]
    else:
        groups = (("context", 192, 4), ("patch", 384, 1), ("colour", 3, 1))
        arrays += [layout.features(name, n, shape, stride) for name, n, stride in groups]
        arrays += [layout.vectors(384, shape, 4)]
    arrays += [layout.genes(f"expression/{name}", 3000, shape) for name in ("expression", "uncertainty")]
    arrays += [layout.plane("expression/depth", shape), layout.embedding(32, shape)]
    return arrays + [layout.labels(f"clusters/{name}", 1, shape) for name in ("labels", "refined")]


@pytest.mark.parametrize(("encoder", "files"), [("texture", 47_012), ("hipt", 47_012)])
def test_a_whole_slide_with_3000_genes_stays_under_60000_files(encoder: str, files: int) -> None:
    assert sum(array.files for array in whole_slide(encoder)) == files < 60_000


def test_no_file_of_a_whole_slide_is_too_large_to_write_at_once() -> None:
    for encoder in ("texture", "hipt"):
        for array in whole_slide(encoder):
            assert prod(array.shards) * np.dtype(array.dtype).itemsize <= 26e6, array.path


def planned_files(project: Path, **options: Any) -> dict[str, int]:
    """Files of every step of the plan, by step."""
    job = Job(project, load_options(project, options))
    return {step.name: step.files for step in steps(job, stage_called("report"))}


def test_the_plan_of_a_whole_slide_counts_everything_and_stays_under_60000_files(tmp_path: Path) -> None:
    lay_out_empty(tmp_path, 100_000, 3000, spots=16)
    files = planned_files(tmp_path, encoder="texture", n_genes=3000, n_plots=30)
    image = sum(n for name, n in files.items() if name.startswith("image"))
    large = {name: files[name] for name in ("tissue/mask", "features", "predict")}
    assert (image, large) == (3276, {"tissue/mask": 172, "features": 9608, "predict": 38_432})
    refined = sum(n for name, n in files.items() if name.startswith("refine"))
    assert refined < 2700  # one value and one mark per superpixel
    clusters = sum(n for name, n in files.items() if name.startswith("cluster"))
    assert clusters < 1200  # a byte per superpixel, in large shards
    assert sum(files.values()) < image + sum(large.values()) + refined + clusters + 300 < 60_000


@pytest.mark.real
def test_the_plan_of_a_whole_slide_with_hipt_stays_under_60000_files(tmp_path: Path, stand_in_weights: Path) -> None:
    lay_out_empty(tmp_path, 100_000, 3000, spots=16)
    files = planned_files(tmp_path, encoder="hipt", weights=stand_in_weights, n_genes=3000, memory="4GB")
    assert files["features/patches"] + files["features/context"] == 9608
    assert sum(files.values()) < 60_000


def test_a_run_leaves_about_as_many_files_as_its_plan_says(tiny_run: Path) -> None:
    planned = sum(planned_files(tiny_run, n_plots=3).values())
    out = tiny_run / "iSCALE_output"
    found = sum(1 for path in out.rglob("*") if path.is_file() and ".iscale" not in path.parts)
    # Not in the plan: metadata of groups, and the small arrays of a capture's AnnData. They do not grow with the slide.
    assert found <= planned + 100 < 3 * found


def test_the_pyramid_ends_when_a_level_is_small() -> None:
    shapes = layout.level_shapes((100_096, 50_176))
    assert len(shapes) == 9
    assert max(shapes[-1]) <= layout.SMALLEST_LEVEL_PX < max(shapes[-2])
