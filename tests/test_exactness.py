"""Results do not depend on regions, driver or workers; one plan gives the same bytes; a killed run loses nothing."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from iscale import open_run
from iscale.demo.synthetic import write_demo
from iscale.engine.execute import execute
from iscale.engine.ledger import Ledger
from iscale.engine.watchers import Silence
from iscale.options import load_options
from iscale.pipeline.run import run
from iscale.pipeline.status import describe_status
from iscale.plan.job import Job
from iscale.plan.steps import steps
from iscale.plan.workers import open_driver
from iscale.stages import stage_called
from iscale.store.run_store import RunStore

OPTIONS: dict[str, Any] = {"n_genes": 12, "n_plots": 1, "n_clusters": 4, "pixel_size": 0.25, "dist_st": 0}
ROWS, REGIONS = 1056, 6
"""Of a slide of 2,080 x 1,056 px (width x height) 3 x 2 shards of pixels half as large, the last cut short."""
DRAWINGS = ("cluster/draw", "annotate/figures")


@pytest.fixture(scope="module")
def demo_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The upper part of the demo's slide with the spots there, by tables in the pixels of the analysis."""
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, side_px=2080)
    slide = folder / "MotherImage" / "he-raw.tif"
    Image.fromarray(tifffile.imread(slide, level=0)[:ROWS]).save(slide.with_suffix(".png"))
    slide.unlink()
    shutil.rmtree(folder / "DaughterCaptures" / "UnallignedToMother")
    for path in folder.glob("DaughterCaptures/AllignedToMother/*/locs.tsv"):
        head, *rows = path.read_text().splitlines()
        spots = [(spot, float(x), float(y)) for spot, x, y in (row.split("\t") for row in rows)]
        kept = [f"{spot}\t{2 * x}\t{2 * y}" for spot, x, y in spots if y < ROWS - 60]
        path.write_text("\n".join([head, *kept]) + "\n")
    return folder


@pytest.fixture(scope="module")
def undisturbed(demo_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A serial run in regions of one shard, in a process of its own: numbers depend on the libraries' threads."""
    out = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(annotate(demo_project, out), check=True, capture_output=True)
    return out


def annotate(project: Path, out: Path) -> list[str]:
    """The command of a serial run in regions of one shard."""
    return [sys.executable, "-m", "iscale", *arguments(project, out)]


def arguments(project: Path, out: Path) -> list[str]:
    words = ["annotate", str(project), "--out", str(out), "--region-shards", "1"]
    return [*words, *(f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items())]


def same_model(project: Path, reference: Path, out: Path, **options: Any) -> None:
    """All steps of a run, but that its model is the reference's."""
    job = Job(project, load_options(project, {"out": out, **options, **OPTIONS}))
    job.store.create()
    with open_driver(job.options.dask, job.options.workers, job.options.memory_bytes) as driver:
        for step in steps(job, stage_called("annotate")):
            if step.name == "fit":
                shutil.copytree(reference / "model", out / "model")
            elif step.name not in DRAWINGS:
                execute(step, driver, Ledger(job.store.ledgers, step.name), Silence())


def ulps(a: np.ndarray, b: np.ndarray) -> int:  # type: ignore[type-arg]
    """Largest distance of two float16 arrays, in units in the last place; NaN must agree."""
    assert np.array_equal(np.isnan(a), np.isnan(b))
    a, b = (np.nan_to_num(v).astype(np.float16).view(np.int16).astype(np.int32) for v in (a, b))
    ordered = [np.where(v < 0, -(v & 0x7FFF), v) for v in (a, b)]
    return int(np.abs(ordered[0] - ordered[1]).max())


@pytest.mark.parametrize(
    "options",
    [
        {"region_shards": 2},
        pytest.param({"region_shards": 3}, marks=pytest.mark.full),
        pytest.param({"region_shards": 1, "dask": "local", "workers": 2}, marks=pytest.mark.full),
    ],
    ids=["regions-of-2-divide-nothing", "one-region", "dask-2-workers"],
)
def test_the_same_for_any_regions_driver_and_workers(
    demo_project: Path, undisturbed: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    same_model(demo_project, undisturbed, tmp_path, **options)
    a, b = open_run(undisturbed), open_run(tmp_path)
    assert bool((a.tissue == b.tissue).all())
    for name in ("colour", "texture", "near", "far"):
        one, other = (r.store.array(f"features/{name}")[...] for r in (a, b))
        assert ulps(np.asarray(one), np.asarray(other)) <= 1, name
    for name in ("expression", "uncertainty", "depth"):
        assert ulps(getattr(a, name).values, getattr(b, name).values) <= 1, name
    assert bool((a.cells == b.cells).all())
    for name in ("clusters", "clusters_refined", "annotation"):
        agree = (getattr(a, name) == getattr(b, name)).values
        assert agree.mean() > 0.999, name


def digests(folder: Path) -> dict[str, str]:
    """Hash of every file of the store and of the model."""
    files = [p for part in ("run.zarr", "model") for p in (folder / part).rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}


SIGNALLED = """
import os, sys
from iscale.cli.app import main
from iscale.store.run_store import RunStore

path, times, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
write, written = RunStore.write, []

def signalled(self, to, *rest):
    write(self, to, *rest)
    written.append(to)
    if to == path and written.count(path) == times:
        os.kill(os.getpid(), number)

RunStore.write = signalled
sys.argv[1:] = sys.argv[4:]
main()
"""
"""The command line, which gets a signal once an array has been written so often: in the middle of a region."""


def signalled(path: str, times: int, number: signal.Signals, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SIGNALLED, path, str(times), str(int(number)), *words]
    # A shell starts its background jobs with SIGINT ignored, and children inherit that.
    listening = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=listening)


def test_a_killed_run_redoes_only_what_is_missing_and_gives_the_same_bytes_training_included(
    demo_project: Path, undisturbed: Path, tmp_path: Path
) -> None:
    stage = "predict"
    words = arguments(demo_project, tmp_path)
    killed = signalled("expression/expression", 3, signal.SIGKILL, *words)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    finished = (tmp_path / ".iscale" / f"{stage}.jsonl").read_text().count("region")
    assert finished >= 2
    subprocess.run(annotate(demo_project, tmp_path), check=True, capture_output=True)
    report = json.loads((tmp_path / "report.json").read_text())
    step = next(record for record in report["steps"] if record["step"] == stage)
    assert step["reused"] == finished
    assert step["regions"] == REGIONS - finished > 0
    assert digests(tmp_path) == digests(undisturbed)


def test_an_interrupted_run_says_so_and_exits_with_130(demo_project: Path, tmp_path: Path) -> None:
    stopped = signalled("image/0", 2, signal.SIGINT, "features", str(demo_project), "--out", str(tmp_path))
    assert stopped.returncode == 130
    assert "Interrupted; what is done is kept." in stopped.stderr
    assert re.search(r"^  image/0 +stopped", describe_status(RunStore(tmp_path)), re.MULTILINE)
    assert "Traceback" not in stopped.stderr


def test_other_genes_redo_fit_and_predict_but_not_features(
    demo_project: Path, undisturbed: Path, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed, tmp_path / "out")
    run(demo_project, stage="predict", out=tmp_path / "out", region_shards=1, **OPTIONS | {"n_genes": 5})
    steps_run = {r["step"]: r for r in json.loads((tmp_path / "out" / "report.json").read_text())["steps"]}
    assert open_run(tmp_path / "out").expression.sizes["gene"] == 5
    assert steps_run["predict"]["reused"] == 0
    job = Job(demo_project, load_options(demo_project, {"out": tmp_path / "out", "region_shards": 1, **OPTIONS}))
    ledger = Ledger(job.store.ledgers, "features")
    step = next(s for s in steps(job, stage_called("features")) if s.name == "features")
    assert len(ledger.finished(step.fingerprint, step.plan)) == REGIONS
