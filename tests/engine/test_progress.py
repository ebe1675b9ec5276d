"""What a kernel tells is heard while its region runs, seldom, and only while somebody listens."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iscale.engine import progress
from iscale.engine.dask_workers import LocalDriver
from iscale.engine.drivers import Driver, SerialDriver
from iscale.engine.execute import execute
from iscale.engine.ledger import Ledger
from iscale.engine.plan import Resources, plan_regions
from iscale.engine.progress import ALMOST, Tally, listening, progress_between, tell
from iscale.engine.step import Kernel, Step
from iscale.engine.watchers import Silence
from iscale.errors import InputError, RegionsFailedError
from iscale.geometry import Region
from iscale.plan.workers import open_driver

A, B, C = (Region(0, 1, x, x + 1) for x in range(3))


class Reached(Silence):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.reached: list[float] = []
        self.threads: set[int] = set()
        self.late: list[float] = []
        self.stopped = False

    def reach(self, step: str, regions_done: float) -> None:
        (self.late if self.stopped else self.reached).append(regions_done)
        self.threads.add(threading.get_ident())

    def stop(self, step: str) -> None:
        self.stopped = True


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN", 0.0)


def quarters(folder: Path, region: Region) -> None:
    """Tell three quarters, then fail where told to."""
    for done in (1, 2, 3):
        tell(done, 4)
    if (folder / f"fail-{region.x0}").exists():
        raise RuntimeError("told to fail")


def slowly(folder: Path, region: Region) -> None:
    """Tell every quarter of 1.2 seconds; where told to, the first region stops all while the second runs."""
    if region.x0 == 0 and (folder / "bad").exists():
        raise InputError("bad")
    for done in range(1, 5):
        time.sleep(0.3)
        tell(done, 4)


def run(kernel: Kernel, folder: Path, driver: Driver, regions: int = 3, watcher: Reached | None = None) -> Reached:
    watcher = watcher or Reached()
    plan = plan_regions("t", (1, regions), (1, 1), lambda _: 1, Resources(2**31, shards_per_side=1))
    step = Step("t", kernel, folder, plan, "of the test")
    try:
        execute(step, driver, Ledger(folder / "ledger", "t"), watcher)
    finally:
        assert watcher.stopped
        assert watcher.reached == sorted(watcher.reached)
    return watcher


def test_outside_a_driver_nothing_happens() -> None:
    tell(1, 2)


def test_a_region_is_heard_of_seldom_however_often_it_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[float] = []
    clock = count(0.0, 0.001)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with listening(A, lambda region, fraction: heard.append(fraction)):
        for told in range(1, 1300):
            tell(told, 10**9)
    assert len(heard) == 2
    tell(1, 2)
    assert len(heard) == 2


@pytest.mark.usefixtures("at_once")
def test_a_fraction_lies_between_none_and_all() -> None:
    heard: list[float] = []
    with listening(A, lambda region, fraction: heard.append(fraction)):
        for done, total in ((-1, 2), (1, 4), (9, 4), (0, 0)):
            tell(done, total)
    assert heard == [0, 0.25, 1]


@pytest.mark.usefixtures("at_once")
def test_tasks_in_threads_of_one_process_are_kept_apart() -> None:
    heard: list[tuple[Region, float]] = []
    together = threading.Barrier(2, timeout=300)

    def task(region: Region, done: int) -> None:
        with listening(region, lambda *what: heard.append(what)):
            together.wait()
            tell(done, 4)
            together.wait()

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(task, A, 1), pool.submit(task, B, 2)]:
            future.result()
    assert sorted(heard) == [(A, 0.25), (B, 0.5)]


def test_parts_add_up_never_fall_and_end_with_their_region() -> None:
    shown: list[float] = []
    tally = Tally(2, shown.append)
    tally.hear(A, 0.5)
    tally.hear(B, 0.25)
    assert shown == [2.5, 2.75]
    tally.hear(A, 0.125)  # a worker died, and another began anew
    tally.over(B, done=False)
    tally.hear(B, 0.75)  # late
    assert shown == [2.5, 2.75]
    tally.over(A, done=True)
    tally.hear(C, 1.0)  # its outcome is still to come
    assert shown == [2.5, 2.75, 3, 3 + ALMOST]
    tally.close()
    tally.hear(C, 1.0)
    assert len(shown) == 4


@pytest.mark.usefixtures("at_once")
def test_the_serial_driver_passes_on_what_kernels_tell(tmp_path: Path) -> None:
    assert run(quarters, tmp_path, SerialDriver(), 2).reached == [0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]


@pytest.mark.usefixtures("at_once")
def test_the_part_of_a_failed_region_is_dropped_and_a_resumed_step_starts_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "fail-0").touch()
    with pytest.raises(RegionsFailedError):
        run(quarters, tmp_path, SerialDriver())
    (tmp_path / "fail-0").unlink()
    assert run(quarters, tmp_path, SerialDriver()).reached == [2.25, 2.5, 2.75, 3]


def subscribed(dask_scheduler: Any) -> list[str]:
    """Topics of ours that somebody subscribes to."""
    topics = dask_scheduler._broker._topics
    return [name for name, topic in topics.items() if name.startswith("iscale") and topic.subscribers]


def test_dask_workers_tell_the_client_until_the_step_is_over(tmp_path: Path) -> None:
    with open_driver("local", 2, 2**31) as driver:
        assert isinstance(driver, LocalDriver)
        watcher = run(slowly, tmp_path, driver)
        assert watcher.reached[-1] == 3
        assert any(value % 1 for value in watcher.reached)
        assert len(watcher.threads) == 2

        stopped, folder = Reached(), tmp_path / "anew"
        folder.mkdir()
        (folder / "bad").touch()
        with pytest.raises(InputError):
            run(slowly, folder, driver, watcher=stopped)
        time.sleep(1)  # the other region runs on, and tells
        assert stopped.late == watcher.late == []
        assert driver.started._client.run_on_scheduler(subscribed) == []


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Region, float]]]:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN", 0.0)
    fractions: list[tuple[Region, float]] = []
    region = Region(2, 3, 4, 5)
    with listening(region, lambda *told: fractions.append(told)):
        yield fractions
    assert all(told[0] == region for told in fractions)


def test_what_is_told_in_a_part_goes_to_its_share(heard: list[tuple[Region, float]]) -> None:
    with progress_between(0.2, 0.6):
        tell(1, 2)
        tell(2, 2)
    tell(9, 10)
    assert [fraction for _, fraction in heard] == pytest.approx([0.4, 0.6, 0.9])


def test_parts_lie_within_parts(heard: list[tuple[Region, float]]) -> None:
    with progress_between(0.5, 1.0):
        with progress_between(0.0, 0.5):
            tell(1, 2)
        with progress_between(0.5, 1.0):
            tell(1, 2)
    assert [fraction for _, fraction in heard] == pytest.approx([0.625, 0.875])


def test_nobody_need_listen() -> None:
    with progress_between(0.0, 1.0):
        tell(1, 2)
