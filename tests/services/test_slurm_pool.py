"""A pool of jobs on a real SLURM: what its workers are like, and what becomes of jobs that are lost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
import yaml
from distributed import Client, get_worker

from iscale.batch.clusters import job_cluster
from iscale.batch.settings import Site, read_site
from iscale.engine.dask_workers import SETTINGS

pytestmark = pytest.mark.cluster

POOL = {"queue": "cpu", "cores": 2, "workers": 1, "memory": "1GB", "walltime": "00:10:00", "jobs": 2}
SITE = {
    "scheduler": "slurm",
    "interface": "lo",
    # Workers import this module to run its functions.
    "environment": ["export GREETING=hello", f"export PYTHONPATH='{Path(__file__).parent}'"],
    "cpu": POOL,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "slurm.yaml"
    path.write_text(yaml.safe_dump(SITE))
    return path


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    return tmp_path / "the logs"


@pytest.fixture
def client(slurm: dict[str, str], file: Path, logs: Path) -> Iterator[Client]:
    """Connected to a cluster that is to have two jobs, and has them."""
    with job_cluster(read_site(file), "cpu", logs) as cluster, Client(cluster) as client:
        assert jobs() == {}
        cluster.adapt(minimum_jobs=2, maximum_jobs=2)
        client.wait_for_workers(2, timeout=600)
        yield client


def jobs(*states: str) -> dict[str, str]:
    """States of the jobs in the queue, by id."""
    text = subprocess.check_output(["squeue", "--noheader", "--format=%i %T"], text=True)
    found = dict(line.split() for line in text.splitlines())
    return {job: state for job, state in found.items() if state in states or not states}


def until(what: Callable[[], Any], seconds: float = 600) -> float:
    """Wait until something holds; seconds that it took."""
    start = time.monotonic()
    while not what():
        assert time.monotonic() - start < seconds, f"not within {seconds} s; jobs: {jobs()}"
        time.sleep(0.5)
    return time.monotonic() - start


def surroundings(_: int) -> dict[str, Any]:
    time.sleep(0.3)
    worker = get_worker()
    return {
        "environ": dict(os.environ),
        "threads": worker.state.nthreads,
        "limit": worker.memory_manager.memory_limit,
        "settings": {k: dask.config.get(k) for k in SETTINGS if k.startswith("distributed.worker.")},
        "lifetime": worker.lifetime,
    }


def test_workers_are_as_the_file_says(client: Client, logs: Path) -> None:
    site = Site.model_validate(SITE)
    told = client.gather(client.map(surroundings, range(8), pure=False))
    assert len({t["environ"]["SLURM_JOB_ID"] for t in told}) == 2
    for t in told:
        environ = t["environ"]
        assert t["threads"] == 1
        assert t["limit"] == site.cpu.worker_bytes
        assert environ["OMP_NUM_THREADS"] == environ["ZARR_THREADING__MAX_WORKERS"] == "2"
        assert environ["GREETING"] == "hello"
        assert environ["SLURM_CPUS_PER_TASK"] == "2"
        assert int(environ["MALLOC_TRIM_THRESHOLD_"]) > 2**20
        assert t["settings"] == {k: v for k, v in SETTINGS.items() if k.startswith("distributed.worker.")}
        assert 420 - 1 <= t["lifetime"] <= 540, "of 600 s, less a margin of 60"
    assert {log.name for log in logs.iterdir()} == {f"iscale-cpu-{job}.log" for job in jobs()}
    assert client.dashboard_link.startswith("http://127.0.0.1:")


def test_a_job_that_is_cancelled_is_replaced(client: Client) -> None:
    before = jobs("RUNNING")
    client.cluster.scheduler.allowed_failures = 3  # as for any user of dask; iscale's own driver counts for itself
    tasks = client.map(surroundings, range(40), pure=False)
    subprocess.run(["scancel", sorted(before)[0]], check=True)
    assert len(client.gather(tasks)) == 40
    took = until(lambda: len(jobs("RUNNING").keys() - before) == 1 and len(jobs("RUNNING")) == 2)
    print(f"replaced after {took:.0f} s")
    client.wait_for_workers(2, timeout=600)


def test_jobs_end_with_the_cluster(slurm: dict[str, str], file: Path, logs: Path) -> None:
    with job_cluster(read_site(file), "cpu", logs) as cluster, Client(cluster) as client:
        cluster.scale(jobs=1)
        client.wait_for_workers(1, timeout=600)
    until(lambda: not jobs())


HOLDER = """
import sys, time
from pathlib import Path
from distributed import Client
from iscale.batch.clusters import job_cluster
from iscale.batch.settings import read_site

cluster = job_cluster(read_site(Path(sys.argv[1])), "cpu", Path(sys.argv[2]), death_timeout_s=10)
client = Client(cluster)
cluster.scale(jobs=2)
client.wait_for_workers(2, timeout=600)
print("ready", flush=True)
time.sleep(600)
"""


def test_jobs_end_by_themselves_when_their_scheduler_was_killed(slurm: dict[str, str], file: Path, logs: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(file), str(logs)], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"ready\n"
            assert len(jobs("RUNNING")) == 2
        finally:
            holder.kill()
    took = until(lambda: not jobs())
    print(f"ended after {took:.0f} s")


def test_a_job_that_starts_after_its_scheduler_is_gone_ends_too(
    slurm: dict[str, str], file: Path, logs: Path, tmp_path: Path
) -> None:
    with job_cluster(read_site(file), "cpu", logs, death_timeout_s=10) as cluster:
        script = tmp_path / "job.sh"
        script.write_text(cluster.job_script())
    subprocess.run(["sbatch", str(script)], check=True)
    until(lambda: jobs("RUNNING"))
    took = until(lambda: not jobs())
    print(f"ended after {took:.0f} s")


def test_what_slurm_says_to_a_job_that_it_refuses_is_kept(slurm: dict[str, str], logs: Path) -> None:
    site = Site.model_validate(SITE | {"cpu": POOL | {"queue": "nowhere"}})
    with job_cluster(site, "cpu", logs) as cluster:
        cluster.adapt(minimum_jobs=1, maximum_jobs=1)
        until(lambda: cluster.refusals)
        time.sleep(2)
        assert len(cluster.refusals) == 1, "it is not asked again and again"
        assert "invalid partition specified: nowhere" in cluster.refusals[0]


def test_a_job_of_the_gpu_pool_has_a_card(slurm: dict[str, str], logs: Path) -> None:
    site = Site.model_validate(SITE | {"gpu": POOL | {"queue": "gpu", "gpus": 1}})
    with job_cluster(site, "gpu", logs) as cluster, Client(cluster) as client:
        cluster.scale(jobs=1)
        client.wait_for_workers(1, timeout=600)
        assert client.submit(surroundings, 0).result()["environ"]["CUDA_VISIBLE_DEVICES"] == "0"
