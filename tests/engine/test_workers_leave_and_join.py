"""What becomes of a step when workers leave and come, and when the scheduler goes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster
from faulty import REGIONS, a_step, all_once, calls, recorded, run, threads_cluster, until, work

from iscale.engine import assignments, dask_driver, dask_workers
from iscale.engine.assignments import RegionQueue
from iscale.engine.dask_driver import DaskDriver
from iscale.engine.plan import Resources, plan_regions
from iscale.errors import ClusterError, InputError, RegionsFailedError
from iscale.geometry import Region
from iscale.plan.workers import open_driver

LIMIT = 600 * 2**20


def test_a_worker_that_retires_leaves_its_region_to_others(threads: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "seconds").write_text("0.1")
    with Client(threads) as client:
        driver = DaskDriver(client)
        leaving = driver.workers[0]

        def retire() -> None:
            until(lambda: len(calls(tmp_path)) > 3)
            threads.sync(threads.scheduler.retire_workers, [leaving])

        helper = threading.Thread(target=retire)
        helper.start()
        run(a_step(tmp_path), tmp_path, driver)
        helper.join()
        assert leaving not in driver.workers
    assert list(recorded(tmp_path).values()) == [1] * REGIONS


def test_when_all_workers_have_left_those_that_come_later_go_on(
    threads: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_driver, "GONE_S", 0.2)
    (tmp_path / "seconds").write_text("0.2")
    with Client(threads) as client:

        def change() -> None:
            until(lambda: len(calls(tmp_path)) > 3)
            threads.scale(0)
            until(lambda: not threads.scheduler.workers)
            threads.scale(2)

        helper = threading.Thread(target=change)
        helper.start()
        run(a_step(tmp_path), tmp_path, DaskDriver(client))
        helper.join()
    assert list(recorded(tmp_path).values()) == [1] * REGIONS


def until_left(folder: Path, region: Region) -> int:
    """As `work`, and end once it was seen that the worker that computes it leaves."""
    left = len(list(folder.glob("left-*")))
    area = work(folder, region)
    until(lambda: len(list(folder.glob("left-*"))) > left)
    return area


def test_a_region_that_takes_longer_than_any_worker_stays_is_given_up(
    threads: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_driver, "GONE_S", 0.2)
    monkeypatch.setattr(dask_driver, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(assignments, "MOST_LEAVES", 2)
    numbers, after_leave, over = count(), RegionQueue.after_leave, threading.Event()

    def seen(self: RegionQueue, *what: Any) -> bool:
        (tmp_path / f"left-{next(numbers)}").touch()
        return after_leave(self, *what)

    def change() -> None:
        while not over.wait(0.5):
            threads.sync(threads.scheduler.retire_workers, list(threads.scheduler.workers))
            threads.scale(0)
            threads.scale(2)

    monkeypatch.setattr(RegionQueue, "after_leave", seen)
    with Client(threads) as client:
        helper = threading.Thread(target=change)
        helper.start()
        plan = plan_regions("t", (2, 2), (2, 2), lambda _: 1, Resources(2**31, shards_per_side=1))
        step = replace(a_step(tmp_path), plan=plan, kernel=until_left)
        try:
            with pytest.raises(RegionsFailedError, match="takes longer than their time"):
                run(step, tmp_path, DaskDriver(client))
        finally:
            (tmp_path / "left-over").touch()
            over.set()
            helper.join()


def in_thread(folder: Path, region: Region) -> int:
    """As `work`, once more workers than at first have left a trace of their thread."""
    (folder / f"thread-{threading.get_ident()}").touch()
    until(lambda: len(list(folder.glob("thread-*"))) > 2)
    return work(folder, region)


def test_workers_that_come_later_get_regions(threads: LocalCluster, tmp_path: Path) -> None:
    with Client(threads) as client:

        def join() -> None:
            until(lambda: list(tmp_path.glob("thread-*")))
            threads.scale(6)

        helper = threading.Thread(target=join)
        helper.start()
        run(replace(a_step(tmp_path), kernel=in_thread), tmp_path, DaskDriver(client))
        helper.join()
    all_once(tmp_path)
    assert len(list(tmp_path.glob("thread-*"))) > 2


def test_workers_of_two_threads_are_refused() -> None:
    with (
        threads_cluster(1, threads_per_worker=2) as cluster,
        pytest.raises(InputError, match="2 threads") as refused,
        open_driver(cluster.scheduler_address, 0, LIMIT),
    ):
        pass
    assert "--nthreads 1" in refused.value.remedy


@pytest.fixture
def dask_command(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts ``dask scheduler`` and ``dask worker``, and ends them."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *map(str, words)]
        paths = {"PYTHONPATH": str(Path(__file__).parent)}
        with (tmp_path / "dask.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | paths)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.full
def test_a_scheduler_that_is_killed_ends_the_run_soon_and_another_continues(
    dask_command: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_workers, "CONNECT_WITHIN", "10s")  # for so long it looks for one that is gone, too
    (tmp_path / "seconds").write_text("0.5")

    def start(name: str) -> tuple[str, subprocess.Popen[bytes]]:
        file = tmp_path / f"{name}.json"
        scheduler = dask_command(
            "scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", file
        )
        until(file.exists)
        dask_command("worker", "--scheduler-file", file, "--nthreads", 1, "--no-dashboard", "--no-nanny")
        with Client(scheduler_file=str(file)) as client:
            client.wait_for_workers(1, timeout=300)
        return str(file), scheduler

    where, scheduler = start("first")

    def kill() -> None:
        until(lambda: len(calls(tmp_path)) > 2)
        scheduler.kill()

    with open_driver(where, 0, LIMIT) as driver:
        helper = threading.Thread(target=kill)
        helper.start()
        with pytest.raises(ClusterError, match="scheduler is gone; what is done is kept"):
            run(a_step(tmp_path), tmp_path, driver)
        helper.join()
    done = len(recorded(tmp_path))
    assert 1 <= done < REGIONS
    where, _ = start("second")
    (tmp_path / "seconds").unlink()
    with open_driver(where, 0, LIMIT) as driver:
        assert run(a_step(tmp_path), tmp_path, driver).regions == REGIONS - done
    assert list(recorded(tmp_path).values()) == [1] * REGIONS


def test_a_cluster_without_workers_is_given_up(
    threads: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_driver, "WAIT_FOR_WORKERS_S", 1.0)
    with Client(threads) as client:
        threads.scale(0)
        with pytest.raises(ClusterError, match="No worker"):
            run(a_step(tmp_path), tmp_path, DaskDriver(client))
