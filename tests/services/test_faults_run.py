"""Whole runs with real processes, disturbed by real signals, full disks and lost file systems."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from distributed import Client
from disturbed import LOCAL, REGIONS, Started, check_same, recorded, reused, until

pytestmark = pytest.mark.cluster


@pytest.fixture
def out(tmp_path: Path, begun: Path) -> Path:
    """An output folder in which features are next."""
    return Path(shutil.copytree(begun, tmp_path / "out"))


@pytest.fixture
def start(demo_project: Path, out: Path, tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts runs, and ends those that a test leaves behind."""
    runs: list[Started] = []

    def start(dask: tuple[str, ...] = LOCAL, out: Path = out, **options: str) -> Started:
        runs.append(Started(demo_project, out, dask, told=tmp_path / f"told-{len(runs)}", **options))
        return runs[-1]

    yield start
    for run in runs:
        run.process.kill()
        run.process.wait()


def test_a_worker_that_is_killed(start: Callable[..., Started], out: Path, undisturbed: Path) -> None:
    run = start()
    run.until_regions(2)
    torn = out / "run.zarr" / "features" / "shard.partial"
    torn.write_text("as one that is killed while it writes leaves it")
    run.workers()[0].kill()
    run.ends()
    check_same(out, undisturbed)


def test_a_worker_that_hangs(start: Callable[..., Started], out: Path, undisturbed: Path) -> None:
    run = start(DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="5s")
    run.until_regions(2)
    worker = run.workers()[0]
    worker.suspend()
    run.ends()
    assert not worker.is_running()
    check_same(out, undisturbed)


def test_the_program_itself_is_killed(start: Callable[..., Started], out: Path, undisturbed: Path) -> None:
    run = start()
    run.until_regions(2)
    assert len(run.workers()) == 2
    run.process.kill()
    run.process.wait()
    until(lambda: not run.left(), lambda: "\n".join(run.left()))
    done = len(recorded(out, "features"))
    start().ends()
    assert reused(out) == done
    check_same(out, undisturbed)


def test_told_to_stop_a_closed_shell_and_ctrl_c(start: Callable[..., Started], out: Path, undisturbed: Path) -> None:
    ways = (
        ("SIGTERM, as batch systems send", lambda run: run.process.send_signal(signal.SIGTERM)),
        ("The shell was closed (SIGHUP", lambda run: os.killpg(run.process.pid, signal.SIGHUP)),
        ("Interrupted", lambda run: os.killpg(run.process.pid, signal.SIGINT)),
    )
    for regions, (words, stop) in zip((1, 3, 5), ways, strict=True):
        run = start()
        run.until_regions(regions)
        stop(run)
        told = run.ends(130)
        assert words in told
        assert told.rstrip().endswith("what is done is kept.\n  The same command continues."), "one message, and last"
        assert "KeyboardInterrupt" not in told
        until(lambda run=run: not run.left(), lambda run=run: "\n".join(run.left()))
    done = len(recorded(out, "features"))
    start().ends()
    assert reused(out) == done
    check_same(out, undisturbed)


@pytest.mark.parametrize("again", [0, 1], ids=["once", "twice"])
def test_ctrl_c_while_workers_start(start: Callable[..., Started], again: int) -> None:
    run = start()
    run.until(run.workers)
    os.killpg(run.process.pid, signal.SIGINT)
    for _ in range(again):
        run.until(lambda: True)
        os.killpg(run.process.pid, signal.SIGINT)
    told = run.ends(130)
    assert told.rstrip().endswith("The same command continues.")
    assert "KeyboardInterrupt" not in told
    until(lambda: not run.left(), lambda: "\n".join(run.left()))


def test_two_at_once(start: Callable[..., Started], out: Path, undisturbed: Path) -> None:
    first = start()
    first.until_regions(1)
    first.process.send_signal(signal.SIGSTOP)  # or it might be through before the others have looked
    told = start().ends(2)
    assert re.search(
        rf"another iscale run is at work here \(process {first.process.pid} on \S+, since .* for 0:0", told
    )
    status = subprocess.check_output([sys.executable, "-m", "iscale", "status", str(out)], text=True)
    assert f"at work: process {first.process.pid} on " in status
    first.process.send_signal(signal.SIGCONT)
    first.ends()
    check_same(out, undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here: run this as root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk(start: Callable[..., Started], small_disk: Path, begun: Path, undisturbed: Path) -> None:
    out = small_disk / "out"
    shutil.copytree(begun, out)
    run = start(out=out)
    run.until_regions(2)
    other = small_disk / "of-others"
    filled = subprocess.run(["dd", "if=/dev/zero", f"of={other}", "bs=64k"], capture_output=True, text=True)
    assert "No space left on device" in filled.stderr
    told = run.ends(2)
    assert re.search(r"Error: Cannot write .*: No space left on device\.\n  Make room", told)
    done = len(recorded(out, "features"))
    other.unlink()
    start(out=out).ends()
    assert reused(out) == done
    check_same(out, undisturbed)


def test_a_node_that_loses_the_file_system_for_a_while(
    start: Callable[..., Started], out: Path, tmp_path: Path, undisturbed: Path
) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("a process cannot have mounts of its own here: run this as root")
    file = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    worker = [*dask, "worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard"]
    elsewhere = ["unshare", "--mount", "--propagation", "private", *worker, "--name", "elsewhere", "--no-nanny"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = [
        *dask,
        "scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--no-dashboard",
        "--scheduler-file",
        str(file),
    ]
    started = [subprocess.Popen(scheduler, **quiet)]
    try:
        until(file.exists)
        started += [subprocess.Popen(command, **quiet) for command in ([*worker, "--no-nanny"], elsewhere)]
        with Client(scheduler_file=str(file)) as client:
            client.wait_for_workers(2, timeout=600)
            there = {w["name"]: address for address, w in client.scheduler_info(n_workers=-1)["workers"].items()}
            run = start(("--dask", str(file)))
            run.until_regions(1)
            inside = ["nsenter", "--mount", f"--target={started[2].pid}"]
            subprocess.run([*inside, "mount", "-t", "tmpfs", "nothing", str(out)], check=True)
            seen = client.run(os.listdir, str(out), workers=[there["elsewhere"]])
            assert "report.json" not in next(iter(seen.values())), "its folder is another"
            run.until_regions(min(REGIONS, len(recorded(out, "features")) + 3))
            subprocess.run([*inside, "umount", str(out)], check=True)
            run.ends()
            assert started[2].poll() is None, "nobody restarted it"
    finally:
        for process in started:
            process.kill()
            process.wait()
    check_same(out, undisturbed)


def test_nothing_stands_in_the_way_of_a_signal_that_is_ignored(start: Callable[..., Started], out: Path) -> None:
    run = start(patch="import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    run.until_regions(1)
    os.killpg(run.process.pid, signal.SIGHUP)
    run.until_regions(2)
    assert psutil.pid_exists(run.process.pid)
