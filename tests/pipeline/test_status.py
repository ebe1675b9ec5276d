"""How a run goes, as another shell reads it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from iscale.cli.app import app
from iscale.engine.plan import Resources, plan_regions
from iscale.engine.step import Step, nothing
from iscale.engine.watchers import Silence
from iscale.errors import InputError
from iscale.geometry import Region
from iscale.pipeline import status
from iscale.pipeline.status import StatusFile, describe_status, run_store_at
from iscale.store.run_store import RunStore


def a_step(name: str) -> Step:
    plan = plan_regions(name, (4, 4), (2, 2), lambda _: 1, Resources(2**31, shards_per_side=1))
    return Step(name, nothing, None, plan, "f")


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    store = RunStore(tmp_path / "iSCALE_output")
    store.create()
    return store


def test_a_run_at_work_is_told_with_rate_time_left_and_failures(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status.time, "time", lambda: clock[0])
    clock = [1000.0]
    told = StatusFile(store, [a_step("image/0"), a_step("features"), a_step("predict")], Silence())
    told.reuse("image/0")
    told.start("features", 4, 1)
    clock[0] += 60
    told.reach("features", 2.5)
    told.fail("features", Region(0, 2, 2, 4), "ValueError: nonsense (on node7)")
    with store.lock():
        lines = describe_status(store).splitlines()
    assert lines[0] == f"run: {store.place}"
    assert lines[1].startswith("at work: process ")
    assert lines[2] == "last command: iscale run; its steps:"
    assert lines[3] == "  image/0               done     4 of 4 regions, done before"
    assert lines[4] == "  features              running  2.5 of 4 regions, 1.5/min, 0:01:00 elapsed, 0:01:00 left"
    assert lines[5] == "  predict               waiting  0 of 4 regions"
    assert lines[6] == "failed: features: y 0:2, x 2:4: ValueError: nonsense (on node7)"


def test_a_run_that_ended_or_was_killed_is_told_as_such(store: RunStore) -> None:
    told = StatusFile(store, [a_step("features")], Silence())
    told.start("features", 4, 0)
    assert re.search(r"stopped without a word: process \d+ on .*; the same command continues", describe_status(store))
    told.reach("features", 4.0)
    told.stop("features")
    told.end("done")
    assert re.search(r"^done, 0:00:0\d ago$", describe_status(store), re.MULTILINE)


def test_a_step_that_was_interrupted_is_stopped_and_one_with_failures_failed(store: RunStore) -> None:
    told = StatusFile(store, [a_step("image/0"), a_step("features")], Silence(), "features")
    told.start("image/0", 4, 0)
    told.stop("image/0")
    told.end("interrupted")
    shown = describe_status(store)
    assert "last command: iscale features;" in shown
    assert "  image/0               stopped  0 of 4 regions" in shown
    told.start("features", 4, 0)
    told.fail("features", Region(0, 2, 2, 4), "ValueError: nonsense")
    told.stop("features")
    assert "  features              failed   0 of 4 regions" in describe_status(store)


def test_a_run_is_starting_until_it_tells_of_its_steps(store: RunStore) -> None:
    with store.lock():
        assert re.search(r"^starting: process \d+ on ", describe_status(store), re.MULTILINE)
    StatusFile(store, [a_step("features")], Silence()).end("done")
    with store.lock():
        shown = describe_status(store)
    assert re.search(r"^starting: process \d+ on .*; the command before: done, 0:00:0\d ago$", shown, re.MULTILINE)


def test_a_run_is_found_before_it_has_notes(tmp_path: Path) -> None:
    folder = tmp_path / "iSCALE_output"
    with RunStore(folder).lock():
        assert run_store_at(tmp_path).folder == folder


def test_a_store_that_cannot_be_written_does_not_stop_the_run(store: RunStore) -> None:
    (store.notes / "status.json.new").mkdir(parents=True)
    told = StatusFile(store, [a_step("features")], Silence())
    told.start("features", 4, 0)
    with pytest.raises(InputError, match="no run has told of itself"):
        describe_status(store)


def test_a_file_that_is_not_ours_is_one_clear_error(store: RunStore) -> None:
    (store.notes / "status.json").write_text(json.dumps({"steps": [{"other": 1}]}))
    with pytest.raises(InputError, match="no run has told of itself"):
        describe_status(store)


def test_the_command_finds_the_run_by_project_output_or_store(store: RunStore) -> None:
    StatusFile(store, [a_step("features")], Silence()).end("interrupted")
    for path in (store.folder.parent, store.folder, store.folder / "run.zarr"):
        shown = CliRunner().invoke(app, ["status", str(path)])
        assert shown.exit_code == 0
        assert "interrupted, 0:00:0" in shown.output
    with pytest.raises(InputError, match="no run here"):
        run_store_at(store.folder.parent / "elsewhere")
