"""Who works on a run: plans are made for the workers that will be there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from distributed import LocalCluster

from iscale.engine.dask_workers import remote_driver
from iscale.engine.machine import CARD_EXPECTED, here
from iscale.engine.plan import BASELINE_BYTES, single_task
from iscale.engine.step import nothing
from iscale.errors import InputError, MemoryBudgetError
from iscale.options import Options
from iscale.plan.workers import plan_workers

POOL = """
  cores: 4
  workers: 2
  memory: 8GB
  walltime: "04:00:00"
  jobs: 3
"""
CARDS = """
gpu:
  cores: 4
  workers: 1
  gpus: 1
  memory: 32GB
  walltime: "04:00:00"
  jobs: 5
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "slurm.yaml"
    path.write_text(f"scheduler: slurm\ncpu:{POOL}{CARDS}")
    return path


def test_this_process_is_one_worker_with_the_whole_budget() -> None:
    workers = plan_workers(Options(memory="3GB"))
    assert (workers.cpu.workers, workers.cpu.memory_bytes) == (1, 3 * 10**9)
    assert workers.gpu == workers.cpu == workers.of("here")
    assert plan_workers(Options(dask="local", workers=7)).cpu.workers == 7


def test_workers_of_a_batch_system_are_planned_by_its_pools(site: Path) -> None:
    workers = plan_workers(Options(dask=str(site)))
    assert (workers.cpu.workers, workers.gpu.workers, workers.device) == (6, 5, "auto")
    assert workers.cpu.memory_bytes == pytest.approx(4e9, rel=0.02)
    assert workers.of("gpu").memory_bytes == pytest.approx(32e9, rel=0.01)
    assert plan_workers(Options(dask=str(site), memory="1GB")).cpu.memory_bytes == 10**9
    assert plan_workers(Options(dask=str(site), memory="100GB")).cpu == workers.cpu
    without = plan_workers(Options(dask=str(site), device="cpu"))
    assert (without.gpu, without.device) == (workers.cpu, "cpu")


def test_a_card_that_nobody_has_is_refused_before_any_work(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.write_text(f"scheduler: slurm\ncpu:{POOL}")
    with pytest.raises(InputError, match="has no pool of cards"):
        plan_workers(Options(dask=str(site), device="cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="torch sees no CUDA device on "):
        plan_workers(Options(device="cuda"))


def test_a_worker_that_was_started_for_a_card_does_not_compute_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert here("auto") == "cpu"
    monkeypatch.setenv(CARD_EXPECTED, "1")
    assert here("cpu") == "cpu"
    with pytest.raises(InputError, match="torch sees no CUDA device on "):
        here("auto")


def test_a_scheduler_that_runs_is_asked_for_its_workers() -> None:
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        memory_limit="1GB",
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
    ) as cluster:
        workers = plan_workers(Options(dask=cluster.scheduler_address, memory="900MB"))
        assert (workers.cpu.workers, workers.cpu.memory_bytes, workers.device) == (2, 9 * 10**8, "auto")
        with pytest.raises(InputError, match=r"a worker of .* may use 1 GB only"):
            plan_workers(Options(dask=cluster.scheduler_address, memory="2GB"))


def test_workers_that_would_compute_several_regions_at_a_time_are_refused() -> None:
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=3,
            processes=False,
            protocol="tcp",
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
        ) as cluster,
        pytest.raises(InputError, match="a worker has 3 threads"),
    ):
        remote_driver(cluster.scheduler_address, nothing)


def test_too_little_memory_of_a_job_is_to_be_raised_where_it_is_set(site: Path) -> None:
    resources = plan_workers(Options(dask=str(site))).of("cpu")
    with pytest.raises(MemoryBudgetError, match=r"in .*slurm\.yaml, cpu\.memory, so that each of 2 workers has 9"):
        single_task("fit", 9 * 10**9 - BASELINE_BYTES, resources)
    lowered = plan_workers(Options(dask=str(site), memory="1GB")).of("cpu")
    with pytest.raises(MemoryBudgetError, match=r"Give it more: --memory 9\.0GB"):
        single_task("fit", 9 * 10**9 - BASELINE_BYTES, lowered)


@pytest.mark.parametrize(
    ("dask", "said"),
    [("slurm", "neither local, nor an address"), ("missing.json", "there is no such file"), ("x.txt", "neither local")],
)
def test_what_is_no_place_of_workers_is_refused_at_once(dask: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        plan_workers(Options(dask=dask))
