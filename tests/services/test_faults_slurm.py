"""Whole runs on a real SLURM whose jobs are cancelled, reach their ends, are refused or die at once."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from disturbed import Started, check_same, recorded, reused, until

pytestmark = pytest.mark.cluster

POOL = {"queue": "cpu", "cores": 1, "memory": "2200MB", "walltime": "00:10:00", "jobs": 2}


@pytest.fixture
def out(tmp_path: Path, begun: Path) -> Path:
    """An output folder in which features are next."""
    return Path(shutil.copytree(begun, tmp_path / "out"))


@pytest.fixture
def start(slurm: dict[str, str], demo_project: Path, out: Path, tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts runs on a pool of these settings, and ends those that a test leaves behind."""
    runs: list[Started] = []

    def start(patch: str = "", **pool: Any) -> Started:
        file = tmp_path / f"slurm-{len(runs)}.yaml"
        file.write_text(yaml.safe_dump({"scheduler": "slurm", "interface": "lo", "cpu": POOL | pool}))
        runs.append(Started(demo_project, out, ("--dask", str(file)), told=tmp_path / f"told-{len(runs)}", patch=patch))
        return runs[-1]

    yield start
    for run in runs:
        run.process.kill()
        run.process.wait()


def jobs() -> list[str]:
    """Jobs in the queue."""
    return subprocess.check_output(["squeue", "--noheader", "--format=%i"], text=True).split()


def logs(out: Path) -> list[Path]:
    """What jobs printed, a file each."""
    return sorted((out / "logs").glob("iscale-cpu-*.log"))


@pytest.mark.parametrize("pool", [{}, {"cores": 2, "workers": 2, "memory": "4400MB"}], ids=["alone", "two in each"])
def test_a_job_that_is_cancelled(
    start: Callable[..., Started], out: Path, undisturbed: Path, pool: dict[str, Any]
) -> None:
    run = start(**pool)
    run.until_regions(2)
    subprocess.run(["scancel", jobs()[0]], check=True)
    run.ends()
    check_same(out, undisturbed)
    until(lambda: not jobs())


def test_a_worker_that_reaches_its_lifetime(
    start: Callable[..., Started], out: Path, tmp_path: Path, undisturbed: Path
) -> None:
    # No walltime is that short: the first worker is told to leave after seconds, while it computes features.
    first = tmp_path / "first"
    stay = f"if [[ -e '{first}' ]]; then STAY=300; else STAY=8; touch '{first}'; fi"
    patch = "import iscale.batch.clusters as c; c.lifetime = lambda walltime_s: ('${STAY}', 1)"
    run = start(patch=patch, jobs=1, environment=[stay])
    run.ends()
    assert "worker-lifetime-reached" in logs(out)[0].read_text()
    assert len(logs(out)) == 2, "the job that ended was replaced"
    check_same(out, undisturbed)


def test_a_job_that_slurm_ends_at_its_time_limit(
    start: Callable[..., Started], out: Path, tmp_path: Path, undisturbed: Path
) -> None:
    # No limit is below a minute: most of it is slept away, by the first job.
    slept = tmp_path / "slept"
    nap = f"[[ -e '{slept}' ]] || {{ touch '{slept}'; sleep 52; }}"
    run = start(jobs=1, directives=["--time=1"], environment=[nap])
    run.ends()
    told = subprocess.check_output(["scontrol", "show", "job", logs(out)[0].stem.rsplit("-", 1)[1]], text=True)
    check_same(out, undisturbed)
    if "JobState=TIMEOUT" not in told:
        pytest.skip("SLURM looks at limits twice a minute only: the run was through before it did")
    assert len(logs(out)) > 1


def test_jobs_that_are_refused(start: Callable[..., Started], out: Path) -> None:
    told = start(queue="nowhere").ends(2)
    assert "slurm refused a job of the cpu pool" in told
    assert "invalid partition specified: nowhere" in told
    assert jobs() == []


def test_jobs_that_die_at_once(start: Callable[..., Started], out: Path) -> None:
    told = start(environment=["echo there is no module of this name", "exit 1"]).ends(2)
    assert "ended before a worker of theirs came" in told
    assert "    there is no module of this name\n" in told
    assert "Mend `environment`" in told
    assert len(logs(out)) < 12, "not one job after the other"


def test_the_program_itself_is_killed(start: Callable[..., Started], out: Path, undisturbed: Path) -> None:
    run = start()
    run.until_regions(2)
    assert len(jobs()) == 2
    run.process.kill()
    run.process.wait()
    took = until(lambda: not jobs())
    print(f"jobs ended after {took:.0f} s")
    until(lambda: not run.left(), lambda: "\n".join(run.left()))
    done = len(recorded(out, "features"))
    start().ends()
    assert reused(out) == done
    check_same(out, undisturbed)


def test_no_job_is_started_for_what_is_done(start: Callable[..., Started], out: Path, undisturbed: Path) -> None:
    shutil.rmtree(out)
    shutil.copytree(undisturbed, out)
    told = start().ends()
    assert "pool" not in told
    assert not logs(out)
