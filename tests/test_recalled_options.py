"""What a run was made with is what later commands go on with."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from iscale import open_run
from iscale.check.project import run_check
from iscale.errors import InputError, StoreError
from iscale.options import load_options, recall_options
from iscale.pipeline.run import describe_plan, run
from iscale.pipeline.status import describe_status, run_store_at
from iscale.store.remedies import command_for, making
from iscale.store.run_store import RunStore

MADE = {"n_genes": 10, "n_clusters": [6, 8], "captures": None, "pixel_size_raw": 0.46, "memory": "9GB", "seed": 0}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    _write_report(tmp_path / "P" / "iSCALE_output", tmp_path / "P", MADE)
    return tmp_path / "P"


def _write_report(folder: Path, project: Path, options: dict[str, object]) -> None:
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({"project": str(project), "options": options}))


def test_what_decides_a_result_is_recalled_and_told(project: Path) -> None:
    options, told = recall_options(project, {})
    assert (options.n_genes, options.n_clusters, options.pixel_size_raw) == (10, (6, 8), 0.46)
    assert options.memory == "2GB", "how a command is carried out is its own matter"
    assert told.startswith("As this run was made: --pixel-size-raw 0.46 --n-genes 10 --n-clusters 6 8 (")


def test_flags_and_the_settings_file_win(project: Path) -> None:
    (project / "iscale.toml").write_text("n_clusters = [12]\n")
    options, told = recall_options(project, {"n_genes": 20, "seed": None})
    assert (options.n_genes, options.n_clusters, options.pixel_size_raw) == (20, (12,), 0.46)
    assert "n-genes" not in told
    assert "n-clusters" not in told


def test_a_flag_at_its_default_is_a_flag(project: Path) -> None:
    assert recall_options(project, {"n_genes": 1000})[0].n_genes == 1000


def test_restart_forgets(project: Path) -> None:
    options, told = recall_options(project, {}, restart=True)
    assert options.n_genes == 1000
    was = "--pixel-size-raw 0.46 --n-genes 10 --n-clusters 6 8"
    assert told == f"Not as the former run was made, which had {was}: --restart forgets it"


@pytest.mark.parametrize("text", ["", "[]", '{"options": 3}', '{"options": {"n_genes": "many"}}'])
def test_a_report_that_says_nothing_is_no_matter(project: Path, text: str) -> None:
    (project / "iSCALE_output" / "report.json").write_text(text)
    options, told = recall_options(project, {})
    assert (options.n_genes, told) == (1000, "")


def test_what_is_recalled_is_of_that_output(project: Path, tmp_path: Path) -> None:
    _write_report(tmp_path / "other", project, {"n_genes": 33})
    assert recall_options(project, {"out": tmp_path / "other"})[0].n_genes == 33


def test_an_option_that_is_wrong_is_told_as_ever(project: Path) -> None:
    with pytest.raises(InputError, match="n-genes"):
        recall_options(project, {"n_genes": 0})


def test_a_command_is_of_the_project_and_place(project: Path, tmp_path: Path) -> None:
    store = RunStore(project / "iSCALE_output")
    assert making(store, "clusters/labels") == f"iscale cluster {project}"
    _write_report(tmp_path / "other", project, {})
    assert making(RunStore(tmp_path / "other"), "tissue/cells") == f"iscale refine {project} --out {tmp_path / 'other'}"
    assert command_for(RunStore(tmp_path / "none"), "evaluate", "--hold-out", "region") == (
        "iscale evaluate PROJECT --hold-out region"
    )


def test_a_plan_goes_on_with_the_run(tiny_project: Path, tmp_path: Path) -> None:
    _write_report(tmp_path / "out", tiny_project, {"n_genes": 7})
    plan = describe_plan(tiny_project, out=tmp_path / "out")
    assert plan.startswith("As this run was made: --n-genes 7 (")
    assert "7 genes written" in plan


def test_a_damaged_model_is_made_anew_as_its_message_says(tiny_project: Path) -> None:
    out = run(tiny_project, stage="fit", n_genes=5)
    weights = out / "model" / "ensemble.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(b"torn")
    with pytest.raises(StoreError, match=f"Delete {out / 'model'} and run the project again"):
        run(tiny_project, stage="predict")
    shutil.rmtree(out / "model")
    run(tiny_project, stage="predict")
    assert weights.read_bytes() == before
    assert open_run(out).expression.sizes["gene"] == 5


def test_what_is_held_out_to_evaluate_a_run_is_not_how_it_is_made(tiny_project: Path) -> None:
    out = run(tiny_project, stage="predict", n_genes=5)
    run(tiny_project, stage="evaluate", hold_out="capture")
    run(tiny_project, stage="evaluate", hold_out="spots", seed=4)
    options, told = recall_options(tiny_project, {})
    assert (options.hold_out, options.seed) == ("auto", 0)
    assert told.startswith("As this run was made: --n-genes 5 (")
    run(tiny_project, stage="predict")
    assert sorted(path.name for path in (out / "evaluation").iterdir()) == ["trust-capture.tsv", "trust-spots.tsv"]


@pytest.mark.full
def test_a_run_that_holds_out_otherwise_is_made_so(tiny_run: Path) -> None:
    run(tiny_run, stage="report", n_plots=3, hold_out="region")
    run(tiny_run, stage="evaluate", hold_out="spots")
    assert recall_options(tiny_run, {})[0].hold_out == "region"


KILLED = """
import os, signal, sys
import iscale
from iscale.engine.watchers import Silence

class Killer(Silence):
    def start(self, step, total, done):
        if step == sys.argv[2]:
            os.kill(os.getpid(), signal.SIGKILL)
        super().start(step, total, done)

iscale.run(sys.argv[1], stage="predict", watcher=Killer(), n_genes=5, n_clusters=[3])
"""


@pytest.mark.parametrize("step", ["image/0", pytest.param("features", marks=pytest.mark.full)])
def test_a_killed_run_is_remembered_and_said_to_be_stopped(tiny_project: Path, step: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tiny_project), step], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    told = describe_status(run_store_at(tiny_project))
    assert "stopped without a word: process" in told
    assert "running" not in told
    options, told = recall_options(tiny_project, {})
    assert (options.n_genes, options.n_clusters) == (5, (3,))
    assert "--n-genes 5 --n-clusters 3" in told
    out = run(tiny_project, stage="predict")
    assert open_run(out).expression.sizes["gene"] == 5


def test_a_check_says_what_it_recalled(tiny_project: Path) -> None:
    _write_report(tiny_project / "iSCALE_output", tiny_project, {"n_genes": 3})
    report = run_check(tiny_project)
    assert report.facts["options"].startswith("As this run was made: --n-genes 3")
    assert "options" not in run_check(tiny_project, {"n_genes": 3}).facts


def test_paths_are_those_of_the_file_or_of_where_one_is(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (project / "iscale.toml").write_text('out = "results"\nweights = "../nets"\nencoder = "precomputed:f.npy"\n')
    options = load_options(project, {"weights": Path("mine")})
    assert options.out == str(project / "results")
    assert options.weights == tmp_path / "mine", "so a command elsewhere recalls the same"
    assert options.encoder == f"precomputed:{project / 'f.npy'}"
    assert load_options(Path("P"), {"out": "s3://bucket/run"}).out == "s3://bucket/run"
