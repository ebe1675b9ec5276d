"""Scripts that run everything in one allocation: launched on a real SLURM, and with a stand-in for LSF's blaunch."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import dask
import numpy as np
import pytest

import iscale
from iscale.batch.clusters import MALLOC
from iscale.engine.dask_workers import SETTINGS, thread_variables

ROOT = Path(__file__).parent.parent.parent
SBATCH = ROOT / "deploy" / "slurm" / "run.sbatch"
BSUB = ROOT / "deploy" / "lsf" / "run.bsub"
BOTH = pytest.mark.parametrize("script", [SBATCH, BSUB], ids=lambda path: path.name)
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

# As rsh: a shell on the other side reads the words anew, and knows nothing of this side's environment.
BLAUNCH = """#!/bin/bash
echo "$1" >>"$(dirname "$0")/hosts"
shift
exec env -i HOME="$HOME" PATH=/usr/bin:/bin sh -c "$*"
"""


def edited(script: Path, folder: Path, changes: dict[str, str]) -> Path:
    """The script as a user would have edited it."""
    text = script.read_text()
    for old, new in changes.items():
        assert text.count(f"\n{old}\n") == 1, old
        text = text.replace(f"\n{old}\n", f"\n{new}\n")
    copy = folder / script.name
    copy.write_text(text)
    return copy


def submit(script: Path, *directives: str) -> str:
    """Submit it from its own folder; the job's number."""
    command = ["sbatch", "--parsable", "--time=10", *directives, script.name]
    return subprocess.check_output(command, cwd=script.parent, env=os.environ | {"PATH": PATH}, text=True).strip()


def state(job: str) -> tuple[str, int]:
    """What SLURM says of a job: its state and its exit code."""
    text = subprocess.check_output(["scontrol", "show", "job", "--oneliner", job], text=True)
    found = re.search(r"JobState=(\w+) .*? ExitCode=(\d+):", text)
    assert found is not None, text
    return found[1], int(found[2])


def wait_for_end(job: str, seconds: float = 600) -> tuple[str, int]:
    """State and exit code of a job once it is over."""
    end = time.monotonic() + seconds
    while state(job)[0] in ("PENDING", "RUNNING", "COMPLETING"):
        assert time.monotonic() < end, f"not over within {seconds} s"
        time.sleep(0.3)
    return state(job)


def log_of(script: Path, job: str) -> str:
    path = script.parent / f"iscale-{job}.log"
    return path.read_text() if path.exists() else ""


def workers_left(project: Path) -> list[str]:
    """Command lines of schedulers and workers that were started for a project."""
    lines = subprocess.check_output(["ps", "-eo", "args"], text=True).splitlines()
    return [line for line in lines if f"{project}/.iscale-scheduler" in line]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    from iscale.demo.synthetic import write_demo

    write_demo(tmp_path / "my project", side_px=2048)
    return tmp_path / "my project"


@BOTH
def test_workers_are_set_up_as_the_programs_own(script: Path) -> None:
    pairs = re.findall(r"[ \"](\w+_\w*)=(\"[^\"]*\"|'[^']*'|[\w.]+)", script.read_text())
    given = {name: value.strip("\"'") for name, value in pairs if name.startswith(("DASK_", "OMP_", "MALLOC_"))}
    for name in [*thread_variables(1), *MALLOC]:
        assert f"{name}=" in script.read_text()
    assert {name: value for name, value in given.items() if name.startswith("MALLOC_")} == MALLOC
    assert given["OMP_WAIT_POLICY"] == thread_variables(1)["OMP_WAIT_POLICY"]
    found = dask.config.collect_env(given)
    for key, value in SETTINGS.items():
        assert dask.config.get(key, config=found) == value, key
    assert sum(name.startswith("DASK_") for name in given) == len(SETTINGS)


@BOTH
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is missing: apt-get install shellcheck")
    checked = subprocess.run(["shellcheck", script], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"SLURM_JOB_ID": ""}, "Submit it: sbatch run.sbatch"),
        ({"PROJECT": "/nowhere"}, "/nowhere is not a folder"),
        ({"SLURM_MEM_PER_NODE": ""}, "#SBATCH --mem=64G"),
        ({"SLURM_MEM_PER_NODE": "5000"}, "5000 MB a node, less 4 GB, leave 452 MB for each of 2 workers"),
        ({"PATH": "/usr/bin:/bin"}, "no 'iscale' on"),
    ],
)
def test_what_was_not_edited_is_told(tmp_path: Path, variables: dict[str, str], told: str) -> None:
    job = {"SLURM_JOB_ID": "1", "SLURM_NNODES": "1", "SLURM_NTASKS": "1", "SLURM_CPUS_PER_TASK": "4"}
    given = {"PATH": PATH, "PROJECT": str(tmp_path), "SLURM_JOB_NODELIST": "here", "SLURM_MEM_PER_NODE": "64000"}
    ran = subprocess.run(["bash", SBATCH], env=job | given | variables, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 2
    assert told in ran.stderr


@pytest.mark.cluster
def test_several_tasks_are_told_to_stop_and_go_on(slurm: dict[str, str], project: Path, tmp_path: Path) -> None:
    options = "options=(--n-genes 8 --n-plots 1)"
    script = edited(
        SBATCH,
        tmp_path,
        {
            'project="${PROJECT:-/path/to/PROJECT}"': f"project={shlex.quote(str(project))}",
            "options=()": options,
            "reserve_gb=4": "reserve_gb=1",
            'interface=""': 'interface="lo"',
        },
    )
    shape = ["--ntasks-per-node=2", "--ntasks=2", "--cpus-per-task=1", "--mem=5G"]

    job = submit(script, *shape)
    end = time.monotonic() + 600
    while "tissue/mask: 1" not in log_of(script, job):
        assert state(job)[0] in ("PENDING", "RUNNING"), log_of(script, job)
        assert time.monotonic() < end, log_of(script, job)
        time.sleep(0.1)
    subprocess.run(["scancel", "--batch", "--signal=TERM", job], check=True)
    ended, code = wait_for_end(job)
    assert (ended, code > 0) == ("FAILED", True)
    log = log_of(script, job)
    assert "workers: 2, memory of each: 2048MiB" in log
    assert "2 workers at tcp://127.0.0.1:" in log
    assert "stopped before the end. What is done is kept" in log
    assert workers_left(project) == []

    job = submit(script, *shape)
    assert wait_for_end(job) == ("COMPLETED", 0), log_of(script, job)
    assert "tissue/mask: reused" in log_of(script, job)
    assert workers_left(project) == []
    assert list(project.glob(".iscale-scheduler*")) == []
    values = iscale.open_run(project).expression.values
    assert values.shape[0] == 8
    assert np.isfinite(values).any()


@pytest.mark.cluster
def test_one_task_starts_workers_of_its_own(slurm: dict[str, str], tiny_project: Path, tmp_path: Path) -> None:
    script = edited(
        SBATCH,
        tmp_path,
        {
            'project="${PROJECT:-/path/to/PROJECT}"': f"project={tiny_project}",
            "options=()": "options=(--n-plots 1)",
            "cores_per_worker=2": "cores_per_worker=1",
        },
    )
    job = submit(script, "--cpus-per-task=2", "--mem=8G")
    assert wait_for_end(job) == ("COMPLETED", 0), log_of(script, job)
    assert "workers: 2, memory of each: 2048MiB" in log_of(script, job)
    assert np.isfinite(iscale.open_run(tiny_project).expression.values).any()


@pytest.mark.cluster
def test_lsf_script_starts_workers_on_every_host(tiny_project: Path, tmp_path: Path) -> None:
    (tmp_path / "blaunch").write_text(BLAUNCH)
    (tmp_path / "blaunch").chmod(0o755)
    script = edited(
        BSUB,
        tmp_path,
        {
            'project="${PROJECT:-/path/to/PROJECT}"': f"project={tiny_project}",
            "options=()": "options=(--n-plots 1)",
            "host_gb=64": "host_gb=6",
            'interface=""': 'interface="lo"',
        },
    )
    job = {"LSB_JOBID": "7", "LSB_MCPU_HOSTS": "hostA 2 hostB 2", "PATH": f"{tmp_path}:{PATH}"}
    with script.open() as text:
        ran = subprocess.run(["bash"], stdin=text, env=os.environ | job, cwd=tmp_path, timeout=600)
    log = (tmp_path / "iscale-7.log").read_text()
    assert ran.returncode == 0, log
    assert "job 7 on hostA hostB: workers: 2, memory of each: 2048MiB" in log
    assert "2 workers at tcp://127.0.0.1:" in log
    assert sorted((tmp_path / "hosts").read_text().split()) == ["hostA", "hostB"]
    assert list(tiny_project.glob(".iscale-scheduler*")) == []
    assert np.isfinite(iscale.open_run(tiny_project).expression.values).any()
