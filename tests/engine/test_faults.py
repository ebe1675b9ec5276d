"""What becomes of a step when workers die, hang, lose their files or leave, and when the scheduler goes."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster

from iscale.engine import dask_driver, waiting
from iscale.engine.attempt import attempt
from iscale.engine.connect import LocalDriver
from iscale.engine.dask_driver import DaskDriver
from iscale.engine.drivers import Driver, SerialDriver, open_driver
from iscale.engine.execute import StepReport, execute
from iscale.engine.ledger import Ledger, fingerprint
from iscale.engine.local_cluster import SETTINGS
from iscale.engine.plan import Resources, plan_regions
from iscale.engine.step import Step
from iscale.errors import ClusterError, InputError, RegionsFailedError, StoreError, StoreUnreachableError
from iscale.geometry import Region
from iscale.progress import Silence, for_terminal

REGIONS = 12
LIMIT = 600 * 2**20


def told(folder: Path, what: str, name: str) -> bool:
    """Whether a file tells to do something to a region; it holds how often, and counts down."""
    path = folder / f"{what}-{name}"
    if not path.exists():
        return False
    left = int(path.read_text() or 1)
    if left > 1:
        path.write_text(str(left - 1))
    else:
        path.unlink()
    return True


def work(folder: Path, region: Region) -> int:
    """Leave a trace of every call, with the process that ran it; do as files in the folder tell."""
    name = f"{region.y0}-{region.x0}"
    with (folder / f"calls-{name}").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if told(folder, "kill", name):
        os.kill(os.getpid(), signal.SIGKILL)
    if told(folder, "stop", name):
        os.kill(os.getpid(), signal.SIGSTOP)
    if told(folder, "silent", name):
        time.sleep(600)
    if told(folder, "grow", name):
        kept = []
        while True:
            kept.append(bytes(b"x" * (16 * 2**20)))
            time.sleep(0.02)
    if told(folder, "stale", name):
        raise OSError(errno.ESTALE, "Stale file handle", "shard")
    if told(folder, "unreachable", name):
        raise StoreUnreachableError("run.zarr is not there.", "It was removed.")
    pace = folder / "seconds"
    time.sleep(float(pace.read_text()) if pace.exists() else 0)
    return region.area


def a_step(folder: Path) -> Step:
    plan = plan_regions("t", (5, 7), (2, 2), lambda _: 1, Resources(2**31, shards_per_side=1))
    return Step("t", work, folder, plan, fingerprint("t", {}))


def run(step: Step, folder: Path, driver: Driver) -> StepReport:
    return execute(step, driver, Ledger(folder / "ledger", step.name), Silence())


def calls(folder: Path) -> dict[str, list[str]]:
    """Processes that were at a region, by its name, in order."""
    return {path.name.removeprefix("calls-"): path.read_text().split() for path in folder.glob("calls-*")}


def recorded(folder: Path) -> Counter[tuple[int, ...]]:
    """How often each region stands in the ledger."""
    lines = [json.loads(line) for line in (folder / "ledger" / "t.jsonl").read_text().splitlines() if line]
    return Counter(tuple(line["region"]) for line in lines[1:])


def all_once(folder: Path, again: str = "", times: int = 1) -> None:
    """Every region stands once in the ledger and was computed once, but one so many times."""
    assert list(recorded(folder).values()) == [1] * REGIONS
    counts = {name: len(pids) for name, pids in calls(folder).items()}
    assert counts == dict.fromkeys(counts, 1) | ({again: times} if again else {})


def until(what: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def processes() -> Iterator[LocalDriver]:
    """Two workers that are processes, as ``--dask local`` starts them."""
    with open_driver("local", 2, LIMIT) as driver:
        assert isinstance(driver, LocalDriver)
        until(lambda: len(driver.started.workers) == 2)
        yield driver


@pytest.fixture
def both(processes: LocalDriver) -> LocalDriver:
    """The same, both there, whatever became of them in the test before."""
    until(lambda: len(processes.started.workers) == 2)
    return processes


@pytest.fixture
def threads() -> Iterator[LocalCluster]:
    """Two workers that are threads of this process: quick to start, for what kills none."""
    with threads_cluster(2) as cluster:
        yield cluster


def threads_cluster(workers: int, threads_per_worker: int = 1) -> LocalCluster:
    with dask.config.set({**SETTINGS, "distributed.worker.preload": []}):
        return LocalCluster(
            n_workers=workers,
            processes=False,
            threads_per_worker=threads_per_worker,
            memory_limit=0,
            dashboard_address=None,
        )


def test_a_killed_worker_costs_one_attempt_at_one_region(both: LocalDriver, tmp_path: Path) -> None:
    (tmp_path / "kill-2-2").touch()
    assert run(a_step(tmp_path), tmp_path, both).regions == REGIONS
    all_once(tmp_path, again="2-2", times=2)
    assert len(set(calls(tmp_path)["2-2"])) == 2


def test_a_region_that_kills_three_workers_is_given_up_and_the_others_are_done(
    both: LocalDriver, tmp_path: Path
) -> None:
    (tmp_path / "kill-2-4").write_text("99")
    with pytest.raises(
        RegionsFailedError, match=r"1 of 12 regions failed.\n    y 2:4, x 4:6: 3 workers died"
    ) as failed:
        run(a_step(tmp_path), tmp_path, both)
    assert failed.value.exit_code == 3
    assert "3 were killed from outside" in str(failed.value)
    assert len(recorded(tmp_path)) == REGIONS - 1
    assert len(set(calls(tmp_path)["2-4"])) == 3
    (tmp_path / "kill-2-4").unlink()
    assert run(a_step(tmp_path), tmp_path, both).regions == 1
    all_once(tmp_path, again="2-4", times=4)


def test_a_region_that_takes_too_much_memory_is_given_up_and_that_is_said(both: LocalDriver, tmp_path: Path) -> None:
    (tmp_path / "grow-0-0").write_text("99")
    with pytest.raises(RegionsFailedError, match=r"y 0:2, x 0:2: 3 workers .*: 3 took more than the 629 MB"):
        run(a_step(tmp_path), tmp_path, both)
    assert len(recorded(tmp_path)) == REGIONS - 1


def test_a_worker_of_which_nothing_is_heard_is_restarted_and_its_region_done_by_another(
    both: LocalDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_driver, "SILENCE_S", 1.5)
    (tmp_path / "silent-4-4").touch()
    run(a_step(tmp_path), tmp_path, both)
    all_once(tmp_path, again="4-4", times=2)
    assert len(set(calls(tmp_path)["4-4"])) == 2


def test_a_region_that_never_tells_anything_is_given_up(
    both: LocalDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_driver, "SILENCE_S", 1.0)
    monkeypatch.setattr(waiting, "MOST_DEATHS", 1)
    (tmp_path / "silent-4-4").touch()
    with pytest.raises(RegionsFailedError, match=r"y 4:5, x 4:6: .* nothing was heard of them for 1 s"):
        run(a_step(tmp_path), tmp_path, both)
    assert len(recorded(tmp_path)) == REGIONS - 1


def test_a_worker_that_hangs_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "stop-0-4").touch()
    with (
        # Dask would look once, so long after a worker died, and not bear with one that is just being started again.
        dask.config.set({"distributed.scheduler.worker-ttl": "2s", "distributed.deploy.lost-worker-timeout": "50ms"}),
        open_driver("local", 2, LIMIT) as driver,
    ):
        assert isinstance(driver, LocalDriver)
        run(a_step(tmp_path), tmp_path, driver)
        until(lambda: len(driver.started.workers) == 2)
        time.sleep(1)
        assert len(driver.started.workers) == 2, "and it stays"
        all_once(tmp_path, again="0-4", times=2)
        stopped = int(calls(tmp_path)["0-4"][0])
    until(lambda: not Path(f"/proc/{stopped}").exists())


@pytest.mark.parametrize("what", ["stale", "unreachable"])
def test_a_worker_that_does_not_reach_its_files_for_a_while_is_waited_for(
    threads: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(waiting, "SECONDS_BEFORE", (0.1, 0.2, 0.3))
    monkeypatch.setattr(dask_driver, "LOOK_EVERY_S", 0.1)
    (tmp_path / f"{what}-2-2").write_text("3")
    with Client(threads) as client:
        run(a_step(tmp_path), tmp_path, DaskDriver(client))
        all_once(tmp_path, again="2-2", times=4)
        (tmp_path / "ledger" / "t.jsonl").unlink()
        (tmp_path / f"{what}-2-2").write_text("4")
        with pytest.raises(RegionsFailedError, match=r"y 2:4, x 2:4: .*(Stale|is not there).* \(on "):
            run(a_step(tmp_path), tmp_path, DaskDriver(client))
    assert len(recorded(tmp_path)) == REGIONS - 1


def unmounted(output: Path, region: Region) -> int:
    """Lose the output while a region is computed, the first time."""
    if told(output.parent, "lose", f"{region.y0}-{region.x0}"):
        output.unlink()
        threading.Timer(0.5, output.touch).start()
        time.sleep(0.1)
    return region.area


def test_a_region_whose_output_vanished_meanwhile_is_done_again(
    threads: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "SECONDS_BEFORE", (1.0, 1.0))
    output = tmp_path / "output"
    output.touch()
    (tmp_path / "lose-2-2").touch()
    seen: list[float] = []

    def slow(paths: Any) -> bool:
        """As another machine sees it, on which the file is not gone."""
        seen.append(time.monotonic())
        return True

    monkeypatch.setattr(dask_driver, "all_there", slow)
    step = replace(a_step(tmp_path), kernel=unmounted, context=output, outputs=(output,))
    with Client(threads) as client:
        assert run(step, tmp_path, DaskDriver(client)).regions == REGIONS
    assert seen, "what failed was put back"
    assert list(recorded(tmp_path).values()) == [1] * REGIONS


def test_where_this_process_lost_the_output_too_nothing_is_waited_for(
    threads: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "SECONDS_BEFORE", (60.0,))
    output = tmp_path / "output"
    output.touch()
    step = replace(a_step(tmp_path), outputs=(output,))
    (tmp_path / "unreachable-2-2").touch()
    monkeypatch.setattr(dask_driver, "all_there", lambda paths: paths != (output,))
    with Client(threads) as client, pytest.raises(RegionsFailedError, match="1 of 12"):
        run(step, tmp_path, DaskDriver(client))


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


def test_a_region_that_takes_longer_than_any_worker_stays_is_given_up(
    threads: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_driver, "GONE_S", 0.2)
    monkeypatch.setattr(dask_driver, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(waiting, "MOST_LEAVES", 2)
    (tmp_path / "seconds").write_text("2")
    over = threading.Event()

    def change() -> None:
        while not over.wait(0.5):
            threads.sync(threads.scheduler.retire_workers, list(threads.scheduler.workers))
            threads.scale(0)
            threads.scale(2)

    with Client(threads) as client:
        helper = threading.Thread(target=change)
        helper.start()
        plan = plan_regions("t", (2, 2), (2, 2), lambda _: 1, Resources(2**31, shards_per_side=1))
        with pytest.raises(RegionsFailedError, match="takes longer than their time"):
            run(replace(a_step(tmp_path), plan=plan), tmp_path, DaskDriver(client))
        over.set()
        helper.join()


def in_thread(folder: Path, region: Region) -> int:
    """As `work`, and leave a trace of the thread, which is a worker's."""
    (folder / f"thread-{threading.get_ident()}").touch()
    return work(folder, region)


def test_workers_that_come_later_get_regions(threads: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "seconds").write_text("0.3")
    with Client(threads) as client:

        def join() -> None:
            until(lambda: calls(tmp_path))
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


def test_a_scheduler_that_is_killed_ends_the_run_soon_and_another_continues(
    dask_command: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "seconds").write_text("0.5")

    def start(name: str) -> tuple[str, subprocess.Popen[bytes]]:
        file = tmp_path / f"{name}.json"
        scheduler = dask_command(
            "scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", file
        )
        until(file.exists)
        dask_command("worker", "--scheduler-file", file, "--nthreads", 1, "--no-dashboard", "--no-nanny")
        with Client(scheduler_file=str(file)) as client:
            client.wait_for_workers(1, timeout=30)
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
        start_of_close = time.monotonic()
    assert time.monotonic() - start_of_close < 10
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


def full(folder: Path, region: Region) -> int:
    raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_a_full_disk_stops_the_run_in_whatever_words(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No space left on device"):
        attempt(full, tmp_path, Region(0, 1, 0, 1))


def test_a_full_disk_that_the_driver_meets_first_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Ledger, "record", no_room)
    with pytest.raises(StoreError, match="No space left on device") as stopped:
        run(a_step(tmp_path), tmp_path, SerialDriver())
    assert "the same command continues" in stopped.value.remedy


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError])
def test_the_terminal_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def stopped(folder: Path, region: Region) -> int:
        time.sleep(0.2)
        raise error("stopped")

    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        watcher = for_terminal()
        with pytest.raises(error):
            execute(replace(a_step(tmp_path), kernel=stopped), SerialDriver(), Ledger(tmp_path, "t"), watcher)
        terminal.write("END")
        terminal.flush()
        shown = b""
        while not shown.endswith(b"END"):
            shown += screen.read(10_000)
    assert 0 <= shown.rfind(b"\x1b[?25l") < shown.rfind(b"\x1b[?25h"), "the cursor was hidden, and is there again"
    assert [thread.name for thread in threading.enumerate() if "rich" in type(thread).__module__] == []
