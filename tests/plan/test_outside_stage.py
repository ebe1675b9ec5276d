"""A stage of another package: found by the command line, the plan, ``info``, ``status``, the report; and resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import iscale
from iscale import stages
from iscale.errors import InputError
from iscale.store.run_store import RunStore

MODULE = """
import numpy as np
from iscale.engine.ledger import fingerprint
from iscale.engine.plan import plan_regions
from iscale.engine.step import Step
from iscale.stages import Stage
from iscale.store import layout

STAGE = Stage(
    "brightness",
    "Measure how bright superpixels are.",
    "bright_stage",
    needs=("ingest", "tissue"),
    fills={"brightness": ("ingest",)},
    options=("pixel_size",),
    notices=("brightness",),
    results=True,
)


def kernel(store, region):
    pixels = store.array("image/0")[(slice(None), *region.scaled(16).slices)].astype("float32")
    c, h, w = pixels.shape
    store.write("brightness/mean", region, pixels.reshape(c, h // 16, 16, w // 16, 16).mean(axis=(0, 2, 4)))
    return None


def check(job, alone):
    if alone:
        job.notices.append("brightness is measured, not modelled")


def steps(job, workers, made):
    shape, side = job.grid.superpixel_shape, layout.SHARD_SUPERPIXELS

    def prepare():
        job.store.make_group("brightness", {})
        job.store.make(layout.plane("brightness/mean", shape))

    yield Step(
        name="brightness/mean",
        kernel=kernel,
        context=job.store,
        plan=plan_regions("brightness/mean", shape, (side, side), lambda s: 12288 * s[0] * s[1], workers.of("cpu")),
        fingerprint=fingerprint("brightness", {"version": 1}, made["ingest"]),
        prepare=prepare,
        note="of all colours",
    )
"""


def install(folder: Path, points: str) -> None:
    """An installed package that offers stages."""
    (folder / "bright_stage.py").write_text(MODULE)
    info = folder / "bright-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bright\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[iscale.stages]\n{points}\n")


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """``iscale`` where that package is installed."""
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    line = [sys.executable, "-m", "iscale", *words]
    return subprocess.run(line, env={**os.environ, "PYTHONPATH": path}, text=True, capture_output=True, check=False)


def test_a_stage_from_outside_is_a_stage_everywhere(tiny_run: Path, tmp_path: Path) -> None:
    package = tmp_path / "site"
    package.mkdir()
    install(package, "brightness = bright_stage:STAGE")
    project, out = str(tiny_run), tiny_run / "iSCALE_output"

    assert "Measure how bright superpixels are." in command(package, "--help").stdout
    plan = command(package, "run", project, "--dry-run").stdout
    assert [line for line in plan.splitlines() if "brightness/mean" in line and "of all colours" in line]

    first = command(package, "brightness", project)
    assert first.stdout == f"brightness: done, in {out}\n", first.stderr
    assert "brightness is measured, not modelled" in first.stderr
    assert "brightness: mean (y, x: 64 x 64) float16" in command(package, "info", project).stdout
    assert "brightness/mean" in command(package, "status", project).stdout

    again = command(package, "brightness", project)
    assert "Nothing to do: all 5 steps done already." in again.stderr, again.stderr
    assert "not modelled" not in again.stderr  # told once

    whole = command(package, "run", project)
    assert whole.returncode == 0, whole.stderr
    assert "brightness/mean: reused" in whole.stderr.replace(" to brightness/mean", "\nbrightness/mean"), whole.stderr
    assert "brightness/mean" in {record["step"] for record in json.loads((out / "report.json").read_text())["steps"]}
    assert "brightness/mean" in (out / "report.html").read_text()

    values = RunStore(out).array("brightness/mean")[...]
    assert 0 < values.min() < values.max() <= 255
    without = iscale.open_run(tiny_run).describe()  # here the package is not installed
    assert not [line for line in without.splitlines() if line.startswith("brightness:")]


def test_another_image_makes_what_it_fills_outdated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "brightness = bright_stage:STAGE")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "bright_stage", raising=False)
    stages.stages.cache_clear()
    try:
        assert "brightness" in stages.made_of(stages.stage_called("ingest"))
        assert "brightness" not in stages.made_of(stages.stage_called("tissue"))
        assert stages.command_making("brightness") == "brightness"
        assert list(stages.stages())[-2:] == ["brightness", "report"]
    finally:
        stages.stages.cache_clear()


@pytest.mark.parametrize(
    ("points", "told"),
    [
        ("gone = nowhere:X", r"stage gone \(nowhere:X of bright\) cannot be loaded: ModuleNotFoundError"),
        ("steps = bright_stage:steps", r"stage steps .* is no iscale\.stages\.Stage"),
        ("a = bright_stage:STAGE\nb = bright_stage:STAGE", r"there is a stage brightness already"),
    ],
)
def test_what_cannot_be_a_stage_is_told(
    points: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, points)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "bright_stage", raising=False)
    stages.stages.cache_clear()
    try:
        with pytest.raises(InputError, match=told) as error:
            stages.stages()
        assert error.value.remedy
    finally:
        stages.stages.cache_clear()
    failed = command(tmp_path, "run", "P")
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr


def test_every_option_that_a_stage_names_is_one() -> None:
    from iscale.options import Options

    assert set(stages.deciding()) <= set(Options.model_fields)
